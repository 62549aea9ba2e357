//! What all endpoints have in common: an owner, settings, deadlines, and a sense of how long they have been stuck.

use std::time::{Duration, Instant};

use super::outcome::{RecvError, SendError};
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

/// The monotonic time `timeout` from now.
pub(crate) fn deadline_in(timeout: Duration) -> Duration {
    clock::now().saturating_add(timeout)
}

/// The monotonic time of `deadline`.
pub(crate) fn deadline_at(deadline: Instant) -> Duration {
    deadline_in(deadline.saturating_duration_since(Instant::now()))
}
