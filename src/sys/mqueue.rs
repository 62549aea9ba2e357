//! POSIX message queues, held as the file descriptors that they are on Linux.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::{fs, fs::File, io, path::PathBuf};

use nix::sys::statfs::statfs;

use super::{check, file, uninterrupted};

/// What a queue holds at most, and how many messages are in it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: i64,
    pub(crate) message_size: i64,
    pub(crate) queued: i64,
}

const FLAGS: libc::c_int = libc::O_NONBLOCK | libc::O_CLOEXEC;

fn c_name(name: &str) -> io::Result<CString> {
    Ok(CString::new(format!("/{name}"))?)
}

/// Makes a queue, failing with `EEXIST` if the name is taken. The mode is exact, whatever the umask.
pub(crate) fn create(name: &str, perm: u32, messages: i64, size: i64) -> io::Result<OwnedFd> {
    let c_name = c_name(name)?;
    // SAFETY: mq_attr is plain integers, for which zero is a value.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    (attributes.mq_maxmsg, attributes.mq_msgsize) = (messages, size);
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | FLAGS;
    let queue = uninterrupted(|| {
        // SAFETY: the name and the attributes outlive the call; with O_CREAT it takes these two further arguments.
        let fd = check(unsafe { libc::mq_open(c_name.as_ptr(), flags, perm as libc::mode_t, &attributes) })?;
        // SAFETY: a new descriptor that nobody else knows; close ends it as well as mq_close.
        Ok(unsafe { File::from_raw_fd(fd) })
    })?;
    match file::set_mode(&queue, perm) {
        Ok(()) => Ok(queue.into()),
        Err(e) => {
            // It is ours, since it was made exclusively; the first error tells more.
            let _ = unlink(name);
            Err(e)
        }
    }
}

/// Opens an existing queue.
pub(crate) fn open(name: &str, read: bool, write: bool) -> io::Result<OwnedFd> {
    let name = c_name(name)?;
    let access = match (read, write) {
        (true, true) => libc::O_RDWR,
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (false, false) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    uninterrupted(|| {
        // SAFETY: the name outlives the call.
        let fd = check(unsafe { libc::mq_open(name.as_ptr(), access | FLAGS) })?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Takes the name off a queue; it goes with its last descriptor.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: the name outlives the call.
    check(unsafe { libc::mq_unlink(name.as_ptr()) }).map(drop)
}

pub(crate) fn limits(queue: impl AsFd) -> io::Result<Limits> {
    // SAFETY: mq_attr is plain integers, for which zero is a value.
    let mut answer: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `answer` is a valid place for it.
    check(unsafe { libc::mq_getattr(raw(&queue), &mut answer) })?;
    Ok(Limits { messages: answer.mq_maxmsg, message_size: answer.mq_msgsize, queued: answer.mq_curmsgs })
}

/// Appends a message, behind those of its priority and before those of lower ones; `EAGAIN` when the queue is full.
pub(crate) fn send(queue: impl AsFd, bytes: &[u8], priority: u32) -> io::Result<()> {
    // SAFETY: a buffer and its length.
    uninterrupted(|| check(unsafe { libc::mq_send(raw(&queue), bytes.as_ptr().cast(), bytes.len(), priority) }))
        .map(drop)
}

/// Takes the first message: its length and priority; `EAGAIN` when there is none.
///
/// The buffer must have room for the queue's longest message, or else it is `EMSGSIZE` whatever the message.
pub(crate) fn receive(queue: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, u32)> {
    let mut priority = 0;
    let len = uninterrupted(|| {
        // SAFETY: a buffer and its length, and a place for the priority.
        let len = unsafe { libc::mq_receive(raw(&queue), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut priority) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    })?;
    Ok((len, priority))
}

/// What an unprivileged process may ask for, where known: messages in a queue, bytes in a message, and queues in all.
pub(crate) fn system_limits() -> (Option<u64>, Option<u64>, Option<u64>) {
    let read = |file| fs::read_to_string(format!("/proc/sys/fs/mqueue/{file}")).ok()?.trim().parse().ok();
    (read("msg_max"), read("msgsize_max"), read("queues_max"))
}

/// How many bytes the queues of this process's user may take together, where known.
pub(crate) fn memory_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MSGQUEUE, &mut limit) }).ok()?;
    Some(limit.rlim_cur)
}

