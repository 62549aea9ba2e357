//! Death, leaving, recovery and joining.
//!
//! The lock of a seat has one holder, and the holder's death frees it: so there is one recoverer at a time, and its death is a
//! start over. A lease that belongs to a dead consumer is changed by nobody else, so R2's load and CAS are one step.

use crate::consumer::{self, Consumer};
use crate::model::{Model, Step, Who};
use crate::mutants::Mutant;
use crate::producer::{self, Producer};
use crate::truth::Violation;
use crate::words::{Head, Lane, Lease, Lent, Seat, State, rename_head};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Recoverer {
    at: At,
    saw_requeued: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum At {
    /// Before R1's load, and before its CAS.
    Head(u8),
    Record {
        lane: u8,
        head: Head,
    },
    /// Before R2 for a slot, and before the look at what is there then.
    Requeue {
        lane: u8,
        slot: u8,
    },
    News {
        lane: u8,
        slot: u8,
    },
    Announce,
    Vacate,
}

impl Recoverer {
    pub fn rename(&mut self) {
        if let At::Record { head, .. } = &mut self.at {
            rename_head(head);
        }
    }
}

impl Model {
    fn start(&self) -> Recoverer {
        Recoverer {
            at: match self.mutant {
                Mutant::RequeueBeforeRecord => At::Requeue { lane: 0, slot: 0 },
                Mutant::AnnouncementFirst => At::Announce,
                Mutant::VacantFirst => At::Vacate,
                _ => At::Head(0),
            },
            saw_requeued: false,
        }
    }

    pub fn recoverer_steps<const L: usize, const N: usize>(
        &self,
        state: &State<L, N>,
        seat: usize,
        recoverer: Recoverer,
        out: &mut Vec<Step<L, N>>,
    ) {
        let mut next = *state;
        let (what, result) = self.recover(&mut next, seat, recoverer);
        out.push((Who::Recoverer(seat), what, result.map(|()| next)));
    }

    fn recover<const L: usize, const N: usize>(
        &self,
        state: &mut State<L, N>,
        seat: usize,
        mut recoverer: Recoverer,
    ) -> (&'static str, Result<(), Violation>) {
        let (owner, mut result) = (seat as u8, Ok(()));
        let what = match recoverer.at {
            At::Head(lane) => {
                let head = state.lanes[lane as usize].head;
                recoverer.at = if head.run > 0 && head.owner == owner {
                    At::Record { lane, head }
                } else {
                    self.recorded::<L>(lane, recoverer)
                };
                "R1, head"
            }
            At::Record { lane, head } => {
                result = state.lanes[lane as usize].record(head, self.mutant);
                recoverer.at = self.recorded::<L>(lane, recoverer);
                "R1, lease"
            }
            At::Requeue { lane, slot } => {
                let requeued = self.requeue(&mut state.lanes[lane as usize], slot, owner);
                recoverer.at = At::News { lane, slot };
                // Without a CAS the first load can as well be the second.
                if requeued == Ok(false) {
                    self.look_for_news(state, &mut recoverer, lane, slot);
                }
                recoverer.saw_requeued |= requeued == Ok(true) && self.has(Mutant::AnnouncementOfOwn);
                result = requeued.map(|_| ());
                "R2"
            }
            At::News { lane, slot } => {
                self.look_for_news(state, &mut recoverer, lane, slot);
                "R2, again"
            }
            At::Announce => {
                state.announce();
                recoverer.at = if self.has(Mutant::AnnouncementFirst) { At::Head(0) } else { At::Vacate };
                "R3"
            }
            At::Vacate => {
                state.seats[seat] = Seat::Vacant;
                return ("R4", Ok(()));
            }
        };
        state.seats[seat] = Seat::Orphaned(recoverer);
        (what, result)
    }

    /// What follows R1.
    fn recorded<const L: usize>(&self, lane: u8, recoverer: Recoverer) -> At {
        if self.has(Mutant::RequeueBeforeRecord) {
            self.next_lane::<L>(lane, recoverer)
        } else {
            At::Requeue { lane, slot: 0 }
        }
    }

    fn next_lane<const L: usize>(&self, lane: u8, recoverer: Recoverer) -> At {
        let announced = matches!(self.mutant, Mutant::NoAnnouncement | Mutant::AnnouncementFirst);
        match lane + 1 {
            next if next < L as u8 && self.has(Mutant::RequeueBeforeRecord) => At::Requeue { lane: next, slot: 0 },
            next if next < L as u8 => At::Head(next),
            _ if recoverer.saw_requeued && !announced => At::Announce,
            _ => At::Vacate,
        }
    }

    fn look_for_news<const L: usize, const N: usize>(
        &self,
        state: &State<L, N>,
        recoverer: &mut Recoverer,
        lane: u8,
        slot: u8,
    ) {
        let requeued = state.lanes[lane as usize].slot(slot).lease.state == Lent::Requeued;
        recoverer.saw_requeued |= requeued && !self.has(Mutant::AnnouncementOfOwn);
        recoverer.at = if slot + 1 < N as u8 {
            At::Requeue { lane, slot: slot + 1 }
        } else if self.has(Mutant::RequeueBeforeRecord) {
            At::Head(lane)
        } else {
            self.next_lane::<L>(lane, *recoverer)
        };
    }

    /// R2 for one slot. Whether the dead consumer's lease was there; nobody else changes that.
    fn requeue<const N: usize>(&self, lane: &mut Lane<N>, slot: u8, owner: u8) -> Result<bool, Violation> {
        let lease = lane.slot(slot).lease;
        if lease.state != Lent::Leased || lease.owner != owner {
            return Ok(false);
        }
        let first = lease.lap * N as u8 + slot;
        lane.expect_orphans(first, lease.run)?;
        let deliveries = lease.deliveries + 1;
        if deliveries >= self.max_deliveries {
            lane.slot_mut(slot).lease = Lease { lap: lease.lap, run: lease.run, ..Lease::default() };
            lane.free_run(first, lease.run, true)?;
        } else {
            let deliveries = if self.has(Mutant::Unflagged) { lease.deliveries } else { deliveries };
            lane.slot_mut(slot).lease = Lease { owner: 0, deliveries, state: Lent::Requeued, ..lease };
        }
        Ok(true)
    }

    /// What comes from outside: kills, leaving, and joining. Whoever cleans up after a death may be killed without limit.
    pub fn endings<const L: usize, const N: usize>(&self, state: &State<L, N>, out: &mut Vec<Step<L, N>>) {
        let mut push = |who, what, change: &dyn Fn(&mut State<L, N>)| {
            let mut next = *state;
            change(&mut next);
            out.push((who, what, Ok(next)));
        };
        for index in 0..L {
            let cost = match state.lanes[index].producer.at {
                producer::At::Dead => continue,
                producer::At::Clear { head: 1.., .. } | producer::At::Resume(_) | producer::At::Free { .. } => 0,
                _ => 1,
            };
            if state.kills >= cost {
                push(Who::Producer(index), "is killed", &|state| {
                    state.kills -= cost;
                    state.lanes[index].producer = Producer { at: producer::At::Dead, ..Producer::new(0, 0) };
                });
            }
        }
        let taken = state.seats.iter().filter(|&&seat| seat != Seat::Vacant).count();
        for seat in 0..state.seats.len() {
            let orphaned = Seat::Orphaned(self.start());
            match state.seats[seat] {
                Seat::Alive(consumer) => {
                    if state.kills > 0 {
                        push(Who::Consumer(seat), "is killed", &|state| {
                            state.kills -= 1;
                            state.seats[seat] = orphaned;
                            state.orphan(seat as u8);
                        });
                    }
                    if state.leaves > 0 && consumer.at == consumer::At::Idle {
                        push(Who::Consumer(seat), "leaves", &|state| {
                            state.leaves -= 1;
                            state.seats[seat] = orphaned;
                            state.orphan(seat as u8);
                        });
                    }
                }
                Seat::Orphaned(_) if state.seats[seat] == orphaned => {}
                Seat::Orphaned(_) => push(Who::Recoverer(seat), "is killed", &|state| state.seats[seat] = orphaned),
                Seat::Vacant if taken == self.consumers => {}
                Seat::Vacant => push(Who::Consumer(seat), "joins", &|state| state.seats[seat] = self.joiner(state)),
            }
        }
    }

    pub fn joiner<const L: usize, const N: usize>(&self, state: &State<L, N>) -> Seat<L> {
        if self.has(Mutant::JoinWithoutScan) {
            return Seat::Alive(Consumer { seen: true, ..Consumer::new(state.lanes.map(|lane| lane.head)) });
        }
        Seat::Alive(Consumer::new([Head::default(); L]))
    }
}
