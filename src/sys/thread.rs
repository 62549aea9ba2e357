//! Threads of the library's own, that the user's signals never reach.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Runs `work` in a thread in which all signals are blocked from its first instruction on: the user's threads get them.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // SAFETY: a sigset_t is plain integers, and sigfillset makes it a set.
    let (all, mut before) = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        (all, all)
    };
    // A new thread starts with its maker's mask.
    // SAFETY: both are valid sets.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let thread = Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work);
    // SAFETY: the set was this thread's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    thread
}

/// Enough for what these threads do, log events of the user's included.
const STACK: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_name_and_all_signals_blocked() {
        let mask = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let own = || mask(&std::fs::read_to_string("/proc/thread-self/status").unwrap());
        let before = own();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = spawn("a-thread", move || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            tell.send(status).unwrap();
        });
        let status = told.recv().unwrap();
        thread.unwrap().join().unwrap();
        assert!(status.contains("a-thread"));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGALRM, libc::SIGUSR1, libc::SIGRTMAX()] {
            assert_ne!(mask(&status) & 1 << (signal - 1), 0, "{signal}");
        }
        assert_eq!(own(), before);
    }
}
