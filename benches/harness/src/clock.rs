//! Time stamps cheap enough to put around a single round trip.

use std::time::{Duration, Instant};

/// A monotonic clock: the processor's time stamp counter where the kernel calls it steady, else `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    source: Source,
    ns_per_tick: f64,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    #[cfg(target_arch = "x86_64")]
    Counter,
    Monotonic(Instant),
}

impl Clock {
    /// Picks the source and, for the counter, measures its rate against `CLOCK_MONOTONIC` for 20 ms.
    pub fn calibrate() -> Self {
        let mut clock = Self { source: Source::best(), ns_per_tick: 1.0 };
        if !matches!(clock.source, Source::Monotonic(_)) {
            let (start, first) = (Instant::now(), clock.ticks());
            std::thread::sleep(Duration::from_millis(20));
            let (elapsed, last) = (start.elapsed(), clock.ticks());
            clock.ns_per_tick = elapsed.as_nanos() as f64 / (last - first) as f64;
        }
        clock
    }

    /// Now. Everything before it in program order has finished, nothing after it has begun.
    #[inline]
    pub fn ticks(&self) -> u64 {
        match self.source {
            #[cfg(target_arch = "x86_64")]
            Source::Counter => {
                let mut cpu = 0;
                // SAFETY: both instructions exist, `Source::best` looked for rdtscp and lfence belongs to x86-64;
                // `cpu` is a valid place to write to.
                unsafe {
                    let ticks = core::arch::x86_64::__rdtscp(&mut cpu);
                    core::arch::x86_64::_mm_lfence();
                    ticks
                }
            }
            Source::Monotonic(origin) => origin.elapsed().as_nanos() as u64,
        }
    }

    /// A difference of ticks in nanoseconds.
    pub fn ns(&self, ticks: u64) -> f64 {
        ticks as f64 * self.ns_per_tick
    }
}

impl Source {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
            if ["rdtscp", "constant_tsc", "nonstop_tsc"].iter().all(|want| flags.split(' ').any(|flag| flag == *want)) {
                return Self::Counter;
            }
        }
        Self::Monotonic(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_system_clock() {
        let clock = Clock::calibrate();
        let (start, first) = (Instant::now(), clock.ticks());
        while start.elapsed() < Duration::from_millis(5) {}
        let ns = clock.ns(clock.ticks() - first);
        assert!(ns >= 4.9e6, "5 ms or more passed, the clock says {ns} ns");
    }
}
