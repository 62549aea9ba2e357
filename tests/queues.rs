//! POSIX and System V message queues: real ones, between processes, some of which know nothing of ringway.

mod common;

use common::payload::{Payload, mix};
use common::{Child, PATIENCE, alone};
use ringway::transport::{Target, remove};
use ringway::{Address, ErrorKind, Options, PeerState, Receiver, RecvError, SendError, Sender};
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Posix,
    SysV,
}

use Queue::{Posix, SysV};

const BOTH: [Queue; 2] = [Posix, SysV];
/// What a new queue takes at once.
const UNIT: usize = 8192;
const HEADER: usize = 32;

/// A queue that no other test has; what is there is removed at the end.
struct Scratch {
    place: String,
}

impl Scratch {
    fn new(queue: Queue) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        Self {
            place: match queue {
                Posix => format!("mq:///ringway-queues-{pid}-{number}?"),
                // Pids have at most 22 bits.
                SysV => format!("sysvmq:?key={:#x}&", 0x1000_0000 | (number % 64) << 22 | pid),
            },
        }
    }

    fn at(&self, options: &str) -> Address {
        format!("{}{options}", self.place).trim_end_matches(['?', '&']).parse().unwrap()
    }

    fn sender(&self, options: &str) -> Sender {
        Options::new().sender(&self.at(options)).unwrap()
    }

    fn receiver(&self, options: &str) -> Receiver {
        Options::new().receiver(&self.at(options)).unwrap()
    }

    /// The kind of the error of either end, and its text.
    fn refusal(&self, options: &str) -> (ErrorKind, String) {
        let error = Options::new().receiver(&self.at(options)).unwrap_err();
        (error.kind(), error.to_string())
    }

    fn key(&self) -> i32 {
        match self.at("").target() {
            Target::SysVQueue { key, .. } => key.number().unwrap(),
            other => panic!("{other} has no key"),
        }
    }

    fn name(&self) -> CString {
        match self.at("").target() {
            Target::PosixQueue { name, .. } => CString::new(format!("/{name}")).unwrap(),
            other => panic!("{other} has no name"),
        }
    }

    /// Whether anything is left: a queue, or semaphores.
    fn exists(&self) -> bool {
        // SAFETY: plain system calls, and a name that outlives its one.
        unsafe {
            if self.place.starts_with("mq:") {
                let fd = libc::mq_open(self.name().as_ptr(), libc::O_RDONLY);
                fd >= 0 && libc::mq_close(fd) == 0
            } else {
                libc::msgget(self.key(), 0) >= 0 || libc::semget(self.key(), 0, 0) >= 0
            }
        }
    }

    /// Sends as a program does that knows nothing of ringway.
    fn send_raw(&self, bytes: &[u8], kind: u32) {
        // SAFETY: a name, and buffers with their lengths, that outlive the calls.
        let answer = unsafe {
            if self.place.starts_with("mq:") {
                let fd = libc::mq_open(self.name().as_ptr(), libc::O_WRONLY);
                let answer = libc::mq_send(fd, bytes.as_ptr().cast(), bytes.len(), kind);
                libc::mq_close(fd);
                answer
            } else {
                let message = [&i64::from(kind).to_ne_bytes(), bytes].concat();
                libc::msgsnd(libc::msgget(self.key(), 0), message.as_ptr().cast(), bytes.len(), 0)
            }
        };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }

    /// Receives as a program does that knows nothing of ringway.
    fn receive_raw(&self) -> (Vec<u8>, u32) {
        let mut buffer = vec![0; 8 + UNIT];
        // SAFETY: a name, buffers with their lengths, and a place for the priority, that outlive the calls.
        let (start, length, kind) = unsafe {
            if self.place.starts_with("mq:") {
                let fd = libc::mq_open(self.name().as_ptr(), libc::O_RDONLY);
                let mut priority = 0;
                let length = libc::mq_receive(fd, buffer.as_mut_ptr().cast(), UNIT, &mut priority);
                libc::mq_close(fd);
                (0, length, priority)
            } else {
                let length = libc::msgrcv(libc::msgget(self.key(), 0), buffer.as_mut_ptr().cast(), UNIT, 0, 0);
                (8, length, i64::from_ne_bytes(*buffer.first_chunk().unwrap()) as u32)
            }
        };
        assert!(length >= 0, "{}", std::io::Error::last_os_error());
        (buffer[start..start + length as usize].to_vec(), kind)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove(&self.at(""), true);
    }
}

