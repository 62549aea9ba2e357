//! What a new producer does to the lane of a dead one, and a living one to a batch that it abandons.

use crate::model::Model;
use crate::mutants::Mutant;
use crate::producer::{At, Producer};
use crate::truth::Violation;
use crate::words::{Kind, Lane, Lent, Seal};

impl Model {
    /// The seals stay as they are while there is no producer, so reading all of them is one step with reading the head.
    pub fn resume<const N: usize>(&self, lane: &mut Lane<N>) -> Result<(), Violation> {
        let head = lane.head;
        let mut tail = head.position;
        let mut sequence = self.next_sequence(lane, tail);
        while let Some(kind) = lane.sealed(tail).filter(|_| tail < head.position + N as u8) {
            if kind == Kind::Message {
                sequence = lane.slot(tail).seal.sequence + 1;
            }
            tail += 1;
        }
        lane.producer = Producer { at: At::Resume(head), ..Producer::new(tail, sequence) };
        Ok(())
    }

    /// The sequence of the next message, if the last one that was published lies right before `tail`.
    fn next_sequence<const N: usize>(&self, lane: &Lane<N>, tail: u8) -> u8 {
        let slots = N as u8;
        if lane.sealed(tail - 1).is_some() {
            return lane.slot(tail - 1).seal.sequence.wrapping_add(1);
        }
        if lane.sealed(tail + slots - 1).is_none() && !self.has(Mutant::UnusedLaneSeemsFilled) {
            return 0;
        }
        // What was never published has filled the lane, with the last message's slot: then its own first message tells.
        let is_message = |position: &u8| {
            let Seal { lap, kind, .. } = lane.slot(*position).seal;
            lap == Lane::<N>::lap(*position) && matches!(kind, Kind::Announced | Kind::Message)
        };
        (tail..tail + slots).find(is_message).map_or(0, |position| lane.slot(position).seal.sequence)
    }

    pub fn abandon<const N: usize>(&self, lane: &mut Lane<N>) -> Result<(), Violation> {
        let producer = &mut lane.producer;
        let batch = producer.batch.take().expect("there is a batch");
        let end = producer.tail;
        producer.tail = batch.start;
        producer.sequence -= batch.count;
        producer.free_until = batch.free_until;
        lane.clear_next(end, 0, self);
        Ok(())
    }

    /// The last message that was published gets its seal back, if it has lost it: it tells where the sequence goes on.
    pub fn clear<const N: usize>(&self, lane: &mut Lane<N>, position: u8, head: u8) -> Result<(), Violation> {
        let Producer { tail, sequence, .. } = lane.producer;
        if position - tail == N as u8 - 1 && !self.has(Mutant::NotRestored) {
            // Of a lane that was never used it is the message before the first; nobody sees that.
            let sequence = sequence.wrapping_sub(1);
            lane.slot_mut(position).seal = Seal { lap: Lane::<N>::lap(tail - 1), kind: Kind::Message, sequence };
        } else {
            let seal = &mut lane.slot_mut(position).seal;
            *seal = Seal { sequence: seal.sequence, ..Seal::default() };
        }
        lane.clear_next(position, head, self);
        Ok(())
    }
}

impl<const N: usize> Lane<N> {
    /// Goes on with the last seal before `end` that was never published.
    pub fn clear_next(&mut self, end: u8, head: u8, model: &Model) {
        let tail = self.producer.tail;
        let stale = (tail + 1..end).rev().find(|&position| self.sealed(position).is_some());
        self.producer.at = match stale {
            Some(position) if !model.has(Mutant::StaleSeals) => At::Clear { position, head },
            _ if head == 0 || model.has(Mutant::FromRunToRun) => At::Rest,
            _ => At::Free { head },
        };
    }

    /// The tail may lie within a run that was given back: so slot by slot.
    pub fn find_free(&mut self, head: u8) {
        let (slots, Producer { tail, free_until, .. }) = (N as u8, self.producer);
        let within = free_until < tail + slots && free_until < head + slots;
        if within && self.slot(free_until).lease.state == Lent::Released {
            self.producer.free_until += 1;
        } else {
            self.producer.at = At::Rest;
        }
    }
}
