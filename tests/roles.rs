//! One sender and one receiver at a time: who holds a role, who has lost it, and who only looks as if.

mod common;

use common::board::Board;
use common::faults::{
    Bystander, close_files, enter_another_boot, enter_another_time, fork_bystander, unshare, wait_until_stopped,
};
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Scratch, alone};
use ringway::segment::remove;
use ringway::{ErrorKind, Events, Options, PeerState, Receiver, RecvError, SendError, WaitSet, inspect};
use std::cell::RefCell;
use std::io;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);
/// Longer than the time within which a death is noticed.
const LONG: Duration = Duration::from_millis(250);

fn refused<T>(answer: ringway::Result<T>) -> ErrorKind {
    answer.err().expect("it was let in").kind()
}

#[test]
fn a_role_has_one_holder() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let (sender, receiver) = (scratch.sender(), scratch.receiver());
        let pid = std::process::id();
        let both_taken = || {
            assert_eq!(refused(Options::new().sender(&scratch.address)), ErrorKind::RoleTaken { pid });
            assert_eq!(refused(Options::new().receiver(&scratch.address)), ErrorKind::RoleTaken { pid });
        };
        both_taken();
        Child::fork(|_| both_taken()).expect_success();
        std::thread::scope(|scope| scope.spawn(both_taken).join().unwrap());
        assert_eq!(sender.peer(), PeerState::Alive { pid });
        assert_eq!(receiver.peer(), PeerState::Alive { pid });
        drop(sender);
        assert_eq!(receiver.peer(), PeerState::Left);
        drop(Options::new().sender(&scratch.address).unwrap());
        drop(receiver);
        Child::fork(|_| drop((scratch.receiver(), scratch.sender()))).expect_success();
    }
}

#[test]
fn a_stopped_process_is_alive() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            let mut sender = scratch.sender();
            sender.send(b"before").unwrap();
            // SAFETY: a plain system call.
            unsafe { libc::raise(libc::SIGSTOP) };
            tell.say(b'r');
            sender.send(b"after").unwrap();
        });
        wait_until_stopped(&child);
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"before");
        assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout), "{kind:?}");
        let pid = child.pid();
        assert_eq!(receiver.peer(), PeerState::Alive { pid });
        assert_eq!(refused(Options::new().sender(&scratch.address)), ErrorKind::RoleTaken { pid });
        child.signal(libc::SIGCONT);
        child.expect(b'r');
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"after");
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
        child.expect_success();
    }
}

#[test]
fn a_zombie_is_dead() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            let mut sender = scratch.sender();
            sender.send(b"last").unwrap();
            tell.say(b's');
            tell.sleep_until_killed()
        });
        child.expect(b's');
        child.kill_without_reaping();
        let pid = child.pid();
        assert_eq!(receiver.peer(), PeerState::Dead { pid });
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"last");
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
        assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout), "told once");
        if let Some(name) = scratch.name() {
            assert_eq!(inspect(name).unwrap().producers[0].state, PeerState::Dead { pid });
        }
        let mut sender = scratch.sender();
        sender.send(b"next").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"next");
        if let Some(name) = scratch.name() {
            let producer = inspect(name).unwrap().producers[0];
            assert_eq!((producer.joined, producer.deaths), (2, 1));
        }
        drop(sender);
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
    }
}

#[test]
fn one_that_polls_learns_of_a_death_too() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            let _sender = scratch.sender();
            tell.say(b's');
            tell.sleep_until_killed()
        });
        child.expect(b's');
        drop(child);
        let error = loop {
            match receiver.try_recv().err() {
                Some(RecvError::Empty) => {}
                error => break error,
            }
        };
        assert_eq!(error, Some(RecvError::PeerDied));
        drop(receiver);

        let mut sender = Options::new().keep_open(false).sender(&scratch.address).unwrap();
        let mut child = Child::fork(|tell| {
            let _receiver = scratch.receiver();
            tell.say(b'r');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        drop(child);
        let error = loop {
            match sender.try_send(b"fill") {
                Ok(_) | Err(SendError::Full) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error, SendError::PeerDied);
        assert_eq!(sender.try_send(b"fill"), Err(SendError::Full), "told once");
        assert_eq!(sender.send_timeout(b"fill", LONG), Err(SendError::Timeout));
        assert_eq!(&scratch.receiver().recv().unwrap()[..], b"fill");
    }
}

#[test]
fn a_parent_is_dead_though_its_forked_child_lives() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let board = Board::new();
        let mut receiver = scratch.receiver();
        let mut parent = Child::fork(|tell| {
            let mut sender = scratch.sender();
            sender.send(b"last").unwrap();
            // It inherits the parent's descriptors, and with them its lock.
            board.set(0, fork_bystander().into());
            tell.say(b'f');
            tell.sleep_until_killed()
        });
        parent.expect(b'f');
        let bystander = Bystander::new(board.get(0));
        let pid = parent.pid();
        assert_eq!(receiver.peer(), PeerState::Alive { pid });
        parent.signal(libc::SIGKILL);
        parent.reap();
        assert!(bystander.lives());
        assert_eq!(receiver.peer(), PeerState::Dead { pid }, "{kind:?}");
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"last");
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
        let mut sender = scratch.sender();
        sender.send(b"next").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"next");
        assert!(bystander.lives());
    }
}

