//! A child under ptrace.

use crate::common::Child;
use std::time::{Duration, Instant};

/// How long to wait before asking whether a child sleeps that has not come back from a step.
const NAP: Duration = Duration::from_millis(1);
/// How a stop at the beginning or the end of a system call looks.
const AT_CALL: libc::c_int = libc::SIGTRAP | 0x80;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Taken,
    /// It began a system call that sleeps. The next step is the rest of that call.
    Asleep,
    /// None was left: the operation is over.
    End,
}

/// Where a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Asleep,
    /// Behind the operation.
    Ended,
    /// No longer traced, but stopped by a real signal.
    Suspended,
}

/// A child that stands before, in the middle of, or behind an operation.
pub struct Traced {
    child: Child,
    kind: Kind,
    state: State,
    /// How many system calls it has begun, unless it is plain.
    calls: u32,
}

/// What an operation is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// It sleeps once.
    Sleepy,
    /// It wakes somebody, if that one sleeps at the time.
    Waking,
}

impl Traced {
    /// A child that prepares, and stops before it operates, and once more after.
    pub fn start<T>(prepare: impl FnOnce() -> T, operate: impl FnOnce(&mut T)) -> Self {
        let mut child = Child::fork(|_| {
            let mut prepared = prepare();
            // SAFETY: asks to be traced by the parent.
            let answer = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            assert_eq!(answer, 0, "this test needs ptrace: {}", std::io::Error::last_os_error());
            stop();
            operate(&mut prepared);
            stop();
            drop(prepared);
        });
        let status = child.wait();
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP, "it failed: {status:#x}");
        let traced = Self { child, kind: Kind::Plain, state: State::Stopped, calls: 0 };
        // Else the beginning of a call does not look like one.
        traced.ask(libc::PTRACE_SETOPTIONS, libc::PTRACE_O_TRACESYSGOOD);
        traced
    }

    /// The same for an operation that sleeps, once.
    pub fn start_sleepy<T>(prepare: impl FnOnce() -> T, operate: impl FnOnce(&mut T)) -> Self {
        Self { kind: Kind::Sleepy, ..Self::start(prepare, operate) }
    }

    /// The same for an operation without system calls but those that wake another process, which sleeps.
    pub fn start_waking<T>(prepare: impl FnOnce() -> T, operate: impl FnOnce(&mut T)) -> Self {
        Self { kind: Kind::Waking, ..Self::start(prepare, operate) }
    }

    /// Whether it was as expected, once it has come to the end.
    pub(super) fn is_as_expected(&self, slept: bool) -> bool {
        match self.kind {
            Kind::Plain => !slept,
            Kind::Sleepy => slept,
            // The stop at the end has two.
            Kind::Waking => !slept && self.calls > 2,
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.kind == Kind::Plain
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Takes one instruction.
    pub(super) fn step(&mut self) -> Step {
        self.go(libc::PTRACE_SINGLESTEP)
    }

    /// Goes to the beginning or the end of a system call.
    pub(super) fn step_to_call(&mut self) -> Step {
        self.go(libc::PTRACE_SYSCALL)
    }

    pub(super) fn go(&mut self, request: libc::c_uint) -> Step {
        let mut may_sleep = false;
        match self.state {
            State::Ended => return Step::End,
            State::Stopped => {
                let calls = request == libc::PTRACE_SINGLESTEP && self.kind != Kind::Plain && self.is_at_call();
                self.calls += u32::from(calls);
                may_sleep = self.kind == Kind::Sleepy && (request == libc::PTRACE_CONT || calls);
                self.ask(request, 0);
            }
            State::Asleep => self.state = State::Stopped,
            State::Suspended => panic!("it is no longer traced"),
        }
        if may_sleep && self.falls_asleep() {
            self.state = State::Asleep;
            return Step::Asleep;
        }
        let status = self.child.wait();
        assert!(libc::WIFSTOPPED(status), "it failed: {status:#x}");
        match libc::WSTOPSIG(status) {
            libc::SIGTRAP | AT_CALL => Step::Taken,
            libc::SIGSTOP => {
                self.state = State::Ended;
                Step::End
            }
            signal => panic!("stopped by signal {signal}"),
        }
    }

    fn ask(&self, request: libc::c_uint, value: libc::c_int) {
        // SAFETY: the child is stopped and traced by this thread; these requests take a number.
        let answer = unsafe { libc::ptrace(request, self.pid(), 0, value) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }

    /// Whether the next instruction is a system call, or may be one.
    fn is_at_call(&self) -> bool {
        let address = self.address();
        // SAFETY: reads memory of the child, which is stopped and traced by this thread.
        let next = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.pid(), address, 0) };
        match std::env::consts::ARCH {
            "x86_64" => next & 0xffff == 0x050f,
            "aarch64" => next & 0xffff_ffff == 0xd400_0001,
            _ => true,
        }
    }

    /// Has it stop whenever it comes to `address`, or never for 0. False if that can't be done.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn set_breakpoint(&self, address: u64) -> bool {
        let registers = std::mem::offset_of!(libc::user, u_debugreg);
        // The first address, and in register 7 whether it counts.
        [(7, 0), (0, address), (7, u64::from(address != 0))].iter().all(|(register, value)| {
            // SAFETY: sets a debug register of the child, which is stopped and traced by this thread.
            unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.pid(), registers + register * 8, *value) == 0 }
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn set_breakpoint(&self, _: u64) -> bool {
        false
    }

    /// Whether it has stopped there.
    pub(super) fn is_at(&self, address: u64) -> bool {
        self.state == State::Stopped && self.address() == address
    }

    pub(super) fn address(&self) -> u64 {
        self.info().instruction_pointer
    }

    pub(super) fn info(&self) -> libc::ptrace_syscall_info {
        // SAFETY: all zeros are such an answer.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        // SAFETY: the child is stopped and traced by this thread; `info` is a valid place of that size for the answer.
        let answer =
            unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid(), size_of_val(&info), &raw mut info) };
        assert!(answer > 0, "{}", std::io::Error::last_os_error());
        info
    }

    /// Waits until it has stopped, or sleeps.
    fn falls_asleep(&self) -> bool {
        let mut asked = Instant::now();
        loop {
            if self.has_news() {
                return false;
            }
            if asked.elapsed() >= NAP {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
                // It may have been woken in between.
                if stat.contains(") S ") && !self.has_news() {
                    return true;
                }
                asked = Instant::now();
            }
            std::thread::yield_now();
        }
    }

    /// Whether a wait for it would return at once.
    fn has_news(&self) -> bool {
        self.wait_for(libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT) != 0
    }

    /// What has become of it; 0 if that is nothing, and it is not to be waited for.
    fn wait_for(&self, options: libc::c_int) -> libc::c_int {
        // SAFETY: all zeros are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place for the answer.
        assert_eq!(unsafe { libc::waitid(libc::P_PID, self.pid(), &mut info, options) }, 0);
        info.si_code
    }

    /// Kills it where it is.
    pub fn kill(mut self) {
        self.child.signal(libc::SIGKILL);
        let status = self.child.reap();
        assert!(libc::WIFSIGNALED(status), "it failed: {status:#x}");
    }

    /// Leaves it to itself, stopped by a real signal; not one that sleeps.
    pub fn suspend(&mut self) {
        if self.state == State::Stopped {
            self.ask(libc::PTRACE_DETACH, libc::SIGSTOP);
            self.wait_for(libc::WSTOPPED);
            self.state = State::Suspended;
        }
    }

    /// Lets it go on to the end of the operation, and then drop what it prepared; it must succeed.
    pub fn finish(mut self) {
        if self.state == State::Suspended {
            self.child.signal(libc::SIGCONT);
            // It stops itself at the end, unless it has begun to do so already.
            while self.wait_for(libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT) == libc::CLD_STOPPED {
                self.wait_for(libc::WSTOPPED);
                self.child.signal(libc::SIGCONT);
            }
        } else {
            self.kind = Kind::Plain;
            // It may be in the middle of a step.
            while self.go(libc::PTRACE_CONT) != Step::End {}
            self.ask(libc::PTRACE_DETACH, 0);
        }
        self.child.expect_success();
    }
}

/// Stops this thread for its tracer: others, which aren't traced, must not take the signal.
fn stop() {
    // SAFETY: a plain system call.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSTOP) };
}
