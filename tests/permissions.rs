//! Who may use what is met at: by default its owner's processes only, with `perm=` others too.

mod common;

use common::{Child, PATIENCE, alone};
use ringway::{Address, ErrorKind, Options};
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};

const NOBODY: libc::uid_t = 65534;

fn become_nobody() {
    // SAFETY: plain system calls of a child with one thread.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}

/// Neither does root, to whom modes don't apply.
fn become_somebody() {
    // SAFETY: as above.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(NOBODY - 1), 0);
        assert_eq!(libc::setuid(NOBODY - 1), 0);
    }
}

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    let is_root = unsafe { libc::geteuid() == 0 };
    if !is_root {
        eprintln!("skipped: only root can become other users");
    }
    is_root
}

/// What no other test has, in a directory that anybody may write to; removed at the end.
struct Place {
    scheme: &'static str,
    directory: PathBuf,
    key: u32,
}

impl Place {
    fn new(scheme: &'static str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (number, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let directory = std::env::temp_dir().join(format!("ringway-permissions-{pid}-{number}"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        Self { scheme, directory, key: 0x2000_0000 | ((number % 64) << 22) | pid }
    }

    fn name(&self) -> &str {
        self.directory.file_name().unwrap().to_str().unwrap()
    }

    fn address(&self) -> Address {
        let place = match self.scheme {
            "mq" => format!("mq:///{}", self.name()),
            "sysvmq" => format!("sysvmq:?key={:#x}", self.key),
            scheme => format!("{scheme}://{}/place", self.directory.display()),
        };
        place.parse().unwrap()
    }

    /// The mode of what is there.
    fn mode(&self) -> u32 {
        let of = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        match self.scheme {
            "mq" => mode_of_queue(self.name()),
            "sysvmq" => {
                let queues = fs::read_to_string("/proc/sysvipc/msg").unwrap();
                let rows = queues.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
                let row = rows.clone().find(|row| row[0] == self.key.to_string()).unwrap();
                u32::from_str_radix(row[2], 8).unwrap() & 0o777
            }
            _ => of(&self.directory.join("place")),
        }
    }
}

/// Of a POSIX queue, which may have no file to be seen.
fn mode_of_queue(name: &str) -> u32 {
    let name = CString::new(format!("/{name}")).unwrap();
    // SAFETY: the string is valid for the call.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    assert!(queue >= 0, "{}", io::Error::last_os_error());
    // SAFETY: it was just opened, and is nobody else's.
    let queue = fs::File::from(unsafe { OwnedFd::from_raw_fd(queue) });
    queue.metadata().unwrap().mode() & 0o777
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = ringway::transport::remove(&self.address(), true);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn options(perm: Option<u32>) -> Options {
    let options = Options::new().connect(Duration::from_secs(10));
    match perm {
        Some(perm) => options.perm(perm),
        None => options,
    }
}

/// A receiver and a sender, each with what it does before; whether the sender may send.
fn meet(scheme: &'static str, perm: Option<u32>, receiver: fn(), sender: fn()) -> Result<(), ErrorKind> {
    let place = Place::new(scheme);
    let mut receiving = Child::fork(|tell| {
        receiver();
        let mut end = options(perm).receiver(&place.address()).unwrap();
        tell.say(b'r');
        match end.recv_timeout(PATIENCE) {
            Ok(message) => assert_eq!(&message[..], b"let in"),
            Err(error) => panic!("{error:?}"),
        };
    });
    receiving.expect(b'r');
    let mut sending = Child::fork(|tell| {
        sender();
        let opened = options(perm).sender(&place.address());
        tell.say(opened.is_err().into());
        match opened {
            Ok(mut end) => {
                end.send(b"let in").unwrap();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        }
    });
    let is_refused = sending.hear() != 0;
    sending.expect_success();
    if is_refused {
        return Err(ErrorKind::PermissionDenied);
    }
    receiving.expect_success();
    Ok(())
}

fn only_those_who_may(scheme: &'static str) {
    let _alone = alone();
    if !is_root() {
        return;
    }
    for (receiver, sender) in [(become_nobody as fn(), become_somebody as fn()), (become_somebody, become_nobody)] {
        assert_eq!(meet(scheme, None, receiver, sender), Err(ErrorKind::PermissionDenied));
        assert_eq!(meet(scheme, Some(0o666), receiver, sender), Ok(()));
        assert_eq!(meet(scheme, None, receiver, receiver), Ok(()));
    }
    // Root gets in everywhere, but doesn't send to whom others could have put there.
    assert_eq!(meet(scheme, None, become_nobody, || {}), Err(ErrorKind::PermissionDenied));
    assert_eq!(meet(scheme, Some(0o666), become_nobody, || {}), Ok(()));
    assert_eq!(meet(scheme, Some(0o666), || {}, become_nobody), Ok(()));
}

fn the_mode(scheme: &'static str) {
    let _alone = alone();
    for (perm, mode) in [(None, 0o600), (Some(0o666), 0o666), (Some(0o640), 0o640)] {
        for mask in [0, 0o077] {
            let place = Place::new(scheme);
            Child::fork(|_| {
                // SAFETY: a plain system call.
                unsafe { libc::umask(mask) };
                let _receiver = options(perm).receiver(&place.address()).unwrap();
                let found = place.mode();
                assert_eq!(found, mode, "{found:o} with umask {mask:o}");
            })
            .expect_success();
        }
    }
}

macro_rules! schemes {
    ($($scheme:ident)*) => {
        $(mod $scheme {
            #[test]
            fn only_those_who_may() {
                crate::only_those_who_may(stringify!($scheme));
            }

            #[test]
            fn the_mode() {
                crate::the_mode(stringify!($scheme));
            }
        })*
    };
}

schemes! { fifo mq sysvmq unix log }

/// A socket at which a ring is handed over lets everybody knock, and looks who it is.
#[test]
fn memfd() {
    only_those_who_may("memfd");
}

#[test]
fn a_stranger_at_an_abstract_name_is_not_let_in() {
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    let _alone = alone();
    if !is_root() {
        return;
    }
    let name = format!("ringway-permissions-{}", std::process::id());
    for (perm, is_admitted) in [("", false), ("?perm=0666", true)] {
        let address: Address = format!("unix:@{name}{perm}").parse().unwrap();
        let mut receiver = Options::new().receiver(&address).unwrap();
        let mut child = Child::fork(|_| {
            become_nobody();
            let place = SocketAddr::from_abstract_name(&name).unwrap();
            let mut stream = UnixStream::connect_addr(&place).unwrap();
            let _ = stream.write_all(&[b'x'; 64]);
            // Until it is hung up on, for one reason or the other.
            let _ = stream.read(&mut [0; 64]);
        });
        let mut malformed = 0;
        while common::runs(&child) {
            match receiver.recv_timeout(Duration::from_millis(20)).err() {
                Some(ringway::RecvError::Timeout) => {}
                Some(ringway::RecvError::Malformed) => malformed += 1,
                other => panic!("{other:?}"),
            }
        }
        child.expect_success();
        assert_eq!(malformed, u32::from(is_admitted), "{address}");
    }
}
