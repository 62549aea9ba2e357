//! Rings of many: who is told what when others leave or die, and what becomes of a ring that nobody uses.

mod common;

use common::faults::kill;
use common::{Child, KINDS, PATIENCE, Scratch, WAITS, alone};
use ringway::{Options, PeerState, RecvError, SendError};
use std::time::{Duration, Instant};

const SMALL: &str = "capacity=4KiB&max_message=64&producers=3";
const SHORT: Duration = Duration::from_millis(2);
/// Longer than the time within which a death is noticed.
const LONG: Duration = Duration::from_millis(250);

fn fill(sender: &mut ringway::Sender) -> usize {
    (0..).take_while(|_| sender.try_send(b"fill").is_ok()).count()
}

fn dying(join: impl FnOnce(&mut dyn FnMut())) {
    let mut child = Child::fork(|tell| {
        join(&mut || tell.say(b'j'));
        tell.sleep_until_killed()
    });
    child.expect(b'j');
    kill(child);
}

#[test]
fn full_empty_and_out_of_time() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let (mut receiver, mut sender, mut other) = (scratch.receiver(), scratch.sender(), scratch.sender());
            let start = Instant::now();
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Timeout));
            assert!(start.elapsed() >= SHORT);
            assert_eq!(receiver.recv_deadline(start).err(), Some(RecvError::Timeout), "in the past");
            assert_eq!(receiver.recv_batch_timeout(3, SHORT).err(), Some(RecvError::Timeout));

            assert_eq!(fill(&mut sender), 64);
            assert_eq!(sender.send_timeout(b"more", SHORT), Err(SendError::Timeout));
            assert_eq!(sender.send_timeout(b"more", Duration::ZERO), Err(SendError::Timeout));
            assert_eq!(sender.send_deadline(b"more", start), Err(SendError::Timeout));
            other.try_send(b"its lane is another one").unwrap();
            while receiver.recv_timeout(Duration::ZERO).expect("what is there needs no time").len() != 4 {}
            sender.send_timeout(b"more", Duration::ZERO).unwrap();
            assert_eq!(sender.try_send(b"more"), Err(SendError::Full));
            assert!((64..=65).contains(&(0..).take_while(|_| receiver.try_recv().is_ok()).count()));
        }
    }
}

#[test]
fn receivers_are_told_when_the_last_sender_has_left() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let mut receivers = [scratch.receiver(), scratch.receiver()];
        assert_eq!(receivers[0].try_recv().err(), Some(RecvError::Empty), "none has come yet");
        let (mut first, mut second) = (scratch.sender(), scratch.sender());
        first.send(b"1").unwrap();
        second.send(b"2").unwrap();
        second.send(b"3").unwrap();
        drop(first);
        assert!(receivers[0].recv_timeout(PATIENCE).is_ok());
        drop(second);
        assert!(receivers[1].recv_timeout(PATIENCE).is_ok() && receivers[0].recv_timeout(PATIENCE).is_ok());
        for receiver in &mut receivers {
            for _ in 0..2 {
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv_into(&mut []), Err(RecvError::Closed));
                assert_eq!(receiver.recv_many(9, |_, _| {}), Err(RecvError::Closed));
            }
            assert_eq!(receiver.peer(), PeerState::Absent);
        }
        // One that comes now is told as well, though the senders had left before.
        assert_eq!(scratch.receiver().recv().err(), Some(RecvError::Closed));
        let mut again = scratch.sender();
        assert_eq!(receivers[1].try_recv().err(), Some(RecvError::Empty));
        again.send(b"4").unwrap();
        assert_eq!(&receivers[1].recv().unwrap()[..], b"4");
    }
}

#[test]
fn senders_are_told_when_the_last_receiver_has_left() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let mut senders = [scratch.sender(), scratch.sender()];
        senders[0].send(b"none has come yet").unwrap();
        let (first, second) = (scratch.receiver(), scratch.receiver());
        drop(first);
        senders[0].send(b"one is left").unwrap();
        drop(second);
        for sender in &mut senders {
            for _ in 0..2 {
                assert_eq!(sender.try_send(b"more"), Err(SendError::Closed));
                assert_eq!(sender.send(b"more"), Err(SendError::Closed));
                assert_eq!(sender.send_timeout(b"more", PATIENCE), Err(SendError::Closed));
                assert_eq!(sender.send_many([b"more"]).unwrap_err().error, SendError::Closed);
                assert_eq!(sender.reserve(1).err(), Some(SendError::Closed));
            }
        }
        let mut receiver = scratch.receiver();
        senders[1].send(b"again").unwrap();
        assert!(receiver.recv().is_ok() && receiver.recv().is_ok());
        assert_eq!(&receiver.recv().unwrap()[..], b"again");
    }
}