/// Who waits asks for more than the lock only now and then.
#[test]
fn who_has_waited_for_long_learns_of_such_a_death_too() {
    let _alone = alone();
    for (ring, in_set) in [("spsc", false), ("spsc", true), ("mpmc", false), ("mpmc", true)] {
        let scratch = Scratch::with(Kind::Shm, &format!("ring={ring}&capacity=4KiB&max_message=64"));
        let board = Board::new();
        let mut receiver = scratch.receiver();
        let mut parent = Child::fork(|tell| {
            let _sender = scratch.sender();
            board.set(0, fork_bystander().into());
            tell.say(b'f');
            std::thread::sleep(LONG);
            // SAFETY: ends this process.
            unsafe { libc::raise(libc::SIGKILL) };
        });
        parent.expect(b'f');
        let bystander = Bystander::new(board.get(0));
        let learned = if in_set { drain_in_set(&mut receiver) } else { receiver.recv_timeout(PATIENCE).err() };
        assert_eq!(learned, Some(RecvError::PeerDied), "{ring}, in a set: {in_set}");
        assert!(bystander.lives());
        parent.reap();
    }
}

/// Waits for the end in a wait set.
fn drain_in_set(receiver: &mut Receiver) -> Option<RecvError> {
    let set = WaitSet::new().unwrap();
    set.add(0, receiver).unwrap();
    let mut events = Events::with_capacity(1);
    loop {
        match receiver.try_recv().err() {
            Some(RecvError::Empty) => assert!(set.wait_timeout(&mut events, PATIENCE).unwrap() > 0),
            other => return other,
        }
    }
}

#[test]
fn a_forked_child_gets_nothing_out_of_its_parents_batches() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        sender.send_many(["one", "two"]).unwrap();
        {
            let batch = RefCell::new(receiver.recv_batch(2).unwrap());
            Child::fork(|_| assert!(batch.borrow_mut().next().is_none())).expect_success();
            let mut batch = batch.borrow_mut();
            assert_eq!(batch.next().unwrap().0, b"one");
            assert_eq!(batch.next().unwrap().0, b"two");
        }
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    }
}

#[test]
fn a_forked_child_can_not_use_its_parents_ends() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let ends = RefCell::new(Some((scratch.sender(), scratch.receiver())));
        let with_ends = |work: &dyn Fn(&mut ringway::Sender, &mut ringway::Receiver)| {
            let mut ends = ends.borrow_mut();
            let (sender, receiver) = ends.as_mut().unwrap();
            work(sender, receiver);
        };
        with_ends(&|sender, _| {
            sender.send(b"parent's").unwrap();
        });
        let mut child = Child::fork(|_| {
            with_ends(&|sender, receiver| {
                for _ in 0..2 {
                    assert_eq!(sender.send(b"x"), Err(SendError::Fenced));
                    assert_eq!(sender.try_send(b"x"), Err(SendError::Fenced));
                    assert_eq!(sender.send_timeout(b"x", SHORT), Err(SendError::Fenced));
                    assert_eq!(sender.send_many([b"x"]).unwrap_err().error, SendError::Fenced);
                    assert_eq!(sender.reserve(1).err(), Some(SendError::Fenced));
                    assert_eq!(receiver.recv().err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.try_recv().err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.recv_into(&mut [0; 99]), Err(RecvError::Fenced));
                    assert_eq!(receiver.recv_many(1, |_, _| {}), Err(RecvError::Fenced));
                }
            });
            if kind == Kind::Anon {
                // Without the inherited ends a child no longer finds the ring.
                return;
            }
            ends.borrow_mut().take();
            assert!(matches!(refused(Options::new().sender(&scratch.address)), ErrorKind::RoleTaken { .. }));
            assert!(matches!(refused(Options::new().receiver(&scratch.address)), ErrorKind::RoleTaken { .. }));
        });
        child.expect_success();
        with_ends(&|sender, receiver| {
            let pid = std::process::id();
            assert_eq!((sender.peer(), receiver.peer()), (PeerState::Alive { pid }, PeerState::Alive { pid }));
            assert_eq!(&receiver.recv().unwrap()[..], b"parent's");
            sender.send(b"still").unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], b"still");
        });
        // A child joins in its own right as soon as the parent leaves.
        drop(ends.take().unwrap().0);
        let receiver = scratch.receiver();
        Child::fork(|_| scratch.sender().send(b"child's").map(drop).unwrap()).expect_success();
        let mut receiver = receiver;
        assert_eq!(&receiver.recv().unwrap()[..], b"child's");
    }
}

