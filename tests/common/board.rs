//! Memory that a test shares with the children it forks: what they write there outlives them.

use memmap2::{MmapOptions, MmapRaw};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words, all 0 at first.
pub struct Board {
    map: MmapRaw,
}

impl Board {
    const WORDS: usize = 512;

    pub fn new() -> Self {
        // A shared anonymous mapping.
        let map = MmapOptions::new().len(Self::WORDS * 8).map_anon().unwrap();
        Self { map: map.into() }
    }

    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < Self::WORDS);
        // SAFETY: inside of the mapping, which outlives the reference; aligned, and only accessed atomically.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }

    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    pub fn add(&self, index: usize, value: u64) -> u64 {
        self.word(index).fetch_add(value, Ordering::SeqCst)
    }
}
