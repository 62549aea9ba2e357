//! What all endpoints have in common: an owner, settings, deadlines, and a sense of how long they have been stuck.

use std::time::{Duration, Instant};

use super::outcome::{PeerEvent, RecvError, SendError};
use crate::error::{self, Error, ErrorKind};
use crate::segment::Segment;
use crate::sys::{clock, fork};
use crate::wait::{Look, SLICE};

/// No process's generation: of an endpoint that has seen a violation.
const POISONED: u32 = u32::MAX;

/// The process to which an endpoint belongs, and whether all is well with it.
#[derive(Debug)]
pub(crate) struct Owner {
    /// The generation of that process.
    process: u32,
    /// The same, or [`POISONED`]: one comparison tells both whether this is the owner and whether all is well.
    generation: u32,
}

/// Why an endpoint can't be used any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Fenced,
    Poisoned,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Self {
        let process = fork::enter();
        Self { process, generation: process }
    }

    /// Whether the endpoint may be used, in this process.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Unusable> {
        if fork::is_current(self.generation) { Ok(()) } else { Err(self.why_unusable()) }
    }

    #[cold]
    fn why_unusable(&self) -> Unusable {
        if fork::is_current(self.process) { Unusable::Poisoned } else { Unusable::Fenced }
    }

    /// Latches a violation.
    pub(super) fn poison(&mut self) {
        self.generation = POISONED;
    }
}

impl From<Unusable> for SendError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Fenced => Self::Fenced,
            Unusable::Poisoned => Self::Poisoned,
        }
    }
}

impl From<Unusable> for RecvError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Fenced => Self::Fenced,
            Unusable::Poisoned => Self::Poisoned,
        }
    }
}

/// How the end of the other side came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Left,
    Died,
}

/// Of more than so many peers that came and went unheard, only the last is told.
const MOST_UNHEARD: u64 = 1 << 12;

/// How many peers have come, left and died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) died: u64,
}

impl Heard {
    /// What comes next on the way to what is so now.
    pub(super) fn next(&mut self, now: Self) -> Option<PeerEvent> {
        if now.joined.saturating_sub(self.joined) > MOST_UNHEARD {
            // So many that nobody counts them, or words that no correct peer writes.
            let there = now.joined.saturating_sub(now.left + now.died).min(1);
            *self = Self { joined: now.joined - there, ..now };
        }
        let is_there = self.joined > self.left + self.died;
        if is_there && self.died < now.died {
            self.died += 1;
            Some(PeerEvent::Died)
        } else if is_there && self.left < now.left {
            self.left += 1;
            Some(PeerEvent::Left)
        } else if self.joined < now.joined {
            self.joined += 1;
            Some(PeerEvent::Joined)
        } else {
            None
        }
    }
}

/// The settings of an endpoint that are not the ring's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behaviour {
    pub(super) spin: Duration,
    pub(super) keep_open: bool,
}

/// Where the ring stood when it was first found empty or full, and when that was.
#[derive(Debug)]
pub(super) struct Stuck {
    position: u64,
    since: u64,
}

impl Stuck {
    pub(super) fn new() -> Self {
        Self { position: u64::MAX, since: 0 }
    }

    /// What an operation that doesn't block should look at, when the ring is stuck at `position`: at the other side's life only
    /// once per slice.
    pub(super) fn look(&mut self, position: u64) -> Look {
        let now = clock::coarse_ns();
        if self.position != position {
            *self = Self { position, since: now };
        } else if now.saturating_sub(self.since) >= SLICE.as_nanos() as u64 {
            self.since = now;
            return Look::Peer;
        }
        Look::Ring
    }
}

/// Whether somebody can wait for an endpoint of that ring along with other things.
pub(super) fn check_watchable(owner: Result<(), Unusable>, is_sleepless: bool, segment: &Segment) -> error::Result<()> {
    let refused = |kind| Error::new(kind, "wait along with other things for", segment);
    match owner {
        Err(Unusable::Fenced) => Err(refused(ErrorKind::InvalidInput)
            .advise("the endpoint belongs to the process that this one was forked from; join the ring anew")),
        Err(Unusable::Poisoned) => {
            Err(refused(ErrorKind::Poisoned).advise("it holds what no correct peer writes; remove it"))
        }
        Ok(()) if is_sleepless => Err(refused(ErrorKind::InvalidInput)
            .advise("it was made with wait=spin: its peers wake nobody; make it with another way to wait")),
        Ok(()) => Ok(()),
    }
}

/// The monotonic time `timeout` from now.
pub(crate) fn deadline_in(timeout: Duration) -> Duration {
    clock::now().saturating_add(timeout)
}

/// The monotonic time of `deadline`.
pub(crate) fn deadline_at(deadline: Instant) -> Duration {
    deadline_in(deadline.saturating_duration_since(Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_told_in_an_order_that_can_have_been() {
        let mut heard = Heard { joined: 3, left: 1, died: 2 };
        let now = Heard { joined: 6, left: 2, died: 3 };
        let told: Vec<PeerEvent> = std::iter::from_fn(|| heard.next(now)).collect();
        use PeerEvent::{Died, Joined, Left};
        assert_eq!(told, [Joined, Died, Joined, Left, Joined]);
        assert_eq!(heard, now);
    }
}
