//! Waiters and those who wake them, killed at every step: nobody's wake-up is lost for longer than a slice.

use crate::common::trace::sleeper::Sleeper;
use crate::common::trace::{Traced, is_full_run, kill_sleepers};
use crate::common::{PATIENCE, alone};
use crate::hall::{Author, Hall, Message, SLOTS, commit, consumer, receive};
use ringway::Takeover::Redeliver;
use ringway::mpmc::Consumer;
use std::cell::Cell;
use std::time::Instant;

const WAITS: [&str; 5] = ["futex", "sem", "named-sem", "sysv-sem", "fifo"];

fn options(wait: &str) -> String {
    format!("producers=2&max_message=64&wait={wait}")
}

/// It says which message of its lane it got.
fn sleeping_consumer(hall: &Hall) -> Sleeper {
    let wait = |consumer: Consumer| {
        let message = consumer.recv_timeout(PATIENCE).unwrap();
        Message::read(&message, message.tag()).sequence as u8
    };
    Sleeper::new(|| consumer(&hall.scratch, Redeliver), wait)
}

fn a_consumer_that_waits_for_a_message(wait: &str) {
    const FIRST: u64 = 70;
    let longest = Cell::default();
    let one_in = if wait == "futex" { 4 } else { 16 };
    kill_sleepers(
        &format!("mpmc, wait={wait}: wait for a message, read and release it"),
        || {
            let mut hall = Hall::new(1, &options(wait));
            hall.pass(0, FIRST);
            let prepare = || {
                let victim = consumer(&hall.scratch, Redeliver);
                // It looks for what was put back once, before.
                assert!(victim.try_recv().is_err());
                victim
            };
            let child = Traced::start_sleepy(prepare, |consumer| receive(consumer));
            // Notified after the victim, because it came later.
            let sleeper = sleeping_consumer(&hall);
            ((hall, sleeper), child)
        },
        |(hall, _)| hall.authors[0].send(),
        |(mut hall, mut sleeper), place| {
            let found = hall.check();
            let held = found.held_by(1);
            let given_back = held == 0 && found.heads[0] > FIRST;
            let patient = Sleeper::is_awaited(place, one_in);
            if patient {
                if found.unclaimed.is_empty() {
                    sleeper.lie_down();
                } else {
                    sleeper.go();
                }
                let since = Instant::now();
                hall.authors[0].send();
                hall.books.note(0, sleeper.wake_up(since, &longest).into());
            } else {
                drop(sleeper);
            }
            hall.check_others_go_on();
            assert_eq!(hall.recover(), 1 + u32::from(!patient));
            hall.check_others_go_on();
            assert!(given_back || !place.ended);
            hall.check_all_is_free(if given_back { &[(0, FIRST)] } else { &[] });
        },
    );
    let longest = longest.get();
    println!("one sleeper in {one_in} awaited, or all with RINGWAY_FULL=1; woken after {longest:.1?} at most");
}

fn a_producer_that_waits_for_room(wait: &str) {
    kill_sleepers(
        &format!("mpmc, wait={wait}: wait for room, write and commit"),
        || {
            let hall = Hall::new(1, &options(wait));
            let prepare = || {
                let mut victim = Author::join(&hall.scratch, 9, 0);
                assert_eq!(victim.fill(false), SLOTS);
                victim
            };
            let child = Traced::start_sleepy(prepare, |author: &mut Author| {
                let payload = author.payload(0, false);
                commit(author.producer.reserve(payload.len).unwrap(), payload);
            });
            (hall, child)
        },
        |hall| {
            hall.books.enter(&hall.witness.try_recv().unwrap());
        },
        |mut hall, place| {
            hall.check();
            hall.check_others_go_on();
            let sent = hall.books.deliveries(1, SLOTS).is_some();
            assert!(sent || !place.ended);
            assert_eq!(hall.recover(), 1);
            let successor = Author::join(&hall.scratch, 3, SLOTS + u64::from(sent));
            hall.authors.push(successor);
            hall.check_others_go_on();
            hall.check_all_is_free(&[]);
        },
    );
}

