//! Whether an endpoint that is waited for along with others has to be looked at.
//!
//! One word, written by the endpoint, read by whoever waits: it is *ready*, or *held* on the epoch of its last announcement. One that is
//! held has looked after it had announced itself, and found nothing; so it stays as it is until its epoch moves on, which
//! is what the waiter sleeps on. One that is ready is reported without looking: that is what makes waiting level-triggered,
//! since an endpoint is ready until it has been emptied.
//!
//! # Why no wake-up is lost
//! Of what is published after the announcement the endpoint is notified ([`event`](super::event), [`crowd`](super::crowd)): its epoch
//! moves on, and then whoever waits is woken. A waiter that reads the hold before it is renewed sees an older epoch, or that it is ready,
//! and looks again for nothing. A waiter that sleeps on an older epoch was woken when that moved on.
//!
//! An endpoint in another thread that becomes ready by itself wakes the waiter by the waiter's own word ([`Control`]): it says that it is
//! ready (H1), and then moves that word on (H2). The waiter loads it (H3) before it looks at the endpoints (H4), and sleeps only while it
//! has that value. If H3 sees H2's value, H4 sees H1; if not, the kernel's comparison fails, or H2's wake comes while it sleeps.
//!
//! That wake is a system call, and most often the endpoint is the waiter's own thread's. So waiters are counted (H5) and fence (H6) before
//! they load the word, and whoever moves it on fences (H7) and then looks whether there is one (H8). Of two sequentially consistent fences one
//! comes first: if it is H7, H3 sees H2's value; if it is H6, H8 sees the waiter.

use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};

/// No epoch.
const READY: u64 = u64::MAX;

/// What an endpoint says to whoever waits for it.
#[derive(Debug)]
pub struct Hold(AtomicU64);

impl Hold {
    /// Ready.
    pub fn ready() -> Self {
        Self(AtomicU64::new(READY))
    }

    /// Held on that epoch.
    pub fn held(epoch: u32) -> Self {
        Self(AtomicU64::new(epoch.into()))
    }

    /// There is nothing until the epoch moves on.
    pub fn hold(&self, epoch: u32) {
        // Release: pairs with `expected`, for a waiter in another thread.
        self.0.store(epoch.into(), Ordering::Release);
    }

    /// There may be something.
    pub fn release(&self) {
        // H1. Release: pairs with H4.
        self.0.store(READY, Ordering::Release);
    }

    /// The epoch to sleep on; none if there may be something.
    pub fn expected(&self, epoch: &AtomicU32) -> Option<u32> {
        // H4.
        let held = self.0.load(Ordering::Acquire);
        // Acquire: pairs with the store of whoever notified.
        (held == u64::from(epoch.load(Ordering::Acquire))).then_some(held as u32)
    }

    /// As [`expected`](Self::expected), but what there may be counts as told now: there is nothing until the epoch moves on again.
    pub fn told(&self, epoch: &AtomicU32) -> Option<u32> {
        // Acquire: as above, here and below.
        let held = self.0.load(Ordering::Acquire);
        let current = u64::from(epoch.load(Ordering::Acquire));
        if held == current {
            return Some(held as u32);
        }
        // Failure: the endpoint itself has just said something newer.
        let _ = self.0.compare_exchange(held, current, Ordering::AcqRel, Ordering::Relaxed);
        None
    }
}

/// The waiters' own word: for what else they are to look at.
#[derive(Debug)]
pub struct Control {
    word: AtomicU32,
    /// How many wait or are about to.
    waiters: AtomicU32,
}

impl Control {
    /// Nothing yet, and nobody.
    pub fn new() -> Self {
        Self { word: AtomicU32::new(0), waiters: AtomicU32::new(0) }
    }

    /// A thread begins to wait. It then loads, looks and sleeps, as often as it likes, until it [leaves](Self::leave).
    pub fn enter(&self) {
        // H5. Relaxed: the fence orders it.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        if !cfg!(ringway_mutant = "hold_enter_unfenced") {
            // H6, pairs with H7.
            fence(Ordering::SeqCst);
        }
    }

    /// It no longer waits. Says whether others do.
    pub fn leave(&self) -> bool {
        // Relaxed: seen late, it costs a spare wake.
        self.waiters.fetch_sub(1, Ordering::Relaxed) > 1
    }

    /// Moves it on. If it says that somebody waits, the caller must wake all who sleep on the word.
    #[must_use]
    pub fn advance(&self) -> bool {
        let order = if cfg!(ringway_mutant = "hold_advance_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        if !cfg!(ringway_mutant = "hold_advance_missing") {
            // H2. Release: pairs with H3.
            self.word.fetch_add(1, order);
        }
        if !cfg!(ringway_mutant = "hold_advance_unfenced") {
            // H7, pairs with H6.
            fence(Ordering::SeqCst);
        }
        // H8. Relaxed: the fences order it.
        self.waiters.load(Ordering::Relaxed) != 0
    }

    /// To be read before the endpoints are looked at.
    pub fn load(&self) -> u32 {
        // H3.
        self.word.load(Ordering::Acquire)
    }

    /// What to sleep on.
    pub fn word(&self) -> &AtomicU32 {
        &self.word
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
