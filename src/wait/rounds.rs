//! Whose turn it is to be probed, among all that somebody waits for: for what nobody rings for, as killed peers, and rings that a killed
//! peer owed.
//!
//! A few are looked at for each slice that goes by, and some of them thoroughly for each ten. Beyond a few, several slices make one round:
//! waking up costs more than looking at some, so that a hundred that are idle cost no more than one.

use std::time::Duration;

use super::blocking::{SLICE, THOROUGH_EVERY};
use super::watch::Watch;

/// How many are probed for a slice, and how many thoroughly for each [`THOROUGH_EVERY`].
const PROBES: usize = 5;
/// A round takes no more slices.
const MOST_SLICES: usize = 10;

/// Who was probed last.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    next: usize,
    next_thorough: usize,
    /// How many slices went by since some were probed thoroughly.
    slices: u32,
}

impl Rounds {
    /// How long to wait between two rounds among so many.
    pub(super) fn interval(count: usize) -> Duration {
        SLICE * slices(count)
    }

    /// Probes those whose turn it is.
    pub(super) fn probe<'a>(&mut self, watches: impl Iterator<Item = &'a Watch>) {
        let watches: Vec<&Watch> = watches.collect();
        self.turns(watches.len(), |at, thorough| watches[at].probe(thorough));
    }

    /// Calls `probe` for those whose turn it is among so many, with whether that is to be thorough.
    fn turns(&mut self, count: usize, mut probe: impl FnMut(usize, bool)) {
        let slices = slices(count);
        self.slices += slices;
        if self.slices >= THOROUGH_EVERY {
            self.slices -= THOROUGH_EVERY;
            take(&mut self.next_thorough, PROBES, count, |at| probe(at, true));
        }
        take(&mut self.next, PROBES * slices as usize, count, |at| probe(at, false));
    }
}

fn slices(count: usize) -> u32 {
    count.div_ceil(PROBES).clamp(1, MOST_SLICES) as u32
}

/// The next `most` of so many, or all.
fn take(next: &mut usize, most: usize, count: usize, mut each: impl FnMut(usize)) {
    for _ in 0..most.min(count) {
        // There may be fewer now than there were.
        let at = *next % count;
        *next = at + 1;
        each(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_whatever_their_number() {
        for count in [1, 2, 4, 5, 6, 9, 10, 11, 50, 51, 100, 1000] {
            let mut rounds = Rounds::default();
            let mut probed = vec![[0_u32; 2]; count];
            // As many slices as one takes to look at all of them thoroughly.
            let slices = count.div_ceil(PROBES) as u32 * THOROUGH_EVERY;
            let mut passed = Duration::ZERO;
            while passed < SLICE * slices {
                rounds.turns(count, |at, thorough| probed[at][usize::from(thorough)] += 1);
                passed += Rounds::interval(count);
            }
            for [quickly, thoroughly] in probed {
                assert!(quickly + thoroughly >= THOROUGH_EVERY && (1..=2).contains(&thoroughly), "{count}");
            }
        }
    }

    #[test]
    fn it_goes_on_when_others_have_gone() {
        let mut rounds = Rounds::default();
        for count in [100, 3, 0, 1, 20] {
            let mut probed = 0;
            rounds.turns(count, |at, _| {
                assert!(at < count);
                probed += 1;
            });
            assert_eq!(probed == 0, count == 0);
        }
    }
}
