//! Noticing that this process is a forked copy, at the cost of one load per call.
//!
//! An endpoint inherited by `fork` must not be used: its owner, the parent, still does. Each endpoint remembers the
//! generation in which it was made. The generation lies in a page that the kernel wipes in a forked child.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
