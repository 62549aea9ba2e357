//! The timers of a wait set: monotonic times at which to tell something, in their order.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::events::{Event, Events};

/// When it is due next, and how long after that again.
#[derive(Clone, Copy, Debug)]
struct Timer {
    due: Duration,
    every: Option<Duration>,
}

/// The timers of one set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    timers: HashMap<usize, Timer>,
    queue: BTreeSet<(Duration, usize)>,
}

impl Timers {
    pub(super) fn contains(&self, token: usize) -> bool {
        self.timers.contains_key(&token)
    }

    /// Adds one, of a token that no other has.
    pub(super) fn add(&mut self, token: usize, due: Duration, every: Option<Duration>) {
        self.timers.insert(token, Timer { due, every });
        self.queue.insert((due, token));
    }

    /// Says whether there was such a timer.
    pub(super) fn remove(&mut self, token: usize) -> bool {
        let removed = self.timers.remove(&token);
        removed.is_some_and(|timer| self.queue.remove(&(timer.due, token)))
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|&(due, _)| due)
    }

    /// Tells those that are due, the one that has waited longest first, as far as there is room.
    pub(super) fn tell(&mut self, now: Duration, events: &mut Events) {
        while !events.is_full()
            && let Some(&(due, token)) = self.queue.first()
            && due <= now
        {
            events.list.push(Event::of_timer(token));
            self.queue.remove(&(due, token));
            match self.timers.get_mut(&token) {
                Some(Timer { due, every: Some(every) }) => {
                    *due = following(*due, *every, now);
                    self.queue.insert((*due, token));
                }
                _ => drop(self.timers.remove(&token)),
            }
        }
    }
}

/// The first time after `now` that lies a number of periods after `due`: what was missed is left out, and nothing shifts.
fn following(due: Duration, every: Duration, now: Duration) -> Duration {
    let missed = now.saturating_sub(due).as_nanos() / every.as_nanos().max(1);
    let ahead = (missed + 1).saturating_mul(every.as_nanos());
    due.saturating_add(ahead.try_into().map_or(Duration::MAX, Duration::from_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(timers: &mut Timers, now: Duration, capacity: usize) -> Vec<usize> {
        let mut events = Events::with_capacity(capacity);
        timers.tell(now, &mut events);
        assert!(events.iter().all(Event::is_timer));
        events.iter().map(Event::token).collect()
    }

    #[test]
    fn they_are_told_in_their_order_and_once() {
        let mut timers = Timers::default();
        for (token, due) in [(0, 3), (1, 1), (2, 2), (3, 2), (4, 9)] {
            timers.add(token, due * SECOND, None);
        }
        assert_eq!(told(&mut timers, SECOND - Duration::from_nanos(1), 8), []);
        assert_eq!(told(&mut timers, 3 * SECOND, 3), [1, 2, 3]);
        assert!(timers.contains(0) && !timers.contains(1));
        assert_eq!(told(&mut timers, 3 * SECOND, 3), [0]);
        assert_eq!(timers.next(), Some(9 * SECOND));
        assert!(timers.remove(4) && !timers.remove(4) && !timers.remove(0));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_periodic_one_is_told_once_for_all_that_was_missed_and_never_drifts() {
        let mut timers = Timers::default();
        timers.add(7, 10 * SECOND, Some(3 * SECOND));
        let late = Duration::from_millis(700);
        assert_eq!(told(&mut timers, 10 * SECOND + late, 8), [7]);
        assert_eq!(timers.next(), Some(13 * SECOND));
        assert_eq!(told(&mut timers, 22 * SECOND + late, 8), [7]);
        assert_eq!(timers.next(), Some(25 * SECOND));
        assert_eq!(told(&mut timers, 25 * SECOND, 8), [7]);
        assert_eq!(timers.next(), Some(28 * SECOND));
    }

    #[test]
    fn one_that_is_always_due_lets_others_be_told() {
        let mut timers = Timers::default();
        timers.add(0, SECOND, Some(Duration::from_nanos(1)));
        timers.add(1, SECOND, None);
        let mut all = Vec::new();
        for step in 0..3 {
            all.extend(told(&mut timers, 2 * SECOND + step * Duration::from_micros(1), 1));
        }
        assert_eq!(all, [0, 1, 0]);
    }

    #[test]
    fn no_time_is_too_far() {
        assert_eq!(following(SECOND, Duration::MAX, 2 * SECOND), Duration::MAX);
        assert_eq!(following(Duration::ZERO, Duration::from_nanos(1), Duration::MAX), Duration::MAX);
    }
}
