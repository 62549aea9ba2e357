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
    let deadline = deadline.map(timespec);
    // The form with a bit set is the one whose timeout is absolute. Empty flags mean shared between processes.
    outcome(futex::wait_bitset(word, futex::Flags::empty(), expected, deadline.as_ref(), NonZeroU32::MAX))
}

/// How many words [`wait_several`] takes: the kernel's `FUTEX_WAITV_MAX`.
pub(crate) const MOST_WORDS: usize = 128;

/// Sleeps while each word has the value beside it, until the monotonic `deadline`. [`Unsupported`](io::ErrorKind::Unsupported) before Linux
/// 5.16, and `EINVAL` for no words, or for more than [`MOST_WORDS`].
pub(crate) fn wait_several<'a>(
    words: impl IntoIterator<Item = (&'a AtomicU32, u32)>,
    deadline: Option<Duration>,
) -> io::Result<Wake> {
    let mut waits = [futex::Wait::new(); MOST_WORDS];
    let mut count = 0;
    for (word, expected) in words {
        let wait = waits.get_mut(count).ok_or(Errno::INVAL)?;
        wait.val = expected.into();
        wait.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
        // Not private: shared between processes.
        wait.flags = futex::WaitFlags::SIZE_U32;
        count += 1;
    }
    let deadline = deadline.map(timespec);
    let flags = futex::WaitvFlags::empty();
    match futex::waitv(&waits[..count], flags, deadline.as_ref(), futex::ClockId::Monotonic) {
        // Sandboxes that are older than the call refuse what they don't know in their own ways.
        Err(Errno::NOSYS | Errno::PERM) => Err(Errno::NOSYS.into()),
        answer => outcome(answer.map(drop)),
    }
}

fn timespec(time: Duration) -> futex::Timespec {
    futex::Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos() as _ }
}

fn outcome(answer: Result<(), Errno>) -> io::Result<Wake> {
    match answer {
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
    fn several_words_are_waited_for_at_once() {
        let words: Vec<AtomicU32> = (0..129).map(AtomicU32::new).collect();
        let expect = |count: usize| words[..count].iter().enumerate().map(|(value, word)| (word, value as u32));
        let soon = || Some(clock::now() + Duration::from_millis(1));
        for count in [1, 2, MOST_WORDS] {
            assert_eq!(wait_several(expect(count), soon()).unwrap(), Wake::TimedOut);
            assert_eq!(wait_several(expect(count), Some(Duration::ZERO)).unwrap(), Wake::TimedOut);
            assert_eq!(wait_several(expect(count - 1).chain([(&words[128], 7)]), None).unwrap(), Wake::Changed);
        }
        for count in [0, MOST_WORDS + 1] {
            assert_eq!(wait_several(expect(count), soon()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        for woken in [0, 1, MOST_WORDS - 1] {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| wait_several(expect(MOST_WORDS), None).unwrap());
                while wake(&words[woken], 1).unwrap() == 0 {
                    std::thread::yield_now();
                }
                assert_eq!(sleeper.join().unwrap(), Wake::Woken);
            });
        }
    }

    #[test]
    fn a_signal_ends_a_wait_for_several() {
        extern "C" fn nothing(_: libc::c_int) {}
        let mut child = Child::fork(|tell| {
            // Without SA_RESTART, which has the kernel go on.
            // SAFETY: a sigaction is plain integers, and an empty mask is zeros; the handler does nothing; it is this child's alone.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = nothing as *const () as libc::sighandler_t;
                libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
            }
            tell.say(b'r');
            let words = [AtomicU32::new(1), AtomicU32::new(2)];
            assert_eq!(wait_several([(&words[0], 1), (&words[1], 2)], None).unwrap(), Wake::Interrupted);
        });
        child.expect(b'r');
        child.await_sleep();
        child.signal(libc::SIGUSR1);
        child.expect_success();
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
            tell.say(b'w');
            while word.load(Ordering::Acquire) == 1 {
                wait_several([(word, 1)], Some(clock::now() + Duration::from_secs(30))).unwrap();
            }
        });
        child.expect(b'r');
        child.await_sleep();
        assert_eq!(wake(word, 1).unwrap(), 1);
        word.store(1, Ordering::Release);
        wake(word, 1).unwrap();
        child.expect(b'w');
        child.await_sleep();
        assert_eq!(wake(word, 1).unwrap(), 1);
        word.store(2, Ordering::Release);
        wake(word, 1).unwrap();
        child.expect_success();
    }
}
