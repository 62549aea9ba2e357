//! Descriptors that are readable from a ring on until they are cleared: eventfds and FIFOs, which several processes may have.
//!
//! One process can have an eventfd block for all that it was handed to, and fill it; so neither ringing nor clearing relies on that it
//! doesn't. The ends of a FIFO are each process's own.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::descriptor::{self, Ready};

/// Rings it. One that has no room for a further ring is rung already.
pub(crate) fn ring(fd: BorrowedFd) {
    // There is nobody to tell of an error, and the waiter's slice makes up for it.
    if descriptor::is_ready(fd, Ready::Write).unwrap_or(false) {
        descriptor::set_event(fd);
    }
}

/// Takes the rings away; of a flood, some.
pub(crate) fn clear(fd: BorrowedFd) {
    // Few wait there, unless somebody floods it.
    let mut rings = [MaybeUninit::<u8>::uninit(); 128];
    let part = libc::iovec { iov_base: rings.as_mut_ptr().cast(), iov_len: rings.len() };
    // SAFETY: the bytes are valid for the call.
    let read = unsafe { libc::preadv2(fd.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
    // FIFOs don't know the flag.
    if read < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) {
        let _ = rustix::io::read(fd, &mut rings);
    }
}

/// Whether it is an eventfd. By its inode it can't be told from other things that have no file.
pub(crate) fn is_eventfd(fd: BorrowedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;
    use crate::sys::child::Child;
    use crate::sys::file;

    fn is_readable(fd: BorrowedFd) -> bool {
        descriptor::is_ready(fd, Ready::Read).unwrap()
    }

    #[test]
    fn it_is_readable_from_a_ring_on_until_it_is_cleared() {
        let path = PathBuf::from(format!("/dev/shm/ringway-bell-{}", std::process::id()));
        file::make_fifo(&path, 0o600).unwrap();
        let (own, others) = (file::open(&path, true).unwrap(), file::open(&path, true).unwrap());
        std::fs::remove_file(&path).unwrap();
        let event = descriptor::event().unwrap();
        assert!(is_eventfd(event.as_fd()) && !is_eventfd(own.as_fd()));
        for (bell, ringer) in [(event.as_fd(), event.as_fd()), (own.as_fd(), others.as_fd())] {
            assert!(!is_readable(bell));
            clear(bell);
            Child::fork(|_| (0..3).for_each(|_| ring(ringer))).expect_success();
            assert!(is_readable(bell));
            clear(bell);
            assert!(!is_readable(bell));
        }
        // Far more rings than it has room for.
        (0..20_000).for_each(|_| ring(others.as_fd()));
        let clears = (0..).take_while(|_| {
            clear(own.as_fd());
            is_readable(own.as_fd())
        });
        assert!(clears.count() < 1000);
    }

    #[test]
    fn nobody_is_kept_by_an_eventfd_that_blocks_and_is_full() {
        let event = descriptor::event().unwrap();
        fcntl_setfl(&event, OFlags::empty()).unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        ring(event.as_fd());
        assert!(is_readable(event.as_fd()));
        clear(event.as_fd());
        assert!(!is_readable(event.as_fd()));
        clear(event.as_fd());
    }
}