#[test]
fn grants_held_across_a_fork_stay_the_parents() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
        let trusted = unsafe { Options::new().assume_trusted_peers() };
        let mut consumer = trusted.consumer(&scratch.address).unwrap();
        let mut producer = trusted.producer(&scratch.address).unwrap();
        for (number, text) in [b"first", b"third"].into_iter().enumerate() {
            let mut grant = producer.reserve(5).unwrap();
            grant.copy_from_slice(text);
            let grant = RefCell::new(Some(grant));
            // The child's copy of the grant ends with the child, or is dropped.
            Child::fork(|_| {
                if number == 1 {
                    grant.take();
                }
            })
            .expect_success();
            grant.take().unwrap().commit(5);
            let message = RefCell::new(Some(consumer.recv().unwrap()));
            assert_eq!(&message.borrow().as_ref().unwrap()[..], text);
            Child::fork(|_| drop(message.take())).expect_success();
            drop(message);
        }
    }
}

/// What a forked child does with a grant of its parent must not reach the ring.
#[test]
fn a_child_that_commits_or_releases_its_parents_grant_changes_nothing() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        // SAFETY: as above.
        let trusted = unsafe { Options::new().assume_trusted_peers() };
        let mut consumer = trusted.consumer(&scratch.address).unwrap();
        let mut producer = trusted.producer(&scratch.address).unwrap();
        producer.reserve(1).unwrap().commit(1);
        let held = RefCell::new(Some(consumer.recv().unwrap()));
        let grant = RefCell::new(Some(producer.reserve(1).unwrap()));
        Child::fork(|_| {
            grant.take().unwrap().commit(1);
            drop(held.take());
        })
        .expect_success();
        if let Some(name) = scratch.name() {
            let report = inspect(name).unwrap();
            assert_eq!(
                (report.depth, report.positions.unwrap().released),
                (1, 0),
                "{kind:?}: the child's doing reached the ring"
            );
        }
        drop((grant, held));
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty), "{kind:?}: the child sent");
    }
}

#[test]
fn a_process_whose_descriptors_were_closed_is_not_robbed() {
    let _alone = alone();
    // System V locks need no descriptors.
    for kind in [Kind::Shm, Kind::File] {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            let mut sender = scratch.sender();
            close_files();
            tell.say(b'c');
            sender.send(b"still here").unwrap();
            tell.sleep_until_killed()
        });
        child.expect(b'c');
        let pid = child.pid();
        for _ in 0..3 {
            assert_eq!(refused(Options::new().sender(&scratch.address)), ErrorKind::Quarantined { pid }, "{kind:?}");
        }
        assert_eq!(receiver.peer(), PeerState::Quarantined { pid });
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"still here");
        assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout), "nobody died");
        drop(child);
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
        scratch.sender().send(b"next").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"next");
    }
}

#[test]
fn a_joiner_without_descriptors_to_spare_robs_nobody() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    let mut quarantined = Child::fork(|tell| {
        let _sender = scratch.sender();
        close_files();
        tell.say(b'c');
        tell.sleep_until_killed()
    });
    quarantined.expect(b'c');
    for spare in 0..8 {
        Child::fork(|_| {
            let next = io::pipe().map(|(read, _)| std::os::fd::AsRawFd::as_raw_fd(&read)).unwrap();
            let limit = libc::rlimit { rlim_cur: next as u64 + spare, rlim_max: next as u64 + spare };
            // SAFETY: the limit is a local.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            let kind = refused(Options::new().existing().sender(&scratch.address));
            let pid = quarantined.pid();
            assert!(matches!(kind, ErrorKind::NoSpace) || kind == ErrorKind::Quarantined { pid }, "{kind:?}");
        })
        .expect_success();
    }
}

