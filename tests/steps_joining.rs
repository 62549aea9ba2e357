//! Killed while joining, leaving, creating and removing: after each store to shared memory, and before and after each system
//! call. Whatever is left, the next one goes on, and the ring goes when it should.

mod common;

use common::trace::Traced;
use common::trace::marks::kill_at_each_mark;
use common::trace::sleeper::Sleeper;
use common::{Kind, PATIENCE, Scratch, alone};
use ringway::{Options, RecvError};

const RINGS: [&str; 2] = ["ring=spsc", "ring=mpmc&producers=2"];
const KINDS: [Kind; 2] = [Kind::Shm, Kind::SysV];

/// In each kind of memory, a ring that goes with its last user.
fn each_ring(mut test: impl FnMut(&str, &Scratch)) {
    for ring in RINGS {
        for kind in KINDS {
            let scratch = Scratch::with(kind, &format!("{ring}&capacity=4KiB&max_message=64&persist=no"));
            test(&format!("{ring}, {kind:?}"), &scratch);
        }
    }
}

/// The same with a place that nobody has held, and one whose holder is dead.
fn each_place(mut test: impl FnMut(&str, &Scratch, bool)) {
    each_ring(|ring, scratch| {
        test(ring, scratch, false);
        test(&format!("{ring}, after a death"), scratch, true);
    });
}

/// Joins in a process of its own, which ends without leaving.
fn die<T>(join: impl FnOnce() -> T) {
    let forget = |joined| {
        std::mem::forget(joined);
        0
    };
    let mut dying = Sleeper::new(join, forget);
    dying.go();
    dying.end();
}

fn keep_open() -> Options {
    Options::new().keep_open(true)
}

/// Whatever was killed: both roles can be taken, messages pass, and the last to leave removes the ring.
#[track_caller]
fn check_ring_works(scratch: &Scratch) {
    let mut receiver = keep_open().receiver(&scratch.address).unwrap();
    let mut sender = scratch.sender();
    // What was left undelivered comes first.
    while receiver.try_recv().is_ok() {}
    sender.send(b"through").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"through");
    drop((sender, receiver));
    assert!(!scratch.exists(), "left behind");
}

#[test]
fn a_sender_that_joins_and_leaves() {
    let _alone = alone();
    each_place(|ring, scratch, after_death| {
        kill_at_each_mark(
            &format!("{ring}: join and leave as a sender"),
            || {
                let receiver = scratch.receiver();
                if after_death {
                    die(|| scratch.sender());
                }
                (receiver, Traced::start(|| {}, |()| drop(scratch.sender())))
            },
            |mut receiver, finished| {
                let mut sender = scratch.sender();
                sender.send(b"next").unwrap();
                assert_eq!(&receiver.try_recv().unwrap()[..], b"next");
                let mut told = vec![receiver.try_recv().unwrap_err()];
                drop(sender);
                told.extend((0..3).map(|_| receiver.try_recv().unwrap_err()));
                let deaths = told.iter().filter(|&&told| told == RecvError::PeerDied).count();
                let expected = usize::from(after_death)..=usize::from(after_death || !finished);
                assert!(expected.contains(&deaths), "{told:?}");
                assert_eq!(told[3], RecvError::Closed, "{told:?}");
                drop(receiver);
                check_ring_works(scratch);
            },
        );
    });
}

#[test]
fn a_receiver_that_joins_and_leaves() {
    let _alone = alone();
    each_place(|ring, scratch, after_death| {
        kill_at_each_mark(
            &format!("{ring}: join and leave as a receiver"),
            || {
                let mut sender = keep_open().sender(&scratch.address).unwrap();
                sender.send(b"first").unwrap();
                if after_death {
                    die(|| {
                        let mut receiver = scratch.receiver();
                        std::mem::forget(receiver.recv().unwrap());
                        receiver
                    });
                }
                (sender, Traced::start(|| {}, |()| drop(scratch.receiver())))
            },
            |mut sender, _| {
                let mut receiver = scratch.receiver();
                for (message, again) in [(b"first", after_death), (b"later", false)] {
                    let received = receiver.try_recv().unwrap();
                    assert_eq!((&received[..], received.is_redelivered()), (&message[..], again));
                    drop(received);
                    sender.send(b"later").unwrap();
                }
                assert_eq!(&receiver.try_recv().unwrap()[..], b"later");
                drop((receiver, sender));
                check_ring_works(scratch);
            },
        );
    });
}

#[test]
fn one_that_creates_uses_and_removes_a_ring() {
    let _alone = alone();
    each_ring(|ring, scratch| {
        kill_at_each_mark(
            &format!("{ring}: create, send, receive, remove"),
            || {
                let operate = |_: &mut ()| {
                    let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
                    sender.send(b"sent").unwrap();
                    assert_eq!(&receiver.recv().unwrap()[..], b"sent");
                };
                ((), Traced::start(|| {}, operate))
            },
            |(), finished| {
                assert!(!finished || !scratch.exists());
                check_ring_works(scratch);
            },
        );
    });
}
