//! The bare cost of the hardware: two sides pass a number to and fro over two cache lines.
//!
//! Virtual CPUs move between physical cores under a running measurement, which changes every result by a factor. The
//! ping-pong costs a fraction of a millisecond and tells where they are.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release},
};

use crate::clock::Clock;

/// Round trips to warm up, and then to measure.
const WARM_UP: u64 = 256;
const MEASURED: u64 = 2048;

/// The two lines, apart far enough for processors that fetch lines in pairs.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct Lines {
    ping: Line,
    pong: Line,
}

#[derive(Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

impl Lines {
    /// Measures as side 0 or 1, both calling at about the same time; side 1 has no result of its own.
    pub(crate) fn canary(&self, side: usize, clock: &Clock) -> f64 {
        self.exchange(side, WARM_UP);
        let start = clock.ticks();
        self.exchange(side, MEASURED);
        clock.ns(clock.ticks() - start) / MEASURED as f64
    }

    /// Makes `count` round trips.
    pub(crate) fn exchange(&self, side: usize, count: u64) {
        // Relaxed would do for the own line, which nobody else writes; Acquire costs nothing on it.
        let (mine, theirs, lead) = match side {
            0 => (&self.ping, &self.pong, 1),
            _ => (&self.pong, &self.ping, 0),
        };
        let first = mine.0.load(Acquire) + 1;
        for i in first..first + count {
            // Hammering the line that the other side is about to write would make it a fifth slower: hence the hint.
            if lead == 1 {
                // Release and Acquire pair across the two lines in both directions: each number is seen before the next.
                mine.0.store(i, Release);
                while theirs.0.load(Acquire) != i {
                    spin_loop();
                }
            } else {
                while theirs.0.load(Acquire) != i {
                    spin_loop();
                }
                mine.0.store(i, Release);
            }
        }
    }
}
