//! Real refusals of the kernel's: each message names the limit, its value, and how to raise it.

mod common;

use common::{Child, PATIENCE, alone};
use ringway::{Address, ErrorKind, Options, SendError};
use std::fs;
use std::path::PathBuf;

/// An empty directory that anybody may write to, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("ringway-limits-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }

    fn address(&self, scheme: &str, options: &str) -> Address {
        format!("{scheme}://{}/place{options}", self.0.display()).parse().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs it without the privileges of the one who tests, to whom some limits don't apply.
fn unprivileged(work: impl FnOnce()) {
    Child::fork(|_| {
        // SAFETY: plain system calls of a child with one thread.
        unsafe {
            if libc::geteuid() == 0 {
                assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
                assert_eq!(libc::setgid(65534), 0);
                assert_eq!(libc::setuid(65534), 0);
            }
        }
        work();
    })
    .expect_success();
}

#[track_caller]
fn expect<T>(refused: ringway::Result<T>, words: &[&str]) {
    let error = refused.err().expect("it was granted");
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "{word} is missing: {text}"));
}

/// What the kernel says the limit is.
fn value(limit: &str) -> String {
    fs::read_to_string(limit).unwrap().trim().to_owned()
}

/// More than any system gives to everybody.
const LARGE: usize = 512 << 20;

#[test]
fn the_size_of_pipes() {
    const LIMIT: &str = "/proc/sys/fs/pipe-max-size";
    let _alone = alone();
    let directory = Directory::new("pipe");
    let words = [LIMIT, &value(LIMIT), "`sysctl fs.pipe-max-size=536870912`"];
    unprivileged(|| {
        expect(Options::new().receiver(&directory.address("fifo", "?capacity=512MiB")), &words);
        expect(Options::new().pair(&"pipe:?capacity=512MiB".parse().unwrap()), &words);
    });
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0, "a failed attempt leaves nothing");
}

#[test]
fn the_buffers_of_sockets() {
    const RECEIVING: &str = "/proc/sys/net/core/rmem_max";
    const SENDING: &str = "/proc/sys/net/core/wmem_max";
    let _alone = alone();
    let directory = Directory::new("socket");
    unprivileged(|| {
        for kind in ["stream", "dgram", "seqpacket"] {
            let options = format!("?type={kind}");
            let receiving = [RECEIVING, &value(RECEIVING), "`sysctl net.core.rmem_max=536870912`"];
            expect(Options::new().capacity(LARGE).receiver(&directory.address("unix", &options)), &receiving);
            let address = directory.address("unix", &options);
            let _receiver = Options::new().receiver(&address).unwrap();
            let sending = [SENDING, &value(SENDING), "`sysctl net.core.wmem_max=536870912`"];
            expect(Options::new().capacity(LARGE).sender(&address), &sending);
        }
        let receiving = [RECEIVING, &value(RECEIVING), "`sysctl net.core.rmem_max=536870912`"];
        expect(Options::new().receiver(&"tcp://127.0.0.1:0?capacity=512MiB".parse().unwrap()), &receiving);
        expect(Options::new().receiver(&"udp://127.0.0.1:0?capacity=512MiB".parse().unwrap()), &receiving);
    });
}

#[test]
fn the_length_of_a_path() {
    let _alone = alone();
    let directory = Directory::new("path");
    let long = "x".repeat(108);
    for address in ["unix", "memfd"] {
        let address: Address = format!("{address}://{}/{long}", directory.0.display()).parse().unwrap();
        for refused in [Options::new().receiver(&address).err(), Options::new().sender(&address).err()] {
            let error = refused.unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            expect::<()>(Err(error), &["107 bytes", "sun_path", "shorter"]);
        }
    }
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0, "a failed attempt leaves nothing");
}

#[test]
fn the_length_of_a_datagram() {
    let _alone = alone();
    let mut receiver = Options::new().receiver(&"udp://127.0.0.1:0?framing=none".parse().unwrap()).unwrap();
    let address = format!("udp://{}?framing=none", receiver.local_address().unwrap()).parse().unwrap();
    let mut sender = Options::new().sender(&address).unwrap();
    let max = sender.max_message();
    assert_eq!(max, 65_507);
    assert_eq!(sender.send(&vec![7; max + 1]), Err(SendError::TooLarge { max }));
    assert!(SendError::TooLarge { max }.to_string().contains("65507 bytes"));
    sender.send(&vec![7; max]).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), max);
}

#[test]
fn the_number_of_queues() {
    const SYSV: &str = "/proc/sys/kernel/msgmni";
    const POSIX: &str = "/proc/sys/fs/mqueue/queues_max";
    let _alone = alone();
    // Of IPC namespaces of their own, with limits of their own, which end with them.
    Child::fork(|_| {
        if !enter_another_ipc() {
            return;
        }
        fs::write(SYSV, "0").unwrap();
        expect(Options::new().receiver(&"sysvmq:?key=0x51".parse().unwrap()), &[SYSV, ", 0:", "sysctl kernel.msgmni"]);
    })
    .expect_success();
    unprivileged_in_another_ipc(POSIX, || {
        expect(
            Options::new().receiver(&"mq:///full".parse().unwrap()),
            &[POSIX, ", 0:", "sysctl fs.mqueue.queues_max"],
        );
    });
}

/// With a limit of 0 there.
fn unprivileged_in_another_ipc(limit: &str, work: impl FnOnce()) {
    Child::fork(|_| {
        if enter_another_ipc() {
            fs::write(limit, "0").unwrap();
            unprivileged(work);
        }
    })
    .expect_success();
}

/// Only root may change its limits.
fn enter_another_ipc() -> bool {
    // SAFETY: it has no preconditions.
    let is_root = unsafe { libc::geteuid() == 0 };
    if is_root {
        common::faults::unshare(libc::CLONE_NEWIPC);
    } else {
        eprintln!("skipped: the limits of an IPC namespace are root's to change");
    }
    is_root
}

#[test]
fn what_a_small_buffer_cannot_take_at_once_is_split() {
    let _alone = alone();
    let directory = Directory::new("small-buffer");
    for kind in ["dgram", "seqpacket"] {
        let address = directory.address("unix", &format!("?type={kind}&capacity=8KiB"));
        let mut receiver = Options::new().receiver(&address).unwrap();
        let mut sending = Child::fork(|_| {
            let mut sender = Options::new().connect(PATIENCE).sender(&address).unwrap();
            sender.send(&vec![7; 1 << 20]).unwrap();
        });
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert!(message.len() == 1 << 20 && message.iter().all(|&byte| byte == 7), "{kind}");
        drop(message);
        sending.expect_success();
    }
}
