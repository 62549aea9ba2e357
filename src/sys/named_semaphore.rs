//! POSIX semaphores with a name. Only how they come and go is the C library's: [`semaphore`] says why, and posts and waits.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::ptr::NonNull;

use super::check;
use super::semaphore::RawSemaphore;

/// Where glibc keeps the semaphore of a name, and what it adds to it.
const PREFIX: &str = "/dev/shm/sem.";

/// A semaphore, mapped while this lives.
#[derive(Debug)]
pub(crate) struct NamedSemaphore(NonNull<RawSemaphore>);

// SAFETY: it belongs to no thread, and is used only by atomic operations.
unsafe impl Send for NamedSemaphore {}
// SAFETY: as above.
unsafe impl Sync for NamedSemaphore {}

impl NamedSemaphore {
    /// Makes one of value 0, failing with `EEXIST` if the name is taken. Only the owner may use it yet.
    pub(crate) fn create(name: &str) -> io::Result<Self> {
        let (name, mode, value) = (c_name(name)?, 0o600 as libc::mode_t, 0 as libc::c_uint);
        // SAFETY: the name is a C string that outlives the call, which takes a mode and a value with O_CREAT.
        Self::mapped(unsafe { libc::sem_open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL, mode, value) })
    }

    /// Opens the one of that name. The caller has looked at what is [there](path): at least a `sem_t`, of somebody who isn't
    /// going to truncate it.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let name = c_name(name)?;
        // SAFETY: as above; without O_CREAT it takes no more.
        Self::mapped(unsafe { libc::sem_open(name.as_ptr(), 0) })
    }

    fn mapped(answer: *mut RawSemaphore) -> io::Result<Self> {
        match NonNull::new(answer) {
            Some(semaphore) if answer != libc::SEM_FAILED => Ok(Self(semaphore)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut RawSemaphore {
        self.0.as_ptr()
    }
}

impl Drop for NamedSemaphore {
    fn drop(&mut self) {
        // SAFETY: it was opened, and nobody uses it any longer. Each opening in this process is counted.
        unsafe { libc::sem_close(self.0.as_ptr()) };
    }
}

/// The file of the semaphore of that name.
pub(crate) fn path(name: &str) -> PathBuf {
    format!("{PREFIX}{name}").into()
}

/// Takes the name away; those who have the semaphore keep it.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: the name is a C string that outlives the call.
    check(unsafe { libc::sem_unlink(name.as_ptr()) }).map(drop)
}

fn c_name(name: &str) -> io::Result<CString> {
    Ok(CString::new(format!("/{name}"))?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::child::Child;
    use crate::sys::{clock, semaphore};

    struct Unlinked(String);

    impl Drop for Unlinked {
        fn drop(&mut self) {
            let _ = unlink(&self.0);
        }
    }

    #[test]
    fn two_processes_find_each_other_by_its_name() {
        let name = Unlinked(format!("ringway-named-{}", std::process::id()));
        assert_eq!(NamedSemaphore::open(&name.0).unwrap_err().kind(), io::ErrorKind::NotFound);
        let semaphore = NamedSemaphore::create(&name.0).unwrap();
        assert_eq!(NamedSemaphore::create(&name.0).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(path(&name.0).metadata().unwrap().len() as usize, size_of::<RawSemaphore>());
        let mut child = Child::fork(|tell| {
            let semaphore = NamedSemaphore::open(&name.0).unwrap();
            tell.say(b'w');
            // SAFETY: it was opened, and lives.
            assert!(unsafe { semaphore::wait(semaphore.as_ptr(), clock::now() + Duration::from_secs(30)) }.unwrap());
        });
        child.expect(b'w');
        unlink(&name.0).unwrap();
        // SAFETY: as above.
        unsafe { semaphore::post(semaphore.as_ptr()) }.unwrap();
        child.expect_success();
        assert_eq!(unlink(&name.0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
