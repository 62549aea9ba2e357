//! Rings of many: who is dead and who only looks as if. The dead one's messages go to others, the living are left alone, and
//! nobody else is held up.

mod common;

use common::board::Board;
use common::crowd::put;
use common::faults::{Bystander, close_files, fork_bystander, kill, wait_until_stopped};
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Scratch, alone};
use ringway::mpmc::{Consumer, Producer};
use ringway::segment::remove;
use ringway::{ErrorKind, Options, PeerState, RecvError, recover};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A lane has 64 slots.
const SMALL: &str = "capacity=4KiB&max_message=64&producers=3";
const LAPS: usize = 5;
/// Longer than the time within which a death is noticed.
const LONG: Duration = Duration::from_millis(250);

/// Sends some laps through, and receives them.
fn go_on(producer: &mut Producer, consumer: &Consumer) {
    for number in 0..LAPS * 64 {
        put(producer, &number.to_le_bytes());
        let message = consumer.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&message[..], message.deliveries()), (&number.to_le_bytes()[..], 0));
    }
}

/// A child that joins as a consumer, and then holds a message, with what else `then` does.
fn holder(scratch: &Scratch, producer: &mut Producer, then: impl FnOnce(&mut dyn FnMut())) -> Child {
    let mut child = Child::fork(|tell| {
        let consumer = scratch.consumer();
        tell.say(b'j');
        let _held = consumer.recv().unwrap();
        then(&mut || tell.say(b'h'));
        tell.sleep_until_killed()
    });
    child.expect(b'j');
    put(producer, b"held");
    child.expect(b'h');
    child
}

fn state_of_consumer(scratch: &Scratch, number: usize) -> Option<PeerState> {
    scratch.report().map(|report| report.consumers[number].state)
}

/// The next message is the one that the dead one held.
fn expect_held(consumer: &Consumer) {
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.deliveries()), (&b"held"[..], 1));
}

#[test]
fn a_zombie_is_dead() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let mut producer = scratch.producer();
        let mut child = holder(&scratch, &mut producer, |hold| hold());
        let consumer = scratch.consumer();
        child.kill_without_reaping();
        let pid = child.pid();
        assert!(producer.peers().contains(&PeerState::Dead { pid }), "{kind:?}");
        if scratch.name().is_some() {
            assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Dead { pid }));
        }
        expect_held(&consumer);
        go_on(&mut producer, &consumer);

        let mut child = Child::fork(|tell| {
            put(&mut scratch.producer(), b"last but one");
            let mut producer = scratch.producer();
            put(&mut producer, b"last");
            tell.say(b's');
            tell.sleep_until_killed()
        });
        child.expect(b's');
        child.kill_without_reaping();
        let lane = (0..2).map(|_| consumer.recv_timeout(PATIENCE).unwrap().producer()).last();
        // Its lane goes to the next one.
        assert_eq!(Some(scratch.producer().lane()), lane);
        go_on(&mut producer, &consumer);
        if let Some(report) = scratch.report() {
            assert_eq!((report.producers[1].joined, report.producers[1].deaths), (3, 1));
            assert_eq!((report.consumers[0].joined, report.consumers[0].deaths), (1, 1));
        }
    }
}

#[test]
fn the_stopped_and_the_debugged_are_alive() {
    let _alone = alone();
    for kind in KINDS {
        for debugged in [false, true] {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
            let mut child = Child::fork(|tell| {
                let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
                tell.say(b'j');
                let held = consumer.recv().unwrap();
                tell.say(b'h');
                // SAFETY: a plain system call.
                unsafe { libc::raise(libc::SIGSTOP) };
                assert_eq!((&held[..], held.deliveries()), (&b"held"[..], 0), "nobody wrote over it");
                drop(held);
                put(&mut producer, b"after");
                tell.say(b'd');
                tell.sleep_until_killed()
            });
            child.expect(b'j');
            // Whoever gets it, one is held; the other is received.
            let mut second = scratch.producer();
            put(&mut second, b"held");
            while let Ok(message) = consumer.try_recv() {
                drop(message);
                put(&mut second, b"held");
            }
            child.expect(b'h');
            while consumer.try_recv().is_ok() {}
            let trace = |request: libc::c_uint| {
                let none = std::ptr::null_mut::<libc::c_void>();
                // SAFETY: requests without arguments, for our own child.
                assert_eq!(unsafe { libc::ptrace(request, child.pid() as i32, none, none) }, 0);
            };
            wait_until_stopped(&child);
            if debugged {
                trace(libc::PTRACE_ATTACH);
                wait_until_stopped(&child);
            }
            let pid = child.pid();
            go_on(&mut producer, &consumer);
            assert_eq!(consumer.recv_timeout(LONG).err(), Some(RecvError::Timeout), "{kind:?}");
            if let Some(name) = scratch.name() {
                assert_eq!(recover(name).unwrap().deaths, 0);
                let lanes = scratch.lanes().unwrap();
                assert_eq!((lanes.leased, lanes.requeued), (1, 0));
            }
            assert!(consumer.peers().contains(&PeerState::Alive { pid }));
            assert!(producer.peers().contains(&PeerState::Alive { pid }));
            if debugged {
                trace(libc::PTRACE_DETACH);
            }
            child.signal(libc::SIGCONT);
            child.expect(b'd');
            assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"after");
            go_on(&mut producer, &consumer);
            assert!(scratch.lanes().is_none_or(|lanes| lanes.leased == 0));
        }
    }
}

