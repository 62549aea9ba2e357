//! Queued real-time signals with a value, sent through a pidfd and read from a signalfd.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::{fmt, fs, io, mem};

use super::{check, uninterrupted};

/// The code of a signal that was queued with a value.
pub(crate) const QUEUED: i32 = libc::SI_QUEUE;

/// How many signals a `Batch` has room for.
pub(crate) const BATCH: usize = 64;

/// The kernel's siginfo, as its SI_QUEUE variant; the libc crate hides these fields.
#[repr(C)]
struct Info {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    queued: Queued,
}

/// Aligned like the pointer in the C union, which on 64 bits leaves a gap before it.
#[repr(C)]
struct Queued {
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>() && mem::offset_of!(Info, queued) == 16);

/// Who sends a signal, asked once: a call that asked each time would cost three.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pid: u32,
    uid: libc::uid_t,
}

impl Origin {
    /// This process.
    pub(crate) fn this() -> Self {
        // SAFETY: a plain system call that can't fail.
        Self { pid: std::process::id(), uid: unsafe { libc::getuid() } }
    }

    /// Queues a signal with its value at a process; `EAGAIN` when the receiver's user has too many pending.
    pub(crate) fn queue(&self, pidfd: BorrowedFd<'_>, signal: i32, value: u64) -> io::Result<()> {
        let queued = Queued { pid: self.pid as libc::pid_t, uid: self.uid, value, rest: [0; 12] };
        let info = Info { signal, errno: 0, code: libc::SI_QUEUE, queued };
        uninterrupted(|| {
            // SAFETY: `info` has the layout of a siginfo_t and outlives the call.
            let answer =
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, &raw const info, 0) };
            check(answer as libc::c_int)
        })
        .map(drop)
    }
}

/// Blocks a signal in the calling thread, and says whether it was blocked already.
pub(crate) fn block(signal: i32) -> io::Result<bool> {
    let set = set_of(signal)?;
    // SAFETY: a sigset_t is plain integers, for which zero is a value.
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both sets outlive the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) } {
        // SAFETY: the call above filled `before`; the signal is known to be one.
        0 => Ok(unsafe { libc::sigismember(&before, signal) } == 1),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A nonblocking descriptor from which a blocked signal is read: those queued at the process or at the reading thread.
pub(crate) fn signal_fd(signal: i32) -> io::Result<OwnedFd> {
    let set = set_of(signal)?;
    // SAFETY: the set outlives the call.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_of(signal: i32) -> io::Result<libc::sigset_t> {
    // SAFETY: a sigset_t is plain integers, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is a valid place for an empty set.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    // SAFETY: `set` was made just above; numbers that are no signal are refused.
    check(unsafe { libc::sigaddset(&mut set, signal) })?;
    Ok(set)
}

/// A signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: u32,
    /// `SI_QUEUE` if it was queued with a value.
    pub(crate) code: i32,
    /// Who sent it, by its own word.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) value: u64,
}

/// Room for many signals, read by one call.
pub(crate) struct Batch {
    infos: Box<[libc::signalfd_siginfo; BATCH]>,
    len: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: a signalfd_siginfo is plain integers, for which zero is a value.
        Self { infos: Box::new(unsafe { mem::zeroed() }), len: 0 }
    }

    /// Reads what has arrived in place of what it held, and says how many they are, at least 1; `EAGAIN` when none has.
    pub(crate) fn fill(&mut self, signal_fd: impl AsFd) -> io::Result<usize> {
        self.len = 0;
        let fd = signal_fd.as_fd().as_raw_fd();
        let bytes = uninterrupted(|| {
            // SAFETY: a buffer and its length; any bytes are valid in it.
            let answer = unsafe { libc::read(fd, self.infos.as_mut_ptr().cast(), size_of_val(&*self.infos)) };
            usize::try_from(answer).map_err(|_| io::Error::last_os_error())
        })?;
        self.len = bytes / size_of::<libc::signalfd_siginfo>();
        Ok(self.len)
    }

    /// One of those that the last `fill` read, in the order of their arrival.
    pub(crate) fn get(&self, index: usize) -> Arrived {
        let info = &self.infos[..self.len][index];
        Arrived {
            signal: info.ssi_signo,
            code: info.ssi_code,
            pid: info.ssi_pid,
            uid: info.ssi_uid,
            value: info.ssi_ptr,
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len).finish_non_exhaustive()
    }
}

/// What a thread does with signals: number N is bit N - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) thread: u32,
    pub(crate) blocked: u64,
    pub(crate) ignored: u64,
    pub(crate) caught: u64,
}

impl Masks {
    fn parse(thread: u32, status: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            u64::from_str_radix(value.trim(), 16).ok()
        };
        Some(Self { thread, blocked: field("SigBlk")?, ignored: field("SigIgn")?, caught: field("SigCgt")? })
    }

    /// Whether it blocks all signals for a moment, as the C library has threads do while they start, or start another. What they
    /// block otherwise can't be seen then. Those two signals are the library's own, which it lets nobody else block.
    pub(crate) fn are_passing(&self) -> bool {
        const INTERNAL: u64 = 1 << (32 - 1) | 1 << (33 - 1);
        self.blocked & INTERNAL == INTERNAL
    }
}

