//! One exclusive lock per file, in each of the three kinds that Linux has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{check, uninterrupted};

/// Who owns a lock, and hence whom it excludes. `Flock` locks don't see the other two kinds, nor these it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The open file description, by flock.
    Flock,
    /// The process, which loses it by closing any descriptor of the file.
    Fcntl,
    /// The open file description, by fcntl.
    Ofd,
}

/// The byte that stands for the whole file: the last but one that a file can have, so that the rest stays free for
/// other uses.
const BYTE: libc::off_t = i64::MAX - 1;

/// Locks the file unless another owner has it; says whether it did. Records need a descriptor open for writing.
pub(crate) fn try_lock_exclusive(kind: Kind, fd: impl AsFd) -> io::Result<bool> {
    let answer = match kind {
        Kind::Flock => flock(fd.as_fd(), libc::LOCK_EX | libc::LOCK_NB),
        Kind::Fcntl => record(fd.as_fd(), libc::F_SETLK, libc::F_WRLCK),
        Kind::Ofd => record(fd.as_fd(), libc::F_OFD_SETLK, libc::F_WRLCK),
    };
    is_locked_by(answer)
}

/// Locks the file against [`try_lock_exclusive`], together with others who do the same, unless another owner has it alone;
/// says whether it did. A descriptor open for reading is enough.
pub(crate) fn try_lock_shared(kind: Kind, fd: impl AsFd) -> io::Result<bool> {
    is_locked_by(match kind {
        Kind::Flock => flock(fd.as_fd(), libc::LOCK_SH | libc::LOCK_NB),
        Kind::Fcntl => record(fd.as_fd(), libc::F_SETLK, libc::F_RDLCK),
        Kind::Ofd => record(fd.as_fd(), libc::F_OFD_SETLK, libc::F_RDLCK),
    })
}

fn is_locked_by(answer: io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Unlocks the file, if it was locked.
pub(crate) fn unlock(kind: Kind, fd: impl AsFd) -> io::Result<()> {
    match kind {
        Kind::Flock => flock(fd.as_fd(), libc::LOCK_UN),
        Kind::Fcntl => record(fd.as_fd(), libc::F_SETLK, libc::F_UNLCK),
        Kind::Ofd => record(fd.as_fd(), libc::F_OFD_SETLK, libc::F_UNLCK),
    }
}

fn flock(fd: BorrowedFd<'_>, operation: libc::c_int) -> io::Result<()> {
    // SAFETY: a plain system call.
    uninterrupted(|| check(unsafe { libc::flock(fd.as_raw_fd(), operation) })).map(drop)
}

fn record(fd: BorrowedFd<'_>, command: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: flock is plain integers, for which zero is a value.
    let mut record: libc::flock = unsafe { std::mem::zeroed() };
    (record.l_type, record.l_whence, record.l_start, record.l_len) = (kind as _, libc::SEEK_SET as _, BYTE, 1);
    // SAFETY: the commands above take a pointer to a record, which outlives the call.
    uninterrupted(|| check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw const record) })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{child::Child, file, memfd, ofd};
    use std::fs::File;
    use std::io::{Read, Write};

    const KINDS: [Kind; 3] = [Kind::Flock, Kind::Fcntl, Kind::Ofd];

    /// A file of this test's process, which another test's child can't keep locked by inheriting it.
    fn alone(test: impl FnOnce(&File)) {
        Child::fork(|_| test(&memfd::create("record-lock", 4096, 0o600).unwrap())).expect_success();
    }

    #[test]
    fn another_process_is_excluded_until_unlocked() {
        for kind in KINDS {
            alone(|file| {
                assert!(try_lock_exclusive(kind, file).unwrap());
                let (mut heard, mut unlocked) = io::pipe().unwrap();
                let mut child = Child::fork(|tell| {
                    let own = file::reopen(file, true).unwrap();
                    assert!(!try_lock_exclusive(kind, &own).unwrap());
                    tell.say(b'r');
                    heard.read_exact(&mut [0]).unwrap();
                    assert!(try_lock_exclusive(kind, &own).unwrap());
                    tell.say(b'l');
                    tell.sleep_until_killed()
                });
                child.expect(b'r');
                unlock(kind, file).unwrap();
                unlocked.write_all(b"u").unwrap();
                child.expect(b'l');
                assert!(!try_lock_exclusive(kind, file).unwrap());
                child.kill_without_reaping();
                assert!(try_lock_exclusive(kind, file).unwrap(), "{kind:?}: death frees it");
            });
        }
    }

    #[test]
    fn sharers_exclude_only_others() {
        for kind in [Kind::Flock, Kind::Ofd] {
            alone(|file| {
                let [second, third] = [false, true].map(|writable| file::reopen(file, writable).unwrap());
                assert!(try_lock_shared(kind, file).unwrap() && try_lock_shared(kind, &second).unwrap());
                assert!(!try_lock_exclusive(kind, &third).unwrap());
                drop(second);
                unlock(kind, file).unwrap();
                assert!(try_lock_exclusive(kind, &third).unwrap() && !try_lock_shared(kind, file).unwrap());
            });
        }
    }

    #[test]
    fn a_process_excludes_itself_except_by_fcntl() {
        for kind in KINDS {
            alone(|file| {
                let second = file::reopen(file, true).unwrap();
                assert!(try_lock_exclusive(kind, file).unwrap());
                assert_eq!(try_lock_exclusive(kind, &second).unwrap(), kind == Kind::Fcntl);
                drop(second);
                assert!(try_lock_exclusive(kind, file).unwrap());
            });
        }
    }

    #[test]
    fn the_other_bytes_stay_free() {
        for kind in KINDS {
            alone(|file| {
                assert!(try_lock_exclusive(kind, file).unwrap());
                let second = file::reopen(file, true).unwrap();
                assert!(ofd::try_lock(&second, 0).unwrap());
                assert!(ofd::try_lock(&second, i64::MAX as u64 - 2).unwrap());
                assert_eq!(ofd::try_lock(&second, BYTE as u64).unwrap(), kind == Kind::Flock);
            });
        }
    }
}
