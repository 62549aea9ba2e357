//! The process that receives, and whether the signal may be sent there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::descriptor::{self, Ready};
use crate::sys::signal::{self, Masks};

/// A process, held by a descriptor, and a signal.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) pid: u32,
    pub(super) signal: i32,
    pub(super) pidfd: OwnedFd,
}

/// Whether a signal may be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Threads come and go, so that it can't be told now.
    Unsure,
    /// The signal would kill it, because of this thread.
    Unprepared {
        thread: u32,
    },
    /// The signal would be lost.
    Ignored,
    Dead,
}

impl Target {
    pub(super) fn open(pid: u32, signal: i32) -> io::Result<Self> {
        Ok(Self { pid, signal, pidfd: signal::pidfd(pid)? })
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn is_dead(&self) -> bool {
        descriptor::is_ready(self.pidfd(), Ready::Read).unwrap_or(false)
    }

    /// Whether it would not see this process's pid.
    pub(super) fn is_elsewhere(&self) -> bool {
        let [own, other] = [std::process::id(), self.pid].map(signal::pid_namespace);
        own.is_some() && other.is_some() && own != other
    }

    pub(super) fn masks(&self) -> io::Result<Vec<Masks>> {
        signal::masks(self.pid)
    }

    pub(super) fn readiness(&self) -> io::Result<Readiness> {
        let masks = self.masks();
        // What was read is about this process, and not about a later one of that number, if it still lives afterwards.
        if self.is_dead() {
            return Ok(Readiness::Dead);
        }
        match masks {
            Ok(masks) => Ok(judge(&masks, self.signal)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Readiness::Unsure),
            // It is there, but /proc hides it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(io::Error::from_raw_os_error(libc::EACCES)),
            Err(e) => Err(e),
        }
    }
}

fn judge(threads: &[Masks], signal: i32) -> Readiness {
    let bit = 1 << (signal - 1);
    if threads.iter().any(|masks| masks.ignored & bit != 0) {
        return Readiness::Ignored;
    }
    if threads.iter().any(|masks| masks.caught & bit != 0) {
        return Readiness::Ready;
    }
    match threads.iter().find(|masks| masks.blocked & bit == 0) {
        Some(masks) => Readiness::Unprepared { thread: masks.thread },
        None if threads.is_empty() || threads.iter().any(Masks::are_passing) => Readiness::Unsure,
        None => Readiness::Ready,
    }
}

impl Readiness {
    /// Why nothing may be sent.
    pub(super) fn explain(self, pid: u32, signal: i32) -> String {
        match self {
            Self::Ready | Self::Unsure => format!(
                "threads of process {pid} keep coming and going, so that it can't be told \
                                                   whether all of them block signal {signal}"
            ),
            Self::Unprepared { thread } => {
                format!(
                    "thread {thread} of process {pid} neither blocks nor catches signal {signal}, which would kill the process"
                )
            }
            Self::Ignored => format!("process {pid} ignores signal {signal}, which would be lost"),
            Self::Dead => format!("process {pid} is dead"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_is_open_forbids_it() {
        let bit = |signal: i32| 1_u64 << (signal - 1);
        let blocks = Masks { thread: 1, blocked: bit(40), ignored: 0, caught: 0 };
        let open = Masks { thread: 2, blocked: !bit(40), ..blocks };
        let starts = Masks { thread: 3, blocked: u64::MAX, ..blocks };
        assert_eq!(judge(&[blocks, blocks], 40), Readiness::Ready);
        assert_eq!(judge(&[blocks, open], 40), Readiness::Unprepared { thread: 2 });
        assert_eq!(judge(&[starts, open], 40), Readiness::Unprepared { thread: 2 });
        assert_eq!(judge(&[blocks, starts], 40), Readiness::Unsure, "nobody knows what it will block");
        assert_eq!(judge(&[], 40), Readiness::Unsure);
        assert_eq!(judge(&[Masks { caught: bit(40), ..open }], 40), Readiness::Ready);
        assert_eq!(judge(&[Masks { ignored: bit(40), ..blocks }], 40), Readiness::Ignored);
    }
}
