//! claim, release and redeliver.
//!
//! C2 and C5 are one step each, load and CAS together, for the reason that [`crate::producer`] gives. The `done` of a lease
//! belongs to its owner alone, so reading it is part of C5.

use crate::model::{Model, Step, Who};
use crate::mutants::Mutant;
use crate::truth::Violation;
use crate::words::{Done, Head, Kind, Lane, Lease, Lent, Seat, State, rename_head};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Consumer {
    pub at: At,
    /// Whether `seen`, and the value of requeues that was read before the scan, still are the newest.
    pub seen: bool,
    pub read: bool,
    /// Sorted, for fewer states; what isn't held has a run of 0.
    pub held: [Held; 2],
    /// What was available when it began to look for a message, and has been ever since.
    pub overlooked: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Held {
    pub run: u8,
    pub lane: u8,
    pub first: u8,
    pub deliveries: u8,
    pub done: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum At {
    #[default]
    Idle,
    /// Before the lease of this slot, counted over all lanes.
    Scan(u8),
    /// Before C0.
    Head { lane: u8 },
    /// Before C1 for `position`. The first message found so far; 0 is none.
    Walk { lane: u8, head: Head, position: u8, first: u8 },
    /// Before C2.
    Record { lane: u8, head: Head, first: u8, run: u8 },
    /// Before C3.
    Claim { lane: u8, head: Head, first: u8, run: u8 },
}

impl Consumer {
    pub fn rename(&mut self) {
        match &mut self.at {
            At::Walk { head, .. } | At::Record { head, .. } | At::Claim { head, .. } => rename_head(head),
            _ => {}
        }
    }

    pub fn at_rest(&self) -> bool {
        self.at == At::Idle && self.held_count() == 0
    }

    fn held_count(&self) -> u8 {
        self.held.iter().filter(|held| held.run > 0).count() as u8
    }

    fn idle(&mut self) {
        self.at = At::Idle;
        self.read = false;
        self.overlooked = 0;
    }

    fn hold(&mut self, held: Held) {
        self.idle();
        self.held[0] = held;
        self.held.sort_unstable();
    }
}

impl<const N: usize> Lane<N> {
    /// C2.
    pub fn record(&mut self, head: Head, mutant: Mutant) -> Result<(), Violation> {
        if head.run == 0 {
            return Ok(());
        }
        let (lap, late) = (Self::lap(head.first()), self.head != head);
        let lease = &mut self.slot_mut(head.first()).lease;
        if lease.lap < lap || (mutant == Mutant::RecordOverLaterLap && lease.lap > lap) {
            *lease = Lease { lap, owner: head.owner, deliveries: 0, run: head.run, state: Lent::Leased };
            if late {
                return Err("a C2 that comes late changes a lease");
            }
        }
        Ok(())
    }
}

/// A consumer's view of the state that it changes.
struct Turn<'a, const L: usize, const N: usize> {
    model: &'a Model,
    state: State<L, N>,
    seat: usize,
}

impl<const L: usize, const N: usize> Turn<'_, L, N> {
    fn me(&mut self) -> &mut Consumer {
        match &mut self.state.seats[self.seat] {
            Seat::Alive(consumer) => consumer,
            _ => unreachable!("only the living move"),
        }
    }

    fn begin(&mut self) {
        let available = self.state.available();
        let consumer = self.me();
        consumer.overlooked = available;
        if consumer.seen {
            consumer.at = At::Head { lane: 0 };
        } else {
            consumer.read = true;
            consumer.at = At::Scan(0);
        }
    }

    fn scan(&mut self, index: u8) -> Result<(), Violation> {
        let (lane, slot) = (index / N as u8, index % N as u8);
        let lease = self.state.lanes[lane as usize].slot(slot).lease;
        if lease.state == Lent::Requeued {
            return self.take(lane, slot, lease);
        }
        let late = self.model.has(Mutant::SeenAfterScan);
        let consumer = self.me();
        if index + 1 < (L * N) as u8 {
            consumer.at = At::Scan(index + 1);
        } else {
            consumer.seen = consumer.read || late;
            consumer.read = false;
            consumer.at = At::Head { lane: 0 };
        }
        Ok(())
    }

    /// C5.
    fn take(&mut self, index: u8, slot: u8, lease: Lease) -> Result<(), Violation> {
        let owner = self.seat as u8;
        let lane = &mut self.state.lanes[index as usize];
        let lease = Lease { owner, state: Lent::Leased, ..lease };
        let Done { lap, bits } = lane.slot(slot).done;
        let valid = lap == lease.lap || self.model.has(Mutant::DoneOfAnyLap);
        let bits = if valid && !self.model.has(Mutant::DoneIgnored) { bits } else { 0 };
        let first = lease.lap * N as u8 + slot;
        lane.slot_mut(slot).lease = lease;
        lane.hand_out_again(first, lease, bits)?;
        let held = Held { run: lease.run, lane: index, first, deliveries: lease.deliveries, done: bits };
        self.me().hold(held);
        self.state.taken();
        Ok(())
    }

    /// C1. `more`: a message behind the first ones may be claimed with them.
    fn walk(&mut self, lane: u8, head: Head, position: u8, first: u8, more: bool) -> Result<(), Violation> {
        let shared = &self.state.lanes[lane as usize];
        let seal = shared.slot(position).seal;
        let run = if first == 0 { 0 } else { position - first };
        let over_skip = self.model.has(Mutant::RunOverSkip) && run > 0;
        let kind = match seal.kind {
            Kind::Skip if over_skip && shared.sealed(position) => Kind::Message,
            _ if shared.sealed(position) => seal.kind,
            _ => Kind::Nothing,
        };
        let passed = seal.lap > Lane::<N>::lap(position) && !self.model.has(Mutant::PassedIsEmpty);
        let most = self.model.run;
        let at = match kind {
            Kind::Message if run + 1 < most && more => {
                At::Walk { lane, head, position: position + 1, first: position - run }
            }
            Kind::Message => At::Record { lane, head, first: position - run, run: run + 1 },
            _ if run > 0 => At::Record { lane, head, first, run },
            Kind::Skip => At::Walk { lane, head, position: position + 1, first: 0 },
            Kind::Nothing if passed => At::Head { lane },
            Kind::Nothing if lane + 1 < L as u8 => At::Head { lane: lane + 1 },
            Kind::Nothing => return self.empty(),
        };
        self.me().at = at;
        Ok(())
    }

    fn empty(&mut self) -> Result<(), Violation> {
        if self.me().overlooked != 0 {
            return Err("empty is said, but there was a message all along");
        }
        self.me().idle();
        Ok(())
    }

    /// C3.
    fn claim(&mut self, lane: u8, head: Head, first: u8, run: u8) -> Result<(), Violation> {
        let owner = self.seat as u8;
        let shared = &mut self.state.lanes[lane as usize];
        if shared.head != head {
            self.me().at = At::Head { lane };
            return Ok(());
        }
        shared.head = Head { position: first + run, owner, run };
        (first..first + run).try_for_each(|position| shared.hand_out(position, owner))?;
        self.me().hold(Held { run, lane, first, deliveries: 0, done: 0 });
        self.state.taken();
        Ok(())
    }

    fn release(&mut self, index: usize, member: u8) -> Result<(), Violation> {
        let owner = self.seat as u8;
        let mut held = self.me().held[index];
        let lane = &mut self.state.lanes[held.lane as usize];
        let lap = Lane::<N>::lap(held.first);
        let all = (1 << held.run) - 1;
        lane.give_back_one(held.first + member, owner)?;
        if held.done | 1 << member == all || self.model.has(Mutant::RunReleasedEarly) {
            lane.slot_mut(held.first).lease = Lease { lap, ..Lease::default() };
            lane.free_run(held.first, held.run, false)?;
            held = Held::default();
        } else {
            held.done |= 1 << member;
            lane.slot_mut(held.first).done = Done { lap, bits: held.done };
        }
        let consumer = self.me();
        consumer.held[index] = held;
        consumer.held.sort_unstable();
        Ok(())
    }
}

