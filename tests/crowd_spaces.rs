//! Rings of many across namespaces, containers and reboots, where process numbers mean nothing or something else; and where
//! memory is short.

mod common;

use common::crowd::put;
use common::faults::{enter_another_boot, enter_another_time, kill, unshare};
use common::{Child, NAMED, PATIENCE, Scratch, alone};
use ringway::mpmc::{Consumer, Producer};
use ringway::{ErrorKind, Options, PeerState, RecvError, recover};
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SMALL: &str = "capacity=4KiB&max_message=64&producers=3";
/// Longer than the time within which a death is noticed.
const LONG: Duration = Duration::from_millis(250);

fn go_on(producer: &mut Producer, consumer: &Consumer) {
    for number in 0..300u64 {
        put(producer, &number.to_le_bytes());
        assert_eq!(consumer.recv_timeout(PATIENCE).unwrap()[..], number.to_le_bytes());
    }
}

/// Joins in both roles, and holds a message until killed.
fn hold(scratch: &Scratch, tell: &mut dyn FnMut(u8)) -> ! {
    let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
    put(&mut producer, b"held");
    let _held = consumer.recv().unwrap();
    tell(b'h');
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}

/// A child that does `enter`, and whose own child then looks around, and holds a message; the end of the first is the end of
/// the second.
fn holder_within(scratch: &Scratch, enter: impl FnOnce(), look: impl FnOnce()) -> Child {
    let mut outer = Child::fork(|tell| {
        enter();
        let mut inner = Child::fork(|inner| {
            look();
            hold(scratch, &mut |byte| inner.say(byte))
        });
        inner.expect(b'h');
        tell.say(b'h');
        tell.sleep_until_killed()
    });
    outer.expect(b'h');
    outer
}

/// Somebody who holds a message is taken for alive, and lets all others go on.
fn expect_alive(scratch: &Scratch, producer: &mut Producer, consumer: &Consumer) -> PeerState {
    go_on(producer, consumer);
    assert_eq!(consumer.recv_timeout(LONG).err(), Some(RecvError::Timeout), "nobody died");
    assert_eq!(recover(scratch.name().unwrap()).unwrap().deaths, 0);
    let lanes = scratch.lanes().unwrap();
    assert_eq!((lanes.leased, lanes.requeued), (1, 0));
    let own = PeerState::Alive { pid: std::process::id() };
    let states: Vec<_> = consumer.peers().into_iter().filter(|state| *state != own).collect();
    assert!(matches!(states[..], [PeerState::Alive { .. }]), "{states:?}");
    states[0]
}

/// It died, and its message comes again.
fn expect_dead(scratch: &Scratch, producer: &mut Producer, consumer: &Consumer) {
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.deliveries()), (&b"held"[..], 1));
    drop(message);
    go_on(producer, consumer);
    let report = scratch.report().unwrap();
    let deaths = report.producers.iter().chain(&report.consumers).map(|peer| peer.deaths).sum::<u32>();
    assert_eq!(deaths, 2);
}

#[test]
fn processes_in_two_pid_namespaces_share_a_ring() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, SMALL);
        // The other way round as well: those outside are not dead for one within.
        let mut producer = scratch.producer();
        put(&mut producer, b"outside");
        let outside = scratch.consumer();
        let message = outside.recv().unwrap();
        let enter = || unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID);
        let outer = holder_within(&scratch, enter, || {
            assert_eq!(std::process::id(), 1);
            assert_eq!(recover(scratch.name().unwrap()).unwrap().deaths, 0);
            let consumer = scratch.consumer();
            assert!(matches!(consumer.peers()[..], [PeerState::Alive { .. }]));
            assert_eq!(consumer.recv_timeout(LONG).err(), Some(RecvError::Timeout));
        });
        drop(message);
        assert_eq!(expect_alive(&scratch, &mut producer, &outside), PeerState::Alive { pid: 1 }, "{kind:?}");
        drop(outer);
        expect_dead(&scratch, &mut producer, &outside);
    }
}

