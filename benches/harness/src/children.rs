//! The processes that the sides are, or whose threads they are.

use std::{
    io,
    os::fd::OwnedFd,
    panic,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid},
};

use crate::meeting::Meeting;

/// A block that takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Children that are killed and reaped, whatever happens.
#[derive(Default)]
pub(crate) struct Children(Vec<(Pid, OwnedFd)>);

impl Children {
    /// Forks a child that runs `work` and exits.
    pub(crate) fn fork(&mut self, meeting: &Meeting, work: impl FnOnce()) -> io::Result<()> {
        let parent = rustix::process::getpid();
        // SAFETY: the child runs ordinary code, which `Crew::run` allows for programs of one thread only (and glibc makes
        // its own locks usable in the child).
        let pid = unsafe { libc::fork() };
        match Pid::from_raw(pid) {
            Some(_) if pid < 0 => Err(io::Error::last_os_error()),
            Some(pid) => match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(fd) => {
                    self.0.push((pid, fd));
                    Ok(())
                }
                Err(error) => {
                    end(pid);
                    Err(error.into())
                }
            },
            None => child(parent, meeting, work),
        }
    }

    /// Waits until all have ended well; the first that does not, or a minute of silence, is an error.
    pub(crate) fn join(&mut self, meeting: &Meeting) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.0.is_empty() {
            let mut fds: Vec<_> = self.0.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a block took longer than a minute")),
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let ended = fds.iter().position(|fd| !fd.revents().is_empty()).expect("poll counted one");
            let (pid, _) = self.0.swap_remove(ended);
            let status = waitpid(Some(pid), WaitOptions::empty())?.expect("it has ended").1;
            if status.exit_status() != Some(0) {
                let how = match status.terminating_signal() {
                    Some(signal) => format!("a side was killed by signal {signal}"),
                    None => "a side ended early".to_owned(),
                };
                return Err(io::Error::other(meeting.failure().unwrap_or(how)));
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(pid, _)| end(pid));
    }
}

/// Kills and reaps a child. It can't fail: the child is ours and not reaped yet.
fn end(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
}

/// The life of a child.
fn child(parent: Pid, meeting: &Meeting, work: impl FnOnce()) -> ! {
    let die_with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if die_with_parent.is_err() || rustix::process::getppid() != Some(parent) {
        exit(1);
    }
    // A panic on any thread ends the child at once, so that the other threads do not wait for ever. Unwinding further
    // would run the parent's code.
    // SAFETY: the reference is used as long as this process lives, and so is the mapping: only exit ends it.
    let meeting: &'static Meeting = unsafe { &*std::ptr::from_ref(meeting) };
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
            (Some(text), _) => meeting.fail(text),
            (_, Some(text)) => meeting.fail(text),
            _ => meeting.fail(info),
        }
        exit(1)
    }));
    work();
    exit(0)
}

/// Ends this process without running what the parent has registered or flushing what it has buffered.
fn exit(code: i32) -> ! {
    // SAFETY: `_exit` may be called at any time.
    unsafe { libc::_exit(code) }
}