/// The masks of every thread of a process that can still be woken; `EAGAIN` if threads came or went meanwhile, so that one may
/// have been missed.
pub(crate) fn masks(pid: u32) -> io::Result<Vec<Masks>> {
    let mut masks = Vec::new();
    let before = threads(pid)?;
    for &thread in &before {
        // Bytes, because a thread may call itself anything.
        let text = match fs::read(format!("/proc/{pid}/task/{thread}/status")) {
            Ok(text) => text,
            // It has ended meanwhile.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            Err(e) => return Err(e),
        };
        let text = String::from_utf8_lossy(&text);
        // The first thread stays in the list when it has ended before others; no signal goes to it then.
        if text.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX")) {
            continue;
        }
        masks.push(
            Masks::parse(thread, &text)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status has another form"))?,
        );
    }
    if threads(pid)? == before { Ok(masks) } else { Err(io::Error::from_raw_os_error(libc::EAGAIN)) }
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        threads.extend(thread?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(threads)
}

/// The pid namespace of a process, if this one may know.
pub(crate) fn pid_namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// A descriptor of a process, which no other one can take the place of.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: a new descriptor that nobody else knows, born with CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How many signals may be pending at this process, counted over all processes of its user; `None` is no limit.
pub(crate) fn pending_limit() -> io::Result<Option<u64>> {
    let mut limit = mem::MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, limit.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and filled it.
    let limit = unsafe { limit.assume_init() }.rlim_cur;
    Ok((limit != libc::RLIM_INFINITY).then_some(limit))
}

/// The first real-time signal that the C library leaves to programs.
pub(crate) fn rtmin() -> i32 {
    libc::SIGRTMIN()
}

/// The last real-time signal.
pub(crate) fn rtmax() -> i32 {
    libc::SIGRTMAX()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;

    #[test]
    fn queued_signals_arrive_in_order_with_their_values() {
        let sender = std::process::id();
        let signal = rtmin() + 3;
        let mut child = Child::fork(|tell| {
            assert!(!block(signal).unwrap());
            assert!(block(signal).unwrap(), "now it is");
            let fd = signal_fd(signal).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.fill(&fd).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            tell.say(b'b');
            // SAFETY: getuid can't fail.
            let uid = unsafe { libc::getuid() };
            let mut arrived = 0;
            while arrived < 100 {
                match batch.fill(&fd) {
                    Ok(count) => {
                        for i in 0..count {
                            let value = u64::MAX - arrived;
                            let expected =
                                Arrived { signal: signal as u32, code: libc::SI_QUEUE, pid: sender, uid, value };
                            assert_eq!(batch.get(i), expected);
                            arrived += 1;
                        }
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                        std::thread::yield_now();
                    }
                }
            }
        });
        child.expect(b'b');
        let pidfd = pidfd(child.pid()).unwrap();
        let masks = masks(child.pid()).unwrap();
        assert_eq!(masks.len(), 1);
        let bit = 1 << (signal - 1);
        assert_eq!((masks[0].blocked & bit, masks[0].ignored & bit, masks[0].caught & bit), (bit, 0, 0));
        for i in 0..100 {
            Origin::this().queue(pidfd.as_fd(), signal, u64::MAX - i).unwrap();
        }
        child.expect_success();
        assert_eq!(Origin::this().queue(pidfd.as_fd(), signal, 0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn every_thread_has_masks_of_its_own() {
        let signal = rtmax();
        let mut child = Child::fork(|_| {
            let before = masks(std::process::id()).unwrap();
            let (started, start) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                start.recv().unwrap();
                block(signal).unwrap();
                let mut all = masks(std::process::id()).unwrap();
                assert_eq!(all.len(), before.len() + 1);
                all.retain(|masks| masks.blocked & 1 << (signal - 1) != 0);
                assert_eq!(all.len(), 1);
            });
            started.send(()).unwrap();
            thread.join().unwrap();
        });
        child.expect_success();
    }

    #[test]
    fn what_is_no_signal_or_no_process_is_refused() {
        assert_eq!(block(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(signal_fd(rtmax() + 1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(pidfd(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        // Above any pid_max.
        assert_eq!(pidfd(1 << 30).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(masks(1 << 30).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn too_many_pending_signals_are_refused() {
        let signal = rtmin() + 4;
        let mut child = Child::fork(|_| {
            block(signal).unwrap();
            let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `limit` outlives the call, which changes this child alone.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
            assert_eq!(pending_limit().unwrap(), Some(0));
            let own = pidfd(std::process::id()).unwrap();
            assert_eq!(Origin::this().queue(own.as_fd(), signal, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
        child.expect_success();
    }
}