impl Model {
    pub fn consumer_steps<const L: usize, const N: usize>(
        &self,
        state: &State<L, N>,
        seat: usize,
        out: &mut Vec<Step<L, N>>,
    ) {
        let mut push = |what, act: &dyn Fn(&mut Turn<L, N>) -> Result<(), Violation>| {
            let mut turn = Turn { model: self, state: *state, seat };
            let result = act(&mut turn);
            out.push((Who::Consumer(seat), what, result.map(|()| turn.state)));
        };
        let Seat::Alive(consumer) = state.seats[seat] else { return };
        match consumer.at {
            At::Idle => {
                for (index, held) in consumer.held.iter().enumerate() {
                    for member in (0..held.run).filter(|member| held.done >> member & 1 == 0) {
                        push("releases", &|turn| turn.release(index, member));
                    }
                }
                if consumer.held_count() < self.hold {
                    push("reads requeues", &|turn| {
                        turn.begin();
                        Ok(())
                    });
                }
            }
            At::Scan(index) => push("scans", &|turn| turn.scan(index)),
            At::Head { lane } => push("C0", &|turn| {
                let head = turn.state.lanes[lane as usize].head;
                turn.me().at = At::Walk { lane, head, position: head.position, first: 0 };
                Ok(())
            }),
            At::Walk { lane, head, position, first } => {
                push("C1", &|turn| turn.walk(lane, head, position, first, true));
                if self.run > 1 && state.lanes[lane as usize].sealed(position) {
                    push("C1, no more", &|turn| turn.walk(lane, head, position, first, false));
                }
            }
            At::Record { lane, head, first, run } => push("C2", &|turn| {
                if !self.has(Mutant::ClaimUnrecorded) {
                    turn.state.lanes[lane as usize].record(head, self.mutant)?;
                }
                turn.me().at = At::Claim { lane, head, first, run };
                Ok(())
            }),
            At::Claim { lane, head, first, run } => push("C3", &|turn| turn.claim(lane, head, first, run)),
        }
    }
}
