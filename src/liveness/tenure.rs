//! The record of a role's holder, and what has become of that holder.

use super::Chair;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Participant;
use crate::primitive::Ordering;
use crate::segment::Locks;
use crate::sys::process::{Fate, ProcessId};

/// Whether a role is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody has held it yet.
    Vacant,
    /// Somebody joined and has not left; perhaps it is dead.
    Present,
    /// The last holder left in good order.
    Left,
}

/// One word: `[generation: 32 | deaths: 30 | state: 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure(u64);

impl Tenure {
    /// Acquires all that the holder did before it recorded this.
    #[inline]
    pub(crate) fn load(participant: &Participant) -> Self {
        // Pairs with the stores in `record_joined` and `record_left`.
        Self(participant.tenure.load(Ordering::Acquire))
    }

    pub(crate) fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Vacant,
            1 => State::Present,
            _ => State::Left,
        }
    }

    /// How many deaths have been noted by a successor.
    pub(crate) fn deaths(self) -> u32 {
        (self.0 >> 2) as u32 & 0x3fff_ffff
    }

    /// How often the role was taken.
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn new(generation: u32, deaths: u32, state: State) -> Self {
        let state = match state {
            State::Vacant => 0,
            State::Present => 1,
            State::Left => 2,
        };
        Self(u64::from(generation) << 32 | u64::from(deaths & 0x3fff_ffff) << 2 | state)
    }

    /// The caller holds the membership lock and `lock`, and has found the role free.
    pub(super) fn record_joined(participant: &Participant, me: &ProcessId, lock: u32) {
        let last = Self::load(participant);
        // Relaxed: published by the store of the tenure.
        participant.lock.store(lock, Ordering::Relaxed);
        participant.pid.store(me.pid, Ordering::Relaxed);
        participant.pid_namespace.store(me.pid_namespace, Ordering::Relaxed);
        participant.start_time.store(me.start_time, Ordering::Relaxed);
        participant.boot_id[0].store(me.boot_id[0], Ordering::Relaxed);
        participant.boot_id[1].store(me.boot_id[1], Ordering::Relaxed);
        let deaths = last.deaths() + u32::from(last.state() == State::Present);
        let next = Self::new(last.generation().wrapping_add(1), deaths, State::Present);
        // Pairs with `load`.
        participant.tenure.store(next.0, Ordering::Release);
    }

    /// The caller is the holder.
    pub(super) fn record_left(participant: &Participant) {
        let last = Self::load(participant);
        // Pairs with `load`: who sees it sees all that was published.
        participant.tenure.store(Self::new(last.generation(), last.deaths(), State::Left).0, Ordering::Release);
    }

    /// The caller has found the holder dead, and nobody joins in its place before that is recorded.
    pub(super) fn record_died(participant: &Participant) {
        let last = Self::load(participant);
        if last.state() != State::Present {
            return;
        }
        let next = Self::new(last.generation(), last.deaths() + 1, State::Left);
        // Release: pairs with `load`: who sees it sees all that was recovered. Failure: another one was quicker.
        let _ = participant.tenure.compare_exchange(last.0, next.0, Ordering::Release, Ordering::Relaxed);
    }
}

/// What has become of a role's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nobody has held the role yet.
    Vacant,
    /// The process `pid` holds it.
    Alive {
        /// In its own namespace.
        pid: u32,
    },
    /// The process `pid` held it and died.
    Dead {
        /// In its own namespace.
        pid: u32,
    },
    /// The process `pid` holds it and is alive, but has lost its proof of life.
    Quarantined {
        /// In its own namespace.
        pid: u32,
    },
    /// The last holder left in good order.
    Left,
}

/// Finds out what has become of the holder of a chair, and says with it the tenure it speaks of.
pub(crate) fn status(chair: &Chair<'_>, locks: &Locks) -> Result<(Tenure, Status)> {
    let participant = chair.participant;
    let mut tenure = Tenure::load(participant);
    // A record that changes under us belongs to somebody who joins or leaves right now, under a lock: few do while we look.
    for _ in 0..4 {
        let status = match tenure.state() {
            State::Vacant => Status::Vacant,
            State::Left => Status::Left,
            State::Present => present(chair, locks)?,
        };
        let again = Tenure::load(participant);
        if again == tenure {
            return Ok((tenure, status));
        }
        tenure = again;
    }
    // Relaxed: it is only reported.
    Ok((tenure, Status::Alive { pid: participant.pid.load(Ordering::Relaxed) }))
}

