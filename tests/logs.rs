//! Logs: several writers and readers of one file, killed, restarted, and short of space.

mod common;

use common::faults::{kill, unshare};
use common::payload::{Payload, number};
use common::{Child, PATIENCE, Random, alone, dawdle};
use ringway::{Address, ErrorKind, Options, Receiver, RecvError, SendError, Sender};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LOCKS: [&str; 3] = ["flock", "fcntl", "ofd"];
/// Bytes of the head, and around the payload of each record.
const HEAD: u64 = 16;
const AROUND: u64 = 36;

/// A directory for logs, removed at the end with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("ringway-test-log-{pid}-{number}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn address(&self, options: &str) -> Address {
        format!("log://{}?{options}", self.log().display()).trim_end_matches('?').parse().unwrap()
    }

    fn sender(&self) -> Sender {
        Options::new().sender(&self.address("")).unwrap()
    }

    fn receiver(&self) -> Receiver {
        Options::new().receiver(&self.address("")).unwrap()
    }

    fn named(&self, reader: &str) -> Receiver {
        Options::new().receiver(&self.address(&format!("reader={reader}"))).unwrap()
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.log()).unwrap()
    }

    fn size(&self) -> u64 {
        fs::metadata(self.log()).unwrap().len()
    }

    /// A tmpfs of that size, in a mount namespace of this process's own.
    fn mount(&self, size: &str) {
        // SAFETY: they have no preconditions.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        let target = CString::new(self.0.to_str().unwrap()).unwrap();
        let (tmpfs, options) = (c"tmpfs".as_ptr(), CString::new(format!("size={size}")).unwrap());
        // SAFETY: the strings are valid for the call.
        let answer = unsafe { libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options.as_ptr().cast()) };
        assert_eq!(answer, 0, "mount: {}", io::Error::last_os_error());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn next(receiver: &mut Receiver) -> Vec<u8> {
    receiver.recv_timeout(PATIENCE).unwrap().to_vec()
}

fn end(receiver: &mut Receiver) -> RecvError {
    receiver.recv_timeout(PATIENCE).err().unwrap()
}

/// Message `count` of writer `writer`.
fn numbered(writer: u64, count: u64) -> Payload {
    let number = writer << 32 | count;
    Payload::of_len(number, 8 + (common::payload::mix(number) % 3000) as usize)
}

/// Sends such messages one by one and in batches: `count` of them, each as soon as `permits` has a byte for it;
/// without more of these it stays until it is killed.
fn write_numbered(directory: &Directory, lock: &str, writer: u64, count: u64, mut permits: impl Read) {
    let mut sender = Options::new().sender(&directory.address(&format!("lock={lock}"))).unwrap();
    let message = |count| (numbered(writer, count).to_vec(), numbered(writer, count).tag());
    let mut permit = |count: usize| {
        if permits.read_exact(&mut [0; 20][..count]).is_err() {
            loop {
                // SAFETY: pause has no preconditions.
                unsafe { libc::pause() };
            }
        }
    };
    let mut sent = 0;
    while sent < count {
        if sent % 3 == 0 {
            let batch: Vec<_> = (sent..count.min(sent + 20)).map(message).collect();
            permit(batch.len());
            sent += sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag))).unwrap() as u64;
        } else {
            let (bytes, tag) = message(sent);
            permit(1);
            sender.send((&bytes, tag)).unwrap();
            sent += 1;
        }
    }
}

/// Takes in a message of those: its writer, once it is found to be the next one of that writer.
fn check_numbered(bytes: &[u8], tag: u32, counts: &mut HashMap<u64, u64>) -> u64 {
    let (writer, count) = (number(bytes) >> 32, number(bytes) & 0xffff_ffff);
    numbered(writer, count).check(bytes, tag);
    let next = counts.entry(writer).or_default();
    assert_eq!(count, *next, "of writer {writer}");
    *next += 1;
    writer
}

