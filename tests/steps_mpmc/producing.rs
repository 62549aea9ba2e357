//! Producers killed between reserving and publishing: all or nothing of what was in flight, and their lane goes on.

use crate::common::alone;
use crate::common::trace::{Traced, kill_after_each};
use crate::hall::{Author, Hall, SLOTS, commit, consumer};
use ringway::Takeover;
use ringway::mpmc::Consumer;

/// With `producers` before it, the options of a ring of two lanes whose messages all fit into slots, or don't.
const SHORT: &str = "producers=2&max_message=64";
const POOLED: &str = "producers=2&max_message=1000";

const VICTIM: u64 = 9;
/// The first of three slots that are pinned; the one behind them is the last of its cache line.
const PINNED: u64 = 28;

/// The lane of a producer that is killed.
#[derive(Clone, Copy)]
struct Lane {
    options: &'static str,
    /// Whether somebody holds three slots in it.
    pinned: bool,
    /// So many slots, and one, before these, or before the lap's end, the producer begins.
    room: u64,
    /// Whether nobody receives between the death and a successor's coming.
    quiet: bool,
}

const ONE_AT_THE_END: Lane = Lane { options: SHORT, pinned: false, room: 1, quiet: false };
const TWO_AT_THE_END: Lane = Lane { room: 2, ..ONE_AT_THE_END };
const BEHIND_PINNED: Lane = Lane { pinned: true, room: 0, ..ONE_AT_THE_END };
const ACROSS_PINNED: Lane = Lane { room: 1, ..BEHIND_PINNED };

impl Lane {
    fn pooled(self) -> Self {
        Self { options: POOLED, ..self }
    }
}

/// A ring whose lane 1 was left by its producer; and who holds the pinned slots.
fn left_lane(Lane { options, pinned, room, .. }: Lane) -> (Hall, Consumer, u64) {
    let mut hall = Hall::new(1, options);
    let former = Author::join(&hall.scratch, 2, 0);
    hall.authors.push(former);
    let mut holder = consumer(&hall.scratch, Takeover::Redeliver);
    if pinned {
        hall.pass(1, PINNED);
        // One alone, and two at once: with chunks of a pool, where there is one.
        for _ in 0..3 {
            hall.authors[1].try_send(options == POOLED).unwrap();
        }
        std::mem::forget(holder.try_recv().unwrap());
        let mut batch = holder.try_recv_batch(2).unwrap();
        assert_eq!((&mut batch).into_iter().count(), 2);
        std::mem::forget(batch);
        hall.pass(1, SLOTS - 3 - room - 1);
    } else {
        hall.pass(1, 2 * SLOTS - room - 1);
    }
    let next = hall.authors.pop().unwrap().next;
    (hall, holder, next)
}

/// Kills a producer of lane 1 all through `operate`, which sends `count` messages.
fn kill_producers(what: &str, lane: Lane, count: u64, operate: impl Fn(&mut Author)) {
    let mut published = Vec::new();
    kill_after_each(
        what,
        || {
            let (hall, holder, next) = left_lane(lane);
            let prepare = || {
                let mut victim = Author::join(&hall.scratch, VICTIM, next);
                victim.send();
                victim
            };
            let child = Traced::start(prepare, &operate);
            ((hall, holder, next), child)
        },
        |(mut hall, holder, next), place| {
            let found = hall.check();
            let sent = found.unclaimed.iter().filter(|(lane, _)| *lane == 1).count() as u64;
            assert!(sent == 1 || sent == 1 + count, "{sent} messages, of 1 and {count}");
            assert!(sent > 1 || !place.ended, "what was committed is gone");
            published.push(sent > 1);
            let takes_over = |hall: &mut Hall| {
                let successor = Author::join(&hall.scratch, 3, next + sent);
                assert_eq!(successor.producer.lane(), 1);
                hall.authors.push(successor);
            };
            if lane.quiet {
                takes_over(&mut hall);
                hall.authors[1].fill(lane.options == POOLED);
                hall.drain();
            } else {
                hall.check_others_go_on();
                let arrived = (next..).take_while(|&number| hall.books.deliveries(1, number) == Some(0));
                assert_eq!(arrived.count() as u64, sent, "not all at once");
            }
            assert_eq!(hall.recover(), 1);
            hall.drain();
            if !lane.quiet {
                takes_over(&mut hall);
            }
            // With the slots still pinned.
            hall.check_others_go_on();
            drop(holder);
            let again = hall.drain();
            assert_eq!(again.iter().map(|r| r.deliveries).collect::<Vec<_>>(), vec![1; 3 * usize::from(lane.pinned)]);
            hall.check_all_is_free(&[]);
        },
    );
    // The first run is the one to the end.
    let published = &published[1..];
    assert!(published.is_sorted() && !published[0] && published[published.len() - 1], "one store publishes it all");
}

fn one(author: &mut Author) {
    let payload = author.payload(0, false);
    commit(author.producer.reserve(payload.len).unwrap(), payload);
}

fn long_one(author: &mut Author) {
    let payload = author.payload(0, true);
    commit(author.producer.reserve(payload.len).unwrap(), payload);
}

fn batch(author: &mut Author, long: [bool; 2]) {
    let payloads = [0, 1].map(|ahead| author.payload(ahead, long[ahead as usize]));
    let mut batch = author.producer.batch();
    for payload in payloads {
        commit(batch.reserve(payload.len).unwrap(), payload);
    }
    assert!(batch.publish());
}

/// What comes to nothing: a loan, and a batch.
fn give_up(author: &mut Author, len: usize) {
    author.producer.reserve(len).unwrap().fill(0xff);
    let mut batch = author.producer.batch();
    for _ in 0..2 {
        let mut grant = batch.reserve(len).unwrap();
        grant.fill(0xff);
        grant.commit(len);
    }
}

#[test]
fn a_producer_of_one_message() {
    let _alone = alone();
    kill_producers("mpmc: reserve, write, commit", ONE_AT_THE_END, 1, one);
    kill_producers("the same behind pinned slots", BEHIND_PINNED, 1, one);
    kill_producers("mpmc: reserve, write, commit in a pool", ONE_AT_THE_END.pooled(), 1, long_one);
    let quiet = Lane { quiet: true, ..ONE_AT_THE_END.pooled() };
    kill_producers("the same, with a successor before anybody receives", quiet, 1, long_one);
    kill_producers("the same behind pinned slots of that pool", BEHIND_PINNED.pooled(), 1, long_one);
}

#[test]
fn a_producer_of_a_batch() {
    let _alone = alone();
    kill_producers("mpmc: a batch of two across a lap's end", ONE_AT_THE_END, 2, |author| batch(author, [false; 2]));
    kill_producers("the same with one in a pool", ONE_AT_THE_END.pooled(), 2, |author| batch(author, [true, false]));
    kill_producers("a batch across pinned slots", ACROSS_PINNED, 2, |author| batch(author, [false; 2]));
    kill_producers("a batch behind pinned slots", BEHIND_PINNED, 2, |author| batch(author, [false; 2]));
}

#[test]
fn a_producer_that_gives_up() {
    let _alone = alone();
    kill_producers("mpmc: an aborted loan, an abandoned batch, and a message", TWO_AT_THE_END, 1, |author| {
        give_up(author, 50);
        one(author);
    });
    kill_producers("the same in a pool", TWO_AT_THE_END.pooled(), 1, |author| {
        give_up(author, 500);
        long_one(author);
    });
    kill_producers("the same across pinned slots", ACROSS_PINNED, 1, |author| {
        give_up(author, 50);
        one(author);
    });
}
