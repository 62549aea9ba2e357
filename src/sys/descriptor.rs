//! Descriptors of any kind: reading, writing without a SIGPIPE, sleeping until one is ready.

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{check, clock, uninterrupted};

/// What is written at once to a pipe and is no longer than this is never taken apart.
pub(crate) const PIPE_ATOMIC: usize = libc::PIPE_BUF;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A pipe or FIFO.
    Pipe,
    Socket,
    Terminal,
    /// A file, directory, or another device.
    Other,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    Read,
    Write,
}

/// How not to get a SIGPIPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    Pipe,
    Socket,
    /// What has none.
    Other,
}

pub(crate) fn kind(fd: BorrowedFd) -> io::Result<Kind> {
    let file_type = File::from(fd.try_clone_to_owned()?).metadata()?.file_type();
    Ok(match file_type {
        _ if file_type.is_fifo() => Kind::Pipe,
        _ if file_type.is_socket() => Kind::Socket,
        // SAFETY: a plain system call.
        _ if unsafe { libc::isatty(fd.as_raw_fd()) } == 1 => Kind::Terminal,
        _ => Kind::Other,
    })
}

/// A descriptor of our own for what `number` leads to. That one closes on exec from now on.
pub(crate) fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: a plain system call; of a number that isn't open it fails.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it was made just now, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether the descriptor closes on exec.
pub(crate) fn set_close_on_exec(fd: BorrowedFd, closes: bool) -> io::Result<()> {
    let flags = if closes { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: a plain system call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }).map(drop)
}

/// From now on what would block fails with `EAGAIN`, for all that share the open file description.
pub(crate) fn set_nonblocking(fd: BorrowedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

/// Whether it was opened for reading, and for writing.
pub(crate) fn access(fd: BorrowedFd) -> io::Result<(bool, bool)> {
    let mode = fcntl_getfl(fd)? & OFlags::ACCMODE;
    Ok((mode != OFlags::WRONLY, mode != OFlags::RDONLY))
}

/// Another description of the same pipe or terminal that doesn't block, which leaves the flags alone that others share; or the same
/// description, which then doesn't block for anybody, if this process inherited what it may not open.
pub(crate) fn reopen_pipe(fd: BorrowedFd, ready: Ready) -> io::Result<OwnedFd> {
    let mut options = File::options();
    // A terminal must not become the controlling one, whose end would be the end of this process.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    options.read(ready == Ready::Read).write(ready == Ready::Write).custom_flags(flags);
    match options.open(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            set_nonblocking(fd)?;
            fd.try_clone_to_owned()
        }
        opened => Ok(opened?.into()),
    }
}

/// A pipe: what is written to the second can be read from the first.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

/// The bytes that a pipe holds.
pub(crate) fn pipe_capacity(fd: BorrowedFd) -> io::Result<usize> {
    // SAFETY: a plain system call.
    Ok(check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) })? as usize)
}

/// Has a pipe hold at least `bytes`.
pub(crate) fn set_pipe_capacity(fd: BorrowedFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: a plain system call.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }).map(drop)
}

/// Reads what is there; 0 at the end.
#[inline]
pub(crate) fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| Ok(rustix::io::read(fd, &mut *buffer)?))
}

/// Writes what there is room for, and causes no SIGPIPE.
#[inline]
pub(crate) fn write(fd: BorrowedFd, parts: &[IoSlice<'_>], sink: Sink) -> io::Result<usize> {
    match sink {
        Sink::Socket => {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            if let [part] = parts {
                return uninterrupted(|| {
                    // SAFETY: the bytes are valid for the call.
                    answer(unsafe { libc::send(fd.as_raw_fd(), part.as_ptr().cast(), part.len(), flags) })
                });
            }
            // SAFETY: a msghdr is plain integers and pointers, for which zero is a value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = parts.as_ptr().cast_mut().cast();
            message.msg_iovlen = parts.len() as _;
            // SAFETY: an IoSlice is an iovec by its documentation; all are valid for the call, which only reads them.
            uninterrupted(|| answer(unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) }))
        }
        Sink::Pipe => write_pipe(fd, parts),
        Sink::Other => uninterrupted(|| Ok(rustix::io::writev(fd, parts)?)),
    }
}

fn answer(answer: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn write_pipe(fd: BorrowedFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    /// Since Linux 6.18.
    const RWF_NOSIGNAL: libc::c_int = 0x100;
    static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

    // Relaxed, here and below: a flag that guards no other memory.
    if !IS_UNKNOWN.load(Ordering::Relaxed) {
        let written = uninterrupted(|| {
            // SAFETY: an IoSlice is an iovec by its documentation; all are valid for the call, which only reads them.
            answer(unsafe { libc::pwritev2(fd.as_raw_fd(), parts.as_ptr().cast(), parts.len() as _, -1, RWF_NOSIGNAL) })
        });
        match written {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) => {
                IS_UNKNOWN.store(true, Ordering::Relaxed);
            }
            written => return written,
        }
    }
    let signal = PipeSignal::hold()?;
    let written = uninterrupted(|| Ok(rustix::io::writev(fd, parts)?));
    if written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        signal.take_back();
    }
    written
}

