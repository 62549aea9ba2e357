//! The only home of libc, nix and rustix calls: one file per kernel facility, each returning `io::Result`.

pub(crate) mod bell;
pub(crate) mod clock;
pub(crate) mod copy;
pub(crate) mod cpu;
pub(crate) mod descriptor;
pub(crate) mod doorbell;
pub(crate) mod epoll;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod inotify;
pub(crate) mod memfd;
pub(crate) mod mqueue;
pub(crate) mod named_semaphore;
pub(crate) mod ofd;
pub(crate) mod process;
pub(crate) mod pty;
pub(crate) mod random;
pub(crate) mod record_lock;
pub(crate) mod semaphore;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod sysv_msg;
pub(crate) mod sysv_sem;
pub(crate) mod sysv_shm;
pub(crate) mod thread;

#[cfg(test)]
pub(crate) mod child;

use std::io;

/// The usual reading of a system call's answer: a negative one means "see errno".
fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Repeats a call until it is no longer interrupted by a signal.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}
