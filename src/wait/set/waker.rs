//! What those share who wait and those who wake them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sys::{descriptor, fork, futex};
use crate::wait::hold::Control;
use crate::wait::watch::Waiter;

/// The part of a wait set that outlives it where somebody still has a waker.
#[derive(Debug)]
pub(super) struct Core {
    process: u32,
    control: Control,
    /// Somebody has called a waker, and no wait has ended because of it yet.
    is_woken: AtomicBool,
    /// What wakes those who sleep on descriptors.
    event: OnceLock<OwnedFd>,
}

impl Core {
    pub(super) fn new() -> Self {
        Self {
            process: fork::enter(),
            control: Control::new(),
            is_woken: AtomicBool::new(false),
            event: OnceLock::new(),
        }
    }

    /// Not so in a forked child.
    pub(super) fn is_at_home(&self) -> bool {
        fork::is_current(self.process)
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// From now on, who sleeps does so on descriptors, that one among them. Those who are about to, see that `begun` has run, which is what
    /// tells them; those who sleep otherwise are woken.
    pub(super) fn turn_to_descriptors(&self, event: OwnedFd, begun: impl FnOnce()) {
        let _ = self.event.set(event);
        begun();
        if self.control.advance() {
            self.wake_futexes();
        }
    }

    /// Something of the set has changed: whoever sleeps looks again; of those who sleep on descriptors at least one does.
    pub(super) fn notify(&self) {
        if self.control.advance() {
            match self.event.get() {
                Some(event) => descriptor::set_event(event.as_fd()),
                None => self.wake_futexes(),
            }
        }
    }

    fn wake_futexes(&self) {
        // There is nobody to tell of an error, and the slice makes up for it.
        let _ = futex::wake(self.control.word(), u32::MAX);
    }

    /// What [`notify`](Self::notify) did to descriptors is seen.
    pub(super) fn settle(&self) {
        if let Some(event) = self.event.get() {
            descriptor::unset_event(event.as_fd());
        }
    }

    /// Whether somebody has called a waker. That is told once.
    pub(super) fn take_wake(&self) -> bool {
        // Acquire: pairs with the store in `wake`, so that whoever was woken sees why.
        self.is_woken.load(Ordering::Relaxed) && self.is_woken.swap(false, Ordering::Acquire)
    }
}

impl Waiter for Core {
    fn wake(&self) {
        // With descriptors, the endpoint has rung its own.
        if self.event.get().is_none() {
            self.notify();
        }
    }
}

/// Ends a wait of a [`WaitSet`](super::WaitSet) from another thread.
///
/// It may be kept longer than the set, and does nothing then.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Core>);

impl Waker {
    /// Has the wait in progress end, with or without events, or the next one if there is none. What the caller did before is visible to
    /// whoever was woken.
    ///
    /// Calls that come before that wait ends count as one, and of several threads that wait one is woken. Costs a system
    /// call if somebody sleeps. Does nothing in a forked child.
    pub fn wake(&self) {
        if self.0.is_at_home() {
            // Release: pairs with the swap in `take_wake`.
            self.0.is_woken.store(true, Ordering::Release);
            self.0.notify();
        }
    }
}
