//! Two sides, each pinned to its CPU: two processes, or two threads of one.
//!
//! Either way the work happens in forked children, so that whatever goes wrong there (a panic, a crash, a hang) ends as
//! an error here, and so that nothing one block leaves behind reaches the next. The parent sleeps meanwhile.

use std::{
    cell::{Cell, UnsafeCell},
    fmt::Display,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    panic,
    sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid},
};

use crate::{
    canary::Lines,
    clock::Clock,
    cpus::{self, Cpus},
    shared::{Shared, Zeroed},
};

/// A block that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the two sides are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Two processes, forked from this one.
    Processes,
    /// Two threads of one process, forked from this one.
    Threads,
}

/// Runs two sides against each other, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Where the sides run.
    pub cpus: Cpus,
    /// What they tell the time by.
    pub clock: Clock,
}

impl Pair {
    /// Chooses the CPUs and calibrates the clock.
    pub fn new() -> io::Result<Self> {
        Ok(Self { cpus: Cpus::choose()?, clock: Clock::calibrate() })
    }

    /// Calls `setup` where both sides inherit or share its value, then one function on each side, after this process has
    /// dropped its copy of the value; returns what these return, byte by byte across processes: it must hold no pointers.
    ///
    /// Processes are forked by the calling thread and die with it. It is meant for programs of one thread: as always
    /// after a fork, the children must not need a lock that another thread held.
    pub fn run<S: Sync, R: Copy>(
        &self,
        between: Between,
        setup: impl FnOnce() -> io::Result<S>,
        sides: (impl FnOnce(&S, &Side) -> R + Send, impl FnOnce(&S, &Side) -> R + Send),
    ) -> io::Result<(R, R)> {
        let table = Shared::<Table<R>>::new(1)?;
        let table = &table[0];
        let mut children = Children::default();
        match between {
            Between::Processes => {
                let state = setup()?;
                children.fork(&table.meeting, || self.side(0, table, &state, sides.0))?;
                children.fork(&table.meeting, || self.side(1, table, &state, sides.1))?;
                drop(state);
            }
            Between::Threads => children.fork(&table.meeting, || {
                let state = &setup().unwrap_or_else(|error| panic!("{error}"));
                std::thread::scope(|scope| {
                    scope.spawn(move || self.side(0, table, state, sides.0));
                    scope.spawn(move || self.side(1, table, state, sides.1));
                });
            })?,
        }
        // Release: pairs with the Acquire in `side`: the parent has let go of its part of the state.
        table.meeting.begun.store(1, Release);
        children.join(&table.meeting)?;
        // SAFETY: the children ended well, so both sides have written their results; and they are gone.
        let result = |side: usize| unsafe { (*table.results[side].get()).assume_init() };
        Ok((result(0), result(1)))
    }

    fn side<S, R: Copy>(&self, index: usize, table: &Table<R>, state: &S, work: impl FnOnce(&S, &Side) -> R) {
        let cpu = self.cpus.sides[index];
        cpus::pin(cpu).unwrap_or_else(|error| panic!("could not pin a side to CPU {cpu}: {error}"));
        // Acquire: pairs with the Release in `run`.
        while table.meeting.begun.load(Acquire) == 0 {
            std::thread::yield_now();
        }
        let side = Side { index, pair: self, meeting: &table.meeting, met: Cell::new(0) };
        let result = work(state, &side);
        // SAFETY: only this side uses this cell until the parent has seen it end.
        unsafe { *table.results[index].get() = MaybeUninit::new(result) };
    }
}

/// What one side may use while it works.
pub struct Side<'a> {
    /// 0 or 1.
    pub index: usize,
    /// The pair it belongs to.
    pub pair: &'a Pair,
    meeting: &'a Meeting,
    met: Cell<u32>,
}

impl Side<'_> {
    /// Waits until the other side is here as well.
    pub fn meet(&self) {
        self.met.set(self.met.get() + 2);
        // AcqRel: what either side did before it arrived is seen by the other when it leaves.
        self.meeting.arrived.fetch_add(1, AcqRel);
        let mut spins = 0u32;
        while self.meeting.arrived.load(Acquire) < self.met.get() {
            spins += 1;
            if !self.pair.cpus.are_two() || spins.is_multiple_of(1 << 12) {
                std::thread::yield_now();
            }
        }
    }

    /// The bare cache-line ping-pong between the sides, in ns per round trip. Both sides call it at the same point, and
    /// side 0 has the result. It means nothing where both share one CPU.
    pub fn canary(&self) -> Option<f64> {
        self.pair.cpus.are_two().then(|| {
            self.meet();
            self.meeting.lines.canary(self.index, &self.pair.clock)
        })
    }

    /// Makes `count` bare round trips over two cache lines.
    pub(crate) fn ping_pong(&self, count: u64) {
        self.meeting.lines.exchange(self.index, count);
    }
}

