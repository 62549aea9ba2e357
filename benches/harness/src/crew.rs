//! Any number of sides, each pinned to a CPU: processes, or threads of one process.
//!
//! Either way the work happens in forked children, so that whatever goes wrong there (a panic, a crash, a hang) ends as
//! an error here, and so that nothing one block leaves behind reaches the next. The parent sleeps meanwhile.

use std::{
    cell::{Cell, UnsafeCell},
    io,
    mem::MaybeUninit,
};

use crate::{
    children::Children,
    clock::Clock,
    cpus,
    meeting::{Meeting, Patience},
    shared::{Shared, Zeroed},
};

/// What the sides are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Processes, forked from this one.
    Processes,
    /// Threads of one process, forked from this one.
    Threads,
}

/// Runs some sides against each other, again and again. Side `i` has CPU `i`, counted from the first again when there are
/// no more.
#[derive(Clone, Copy, Debug)]
pub struct Crew<'a> {
    /// How many sides.
    pub sides: usize,
    /// Where they run.
    pub(crate) cpus: &'a [usize],
    /// What they tell the time by.
    pub(crate) clock: Clock,
}

impl Crew<'_> {
    /// Calls `setup` where all sides inherit or share its value, then `work` on each side, after this process has dropped
    /// its copy of the value; returns what these return, byte by byte across processes: it must hold no pointers.
    ///
    /// Processes are forked by the calling thread and die with it. It is meant for programs of one thread: as always
    /// after a fork, the children must not need a lock that another thread held.
    pub fn run<S: Sync, R: Copy>(
        &self,
        between: Between,
        setup: impl FnOnce() -> io::Result<S>,
        work: impl Fn(&S, &Side) -> R + Sync,
    ) -> io::Result<Vec<R>> {
        let meeting = Shared::<Meeting>::new(1)?;
        let meeting = &meeting[0];
        let results = Shared::<Slot<R>>::new(self.sides)?;
        let mut children = Children::default();
        let side = |index: usize, state: &S| {
            let side = self.place(index, meeting);
            let result = work(state, &side);
            // SAFETY: only this side uses this cell until the parent has seen it end.
            unsafe { *results[index].0.get() = MaybeUninit::new(result) };
        };
        match between {
            Between::Processes => {
                let state = setup()?;
                for index in 0..self.sides {
                    children.fork(meeting, || side(index, &state))?;
                }
                drop(state);
            }
            Between::Threads => children.fork(meeting, || {
                let (state, side) = (&setup().unwrap_or_else(|error| panic!("{error}")), &side);
                std::thread::scope(|scope| {
                    for index in 0..self.sides {
                        scope.spawn(move || side(index, state));
                    }
                });
            })?,
        }
        meeting.begin();
        children.join(meeting)?;
        // SAFETY: the children ended well, so all sides have written their results; and they are gone.
        Ok(results.iter().map(|slot| unsafe { (*slot.0.get()).assume_init() }).collect())
    }

    /// Puts the calling thread in its place.
    fn place<'m>(&self, index: usize, meeting: &'m Meeting) -> Side<'m> {
        let cpu = self.cpus[index % self.cpus.len()];
        cpus::pin(cpu).unwrap_or_else(|error| panic!("could not pin a side to CPU {cpu}: {error}"));
        meeting.await_beginning();
        let patience = if self.sides > self.cpus.len() { Patience::Sleep } else { Patience::Spin };
        let apart = self.sides > 1 && self.cpus.len() > 1;
        Side { index, clock: self.clock, sides: self.sides as u32, patience, apart, meeting, met: Cell::new(0) }
    }
}

/// What one side may use while it works.
pub struct Side<'a> {
    /// From 0.
    pub index: usize,
    /// What it tells the time by.
    pub clock: Clock,
    sides: u32,
    patience: Patience,
    /// Whether the first two sides are on different CPUs.
    apart: bool,
    meeting: &'a Meeting,
    met: Cell<u32>,
}

impl Side<'_> {
    /// Waits until all other sides are here as well.
    pub fn meet(&self) {
        self.met.set(self.met.get() + self.sides);
        self.meeting.meet(self.met.get(), self.patience);
    }

    /// The bare cache-line ping-pong between the first two sides, in ns per round trip. All sides call it at the same point,
    /// and side 0 has the result. It means nothing where those two share one CPU.
    pub fn canary(&self) -> Option<f64> {
        if !self.apart {
            return None;
        }
        self.meet();
        (self.index < 2).then(|| self.meeting.lines.canary(self.index, &self.clock))
    }

    /// Makes `count` bare round trips over two cache lines, as side 0 or 1.
    pub(crate) fn ping_pong(&self, count: u64) {
        self.meeting.lines.exchange(self.index, count);
    }
}

/// Where a side leaves its result.
struct Slot<R>(UnsafeCell<MaybeUninit<R>>);

// SAFETY: a slot belongs to its side while that lives, then to the parent; results are plain bytes.
unsafe impl<R: Copy> Sync for Slot<R> {}
// SAFETY: an uninitialised result may hold anything, zeroes too.
unsafe impl<R: Copy> Zeroed for Slot<R> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Pair;

    #[test]
    fn more_sides_than_cpus_meet_and_return_in_order() {
        let pair = Pair::new().unwrap();
        let sides = pair.cpus.allowed + 3;
        for between in [Between::Processes, Between::Threads] {
            let results = pair.crew(sides).run(
                between,
                || Ok(()),
                |_, side| {
                    (0..100).for_each(|_| side.meet());
                    let canary = side.canary();
                    side.meet();
                    (side.index, rustix::thread::sched_getcpu(), canary.is_some())
                },
            );
            let expected = (0..sides).map(|i| (i, pair.crew(sides).cpus[i % pair.cpus.allowed]));
            for (result, (index, cpu)) in results.unwrap().into_iter().zip(expected) {
                assert_eq!(result, (index, cpu, index < 2 && pair.cpus.are_two()));
            }
        }
    }

    #[test]
    fn one_side_alone_meets_nobody() {
        let pair = Pair::new().unwrap();
        let alone = pair.crew(1).run(
            Between::Threads,
            || Ok(7),
            |state, side| {
                side.meet();
                (*state, side.canary().is_none())
            },
        );
        assert_eq!(alone.unwrap(), [(7, true)]);
    }
}
