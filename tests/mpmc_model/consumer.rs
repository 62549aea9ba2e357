//! claim, release, redeliver, and putting back.
//!
//! C2 and C5 are one step each, load and CAS together, for the reason that [`crate::producer`] gives. The `done` of a lease
//! belongs to its owner alone, so reading it is part of C5.

use crate::model::{Model, Step, Who};
use crate::mutants::Mutant;
use crate::truth::Violation;
use crate::words::{Done, Head, Kind, Lane, Lease, Lent, Seat, State, rename_head};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Consumer<const L: usize> {
    pub at: At,
    /// Whether `seen`, and the value of requeues that was read before the scan, still are the newest.
    pub seen: bool,
    pub read: bool,
    /// Sorted, for fewer states; what isn't held has a run of 0.
    pub held: [Held; 2],
    /// The heads as last seen; a position of 0 is none yet.
    pub heads: [Head; L],
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

/// `left` is how many lanes there are still to look at, with this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum At {
    Idle,
    /// Before the lane's head is read for the first time.
    Open(u8),
    /// Before the lease of this slot, counted over all lanes.
    Scan(u8),
    /// Before C1 for `position`. The first message found so far; 0 is none.
    Walk {
        lane: u8,
        left: u8,
        position: u8,
        first: u8,
    },
    /// Before C0: nothing was found from the head on, as it was last seen.
    Head {
        lane: u8,
        left: u8,
    },
    /// Before C2.
    Record {
        lane: u8,
        left: u8,
        first: u8,
        run: u8,
    },
    /// Before C3.
    Claim {
        lane: u8,
        left: u8,
        first: u8,
        run: u8,
    },
    /// Before it tells that it has put messages back.
    Tell,
}

impl<const L: usize> Consumer<L> {
    pub fn new(heads: [Head; L]) -> Self {
        Consumer { at: At::Idle, seen: false, read: false, held: [Held::default(); 2], heads, overlooked: 0 }
    }

