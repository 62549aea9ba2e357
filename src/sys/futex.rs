//! Futexes between processes.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::{io, time::Duration};

use rustix::{io::Errno, thread::futex};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody woke us.
    Woken,
    /// The word no longer had the expected value, so there was no sleep.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while `word` is `expected`, until the monotonic `deadline`. The word may be mapped read-only.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Duration>) -> io::Result<Wake> {
    let deadline = deadline.map(|d| futex::Timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: d.subsec_nanos() as _,
    });
    // The form with a bit set is the one whose timeout is absolute. Empty flags mean shared between processes.
    match futex::wait_bitset(word, futex::Flags::empty(), expected, deadline.as_ref(), NonZeroU32::MAX) {
        Ok(()) => Ok(Wake::Woken),
        Err(Errno::AGAIN) => Ok(Wake::Changed),
        Err(Errno::TIMEDOUT) => Ok(Wake::TimedOut),
        Err(Errno::INTR) => Ok(Wake::Interrupted),
        Err(e) => Err(e.into()),
    }
}

/// Wakes up to `count` waiters and says how many it woke.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> io::Result<usize> {
    // The kernel takes a signed number.
    Ok(futex::wake(word, futex::Flags::empty(), count.min(i32::MAX as u32))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{child::Child, clock, memfd};
    use memmap2::MmapOptions;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_changed_word_and_a_past_deadline_return_at_once() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 2, None).unwrap(), Wake::Changed);
        assert_eq!(wait(&word, 1, Some(clock::now())).unwrap(), Wake::TimedOut);
        assert_eq!(wait(&word, 1, Some(Duration::ZERO)).unwrap(), Wake::TimedOut);
        assert_eq!(wake(&word, u32::MAX).unwrap(), 0);
    }

    #[test]
    fn a_process_that_only_reads_the_word_can_wait_on_it() {
        let file = memfd::create("futex", 4096, 0o600).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        // SAFETY: the mapping is a page, aligned, zeroed, and outlives the reference.
        let word = unsafe { AtomicU32::from_ptr(map.as_mut_ptr().cast()) };
        let mut child = Child::fork(|tell| {
            let map = MmapOptions::new().map_raw_read_only(&file).unwrap();
            // SAFETY: as above; the word is only read through this reference.
            let word = unsafe { AtomicU32::from_ptr(map.as_mut_ptr().cast()) };
            tell.say(b'r');
            while word.load(Ordering::Acquire) == 0 {
                wait(word, 0, Some(clock::now() + Duration::from_secs(30))).unwrap();
            }
        });
        child.expect(b'r');
        child.await_sleep();
        assert_eq!(wake(word, 1).unwrap(), 1);
        word.store(1, Ordering::Release);
        wake(word, 1).unwrap();
        child.expect_success();
    }
}