#[track_caller]
fn expect(receiver: &mut Receiver, payload: &[u8], tag: u32) {
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.tag()), (payload, tag));
}

#[track_caller]
fn expect_end(receiver: &mut Receiver, end: RecvError) {
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(end));
}

/// The payload of a message, up to any length.
fn bytes(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| mix(number << 32 | at) as u8).collect()
}

#[test]
fn messages_of_every_length_arrive_in_order_and_nothing_is_left() {
    let _alone = alone();
    let share = UNIT - HEADER;
    let lengths = [0, 1, share - 1, share, share + 1, UNIT - 1, UNIT, UNIT + 1, 1 << 20, 0, 2 * share, 3, 1 << 20];
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("");
        let mut child = Child::fork(|_| {
            let mut sender = scratch.sender("");
            for (number, length) in (0..).zip(lengths) {
                assert_eq!(sender.send((&bytes(number, length), !(number as u32))), Ok(number));
            }
            let batch: Vec<Vec<u8>> = (100..400).map(|number| Payload::of_len(number, 50).to_vec()).collect();
            assert_eq!(sender.send_many(&batch), Ok(300));
        });
        for (number, length) in (0..).zip(lengths) {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert_eq!((message.tag(), message.sequence()), (!(number as u32), number));
            assert!(message[..] == bytes(number, length), "message {number}");
        }
        for number in 100..400 {
            expect(&mut receiver, &Payload::of_len(number, 50).to_vec(), 0);
        }
        expect_end(&mut receiver, RecvError::Closed);
        child.expect_success();
        drop(receiver);
        assert!(!scratch.exists(), "{queue:?}");
    }
}

#[test]
fn large_messages_of_several_senders_do_not_mix() {
    let _alone = alone();
    const SENDERS: u64 = 3;
    const COUNT: u64 = 60;
    let payload = |sender: u64, number: u64| {
        let number = sender << 32 | number;
        Payload::of_len(number, 8 + mix(number) as usize % 40_000)
    };
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("");
        let mut children: Vec<Child> = (0..SENDERS)
            .map(|me| {
                Child::fork(|_| {
                    let mut sender = scratch.sender("");
                    for number in 0..COUNT {
                        let payload = payload(me, number);
                        sender.send((&payload.to_vec(), payload.tag())).unwrap();
                    }
                })
            })
            .collect();
        let mut next = [0; SENDERS as usize];
        for _ in 0..SENDERS * COUNT {
            // Until the last one has come, an early one may have left alone.
            let message = loop {
                match receiver.recv_timeout(PATIENCE) {
                    Err(RecvError::Closed) => {}
                    other => break other.map(|message| (message.to_vec(), message.tag())).unwrap(),
                }
            };
            let sender = u64::from_le_bytes(*message.0.first_chunk().unwrap()) >> 32;
            payload(sender, next[sender as usize]).check(&message.0, message.1);
            next[sender as usize] += 1;
        }
        assert_eq!(next, [COUNT; SENDERS as usize]);
        expect_end(&mut receiver, RecvError::Closed);
        children.iter_mut().for_each(Child::expect_success);
        drop(receiver);
        assert!(!scratch.exists(), "{queue:?}");
    }
}

