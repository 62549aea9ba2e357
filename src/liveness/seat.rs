//! Taking a role, and giving it up.

use super::{Chair, MEMBERSHIP, Role, Status, Tenure, status, unnoted_death};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::View;
use crate::segment::{Locks, Segment};
use crate::sys::process::ProcessId;

/// A role held, with its proof of life.
#[derive(Debug)]
pub(crate) struct Seat {
    role: Role,
    locks: Locks,
    lock: u32,
}

/// Takes `role` for this process, after its last holder has left or died.
///
/// Waits for others that are joining. Fails with [`ErrorKind::RoleTaken`] or [`ErrorKind::Quarantined`]; and if the
/// segment was removed after it had been opened, with an error that [is just that](Error::is_removed): then start over.
pub(crate) fn join(segment: &Segment, view: &View, role: Role, me: &ProcessId, persist: bool) -> Result<Seat> {
    let locks = segment.locks()?;
    locks.acquire(MEMBERSHIP)?;
    let seat = join_locked(segment, view, role, me, &locks);
    locks.release(MEMBERSHIP);
    if seat.is_err() {
        // Whoever left meanwhile could not remove the segment, because we had the lock.
        remove_if_abandoned(segment, view, persist, &locks);
    }
    seat.map(|lock| Seat { role, locks, lock })
}

fn join_locked(segment: &Segment, view: &View, role: Role, me: &ProcessId, locks: &Locks) -> Result<u32> {
    let tried = || format!("become the {role} of");
    if !segment.is_current()? {
        return Err(Error::removed(tried(), segment));
    }
    match status(&role.chair(view), locks)?.1 {
        Status::Vacant | Status::Left | Status::Dead { .. } => {}
        Status::Alive { pid } => {
            return Err(Error::new(ErrorKind::RoleTaken { pid }, tried(), segment)
                .advise("wait until it has finished, or use another ring"));
        }
        Status::Quarantined { pid } => {
            return Err(Error::new(ErrorKind::Quarantined { pid }, tried(), segment)
                .advise("end that process; its role is free as soon as it is gone"));
        }
    }
    for lock in role.chair(view).proofs {
        if locks.try_acquire(lock)? {
            Tenure::record_joined(role.participant(view), me, lock);
            return Ok(lock);
        }
    }
    Err(Error::new(ErrorKind::NoSpace, tried(), segment)
        .advise("all of its locks are held by children forked from dead participants; end them"))
}

impl Seat {
    /// What has become of the peer.
    pub(crate) fn peer(&self, view: &View) -> Result<(Tenure, Status)> {
        status(&self.role.peer().chair(view), &self.locks)
    }

    /// Whether the peer has died and nobody has noted it: see [`unnoted_death`].
    pub(crate) fn unnoted_death(&self, view: &View, thorough: bool) -> u64 {
        unnoted_death(&self.role.peer().chair(view), &self.locks, thorough)
    }

    /// Records that the role is free. The caller then tells the peer, and calls [`vacate`](Self::vacate).
    pub(crate) fn leave(&self, view: &View) {
        Tenure::record_left(self.role.participant(view));
    }

    /// Gives up the proof of life, and removes the segment if nobody uses or needs it any longer.
    pub(crate) fn vacate(&self, segment: &Segment, view: &View, persist: bool) {
        self.locks.release(self.lock);
        remove_if_abandoned(segment, view, persist, &self.locks);
    }
}

fn remove_if_abandoned(segment: &Segment, view: &View, persist: bool, locks: &Locks) {
    remove_if(segment, persist, locks, || {
        let free = |role: Role| is_free(&role.chair(view), locks);
        free(Role::Producer) && free(Role::Consumer) && crate::ring::spsc::is_drained(view)
    });
}

/// Nobody alive holds it.
pub(super) fn is_free(chair: &Chair<'_>, locks: &Locks) -> bool {
    matches!(status(chair, locks), Ok((_, Status::Vacant | Status::Left | Status::Dead { .. })))
}

/// Removes a segment that is not to persist, if it is abandoned: if nobody alive is attached and every message has been given
/// back.
pub(super) fn remove_if(segment: &Segment, persist: bool, locks: &Locks, is_abandoned: impl Fn() -> bool) {
    while !persist && is_abandoned() && locks.try_acquire(MEMBERSHIP).unwrap_or(false) {
        // Again, under the lock: nobody can have joined since.
        let abandoned = is_abandoned();
        if abandoned {
            // Whoever may not remove it, as in another's sticky directory, leaves it for `remove` or the next user; there is
            // nobody to tell.
            let _ = segment.unlink();
        }
        locks.release(MEMBERSHIP);
        if abandoned {
            break;
        }
    }
}
