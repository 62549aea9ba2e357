//! What members of a ring sleep on beside its memory: made, found, shared, and taken away with the ring.

mod common;

use common::crowd::trusted;
use common::sleep::assert_wakes;
use common::{Child, Kind, PATIENCE, Scratch, alone};
use ringway::{Address, ErrorKind, Options, RecvError, Wait, segment, transport};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Those whose bells have names.
const BY_NAME: [Wait; 3] = [Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo];

/// The bells of one ring.
struct Bells {
    wait: Wait,
    id: u64,
}

impl Bells {
    fn of(scratch: &Scratch, wait: Wait) -> Self {
        let mut id = [0; 8];
        let name = scratch.name().unwrap().to_string();
        let path = Path::new("/dev/shm").join(name.strip_prefix("shm:///").expect("only shm: is read here"));
        std::fs::File::open(path).unwrap().read_exact_at(&mut id, 120).unwrap();
        Self { wait, id: u64::from_le_bytes(id) }
    }

    fn path(&self, member: u32) -> PathBuf {
        let prefix = if self.wait == Wait::NamedSemaphore { "sem." } else { "" };
        format!("/dev/shm/{prefix}ringway.{:016x}.{member}", self.id).into()
    }

    /// None if it isn't there.
    fn set(&self) -> Option<libc::c_int> {
        // SAFETY: a plain system call.
        let set = unsafe { libc::semget((self.id ^ self.id >> 32) as libc::key_t, 0, 0) };
        (set >= 0).then_some(set)
    }

    fn has(&self, member: u32) -> bool {
        match self.wait {
            Wait::SystemVSemaphore => self.set().is_some(),
            _ => self.path(member).exists(),
        }
    }

    #[track_caller]
    fn assert_gone(&self) {
        (0..128).for_each(|member| assert!(!self.has(member), "{}: bell {member} is left", self.wait));
    }
}

fn ring(wait: Wait, options: &str) -> Scratch {
    Scratch::with(Kind::Shm, &format!("capacity=4KiB&wait={wait}{options}"))
}

/// Sleeps at once.
fn sleepy() -> Options {
    Options::new().spin(Duration::ZERO).keep_open(true)
}

#[test]
fn they_go_with_the_last_who_leaves() {
    let _alone = alone();
    for wait in BY_NAME {
        for options in ["", "&ring=mpmc&producers=64&max_message=64"] {
            let scratch = ring(wait, options);
            let (sender, receiver) = (scratch.sender(), scratch.receiver());
            let bells = Bells::of(&scratch, wait);
            let consumer = if options.is_empty() { 1 } else { 64 };
            assert!(bells.has(0) && bells.has(consumer), "{wait}");
            drop(sender);
            assert!(bells.has(0) && bells.has(consumer), "a successor uses it");
            drop(receiver);
            assert!(!scratch.exists());
            bells.assert_gone();
        }
    }
}

#[test]
fn they_go_when_what_was_killed_is_removed() {
    let _alone = alone();
    for wait in BY_NAME {
        for remove in [(|scratch| segment::remove(scratch.name().unwrap()).unwrap()) as fn(&Scratch), |scratch| {
            transport::remove(&scratch.address, false).unwrap()
        }] {
            let scratch = ring(wait, "");
            let mut children = [true, false].map(|sends| {
                let mut child = Child::fork(|tell| {
                    let _sender = sends.then(|| scratch.sender());
                    let _receiver = (!sends).then(|| scratch.receiver());
                    tell.say(b'j');
                    tell.sleep_until_killed()
                });
                child.expect(b'j');
                child
            });
            children.iter_mut().for_each(Child::kill_without_reaping);
            let bells = Bells::of(&scratch, wait);
            assert!(bells.has(0) && bells.has(1), "{wait}");
            remove(&scratch);
            bells.assert_gone();
        }
    }
}

#[test]
fn they_go_with_a_ring_that_somebody_removes_while_it_is_used() {
    let _alone = alone();
    for wait in BY_NAME {
        let scratch = ring(wait, "");
        let mut sender = sleepy().sender(&scratch.address).unwrap();
        let mut child = Child::fork(|tell| {
            let mut receiver = sleepy().receiver(&scratch.address).unwrap();
            tell.say(b'r');
            for _ in 0..20 {
                receiver.recv_timeout(PATIENCE).unwrap();
                tell.say(b'm');
            }
        });
        child.expect(b'r');
        assert_wakes(&child, || _ = sender.send(b"before").unwrap());
        child.expect(b'm');
        let bells = Bells::of(&scratch, wait);
        transport::remove(&scratch.address, false).unwrap();
        bells.assert_gone();
        // Both have what they need, or do without: the last ones don't wait for a slice each.
        let begun = Instant::now();
        for _ in 1..20 {
            child.await_sleep();
            sender.send(b"after").unwrap();
            child.expect(b'm');
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{wait}: {:?}", begun.elapsed());
        child.expect_success();
        drop(sender);
        bells.assert_gone();
    }
}

#[test]
fn they_are_not_taken_for_rings() {
    let _alone = alone();
    for wait in BY_NAME {
        let scratch = ring(wait, "");
        let _ends = (scratch.sender(), scratch.receiver());
        let bells = Bells::of(&scratch, wait);
        let id = format!("{:016x}", bells.id);
        let listed = segment::list().unwrap();
        assert!(listed.iter().any(|(name, _)| Some(name) == scratch.name()));
        assert!(!listed.iter().any(|(name, _)| name.to_string().contains(&id)), "{wait}");
        assert!(bells.has(0) && bells.has(1));
    }
}

#[test]
fn one_who_is_killed_leaves_its_bell_to_its_successor() {
    let _alone = alone();
    for wait in BY_NAME {
        let scratch = ring(wait, "");
        let mut sender = sleepy().sender(&scratch.address).unwrap();
        for _ in 0..3 {
            let mut child = Child::fork(|tell| {
                let mut receiver = sleepy().receiver(&scratch.address).unwrap();
                tell.say(b'r');
                loop {
                    receiver.recv().unwrap();
                    tell.say(b'm');
                }
            });
            child.expect(b'r');
            for _ in 0..5 {
                assert_wakes(&child, || _ = sender.send(b"x").unwrap());
                child.expect(b'm');
            }
            child.await_sleep();
            child.kill_without_reaping();
            // Rung for the dead one, as far as anybody knows: the next one hears it, and looks.
            sender.send(b"y").unwrap();
            let mut receiver = sleepy().receiver(&scratch.address).unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], b"y");
        }
    }
}