#[test]
fn a_full_queue_holds_back_and_loses_nothing() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("");
        let mut sender = scratch.sender("");
        let mut sent = 0;
        while sender.try_send(&Payload::of_len(sent, 3000).to_vec()).is_ok() {
            sent += 1;
        }
        assert!(sent > 0);
        assert_eq!(sender.try_send(&[7; 3000]), Err(SendError::Full));
        assert_eq!(sender.send_timeout(&[7; 3000], Duration::from_millis(30)), Err(SendError::Timeout));
        assert_eq!(sender.peer(), PeerState::Alive { pid: std::process::id() });
        let mut child = Child::fork(|tell| {
            let mut sender = scratch.sender("");
            tell.say(b's');
            sender.send((&[9; 3000], 3)).unwrap();
        });
        child.expect(b's');
        child.await_sleep();
        for number in 0..sent {
            expect(&mut receiver, &Payload::of_len(number, 3000).to_vec(), 0);
        }
        expect(&mut receiver, &[9; 3000], 3);
        assert_eq!(receiver.recv_timeout(Duration::from_millis(30)).err(), Some(RecvError::Timeout));
        drop(sender);
        expect_end(&mut receiver, RecvError::Closed);
    }
}

#[test]
fn tags_are_priorities_if_asked_for() {
    let _alone = alone();
    let scratch = Scratch::new(Posix);
    let mut sender = scratch.sender("priority=tag");
    let large = Payload::of_len(1, 20_000).to_vec();
    sender.send((&large, 2)).unwrap();
    for tag in [1, 5, 3, 32_767, 0] {
        sender.send((b"x", tag)).unwrap();
    }
    assert_eq!(sender.send((b"x", 32_768)), Err(SendError::Unfit));
    let mut receiver = scratch.receiver("");
    assert!(!receiver.select(Some(3)));
    for tag in [32_767, 5, 3] {
        expect(&mut receiver, b"x", tag);
    }
    expect(&mut receiver, &large, 2);
    expect(&mut receiver, b"x", 1);
    expect(&mut receiver, b"x", 0);
    drop(sender);
    expect_end(&mut receiver, RecvError::Closed);

    let mut urgent = scratch.sender("priority=9");
    let mut plain = scratch.sender("");
    plain.send((b"later", 7)).unwrap();
    urgent.send((b"sooner", 40_000)).unwrap();
    expect(&mut receiver, b"sooner", 40_000);
    expect(&mut receiver, b"later", 7);
}

#[test]
fn a_tag_is_selected_out_of_order() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("");
    let mut sender = scratch.sender("");
    for (payload, tag) in [("a", 1), ("b", 2), ("c", 1), ("d", u32::MAX), ("e", 0)] {
        sender.send((payload, tag)).unwrap();
    }
    drop(sender);
    assert!(receiver.select(Some(u32::MAX)));
    expect(&mut receiver, b"d", u32::MAX);
    assert!(receiver.select(Some(0)));
    expect(&mut receiver, b"e", 0);
    // It has left, but not without leaving something.
    assert_eq!(receiver.recv_timeout(Duration::from_millis(250)).err(), Some(RecvError::Timeout));
    assert!(receiver.select(Some(1)));
    expect(&mut receiver, b"a", 1);
    assert!(receiver.select(None));
    expect(&mut receiver, b"b", 2);
    assert!(receiver.select(Some(1)));
    expect(&mut receiver, b"c", 1);
    expect_end(&mut receiver, RecvError::Closed);

    let mut child = Child::fork(|tell| {
        let mut sender = scratch.sender("");
        sender.send(("last words", 1)).unwrap();
        tell.say(b's');
        tell.sleep_until_killed()
    });
    child.expect(b's');
    child.kill_without_reaping();
    receiver.select(Some(9));
    assert_eq!(receiver.recv_timeout(Duration::from_millis(250)).err(), Some(RecvError::Timeout));
    receiver.select(None);
    expect(&mut receiver, b"last words", 1);
    expect_end(&mut receiver, RecvError::PeerDied);
    drop(receiver);
    assert!(!scratch.exists());
}

#[test]
fn a_type_of_its_own_shares_a_queue_with_others() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("type=7");
    scratch.send_raw(b"not for you", 9);
    let mut child = Child::fork(|_| {
        let mut sender = scratch.sender("type=7");
        sender.send((b"one", 40)).unwrap();
        sender.send((&[5; 20_000], 41)).unwrap();
    });
    assert!(!receiver.select(Some(1)));
    expect(&mut receiver, b"one", 40);
    expect(&mut receiver, &[5; 20_000], 41);
    expect_end(&mut receiver, RecvError::Closed);
    child.expect_success();
    drop(receiver);
    assert_eq!(scratch.receive_raw(), (b"not for you".to_vec(), 9));
}

