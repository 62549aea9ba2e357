//! POSIX semaphores of glibc's layout, in memory that a hostile process may share.
//!
//! Only [`init`] is the C library's. Its other functions take from the shared memory which futex operation they make, so that
//! a peer could let them sleep for good, or abort. Ours work on the same layout, and together with glibc's in other processes:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0–3 | the value, which is also the futex |
//! | 4–7 | how many wait, or are about to |
//! | 8–11 | `private`: never read here |

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{io, time::Duration};

use super::{check, clock, futex};

/// What glibc makes a semaphore in.
pub(crate) type RawSemaphore = libc::sem_t;

// The layout is the one of 64-bit machines, here of the little-endian ones.
static_assertions::assert_cfg!(all(target_pointer_width = "64", target_endian = "little"));
static_assertions::const_assert!(align_of::<RawSemaphore>() >= align_of::<AtomicU64>());

const WAITER: u64 = 1 << 32;
const MAX: u32 = i32::MAX as u32;

/// Makes a semaphore of value 0 that any process mapping it can use.
///
/// # Safety
/// `sem` must point to writable, aligned memory for a `sem_t` that nobody uses yet.
pub(crate) unsafe fn init(sem: *mut RawSemaphore) -> io::Result<()> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::sem_init(sem, 1, 0) }).map(drop)
}

/// Adds one, waking a waiter. At its maximum it stays there: waiters have more wakes than they need.
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`].
pub(crate) unsafe fn post(sem: *mut RawSemaphore) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let word = unsafe { word(sem) };
    // Relaxed: only a number is compared. Two who post at once may exceed the maximum by one, which harms nobody.
    if value(word.load(Ordering::Relaxed)) >= MAX {
        return Ok(());
    }
    // Release: pairs with the Acquire of whoever takes it, here or in glibc.
    if word.fetch_add(1, Ordering::Release) >= WAITER {
        futex::wake(futex_of(word), 1)?;
    }
    Ok(())
}

/// Takes one if there is one, and says whether it did. If another process changes the semaphore at that moment, it may not.
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`].
pub(crate) unsafe fn try_wait(sem: *mut RawSemaphore) -> bool {
    // SAFETY: the caller's promise.
    let word = unsafe { word(sem) };
    // Relaxed: the exchange decides.
    take(word, word.load(Ordering::Relaxed))
}

/// Takes one, sleeping until there is one or the monotonic `deadline` passes: `Ok(false)`.
/// A signal handler ends it with [`io::ErrorKind::Interrupted`].
///
/// # Safety
/// `sem` must point to a semaphore made by [`init`], and stay mapped during the call.
pub(crate) unsafe fn wait(sem: *mut RawSemaphore, deadline: Duration) -> io::Result<bool> {
    // SAFETY: the caller's promise.
    let word = unsafe { word(sem) };
    // Relaxed, here and below: who posts sees the waiter, or the waiter the post, since both change the same word. To count
    // too many for a moment costs a needless wake.
    word.fetch_add(WAITER, Ordering::Relaxed);
    let answer = wait_counted(word, deadline);
    word.fetch_sub(WAITER, Ordering::Relaxed);
    answer
}