/// The memory a pair shares for its own purposes.
#[repr(C)]
struct Table<R> {
    meeting: Meeting,
    results: [UnsafeCell<MaybeUninit<R>>; 2],
}

// SAFETY: a cell belongs to its side while that lives, then to the parent; results are plain bytes.
unsafe impl<R: Copy> Sync for Table<R> {}
// SAFETY: see `Meeting`; an uninitialised result may hold anything, zeroes too.
unsafe impl<R: Copy> Zeroed for Table<R> {}

#[repr(C, align(128))]
struct Meeting {
    lines: Lines,
    begun: AtomicU32,
    arrived: AtomicU32,
    failed: AtomicU32,
    failure: UnsafeCell<[u8; 512]>,
}

// SAFETY: `failure` is written by the one side that sets `failed`, and read when all sides have ended.
unsafe impl Sync for Meeting {}

impl Meeting {
    /// Leaves the reason for the parent; the first side to fail is the one to be heard.
    fn fail(&self, reason: &dyn Display) {
        if self.failed.fetch_or(1, AcqRel) == 0 {
            // SAFETY: nobody else got 0 above, so nobody else comes here, and nobody reads yet.
            let mut room = unsafe { &mut *self.failure.get() }.as_mut_slice();
            // What does not fit is cut off.
            let _ = write!(room, "{reason}");
        }
    }

    /// The reason a side left, once all have ended.
    fn failure(&self) -> Option<String> {
        // SAFETY: the sides have ended: nobody writes any more.
        let text = unsafe { &*self.failure.get() };
        let len = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        (self.failed.load(Acquire) != 0).then(|| String::from_utf8_lossy(&text[..len]).into_owned())
    }
}

/// Children that are killed and reaped, whatever happens.
#[derive(Default)]
struct Children(Vec<(Pid, OwnedFd)>);

impl Children {
    /// Forks a child that runs `work` and exits.
    fn fork(&mut self, meeting: &Meeting, work: impl FnOnce()) -> io::Result<()> {
        let parent = rustix::process::getpid();
        // SAFETY: the child runs ordinary code, which `Pair::run` allows for programs of one thread only (and glibc makes
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
    fn join(&mut self, meeting: &Meeting) -> io::Result<()> {
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
    // A panic on any thread ends the child at once, so that the other thread does not wait for ever. Unwinding further
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

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    const BOTH: [Between; 2] = [Between::Processes, Between::Threads];

    #[test]
    fn both_sides_run_pinned_and_return() {
        let pair = Pair::new().unwrap();
        for between in BOTH {
            let work = |_: &(), side: &Side| {
                side.meet();
                (side.index, rustix::thread::sched_getcpu(), process::id())
            };
            let (a, b) = pair.run(between, || Ok(()), (work, work)).unwrap();
            assert_eq!((a.0, a.1), (0, pair.cpus.sides[0]));
            assert_eq!((b.0, b.1), (1, pair.cpus.sides[1]));
            assert_eq!(a.2 == b.2, between == Between::Threads);
            assert_ne!(a.2, process::id());
        }
    }

    #[test]
    fn a_panic_becomes_the_error_and_ends_the_other_side() {
        let pair = Pair::new().unwrap();
        for between in BOTH {
            let started = Instant::now();
            let sides = (|_: &(), _: &Side| panic!("no more paper"), |_: &(), side: &Side| side.meet());
            let error = pair.run(between, || Ok(()), sides).unwrap_err();
            assert_eq!(error.to_string(), "no more paper");
            assert!(started.elapsed() < PATIENCE);
        }
    }

    #[test]
    fn a_killed_side_is_an_error() {
        let pair = Pair::new().unwrap();
        let kill = |_: &(), _: &Side| kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        let error = pair.run(Between::Processes, || Ok(()), (kill, |_: &(), side: &Side| side.meet())).unwrap_err();
        assert_eq!(error.to_string(), "a side was killed by signal 9");
    }

    #[test]
    fn the_canary_has_a_result_where_there_are_two_cpus() {
        let pair = Pair::new().unwrap();
        let work = |_: &(), side: &Side| side.canary();
        let (canary, _) = pair.run(Between::Processes, || Ok(()), (work, work)).unwrap();
        assert_eq!(canary.is_some(), pair.cpus.are_two());
        assert!(canary.is_none_or(|ns| ns > 1.0));
    }
}