#[test]
fn without_frames_others_are_understood() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("framing=none");
        let mut second = scratch.receiver("framing=none");
        Child::fork(|_| {
            scratch.send_raw(b"hello", 5);
            scratch.send_raw(b"", 5);
            scratch.send_raw(&[1; UNIT], 5);
        })
        .expect_success();
        expect(&mut receiver, b"hello", 5);
        expect(&mut second, b"", 5);
        expect(&mut receiver, &[1; UNIT], 5);
        drop((second, receiver));
        assert!(!scratch.exists(), "{queue:?}");

        let options = if queue == Posix { "framing=none&priority=3" } else { "framing=none&type=3" };
        let mut sender = scratch.sender(options);
        let mut child = Child::fork(|_| {
            assert_eq!(scratch.receive_raw(), (b"default".to_vec(), 3));
            assert_eq!(scratch.receive_raw(), (b"".to_vec(), 3));
            assert_eq!(scratch.receive_raw(), (vec![2; UNIT], 3));
        });
        sender.send(b"default").unwrap();
        sender.send((b"", 3)).unwrap();
        sender.send(&[2; UNIT]).unwrap();
        child.expect_success();
        assert_eq!(sender.send(&[2; UNIT + 1]), Err(SendError::TooLarge { max: UNIT }));
        if queue == Posix {
            assert_eq!(sender.send((b"x", 4)), Err(SendError::Unfit));
        } else {
            sender.send((b"by tag", 4)).unwrap();
            assert_eq!(scratch.receive_raw(), (b"by tag".to_vec(), 4));
        }
    }
    let scratch = Scratch::new(Posix);
    let mut sender = scratch.sender("framing=none&priority=tag&max_message=100");
    sender.send((b"low", 1)).unwrap();
    sender.send((b"high", 2)).unwrap();
    let mut receiver = scratch.receiver("framing=none");
    expect(&mut receiver, b"high", 2);
    expect(&mut receiver, b"low", 1);
    assert_eq!(sender.max_message(), 100);

    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("framing=none");
    for kind in [1, 2, 1] {
        scratch.send_raw(b"x", kind);
    }
    assert!(receiver.select(Some(2)) && !receiver.select(Some(0)));
    expect(&mut receiver, b"x", 2);
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    let mut only = scratch.receiver("framing=none&type=1");
    expect(&mut only, b"x", 1);
}

#[test]
fn there_is_one_receiver_of_frames_and_it_is_named() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut child = Child::fork(|tell| {
            let _receiver = scratch.receiver("");
            tell.say(b'r');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        let pid = child.pid();
        assert_eq!(scratch.refusal("").0, ErrorKind::RoleTaken { pid });
        let sender = scratch.sender("");
        assert_eq!(sender.peer(), PeerState::Alive { pid });
        let refusal = remove(&scratch.at(""), false).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::RoleTaken { pid });
        child.kill_without_reaping();
        drop(scratch.receiver(""));
        drop(sender);
        assert!(!scratch.exists(), "{queue:?}");
    }
}

#[test]
fn what_a_killed_sender_sent_is_received_before_its_death() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("");
        let mut child = Child::fork(|tell| {
            let mut sender = scratch.sender("");
            sender.send((b"one", 1)).unwrap();
            sender.send((b"two", 2)).unwrap();
            tell.say(b's');
            tell.sleep_until_killed()
        });
        child.expect(b's');
        child.kill_without_reaping();
        expect(&mut receiver, b"one", 1);
        expect(&mut receiver, b"two", 2);
        expect_end(&mut receiver, RecvError::PeerDied);
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "said once");
        scratch.sender("").send(b"next").unwrap();
        expect(&mut receiver, b"next", 0);
        expect_end(&mut receiver, RecvError::Closed);
        drop(receiver);
        assert!(!scratch.exists(), "{queue:?}");
    }
}

