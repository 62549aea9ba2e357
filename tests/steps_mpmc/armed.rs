//! A consumer among many, killed or stopped at each step of arming itself, sleeping in an event loop and receiving there: another one gets
//! what it did not, and what it was chosen for.

use crate::common::trace::{Traced, kill_sleepers, stop_sleepers};
use crate::common::{Kind, PATIENCE, Scratch, alone};
use ringway::{Options, Pollable, Receiver, RecvError, Sender};
use std::os::fd::AsRawFd;

const WAITS: [&str; 2] = ["futex", "fifo"];

fn ring(wait: &str) -> Scratch {
    Scratch::with(Kind::Shm, &format!("capacity=64KiB&ring=mpmc&producers=2&persist=yes&wait={wait}"))
}

fn armed(scratch: &Scratch) -> (Receiver, Pollable) {
    let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
    let pollable = receiver.pollable().unwrap();
    // It looks for what was put back once, before.
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    (receiver, pollable)
}

/// As in an event loop, without a limit.
fn receive_in_poll((receiver, pollable): &mut (Receiver, Pollable)) {
    loop {
        match receiver.try_recv() {
            Ok(message) => return assert_eq!(message[..], *b"0"),
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
        let mut fd = libc::pollfd { fd: pollable.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut fd, 1, -1) };
    }
}

/// A producer, whether it has sent its first message, and a consumer to come.
type Stage = (Scratch, Sender, bool);

fn start(wait: &str) -> (Stage, Traced) {
    let scratch = ring(wait);
    let sender = scratch.sender();
    let child = Traced::start_sleepy(|| armed(&scratch), receive_in_poll);
    ((scratch, sender, false), child)
}

fn rouse((_, sender, sent): &mut Stage) {
    sender.send(b"0").unwrap();
    *sent = true;
}

#[test]
fn one_that_is_killed_in_an_event_loop() {
    let _alone = alone();
    for wait in WAITS {
        kill_sleepers(
            &format!("mpmc, wait={wait}: arm, sleep in poll, read and release"),
            || start(wait),
            rouse,
            |(scratch, mut sender, sent), place| {
                if !sent {
                    sender.send(b"0").unwrap();
                }
                sender.send(b"1").unwrap();
                let mut other = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
                let mut next = || other.recv_timeout(PATIENCE).unwrap().to_vec();
                // The dead one may have given back the first; what it held comes again, before or behind the other.
                let first = next();
                if first == b"0" {
                    assert!(!place.ended);
                    assert_eq!(next(), b"1");
                } else {
                    assert!(sent && first == b"1");
                    let held = other.recv_timeout(std::time::Duration::ZERO);
                    assert!(held.is_err() || (!place.ended && held.unwrap()[..] == *b"0"));
                }
            },
        );
    }
}

#[test]
fn one_that_is_stopped_in_an_event_loop() {
    let _alone = alone();
    for wait in WAITS {
        stop_sleepers(
            &format!("mpmc, wait={wait}: arm, sleep in poll, read and release"),
            || start(wait),
            rouse,
            |mut stage, child, _| {
                if !stage.2 {
                    // Nothing else wakes it.
                    rouse(&mut stage);
                }
                child.finish();
            },
        );
    }
}