/// This thread's SIGPIPE, blocked for a while: a write's SIGPIPE goes to the thread that writes.
struct PipeSignal {
    before: libc::sigset_t,
    was_pending: bool,
}

impl PipeSignal {
    fn set() -> libc::sigset_t {
        // SAFETY: a sigset_t is plain integers, and sigemptyset makes it a set, to which SIGPIPE can be added.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGPIPE);
            set
        }
    }

    fn hold() -> io::Result<Self> {
        let set = Self::set();
        let (mut before, mut pending) = (set, set);
        // SAFETY: all are valid sets.
        let (error, was_pending) = unsafe {
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before);
            libc::sigpending(&mut pending);
            (error, libc::sigismember(&pending, libc::SIGPIPE) == 1)
        };
        if error == 0 { Ok(Self { before, was_pending }) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Takes the signal away that a write just caused, unless there was one before that somebody else waits for.
    fn take_back(&self) {
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if !self.was_pending {
            // SAFETY: the set and the time are valid.
            let _ = uninterrupted(|| check(unsafe { libc::sigtimedwait(&Self::set(), std::ptr::null_mut(), &now) }));
        }
    }
}

impl Drop for PipeSignal {
    fn drop(&mut self) {
        // SAFETY: the set was this thread's mask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Sleeps until one of them is ready, or has failed, or the monotonic `deadline` is there: then false. A signal doesn't end
/// the wait.
pub(crate) fn wait<'a>(
    fds: impl IntoIterator<Item = (BorrowedFd<'a>, Ready)>,
    deadline: Option<Duration>,
) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> =
        fds.into_iter().map(|(fd, ready)| PollFd::from_borrowed_fd(fd, flags(ready))).collect();
    wait_for(&mut fds, deadline)
}

/// [`wait`] for a single one.
pub(crate) fn wait_one(fd: BorrowedFd, ready: Ready, deadline: Option<Duration>) -> io::Result<bool> {
    wait_for(&mut [PollFd::from_borrowed_fd(fd, flags(ready))], deadline)
}

/// Which of them can be read now, or have failed. None is never ready.
pub(crate) fn are_readable<'a>(fds: impl Iterator<Item = Option<BorrowedFd<'a>>>) -> io::Result<Vec<bool>> {
    let fds: Vec<Option<BorrowedFd<'_>>> = fds.collect();
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    wait_for(&mut polled, Some(Duration::ZERO))?;
    let mut answers = polled.iter().map(|polled| !polled.revents().is_empty());
    Ok(fds.iter().map(|fd| fd.is_some() && answers.next() == Some(true)).collect())
}

/// Whether it is ready now, or has failed.
pub(crate) fn is_ready(fd: BorrowedFd, ready: Ready) -> io::Result<bool> {
    wait_one(fd, ready, Some(Duration::ZERO))
}

fn flags(ready: Ready) -> PollFlags {
    match ready {
        Ready::Read => PollFlags::IN,
        Ready::Write => PollFlags::OUT,
    }
}

fn wait_for(fds: &mut [PollFd<'_>], deadline: Option<Duration>) -> io::Result<bool> {
    uninterrupted(|| {
        let left = deadline.map(|deadline| deadline.saturating_sub(clock::now()));
        // Beyond what the type holds is as good as for ever.
        let left = left.and_then(|left| left.try_into().ok());
        Ok(poll(fds, left.as_ref())? > 0)
    })
}

/// A counter that is ready to be read while it isn't 0, and doesn't block.
pub(crate) fn event() -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes an [`event`] ready, until it is [unset](unset_event).
pub(crate) fn set_event(fd: BorrowedFd) {
    // It fails only if it is ready already, far beyond any count in use.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// An [`event`] isn't ready any longer.
pub(crate) fn unset_event(fd: BorrowedFd) {
    let _ = rustix::io::read(fd, &mut [0; 8]);
}

/// Whether the other end of a connection sends no more, though there may be something left to read.
pub(crate) fn has_hung_up(fd: BorrowedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    wait_for(&mut fds, Some(Duration::ZERO)).is_ok_and(|is_ready| is_ready)
}

/// The process that holds a `flock` on the file, as far as the kernel tells.
pub(crate) fn flock_holder(fd: BorrowedFd) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let metadata = File::from(fd.try_clone_to_owned().ok()?).metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let file = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    // With room for all, as a list that is read in parts may lack what was there all the time.
    let mut locks = String::with_capacity(64 << 10);
    File::open("/proc/locks").ok()?.read_to_string(&mut locks).ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str())).then(|| words.get(4)?.parse().ok())?
    })
}

