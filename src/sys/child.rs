//! Forked children for tests, killed and reaped whatever happens.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A forked child; dropping it kills and reaps it.
pub struct Child {
    pid: libc::pid_t,
    heard: PipeReader,
    reaped: bool,
}

/// The child's line to its parent.
pub struct Tell(PipeWriter);

impl Tell {
    /// Sends one byte.
    pub fn say(&mut self, byte: u8) {
        self.0.write_all(&[byte]).unwrap();
    }

    /// Closes whatever else it inherited: of tests in other threads, which look for the end of a pipe or connection.
    pub fn close_inherited(&self) {
        use std::os::fd::AsRawFd;
        let own = self.0.as_raw_fd() as libc::c_uint;
        for (first, last) in [(3, own - 1), (own + 1, libc::c_uint::MAX)] {
            if first <= last {
                // SAFETY: a plain system call; nothing in this process uses them any longer.
                assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }, 0);
            }
        }
    }

    /// Lets it have so many more bytes of memory, and no more.
    pub fn limit_memory(&self, more: u64) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        let most = (size << 10) + more;
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the limit outlives the call, which changes this child alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    }

    /// Stays until killed.
    pub fn sleep_until_killed(&self) -> ! {
        loop {
            // SAFETY: pause has no preconditions.
            unsafe { libc::pause() };
        }
    }
}

impl Child {
    /// Runs `work` in a child, which then exits: with 0, or 1 if it panicked.
    pub fn fork(work: impl FnOnce(&mut Tell)) -> Self {
        let (heard, tell) = std::io::pipe().unwrap();
        // SAFETY: the child runs only `work` and leaves by _exit; glibc keeps malloc usable in it.
        match unsafe { libc::fork() } {
            0 => {
                drop(heard);
                // Nor may it outlive a test run that is killed.
                // SAFETY: a plain system call.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let failure = catch_unwind(AssertUnwindSafe(|| work(&mut Tell(tell)))).err();
                let text = failure.as_ref().map_or("", |panic| panic.downcast_ref().map_or("?", String::as_str));
                // SAFETY: a buffer and its length; then ends the process without running the parent's exit handlers a
                // second time. Not by eprintln: the test harness of the parent would have to show it.
                unsafe {
                    libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
                    libc::_exit(failure.is_some().into())
                }
            }
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            pid => Self { pid, heard, reaped: false },
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Waits for the next byte that it says.
    pub fn hear(&mut self) -> u8 {
        let mut byte = [0];
        self.heard.read_exact(&mut byte).expect("the child ended without a word");
        byte[0]
    }

    /// Waits for it to say `byte`.
    pub fn expect(&mut self, byte: u8) {
        assert_eq!(self.hear() as char, byte as char);
    }

    /// Returns once it sleeps in a system call.
    pub fn await_sleep(&self) {
        let stat = format!("/proc/{}/stat", self.pid);
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
    }

    /// Kills it and waits until it is a zombie.
    pub fn kill_without_reaping(&mut self) {
        self.signal(libc::SIGKILL);
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
        // SAFETY: `info` is a valid place for the answer; the pid is our unreaped child's.
        let answer =
            unsafe { libc::waitid(libc::P_PID, self.pid as _, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        assert_eq!(answer, 0);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        assert!(!self.reaped);
        // SAFETY: a plain system call; the pid can't be reused while we haven't reaped it.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// Waits until it ends, or stops under a tracer; its wait status.
    pub fn wait(&mut self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        assert_eq!(unsafe { libc::waitpid(self.pid, &mut status, 0) }, self.pid);
        self.reaped = !libc::WIFSTOPPED(status);
        status
    }

    /// Waits for its end; its wait status.
    pub fn reap(&mut self) -> libc::c_int {
        loop {
            let status = self.wait();
            if self.reaped {
                return status;
            }
        }
    }

    /// Waits for its end, which must be a success.
    pub fn expect_success(&mut self) {
        assert_eq!(self.reap(), 0, "the child failed");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(libc::SIGKILL);
            self.reap();
        }
    }
}