/// Before it creates a ring, that is: otherwise it would leave one that nobody uses.
#[test]
fn a_creator_fails_before_or_succeeds() {
    let _alone = alone();
    for kind in NAMED {
        let mut seen = [false; 2];
        for spare in 0..8 {
            let scratch = Scratch::with(kind, "capacity=4KiB&persist=yes");
            let mut child = Child::fork(|tell| {
                let next = io::pipe().map(|(read, _)| std::os::fd::AsRawFd::as_raw_fd(&read)).unwrap();
                let limit = libc::rlimit { rlim_cur: next as u64 + spare, rlim_max: next as u64 + spare };
                // SAFETY: the limit is a local.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
                let answer = Options::new().create_new().sender(&scratch.address);
                tell.say(answer.is_ok().into());
                if answer.is_err() {
                    assert_eq!(refused(answer), ErrorKind::NoSpace);
                }
            });
            let created = child.hear() == 1;
            child.expect_success();
            assert_eq!(scratch.exists(), created, "{kind:?} with {spare} descriptors");
            seen[usize::from(created)] = true;
        }
        assert_eq!(seen, [true; 2], "{kind:?}");
    }
}

#[test]
fn without_proc_nobody_joins_and_nothing_is_left() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        Child::fork(|_| {
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
            let (nowhere, none) = (c"tmpfs".as_ptr(), std::ptr::null());
            // SAFETY: the strings are valid for the call.
            let answer = unsafe { libc::mount(nowhere, c"/proc".as_ptr(), nowhere, 0, none) };
            assert_eq!(answer, 0, "hide /proc: {}", io::Error::last_os_error());
            let errors = [Options::new().sender(&scratch.address).err(), ringway::spsc::channel(&Options::new()).err()];
            for error in errors {
                let error = error.expect("it was let in").to_string();
                assert!(error.contains("ringway needs /proc"), "{kind:?}: {error}");
            }
        })
        .expect_success();
        assert!(kind == Kind::Anon || !scratch.exists(), "{kind:?}");
    }
}

#[test]
fn processes_in_two_pid_namespaces_share_a_ring() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut outer = Child::fork(|tell| {
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID);
            let mut inner = Child::fork(|inner| {
                assert_eq!(std::process::id(), 1);
                assert!(matches!(refused(Options::new().receiver(&scratch.address)), ErrorKind::RoleTaken { .. }));
                let mut sender = scratch.sender();
                assert!(matches!(sender.peer(), PeerState::Alive { .. }), "{:?}", sender.peer());
                sender.send(b"from within").unwrap();
                inner.say(b'i');
                inner.sleep_until_killed()
            });
            inner.expect(b'i');
            tell.say(b'o');
            tell.sleep_until_killed()
        });
        outer.expect(b'o');
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"from within");
        assert_eq!(receiver.peer(), PeerState::Alive { pid: 1 });
        assert_eq!(refused(Options::new().sender(&scratch.address)), ErrorKind::RoleTaken { pid: 1 });
        assert_eq!(receiver.recv_timeout(LONG).err(), Some(RecvError::Timeout), "alive");
        // The end of its parent ends the inner one.
        drop(outer);
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied), "{kind:?}");
        scratch.sender().send(b"from without").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"from without");
    }
}

#[test]
fn a_process_in_another_container_is_alive() {
    let _alone = alone();
    for enter in [enter_another_time, enter_another_boot] {
        for kind in NAMED {
            let scratch = Scratch::with(kind, "capacity=4KiB");
            let mut receiver = scratch.receiver();
            let mut outer = Child::fork(|tell| {
                enter();
                let mut inner = Child::fork(|inner| {
                    let sender = scratch.sender();
                    assert!(matches!(sender.peer(), PeerState::Alive { .. }), "{:?}", sender.peer());
                    assert!(matches!(refused(Options::new().receiver(&scratch.address)), ErrorKind::RoleTaken { .. }));
                    inner.say(b'i');
                    inner.sleep_until_killed()
                });
                inner.expect(b'i');
                tell.say(b'o');
                tell.sleep_until_killed()
            });
            outer.expect(b'o');
            assert!(matches!(receiver.peer(), PeerState::Alive { .. }), "{kind:?}: {:?}", receiver.peer());
            assert!(matches!(refused(Options::new().sender(&scratch.address)), ErrorKind::RoleTaken { .. }));
            // The end of its parent ends the inner one.
            drop(outer);
            assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied), "{kind:?}");
        }
    }
}

#[test]
fn a_death_is_noticed_though_the_ring_was_removed() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            let _sender = scratch.sender();
            tell.say(b's');
            tell.sleep_until_killed()
        });
        child.expect(b's');
        remove(scratch.name().unwrap()).unwrap();
        let pid = child.pid();
        assert_eq!(receiver.peer(), PeerState::Alive { pid }, "{kind:?}");
        drop(child);
        assert_eq!(receiver.peer(), PeerState::Dead { pid }, "{kind:?}");
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied), "{kind:?}");
    }
}
