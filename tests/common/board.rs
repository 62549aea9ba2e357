//! Memory that a test shares with the children it forks: what they write there outlives them.

use ringway::segment::Segment;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words, all 0 at first.
pub struct Board {
    segment: Segment,
    words: usize,
}

impl Board {
    /// Behind what segments have of their own.
    const FIRST: usize = 128;

    pub fn new() -> Self {
        Self::of(256)
    }

    pub fn of(words: usize) -> Self {
        Self { segment: Segment::memfd("board", Self::FIRST + words * 8, 0o600, |_| {}).unwrap(), words }
    }

    pub fn len(&self) -> usize {
        self.words
    }

    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words);
        // SAFETY: inside of the segment, which outlives the reference; aligned, and only accessed atomically.
        unsafe { AtomicU64::from_ptr(self.segment.as_ptr().add(Self::FIRST + index * 8).cast().as_ptr()) }
    }

    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }
}
