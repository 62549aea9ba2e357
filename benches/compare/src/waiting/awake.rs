//! Processes that keep the CPUs from halting: of the lowest priority, so that everybody else goes before them.
//!
//! A CPU with nothing to do halts, and waking it up, most of all a virtual one, takes several times as long as all that is to be
//! compared, and differs from one time to the next.

use std::{hint::spin_loop, io};

use rustix::{
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
    thread::{CpuSet, sched_setaffinity},
};

/// They live as long as this.
pub struct Awake(Vec<Pid>);

impl Awake {
    /// Keeps these CPUs awake.
    pub fn keep(cpus: &[usize]) -> io::Result<Self> {
        let mut kept = Self(Vec::new());
        for &cpu in cpus {
            let parent = rustix::process::getpid();
            // SAFETY: this program has one thread; the child makes system calls and spins.
            match unsafe { libc::fork() } {
                ..0 => return Err(io::Error::last_os_error()),
                0 => {
                    let lowest = stay(cpu, parent);
                    // SAFETY: `_exit` may be called at any time.
                    unsafe { libc::_exit(i32::from(lowest.is_err())) }
                }
                child => kept.0.extend(Pid::from_raw(child)),
            }
        }
        Ok(kept)
    }
}

/// Spins on that CPU until killed, by `drop` or with the parent; never if it can't be of the lowest priority.
fn stay(cpu: usize, parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    // SAFETY: zeroes are a valid value, and the call reads it.
    let lowered = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &std::mem::zeroed()) };
    if lowered != 0 {
        return Err(io::Error::last_os_error());
    }
    while rustix::process::getppid() == Some(parent) {
        (0..1_000_000).for_each(|_| spin_loop());
    }
    Ok(())
}

impl Drop for Awake {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // They can't fail: it is this process's child, and not reaped yet.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}
