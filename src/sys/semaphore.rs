//! POSIX semaphores that live in memory shared between processes.

use std::{io, time::Duration};

/// glibc's, or whichever C library this is built with.
pub(crate) type RawSemaphore = sem_t;

use libc::sem_t;

use super::{check, clock};

unsafe extern "C" {
    /// glibc 2.30; the libc crate lacks it. `sem_timedwait` would follow the wall clock's jumps.
    fn sem_clockwait(sem: *mut sem_t, clock: libc::clockid_t, deadline: *const libc::timespec) -> libc::c_int;
}

/// Makes a semaphore of value 0 that any process mapping it can use.
///
/// # Safety
/// `sem` must point to writable, aligned memory for a `sem_t` that nobody uses yet.
pub(crate) unsafe fn init(sem: *mut sem_t) -> io::Result<()> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::sem_init(sem, 1, 0) }).map(drop)
}

/// Adds one, waking a waiter. At its maximum it stays there: waiters have more wakes than they need.
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`].
pub(crate) unsafe fn post(sem: *mut sem_t) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match check(unsafe { libc::sem_post(sem) }) {
        Err(e) if e.raw_os_error() != Some(libc::EOVERFLOW) => Err(e),
        _ => Ok(()),
    }
}

/// Takes one if there is one, and says whether it did.
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`].
pub(crate) unsafe fn try_wait(sem: *mut sem_t) -> io::Result<bool> {
    // SAFETY: the caller's promise.
    match check(unsafe { libc::sem_trywait(sem) }) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes one, sleeping until there is one or the monotonic `deadline` passes: `Ok(false)`.
/// A signal handler ends it with [`io::ErrorKind::Interrupted`].
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`], and stay mapped during the call.
pub(crate) unsafe fn wait(sem: *mut sem_t, deadline: Option<Duration>) -> io::Result<bool> {
    let answer = match deadline.map(clock::to_timespec) {
        // SAFETY: the caller's promise, and the deadline is a local.
        Some(deadline) => unsafe { sem_clockwait(sem, libc::CLOCK_MONOTONIC, &deadline) },
        // SAFETY: the caller's promise.
        None => unsafe { libc::sem_wait(sem) },
    };
    match check(answer) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{child::Child, memfd};
    use memmap2::MmapOptions;

    #[test]
    fn a_post_in_one_process_wakes_a_sleeper_in_another() {
        let file = memfd::create("semaphore", 4096, 0o600).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        let sem = map.as_mut_ptr().cast::<sem_t>();
        // SAFETY: a fresh page, aligned and larger than a sem_t.
        unsafe { init(sem) }.unwrap();
        let mut child = Child::fork(|tell| {
            tell.say(b'w');
            // SAFETY: made above; the child inherited the mapping.
            assert!(unsafe { wait(sem, Some(clock::now() + Duration::from_secs(30))) }.unwrap());
        });
        child.expect(b'w');
        child.await_sleep();
        // SAFETY: made above.
        unsafe { post(sem) }.unwrap();
        child.expect_success();
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_counts_posts() {
        // SAFETY: sem_t is plain bytes, made into a semaphore next.
        let mut sem: sem_t = unsafe { std::mem::zeroed() };
        // SAFETY: a local semaphore, initialised before it is used.
        unsafe {
            init(&mut sem).unwrap();
            assert!(!try_wait(&mut sem).unwrap());
            assert!(!wait(&mut sem, Some(clock::now())).unwrap());
            post(&mut sem).unwrap();
            post(&mut sem).unwrap();
            assert!(wait(&mut sem, None).unwrap());
            assert!(try_wait(&mut sem).unwrap());
            assert!(!try_wait(&mut sem).unwrap());
        }
    }
}
