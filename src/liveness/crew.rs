//! The members of a ring of many: joining, leaving, and recovering the dead.

use super::seat::{is_free, remove_if};
use super::{Chair, MEMBERSHIP, Role, State, Status, Tenure, seems_alive, status, unnoted_death};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::MpmcView;
use crate::primitive::Ordering;
use crate::ring::mpmc::{self, MAX_CONSUMERS, Policy};
use crate::segment::{Locks, Segment};
use crate::sys::process::ProcessId;

/// Proof locks of a chair: one in use, and a spare for when a forked child keeps a dead holder's lock.
const PROOFS: u32 = 2;
/// The locks of a chair: its proofs, and that of whoever recovers its dead holder.
const PER_CHAIR: u32 = PROOFS + 1;

pub(super) fn locks_of(lanes: u32) -> u32 {
    1 + (lanes + MAX_CONSUMERS) * PER_CHAIR
}

/// All chairs of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crew<'a> {
    view: &'a MpmcView,
    max_deliveries: u32,
}

/// A chair held, with its proof of life.
#[derive(Debug)]
pub(crate) struct Membership {
    role: Role,
    member: u32,
    locks: Locks,
    lock: u32,
}

/// What a look for the dead did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// How many dead members' chairs are free now.
    pub(crate) deaths: u32,
    /// Messages put back.
    pub(crate) requeued: u64,
    /// Messages dropped.
    pub(crate) dropped: u64,
}

/// Who holds the chairs of a role, and held them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// How many chairs are held, by the dead too until they are recovered.
    pub(crate) present: u64,
    /// How often a chair was taken.
    pub(crate) joined: u64,
    /// How many holders have died and were recovered.
    pub(crate) deaths: u64,
}

impl Census {
    /// How many holders have left in good order.
    pub(crate) fn left(&self) -> u64 {
        self.joined.saturating_sub(self.deaths + self.present)
    }
}

impl<'a> Crew<'a> {
    pub(crate) fn new(view: &'a MpmcView, max_deliveries: u32) -> Self {
        Self { view, max_deliveries }
    }

    /// The members of a role.
    pub(crate) fn members(self, role: Role) -> std::ops::Range<u32> {
        let lanes = self.view.lanes();
        match role {
            Role::Producer => 0..lanes,
            Role::Consumer => lanes..lanes + MAX_CONSUMERS,
        }
    }

    fn everybody(self) -> std::ops::Range<u32> {
        0..self.view.lanes() + MAX_CONSUMERS
    }

