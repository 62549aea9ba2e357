//! Two sides, each on a CPU of its own if there are two.

use std::io;

use crate::{
    clock::Clock,
    cpus::{self, Cpus},
    crew::{Between, Crew, Side},
};

/// Runs two sides against each other, again and again.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Where the sides run.
    pub cpus: Cpus,
    /// What they tell the time by.
    pub clock: Clock,
    /// The CPUs for more than two sides; these two come first.
    order: Vec<usize>,
}

impl Pair {
    /// Chooses the CPUs and calibrates the clock.
    pub fn new() -> io::Result<Self> {
        let order = cpus::in_order()?;
        Ok(Self { cpus: Cpus::of(&order), clock: Clock::calibrate(), order })
    }

    /// More sides, of which the first two are where this pair's are.
    pub fn crew(&self, sides: usize) -> Crew<'_> {
        Crew { sides, cpus: &self.order, clock: self.clock }
    }

    /// Runs one function on each side, as [`Crew::run`] does.
    pub fn run<S: Sync, R: Copy>(
        &self,
        between: Between,
        setup: impl FnOnce() -> io::Result<S>,
        sides: (impl Fn(&S, &Side) -> R + Sync, impl Fn(&S, &Side) -> R + Sync),
    ) -> io::Result<(R, R)> {
        let results = self.crew(2).run(between, setup, |state, side| match side.index {
            0 => sides.0(state, side),
            _ => sides.1(state, side),
        })?;
        Ok((results[0], results[1]))
    }
}

#[cfg(test)]
mod tests {
    use std::{process, time::Instant};

    use rustix::process::{Signal, kill_process};

    use super::*;
    use crate::children::PATIENCE;

    const BOTH: [Between; 2] = [Between::Processes, Between::Threads];

    #[test]
    fn both_sides_run_pinned_and_return() {
        let pair = Pair::new().unwrap();
        for between in BOTH {
            let work = |_: &(), side: &Side| {
                side.meet();
                (side.index, rustix::thread::sched_getcpu(), process::id())
            };
            let (a, b) = pair.run(between, || Ok(()), (work, work)).unwrap();
            assert_eq!((a.0, a.1), (0, pair.cpus.sides[0]));
            assert_eq!((b.0, b.1), (1, pair.cpus.sides[1]));
            assert_eq!(a.2 == b.2, between == Between::Threads);
            assert_ne!(a.2, process::id());
        }
    }

    #[test]
    fn a_panic_becomes_the_error_and_ends_the_other_side() {
        let pair = Pair::new().unwrap();
        for between in BOTH {
            let started = Instant::now();
            let sides = (|_: &(), _: &Side| panic!("no more paper"), |_: &(), side: &Side| side.meet());
            let error = pair.run(between, || Ok(()), sides).unwrap_err();
            assert_eq!(error.to_string(), "no more paper");
            assert!(started.elapsed() < PATIENCE);
        }
    }

    #[test]
    fn a_killed_side_is_an_error() {
        let pair = Pair::new().unwrap();
        let kill = |_: &(), _: &Side| kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        let error = pair.run(Between::Processes, || Ok(()), (kill, |_: &(), side: &Side| side.meet())).unwrap_err();
        assert_eq!(error.to_string(), "a side was killed by signal 9");
    }

    #[test]
    fn the_canary_has_a_result_where_there_are_two_cpus() {
        let pair = Pair::new().unwrap();
        let work = |_: &(), side: &Side| side.canary();
        let (canary, _) = pair.run(Between::Processes, || Ok(()), (work, work)).unwrap();
        assert_eq!(canary.is_some(), pair.cpus.are_two());
        assert!(canary.is_none_or(|ns| ns > 1.0));
    }
}
