//! Waiting for a peer: spin a moment, then sleep, with a deadline, and with a look at the peer's life once per slice.

use std::time::Duration;

use super::backoff::Backoff;
use super::event::Sleep;
use crate::layout::Wait;
use crate::primitive::AtomicU32;
use crate::sys::{clock, cpu, futex, semaphore};

/// No sleep is longer, so that a waiter notices its peer's death, and a wake-up that a dying peer owed it.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// How long to spin before sleeping unless told: about what a sleep and a wake across cores cost.
pub(crate) const SPIN: Duration = Duration::from_micros(20);
/// After that long it isn't a matter of moments any more.
pub(super) const LONG: Duration = Duration::from_micros(5);
/// Spin hints between two looks at the clock.
const CLOCK_EVERY: u32 = 64;

/// Where a waiter announces that it is about to sleep, and on what it then sleeps.
pub(crate) trait Station {
    /// The word it sleeps on.
    fn word(&self) -> &AtomicU32;
    /// Announces a wait; it may sleep only while the word has the value that is returned.
    fn announce(&mut self) -> u32;
    /// Ends the announced wait.
    fn retract(&mut self);
}

/// How long a wait may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long to spin before sleeping.
    pub(crate) spin: Duration,
    /// The monotonic time at which to give up.
    pub(crate) deadline: Option<Duration>,
}

/// What a waiter sleeps on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleeper {
    strategy: Wait,
    semaphore: *mut semaphore::RawSemaphore,
}

/// What the waiter is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Whether the ring has what it waits for.
    Quick,
    /// That, and whether the peer has left.
    Ring,
    /// Whether the peer has died.
    Peer,
}

impl Sleeper {
    /// # Safety
    /// With [`Wait::Semaphore`], `semaphore` must point to an initialised one that stays mapped while this is used.
    pub(crate) unsafe fn new(strategy: Wait, semaphore: *mut semaphore::RawSemaphore) -> Self {
        Self { strategy, semaphore }
    }

    /// Whether waiters never sleep, and need not be woken.
    #[inline(always)]
    pub(crate) fn is_sleepless(self) -> bool {
        self.strategy == Wait::Spin
    }

    /// Sleeps until woken, or until `deadline`, or a little, for no reason.
    fn sleep(self, epoch: &AtomicU32, expected: u32, deadline: Duration) {
        // An error, a signal and a spurious wake are all answered by the caller's next look; the deadline bounds a loop
        // that an error which stays would make.
        if self.strategy == Wait::Semaphore {
            // SAFETY: the promise to `new`.
            let _ = unsafe { semaphore::wait(self.semaphore, deadline) };
        } else {
            let _ = futex::wait(epoch, expected, Some(deadline));
        }
    }

    /// Forgets wakes that came too late for earlier waits: each would end a sleep for nothing.
    fn settle(self) {
        if self.strategy == Wait::Semaphore {
            // Each wait is notified at most once, so there are few; the bound is against a peer that keeps posting.
            for _ in 0..16 {
                // SAFETY: the promise to `new`.
                if !unsafe { semaphore::try_wait(self.semaphore) } {
                    break;
                }
            }
        }
    }
}

impl Sleep for Sleeper {
    fn wake(self, epoch: &AtomicU32) {
        // There is nobody to tell of an error, and the waiter's slice makes up for it.
        if self.strategy == Wait::Semaphore {
            // SAFETY: the promise to `new`.
            let _ = unsafe { semaphore::post(self.semaphore) };
        } else {
            let _ = futex::wake(epoch, 1);
        }
    }
}

impl Sleeper {
    /// Waits until `look` finds something. `None` if the deadline passed before.
    pub(crate) fn wait<T>(
        self,
        station: &mut impl Station,
        Patience { spin, deadline }: Patience,
        backoff: &Backoff,
        mut look: impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let sleepy = !self.is_sleepless() && (spin.is_zero() || cpu::online() == 1);
        // Before the clock is read for the first time, which costs as much as a message.
        if !sleepy && let Some(found) = spin_once(backoff, &mut look) {
            return Some(found);
        }
        let start = clock::now();
        let mut look_at_peer = start + SLICE;
        let spin_until = match self.strategy {
            Wait::Spin => Duration::MAX,
            _ if sleepy => start,
            _ => start.saturating_add(spin),
        };
        let mut now = start;
        loop {
            let awake = now < spin_until;
            if awake {
                if let Some(found) = spin_once(backoff, &mut look) {
                    return Some(found);
                }
                if cpu::online() == 1 || now.saturating_sub(start) >= LONG {
                    // Whoever is waited for may want this very CPU.
                    std::thread::yield_now();
                }
            } else {
                let until = look_at_peer.min(deadline.unwrap_or(Duration::MAX));
                self.settle();
                let announced = station.announce();
                let found = look(Look::Ring);
                if found.is_none() {
                    self.sleep(station.word(), announced, until);
                }
                station.retract();
                if let Some(found) = found.or_else(|| look(Look::Ring)) {
                    return Some(found);
                }
            }
            now = clock::now();
            if now >= look_at_peer {
                look_at_peer = now + SLICE;
                if let Some(found) = look(Look::Peer) {
                    return Some(found);
                }
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return None;
            }
        }
    }
}

/// Looks at the ring between pauses, for as long as may go by without a look at the clock.
#[inline(always)]
fn spin_once<T>(backoff: &Backoff, look: &mut impl FnMut(Look) -> Option<T>) -> Option<T> {
    let mut pauses = 0;
    while pauses < CLOCK_EVERY {
        pauses += backoff.pause();
        if let Some(found) = look(Look::Quick) {
            return Some(found);
        }
    }
    look(Look::Ring)
}