    pub fn rename(&mut self) {
        self.heads.iter_mut().for_each(rename_head);
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

    fn set_held(&mut self, index: usize, held: Held) {
        self.held[index] = held;
        self.held.sort_unstable();
    }

    fn walk_from_head(&mut self, lane: u8, left: u8) {
        self.at = At::Walk { lane, left, position: self.heads[lane as usize].position, first: 0 };
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

/// A consumer, and the state that it changes.
struct Turn<'a, const L: usize, const N: usize> {
    model: &'a Model,
    state: State<L, N>,
    seat: usize,
}

impl<const L: usize, const N: usize> Turn<'_, L, N> {
    fn me(&mut self) -> &mut Consumer<L> {
        match &mut self.state.seats[self.seat] {
            Seat::Alive(consumer) => consumer,
            _ => unreachable!("only the living move"),
        }
    }

    fn begin(&mut self, lane: u8) -> Result<(), Violation> {
        let available = self.state.available();
        let consumer = self.me();
        consumer.overlooked = available;
        if consumer.seen {
            consumer.walk_from_head(lane, L as u8);
        } else {
            consumer.read = true;
            consumer.at = if consumer.heads[L - 1].position == 0 { At::Open(0) } else { At::Scan(0) };
        }
        Ok(())
    }

    fn open(&mut self, lane: u8) -> Result<(), Violation> {
        let head = self.state.lanes[lane as usize].head;
        let consumer = self.me();
        consumer.heads[lane as usize] = head;
        consumer.at = if lane + 1 < L as u8 { At::Open(lane + 1) } else { At::Scan(0) };
        Ok(())
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
            consumer.walk_from_head(0, L as u8);
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
        self.have(held);
        Ok(())
    }

    fn have(&mut self, held: Held) {
        let consumer = self.me();
        consumer.idle();
        consumer.set_held(0, held);
        self.state.taken();
    }

    /// C1. `more`: messages behind the first one may be claimed with it.
    fn walk(&mut self, lane: u8, left: u8, position: u8, first: u8, more: bool) -> Result<(), Violation> {
        let run = if first == 0 { 0 } else { position - first };
        let over_skip = self.model.has(Mutant::RunOverSkip) && run > 0;
        let kind = match self.state.lanes[lane as usize].sealed(position) {
            Some(Kind::Skip) if over_skip => Some(Kind::Message),
            kind => kind,
        };
        let most = self.model.run;
        let at = match kind {
            Some(Kind::Message) if run + 1 < most && more => {
                At::Walk { lane, left, position: position + 1, first: position - run }
            }
            Some(Kind::Message) => At::Record { lane, left, first: position - run, run: run + 1 },
            _ if run > 0 => At::Record { lane, left, first, run },
            Some(_) => At::Walk { lane, left, position: position + 1, first: 0 },
            None if self.model.has(Mutant::EmptyAtOnce) => return self.nothing(lane, left),
            None => At::Head { lane, left },
        };
        self.me().at = at;
        Ok(())
    }

    /// C0.
    fn read_head(&mut self, lane: u8, left: u8) -> Result<(), Violation> {
        let head = self.state.lanes[lane as usize].head;
        if self.me().heads[lane as usize] == head {
            return self.nothing(lane, left);
        }
        self.me().heads[lane as usize] = head;
        self.me().walk_from_head(lane, left);
        Ok(())
    }

    fn nothing(&mut self, lane: u8, left: u8) -> Result<(), Violation> {
        if left > 1 {
            self.me().walk_from_head((lane + 1) % L as u8, left - 1);
            return Ok(());
        }
        if self.me().overlooked != 0 {
            return Err("empty is said, but there was a message all along");
        }
        self.me().idle();
        Ok(())
    }

    /// C3.
    fn claim(&mut self, lane: u8, left: u8, first: u8, run: u8) -> Result<(), Violation> {
        let owner = self.seat as u8;
        let index = lane as usize;
        let shared = &mut self.state.lanes[index];
        let actual = shared.head;
        let next = Head { position: first + run, owner, run };
        let Seat::Alive(consumer) = &mut self.state.seats[self.seat] else { unreachable!("only the living move") };
        if consumer.heads[index] != actual {
            consumer.heads[index] = actual;
            consumer.walk_from_head(lane, left);
            return Ok(());
        }
        (shared.head, consumer.heads[index]) = (next, next);
        (first..first + run).try_for_each(|position| shared.hand_out(position, owner))?;
        self.have(Held { run, lane, first, deliveries: 0, done: 0 });
        Ok(())
    }

    /// C4.
    fn release(&mut self, index: usize, member: u8) -> Result<(), Violation> {
        let owner = self.seat as u8;
        let mut held = self.me().held[index];
        let lane = &mut self.state.lanes[held.lane as usize];
        let lap = Lane::<N>::lap(held.first);
        let all = (1 << held.run) - 1;
        lane.give_back_one(held.first + member, owner)?;
        if held.done | 1 << member == all || self.model.has(Mutant::RunReleasedEarly) {
            lane.slot_mut(held.first).lease = Lease { lap, run: held.run, ..Lease::default() };
            lane.free_run(held.first, held.run, false)?;
            held = Held::default();
        } else {
            held.done |= 1 << member;
            lane.slot_mut(held.first).done = Done { lap, bits: held.done };
        }
        self.me().set_held(index, held);
        Ok(())
    }

    /// The run's messages don't count as delivered.
    fn put_back(&mut self, index: usize) -> Result<(), Violation> {
        let (owner, untold) = (self.seat as u8, self.model.has(Mutant::PutBackUntold));
        let Held { run, lane, first, deliveries, .. } = self.me().held[index];
        let lane = &mut self.state.lanes[lane as usize];
        let lap = Lane::<N>::lap(first);
        lane.slot_mut(first).lease = Lease { lap, owner: 0, deliveries, run, state: Lent::Requeued };
        lane.put_back(first, run, owner)?;
        let consumer = self.me();
        consumer.set_held(index, Held::default());
        consumer.at = if untold { At::Idle } else { At::Tell };
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
                for (index, held) in consumer.held.iter().enumerate().filter(|(_, held)| held.run > 0) {
                    for member in (0..held.run).filter(|member| held.done >> member & 1 == 0) {
                        push("releases", &|turn| turn.release(index, member));
                    }
                    if self.puts_back {
                        push("puts back", &|turn| turn.put_back(index));
                    }
                }
                let may_hold = consumer.held_count() < self.hold;
                // Which lane it looks at first depends on what it did before; after a scan it is all the same.
                for lane in (0..if consumer.seen { L } else { 1 }).filter(|_| may_hold) {
                    push("reads requeues", &|turn| turn.begin(lane as u8));
                }
            }
            At::Open(lane) => push("C0", &|turn| turn.open(lane)),
            At::Scan(index) => push("scans", &|turn| turn.scan(index)),
            At::Walk { lane, left, position, first } => {
                push("C1", &|turn| turn.walk(lane, left, position, first, true));
                if self.run > 1 && state.lanes[lane as usize].sealed(position) == Some(Kind::Message) {
                    push("C1, no more", &|turn| turn.walk(lane, left, position, first, false));
                }
            }
            At::Head { lane, left } => push("C0", &|turn| turn.read_head(lane, left)),
            At::Record { lane, left, first, run } => push("C2", &|turn| {
                let head = turn.me().heads[lane as usize];
                turn.me().at = At::Claim { lane, left, first, run };
                if self.has(Mutant::ClaimUnrecorded) {
                    return Ok(());
                }
                turn.state.lanes[lane as usize].record(head, self.mutant)
            }),
            At::Claim { lane, left, first, run } => push("C3", &|turn| turn.claim(lane, left, first, run)),
            At::Tell => push("R3", &|turn| {
                turn.me().at = At::Idle;
                turn.state.announce();
                Ok(())
            }),
        }
    }
}
