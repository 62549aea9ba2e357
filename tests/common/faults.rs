//! What can befall a process short of, or besides, its death: being stopped, forked, robbed of its files, put into a container.

use super::Child;
use std::{fs, io};

/// Kills it wherever it is; it must not have ended by itself.
pub fn kill(mut child: Child) {
    child.signal(libc::SIGKILL);
    let status = child.reap();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "it failed: {status:#x}");
}

pub fn wait_until_stopped(child: &Child) {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let answer = unsafe { libc::waitpid(child.pid() as i32, &mut status, libc::WUNTRACED) };
    assert!(answer == child.pid() as i32 && libc::WIFSTOPPED(status));
}

/// A forked process that does nothing; it doesn't end with its parent.
pub fn fork_bystander() -> u32 {
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: pause has no preconditions.
            unsafe { libc::pause() };
        },
        pid => u32::try_from(pid).expect("fork failed"),
    }
}

/// Somebody's orphan, killed at the end.
pub struct Bystander(i32);

impl Bystander {
    pub fn new(pid: u64) -> Self {
        assert!(pid > 1, "0 would be ourselves");
        Self(pid as i32)
    }

    pub fn lives(&self) -> bool {
        // SAFETY: signal 0 only asks.
        unsafe { libc::kill(self.0, 0) == 0 }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // SAFETY: a plain system call; nobody has reaped that process before it died.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// As a daemon does that closes everything it doesn't know; the pipe to the test stays.
pub fn close_files() {
    for descriptor in 3..1024 {
        let link = fs::read_link(format!("/proc/self/fd/{descriptor}"));
        if link.is_ok_and(|target| !target.to_string_lossy().starts_with("pipe:")) {
            // SAFETY: this process opens nothing more until it is killed, so that no number is used again.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// The children forked from now on see a clock of their own.
pub fn enter_another_time() {
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWTIME);
    fs::write("/proc/self/timens_offsets", "boottime 1000 0").unwrap();
}

/// From now on this process and its children see another boot id.
pub fn enter_another_boot() {
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
    // A new number at each look.
    let (own, other) = (c"/proc/sys/kernel/random/boot_id", c"/proc/sys/kernel/random/uuid");
    // SAFETY: the strings are valid for the call.
    let answer =
        unsafe { libc::mount(other.as_ptr(), own.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()) };
    assert_eq!(answer, 0, "bind mount: {}", io::Error::last_os_error());
}

pub fn unshare(namespaces: libc::c_int) {
    // SAFETY: the caller is a forked child with one thread.
    let answer = unsafe { libc::unshare(namespaces) };
    assert_eq!(answer, 0, "this test needs namespaces: {}", io::Error::last_os_error());
}