#[test]
fn a_sender_that_waits_learns_that_nobody_receives_any_longer() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut child = Child::fork(|tell| {
            let _receiver = scratch.receiver("");
            tell.say(b'r');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        let mut sender = scratch.sender("");
        let mut sent = 0;
        while sender.try_send(&Payload::of_len(sent, 2000).to_vec()).is_ok() {
            sent += 1;
        }
        child.kill_without_reaping();
        assert_eq!(sender.send_timeout(&[0; 2000], PATIENCE), Err(SendError::Closed));
        assert_eq!(sender.peer(), PeerState::Left);
        let mut receiver = scratch.receiver("");
        for number in 0..sent {
            expect(&mut receiver, &Payload::of_len(number, 2000).to_vec(), 0);
        }
        sender.send((b"again", 1)).unwrap();
        expect(&mut receiver, b"again", 1);
    }
}

#[test]
fn limits_are_named_with_their_values() {
    let _alone = alone();
    let value = |file: &str| std::fs::read_to_string(format!("/proc/sys/{file}")).unwrap().trim().to_owned();
    let names = |(kind, text): (ErrorKind, String), limit: &str, value: &str| {
        assert!(text.contains(limit) && text.contains(value), "{kind:?}: {text}");
    };
    let scratch = Scratch::new(Posix);
    names(scratch.refusal("capacity=1GiB"), "/proc/sys/fs/mqueue/msg_max", &value("fs/mqueue/msg_max"));
    let huge = scratch.refusal("framing=none&max_message=512MiB");
    names(huge, "/proc/sys/fs/mqueue/msgsize_max", &value("fs/mqueue/msgsize_max"));
    Child::fork(|_| {
        let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
        // SAFETY: a valid limit, of this child alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit) }, 0);
        let refusal = scratch.refusal("");
        assert_eq!(refusal.0, ErrorKind::NoSpace);
        names(refusal, "RLIMIT_MSGQUEUE", "20000 bytes");
    })
    .expect_success();
    assert!(!scratch.exists());

    let scratch = Scratch::new(SysV);
    names(scratch.refusal("framing=none&max_message=512MiB"), "/proc/sys/kernel/msgmax", &value("kernel/msgmax"));
    Child::fork(|_| {
        // SAFETY: this child alone loses its privileges.
        let answer = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
        assert_eq!(answer, 0, "this test needs namespaces: {}", std::io::Error::last_os_error());
        let refusal = scratch.refusal("capacity=1GiB&perm=0666");
        assert_eq!(refusal.0, ErrorKind::PermissionDenied);
        names(refusal, "/proc/sys/kernel/msgmnb", &value("kernel/msgmnb"));
    })
    .expect_success();
    assert!(!scratch.exists());
}

#[test]
fn what_exists_must_be_as_wanted() {
    let _alone = alone();
    let scratch = Scratch::new(Posix);
    let create_new = |scratch: &Scratch, options: &str| Options::new().create_new().sender(&scratch.at(options));
    let existing = |scratch: &Scratch| Options::new().existing().sender(&scratch.at(""));
    for queue in BOTH {
        assert_eq!(existing(&Scratch::new(queue)).unwrap_err().kind(), ErrorKind::NotFound);
    }
    let small = create_new(&scratch, "framing=none&max_message=40&capacity=80").unwrap();
    assert_eq!(create_new(&scratch, "").unwrap_err().kind(), ErrorKind::AlreadyExists);
    for options in ["framing=none&max_message=41", "framing=none&capacity=81", ""] {
        assert_eq!(scratch.refusal(options).0, ErrorKind::Mismatch, "{options}");
    }
    assert_eq!(scratch.refusal("framing=lines").0, ErrorKind::InvalidInput);
    drop(small);
    assert!(!scratch.exists());

    let scratch = Scratch::new(SysV);
    let large = create_new(&scratch, "capacity=10000").unwrap();
    assert_eq!(create_new(&scratch, "").unwrap_err().kind(), ErrorKind::AlreadyExists);
    drop((existing(&scratch).unwrap(), large));
    assert!(!scratch.exists());
    // SAFETY: plain system calls.
    let set = unsafe { libc::semget(scratch.key(), 1, libc::IPC_CREAT | 0o600) };
    assert_eq!(scratch.refusal("").0, ErrorKind::Mismatch, "the semaphores are another program's");
    drop(scratch.receiver("framing=none"));
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::semctl(set, 0, libc::IPC_RMID) }, 0, "they are left alone");
}