#[test]
fn those_who_block_are_told_when_the_last_of_the_others_leaves() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let keep = (scratch.sender(), scratch.sender());
            let mut waiting = [0, 1].map(|_| {
                Child::fork(|tell| {
                    let mut receiver = scratch.receiver();
                    tell.say(b'r');
                    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
                })
            });
            waiting.iter_mut().for_each(|child| child.expect(b'r'));
            drop(keep.0);
            drop(keep.1);
            waiting.iter_mut().for_each(Child::expect_success);

            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let keep = (scratch.receiver(), scratch.receiver());
            let mut waiting = [0, 1].map(|_| {
                Child::fork(|tell| {
                    let mut sender = scratch.sender();
                    fill(&mut sender);
                    tell.say(b'f');
                    assert_eq!(sender.send_timeout(b"more", PATIENCE), Err(SendError::Closed));
                })
            });
            waiting.iter_mut().for_each(|child| child.expect(b'f'));
            drop(keep.0);
            drop(keep.1);
            waiting.iter_mut().for_each(Child::expect_success);
        }
    }
}

#[test]
fn a_death_is_told_once_to_each_when_nobody_is_left() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let mut receivers = [scratch.receiver(), scratch.receiver()];
            let survivor = scratch.sender();
            dying(|joined| {
                let mut sender = scratch.sender();
                sender.send(b"last").unwrap();
                joined();
                std::mem::forget(sender);
            });
            assert_eq!(&receivers[0].recv_timeout(PATIENCE).unwrap()[..], b"last");
            assert_eq!(receivers[0].recv_timeout(LONG).err(), Some(RecvError::Timeout), "another one lives");
            drop(survivor);
            for receiver in &mut receivers {
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied), "{kind:?}");
                // Told once; and the survivor has left.
                assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Closed));
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
            }
            scratch.sender().send(b"a successor's").unwrap();
            assert_eq!(&receivers[1].recv_timeout(PATIENCE).unwrap()[..], b"a successor's");
            drop(receivers);

            let mut senders = [scratch.sender(), scratch.sender()];
            let survivor = scratch.receiver();
            dying(|joined| {
                let receiver = scratch.receiver();
                joined();
                std::mem::forget(receiver);
            });
            senders.iter_mut().for_each(|sender| assert_eq!(fill(sender), 64));
            assert_eq!(senders[0].send_timeout(b"more", LONG), Err(SendError::Timeout), "another one lives");
            drop(survivor);
            for sender in &mut senders {
                assert_eq!(sender.send_timeout(b"more", PATIENCE), Err(SendError::PeerDied));
                assert_eq!(sender.send_timeout(b"more", SHORT), Err(SendError::Closed));
            }
            let mut successor = scratch.receiver();
            assert!(successor.recv().is_ok() && successor.recv_batch(16).is_ok());
        }
    }
}

#[test]
fn one_that_polls_learns_of_a_death_too() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let mut receiver = scratch.receiver();
        dying(|joined| {
            let sender = scratch.sender();
            joined();
            std::mem::forget(sender);
        });
        let error = loop {
            match receiver.try_recv().err() {
                Some(RecvError::Empty) => {}
                error => break error,
            }
        };
        assert_eq!(error, Some(RecvError::PeerDied));
        // Nobody has left: a successor may come.
        assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout));
        drop(receiver);
        let mut sender = scratch.sender();
        dying(|joined| {
            let receiver = scratch.receiver();
            joined();
            std::mem::forget(receiver);
        });
        let error = loop {
            match sender.try_send(b"fill") {
                Ok(_) | Err(SendError::Full) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error, SendError::PeerDied);
        assert_eq!(sender.try_send(b"fill"), Err(SendError::Full));
    }
}

#[test]
fn whoever_keeps_open_is_not_told() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
        for round in 0..3 {
            Child::fork(|_| assert_eq!(scratch.sender().send(&[round]).err(), None)).expect_success();
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], [round]);
            assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Timeout));
            dying(|joined| {
                let mut sender = scratch.sender();
                sender.send(b"dying").unwrap();
                joined();
                std::mem::forget(sender);
            });
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"dying");
            assert_eq!(receiver.recv_timeout(LONG / 2).err(), Some(RecvError::Timeout));
        }
        let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
        drop(receiver);
        assert_eq!(fill(&mut sender), 64);
        assert_eq!(sender.send_timeout(b"more", SHORT), Err(SendError::Timeout));
        drop(scratch.receiver().recv().unwrap());
        sender.send_timeout(b"more", SHORT).unwrap();
    }
}

#[test]
fn what_a_dead_receiver_held_comes_before_the_end() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut sender, mut survivor) = (scratch.sender(), scratch.receiver());
        sender.send(b"held").unwrap();
        let mut child = Child::fork(|tell| {
            let mut receiver = scratch.receiver();
            let _held = receiver.recv().unwrap();
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        child.expect(b'h');
        sender.send(b"last").unwrap();
        kill(child);
        drop(sender);
        let mut texts = Vec::new();
        while let Ok(message) = survivor.recv_timeout(PATIENCE) {
            texts.push((message.to_vec(), message.is_redelivered()));
        }
        texts.sort();
        assert_eq!(texts, [(b"held".to_vec(), true), (b"last".to_vec(), false)], "{kind:?}");
        assert_eq!(survivor.recv().err(), Some(RecvError::Closed));
    }
}
