//! Telling one sleeping waiter that something was published, at the price of a fence and a load when nobody sleeps.
//!
//! Two words: `epoch`, written by the notifier alone and always even, and `waiter`, written by the waiter alone: 0, or
//! the epoch on which it sleeps, plus 1.
//!
//! # Why no wake-up is lost
//! The waiter announces itself (W1), fences (W2) and then looks once more whether it still has to wait (W3). The notifier
//! publishes, fences (N1) and then looks whether anybody has announced itself (N2). Of two sequentially consistent fences
//! one comes first: if it is the notifier's, W3 sees what was published and there is no sleep; if it is the waiter's, N2
//! sees the announcement. Then the notifier moves the epoch on (N3) and wakes (N4): a waiter not yet asleep finds
//! that the epoch is no longer the one it announced, because the kernel compares them under its own lock; one asleep is woken.
//!
//! # Why there is one system call per sleep
//! If the announced epoch isn't the current one, somebody has notified that very waiter already, and it only hasn't run
//! yet. A notifier killed between N3 and N4 leaves such a waiter asleep: that is why sleeps are cut in slices.
//!
//! A killed waiter leaves its announcement behind: one spare system call by the notifier, no more, since the epoch moves on.
//!
//! The fence pair is Dekker's, as in Linux's futex(2) users; the two-step wait is an event count (Reed and Kanodia 1979).

use crate::primitive::{AtomicU32, Ordering, fence};

/// The notifier's words and the waiter's, each on pages that only their owner writes.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Moves on by 2 for each waiter that is notified.
    pub epoch: &'a AtomicU32,
    /// Whom to notify.
    pub waiter: &'a AtomicU32,
}

/// How a waiter sleeps until it is woken.
pub trait Sleep: Copy {
    /// Wakes whoever sleeps on the event.
    fn wake(self, epoch: &AtomicU32);
}

/// An announced wait, on the epoch it holds.
#[derive(Debug)]
pub struct Announced(u32);

impl Announced {
    /// Sleep only while the epoch has this value.
    pub fn epoch(&self) -> u32 {
        self.0
    }
}

impl Event<'_> {
    /// Notifies the waiter, if there is one, of all that this thread has published.
    #[inline(always)]
    pub fn notify(self, sleep: impl Sleep) {
        if !cfg!(ringway_mutant = "notify_unfenced") {
            // N1, pairs with W2.
            fence(Ordering::SeqCst);
        }
        self.notify_fenced(sleep);
    }

    /// [`notify`](Self::notify) without the fence: what was published just now may be missed until the next call.
    #[inline(always)]
    pub fn notify_fenced(self, sleep: impl Sleep) {
        // N2. Relaxed: the fences order it.
        let waiter = self.waiter.load(Ordering::Relaxed);
        if waiter != 0 {
            self.wake(waiter, sleep);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(self, waiter: u32, sleep: impl Sleep) {
        // Relaxed: only this side writes it.
        let epoch = self.epoch.load(Ordering::Relaxed) & !1;
        if waiter == epoch | 1 {
            // N3. Release, pairs with W0, so that a waiter that doesn't sleep because of it sees what was published.
            self.epoch.store(epoch.wrapping_add(2), Ordering::Release);
            // N4.
            sleep.wake(self.epoch);
        }
    }

    /// Announces a wait. The caller must look again whether it has to wait, and may sleep only if so.
    pub fn announce(self) -> Announced {
        // W0, pairs with N3.
        let epoch = self.epoch.load(Ordering::Acquire);
        // W1. Relaxed: the fence orders it.
        self.waiter.store(epoch | 1, Ordering::Relaxed);
        if !cfg!(ringway_mutant = "announce_unfenced") {
            // W2, pairs with N1.
            fence(Ordering::SeqCst);
        }
        Announced(epoch)
    }

    /// Ends an announced wait.
    pub fn retract(self, _: Announced) {
        // Relaxed: seen late, it costs the notifier a spare wake.
        self.waiter.store(0, Ordering::Relaxed);
    }
}