#[test]
fn the_last_one_takes_an_empty_queue_away() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        drop(scratch.sender(""));
        assert!(!scratch.exists(), "{queue:?}: nothing but hello");
        drop(scratch.receiver(""));
        assert!(!scratch.exists(), "{queue:?}: nothing at all");
        let (receiver, sender) = (scratch.receiver(""), scratch.sender(""));
        drop(receiver);
        assert!(scratch.exists());
        drop(sender);
        assert!(!scratch.exists(), "{queue:?}: the sender last");

        let tags: &[u32] = if queue == Posix { &[32_767, 32_767, 32_767, 4, 0] } else { &[3, 2, 1, 2, 3] };
        let options = if queue == Posix { "priority=tag" } else { "" };
        drop(scratch.sender(options));
        let mut sender = scratch.sender(options);
        let payloads: Vec<_> = (0..).zip(tags).map(|(number, &tag)| (Payload::of_len(number, 30), tag)).collect();
        for (payload, tag) in &payloads {
            sender.send((&payload.to_vec(), *tag)).unwrap();
        }
        drop(sender);
        assert!(scratch.exists(), "{queue:?}: nobody received it");
        drop(scratch.receiver(""));
        let mut receiver = scratch.receiver("");
        for (payload, tag) in payloads {
            expect(&mut receiver, &payload.to_vec(), tag);
        }
        expect_end(&mut receiver, RecvError::Closed);
        drop(receiver);
        assert!(!scratch.exists(), "{queue:?}: received");

        for options in ["persist=yes", "persist=yes&framing=none"] {
            drop(scratch.receiver(options));
            drop(scratch.receiver(""));
            assert!(scratch.exists(), "{queue:?}: {options}");
            remove(&scratch.at(""), false).unwrap();
            assert!(!scratch.exists());
        }
        assert_eq!(remove(&scratch.at(""), false).unwrap_err().kind(), ErrorKind::NotFound);

        let receiver = scratch.receiver("");
        remove(&scratch.at(""), true).unwrap();
        assert!(!scratch.exists());
        drop((scratch.receiver(""), receiver));
        assert!(!scratch.exists());
    }
}

#[test]
fn nothing_is_lost_between_those_who_come_and_those_who_leave() {
    let _alone = alone();
    const COUNT: u32 = 400;
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut children: Vec<Child> = (0..2)
            .map(|_| {
                Child::fork(|_| {
                    for number in 0..COUNT {
                        scratch.sender("").send((b"x", number)).unwrap();
                    }
                })
            })
            .collect();
        let mut received = 0;
        while received < 2 * COUNT {
            let mut receiver = scratch.receiver("");
            match receiver.recv_timeout(PATIENCE) {
                Ok(_) => received += 1,
                Err(RecvError::Closed) => {}
                Err(error) => panic!("{error:?} after {received}"),
            }
        }
        children.iter_mut().for_each(Child::expect_success);
        drop(scratch.receiver(""));
        assert!(!scratch.exists(), "{queue:?}");
    }
}

#[test]
fn garbage_is_told_and_passed_over() {
    let _alone = alone();
    for queue in BOTH {
        let scratch = Scratch::new(queue);
        let mut receiver = scratch.receiver("");
        let mut frame = [0; 40];
        frame[..4].copy_from_slice(b"R\x01\x00\x00");
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        for garbage in [&b""[..], b"x", &[0xff; UNIT], &frame] {
            scratch.send_raw(garbage, 1);
            scratch.sender("").send((b"sound", 1)).unwrap();
            expect_end(&mut receiver, RecvError::Malformed);
            expect(&mut receiver, b"sound", 1);
            expect_end(&mut receiver, RecvError::Closed);
        }
    }
}

