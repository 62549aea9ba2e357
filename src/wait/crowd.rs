//! Telling one of many sleeping waiters that something was published, at the price of a fence and a load when nobody sleeps.
//!
//! Words: `waiters`, a bit for each waiter that sleeps or is about to; and for each waiter a `bell`, which moves on with
//! each wake, and a `manner`: how it wants to be woken.
//!
//! # Why no wake-up is lost
//! The waiter loads its bell (V0), sets its bit (V1), fences (V2) and then looks once more whether it still has to wait
//! (V3). The notifier publishes, fences (M1) and then looks for a bit (M2). Of two sequentially consistent fences one comes first: if
//! it is the notifier's, V3 sees what was published and there is no sleep; if it is the waiter's, M2 sees the bit. Then the
//! notifier takes the bit away (M3), which only one can do, rings that bell (M4) and wakes (M5): a waiter not yet asleep
//! finds that its bell is no longer as it was before it set its bit, because the kernel compares them under its own lock; one asleep is woken. So there
//! is one system call per sleep.
//!
//! # Why nothing is left lying while others sleep
//! A waiter that was chosen may find something else than what it was chosen for: then that is still there, and another one
//! sleeps. So whoever has waited and found something takes its own bit away (V4), and then, if there is more, notifies the next
//! one. V4 comes behind M3 on the same word, and acquires, so the look sees what was published before M3.
//!
//! A notifier killed between M3 and M5, or a waiter killed after M3, leaves the others asleep: that is why sleeps are cut in
//! slices. A killed waiter's bit costs one spare wake; recovery takes it away.
//!
//! # News of who comes and goes
//! As in [`event`](super::event): a waiter that is watched says so (A1), fences (A2), loads its bell (A3) and looks who is there (A4), and
//! whoever has news fences (M1) and looks at each member's manner (M2').
//!
//! It is the event count of Reed and Kanodia (1979), one for each waiter, with a set of those who wait.

use super::manner::Manner;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};

/// Waiters of whom any may be woken.
#[derive(Clone, Copy, Debug)]
pub struct Crowd<'a> {
    /// Those who sleep or are about to, bit by bit.
    pub waiters: &'a AtomicU64,
}

/// The bells of a crowd, and how to wake who sleeps on one.
pub trait Bells: Copy {
    /// The bell of a waiter.
    fn bell(&self, waiter: u32) -> &AtomicU32;
    /// How it wants to be woken.
    fn manner(&self, waiter: u32) -> &AtomicU32;
    /// Wakes it, if it sleeps on its bell.
    fn wake(&self, waiter: u32, manner: Manner);
}

impl Crowd<'_> {
    /// Notifies one waiter, if there is one, of what this thread has published.
    #[inline(always)]
    pub fn notify(self, bells: impl Bells) {
        if !cfg!(ringway_mutant = "crowd_notify_unfenced") {
            // M1, pairs with V2.
            fence(Ordering::SeqCst);
        }
        self.notify_fenced(bells);
    }

    /// [`notify`](Self::notify) without the fence: what was published just now may be missed until the next call.
    #[inline(always)]
    pub fn notify_fenced(self, bells: impl Bells) {
        // M2. Relaxed: the fences order it.
        let waiters = self.waiters.load(Ordering::Relaxed);
        if waiters != 0 {
            self.wake_one(waiters, bells);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_one(self, mut waiters: u64, bells: impl Bells) {
        // Each round takes another bit away, or finds it gone.
        for _ in 0..u64::BITS {
            if waiters == 0 {
                return;
            }
            let waiter = waiters.trailing_zeros();
            // M3. Release: pairs with V4. Acquire: with V1, for the manner.
            let before = self.waiters.fetch_and(!(1 << waiter), Ordering::AcqRel);
            if before & 1 << waiter != 0 {
                ring(waiter, bells);
                return;
            }
            waiters &= before;
        }
    }

    /// Notifies all, and says who that was.
    pub fn notify_all(self, bells: impl Bells) -> u64 {
        // M1 to M3 at once.
        fence(Ordering::SeqCst);
        let all = self.waiters.swap(0, Ordering::AcqRel);
        let mut waiters = all;
        while waiters != 0 {
            ring(waiters.trailing_zeros(), bells);
            waiters &= waiters - 1;
        }
        all
    }

    /// [`notify_all`](Self::notify_all), and tells those of `others` that are watched: of who came, went or died, or that nothing is right
    /// any more.
    pub fn tell(self, others: impl Iterator<Item = u32>, bells: impl Bells) {
        // Its fence is M1 for the rest, too.
        let rung = self.notify_all(bells);
        // M2'.
        let is_watched = |&other: &u32| rung & 1 << other == 0 && Manner::load(bells.manner(other)).is_watched();
        others.filter(is_watched).for_each(|other| ring(other, bells));
    }

    /// Announces a wait, to be woken in that manner. The caller must look again whether it has to wait, and may sleep only if so,
    /// and while its bell has the value that is returned.
    pub fn announce(self, waiter: u32, bells: impl Bells, manner: Manner) -> u32 {
        manner.store(bells.manner(waiter));
        // V0, pairs with M4.
        let epoch = bells.bell(waiter).load(Ordering::Acquire);
        let order = if cfg!(ringway_mutant = "crowd_manner_unordered") { Ordering::Relaxed } else { Ordering::Release };
        // V1. Release: who takes the bit away sees the manner.
        self.waiters.fetch_or(1 << waiter, order);
        if !cfg!(ringway_mutant = "crowd_announce_unfenced") {
            // V2, pairs with M1.
            fence(Ordering::SeqCst);
        }
        epoch
    }

    /// Says in which manner a waiter is watched, and on which epoch of its bell its news begin: who came or went before that, it
    /// must look for itself.
    pub fn watch(self, waiter: u32, bells: impl Bells, manner: Manner) -> u32 {
        // A1.
        manner.watched().store(bells.manner(waiter));
        if !cfg!(ringway_mutant = "crowd_watch_unfenced") {
            // A2, pairs with M1.
            fence(Ordering::SeqCst);
        }
        // A3, pairs with M4.
        bells.bell(waiter).load(Ordering::Acquire)
    }

    /// Ends an announced wait. Says whether the waiter was chosen: if it found something, it must
    /// [`notify`](Self::notify) the next one if there is more.
    pub fn retract(self, waiter: u32) -> bool {
        // V4, pairs with M3.
        self.waiters.fetch_and(!(1 << waiter), Ordering::AcqRel) & 1 << waiter == 0
    }
}

fn ring(waiter: u32, bells: impl Bells) {
    // M4. Release: pairs with V0, so that a waiter that doesn't sleep because of it sees what was published.
    bells.bell(waiter).fetch_add(1, Ordering::Release);
    // M5.
    bells.wake(waiter, Manner::load(bells.manner(waiter)));
}