fn a_producer_that_wakes_a_consumer(wait: &str) {
    let longest = Cell::default();
    kill_sleepers(
        &format!("mpmc, wait={wait}: reserve, write, commit, and wake one who sleeps"),
        || {
            let hall = Hall::new(1, &options(wait));
            let mut sleeper = sleeping_consumer(&hall);
            let prepare = || {
                let mut victim = Author::join(&hall.scratch, 9, 0);
                victim.send();
                victim
            };
            let child = Traced::start_waking(prepare, |author: &mut Author| {
                let payload = author.payload(0, false);
                commit(author.producer.reserve(payload.len).unwrap(), payload);
            });
            let mut hall = hall;
            hall.drain();
            sleeper.lie_down();
            ((hall, sleeper), child)
        },
        |_| {},
        |(mut hall, sleeper), place| {
            let since = Instant::now();
            let found = hall.check();
            let sent = found.heads[1] + found.unclaimed.len() as u64 > 1;
            if sent {
                assert_eq!(sleeper.wake_up(since, &longest), 1);
                hall.books.note(1, 1);
            } else {
                hall.authors[0].send();
                assert_eq!(sleeper.wake_up(since, &longest), 0);
                hall.books.note(0, 0);
            }
            assert!(sent || !place.ended);
            check_lane_goes_on(&mut hall, 1, 1 + u64::from(sent), &[]);
        },
    );
    println!("woken after {:.1?} at most", longest.get());
}

fn a_consumer_that_wakes_a_producer(wait: &str) {
    let longest = Cell::default();
    kill_sleepers(
        &format!("mpmc, wait={wait}: recv, read, release, and wake one who waits for room"),
        || {
            let hall = Hall::new(0, &options(wait));
            let prepare = || {
                let victim = consumer(&hall.scratch, Redeliver);
                assert!(victim.try_recv().is_err());
                victim
            };
            let child = Traced::start_waking(prepare, |consumer| receive(consumer));
            let mut sleeper = Sleeper::new(
                || Author::join(&hall.scratch, 9, 0),
                |mut author| {
                    author.fill(false);
                    let payload = author.payload(0, false);
                    commit(author.producer.reserve_timeout(payload.len, PATIENCE).unwrap(), payload) as u8
                },
            );
            sleeper.lie_down();
            ((hall, sleeper), child)
        },
        |_| {},
        |(mut hall, sleeper), place| {
            let since = Instant::now();
            let found = hall.check();
            let given_back = found.held_by(1) == 0 && found.heads[0] > 0;
            assert!(given_back || !place.ended);
            if !given_back {
                hall.drain();
            }
            assert_eq!(u64::from(sleeper.wake_up(since, &longest)), SLOTS);
            check_lane_goes_on(&mut hall, 0, SLOTS + 1, if given_back { &[(0, 0)] } else { &[] });
        },
    );
    println!("woken after {:.1?} at most", longest.get());
}

/// The usual strategies, or in a full run all.
fn usual_or<'a>(usual: &'a [&'a str], all: &'a [&'a str]) -> &'a [&'a str] {
    println!("with {}; or with RINGWAY_FULL=1, {}", usual.join(", "), all.join(", "));
    if is_full_run() { all } else { usual }
}

/// One has died; a successor takes the lane, whose next message is number `next`.
#[track_caller]
fn check_lane_goes_on(hall: &mut Hall, lane: u32, next: u64, but: &[(u32, u64)]) {
    hall.check_others_go_on();
    assert_eq!(hall.recover(), 1);
    hall.drain();
    let successor = Author::join(&hall.scratch, 3, next);
    assert_eq!(successor.producer.lane(), lane);
    hall.authors.push(successor);
    hall.check_others_go_on();
    hall.check_all_is_free(but);
}

#[test]
fn one_that_waits_for_a_message() {
    let _alone = alone();
    usual_or(&WAITS[..2], &WAITS).iter().for_each(|wait| a_consumer_that_waits_for_a_message(wait));
}

#[test]
fn one_that_waits_for_room() {
    let _alone = alone();
    usual_or(&WAITS[..2], &WAITS).iter().for_each(|wait| a_producer_that_waits_for_room(wait));
}

#[test]
fn one_that_sends_to_a_sleeper() {
    let _alone = alone();
    usual_or(&WAITS[..1], &WAITS[..2]).iter().for_each(|wait| a_producer_that_wakes_a_consumer(wait));
}

#[test]
fn one_that_makes_room_for_a_sleeper() {
    let _alone = alone();
    usual_or(&WAITS[..1], &WAITS[..2]).iter().for_each(|wait| a_consumer_that_wakes_a_producer(wait));
}