#[test]
fn messages_of_all_lengths_come_in_order() {
    let _alone = alone();
    let directory = Directory::new();
    let lengths = [0, 1, 7, 8, 100, 4096, 65_499, 65_500, 65_501, 65_536, 1 << 20, 0, 3];
    let bytes = |i: usize, len: usize| {
        Payload::of_len(i as u64, 1000).to_vec().into_iter().cycle().take(len).collect::<Vec<_>>()
    };
    let mut child = Child::fork(|_| {
        let mut sender = directory.sender();
        for (i, &len) in lengths.iter().enumerate() {
            assert_eq!(sender.send((&bytes(i, len), i as u32)), Ok(i as u64));
        }
        let most = vec![1; sender.max_message() + 1];
        assert_eq!(sender.send(&most), Err(SendError::TooLarge { max: 16 << 20 }));
        assert_eq!(sender.send(&most[1..]), Ok(lengths.len() as u64));
    });
    let mut receiver = directory.receiver();
    for (i, &len) in lengths.iter().enumerate() {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert!(message[..] == bytes(i, len) && message.tag() == i as u32);
        assert_eq!((message.sequence(), message.producer(), message.is_redelivered()), (i as u64, 0, false));
    }
    assert_eq!(next(&mut receiver).len(), 16 << 20);
    assert_eq!(end(&mut receiver), RecvError::Closed);
    child.expect_success();
    assert_eq!(fs::metadata(directory.log()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn four_writers_do_not_interleave_by_any_lock() {
    let _alone = alone();
    for lock in LOCKS {
        let directory = Directory::new();
        let mut receivers =
            [0, 1].map(|_| Options::new().receiver(&directory.address(&format!("lock={lock}"))).unwrap());
        // Lest all that are there have left before the next one comes.
        let present = Options::new().sender(&directory.address(&format!("lock={lock}"))).unwrap();
        let mut children: Vec<_> = (0..4)
            .map(|writer| Child::fork(|_| write_numbered(&directory, lock, writer, 2000, io::repeat(0))))
            .collect();
        for receiver in &mut receivers {
            let mut counts = HashMap::new();
            while counts.values().sum::<u64>() < 8000 {
                receiver.recv_batch_timeout(64, PATIENCE).unwrap();
                receiver
                    .recv_many(64, |bytes, delivery| {
                        check_numbered(bytes, delivery.tag, &mut counts);
                    })
                    .unwrap();
            }
        }
        children.iter_mut().for_each(Child::expect_success);
        drop(present);
        for receiver in &mut receivers {
            assert_eq!(end(receiver), RecvError::Closed, "{lock}");
        }
    }
}

#[test]
fn a_writer_with_another_lock_is_refused() {
    let _alone = alone();
    let directory = Directory::new();
    drop(Options::new().sender(&directory.address("lock=ofd")).unwrap());
    let error = Options::new().sender(&directory.address("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("lock=ofd"), "{error}");
    assert_eq!(end(&mut directory.receiver()), RecvError::Closed, "a reader finds out by itself");
}

#[test]
fn readers_are_independent_and_history_stays() {
    let _alone = alone();
    let directory = Directory::new();
    let (mut first, mut second) = (directory.receiver(), directory.receiver());
    let mut sender = directory.sender();
    sender.send_many(["a", "b", "c"]).unwrap();
    assert_eq!([(); 3].map(|()| next(&mut first)), [b"a", b"b", b"c"]);
    assert_eq!(next(&mut second), b"a");
    drop(sender);
    assert_eq!(end(&mut first), RecvError::Closed);
    let mut third = directory.receiver();
    assert_eq!([(); 3].map(|()| next(&mut third)), [b"a", b"b", b"c"]);
    directory.sender().send(b"d").unwrap();
    for receiver in [&mut first, &mut third] {
        assert_eq!(next(receiver), b"d");
        assert_eq!(end(receiver), RecvError::Closed);
    }
    assert_eq!([(); 3].map(|()| next(&mut second)), [b"b", b"c", b"d"]);
}

#[test]
fn a_reader_with_a_name_goes_on_where_it_was() {
    let _alone = alone();
    let directory = Directory::new();
    let mut sender = directory.sender();
    sender.send_many(["a", "b", "c", "d", "e"]).unwrap();
    let mut child = Child::fork(|tell| {
        let mut receiver = directory.named("r");
        assert_eq!(next(&mut receiver), b"a");
        let _held = receiver.recv().unwrap();
        tell.say(b'h');
        tell.sleep_until_killed()
    });
    child.expect(b'h');
    let error = Options::new().receiver(&directory.address("reader=r")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken { pid: child.pid() }, "{error}");
    let mut other = directory.named("other");
    kill(child);
    let mut receiver = directory.named("r");
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.is_redelivered()), (&b"b"[..], true));
    drop(message);
    // A batch counts as a whole, and one that panics in between up to there.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        receiver.recv_many(9, |bytes, _| {
            if bytes == b"d" {
                std::panic::resume_unwind(Box::new(()))
            }
        })
    }));
    assert!(outcome.is_err());
    drop(receiver);
    let mut receiver = directory.named("r");
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.is_redelivered()), (&b"d"[..], false), "left in good order");
    drop(message);
    let mut small = [];
    assert_eq!(receiver.recv_into(&mut small), Err(RecvError::BufferTooSmall { needed: 1 }));
    drop(receiver);
    let mut receiver = directory.named("r");
    assert_eq!(next(&mut receiver), b"e");
    assert_eq!(next(&mut other), b"a");
    drop(sender);
    assert_eq!(end(&mut receiver), RecvError::Closed);
}