/// Takes the `flock` of the file unless another description has it; says whether it did.
pub(crate) fn try_flock(fd: BorrowedFd) -> io::Result<bool> {
    // SAFETY: a plain system call.
    match uninterrupted(|| check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives the `flock` back, though a forked child may share the description.
pub(crate) fn unflock(fd: BorrowedFd) {
    // SAFETY: a plain system call.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
}

/// From now on this process has fewer descriptors than that, for tests.
#[cfg(test)]
pub(crate) fn limit_count(most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the limit is valid for the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_broken_pipe_is_an_error_and_no_signal_either_way() {
        // In a process of its own, where the signal would kill.
        super::super::child::Child::fork(|_| {
            // SAFETY: the default action, which Rust's runtime has replaced.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            let (reader, writer) = pipe().unwrap();
            drop(reader);
            let parts = [IoSlice::new(b"x")];
            assert_eq!(write(writer.as_fd(), &parts, Sink::Pipe).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            let signal = PipeSignal::hold().unwrap();
            assert!(rustix::io::writev(&writer, &parts).is_err());
            signal.take_back();
            drop(signal);
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            drop(other);
            assert_eq!(write(one.as_fd(), &parts, Sink::Socket).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        })
        .expect_success();
    }

    #[test]
    fn waiting_ends_when_it_is_ready_or_in_time() {
        let (reader, writer) = pipe().unwrap();
        assert!(!is_ready(reader.as_fd(), Ready::Read).unwrap());
        assert!(is_ready(writer.as_fd(), Ready::Write).unwrap());
        let deadline = clock::now() + Duration::from_millis(20);
        assert!(!wait_one(reader.as_fd(), Ready::Read, Some(deadline)).unwrap());
        assert!(clock::now() >= deadline);
        write(writer.as_fd(), &[IoSlice::new(b"a"), IoSlice::new(b"bc")], Sink::Pipe).unwrap();
        assert!(wait([(reader.as_fd(), Ready::Read)], None).unwrap());
        let mut buffer = [0; 8];
        assert_eq!(read(reader.as_fd(), &mut buffer).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
        drop(writer);
        assert!(wait_one(reader.as_fd(), Ready::Read, None).unwrap(), "the end is an event, too");
        assert_eq!(read(reader.as_fd(), &mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_pipe_that_may_not_be_opened_is_used_as_it_is() {
        super::super::child::Child::fork(|_| {
            let (reader, writer) = pipe().unwrap();
            // SAFETY: plain system calls: nobody may open it, and this process isn't privileged any longer.
            unsafe {
                assert_eq!(libc::fchmod(reader.as_raw_fd(), 0), 0);
                assert!(libc::geteuid() != 0 || libc::setuid(65534) == 0);
            }
            let (reader, writer) =
                (reopen_pipe(reader.as_fd(), Ready::Read).unwrap(), reopen_pipe(writer.as_fd(), Ready::Write).unwrap());
            assert_eq!(read(reader.as_fd(), &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert_eq!(write(writer.as_fd(), &[IoSlice::new(b"x")], Sink::Pipe).unwrap(), 1);
            assert_eq!(read(reader.as_fd(), &mut [0]).unwrap(), 1);
        })
        .expect_success();
    }

    #[test]
    fn a_terminal_that_is_reopened_controls_nobody() {
        super::super::child::Child::fork(|_| {
            let (_master, path) = super::super::pty::open().unwrap();
            let slave = super::super::pty::open_slave(&path).unwrap();
            // SAFETY: a plain system call, after which this process has no controlling terminal.
            assert!(unsafe { libc::setsid() } > 0);
            let _again = reopen_pipe(slave.as_fd(), Ready::Read).unwrap();
            assert_eq!(File::open("/dev/tty").unwrap_err().raw_os_error(), Some(libc::ENXIO));
        })
        .expect_success();
    }

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let (reader, _writer) = pipe().unwrap();
        let other = reopen_pipe(reader.as_fd(), Ready::Read).unwrap();
        assert!(try_flock(reader.as_fd()).unwrap());
        assert!(!try_flock(other.as_fd()).unwrap());
        assert_eq!(flock_holder(other.as_fd()), Some(std::process::id()));
        unflock(reader.as_fd());
        assert!(try_flock(other.as_fd()).unwrap());
        assert_eq!(kind(other.as_fd()).unwrap(), Kind::Pipe);
    }
}
