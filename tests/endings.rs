//! How a channel ends: drained and then closed, for whoever comes next, and with nothing left behind.

mod common;

use common::board::Board;
use common::payload::Payload;
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Scratch, WAITS, alone};
use ringway::segment::Name;
use ringway::{ErrorKind, Options, PeerState, RecvError, SendError, Takeover, inspect};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);

#[test]
fn what_was_sent_can_be_received_after_the_sender_left() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::with(kind, &format!("capacity=64KiB&wait={wait}"));
            let mut receiver = scratch.receiver();
            let mut child = Child::fork(|_| {
                let mut sender = scratch.sender();
                for number in 0..100 {
                    let payload = Payload::new(number, 300);
                    sender.send((&payload.to_vec(), payload.tag())).unwrap();
                }
            });
            child.expect_success();
            assert_eq!(receiver.peer(), PeerState::Left);
            for number in 0..100 {
                let message = receiver.try_recv().unwrap();
                Payload::new(number, 300).check(&message, message.tag());
            }
            for _ in 0..3 {
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
                assert_eq!(receiver.recv_into(&mut []), Err(RecvError::Closed));
            }
            let mut sender = scratch.sender();
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "somebody may send now");
            sender.send(b"again").unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], b"again");
            drop(sender);
            assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
        }
    }
}

#[test]
fn a_receiver_that_blocks_is_told_when_the_sender_leaves() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let keep = scratch.sender();
            let mut child = Child::fork(|tell| {
                let mut receiver = scratch.receiver();
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
                tell.say(b'r');
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
            });
            child.expect(b'r');
            drop(keep);
            child.expect_success();
        }
    }
}

#[test]
fn a_sender_is_told_when_the_receiver_leaves() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let receiver = scratch.receiver();
            let mut child = Child::fork(|tell| {
                let mut sender = scratch.sender();
                while sender.try_send(b"fill").is_ok() {}
                tell.say(b'f');
                // It blocks, or comes too late: the answer is the same.
                assert_eq!(sender.send_timeout(b"more", PATIENCE), Err(SendError::Closed));
                assert_eq!(sender.send(b"more"), Err(SendError::Closed));
                assert_eq!(sender.try_send(b"more"), Err(SendError::Closed));
                let partial = sender.send_many([b"more"]).unwrap_err();
                assert_eq!((partial.sent, partial.error), (0, SendError::Closed));
                assert_eq!(sender.reserve(1).err(), Some(SendError::Closed));
                assert_eq!(sender.peer(), PeerState::Left);

                let mut receiver = scratch.receiver();
                assert_eq!(&receiver.recv().unwrap()[..], b"fill");
                sender.send_timeout(b"more", PATIENCE).unwrap();
                while &receiver.recv_timeout(PATIENCE).unwrap()[..] != b"more" {}
            });
            child.expect(b'f');
            drop(receiver);
            child.expect_success();
        }
    }
}

#[test]
fn whoever_keeps_open_is_not_told() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
        for round in 0..3 {
            Child::fork(|_| assert_eq!(scratch.sender().send(&[round]).err(), None)).expect_success();
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], [round]);
            assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Timeout));
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            // Nor of a death.
            let mut child = Child::fork(|tell| {
                let mut sender = scratch.sender();
                sender.send(b"dying").unwrap();
                tell.say(b's');
                tell.sleep_until_killed()
            });
            child.expect(b's');
            drop(child);
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"dying");
            // Longer than it takes to notice.
            assert_eq!(receiver.recv_timeout(Duration::from_millis(120)).err(), Some(RecvError::Timeout));
        }
        let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
        drop(receiver);
        sender.send(b"kept").unwrap();
        while sender.try_send(b"fill").is_ok() {}
        assert_eq!(sender.send_timeout(b"more", SHORT), Err(SendError::Timeout));
        assert_eq!(&scratch.receiver().recv().unwrap()[..], b"kept");
        sender.send_timeout(b"more", SHORT).unwrap();
    }
}