fn wait_counted(word: &AtomicU64, deadline: Duration) -> io::Result<bool> {
    loop {
        // Relaxed: the exchange, or the kernel's comparison, decides.
        let seen = word.load(Ordering::Relaxed);
        if take(word, seen) {
            return Ok(true);
        }
        // In each round, against a peer that keeps changing the word or waking us.
        if clock::now() >= deadline {
            return Ok(false);
        }
        if value(seen) == 0 && futex::wait(futex_of(word), 0, Some(deadline))? == futex::Wake::Interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

/// Takes one from a word that had the value `seen`, unless that is none or has changed.
fn take(word: &AtomicU64, seen: u64) -> bool {
    // Acquire: pairs with the Release of whoever posted, here or in glibc.
    value(seen) > 0 && word.compare_exchange(seen, seen - 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn value(word: u64) -> u32 {
    word as u32
}

/// # Safety
/// `sem` must point to a semaphore that stays mapped while the word is used.
unsafe fn word<'a>(sem: *mut RawSemaphore) -> &'a AtomicU64 {
    // SAFETY: the caller's promise; aligned as asserted above, and everybody uses it as an atomic.
    unsafe { AtomicU64::from_ptr(sem.cast()) }
}

/// The half with the value, for the kernel only: we never access it by itself.
fn futex_of(word: &AtomicU64) -> &AtomicU32 {
    // SAFETY: the first half of the word, as aligned.
    unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{child::Child, memfd};
    use memmap2::{MmapOptions, MmapRaw};

    /// One way to use a semaphore.
    #[derive(Clone, Copy)]
    struct Library {
        post: fn(*mut RawSemaphore),
        wait: fn(*mut RawSemaphore),
    }

    const OURS: Library = Library {
        // SAFETY: the tests' semaphores are made and mapped.
        post: |sem| unsafe { post(sem) }.unwrap(),
        // SAFETY: as above.
        wait: |sem| assert!(unsafe { wait(sem, clock::now() + Duration::from_secs(30)) }.unwrap()),
    };
    const GLIBC: Library = Library {
        // SAFETY: as above.
        post: |sem| assert_eq!(unsafe { libc::sem_post(sem) }, 0),
        // SAFETY: as above; a sleep for good ends the process.
        wait: |sem| unsafe {
            libc::alarm(30);
            assert_eq!(libc::sem_wait(sem), 0);
        },
    };

    fn semaphore() -> (MmapRaw, *mut RawSemaphore) {
        let file = memfd::create("semaphore", 4096, 0o600).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        let sem = map.as_mut_ptr().cast();
        // SAFETY: a fresh page, aligned and larger than a sem_t.
        unsafe { init(sem) }.unwrap();
        (map, sem)
    }

    fn wake_a_sleeper(sleeper: Library, waker: Library, sem: *mut RawSemaphore) {
        for _ in 0..3 {
            let mut child = Child::fork(|tell| {
                tell.say(b'w');
                (sleeper.wait)(sem);
            });
            child.expect(b'w');
            child.await_sleep();
            (waker.post)(sem);
            child.expect_success();
            // SAFETY: made by `semaphore`.
            assert_eq!(unsafe { word(sem) }.load(Ordering::Relaxed), 0, "nothing and nobody is left");
        }
    }

    #[test]
    fn a_post_in_one_process_wakes_a_sleeper_in_another_whoever_uses_glibc() {
        for (sleeper, waker) in [(OURS, OURS), (OURS, GLIBC), (GLIBC, OURS)] {
            let (_map, sem) = semaphore();
            wake_a_sleeper(sleeper, waker, sem);
        }
    }

    #[test]
    fn two_libraries_play_ping_pong() {
        let ((_here, ping), (_there, pong)) = (semaphore(), semaphore());
        let mut child = Child::fork(|_| {
            for _ in 0..10_000 {
                (GLIBC.wait)(ping);
                (GLIBC.post)(pong);
            }
        });
        for _ in 0..10_000 {
            (OURS.post)(ping);
            (OURS.wait)(pong);
        }
        child.expect_success();
    }

    #[test]
    fn what_a_peer_writes_behind_the_word_changes_nothing() {
        let (_map, sem) = semaphore();
        for hostile in [0, 6, 129, u32::MAX] {
            // SAFETY: the third and fourth word of a sem_t, which nobody else uses now.
            unsafe { sem.cast::<[u32; 4]>().write([0, 0, hostile, hostile]) };
            wake_a_sleeper(OURS, OURS, sem);
        }
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_counts_posts() {
        let (_map, sem) = semaphore();
        // SAFETY: made above.
        unsafe {
            assert!(!try_wait(sem));
            assert!(!wait(sem, clock::now()).unwrap());
            assert!(!wait(sem, clock::now() + Duration::from_millis(2)).unwrap());
            post(sem).unwrap();
            post(sem).unwrap();
            assert!(wait(sem, Duration::ZERO).unwrap(), "there is one, however late it is");
            assert!(try_wait(sem));
            assert!(!try_wait(sem));
            word(sem).store(MAX.into(), Ordering::Relaxed);
            post(sem).unwrap();
            assert_eq!(word(sem).load(Ordering::Relaxed), MAX.into());
        }
    }
}
