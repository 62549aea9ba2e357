//! Waiting for a peer: spin a moment, then sleep, with a deadline, and with a look at the peer's life once per slice.

use std::time::Duration;

use super::backoff::Backoff;
use super::belfry::Sleeper;
use super::budget::Budget;
use crate::primitive::{AtomicU32, Ordering};
use crate::sys::{clock, cpu};

/// No sleep is longer, so that a waiter notices its peer's death, and a wake-up that a dying peer owed it.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// In how many slices one is for a [thorough](Look::Peer) look, which costs as much as all else.
pub(super) const THOROUGH_EVERY: u32 = 10;
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
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    /// How long to spin before sleeping, which learns from this wait.
    pub(crate) spin: &'a mut Budget,
    /// The monotonic time at which to give up.
    pub(crate) deadline: Option<Duration>,
}

/// What the waiter is to look at: the later, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// Whether the ring has what it waits for.
    Quick,
    /// That, and whether the peer has left.
    Ring,
    /// Whether the peer's lock is free, so that it has died.
    Lock,
    /// Whether the peer has died, even if a child forked from it keeps its lock.
    Peer,
}

impl Sleeper {
    /// Waits until `look` finds something. `None` if the deadline passed before.
    pub(crate) fn wait<T>(
        self,
        station: &mut impl Station,
        Patience { spin, deadline }: Patience<'_>,
        backoff: &Backoff,
        mut look: impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let sleepy = !self.is_sleepless() && (spin.time().is_zero() || cpu::online() == 1);
        // Before the clock is read for the first time, which costs as much as a message.
        if !sleepy && let Some(found) = spin_once(backoff, &mut look) {
            spin.paid();
            return Some(found);
        }
        let start = clock::now();
        let mut look_at_peer = start + SLICE;
        let spin_until = match self.is_sleepless() {
            true => Duration::MAX,
            false if sleepy => start,
            false => start.saturating_add(spin.time()),
        };
        let mut now = start;
        let mut slices = 0_u32;
        loop {
            let awake = now < spin_until;
            if awake {
                if let Some(found) = spin_once(backoff, &mut look) {
                    spin.paid();
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
                // Acquire: pairs with the store of whoever notifies. Behind the announcement, as what is slept on may not be the word.
                if found.is_none() && station.word().load(Ordering::Acquire) == announced {
                    self.sleep(station.word(), announced, until);
                }
                station.retract();
                if let Some(found) = found.or_else(|| look(Look::Ring)) {
                    spin.slept(clock::now() - start, true);
                    return Some(found);
                }
            }
            now = clock::now();
            if now >= look_at_peer {
                look_at_peer = now + SLICE;
                // The first one, as many waits have no other.
                let closely = if slices.is_multiple_of(THOROUGH_EVERY) { Look::Peer } else { Look::Lock };
                slices += 1;
                if let Some(found) = look(closely) {
                    spin.slept(now - start, true);
                    return Some(found);
                }
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                spin.slept(now - start, false);
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