#[test]
fn a_position_in_another_log_means_nothing() {
    let _alone = alone();
    let directory = Directory::new();
    directory.sender().send_many(["a", "b"]).unwrap();
    assert_eq!(next(&mut directory.named("r")), b"a");
    fs::remove_file(directory.log()).unwrap();
    directory.sender().send_many(["c", "d"]).unwrap();
    assert_eq!(next(&mut directory.named("r")), b"c");
    assert_eq!(next(&mut directory.named("r")), b"d");
}

#[test]
fn kills_tear_no_message_that_is_seen() {
    let _alone = alone();
    for (i, lock) in LOCKS.into_iter().enumerate() {
        let directory = Directory::new();
        let mut receiver =
            Options::new().keep_open(true).receiver(&directory.address(&format!("lock={lock}"))).unwrap();
        let mut random = Random(i as u64);
        // A sender goes over the whole log when it opens it, so that the log mustn't grow without end meanwhile.
        let (permits, mut permit) = io::pipe().unwrap();
        let steady = Child::fork(|_| write_numbered(&directory, lock, 0, u64::MAX, &permits));
        let mut counts = HashMap::new();
        for victim in 1..=60 {
            permit.write_all(&[0; 300]).unwrap();
            let writing = Child::fork(|_| write_numbered(&directory, lock, victim, u64::MAX, io::repeat(0).take(2000)));
            // Until it writes, and then a while.
            loop {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                if check_numbered(&message, message.tag(), &mut counts) == victim {
                    break;
                }
            }
            dawdle(random.below(100_000));
            kill(writing);
            let stopped = counts.get(&0).copied();
            permit.write_all(&[0; 30]).unwrap();
            while counts.get(&0).copied() <= stopped {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                check_numbered(&message, message.tag(), &mut counts);
            }
        }
        kill(steady);
        // All that is whole is there, for one who comes later, too.
        drop(Options::new().sender(&directory.address(&format!("lock={lock}"))).unwrap());
        let rest = |receiver: &mut Receiver, counts: &mut HashMap<u64, u64>| loop {
            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok(message) => drop(check_numbered(&message, message.tag(), counts)),
                Err(error) => break error,
            }
        };
        assert_eq!(rest(&mut receiver, &mut counts), RecvError::Timeout);
        let mut later = HashMap::new();
        let mut receiver = Options::new().receiver(&directory.address("")).unwrap();
        assert_eq!(rest(&mut receiver, &mut later), RecvError::PeerDied);
        assert_eq!(end(&mut receiver), RecvError::Closed);
        assert_eq!(counts, later);
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_never_delivered() {
    let _alone = alone();
    let directory = Directory::new();
    directory.sender().send_many(["one", "two"]).unwrap();
    let goodbye = directory.size();
    let mut sender = directory.sender();
    let before = directory.size();
    sender.send(&[7; 1000]).unwrap();
    let mut record = vec![0; 1000 + AROUND as usize];
    directory.file().read_exact_at(&mut record, before).unwrap();
    kill_in_place(sender);
    for length in [1, 31, 32, 33, 500, record.len() - 1] {
        let file = directory.file();
        file.set_len(before).unwrap();
        file.write_all_at(&record[..length], before).unwrap();
        let mut receiver = directory.receiver();
        assert_eq!([(); 2].map(|()| next(&mut receiver)), [b"one", b"two"]);
        assert_eq!(end(&mut receiver), RecvError::PeerDied, "{length}");
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        assert_eq!(directory.size(), before + length as u64, "a reader changes nothing");
        // Whoever comes next, and whoever was there all the time.
        let mut present = directory.sender();
        present.send(b"three").unwrap();
        assert_eq!(next(&mut receiver), b"three");
        let end = directory.size();
        directory.file().write_all_at(&record[..length], end).unwrap();
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        present.send(b"four").unwrap();
        assert_eq!(next(&mut receiver), b"four");
        assert_eq!(directory.size(), end + AROUND + 4);
    }
    assert!(goodbye < before);
}

/// Has a sender end without a goodbye.
fn kill_in_place(sender: Sender) {
    std::mem::forget(sender);
    // SAFETY: nothing uses the descriptors of a sender that was forgotten.
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let is_log = fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("log"));
        if is_log {
            let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: as above.
            unsafe { libc::close(number) };
        }
    }
}

