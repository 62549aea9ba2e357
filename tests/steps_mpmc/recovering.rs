//! Recoverers and those who take over a lane, killed after each store to shared memory, and before and after each system call:
//! the next one finishes.

use crate::common::alone;
use crate::common::trace::Traced;
use crate::common::trace::marks::kill_at_each_mark;
use crate::common::trace::sleeper::Sleeper;
use crate::hall::{Author, Hall, SLOTS, commit, consumer};
use ringway::Takeover;
use ringway::Takeover::Redeliver;
use ringway::mpmc::Consumer;

/// How far both lanes are, and how many messages in lane 0 somebody had who left with them.
const PASSED: u64 = 70;
const LEFT: u64 = 3;
/// What the dead one held: of lane 0, behind the former, two at once, one alone, and two more of three; and one of lane 1, which
/// only the head tells of, as of those three.
const HELD: [(u32, u64); 6] = [(0, 73), (0, 74), (0, 75), (0, 77), (0, 78), (1, 70)];
const GIVEN_BACK: (u32, u64) = (0, 76);

/// A ring with a dead consumer, of whose recovery the witness has to be told, or looks for something anyway.
fn with_the_dead(takeover: Takeover, must_tell: bool) -> Hall {
    let mut hall = Hall::new(2, "producers=2&max_message=64");
    hall.pass(0, PASSED);
    hall.pass(1, PASSED);
    let wait = |mut consumer: Consumer| {
        // It looks at lane 1 first.
        std::mem::forget(consumer.try_recv().unwrap());
        hold_batch(&mut consumer, 2);
        std::mem::forget(consumer.try_recv().unwrap());
        let mut batch = consumer.try_recv_batch(3).unwrap();
        assert_eq!((&mut batch).into_iter().take(1).count(), 1);
        drop(batch);
        std::mem::forget(consumer);
        0
    };
    let mut dying = Sleeper::new(|| consumer(&hall.scratch, takeover), wait);
    let mut holder = consumer(&hall.scratch, Redeliver);
    (0..LEFT).for_each(|_| hall.authors[0].send());
    std::mem::forget(holder.try_recv().unwrap());
    hold_batch(&mut holder, 2);
    hall.authors[1].send();
    (0..6).for_each(|_| hall.authors[0].send());
    dying.go();
    dying.end();
    drop(holder);
    let found = hall.check();
    assert_eq!((found.held_by(1), found.runs.len()), (HELD.len() as u32, 4 + 2));
    if must_tell {
        hall.drain();
    }
    hall
}

fn hold_batch(consumer: &mut Consumer, count: usize) {
    let mut batch = consumer.try_recv_batch(count).unwrap();
    assert_eq!((&mut batch).into_iter().count(), count);
    std::mem::forget(batch);
}

/// What each recovery, and what is left of one, must come to; says how many have died.
#[track_caller]
fn check_recovered(mut hall: Hall, takeover: Takeover, finished: bool) -> u32 {
    hall.check();
    hall.check_others_go_on();
    let deaths = hall.recover();
    hall.drain();
    for number in PASSED..PASSED + LEFT {
        assert_eq!(hall.books.deliveries(0, number), Some(1));
    }
    let (expected, counts) = match takeover {
        Takeover::Redeliver => (Some(1), (LEFT + HELD.len() as u64, 0)),
        Takeover::Drop => (None, (LEFT, HELD.len() as u64)),
    };
    for (lane, number) in HELD {
        assert_eq!(hall.books.deliveries(lane, number), expected, "message {number} of lane {lane}");
    }
    let lanes = hall.report().lanes.unwrap();
    // One that is killed before it could count leaves too few.
    assert!(lanes.redelivered <= counts.0 && lanes.dropped <= counts.1, "{lanes:?}");
    assert!(!finished || (lanes.redelivered, lanes.dropped) == counts, "{lanes:?}");
    let mut gone = if takeover == Redeliver { vec![] } else { HELD.to_vec() };
    gone.push(GIVEN_BACK);
    gone.sort_unstable();
    hall.check_all_is_free(&gone);
    deaths
}

const CASES: [(Takeover, bool); 3] =
    [(Takeover::Redeliver, false), (Takeover::Redeliver, true), (Takeover::Drop, false)];

fn shown(must_tell: bool) -> &'static str {
    if must_tell { ", nothing else put back" } else { "" }
}

#[test]
fn a_recoverer() {
    let _alone = alone();
    for (takeover, must_tell) in CASES {
        kill_at_each_mark(
            &format!("mpmc: recover; {takeover:?}{}", shown(must_tell)),
            || {
                let hall = with_the_dead(takeover, must_tell);
                let operate = |(): &mut ()| {
                    ringway::recover(hall.scratch.name().unwrap()).unwrap();
                };
                let child = Traced::start(|| {}, operate);
                (hall, child)
            },
            |hall, finished| assert_eq!(check_recovered(hall, takeover, finished), 1),
        );
    }
}

#[test]
fn a_consumer_that_recovers_by_joining() {
    let _alone = alone();
    for (takeover, must_tell) in CASES {
        kill_at_each_mark(
            &format!("mpmc: join and recover; {takeover:?}{}", shown(must_tell)),
            || {
                let hall = with_the_dead(takeover, must_tell);
                let child = Traced::start(|| None, |slot| *slot = Some(consumer(&hall.scratch, Redeliver)));
                (hall, child)
            },
            |hall, finished| {
                let deaths = check_recovered(hall, takeover, finished);
                assert!((1 + u32::from(finished)..=2).contains(&deaths), "{deaths} deaths");
            },
        );
    }
}

/// Kills who takes over a lane whose dead producer had `count` messages in a batch.
fn kill_successors(count: u64) {
    kill_at_each_mark(
        &format!("mpmc: take over a lane with {count} messages that were never published"),
        || {
            let mut hall = Hall::new(1, "producers=2&max_message=64");
            hall.authors.push(Author::join(&hall.scratch, 2, 0));
            hall.pass(1, PASSED);
            hall.authors.pop();
            let wait = |mut author: Author| {
                let payloads: Vec<_> = (0..count).map(|ahead| author.payload(ahead, false)).collect();
                let mut batch = author.producer.batch();
                for payload in payloads {
                    commit(batch.try_reserve(payload.len).unwrap(), payload);
                }
                std::mem::forget(batch);
                std::mem::forget(author);
                0
            };
            let mut dying = Sleeper::new(|| Author::join(&hall.scratch, 9, PASSED), wait);
            dying.go();
            dying.end();
            let child = Traced::start(|| None, |slot| *slot = Some(Author::join(&hall.scratch, 9, PASSED)));
            (hall, child)
        },
        |mut hall, finished| {
            hall.check();
            hall.check_others_go_on();
            assert!((1 + u32::from(finished)..=2).contains(&hall.recover()));
            hall.authors.push(Author::join(&hall.scratch, 3, PASSED));
            hall.check_others_go_on();
            hall.check_all_is_free(&[]);
        },
    );
}

#[test]
fn a_producer_that_takes_over() {
    let _alone = alone();
    kill_successors(5);
    // The last one takes the place of the last that was published.
    kill_successors(SLOTS);
}
