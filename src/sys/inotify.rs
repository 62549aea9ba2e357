//! Waiting for another process to change a file.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::{io, path::Path};

use super::{check, uninterrupted};

/// The longest event: its header, and a name as long as names get.
const LONGEST: usize = size_of::<libc::inotify_event>() + libc::NAME_MAX as usize + 1;

/// A descriptor that is readable once a file was written, changed in its attributes, moved or deleted.
#[derive(Debug)]
pub(crate) struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Watches what the path names now, whatever it will name later.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a plain system call.
        let fd = check(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) })?;
        // SAFETY: a new descriptor that nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
        // SAFETY: the path outlives the call.
        uninterrupted(|| check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), events) }))?;
        Ok(Self { fd })
    }

    /// Takes all events that have come, so that the descriptor is readable again only after a further one.
    pub(crate) fn drain(&self) -> io::Result<()> {
        const ROOM: usize = 4096;
        let mut buffer = [0u8; ROOM];
        let mut read = || {
            // SAFETY: a buffer and its length.
            let answer = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            usize::try_from(answer).map_err(|_| io::Error::last_os_error())
        };
        loop {
            match uninterrupted(&mut read) {
                // There was room for more: that was all. Another read could go on forever behind a busy writer.
                Ok(len) if len + LONGEST <= ROOM => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::Write;
    use std::path::PathBuf;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(label: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ringway-test-inotify-{label}-{}", std::process::id()));
            fs::write(&path, "").unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn is_readable(watch: &Watch) -> bool {
        let mut poll = libc::pollfd { fd: watch.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which outlives the call.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    #[test]
    fn it_is_readable_after_each_change() {
        let temporary = Temporary::new("change");
        let watch = Watch::new(&temporary.0).unwrap();
        assert!(!is_readable(&watch));
        watch.drain().unwrap();
        let mut file = File::options().write(true).open(&temporary.0).unwrap();
        let moved = temporary.0.with_extension("moved");
        let mut steps: [&mut dyn FnMut() -> io::Result<()>; 5] = [
            &mut || file.write_all(b"x"),
            &mut || fs::set_permissions(&temporary.0, fs::metadata(&temporary.0)?.permissions()),
            &mut || fs::rename(&temporary.0, &moved),
            &mut || fs::rename(&moved, &temporary.0),
            &mut || fs::remove_file(&temporary.0),
        ];
        for (i, step) in steps.iter_mut().enumerate() {
            step().unwrap();
            assert!(is_readable(&watch), "step {i}");
            watch.drain().unwrap();
            assert!(!is_readable(&watch), "step {i}");
        }
    }

    #[test]
    fn all_of_many_events_are_drained() {
        let temporary = Temporary::new("many");
        let watch = Watch::new(&temporary.0).unwrap();
        let mut file = File::options().write(true).open(&temporary.0).unwrap();
        // Two kinds in turn, lest the kernel makes one event of them; the number fills the buffer exactly twice.
        for _ in 0..256 {
            file.write_all(b"x").unwrap();
            file.set_permissions(file.metadata().unwrap().permissions()).unwrap();
        }
        watch.drain().unwrap();
        assert!(!is_readable(&watch));
    }

    #[test]
    fn what_does_not_exist_is_not_watched() {
        assert_eq!(Watch::new(Path::new("/nonexistent/path")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