/// Whether the holder of a chair has died and nobody has noted it: a number that differs from death to death, or 0. Unless it is to
/// be `thorough`, whoever holds the lock counts as alive, which saves a look into `/proc`.
pub(super) fn unnoted_death(chair: &Chair<'_>, locks: &Locks, thorough: bool) -> u64 {
    if Tenure::load(chair.participant).state() != State::Present || !thorough && seems_alive(chair, locks) {
        return 0;
    }
    match status(chair, locks) {
        Ok((tenure, Status::Dead { .. })) => u64::from(tenure.generation()) + 1,
        // An error means only that nothing is known.
        _ => 0,
    }
}

/// Whether the lock of a chair's holder is held, so that it lives, unless a child forked from it keeps the lock.
pub(super) fn seems_alive(chair: &Chair<'_>, locks: &Locks) -> bool {
    // Relaxed: it may be another holder's lock by now; then that one is looked at, now or the next time.
    let lock = chair.participant.lock.load(Ordering::Relaxed);
    // An error is nothing to go by: those of a removed System V segment have no locks any more.
    chair.proofs.contains(&lock) && locks.is_held(lock).unwrap_or(false)
}

fn present(chair: &Chair<'_>, locks: &Locks) -> Result<Status> {
    let participant = chair.participant;
    // Relaxed: ordered behind the load of the tenure that the caller made; checked by its second load.
    let lock = participant.lock.load(Ordering::Relaxed);
    let pid = participant.pid.load(Ordering::Relaxed);
    let process = ProcessId {
        boot_id: [0, 1].map(|i| participant.boot_id[i].load(Ordering::Relaxed)),
        pid_namespace: participant.pid_namespace.load(Ordering::Relaxed),
        pid,
        start_time: participant.start_time.load(Ordering::Relaxed),
    };
    // The lock first, the process after: see `ProcessId::fate`.
    let held = chair.proofs.contains(&lock)
        && match locks.is_held(lock) {
            // Those who have a removed ring open still use it, but System V takes the locks away with the name.
            Err(e) if e.is_removed() => true,
            answer => answer?,
        };
    Ok(match (held, process.fate()) {
        (true, Fate::Gone) => Status::Dead { pid },
        (true, Fate::Alive | Fate::Unknown | Fate::Unasked) => Status::Alive { pid },
        (false, Fate::Alive) => Status::Quarantined { pid },
        (false, Fate::Gone | Fate::Unknown) => Status::Dead { pid },
        (false, Fate::Unasked) => {
            return Err(Error::new(ErrorKind::NoSpace, "find out about", format!("process {pid}"))
                .advise("this process has no descriptor or memory left to look into /proc: see `ulimit -n`"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::{AtomicU32, AtomicU64};
    use crate::segment::Segment;

    #[test]
    fn a_tenure_holds_its_extremes() {
        for state in [State::Vacant, State::Present, State::Left] {
            for (generation, deaths) in [(0, 0), (u32::MAX, 0x3fff_ffff), (7, 3)] {
                let tenure = Tenure::new(generation, deaths, state);
                assert_eq!((tenure.generation(), tenure.deaths(), tenure.state()), (generation, deaths, state));
            }
        }
        assert_eq!(Tenure(0).state(), State::Vacant, "fresh memory");
    }

    #[test]
    fn the_lock_and_the_process_decide_together() {
        let segment = Segment::heap(4096, |_| {}).unwrap();
        let [holder, judge] = [(); 2].map(|()| segment.locks().unwrap());
        let proofs = 5..9;
        let [held, free] = [5, 6];
        assert!(holder.try_acquire(held).unwrap());
        let me = ProcessId::current().unwrap();
        let pid = me.pid;
        let (alive, dead) = (Status::Alive { pid }, Status::Dead { pid });
        for (process, when_held, when_free) in [
            (me, alive, Status::Quarantined { pid }),
            (ProcessId { start_time: me.start_time + 1, ..me }, dead, dead),
            (ProcessId { boot_id: [7; 2], ..me }, alive, dead),
            (ProcessId { pid_namespace: 1, ..me }, alive, dead),
        ] {
            let judged = |lock| {
                let zero = || AtomicU64::new(0);
                let participant = Participant {
                    tenure: zero(),
                    lock: AtomicU32::new(0),
                    pid: AtomicU32::new(0),
                    pid_namespace: zero(),
                    start_time: zero(),
                    boot_id: [zero(), zero()],
                    drops: AtomicU32::new(0),
                };
                Tenure::record_joined(&participant, &process, lock);
                present(&Chair { participant: &participant, proofs: proofs.clone() }, &judge).unwrap()
            };
            assert_eq!((judged(held), judged(free)), (when_held, when_free), "{process:?}");
            assert_eq!(judged(4), when_free, "not a lock of that chair");
        }
    }
}
