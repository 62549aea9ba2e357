//! Who owns a path at which others are received: one receiver, as long as it lives.
//!
//! A file beside it, `PATH.lock`, is locked by its owner, and the kernel ends the lock with the owner. So whoever gets the lock may
//! take away what a dead owner left behind at the path, and nobody else does. The lock file goes last, while it is still locked:
//! who opened it before that and gets the lock after finds that the name leads elsewhere, and begins anew.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;
use crate::sys::file::{Identity, NO_FOLLOW};
use crate::sys::process::user_id;
use crate::sys::socket::{self, Place, Type};

/// The right to a path.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl Claim {
    /// Claims `path` for a receiver at `address`, and clears it of a socket or link that nobody serves any longer.
    ///
    /// Fails with [`RoleTaken`](ErrorKind::RoleTaken) while another receiver lives, and with
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if something else is there.
    pub(super) fn take(address: &Address, path: &Path) -> Result<Self> {
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let failed =
            |tried: &str, e: io::Error| Error::os(e, format!("{tried} {} for", lock_path.display()), address.target());
        loop {
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(NO_FOLLOW)
                .open(&lock_path)
                .map_err(|e| failed("open the lock file", e))?;
            if !descriptor::try_flock(lock.as_fd()).map_err(|e| failed("lock", e))? {
                let pid = descriptor::flock_holder(lock.as_fd()).unwrap_or(0);
                return Err(Error::new(ErrorKind::RoleTaken { pid }, "receive at", address.target()));
            }
            let held = lock.metadata().map_err(|e| failed("look at", e))?;
            match fs::symlink_metadata(&lock_path) {
                Ok(there) if Identity::from(&there) == Identity::from(&held) => {}
                // Its owner took it away, before it was locked here.
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed("look at", e)),
            }
            let claim = Self { path: path.to_owned(), lock_path: lock_path.clone(), lock };
            return match claim.clear(address) {
                Ok(()) => Ok(claim),
                Err(e) => {
                    claim.release_lock();
                    Err(e)
                }
            };
        }
    }

    /// Takes away what a dead owner left at the path.
    fn clear(&self, address: &Address) -> Result<()> {
        let there = match fs::symlink_metadata(&self.path) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::os(e, "look at", address.target())),
        };
        let exists = |advice: &str| {
            Err(Error::new(ErrorKind::AlreadyExists, "receive at", address.target()).advise(advice.to_owned()))
        };
        let kind = there.file_type();
        if ![user_id(), 0].contains(&there.uid()) {
            return exists("what is there belongs to another user");
        }
        if kind.is_socket() {
            if is_served(&self.path) {
                return exists("a program that knows nothing of ringway listens there");
            }
        } else if !(kind.is_symlink() && fs::read_link(&self.path).is_ok_and(|to| to.starts_with("/dev/pts"))) {
            return exists("what is there was not made by a receiver; remove it or choose another path");
        }
        fs::remove_file(&self.path)
            .map_err(|e| Error::os(e, "clear away what a dead receiver left at", address.target()))
    }

    /// Takes the path away, and gives up the right to it.
    pub(super) fn release(&self) {
        let _ = fs::remove_file(&self.path);
        self.release_lock();
    }

    fn release_lock(&self) {
        let _ = fs::remove_file(&self.lock_path);
        descriptor::unflock(self.lock.as_fd());
    }
}

/// Takes away what a dead receiver left at a path; with `force` also what a living one receives at, which nobody finds from then on.
pub(super) fn remove(address: &Address, path: &Path, force: bool) -> Result<()> {
    if path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Err(Error::new(ErrorKind::NotFound, "remove", address.target()));
    }
    match Claim::take(address, path) {
        Ok(claim) => {
            claim.release();
            Ok(())
        }
        Err(e) if force && matches!(e.kind(), ErrorKind::RoleTaken { .. }) => {
            fs::remove_file(path).map_err(|e| Error::os(e, "remove", address.target()))
        }
        Err(e) => Err(e),
    }
}

/// Whether somebody listens at a Unix socket, of whichever type.
fn is_served(path: &Path) -> bool {
    let Ok(place) = Place::path(path) else { return false };
    [Type::STREAM, Type::SEQPACKET, Type::DGRAM].into_iter().any(|kind| {
        match socket::open(&place, kind).and_then(|fd| socket::connect_to(fd.as_fd(), &place)) {
            Ok(()) => true,
            // A full backlog has a listener behind it.
            Err(e) => e.raw_os_error() == Some(libc::EAGAIN),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use std::os::unix::net::UnixListener;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Self, Address) {
            let path = std::env::temp_dir().join(format!("ringway-claim-{name}-{}", std::process::id()));
            let address = format!("unix://{}", path.display()).parse().unwrap();
            (Self(path), address)
        }

        fn lock(&self) -> PathBuf {
            format!("{}.lock", self.0.display()).into()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
            let _ = fs::remove_file(self.lock());
        }
    }

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let (scratch, address) = Scratch::new("one");
        let claim = Claim::take(&address, &scratch.0).unwrap();
        let refused = Claim::take(&address, &scratch.0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::RoleTaken { pid: std::process::id() });
        claim.release();
        assert!(!scratch.lock().exists());
        Claim::take(&address, &scratch.0).unwrap().release();
    }

    #[test]
    fn what_a_dead_owner_left_is_cleared_and_a_live_strangers_stays() {
        let (scratch, address) = Scratch::new("stale");
        let mut child = Child::fork(|tell| {
            let _claim = Claim::take(&address, &scratch.0).unwrap();
            let _socket = UnixListener::bind(&scratch.0).unwrap();
            tell.say(b'b');
            tell.sleep_until_killed()
        });
        child.expect(b'b');
        child.kill_without_reaping();
        assert!(scratch.0.exists() && scratch.lock().exists());
        let claim = Claim::take(&address, &scratch.0).unwrap();
        assert!(!scratch.0.exists());
        claim.release();

        let stranger = UnixListener::bind(&scratch.0).unwrap();
        assert_eq!(Claim::take(&address, &scratch.0).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(scratch.0.exists() && !scratch.lock().exists());
        drop(stranger);
        Claim::take(&address, &scratch.0).unwrap().release();
        fs::write(&scratch.0, "a file").unwrap();
        assert_eq!(Claim::take(&address, &scratch.0).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&scratch.0).unwrap(), b"a file");
    }
}
