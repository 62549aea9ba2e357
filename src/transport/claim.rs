//! Who owns a path at which others are received: one receiver, as long as it lives.
//!
//! A file beside it, `PATH.lock`, is locked by its owner, and the kernel ends the lock with the owner. So whoever gets the lock may
//! take away what a dead owner left behind at the path, and nobody else does. The lock file goes last, while it is still locked:
//! who opened it before that and gets the lock after finds that the name leads elsewhere, and begins anew.
//!
//! Somebody who knows nothing of this may clear away the lock file of a living owner. So a socket is taken away only if the kernel
//! says that nobody serves it. Of a terminal it can't say so, as numbers of terminals are used again: its link is taken away if the
//! lock file is not empty, which proves that its owner made something and died, or else if the terminal is gone. And an owner takes
//! away only what it made itself, and nothing once its lock file is not at its path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;
use crate::sys::file::{Identity, NO_FOLLOW};
use crate::sys::process::user_id;
use crate::sys::pty;
use crate::sys::socket::{self, Place, Type};

/// The right to a path.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    lock_path: PathBuf,
    lock: File,
    /// What the owner made at the path.
    made: OnceLock<Identity>,
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
            let held = lock.metadata().map_err(|e| failed("look at", e))?;
            if ![user_id(), 0].contains(&held.uid()) {
                return Err(Error::new(ErrorKind::PermissionDenied, "receive at", address.target()).advise(format!(
                    "the lock file {} belongs to user {}; remove it, or choose another path",
                    lock_path.display(),
                    held.uid()
                )));
            }
            if !descriptor::try_flock(lock.as_fd()).map_err(|e| failed("lock", e))? {
                let pid = descriptor::flock_holder(lock.as_fd()).unwrap_or(0);
                return Err(Error::new(ErrorKind::RoleTaken { pid }, "receive at", address.target()));
            }
            let claim = Self { path: path.to_owned(), lock_path: lock_path.clone(), lock, made: OnceLock::new() };
            if !claim.has_lock_path().map_err(|e| failed("look at", e))? {
                // Its owner took it away, before it was locked here.
                continue;
            }
            let cleared = claim.clear(address).and_then(|()| claim.lock.set_len(0).map_err(|e| failed("clear", e)));
            return match cleared {
                Ok(()) => Ok(claim),
                Err(e) => {
                    claim.release();
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
        let is_link = kind.is_symlink() && fs::read_link(&self.path).is_ok_and(|to| to.starts_with("/dev/pts"));
        if !kind.is_socket() && !is_link {
            return exists("what is there was not made by a receiver; remove it or choose another path");
        }
        let in_use = if kind.is_socket() {
            is_served(&self.path)
        } else {
            self.has_dead_owner().and_then(|is_dead| Ok(!is_dead && pty::is_alive(&self.path)?))
        };
        match in_use {
            Ok(false) => {}
            Ok(true) if is_link => {
                return exists(
                    "the terminal it leads to is alive, and no lock file says whose it is; remove the link if it isn't a receiver's",
                );
            }
            Ok(true) => return exists("a program that knows nothing of ringway listens there"),
            Err(e) => return exists(&format!("whether somebody receives there can't be told: {e}")),
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::os(e, "clear away what a dead receiver left at", address.target()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the lock file was that of an owner who made something at the path.
    fn has_dead_owner(&self) -> io::Result<bool> {
        Ok(self.lock.metadata()?.len() > 0)
    }

    fn has_lock_path(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.lock_path) {
            Ok(there) => Ok(Identity::from(&there) == Identity::from(&self.lock.metadata()?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The owner has just made what is at the path, which goes with the claim from now on.
    pub(super) fn made(&self) {
        if let Ok(there) = fs::symlink_metadata(&self.path) {
            let _ = self.made.set(Identity::from(&there));
        }
        // Without it the next owner only looks more closely.
        let _ = self.lock.write_at(b"made\n", 0);
    }

    /// Takes away what the owner made, and gives up the right to the path.
    pub(super) fn release(&self) {
        if self.has_lock_path().unwrap_or(false) {
            let there = fs::symlink_metadata(&self.path).ok().map(|there| Identity::from(&there));
            if there.is_some() && there.as_ref() == self.made.get() {
                let _ = fs::remove_file(&self.path);
            }
            let _ = fs::remove_file(&self.lock_path);
        }
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

/// Whether somebody listens at a Unix socket, of whichever type; an error if that can't be told.
fn is_served(path: &Path) -> io::Result<bool> {
    let place = Place::path(path)?;
    for kind in [Type::STREAM, Type::SEQPACKET, Type::DGRAM] {
        match socket::open(&place, kind).and_then(|fd| socket::connect_to(fd.as_fd(), &place)) {
            Ok(()) => return Ok(true),
            Err(e) => match e.raw_os_error() {
                // A full backlog has a listener behind it.
                Some(libc::EAGAIN) => return Ok(true),
                Some(libc::ECONNREFUSED | libc::ENOENT | libc::EPROTOTYPE) => {}
                _ => return Err(e),
            },
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use std::os::fd::AsRawFd;
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

    #[test]
    fn what_cannot_be_asked_stays() {
        let (scratch, address) = Scratch::new("unasked");
        Child::fork(|_| {
            drop(UnixListener::bind(&scratch.0).unwrap());
            // A single descriptor more: for the lock, and none to ask with.
            let next = File::open("/dev/null").unwrap();
            let most = next.as_raw_fd() as u64 + 1;
            drop(next);
            descriptor::limit_count(most).unwrap();
            let refused = Claim::take(&address, &scratch.0).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
            assert!(refused.to_string().contains("os error 24"), "{refused}");
            assert!(scratch.0.exists() && !scratch.lock().exists());
        })
        .expect_success();
        Claim::take(&address, &scratch.0).unwrap().release();
        assert!(!scratch.0.exists());
    }

    #[test]
    fn only_what_its_owner_made_goes_with_a_claim() {
        let (scratch, address) = Scratch::new("own");
        let claim = Claim::take(&address, &scratch.0).unwrap();
        let stranger = UnixListener::bind(&scratch.0).unwrap();
        claim.release();
        assert!(scratch.0.exists() && !scratch.lock().exists(), "it was there before the owner");
        drop(stranger);

        let claim = Claim::take(&address, &scratch.0).unwrap();
        let _own = UnixListener::bind(&scratch.0).unwrap();
        claim.made();
        fs::remove_file(&scratch.0).unwrap();
        let _other = UnixListener::bind(&scratch.0).unwrap();
        claim.release();
        assert!(scratch.0.exists(), "it came instead of the owner's");
        fs::remove_file(&scratch.0).unwrap();

        let claim = Claim::take(&address, &scratch.0).unwrap();
        let _own = UnixListener::bind(&scratch.0).unwrap();
        claim.made();
        fs::rename(&scratch.0, scratch.0.with_extension("away")).unwrap();
        fs::remove_file(scratch.lock()).unwrap();
        let next = Claim::take(&address, &scratch.0).unwrap();
        fs::rename(scratch.0.with_extension("away"), &scratch.0).unwrap();
        claim.release();
        assert!(scratch.0.exists() && scratch.lock().exists(), "the path has another owner");
        next.release();
    }

    #[test]
    fn a_lock_file_of_another_user_is_refused() {
        // Only root can give files away.
        if user_id() == 0 {
            let (scratch, address) = Scratch::new("foreign");
            fs::write(scratch.lock(), "").unwrap();
            std::os::unix::fs::chown(scratch.lock(), Some(65534), None).unwrap();
            let refused = Claim::take(&address, &scratch.0).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
            assert!(scratch.lock().exists());
        }
    }
}
