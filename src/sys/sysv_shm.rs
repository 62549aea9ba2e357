//! System V shared memory, and the keys that name it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};
use std::{io, path::Path};

use super::check;

/// The key for an existing file and a project id.
pub(crate) fn ftok(path: &Path, id: u8) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a C string that outlives the call.
    check_key(unsafe { libc::ftok(path.as_ptr(), id.into()) })
}

/// ftok's answers are keys of which half are negative: only -1 is a failure.
fn check_key(key: libc::key_t) -> io::Result<i32> {
    if key == -1 { Err(io::Error::last_os_error()) } else { Ok(key) }
}

/// Finds the segment of this key, without checking access to it.
pub(crate) fn find(key: i32) -> io::Result<i32> {
    // SAFETY: a plain system call, like all of shmget, shmctl with IPC_RMID.
    check(unsafe { libc::shmget(key, 0, 0) })
}

/// Makes a zeroed segment, failing with `EEXIST` if the key is in use. The mode is exact, whatever the umask.
pub(crate) fn create(key: i32, size: usize, perm: u32) -> io::Result<i32> {
    // SAFETY: a plain system call.
    check(unsafe { libc::shmget(key, size, libc::IPC_CREAT | libc::IPC_EXCL | perm as libc::c_int) })
}

/// Takes the key off a segment; its memory goes with the last attachment.
pub(crate) fn remove(id: i32) -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) }).map(drop)
}

/// What the kernel knows of a segment.
pub(crate) struct Status {
    pub(crate) size: usize,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its key was taken off: nobody can find it any more.
    pub(crate) removed: bool,
}

/// Asks for the status of a segment.
pub(crate) fn status(id: i32) -> io::Result<Status> {
    // SAFETY: shmid_ds is plain integers, for which zero is a value.
    let mut answer: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `answer` is a valid place for it.
    check(unsafe { libc::shmctl(id, libc::IPC_STAT, &mut answer) })?;
    let mode = u32::from(answer.shm_perm.mode);
    // From linux/shm.h; the libc crate lacks it.
    const SHM_DEST: u32 = 0o1000;
    let removed = mode & SHM_DEST != 0;
    Ok(Status {
        size: answer.shm_segsz,
        mode: mode & 0o777,
        uid: answer.shm_perm.uid,
        gid: answer.shm_perm.gid,
        removed,
    })
}

/// A segment mapped into this process.
#[derive(Debug)]
pub(crate) struct Attachment {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns a mapping, which isn't tied to a thread, and gives out only a pointer.
unsafe impl Send for Attachment {}
// SAFETY: as above.
unsafe impl Sync for Attachment {}

impl Attachment {
    /// Maps the whole segment.
    pub(crate) fn new(id: i32, writable: bool) -> io::Result<Self> {
        let flags = if writable { 0 } else { libc::SHM_RDONLY };
        // SAFETY: the kernel chooses a free range of addresses.
        let start = unsafe { libc::shmat(id, ptr::null(), flags) };
        if start.addr() == usize::MAX {
            let error = io::Error::last_os_error();
            // What else could be wrong with the call is right: the id is no longer valid.
            let removed = error.raw_os_error() == Some(libc::EINVAL);
            return Err(if removed { io::Error::from_raw_os_error(libc::EIDRM) } else { error });
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        // Asked after mapping: until then the id could have passed to another segment.
        let mut attachment = Self { start, len: 0 };
        attachment.len = status(id)?.size;
        Ok(attachment)
    }

    /// Allocates every page now. The memory must be zero and still unknown to other processes.
    pub(crate) fn populate(&self) -> io::Result<()> {
        // SAFETY: the range is our own mapping; populating changes no byte.
        let answer = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) };
        match check(answer) {
            // Before Linux 5.14: touch each page.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                for offset in (0..self.len).step_by(4096) {
                    // SAFETY: inside of our own mapping.
                    unsafe { self.start.add(offset).write_volatile(0) };
                }
                Ok(())
            }
            // The kernel's word for "the page fault would have been a SIGBUS".
            Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
            answer => answer.map(drop),
        }
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: `start` came from shmat, and whoever uses the memory borrows from us.
        unsafe { libc::shmdt(self.start.as_ptr().cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn ftok_is_the_well_known_one() {
        let path = std::env::current_exe().unwrap();
        let metadata = path.metadata().unwrap();
        let expected = ((metadata.ino() & 0xffff) | (metadata.dev() & 0xff) << 16 | 0xa7 << 24) as u32 as i32;
        assert!(expected < -1, "a negative key");
        assert_eq!(ftok(&path, 0xa7).unwrap(), expected);
        let missing = ftok(Path::new("/nonexistent/path"), 1).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_removed_segment_stays_until_detached() {
        let id = create(libc::IPC_PRIVATE, 4096, 0o640).unwrap();
        let attachment = Attachment::new(id, true);
        remove(id).unwrap();
        let attachment = attachment.unwrap();
        attachment.populate().unwrap();
        let status = status(id).unwrap();
        assert_eq!((status.size, status.mode, status.removed), (4096, 0o640, true));
        drop(attachment);
        assert!(super::status(id).is_err());
    }
}
