//! How long it pays to spin before sleeping, as learned from the waits before.
//!
//! Spinning is worth its while if what is waited for comes about before the spin is over: then it saves a sleep and a wake. If
//! it comes later, the spin was for nothing, and took a core from others. So: a wait that was over in time doubles the
//! next spin, up to what the user wants; one that wasn't halves it, down to a sixteenth, which is enough to notice when short waits
//! come back: they are known by how long they took, not by whether they were spun through.

use std::time::Duration;

/// How much shorter than wanted a spin can get: a sixteenth.
const MOST_HALVINGS: u32 = 4;
/// What a sleep and a wake add to a wait that a longer spin would have ended.
const WAKE: Duration = Duration::from_micros(10);

/// An adaptive time to spin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    most: Duration,
    halvings: u32,
}

impl Budget {
    /// At most that long.
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, halvings: 0 }
    }

    /// How long to spin next.
    pub(super) fn time(self) -> Duration {
        self.most / (1 << self.halvings)
    }

    /// What was waited for was there at once, or before the spin was over.
    pub(super) fn paid(&mut self) {
        self.halvings = self.halvings.saturating_sub(1);
    }

    /// A wait took that long, with sleep in it.
    pub(super) fn slept(&mut self, whole: Duration, found: bool) {
        if whole > self.most.saturating_add(WAKE) {
            self.halvings = (self.halvings + 1).min(MOST_HALVINGS);
        } else if found {
            self.paid();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: Duration = Duration::from_micros(160);
    const SHORT: Duration = Duration::from_micros(165);
    const LONG: Duration = Duration::from_micros(200);

    fn after(budget: &mut Budget, waits: &[Duration]) -> u128 {
        waits.iter().for_each(|&wait| budget.slept(wait, true));
        budget.time().as_micros()
    }

    #[test]
    fn long_waits_shorten_the_spin_and_short_ones_bring_it_back() {
        let mut budget = Budget::new(SPIN);
        assert_eq!(budget.time(), SPIN, "it begins with what the user wants");
        assert_eq!(after(&mut budget, &[LONG]), 80);
        assert_eq!(after(&mut budget, &[LONG; 3]), 10);
        assert_eq!(after(&mut budget, &[LONG; 3]), 10, "never less");
        assert_eq!(after(&mut budget, &[SHORT]), 20, "though it slept: with a longer spin it needn't have");
        budget.paid();
        assert_eq!(after(&mut budget, &[SHORT; 2]), 160);
        assert_eq!(after(&mut budget, &[SHORT; 2]), 160, "never more");
    }

    #[test]
    fn a_wait_given_up_early_says_nothing_and_no_spin_stays_none() {
        let mut budget = Budget::new(SPIN);
        after(&mut budget, &[LONG; 2]);
        budget.slept(SHORT, false);
        assert_eq!(budget.time(), SPIN / 4);
        let mut none = Budget::new(Duration::ZERO);
        assert_eq!(after(&mut none, &[SHORT, LONG, Duration::ZERO]), 0);
        assert_eq!(after(&mut Budget::new(Duration::MAX), &[LONG]), Duration::MAX.as_micros());
    }
}
