//! Spinning where each look is a system call.

use std::time::Duration;

use super::blocking::LONG;
use crate::sys::{clock, cpu};

/// The shortest pause between two looks, in spin hints: the look itself takes longer.
const SHORTEST_PAUSE: u32 = 4;
/// The longest: what some twenty messages take.
const LONGEST_PAUSE: u32 = 512;

/// The first pause of who waits for room: several messages' worth of it come about as fast as one's.
const ROOM_PAUSE: u32 = 64;

/// How a receiver spins before it sleeps, and how it keeps its hands off a stream that another one writes.
///
/// A receiver as fast as its sender takes each message by a system call of its own, and both meet at the kernel's lock each time. If
/// it pauses until a few have gathered, it takes them in one go. So: a message that was there at the first look doubles the pause
/// before the next one, and one that had to be waited for halves it. A ping-pong runs at the shortest pause.
#[derive(Debug)]
pub(crate) struct Spin {
    time: Duration,
    /// In spin hints.
    pause: u32,
    longest: u32,
}

impl Spin {
    /// For at most `time` before each sleep; without pauses beyond the shortest if `eager`.
    pub(crate) fn new(time: Duration, eager: bool) -> Self {
        Self { time, pause: SHORTEST_PAUSE, longest: if eager { SHORTEST_PAUSE } else { LONGEST_PAUSE } }
    }

    /// Lets some messages gather, before the first look.
    pub(crate) fn gather(&mut self) {
        if may_spin(self.time) {
            hint(self.pause);
            self.pause = (2 * self.pause).min(self.longest);
        }
    }

    /// After the first look has found nothing, looks until `look` finds something, as long as it is to spin and until `deadline`.
    pub(crate) fn spin<T>(&mut self, deadline: Option<Duration>, look: impl FnMut() -> Option<T>) -> Option<T> {
        // It was doubled before that look.
        self.pause = (self.pause / 4).max(SHORTEST_PAUSE);
        let pause = self.pause;
        spin(self.time, deadline, || hint(pause), look)
    }
}

fn hint(count: u32) {
    (0..count).for_each(|_| std::hint::spin_loop());
}

/// Looks for room until `look` finds it, for at most `time` and until `deadline`. A look that finds none may cost the kernel as much as
/// a message, so that the pauses grow.
pub(crate) fn spin_for_room<T>(
    time: Duration,
    deadline: Option<Duration>,
    look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let mut hints = ROOM_PAUSE;
    let pause = || {
        hint(hints);
        hints = (2 * hints).min(LONGEST_PAUSE);
    };
    spin(time, deadline, pause, look)
}

/// Not where there is one core, on which nobody else would get on meanwhile.
fn may_spin(time: Duration) -> bool {
    !time.is_zero() && cpu::online() > 1
}

fn spin<T>(
    time: Duration,
    deadline: Option<Duration>,
    mut pause: impl FnMut(),
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    if !may_spin(time) {
        return None;
    }
    let start = clock::now();
    let until = start.saturating_add(time).min(deadline.unwrap_or(Duration::MAX));
    loop {
        pause();
        if let Some(found) = look() {
            return Some(found);
        }
        let now = clock::now();
        if now >= until {
            return None;
        }
        if now - start >= LONG {
            // Whoever is waited for may want this very CPU.
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_something_is_found_or_in_time() {
        let mut looks = 0;
        let mut long = Spin::new(Duration::from_secs(60), false);
        let found = long.spin(None, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, (cpu::online() > 1).then_some(3));
        assert_eq!(long.spin(Some(clock::now()), || None::<()>), None);
        assert_eq!(Spin::new(Duration::from_micros(50), true).spin(None, || None::<()>), None);
        assert_eq!(Spin::new(Duration::ZERO, false).spin(None, || Some(())), None);
        assert_eq!(spin_for_room(Duration::from_micros(50), None, || None::<()>), None);
    }
}