#[test]
fn a_ring_goes_with_its_last_user_once_everything_was_received() {
    let _alone = alone();
    for kind in NAMED {
        // A mapped file stays unless told.
        let scratch = Scratch::with(kind, "capacity=4KiB&persist=no");
        drop(scratch.receiver());
        assert!(!scratch.exists(), "nobody needs it, and nothing is in it");

        let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
        sender.send(b"one").unwrap();
        sender.send(b"two").unwrap();
        drop(sender);
        assert!(scratch.exists());
        assert_eq!(&receiver.recv().unwrap()[..], b"one");
        drop(receiver);
        assert!(scratch.exists(), "a message was not received");
        let mut receiver = scratch.receiver();
        assert_eq!(&receiver.recv().unwrap()[..], b"two");
        drop(receiver);
        assert!(!scratch.exists(), "{kind:?}: closed and drained");

        let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
        sender.send(b"three").unwrap();
        assert_eq!(&receiver.recv().unwrap()[..], b"three");
        drop(receiver);
        assert!(scratch.exists(), "the sender is there");
        drop(sender);
        assert!(!scratch.exists(), "{kind:?}: the sender was the last");
    }
}

#[test]
fn a_persistent_ring_stays() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB&persist=yes");
        for round in 0..3 {
            let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
            sender.send(&[round]).unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], [round]);
            drop((sender, receiver));
            assert!(scratch.exists());
        }
        let report = inspect(scratch.name().unwrap()).unwrap();
        assert_eq!((report.depth, report.producers[0].joined, report.producers[0].deaths), (0, 3, 0));
        assert_eq!((report.producers[0].state, report.consumers[0].state), (PeerState::Left, PeerState::Left));
    }
}

#[test]
fn a_mapped_file_survives_a_restart_of_everybody() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::File, "capacity=64KiB");
    for generation in 0..20u64 {
        let numbers = generation * 50..generation * 50 + 50;
        Child::fork(|_| {
            let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
            for number in numbers.clone() {
                let payload = Payload::new(number, 300);
                sender.send((&payload.to_vec(), payload.tag())).unwrap();
            }
        })
        .expect_success();
        let report = inspect(scratch.name().unwrap()).unwrap();
        assert_eq!(report.depth, 50);
        Child::fork(|_| {
            let mut receiver = scratch.receiver();
            for number in numbers.clone() {
                let message = receiver.try_recv().unwrap();
                Payload::new(number, 300).check(&message, message.tag());
            }
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
        })
        .expect_success();
    }
    assert!(scratch.exists());
}

#[test]
fn two_that_come_and_go_lose_nothing_and_leave_nothing() {
    let _alone = alone();
    const ROUNDS: u64 = 1500;
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB&persist=no");
        let mut child = Child::fork(|_| {
            let mut next = 0;
            for round in 0..ROUNDS {
                let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
                for _ in 0..round % 4 {
                    let payload = Payload::new(next, 300);
                    sender.send_timeout((&payload.to_vec(), payload.tag()), PATIENCE).unwrap();
                    next += 1;
                }
            }
        });
        let mut next = 0;
        let total = (0..ROUNDS).map(|round| round % 4).sum();
        while next < total {
            let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
            for _ in 0..next % 5 + 1 {
                let Ok(message) = receiver.recv_timeout(SHORT) else { break };
                Payload::new(next, 300).check(&message, message.tag());
                next += 1;
            }
        }
        child.expect_success();
        assert!(!scratch.exists(), "{kind:?}");
    }
}

#[test]
fn those_who_are_refused_do_not_keep_a_ring_from_going() {
    let _alone = alone();
    const ROUNDS: u32 = 1000;
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB&persist=no");
        let (start, mut left_behind) = (Barrier::new(2), 0);
        let (refused, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // Comes just when the others leave. It is refused, or let in and then the last to leave.
            let newcomer = scope.spawn(|| {
                loop {
                    start.wait();
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    match Options::new().existing().receiver(&scratch.address) {
                        Ok(receiver) => drop(receiver),
                        Err(error) => match error.kind() {
                            ErrorKind::RoleTaken { .. } => _ = refused.fetch_add(1, Ordering::SeqCst),
                            kind => assert_eq!(kind, ErrorKind::NotFound, "{error}"),
                        },
                    }
                    start.wait();
                }
            });
            // On a busy machine it takes longer until they meet.
            for round in 0..100 * ROUNDS {
                if round >= ROUNDS && refused.load(Ordering::SeqCst) > 0 {
                    break;
                }
                let ends = (scratch.sender(), scratch.receiver());
                start.wait();
                drop(ends);
                start.wait();
                left_behind += u32::from(scratch.exists());
            }
            is_over.store(true, Ordering::SeqCst);
            start.wait();
            newcomer.join().unwrap();
            assert!(refused.load(Ordering::SeqCst) > 0, "they never met");
        });
        assert_eq!(left_behind, 0, "{kind:?}");
    }
}

