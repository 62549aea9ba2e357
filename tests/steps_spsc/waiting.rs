//! Killed while waiting or waking: nobody's wake-up is lost for longer than a slice.

use crate::common::alone;
use crate::common::trace::marks::kill_wakers;
use crate::common::trace::sleeper::Sleeper;
use crate::common::trace::{Traced, kill_sleepers, stop_sleepers};
use crate::pair::{ROOM, check_ring_works, commit, consumer, expect, fill, producer, receive, ring_with};
use ringway::Options;
use std::cell::Cell;
use std::time::Instant;

/// Rings that can be looked at by their names.
const WAITS: [&str; 5] = ["futex", "sem", "named-sem", "sysv-sem", "fifo"];
const ALL_WAITS: [&str; 6] = ["futex", "sem", "named-sem", "sysv-sem", "fifo", "eventfd"];

/// A receiver that is told of no death.
fn receiver(scratch: &crate::common::Scratch) -> ringway::Receiver {
    Options::new().keep_open(true).receiver(&scratch.address).unwrap()
}

fn a_consumer_that_waits_for_a_message(wait: &str) {
    kill_sleepers(
        &format!("spsc, wait={wait}: wait for a message, read and release it"),
        || {
            let scratch = ring_with(wait);
            let producer = producer(&scratch);
            let child = Traced::start_sleepy(|| consumer(&scratch), |consumer| assert_eq!(receive(consumer), 0));
            ((scratch, producer, 0), child)
        },
        |(_, producer, sent)| {
            commit(producer, 0);
            *sent = 1;
        },
        |(scratch, mut producer, sent), place| {
            commit(&mut producer, sent);
            let mut receiver = receiver(&scratch);
            let (first, again) = expect(&mut receiver, 0..=sent);
            assert!(first == 0 && !place.ended || first == 1 && !again);
            (first + 1..=sent).for_each(|number| assert_eq!(expect(&mut receiver, number..=number), (number, false)));
            drop((producer, receiver));
            check_ring_works(&scratch, 2);
        },
    );
}

fn a_consumer_that_is_stopped_while_it_waits(wait: &str) {
    stop_sleepers(
        &format!("spsc, wait={wait}: wait for a message, read and release it"),
        || {
            let scratch = ring_with(wait);
            let producer = producer(&scratch);
            let child = Traced::start_sleepy(|| consumer(&scratch), |consumer| assert_eq!(receive(consumer), 0));
            ((scratch, producer, 0), child)
        },
        |(_, producer, sent)| {
            commit(producer, 0);
            *sent = 1;
        },
        |(scratch, mut producer, sent), child, _| {
            if sent == 0 {
                commit(&mut producer, 0);
            }
            child.finish();
            drop(producer);
            check_ring_works(&scratch, 1);
        },
    );
}

fn a_producer_that_waits_for_room(wait: &str) {
    kill_sleepers(
        &format!("spsc, wait={wait}: wait for room, write and commit"),
        || {
            let scratch = ring_with(wait);
            let prepare = || {
                let mut producer = producer(&scratch);
                assert_eq!(fill(&mut producer, 0), ROOM);
                producer
            };
            let receiver = receiver(&scratch);
            let child = Traced::start_sleepy(prepare, |producer| commit(producer, ROOM));
            ((scratch, receiver, 0), child)
        },
        |(_, receiver, received)| {
            expect(receiver, 0..=0);
            *received = 1;
        },
        |(scratch, mut receiver, received), place| {
            let mut next = received;
            while let Ok(message) = receiver.try_recv() {
                assert_eq!(crate::common::payload::number(&message), next);
                next += 1;
            }
            assert!((ROOM..=ROOM + received).contains(&next), "{next} messages");
            assert!(next > ROOM || !place.ended);
            drop(receiver);
            check_ring_works(&scratch, 1000);
        },
    );
}

fn a_producer_that_wakes_the_consumer(wait: &str) {
    let longest = Cell::default();
    kill_wakers(
        wait,
        &format!("spsc, wait={wait}: reserve, write, commit, and wake one who sleeps"),
        || {
            let scratch = ring_with(wait);
            let child = Traced::start_waking(|| producer(&scratch), |producer| commit(producer, 0));
            let mut sleeper = Sleeper::new(|| consumer(&scratch), |mut consumer| receive(&mut consumer) as u8);
            sleeper.lie_down();
            ((scratch, sleeper), child)
        },
        |(scratch, sleeper), ended| {
            let since = Instant::now();
            let report = ringway::inspect(scratch.name().unwrap()).unwrap();
            // It may be in hands already.
            let sent = report.positions.unwrap().published != Some(0);
            assert!(sent || !ended);
            if !sent {
                commit(&mut producer(&scratch), 1);
            }
            assert_eq!(sleeper.wake_up(since, &longest), u8::from(!sent));
            check_ring_works(&scratch, 2);
        },
    );
    println!("woken after {:.1?} at most", longest.get());
}

fn a_consumer_that_wakes_the_producer(wait: &str) {
    let longest = Cell::default();
    kill_wakers(
        wait,
        &format!("spsc, wait={wait}: recv, read, release, and wake one who waits for room"),
        || {
            let scratch = ring_with(wait);
            let wait = |mut producer| {
                let room = fill(&mut producer, 0);
                commit(&mut producer, room);
                room as u8
            };
            let mut sleeper = Sleeper::new(|| producer(&scratch), wait);
            let child = Traced::start_waking(|| consumer(&scratch), |consumer| assert_eq!(receive(consumer), 0));
            sleeper.lie_down();
            ((scratch, sleeper), child)
        },
        |(scratch, sleeper), ended| {
            let since = Instant::now();
            let report = ringway::inspect(scratch.name().unwrap()).unwrap();
            let given_back = report.positions.unwrap().released > 0;
            assert!(given_back || !ended);
            let mut receiver = receiver(&scratch);
            if !given_back {
                expect(&mut receiver, 0..=0);
            }
            let last = u64::from(sleeper.wake_up(since, &longest));
            assert_eq!(last, ROOM);
            for number in 1..=last {
                assert_eq!(expect(&mut receiver, number..=number), (number, false));
            }
            drop(receiver);
            check_ring_works(&scratch, 1000);
        },
    );
    println!("woken after {:.1?} at most", longest.get());
}

#[test]
fn one_that_waits_for_a_message() {
    let _alone = alone();
    ALL_WAITS.iter().for_each(|wait| a_consumer_that_waits_for_a_message(wait));
}

#[test]
fn one_that_waits_for_a_message_and_is_stopped() {
    let _alone = alone();
    ALL_WAITS.iter().for_each(|wait| a_consumer_that_is_stopped_while_it_waits(wait));
}

#[test]
fn one_that_waits_for_room() {
    let _alone = alone();
    ALL_WAITS.iter().for_each(|wait| a_producer_that_waits_for_room(wait));
}

#[test]
fn one_that_sends_to_a_sleeper() {
    let _alone = alone();
    WAITS.iter().for_each(|wait| a_producer_that_wakes_the_consumer(wait));
}

#[test]
fn one_that_makes_room_for_a_sleeper() {
    let _alone = alone();
    WAITS.iter().for_each(|wait| a_consumer_that_wakes_the_producer(wait));
}
