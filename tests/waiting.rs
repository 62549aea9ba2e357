//! Waiting costs nothing while nothing happens, and no wake-up is lost.

mod common;

use common::sleep::{lost_wake_ups, used};
use common::{Child, Gate, KINDS, Kind, PATIENCE, Scratch, alone};
use ringway::{Options, RecvError, SendError, Wait};
use std::time::Duration;

#[test]
fn a_second_of_waiting_takes_next_to_no_processor_time() {
    let _alone = alone();
    let second = Duration::from_secs(1);
    let at_most = Duration::from_millis(20);
    // All at once, each in a process of its own.
    let mut cases = Vec::new();
    for kind in KINDS {
        for &wait in kind.sleeping() {
            let scratch = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let ends = (scratch.sender(), scratch.receiver());
            drop(ends.1);
            let waits_to_receive = Child::fork(|_| {
                let mut receiver = scratch.receiver();
                let before = used();
                assert_eq!(receiver.recv_timeout(second).err(), Some(RecvError::Timeout));
                let used = used() - before;
                assert!(used < at_most, "{used:?}");
            });
            let full = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let receiver = full.receiver();
            let waits_to_send = Child::fork(|_| {
                let mut sender = full.sender();
                while sender.try_send(b"fill").is_ok() {}
                let before = used();
                assert_eq!(sender.send_timeout(b"more", second), Err(SendError::Timeout));
                let used = used() - before;
                assert!(used < at_most, "{used:?}");
            });
            cases.push(((waits_to_receive, waits_to_send), (scratch, full), (ends.0, receiver)));
        }
    }
    for ((receives, sends), ..) in &mut cases {
        receives.expect_success();
        sends.expect_success();
    }
}

/// Of a ring that stays when nobody has it, unless it can't have a name.
fn lasting(kind: Kind, wait: Wait) -> String {
    let persist = if kind == Kind::Anon { "" } else { "&persist=yes" };
    format!("capacity=4KiB&wait={wait}{persist}")
}

#[test]
fn a_ping_pong_of_sleepers_loses_no_wake_up() {
    let _alone = alone();
    const ROUNDS: u32 = 100_000;
    for (kind, wait) in Kind::of_each_way() {
        let there = Scratch::with(kind, &lasting(kind, wait));
        let back = Scratch::with(kind, &lasting(kind, wait));
        let options = Options::new().spin(Duration::ZERO).keep_open(true);
        let play = |send: &Scratch, recv: &Scratch, serves: bool| {
            let mut sender = options.sender(&send.address).unwrap();
            let mut receiver = options.receiver(&recv.address).unwrap();
            for round in 0..ROUNDS {
                if serves {
                    sender.send(&round.to_le_bytes()).unwrap();
                }
                assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], round.to_le_bytes());
                if !serves {
                    sender.send(&round.to_le_bytes()).unwrap();
                }
            }
        };
        // Children find anonymous rings only while somebody has them.
        let (held, gate) = ((there.sender(), back.sender()), Gate::new());
        let mut one = Child::fork(|_| {
            gate.pass();
            play(&there, &back, true);
        });
        let mut other = Child::fork(|_| {
            gate.pass();
            play(&back, &there, false);
        });
        drop(held);
        gate.open(2);
        let lost = lost_wake_ups(&[&one, &other]);
        one.expect_success();
        other.expect_success();
        assert_eq!(lost, 0, "{wait}: lost wake-ups in {} waits", 2 * ROUNDS);
    }
}

#[test]
fn a_full_and_empty_ring_of_sleepers_loses_no_wake_up() {
    let _alone = alone();
    const MESSAGES: u32 = 400_000;
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::with(kind, &lasting(kind, wait));
        let options = Options::new().spin(Duration::ZERO).keep_open(true);
        let (held, gate) = (scratch.sender(), Gate::new());
        let mut sends = Child::fork(|_| {
            gate.pass();
            let mut sender = options.sender(&scratch.address).unwrap();
            for number in 0..MESSAGES {
                // So long that a few fill the ring.
                let mut message = [0; 800];
                message[..4].copy_from_slice(&number.to_le_bytes());
                sender.send(&message[..4 + number as usize % 796]).unwrap();
            }
        });
        let mut receives = Child::fork(|_| {
            let mut receiver = options.receiver(&scratch.address).unwrap();
            for number in 0..MESSAGES {
                assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..4], number.to_le_bytes());
            }
        });
        drop(held);
        gate.open(1);
        let lost = lost_wake_ups(&[&sends, &receives]);
        sends.expect_success();
        receives.expect_success();
        assert_eq!(lost, 0, "{wait}: lost wake-ups in {MESSAGES} messages");
    }
}
