//! How a waiter wants to be woken: what it writes beside its announcement.

use crate::primitive::{AtomicU32, Ordering};

/// By what a waiter is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By the ring's own strategy.
    Strategy,
    /// By a futex on its epoch, whatever the ring's strategy is: it waits for several at once.
    Futex,
    /// By a byte to its doorbell: it has given out a descriptor.
    Doorbell,
}

/// One word: `[doorbell: 29 | watched: 1 | how: 2]`; 0 means by the ring's strategy.
///
/// A *watched* waiter waits for more than this ring. It hears of who comes and goes whether it has announced itself or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner(u32);

impl Manner {
    /// By the ring's strategy.
    pub const STRATEGY: Self = Self(0);
    /// By a futex on its epoch.
    pub const FUTEX: Self = Self(1);
    /// The bit of who is watched.
    const WATCHED: u32 = 4;
    /// Which numbers a doorbell can have.
    pub const DOORBELLS: u32 = 1 << 29;

    /// By the doorbell of that number.
    pub fn doorbell(number: u32) -> Self {
        Self(2 | (number % Self::DOORBELLS) << 3)
    }

    /// The same, of one who is watched.
    pub fn watched(self) -> Self {
        Self(self.0 | Self::WATCHED)
    }

    /// Whether it is watched.
    pub fn is_watched(self) -> bool {
        self.0 & Self::WATCHED != 0
    }

    /// By what.
    pub fn how(self) -> How {
        match self.0 & 3 {
            1 => How::Futex,
            2 => How::Doorbell,
            // 3 too, which no correct peer writes.
            _ => How::Strategy,
        }
    }

    /// Which doorbell it is.
    pub fn number(self) -> u32 {
        self.0 >> 3
    }

    /// What a waiter has written.
    pub(super) fn load(word: &AtomicU32) -> Self {
        // Relaxed: the callers' fences order it.
        Self(word.load(Ordering::Relaxed))
    }

    /// For those who notify.
    pub(super) fn store(self, word: &AtomicU32) {
        // Relaxed: published by the announcement behind it, or by a fence.
        word.store(self.0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(ringway_loom)))]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_word_holds_it_says_something() {
        for manner in [Manner::STRATEGY, Manner::FUTEX, Manner::doorbell(0), Manner::doorbell(u32::MAX)] {
            assert!(!manner.is_watched() && manner.watched().is_watched());
            assert_eq!((manner.watched().how(), manner.watched().number()), (manner.how(), manner.number()));
        }
        assert_eq!(Manner::doorbell(Manner::DOORBELLS - 1).number(), Manner::DOORBELLS - 1);
        assert_eq!(Manner(u32::MAX).how(), How::Strategy);
    }
}