#[test]
fn what_can_not_be_opened_is_said_clearly() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB&wait=futex");
        let error = Options::new().existing().receiver(&scratch.address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let _sender = scratch.sender();
        let error = Options::new().create_new().receiver(&scratch.address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let address = scratch.address.to_string();
        for (said, options) in [
            (address.replace("wait=futex", "wait=sem"), Options::new()),
            (address.replace("capacity=4KiB", "capacity=8KiB"), Options::new()),
            (address.clone(), Options::new().max_message(2033)),
        ] {
            let error = options.receiver(&said.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{said}: {error}");
        }
        let error = Options::new().capacity(1 << 20).receiver(&scratch.address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(matches!(scratch.name().unwrap(), Name::Posix(_) | Name::File(_) | Name::SysV(_)));
    }
}

#[test]
fn contradictions_are_shown_as_they_are_written() {
    for (address, options, said) in [
        ("anon:x?capacity=8KiB", Options::new().capacity(4096), ["capacity=8KiB", "say 4KiB"]),
        ("shm:///x?perm=0600", Options::new().perm(0o644), ["perm=0600", "say 0644"]),
        ("shm:///x?persist=yes", Options::new().persist(false), ["persist=yes", "say no"]),
    ] {
        let error = options.sender(&address.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let advice = error.to_string().split_once("; ").unwrap().1.to_owned();
        assert!(said.iter().all(|said| advice.contains(said)), "{error}");
    }
}

#[test]
fn a_place_that_is_missing_is_named() {
    for (address, said) in [
        ("file:///no/such/directory/ring", "create the directory /no/such/directory first"),
        ("sysv:///no/such/file?id=3", "/no/such/file"),
    ] {
        let error = Options::new().sender(&address.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(said) && !error.to_string().contains("keeps removing"), "{error}");
    }
}

#[test]
fn one_that_may_not_remove_a_ring_leaves_it() {
    let _alone = alone();
    let directory = TemporaryDirectory::new();
    let path = directory.0.join("ring");
    let address = format!("file://{}?perm=0666&persist=no", path.display()).parse().unwrap();
    let receiver = Options::new().receiver(&address).unwrap();
    let board = Board::new();
    // Nobody but root may remove from it, and root is somebody else in the child.
    fs::set_permissions(&directory.0, Permissions::from_mode(0o555)).unwrap();
    let mut child = Child::fork(|tell| {
        // SAFETY: plain system calls, in a process with one thread. It stays traceable, so that its /proc stays its own.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1), 0);
            }
        }
        let sender = Options::new().sender(&address).unwrap();
        tell.say(b's');
        // Leaves last: one that has recorded that it left may still be removing the ring.
        while board.get(0) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(sender.peer(), PeerState::Left);
    });
    child.expect(b's');
    drop(receiver);
    board.set(0, 1);
    child.expect_success();
    assert!(path.exists());
}

#[test]
fn a_message_too_long_for_the_buffer_has_not_been_handed_out() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut sender = scratch.sender();
        sender.send(b"long").unwrap();
        let mut receiver = scratch.receiver();
        assert_eq!(receiver.recv_into(&mut [0; 3]), Err(RecvError::BufferTooSmall { needed: 4 }));
        drop(receiver);
        let mut receiver = Options::new().takeover(Takeover::Drop).receiver(&scratch.address).unwrap();
        let message = receiver.try_recv().unwrap();
        assert_eq!((&message[..], message.is_redelivered()), (&b"long"[..], false));
    }
}

struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ringway-test-{}-directory", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o755));
        let _ = fs::remove_dir_all(&self.0);
    }
}
