//! Who holds which role of a ring, proof of life by the kernel, and taking over after a death.
//!
//! # Proof of life
//! A participant holds a lock that the kernel frees when its process dies: on a byte of the segment through an open file
//! description of its own, or a System V semaphore with `SEM_UNDO`. It takes the lock first and records itself after, and
//! on leaving does the reverse; so a recorded participant whose lock is free is dead, unless that very process still
//! lives: then somebody closed the descriptor under it, and it is quarantined, never robbed. A lock may also outlive its
//! owner, in a child forked from it: so a recorded process that is provably gone is dead in any case.
//! Time plays no part: a stopped process is alive.
//!
//! # Joining
//! Joining, and removing the segment, happen under one more lock of that kind, the membership lock, which dies with
//! its holder as well. What a killed joiner leaves is one of: nothing; a free proof lock and a record that still names the
//! dead predecessor, or a mixture of both, which is dead all the same; a complete record, which is dead. The record's state,
//! its generation and its count of deaths are one word, so a death is counted once.
//!
//! # Leaving
//! A leaver never waits: it records that it left, gives up its proof, and then tries for the membership lock, to remove
//! the segment if that is now due. If somebody else has the lock, that one looks again after unlocking: of two leavers the
//! later to record itself is seen by the one who unlocks later.
//!
//! # Many
//! In a ring of many producers and consumers there is a chair for each, and one more lock for each chair: that of whoever
//! recovers its dead holder. It dies with the recoverer, and the next one starts over: taking back what the dead one held is
//! idempotent, and only then is the death recorded and the chair free. A recoverer that is stopped keeps
//! others from this one chair, and from nothing else.

mod crew;
mod seat;
mod tenure;

pub(crate) use crew::{Census, Crew, Membership};
pub(crate) use seat::{Seat, join};
pub(crate) use tenure::{State, Status, Tenure, status};
use tenure::{seems_alive, unnoted_death};

use std::ops::Range;

use crate::layout::{Form, Participant, View};

/// What one can be in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Consumer,
}

/// A place at a ring: the record of who holds it, and the locks of which one proves the holder alive.
#[derive(Clone, Debug)]
pub(crate) struct Chair<'a> {
    participant: &'a Participant,
    proofs: Range<u32>,
}

/// Serialises joining and removing.
const MEMBERSHIP: u32 = 0;
/// Locks for each role of a ring with two: one in use, and spares for when a forked child keeps a dead holder's lock.
const PER_ROLE: u32 = 8;

/// How many locks a segment needs.
pub(crate) fn locks_of(form: &Form) -> u32 {
    match form {
        Form::Spsc(_) => 1 + 2 * PER_ROLE,
        Form::Mpmc(layout) => crew::locks_of(layout.lanes),
    }
}

impl Role {
    /// The other one.
    pub(crate) fn peer(self) -> Self {
        match self {
            Self::Producer => Self::Consumer,
            Self::Consumer => Self::Producer,
        }
    }

    /// Its record in the segment.
    pub(crate) fn participant(self, view: &View) -> &Participant {
        match self {
            Self::Producer => &view.producer().participant,
            Self::Consumer => &view.consumer().participant,
        }
    }

    /// Its place at a ring with two.
    pub(crate) fn chair(self, view: &View) -> Chair<'_> {
        let first = 1 + self as u32 * PER_ROLE;
        Chair { participant: self.participant(view), proofs: first..first + PER_ROLE }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        })
    }
}