/// The names of all queues; `Unsupported` where no mqueue filesystem is mounted to show them.
///
/// A mount that was inherited from another IPC namespace shows the queues of that one: it can't be told from here.
pub(crate) fn list() -> io::Result<Vec<String>> {
    /// From linux/magic.h; the libc crate lacks it.
    const MQUEUE_MAGIC: i64 = 0x1980_0202;

    // Something else may be mounted over it by now, which the list of mounts doesn't tell.
    let is_visible = |path: &PathBuf| statfs(path).is_ok_and(|found| found.filesystem_type().0 == MQUEUE_MAGIC);
    let mounts = fs::read("/proc/self/mounts")?;
    let mount = mounts
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let (path, kind) = (fields.nth(1)?, fields.next()?);
            (kind == b"mqueue").then(|| PathBuf::from(OsString::from_vec(unescape(path))))
        })
        .rfind(is_visible)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "no mqueue filesystem is mounted"))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(mount)? {
        // A name that isn't text can't be one that was given to `create`.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The kernel writes white space and backslashes in the list of mounts as three octal digits.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), tail)
            }
            _ => (*first, tail),
        };
        plain.push(byte);
        rest = tail;
    }
    plain
}

fn raw(queue: &impl AsFd) -> libc::mqd_t {
    let fd: BorrowedFd<'_> = queue.as_fd();
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use std::ffi::CStr;
    use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
    use std::path::Path;

    struct Temporary(String);

    impl Temporary {
        fn new(label: &str) -> Self {
            Self(format!("ringway-test-{label}-{}", std::process::id()))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = unlink(&self.0);
        }
    }

    #[test]
    fn messages_pass_by_priority_until_it_is_full() {
        let name = Temporary::new("pass");
        let queue = create(&name.0, 0o622, 2, 16).unwrap();
        assert_eq!(create(&name.0, 0o600, 2, 16).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mode = File::from(queue.try_clone().unwrap()).metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, 0o622, "the umask would take the writers' rights");

        let (sender, receiver) = (open(&name.0, false, true).unwrap(), open(&name.0, true, false).unwrap());
        send(&sender, b"low", 1).unwrap();
        send(&sender, b"", 7).unwrap();
        assert_eq!(send(&sender, b"more", 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(limits(&queue).unwrap(), Limits { messages: 2, message_size: 16, queued: 2 });

        let mut buffer = [0; 16];
        assert_eq!(receive(&receiver, &mut buffer[..15]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(receive(&receiver, &mut buffer).unwrap(), (0, 7));
        assert_eq!(receive(&receiver, &mut buffer).unwrap(), (3, 1));
        assert_eq!(&buffer[..3], b"low");
        assert_eq!(receive(&receiver, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(send(&sender, &[0; 17], 0).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(send(&receiver, b"", 0).unwrap_err().raw_os_error(), Some(libc::EBADF));

        unlink(&name.0).unwrap();
        assert_eq!(open(&name.0, true, true).unwrap_err().kind(), io::ErrorKind::NotFound);
        send(&sender, b"x", 0).unwrap();
        assert_eq!(receive(&receiver, &mut buffer).unwrap(), (1, 0), "it lives without a name");
    }

    #[test]
    fn the_limits_of_the_system_are_known() {
        let (messages, size, queues) = system_limits();
        assert!(messages.unwrap() > 0 && size.unwrap() > 0 && queues.unwrap() > 0);
    }

    #[test]
    fn octal_escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134\01"), br"/a b\\01");
    }

    #[test]
    fn all_names_are_listed() {
        fn mount(directory: &Path, kind: &CStr) {
            let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
            // SAFETY: C strings that outlive the call; no data are given.
            let answer = unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
            assert_eq!(answer, 0, "{kind:?}: {}", io::Error::last_os_error());
        }

        struct Directory(PathBuf);
        impl Drop for Directory {
            fn drop(&mut self) {
                let _ = fs::remove_dir(&self.0);
            }
        }
        let directory = Directory(std::env::temp_dir().join(format!("ringway test mqueue {}", std::process::id())));
        fs::create_dir(&directory.0).unwrap();
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        let mut child = Child::fork(|_| {
            // SAFETY: it changes this child alone; the mounts and queues vanish with it.
            let answer = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWIPC) };
            assert_eq!(answer, 0, "this test needs namespaces: {}", io::Error::last_os_error());
            // Without a user of that namespace nobody can own a queue.
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
            fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
            mount(&directory.0, c"mqueue");
            assert_eq!(list().unwrap(), [""; 0]);
            let _queues = ["one", "two"].map(|name| create(name, 0o600, 1, 1).unwrap());
            let mut names = list().unwrap();
            names.sort();
            assert_eq!(names, ["one", "two"]);
            mount(&directory.0, c"tmpfs");
            assert!(!list().is_ok_and(|names| names.contains(&"one".into())), "it is hidden by another mount");
        });
        child.expect_success();
    }
}