#[test]
fn a_goodbye_that_is_too_long_is_told_and_passed_over() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("type=7");
    let goodbye = [&((1_i64 << 32) + 2).to_ne_bytes()[..], b"R\x01\x02\x00", &[0; 1000]].concat();
    // SAFETY: a buffer with the length of what is behind its type, that outlives the call.
    let answer = unsafe { libc::msgsnd(libc::msgget(scratch.key(), 0), goodbye.as_ptr().cast(), goodbye.len() - 8, 0) };
    assert_eq!(answer, 0);
    expect_end(&mut receiver, RecvError::Malformed);
    scratch.sender("type=7").send(b"sound").unwrap();
    expect(&mut receiver, b"sound", 0);
    expect_end(&mut receiver, RecvError::Closed);
}

#[test]
fn empty_messages_of_strangers_cost_no_stack() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("");
    // SAFETY: a buffer that holds a type and nothing, that outlives the calls.
    while unsafe { libc::msgsnd(libc::msgget(scratch.key(), 0), (&raw const EMPTY).cast(), 0, libc::IPC_NOWAIT) == 0 } {
    }
    assert!(receiver.select(Some(9)));
    // A page more than it takes, and no room for thousands of calls.
    let small = std::thread::Builder::new().stack_size(64 << 10);
    let ended = small.spawn(move || receiver.recv_timeout(Duration::from_millis(20)).map(drop)).unwrap();
    assert_eq!(ended.join().unwrap(), Err(RecvError::Timeout));
}

/// A message of type 1 without a body.
static EMPTY: i64 = 1;

/// Has this process, a child's, be somebody else.
fn become_nobody() {
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::setuid(65534) }, 0, "{}", std::io::Error::last_os_error());
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn semaphores_of_another_user_are_refused() {
    let _alone = alone();
    // It takes two users.
    if is_root() {
        let scratch = Scratch::new(SysV);
        Child::fork(|_| {
            become_nobody();
            // SAFETY: a plain system call.
            assert!(unsafe { libc::semget(scratch.key(), 4, libc::IPC_CREAT | 0o666) } >= 0);
        })
        .expect_success();
        let (kind, text) = scratch.refusal("");
        assert_eq!(kind, ErrorKind::PermissionDenied, "{text}");
        drop(scratch.receiver("perm=0666"));
    }
}

#[test]
fn who_may_not_remove_a_queue_leaves_it_usable() {
    let _alone = alone();
    // It takes two users.
    if is_root() {
        let scratch = Scratch::new(SysV);
        drop(scratch.receiver("perm=0666&persist=yes"));
        let mut child = Child::fork(|tell| {
            become_nobody();
            let error = remove(&scratch.at("perm=0666"), false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            tell.say(b'r');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        drop(scratch.receiver("perm=0666"));
    }
}

#[test]
fn a_queue_that_is_removed_is_the_end() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let (mut receiver, mut idle) = (scratch.receiver(""), Scratch::new(SysV).receiver(""));
    let mut sender = scratch.sender("");
    sender.send(b"x").unwrap();
    expect(&mut receiver, b"x", 0);
    remove(&scratch.at(""), true).unwrap();
    assert_eq!(sender.send(b"y"), Err(SendError::Closed));
    expect_end(&mut receiver, RecvError::PeerDied);
    expect_end(&mut receiver, RecvError::Closed);
    expect_end(&mut idle, RecvError::Closed);
}

#[test]
fn a_batch_keeps_its_tags() {
    let _alone = alone();
    let scratch = Scratch::new(SysV);
    let mut receiver = scratch.receiver("");
    let mut sender = scratch.sender("");
    sender.send_many([(b"a", 1), (b"b", 2), (b"c", 1), (b"d", 0)]).unwrap();
    assert!(receiver.select(Some(2)));
    expect(&mut receiver, b"b", 2);
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    assert!(receiver.select(None));
    for (message, tag) in [(b"a", 1), (b"c", 1), (b"d", 0)] {
        expect(&mut receiver, message, tag);
    }
    drop((sender, receiver));

    let scratch = Scratch::new(Posix);
    let mut sender = scratch.sender("priority=tag");
    sender.send_many([(b"a", 1), (b"b", 3), (b"c", 3), (b"d", 2)]).unwrap();
    let mut receiver = scratch.receiver("");
    for (message, tag) in [(b"b", 3), (b"c", 3), (b"d", 2), (b"a", 1)] {
        expect(&mut receiver, message, tag);
    }
}