#[test]
fn a_flood_of_rings_costs_looks_and_no_messages() {
    let _alone = alone();
    for wait in BY_NAME {
        let scratch = ring(wait, "");
        let mut sender = sleepy().sender(&scratch.address).unwrap();
        let mut receiver = sleepy().receiver(&scratch.address).unwrap();
        let bells = Bells::of(&scratch, wait);
        flood(&bells, 1);
        // It sleeps all the same, and its time is over when it is.
        assert_eq!(receiver.recv_timeout(Duration::from_millis(30)).err(), Some(RecvError::Timeout));
        flood(&bells, 1);
        sender.send(b"x").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"x");
        // Nor is the notifier kept.
        flood(&bells, 1);
        let mut child = Child::fork(|_| {
            let mut sender = sender;
            _ = sender.try_send(b"inert");
        });
        child.expect_success();
    }
}

/// As often as it goes.
fn flood(bells: &Bells, member: u16) {
    match bells.wait {
        Wait::SystemVSemaphore => {
            // SAFETY: a plain system call; the value is SEMVMX.
            assert_eq!(unsafe { libc::semctl(bells.set().unwrap(), member.into(), libc::SETVAL, 32767) }, 0);
        }
        Wait::NamedSemaphore => {
            let file = std::fs::OpenOptions::new().write(true).open(bells.path(member.into())).unwrap();
            file.write_all_at(&i32::MAX.to_le_bytes(), 0).unwrap();
        }
        _ => {
            use std::io::Write;
            use std::os::unix::fs::OpenOptionsExt;
            let mut options = std::fs::OpenOptions::new();
            let mut fifo =
                options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(bells.path(member.into()));
            while fifo.as_mut().unwrap().write(&[1; 4096]).is_ok() {}
        }
    }
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let _alone = alone();
    let name = format!("ringway-test-bells-{}", std::process::id());
    let directory = std::env::temp_dir();
    let refused = |address: &str, others: &str| {
        let address: Address = address.parse().unwrap();
        let error = Options::new().receiver(&address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(others), "{error}");
    };
    let named = "a ring with a name can wait by spin, futex, sem, named-sem, sysv-sem, fifo";
    refused(&format!("shm:///{name}?wait=eventfd"), named);
    refused(&format!("file://{}?wait=eventfd", directory.join(&name).display()), named);
    refused(&format!("sysv:?key={:#x}&wait=eventfd", 0x7000_0000 | std::process::id()), named);
    for wait in BY_NAME {
        let unnamed = "a ring without a name can wait by spin, futex, sem, eventfd";
        refused(&format!("anon:{name}?wait={wait}"), unnamed);
        refused(&format!("memfd://{}?wait={wait}", directory.join(&name).display()), unnamed);
        refused(&format!("auto:///{name}?wait={wait}"), unnamed);
        let error = ringway::spsc::channel(&Options::new().wait(wait)).unwrap_err();
        assert!(error.to_string().contains(unnamed), "{error}");
    }
    assert!(!Path::new("/dev/shm").join(&name).exists() && !directory.join(&name).exists());
}

#[test]
fn one_that_can_not_be_made_leaves_nothing_behind() {
    let _alone = alone();
    for wait in [Wait::NamedSemaphore, Wait::Fifo] {
        let scratch = ring(wait, "&persist=yes");
        drop(scratch.sender());
        let bells = Bells::of(&scratch, wait);
        // Something else has the name of the receiver's.
        std::fs::create_dir(bells.path(1)).unwrap();
        let error = Options::new().receiver(&scratch.address).unwrap_err();
        std::fs::remove_dir(bells.path(1)).unwrap();
        assert!(error.to_string().contains(&format!("ringway.{:016x}.1", bells.id)), "{error}");
        // The role is free again.
        let mut receiver = scratch.receiver();
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
        drop(receiver);
        segment::remove(scratch.name().unwrap()).unwrap();
        bells.assert_gone();
    }
}

#[test]
fn many_members_are_woken_each_by_its_own() {
    let _alone = alone();
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::many(kind, &format!("capacity=4KiB&max_message=64&producers=2&wait={wait}"));
        let mut producer = trusted(sleepy()).mpmc_producer(&scratch.address).unwrap();
        let mut children: Vec<Child> = (0..4)
            .map(|_| {
                let mut child = Child::fork(|tell| {
                    let consumer = trusted(sleepy()).mpmc_consumer(&scratch.address).unwrap();
                    tell.say(b'j');
                    consumer.recv_timeout(PATIENCE).unwrap();
                });
                child.expect(b'j');
                child
            })
            .collect();
        children.iter().for_each(Child::await_sleep);
        let begun = Instant::now();
        (0..4).for_each(|_| _ = producer.try_reserve(1).unwrap().commit(1));
        children.iter_mut().for_each(Child::expect_success);
        assert!(begun.elapsed() < PATIENCE / 2, "{wait}");
    }
}