#[test]
fn a_parent_is_dead_though_its_forked_child_lives() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (board, mut producer) = (Board::new(), scratch.producer());
        let parent = holder(&scratch, &mut producer, |hold| {
            // It inherits the parent's descriptors, and with them its lock.
            board.set(0, fork_bystander().into());
            hold();
        });
        let consumer = scratch.consumer();
        let bystander = Bystander::new(board.get(0));
        let pid = parent.pid();
        assert!(producer.peers().contains(&PeerState::Alive { pid }));
        kill(parent);
        assert!(bystander.lives());
        assert!(producer.peers().contains(&PeerState::Dead { pid }), "{kind:?}");
        expect_held(&consumer);
        go_on(&mut producer, &consumer);
        // Its chair is free, whoever has its lock.
        let successor = scratch.consumer();
        if let Some(report) = scratch.report() {
            let peer = report.consumers[0];
            let pid = std::process::id();
            assert_eq!((peer.state, peer.joined, peer.deaths), (PeerState::Alive { pid }, 2, 1), "{kind:?}");
        }
        assert!(bystander.lives());
        drop(successor);
    }
}

#[test]
fn children_of_the_dead_that_keep_all_locks_of_a_chair_close_only_that() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, "capacity=4KiB&max_message=64&producers=1");
        let (board, consumer) = (Board::new(), scratch.consumer());
        let mut bystanders = Vec::new();
        let mut joined = 0;
        // System V takes a lock from a forked child; a file's stays with it.
        let error = loop {
            let mut parent = Child::fork(|tell| {
                let sender = Options::new().sender(&scratch.address);
                if sender.is_ok() {
                    board.set(0, fork_bystander().into());
                }
                tell.say(sender.is_ok().into());
                tell.sleep_until_killed()
            });
            if parent.hear() == 0 {
                break Options::new().sender(&scratch.address).unwrap_err();
            }
            bystanders.push(Bystander::new(board.get(0)));
            kill(parent);
            joined += 1;
            if joined == 4 {
                assert_eq!(kind, Kind::SysV);
                drop(scratch.sender());
                break Options::new().producers(2).sender(&scratch.address).unwrap_err();
            }
        };
        if kind != Kind::SysV {
            assert_eq!((error.kind(), joined), (ErrorKind::NoSpace, 2), "{error}");
            // Consumers have other chairs.
            drop(scratch.consumer());
        }
        assert!(bystanders.iter().all(Bystander::lives));
        bystanders.into_iter().for_each(drop);
        // As soon as one of them is gone the chair is free. (An orphan's death takes a moment.)
        let mut producer = loop {
            match common::crowd::trusted(Options::new()).mpmc_producer(&scratch.address) {
                Ok(producer) => break producer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace),
            }
        };
        go_on(&mut producer, &consumer);
    }
}