#[test]
fn damage_costs_a_record_or_the_log() {
    let _alone = alone();
    let directory = Directory::new();
    let mut sender = directory.sender();
    let mut places = Vec::new();
    for text in ["one", "two", "three"] {
        places.push(directory.size());
        sender.send(text).unwrap();
    }
    let flip = |at: u64| {
        let mut byte = [0];
        directory.file().read_exact_at(&mut byte, at).unwrap();
        directory.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    flip(places[1] + 32);
    let mut receiver = directory.receiver();
    assert_eq!(next(&mut receiver), b"one");
    assert_eq!(end(&mut receiver), RecvError::Malformed);
    assert_eq!(next(&mut receiver), b"three");
    directory.sender().send(b"behind it").unwrap();
    assert_eq!(next(&mut receiver), b"behind it");
    flip(places[1]);
    let mut receiver = directory.receiver();
    assert_eq!(next(&mut receiver), b"one");
    assert_eq!([(); 2].map(|()| end(&mut receiver)), [RecvError::Poisoned; 2]);
    let error = Options::new().sender(&directory.address("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&format!("truncate -s {}", places[1])), "{error}");
    // Cut under those who use it.
    directory.file().set_len(places[1]).unwrap();
    let mut present = directory.receiver();
    assert_eq!(next(&mut present), b"one");
    directory.file().set_len(HEAD).unwrap();
    assert_eq!(sender.send(b"four"), Err(SendError::Poisoned));
    assert_eq!(end(&mut present), RecvError::Poisoned);
}

#[test]
fn a_wrong_length_costs_no_record_behind_it() {
    let _alone = alone();
    let directory = Directory::new();
    let mut sender = directory.sender();
    let mut places = Vec::new();
    for text in ["one", "two", "three"] {
        places.push(directory.size());
        sender.send(text).unwrap();
    }
    drop(sender);
    let size = directory.size();
    // Both must be wrong, and the same, to be a header's at all: the length, and that of the message.
    let set_length = |length: u32| {
        for field in [4, 12] {
            directory.file().write_all_at(&length.to_le_bytes(), places[1] + field).unwrap();
        }
    };
    set_length(1 << 20);
    let mut receiver = directory.receiver();
    assert_eq!(next(&mut receiver), b"one");
    assert_eq!([(); 2].map(|()| end(&mut receiver)), [RecvError::Poisoned; 2]);
    let error = Options::new().sender(&directory.address("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&format!("byte {} ", places[1])), "{error}");
    assert_eq!(directory.size(), size);
    set_length(3);
    let mut receiver = directory.receiver();
    assert_eq!([(); 3].map(|()| next(&mut receiver)), [&b"one"[..], b"two", b"three"]);
}

#[test]
fn a_torn_message_of_another_logs_records_is_cut_off() {
    let _alone = alone();
    let (directory, other) = (Directory::new(), Directory::new());
    other.sender().send_many(["one", "two"]).unwrap();
    let message = fs::read(other.log()).unwrap();
    let mut sender = directory.sender();
    let before = directory.size();
    sender.send(&message).unwrap();
    drop(sender);
    directory.file().set_len(before + 32 + message.len() as u64).unwrap();
    directory.sender().send(b"whole").unwrap();
    assert_eq!(next(&mut directory.receiver()), b"whole");
}

#[test]
fn a_lock_that_is_held_delays_making_a_log_for_seconds_only() {
    let _alone = alone();
    let directory = Directory::new();
    let file = File::create_new(directory.log()).unwrap();
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&file), libc::LOCK_EX) }, 0);
    let error = Options::new().sender(&directory.address("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os);
    assert!(error.to_string().contains(&format!("process {} holds its flock", std::process::id())), "{error}");
    drop(file);
    directory.sender().send(b"made").unwrap();
    assert_eq!(next(&mut directory.receiver()), b"made");
}

#[test]
fn a_message_longer_than_wanted_is_passed_over() {
    let _alone = alone();
    let directory = Directory::new();
    let mut sender = directory.sender();
    sender.send(&[1; 200_000]).unwrap();
    sender.send(b"short").unwrap();
    let mut receiver = Options::new().max_message(1000).receiver(&directory.address("")).unwrap();
    assert_eq!(end(&mut receiver), RecvError::Malformed);
    assert_eq!(next(&mut receiver), b"short");
}

#[test]
fn without_space_nothing_is_half_made() {
    let _alone = alone();
    let directory = Directory::new();
    Child::fork(|_| {
        directory.mount("256k");
        let (mut receiver, mut sender) = (directory.receiver(), directory.sender());
        sender.send(&[1; 100_000]).unwrap();
        let size = directory.size();
        assert_eq!(sender.send(&[2; 200_000]), Err(SendError::Os { errno: libc::ENOSPC }));
        assert_eq!(directory.size(), size);
        sender.send(&[3; 50_000]).unwrap();
        // Of a batch, those that fit.
        let outcome = sender.send_many([&[4; 30_000]; 10]).unwrap_err();
        assert_eq!(outcome.error, SendError::Os { errno: libc::ENOSPC });
        assert!((1..4).contains(&outcome.sent), "{outcome}");
        assert_eq!(directory.size(), size + 50_000 + AROUND + outcome.sent as u64 * (30_000 + AROUND));
        // Not a byte is left for another.
        let mut filler = fs::File::create(directory.0.join("filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        drop(filler);
        let left = directory.size().next_multiple_of(4096) - directory.size();
        if left > AROUND {
            sender.send(&vec![5; (left - AROUND) as usize]).unwrap();
        }
        assert_eq!(sender.send(b"x"), Err(SendError::Os { errno: libc::ENOSPC }));
        let error = Options::new().sender(&directory.address("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().contains("df -h"), "{error}");
        fs::remove_file(directory.0.join("filler")).unwrap();
        sender.send(b"again").unwrap();
        assert_eq!(next(&mut receiver), [1; 100_000]);
        assert_eq!(next(&mut receiver), [3; 50_000]);
        for _ in 0..outcome.sent {
            assert_eq!(next(&mut receiver), [4; 30_000]);
        }
        if left > AROUND {
            assert!(next(&mut receiver).iter().all(|&byte| byte == 5));
        }
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        // What wasn't sent has no number.
        assert_eq!(
            (&message[..], message.sequence()),
            (&b"again"[..], 2 + outcome.sent as u64 + u64::from(left > AROUND))
        );
    })
    .expect_success();
}

#[test]
fn an_append_wakes_a_reader() {
    let _alone = alone();
    let directory = Directory::new();
    let mut child = Child::fork(|tell| {
        let mut receiver = directory.receiver();
        tell.say(b'r');
        assert_eq!(next(&mut receiver), b"wake");
        tell.say(b'w');
        assert_eq!(end(&mut receiver), RecvError::Closed);
    });
    child.expect(b'r');
    let mut sender = directory.sender();
    child.await_sleep();
    sender.send(b"wake").unwrap();
    child.expect(b'w');
    child.await_sleep();
    drop(sender);
    child.expect_success();
}

#[test]
fn a_death_is_told_once_and_only_when_nobody_is_left() {
    let _alone = alone();
    let directory = Directory::new();
    let mut receiver = directory.receiver();
    assert_eq!(receiver.recv_timeout(Duration::from_millis(250)).err(), Some(RecvError::Timeout), "nobody came yet");
    let mut doomed = Child::fork(|tell| {
        let mut sender = directory.sender();
        sender.send(b"last words").unwrap();
        tell.say(b's');
        tell.sleep_until_killed()
    });
    doomed.expect(b's');
    let sender = directory.sender();
    assert_eq!(next(&mut receiver), b"last words");
    kill(doomed);
    assert_eq!(receiver.recv_timeout(Duration::from_millis(250)).err(), Some(RecvError::Timeout), "one is left");
    drop(sender);
    assert_eq!(end(&mut receiver), RecvError::PeerDied);
    assert_eq!(end(&mut receiver), RecvError::Closed);
    // For one whose position is behind it, that is long ago.
    let mut named = directory.named("r");
    assert_eq!(next(&mut named), b"last words");
    assert_eq!(end(&mut named), RecvError::PeerDied);
    drop(named);
    assert_eq!(end(&mut directory.named("r")), RecvError::Closed);
    directory.sender().send(b"successor").unwrap();
    assert_eq!(next(&mut receiver), b"successor");
    assert_eq!(end(&mut receiver), RecvError::Closed);
}

#[test]
fn a_writer_that_says_nothing_keeps_a_log_open() {
    let _alone = alone();
    let directory = Directory::new();
    let silent = directory.sender();
    directory.sender().send_many(["a", "b"]).unwrap();
    assert_eq!(next(&mut directory.named("r")), b"a");
    let mut receiver = directory.named("r");
    assert_eq!(next(&mut receiver), b"b");
    assert_eq!(receiver.recv_timeout(Duration::from_millis(250)).err(), Some(RecvError::Timeout));
    drop(silent);
    assert_eq!(end(&mut receiver), RecvError::Closed);
}

#[test]
fn a_lock_that_is_held_delays_a_sender_until_its_deadline() {
    let _alone = alone();
    let directory = Directory::new();
    let mut sender = directory.sender();
    let file = directory.file();
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&file), libc::LOCK_EX) }, 0);
    assert_eq!(sender.try_send(b"x"), Err(SendError::Full));
    assert_eq!(sender.send_timeout(b"x", Duration::from_millis(20)), Err(SendError::Timeout));
    // Opening doesn't wait; what it would have said goes with the first message.
    let mut other = directory.sender();
    drop(file);
    other.send(b"other").unwrap();
    assert_eq!(sender.send(b"y"), Ok(0));
    let mut receiver = directory.receiver();
    assert_eq!([(); 2].map(|()| next(&mut receiver)), [&b"other"[..], b"y"]);
}

#[test]
fn what_is_no_log_is_left_alone() {
    let _alone = alone();
    let directory = Directory::new();
    let refused = |expected: ErrorKind| {
        for error in [
            Options::new().sender(&directory.address("")).err(),
            Options::new().receiver(&directory.address("")).err(),
            ringway::transport::remove(&directory.address(""), true).err(),
        ] {
            assert_eq!(error.unwrap().kind(), expected);
        }
    };
    fs::write(directory.log(), "dear diary").unwrap();
    refused(ErrorKind::InvalidInput);
    assert_eq!(fs::read(directory.log()).unwrap(), b"dear diary");
    fs::remove_file(directory.log()).unwrap();
    fs::create_dir(directory.log()).unwrap();
    assert!(Options::new().receiver(&directory.address("")).is_err());
    fs::remove_dir(directory.log()).unwrap();
    assert_eq!(Options::new().existing().receiver(&directory.address("")).unwrap_err().kind(), ErrorKind::NotFound);
    // An empty file becomes one; a link is followed.
    fs::write(directory.0.join("elsewhere"), "").unwrap();
    symlink("elsewhere", directory.log()).unwrap();
    directory.sender().send(b"through").unwrap();
    assert_eq!(next(&mut directory.receiver()), b"through");
    assert_eq!(
        Options::new().create_new().sender(&directory.address("")).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        Options::new().capacity(4096).sender(&directory.address("")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        Options::new().framing(ringway::Framing::None).sender(&directory.address("")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn removal_takes_the_positions_along() {
    let _alone = alone();
    let directory = Directory::new();
    let sender = Options::new().perm(0o640).sender(&directory.address("")).unwrap();
    assert_eq!(fs::metadata(directory.log()).unwrap().mode() & 0o777, 0o640);
    drop((directory.named("a"), directory.named("b")));
    fs::write(directory.0.join("log.position"), "somebody else's").unwrap();
    let error = ringway::transport::remove(&directory.address(""), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RoleTaken { pid: 0 });
    drop(sender);
    ringway::transport::remove(&directory.address(""), false).unwrap();
    let left: Vec<_> = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log.position"]);
    assert_eq!(ringway::transport::remove(&directory.address(""), false).unwrap_err().kind(), ErrorKind::NotFound);
    let sender = directory.sender();
    ringway::transport::remove(&directory.address(""), true).unwrap();
    drop(sender);
    assert!(!directory.log().exists());
}

#[test]
fn a_forked_child_is_not_a_writer() {
    let _alone = alone();
    let directory = Directory::new();
    let (mut sender, mut receiver) = (directory.sender(), directory.named("r"));
    let mut child = Child::fork(|tell| {
        assert_eq!(sender.send(b"x"), Err(SendError::Fenced));
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Fenced));
        tell.say(b'f');
        tell.sleep_until_killed()
    });
    child.expect(b'f');
    sender.send(b"y").unwrap();
    assert_eq!(next(&mut receiver), b"y");
    drop(sender);
    // Though the child still has the descriptors.
    assert_eq!(end(&mut receiver), RecvError::Closed);
    drop(receiver);
    drop(directory.named("r"));
}