#[test]
fn processes_in_other_containers_are_alive_until_they_die() {
    let _alone = alone();
    for enter in [enter_another_time, enter_another_boot] {
        for kind in NAMED {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
            let outer = holder_within(&scratch, enter, || ());
            expect_alive(&scratch, &mut producer, &consumer);
            drop(outer);
            expect_dead(&scratch, &mut producer, &consumer);
        }
    }
}

#[test]
fn all_members_of_before_a_reboot_are_dead() {
    let _alone = alone();
    // What a reboot leaves is a file whose members are of another boot.
    let scratch = Scratch::many(common::Kind::File, SMALL);
    drop(holder_within(&scratch, enter_another_boot, || ()));
    // The death of the inner one follows that of the outer one.
    while !matches!(scratch.report().unwrap().consumers[0].state, PeerState::Dead { .. }) {
        std::thread::yield_now();
    }
    let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
    assert_eq!(producer.lane(), 0);
    expect_dead(&scratch, &mut producer, &consumer);
}

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, SMALL);
        let mut outer = Child::fork(|tell| {
            unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS);
            Child::fork(|_| {
                let none = std::ptr::null::<libc::c_void>();
                // SAFETY: the strings are valid for the call.
                let proc = unsafe { libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, none) };
                assert_eq!(proc, 0, "a /proc of its own: {}", io::Error::last_os_error());
                let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
                let mut victim = Child::fork(|tell| hold(&scratch, &mut |byte| tell.say(byte)));
                victim.expect(b'h');
                let pid = victim.pid();
                kill(victim);
                // Far quicker than any machine uses its numbers up, and yet longer than a clock tick.
                std::thread::sleep(Duration::from_millis(30));
                // The next process gets that number.
                fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
                let namesake = Child::fork(|tell| tell.sleep_until_killed());
                assert_eq!(namesake.pid(), pid);
                assert!(consumer.peers().contains(&PeerState::Dead { pid }), "{:?}", consumer.peers());
                expect_dead(&scratch, &mut producer, &consumer);
            })
            .expect_success();
            tell.say(b'd');
        });
        outer.expect(b'd');
        outer.expect_success();
    }
}

/// A directory for a small file system, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ringway-test-{}-small", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// In a mount namespace of this process's own, which ends with it.
    fn mount(&self, size: &str) {
        // SAFETY: they have no preconditions.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
        let target = CString::new(self.0.to_str().unwrap()).unwrap();
        let options = CString::new(format!("size={size}")).unwrap();
        // SAFETY: the strings are valid for the call.
        let answer =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(answer, 0, "mount: {}", io::Error::last_os_error());
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_file_system_of_64_kib_is_too_small_and_says_so() {
    let _alone = alone();
    let directory = Directory::new();
    Child::fork(|_| {
        directory.mount("64k");
        let address =
            |options: &str| format!("file://{}/ring?ring=mpmc{options}", directory.0.display()).parse().unwrap();
        for options in ["", "&capacity=64KiB", "&producers=64&capacity=4KiB"] {
            let error = Options::new().receiver(&address(options)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert!(error.to_string().contains("df -h"), "{error}");
            assert!(is_empty(&directory.0), "nothing half made");
        }
        // The smallest one fits, and is all there: no write to it can fail later.
        let smallest = address("&producers=1&capacity=4KiB&max_message=64");
        let (mut receiver, mut sender) =
            (Options::new().receiver(&smallest).unwrap(), Options::new().sender(&smallest).unwrap());
        let _ = fs::write(directory.0.join("filler"), vec![1; 64 << 10]);
        for number in 0..1000u64 {
            sender.send(&number.to_le_bytes()).unwrap();
            assert_eq!(receiver.recv().unwrap()[..], number.to_le_bytes());
        }
    })
    .expect_success();
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}