#[test]
fn a_process_whose_descriptors_were_closed_is_not_robbed() {
    let _alone = alone();
    // System V locks need no descriptors.
    for kind in [Kind::Shm, Kind::File] {
        let scratch = Scratch::many(kind, SMALL);
        let mut producer = scratch.producer();
        let child = holder(&scratch, &mut producer, |hold| {
            close_files();
            hold();
        });
        let consumer = scratch.consumer();
        let pid = child.pid();
        for _ in 0..3 {
            assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Quarantined { pid }), "{kind:?}");
            assert!(producer.peers().contains(&PeerState::Quarantined { pid }));
            assert_eq!(recover(scratch.name().unwrap()).unwrap().deaths, 0);
            // One who joins doesn't take its chair.
            drop(scratch.consumer());
            go_on(&mut producer, &consumer);
            assert_eq!(consumer.recv_timeout(LONG).err(), Some(RecvError::Timeout), "nobody died");
        }
        assert_eq!(scratch.lanes().unwrap().leased, 1);
        kill(child);
        expect_held(&consumer);
        assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Left));

        let mut child = Child::fork(|tell| {
            let mut producer = scratch.producer();
            close_files();
            put(&mut producer, b"still here");
            tell.say(b'c');
            tell.sleep_until_killed()
        });
        child.expect(b'c');
        let pid = child.pid();
        assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"still here");
        assert!(consumer.peers().contains(&PeerState::Quarantined { pid }));
        assert_eq!(scratch.producer().lane(), 2, "its lane is not free");
        kill(child);
        assert_eq!(recover(scratch.name().unwrap()).unwrap().deaths, 1);
        assert_eq!(scratch.producer().lane(), 1);
        go_on(&mut producer, &consumer);
    }
}

#[test]
fn system_v_locks_need_no_descriptors() {
    let _alone = alone();
    let scratch = Scratch::many(Kind::SysV, SMALL);
    let mut producer = scratch.producer();
    let child = holder(&scratch, &mut producer, |hold| {
        close_files();
        hold();
    });
    let consumer = scratch.consumer();
    let pid = child.pid();
    assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Alive { pid }));
    go_on(&mut producer, &consumer);
    // The kernel undoes what the dead one had.
    kill(child);
    assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Dead { pid }));
    expect_held(&consumer);
    go_on(&mut producer, &consumer);
}

#[test]
fn a_joiner_without_descriptors_to_spare_robs_nobody() {
    let _alone = alone();
    let scratch = Scratch::many(Kind::Shm, SMALL);
    let mut producer = scratch.producer();
    let quarantined = holder(&scratch, &mut producer, |hold| {
        close_files();
        hold();
    });
    let mut seen = [false; 2];
    for spare in 0..8 {
        let mut child = Child::fork(|tell| {
            let next = io::pipe().map(|(read, _)| read.as_raw_fd()).unwrap();
            let limit = libc::rlimit { rlim_cur: next as u64 + spare, rlim_max: next as u64 + spare };
            // SAFETY: the limit is a local.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let answer = Options::new().existing().receiver(&scratch.address);
            tell.say(answer.is_ok().into());
            if let Err(error) = &answer {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            }
            if let Ok(mut receiver) = answer {
                assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout), "it got what is held");
            }
        });
        seen[usize::from(child.hear())] = true;
        child.expect_success();
    }
    assert_eq!(seen, [true; 2]);
    let pid = quarantined.pid();
    assert_eq!(state_of_consumer(&scratch, 0), Some(PeerState::Quarantined { pid }));
    assert_eq!(scratch.lanes().unwrap().leased, 1);
}

#[test]
fn deaths_are_noticed_though_the_ring_was_removed() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, SMALL);
        let mut producer = scratch.producer();
        let child = holder(&scratch, &mut producer, |hold| hold());
        let consumer = scratch.consumer();
        remove(scratch.name().unwrap()).unwrap();
        go_on(&mut producer, &consumer);
        let pid = child.pid();
        assert!(producer.peers().contains(&PeerState::Alive { pid }), "{kind:?}");
        kill(child);
        assert!(producer.peers().contains(&PeerState::Dead { pid }), "{kind:?}");
        expect_held(&consumer);
        go_on(&mut producer, &consumer);
    }
    for kind in NAMED {
        let scratch = Scratch::many(kind, SMALL);
        let consumers = [scratch.consumer(), scratch.consumer()];
        let mut child = Child::fork(|tell| {
            let _producers = [scratch.producer(), scratch.producer()];
            tell.say(b'j');
            tell.sleep_until_killed()
        });
        child.expect(b'j');
        remove(scratch.name().unwrap()).unwrap();
        kill(child);
        for consumer in consumers {
            assert_eq!(consumer.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied), "{kind:?}");
        }
    }
}