    pub(crate) fn chair(self, member: u32) -> Chair<'a> {
        let first = 1 + member * PER_CHAIR;
        Chair { participant: &self.view.member(member).participant, proofs: first..first + PROOFS }
    }

    /// Takes a free chair of `role` for this process.
    ///
    /// Waits for others that are joining. Fails with [`ErrorKind::NoSpace`] if there is none; and if the segment was removed
    /// after it had been opened, with an error that [is just that](Error::is_removed): then start over.
    pub(crate) fn join(
        self,
        segment: &Segment,
        role: Role,
        me: &ProcessId,
        persist: bool,
        drops: bool,
    ) -> Result<Membership> {
        let locks = segment.locks()?;
        locks.acquire(MEMBERSHIP)?;
        let taken = self.join_locked(segment, role, me, drops, &locks);
        locks.release(MEMBERSHIP);
        if taken.is_err() {
            // Whoever left meanwhile could not remove the segment, because we had the lock.
            self.remove_if_abandoned(segment, persist, &locks);
        }
        taken.map(|(member, lock)| Membership { role, member, locks, lock })
    }

    fn join_locked(
        self,
        segment: &Segment,
        role: Role,
        me: &ProcessId,
        drops: bool,
        locks: &Locks,
    ) -> Result<(u32, u32)> {
        let tried = || format!("become a {role} of");
        if !segment.is_current()? {
            return Err(Error::removed(tried(), segment));
        }
        self.recover(locks, None, true)?;
        for member in self.members(role) {
            let chair = self.chair(member);
            // A dead holder is still there if somebody else is recovering it.
            if Tenure::load(chair.participant).state() == State::Present {
                continue;
            }
            for lock in chair.proofs {
                if locks.try_acquire(lock)? {
                    self.sit_down(member, lock, me, drops);
                    return Ok((member, lock));
                }
            }
        }
        let places = self.members(role).len();
        Err(Error::new(ErrorKind::NoSpace, tried(), segment).advise(match role {
            Role::Producer => {
                format!("all of its {places} lanes are taken: end a producer, or make the ring with more")
            }
            Role::Consumer => format!("it has {places} consumers, and takes no more: end one"),
        }))
    }

    fn sit_down(self, member: u32, lock: u32, me: &ProcessId, drops: bool) {
        let participant = self.chair(member).participant;
        // Relaxed: published by the record.
        participant.drops.store(drops.into(), Ordering::Relaxed);
        if member < self.view.lanes() {
            let used = &self.view.commons().lanes_used.0;
            // Only those who have the membership lock write it. Release: pairs with the load of consumers. Before the record:
            // a lane too many does no harm.
            used.store(used.load(Ordering::Relaxed).max(member + 1), Ordering::Release);
        }
        Tenure::record_joined(participant, me, lock);
        self.change_roster();
    }

    /// Tells all that somebody came or went.
    fn change_roster(self) {
        // Release: pairs with the load of those who then look at the chairs.
        self.view.commons().roster.0.fetch_add(1, Ordering::Release);
    }

    /// Looks for the dead, takes back what they held, and frees their chairs. `me` is not looked at: one's own locks look free. Unless it
    /// is to be `thorough`, whoever holds the lock counts as alive.
    ///
    /// Whoever has been killed in the middle of this is followed by another one, which starts over with the same chair.
    pub(crate) fn recover(self, locks: &Locks, me: Option<u32>, thorough: bool) -> Result<Recovery> {
        let mut recovery = Recovery::default();
        for member in self.everybody().filter(|&member| Some(member) != me) {
            let chair = self.chair(member);
            if Tenure::load(chair.participant).state() != State::Present
                || !thorough && seems_alive(&chair, locks)
                || !self.is_dead(&chair, locks)?
            {
                continue;
            }
            let lock = chair.proofs.end;
            let alone = match locks.try_acquire(lock) {
                // System V takes the locks away with the name. Nobody joins then, so that several may recover a chair at once.
                Err(e) if e.is_removed() => true,
                answer => answer?,
            };
            if !alone {
                continue;
            }
            // Again, under the lock: another one may have recovered it, and a new holder come.
            let recovered = self.is_dead(&chair, locks).map(|dead| dead.then(|| self.take_back(member, &chair)));
            locks.release(lock);
            if let Some(recovered) = recovered? {
                recovery.deaths += 1;
                recovery.requeued += recovered.requeued;
                recovery.dropped += recovered.dropped;
            }
        }
        Ok(recovery)
    }

    fn is_dead(self, chair: &Chair<'_>, locks: &Locks) -> Result<bool> {
        Ok(matches!(status(chair, locks)?.1, Status::Dead { .. }))
    }

    /// Takes back what a dead member held, and then frees its chair.
    fn take_back(self, member: u32, chair: &Chair<'_>) -> mpmc::Recovered {
        let recovered = self.take_back_messages(member);
        self.forget_wait(member);
        // R4, after all that: until here the next one would start over.
        Tenure::record_died(chair.participant);
        self.change_roster();
        recovered
    }

    fn take_back_messages(self, member: u32) -> mpmc::Recovered {
        let Some(owner) = member.checked_sub(self.view.lanes()) else { return mpmc::Recovered::default() };
        // Relaxed: written before the record of who joined.
        let drop = self.chair(member).participant.drops.load(Ordering::Relaxed) != 0;
        let policy = Policy { drop, max_deliveries: self.max_deliveries };
        let recovered = mpmc::recover(self.view, self.view.shape(), owner, policy);
        let [requeued, dropped] = &self.view.commons().recovered.0;
        // Relaxed: figures for people. A recoverer killed just before leaves them too low.
        requeued.fetch_add(recovered.requeued, Ordering::Relaxed);
        dropped.fetch_add(recovered.dropped, Ordering::Relaxed);
        recovered
    }

    /// Takes a member off those that sleep, or are watched.
    fn forget_wait(self, member: u32) {
        // Relaxed: as below.
        self.view.member(member).bell.0.manner.store(0, Ordering::Relaxed);
        // Relaxed: left behind, it would cost a spare wake.
        match member.checked_sub(self.view.lanes()) {
            None => self.view.member(member).bell.0.waiting.store(0, Ordering::Relaxed),
            Some(consumer) => {
                self.view.commons().waiters.0.fetch_and(!(1 << consumer), Ordering::Relaxed);
            }
        }
    }

    /// Who holds the chairs of a role. Acquires all that those did who left or were recovered.
    pub(crate) fn census(self, role: Role) -> Census {
        self.members(role).fold(Census::default(), |census, member| {
            let tenure = Tenure::load(self.chair(member).participant);
            Census {
                present: census.present + u64::from(tenure.state() == State::Present),
                joined: census.joined + u64::from(tenure.generation()),
                deaths: census.deaths + u64::from(tenure.deaths()),
            }
        })
    }

    fn remove_if_abandoned(self, segment: &Segment, persist: bool, locks: &Locks) {
        remove_if(segment, persist, locks, || {
            self.everybody().all(|member| is_free(&self.chair(member), locks))
                && mpmc::is_drained(self.view, self.view.shape())
        });
    }
}

impl Membership {
    /// Its number among all members.
    pub(crate) fn member(&self) -> u32 {
        self.member
    }

    /// Looks for the dead among the others: see [`Crew::recover`].
    pub(crate) fn recover_others(&self, crew: Crew<'_>, thorough: bool) -> Result<Recovery> {
        crew.recover(&self.locks, Some(self.member), thorough)
    }

    /// What has become of another member.
    pub(crate) fn status_of(&self, crew: Crew<'_>, member: u32) -> Result<Status> {
        Ok(status(&crew.chair(member), &self.locks)?.1)
    }

    /// Whether others have died and nobody has noted it: a number that differs from death to death, or 0. See [`unnoted_death`].
    pub(crate) fn unnoted_deaths(&self, crew: Crew<'_>, thorough: bool) -> u64 {
        let others = crew.everybody().filter(|&member| member != self.member);
        others.fold(0, |sum: u64, member| {
            let death = unnoted_death(&crew.chair(member), &self.locks, thorough);
            // So that hardly two sets of deaths lead to the same.
            sum ^ (death << 8 | u64::from(member)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(member)
        })
    }

    /// Gives back what this member still holds, and records that the chair is free. The caller then tells the others, and calls
    /// [`vacate`](Self::vacate).
    pub(crate) fn leave(&self, crew: Crew<'_>) {
        if self.role == Role::Consumer {
            crew.take_back_messages(self.member);
        }
        crew.forget_wait(self.member);
        Tenure::record_left(crew.chair(self.member).participant);
        crew.change_roster();
    }

    /// Gives up the proof of life, and removes the segment if nobody uses or needs it any longer.
    pub(crate) fn vacate(&self, crew: Crew<'_>, segment: &Segment, persist: bool) {
        self.locks.release(self.lock);
        crew.remove_if_abandoned(segment, persist, &self.locks);
    }
}
