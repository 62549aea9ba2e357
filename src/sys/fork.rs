//! Noticing that this process is a forked copy, at the cost of one load per call.
//!
//! An endpoint inherited by `fork` must not be used: its owner, the parent, still does. Each endpoint remembers the
//! generation in which it was made. The generation lies in a page that the kernel wipes in a forked child.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const PAGE: usize = 4096;

/// A page to itself, so that wiping it wipes nothing else.
#[repr(C, align(4096))]
struct Page {
    generation: AtomicU32,
    rest: [u8; PAGE - 4],
}

static CURRENT: Page = Page { generation: AtomicU32::new(0), rest: [0; PAGE - 4] };

/// Which generation of this process is running; made anew if it is a forked child's first.
pub(crate) fn enter() -> u32 {
    /// Never wiped, so that a child's generation differs from all of its ancestors'.
    static LAST: AtomicU32 = AtomicU32::new(0);

    // Relaxed, here and below: a generation is compared with the one remembered, it guards no other memory.
    let current = CURRENT.generation.load(Ordering::Relaxed);
    if current != 0 {
        return current;
    }
    arm();
    let next = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
    match CURRENT.generation.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(another_threads) => another_threads,
    }
}

/// Whether `generation`, an answer of [`enter`], is still the running one.
#[inline]
pub(crate) fn is_current(generation: u32) -> bool {
    CURRENT.generation.load(Ordering::Relaxed) == generation
}

/// Has the generation wiped in future children. Arming twice does no harm.
fn arm() {
    static HANDLER: AtomicBool = AtomicBool::new(false);

    let page = (&raw const CURRENT).cast_mut().cast();
    // SAFETY: sysconf has no preconditions.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // SAFETY: the range is one static of exactly one page; it is only wiped in a child, where zero means "not entered".
    let wiped = page_size == PAGE as libc::c_long && unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } == 0;
    if !wiped && !HANDLER.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler is async-signal-safe: it stores one integer.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    }
}

/// What never changes while a process lives, but may be something else in a forked child.
pub(crate) struct PerProcess<const N: usize> {
    words: [AtomicU64; N],
    /// The generation of the process that they are of.
    generation: AtomicU32,
}

impl<const N: usize> PerProcess<N> {
    pub(crate) const fn unknown() -> Self {
        Self { words: [const { AtomicU64::new(0) }; N], generation: AtomicU32::new(0) }
    }

    /// The words; `read` only if this process hasn't yet. Without a lock, which a child could be forked with.
    pub(crate) fn get(&self, read: impl FnOnce() -> io::Result<[u64; N]>) -> io::Result<[u64; N]> {
        let current = enter();
        // Acquire: pairs with the Release below.
        if self.generation.load(Ordering::Acquire) == current {
            return Ok(self.words.each_ref().map(|word| word.load(Ordering::Relaxed)));
        }
        let words = read()?;
        for (known, word) in self.words.iter().zip(words) {
            // Relaxed: published by the generation. All threads of a process store the same.
            known.store(word, Ordering::Relaxed);
        }
        // Release: who sees it sees the words.
        self.generation.store(current, Ordering::Release);
        Ok(words)
    }
}

/// Has everybody who forks call `before` first, and then, in the parent and in the child, `after`; says whether there was memory
/// for that. Doing so twice calls them twice.
pub(crate) fn surround(before: extern "C" fn(), after: extern "C" fn()) -> bool {
    // SAFETY: it only keeps the pointers, to functions that may be called at any time.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) == 0 }
}

extern "C" fn forget() {
    CURRENT.generation.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;

    #[test]
    fn a_child_is_another_generation_and_a_grandchild_a_third() {
        let parents = enter();
        assert!(is_current(parents));
        assert_eq!(enter(), parents);
        let mut child = Child::fork(|_| {
            assert!(!is_current(parents));
            let childs = enter();
            assert_ne!(childs, parents);
            assert!(is_current(childs));
            Child::fork(|_| {
                assert!(!is_current(parents) && !is_current(childs));
                assert!(![0, parents, childs].contains(&enter()));
            })
            .expect_success();
            assert!(is_current(childs));
        });
        child.expect_success();
        assert!(is_current(parents));
    }

    #[test]
    fn a_child_reads_anew_what_its_parent_knows() {
        static KNOWN: PerProcess<2> = PerProcess::unknown();

        assert!(KNOWN.get(|| Err(io::ErrorKind::NotFound.into())).is_err());
        assert_eq!(KNOWN.get(|| Ok([1, 2])).unwrap(), [1, 2]);
        assert_eq!(KNOWN.get(|| unreachable!()).unwrap(), [1, 2]);
        let mut child = Child::fork(|_| {
            assert_eq!(KNOWN.get(|| Ok([3, 4])).unwrap(), [3, 4]);
            assert_eq!(KNOWN.get(|| unreachable!()).unwrap(), [3, 4]);
        });
        child.expect_success();
        assert_eq!(KNOWN.get(|| unreachable!()).unwrap(), [1, 2]);
    }

    #[test]
    fn the_kernel_wipes_the_page_without_help_from_libc() {
        let parents = enter();
        // SAFETY: a bare fork; the child only loads an atomic and exits.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            // SAFETY: ends the child.
            0 => unsafe { libc::_exit(is_current(parents).into()) },
            pid => {
                let mut status = 0;
                // SAFETY: `status` is a valid place for the answer.
                assert_eq!(unsafe { libc::waitpid(pid as _, &mut status, 0) }, pid as libc::pid_t);
                assert_eq!(status, 0);
            }
        }
    }
}
