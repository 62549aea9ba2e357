//! Telling one sleeping waiter that something was published, at the price of a fence and a load when nobody sleeps.
//!
//! Three words: `epoch`, written by the notifier alone and always even; and, written by the waiter alone, `waiter`: 0, or
//! the epoch on which it sleeps, plus 1; and `manner`: how it wants to be woken.
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
//! # Why it is the right wake-up
//! A waiter may announce itself twice on the same epoch and in different manners, while a notifier is on its way because of the first
//! announcement. So the manner is read last: the notifier moves the epoch on (N3), fences (N3') and then reads the manner (N4). The waiter compares
//! the epoch behind W2, at the latest when it falls asleep: if it is still the one announced, W2 came before N3', and N4 reads the
//! manner of that announcement or a later one. Where the kernel doesn't compare them, the waiter must.
//!
//! A killed waiter leaves its announcement behind: one spare system call by the notifier, no more, since the epoch moves on.
//!
//! # News of who comes and goes
//! A waiter that is [watched](Manner) may be waiting for other things while it has not announced itself here, because it has no need of
//! more messages or more room now. Who comes, goes or dies is told to it nevertheless: it says first that it is watched (A1), fences
//! (A2), loads the epoch (A3) and then looks who is there (A4). Whoever has news publishes it, fences (N1), and looks at that word (N2'):
//! as above, either A4 sees the news or N2' sees that the waiter is watched, and then the epoch moves on and the waiter is woken.
//!
//! The fence pair is Dekker's, as in Linux's futex(2) users; the two-step wait is an event count (Reed and Kanodia 1979).

use super::manner::Manner;
use crate::primitive::{AtomicU32, Ordering, fence};

/// The notifier's word and the waiter's, each on pages that only their owner writes.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Moves on by 2 for each waiter that is notified.
    pub epoch: &'a AtomicU32,
    /// Whom to notify.
    pub waiter: &'a AtomicU32,
    /// How.
    pub manner: &'a AtomicU32,
}

/// How a waiter sleeps until it is woken.
pub trait Sleep: Copy {
    /// Wakes whoever sleeps on the event.
    fn wake(self, epoch: &AtomicU32, manner: Manner);
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
        if waiter == self.current() | 1 {
            self.ring(sleep);
        }
    }

    /// Notifies the waiter of who came, went or died, or that nothing is right any more: also one who is watched and has not
    /// announced a wait.
    #[cold]
    pub fn tell(self, sleep: impl Sleep) {
        if !cfg!(ringway_mutant = "tell_unfenced") {
            // N1, pairs with W2 and A2.
            fence(Ordering::SeqCst);
        }
        let is_watched = Manner::load(self.manner).is_watched() && !cfg!(ringway_mutant = "tell_only_the_announced");
        // N2'.
        if is_watched || self.waiter.load(Ordering::Relaxed) == self.current() | 1 {
            self.ring(sleep);
        }
    }

    fn current(self) -> u32 {
        // Relaxed: only this side writes it.
        self.epoch.load(Ordering::Relaxed) & !1
    }

    fn ring(self, sleep: impl Sleep) {
        // N3. Release, pairs with W0, so that a waiter that doesn't sleep because of it sees what was published.
        self.epoch.store(self.current().wrapping_add(2), Ordering::Release);
        if !cfg!(ringway_mutant = "ring_manner_unfenced") {
            // N3', pairs with W2: a waiter that sleeps on the epoch of before is woken in its manner.
            fence(Ordering::SeqCst);
        }
        // N4.
        sleep.wake(self.epoch, Manner::load(self.manner));
    }

    /// Announces a wait, to be woken in that manner. The caller must look again whether it has to wait, and may sleep only if so.
    pub fn announce(self, manner: Manner) -> Announced {
        manner.store(self.manner);
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

    /// Says in which manner this side is watched, and on which epoch its news begin: who came or went before that, it must look for
    /// itself.
    pub fn watch(self, manner: Manner) -> u32 {
        // A1.
        manner.watched().store(self.manner);
        if !cfg!(ringway_mutant = "watch_unfenced") {
            // A2, pairs with N1.
            fence(Ordering::SeqCst);
        }
        // A3, pairs with N3.
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends an announced wait.
    pub fn retract(self, _: Announced) {
        // Relaxed: seen late, it costs the notifier a spare wake.
        self.waiter.store(0, Ordering::Relaxed);
    }
}
