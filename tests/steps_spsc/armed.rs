//! Killed or stopped while arming itself for an event loop, sleeping there, or ringing one who does: nothing is lost, and the next one
//! takes over.

use crate::common::payload::number;
use crate::common::trace::marks::kill_at_each_mark;
use crate::common::trace::sleeper::Sleeper;
use crate::common::trace::{Traced, kill_sleepers, stop_sleepers};
use crate::common::{Scratch, alone};
use crate::pair::{check_ring_works, commit, consumer, expect, producer, ring_with};
use ringway::spsc::{Consumer, Producer};
use ringway::{Options, Pollable, RecvError};
use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// A doorbell, and a strategy whose own bells are descriptors, in rings that can be looked at by their names.
const WAITS: [&str; 2] = ["futex", "fifo"];
/// And the other such strategy.
const ALL_WAITS: [&str; 3] = ["futex", "fifo", "eventfd"];

fn armed(scratch: &Scratch) -> (Consumer, Pollable) {
    let mut consumer = consumer(scratch);
    let pollable = consumer.pollable().unwrap();
    (consumer, pollable)
}

/// As in an event loop, without a limit.
fn receive_in_poll((consumer, pollable): &mut (Consumer, Pollable)) -> u64 {
    loop {
        match consumer.try_recv() {
            Ok(message) => return number(&message),
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
        let mut fd = libc::pollfd { fd: pollable.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut fd, 1, -1) };
    }
}

/// A producer, how many messages it has sent, and a consumer to come.
type Stage = (Scratch, Producer, u64);

fn start(wait: &str) -> (Stage, Traced) {
    let scratch = ring_with(wait);
    let producer = producer(&scratch);
    let child = Traced::start_sleepy(|| armed(&scratch), |armed| assert_eq!(receive_in_poll(armed), 0));
    ((scratch, producer, 0), child)
}

fn rouse((_, producer, sent): &mut Stage) {
    commit(producer, 0);
    *sent = 1;
}

#[test]
fn one_that_is_killed_in_an_event_loop() {
    let _alone = alone();
    for wait in ALL_WAITS {
        kill_sleepers(
            &format!("spsc, wait={wait}: arm, sleep in poll, read and release"),
            || start(wait),
            rouse,
            |(scratch, mut producer, sent), place| {
                commit(&mut producer, sent);
                let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
                let (first, again) = expect(&mut receiver, 0..=sent);
                assert!(first == 0 && !place.ended || first == 1 && !again);
                (first + 1..=sent)
                    .for_each(|number| assert_eq!(expect(&mut receiver, number..=number), (number, false)));
                drop((producer, receiver));
                check_ring_works(&scratch, 2);
            },
        );
    }
}

#[test]
fn one_that_is_stopped_in_an_event_loop() {
    let _alone = alone();
    for wait in ALL_WAITS {
        stop_sleepers(
            &format!("spsc, wait={wait}: arm, sleep in poll, read and release"),
            || start(wait),
            rouse,
            |(scratch, mut producer, sent), child, _| {
                if sent == 0 {
                    // Nothing else wakes it.
                    commit(&mut producer, 0);
                }
                child.finish();
                drop(producer);
                check_ring_works(&scratch, 1);
            },
        );
    }
}

#[test]
fn one_that_rings_an_event_loop_and_is_killed() {
    let _alone = alone();
    for wait in WAITS {
        let longest = Cell::default();
        kill_at_each_mark(
            &format!("spsc, wait={wait}: reserve, write, commit, and ring one in poll"),
            || {
                let scratch = ring_with(wait);
                let child = Traced::start_waking(|| producer(&scratch), |producer| commit(producer, 0));
                let wait = |mut armed| receive_in_poll(&mut armed) as u8;
                let mut sleeper = Sleeper::new(|| armed(&scratch), wait);
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
}
