//! reserve, commit, batches.
//!
//! Only the producer writes its seals, so it needs no step to read them. C2, a load of a lease and the CAS that follows, is
//! one step: if the CAS fails, all goes on as if the load had come later and seen what made it fail; if it succeeds, the load
//! could have come just before it. Giving and aborting a loan touches nothing shared, and note and payload are looked at by
//! nobody before the seal: these are part of other steps.

use crate::model::{Model, Step, Who};
use crate::mutants::Mutant;
use crate::truth::Violation;
use crate::words::{Fate, Head, Kind, Lane, Lease, Lent, Seal, State};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Producer {
    pub at: At,
    /// Of the next message, and its sequence; those of an unpublished batch are counted.
    pub tail: u8,
    pub sequence: u8,
    /// From the tail to here the slots are known to be free.
    pub free_until: u8,
    pub batch: Option<Batch>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Batch {
    pub start: u8,
    pub count: u8,
    /// Of the seal whose store will publish all.
    pub first: Kind,
    /// What to go back to.
    pub free_until: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum At {
    Rest,
    /// Before P0 for a position; the head; C2; and P0 again, where the head had to be asked.
    Look(u8),
    Head(u8),
    Record {
        position: u8,
        head: Head,
    },
    Again(u8),
    /// A loan behind pinned slots, and to where it goes on free.
    Reserved {
        position: u8,
        until: u8,
    },
    /// Before P1, or P2, in the commit of the loan at `position`.
    Commit {
        store: Store,
        position: u8,
        until: u8,
        batched: bool,
    },
    /// Before the seal of `position` is taken back. The head of a resume; 0 is a batch abandoned.
    Clear {
        position: u8,
        head: u8,
    },
    Dead,
    /// In resume, before C2, and before P0 for the first slot not yet known to be free.
    Resume(Head),
    Free {
        head: u8,
    },
}

/// The stores of a commit, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Store {
    Announce,
    Message,
    Skip(u8),
    First,
}

impl Producer {
    pub fn new(tail: u8, sequence: u8) -> Self {
        Producer { at: At::Rest, tail, sequence, free_until: tail, batch: None }
    }

    pub fn at_rest(&self) -> bool {
        self.at == At::Rest && self.batch.is_none()
    }

    fn batched(&self) -> u8 {
        self.batch.map_or(0, |batch| batch.count)
    }
}

impl Model {
    pub fn producer_steps<const L: usize, const N: usize>(
        &self,
        state: &State<L, N>,
        index: usize,
        out: &mut Vec<Step<L, N>>,
    ) {
        let mut push = |what, change: &dyn Fn(&mut Lane<N>) -> Result<(), Violation>| {
            let mut next = *state;
            let result = change(&mut next.lanes[index]);
            out.push((Who::Producer(index), what, result.map(|()| next)));
        };
        let lane = &state.lanes[index];
        let producer = lane.producer;
        let may_batch = producer.batched() < self.batch && self.batch > 1;
        match producer.at {
            At::Rest => {
                if producer.batch.is_some() {
                    push("publishes the batch", &|lane| self.publish(lane));
                    if self.aborts {
                        push("abandons the batch", &|lane| self.abandon(lane));
                    }
                }
                if lane.published + producer.batched() >= self.messages || (producer.batch.is_some() && !may_batch) {
                    return;
                }
                let Producer { tail, free_until, .. } = producer;
                if tail == free_until {
                    return push("looks at a lease", &|lane| self.look(lane, tail));
                }
                if producer.batch.is_none() {
                    push("commits", &|lane| self.commit(lane, tail, free_until, false));
                }
                if may_batch {
                    push("commits in a batch", &|lane| self.commit(lane, tail, free_until, true));
                }
            }
            At::Reserved { position, until } => {
                if producer.batch.is_none() {
                    push("commits", &|lane| self.commit(lane, position, until, false));
                }
                if may_batch {
                    push("commits in a batch", &|lane| self.commit(lane, position, until, true));
                }
                if self.aborts {
                    push("aborts", &|lane| {
                        lane.producer.at = At::Rest;
                        Ok(())
                    });
                }
            }
            At::Look(position) => push("looks at a lease", &|lane| self.look(lane, position)),
            At::Head(position) => push("reads the head", &|lane| {
                let head = lane.head;
                let full = position >= head.position + N as u8 && !self.has(Mutant::NoHeadCheck);
                lane.producer.at = if full { At::Rest } else { At::Record { position, head } };
                Ok(())
            }),
            At::Record { position, head } => push("C2", &|lane| {
                lane.producer.at = At::Again(position);
                if self.has(Mutant::OldLeaseIsFree) { Ok(()) } else { lane.record(head, self.mutant) }
            }),
            At::Again(position) => push("looks again", &|lane| self.look_again(lane, position)),
            At::Commit { store, position, until, batched } => {
                push("seals", &|lane| self.store(lane, store, position, until, batched));
            }
            At::Clear { position, head } => push("clears a seal", &|lane| self.clear(lane, position, head)),
            At::Dead => push("reads the head", &|lane| self.resume(lane)),
            At::Resume(head) => push("C2", &|lane| {
                let tail = lane.producer.tail;
                lane.clear_next(tail + N as u8, head.position, self);
                lane.record(head, self.mutant)
            }),
            At::Free { head } => push("looks for free slots", &|lane| {
                lane.find_free(head);
                Ok(())
            }),
        }
    }

    /// P0.
    fn look<const N: usize>(&self, lane: &mut Lane<N>, position: u8) -> Result<(), Violation> {
        let lease = lane.slot(position).lease;
        if lease.state == Lent::Released && lease.lap + 1 == Lane::<N>::lap(position) {
            return self.found(lane, position, lease);
        }
        lane.producer.at = At::Head(position);
        Ok(())
    }

    fn look_again<const N: usize>(&self, lane: &mut Lane<N>, position: u8) -> Result<(), Violation> {
        let lease = lane.slot(position).lease;
        let another_lap = lease.lap + 1 != Lane::<N>::lap(position);
        if lease.state == Lent::Released || (self.has(Mutant::PinForOneLap) && another_lap) {
            return self.found(lane, position, lease);
        }
        let tail = lane.producer.tail;
        let next = position + self.run(lease);
        if self.has(Mutant::SkipAlone) && position == tail && lane.producer.batch.is_none() {
            (tail..next).for_each(|position| self.skip(lane, position));
            (lane.producer.tail, lane.producer.free_until) = (next, next);
        }
        lane.producer.at = if next < tail + N as u8 { At::Look(next) } else { At::Rest };
        Ok(())
    }

    fn run(&self, lease: Lease) -> u8 {
        if self.has(Mutant::MembersIgnored) { 1 } else { lease.run }
    }

    /// The slots of that run are free.
    fn found<const N: usize>(&self, lane: &mut Lane<N>, position: u8, lease: Lease) -> Result<(), Violation> {
        let until = position + self.run(lease);
        if position == lane.producer.tail {
            lane.producer.free_until = until;
            lane.producer.at = At::Rest;
        } else {
            lane.producer.at = At::Reserved { position, until };
        }
        (position..until).try_for_each(|position| lane.expect_unused(position))
    }

    /// Up to the first store of the commit of a loan.
    fn commit<const N: usize>(
        &self,
        lane: &mut Lane<N>,
        position: u8,
        until: u8,
        batched: bool,
    ) -> Result<(), Violation> {
        let Producer { tail, batch, .. } = lane.producer;
        let announced = |batch: Batch| position - batch.start == N as u8 - 1 && batch.first == Kind::Message;
        let store = match batch {
            Some(batch) if announced(batch) && !self.has(Mutant::NotAnnounced) => Store::Announce,
            _ if position == tail => Store::First,
            _ => Store::Message,
        };
        self.store(lane, store, position, until, batched)
    }

    fn store<const N: usize>(
        &self,
        lane: &mut Lane<N>,
        store: Store,
        position: u8,
        until: u8,
        batched: bool,
    ) -> Result<(), Violation> {
        let Producer { tail, sequence, batch, .. } = lane.producer;
        let next = match store {
            Store::Announce => {
                let Batch { start, count, .. } = batch.expect("only batches are announced");
                lane.set_seal(start, Kind::Announced, sequence - count);
                if position == tail { Store::First } else { Store::Message }
            }
            Store::Message => {
                lane.expect_unused(position)?;
                lane.set_seal(position, Kind::Message, sequence);
                if position > tail + 1 { Store::Skip(tail + 1) } else { Store::First }
            }
            Store::Skip(skipped) => {
                if lane.slot(skipped).fate == Fate::Waiting {
                    return Err("an unclaimed message is passed over");
                }
                self.skip(lane, skipped);
                if skipped + 1 < position { Store::Skip(skipped + 1) } else { Store::First }
            }
            Store::First => return self.store_first(lane, position, until, batched),
        };
        lane.producer.at = At::Commit { store: next, position, until, batched };
        // The first seal of a batch is not stored yet.
        if next == Store::First && batched && batch.is_none() && !self.has(Mutant::FirstSealFirst) {
            return self.store_first(lane, position, until, batched);
        }
        Ok(())
    }

    fn store_first<const N: usize>(
        &self,
        lane: &mut Lane<N>,
        position: u8,
        until: u8,
        batched: bool,
    ) -> Result<(), Violation> {
        let Producer { tail, sequence, batch, free_until, .. } = lane.producer;
        let first = if position == tail { Kind::Message } else { Kind::Skip };
        if !batched || batch.is_some() || self.has(Mutant::FirstSealFirst) {
            match first {
                Kind::Message => lane.set_seal(tail, Kind::Message, sequence),
                _ => self.skip(lane, tail),
            }
        }
        let producer = &mut lane.producer;
        producer.at = At::Rest;
        producer.tail = position + 1;
        producer.sequence = sequence + 1;
        producer.free_until = until;
        if !batched {
            return lane.publish(position);
        }
        match &mut producer.batch {
            Some(batch) => batch.count += 1,
            None => producer.batch = Some(Batch { start: tail, count: 1, first, free_until }),
        }
        Ok(())
    }

    /// P2 for a batch.
    fn publish<const N: usize>(&self, lane: &mut Lane<N>) -> Result<(), Violation> {
        let Producer { tail, sequence, batch, .. } = lane.producer;
        let Batch { start, count, first, .. } = batch.expect("there is a batch");
        lane.producer.batch = None;
        match first {
            Kind::Message => lane.set_seal(start, Kind::Message, sequence - count),
            _ => self.skip(lane, start),
        }
        let message = |position: &u8| lane.slot(*position).seal.kind == Kind::Message;
        let messages: Vec<u8> = (start..tail).filter(message).collect();
        messages.into_iter().try_for_each(|position| lane.publish(position))
    }

    fn skip<const N: usize>(&self, lane: &mut Lane<N>, position: u8) {
        let forgotten = lane.producer.sequence;
        let kept = lane.slot(position).seal.sequence;
        lane.set_seal(position, Kind::Skip, if self.has(Mutant::SkipForgetsSequence) { forgotten } else { kept });
    }
}

impl<const N: usize> Lane<N> {
    pub fn set_seal(&mut self, position: u8, kind: Kind, sequence: u8) {
        self.slot_mut(position).seal = Seal { lap: Self::lap(position), kind, sequence };
    }

    /// What was published, or seems to be.
    pub fn sealed(&self, position: u8) -> Option<Kind> {
        let Seal { lap, kind, .. } = self.slot(position).seal;
        let valid = lap == Self::lap(position) && matches!(kind, Kind::Message | Kind::Skip);
        valid.then_some(kind)
    }
}
