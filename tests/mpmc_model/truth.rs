//! What must hold at each step, told by the fates of the messages and not by the words.

use crate::words::{Fate, Kind, Lane, Lease, Lent, Seat, State};

pub type Violation = &'static str;

impl<const N: usize> Lane<N> {
    /// The producer takes the slot for a new message.
    pub fn expect_unused(&self, position: u8) -> Result<(), Violation> {
        if self.slot(position).fate == Fate::Free { Ok(()) } else { Err("a slot in use is written") }
    }

    pub fn publish(&mut self, position: u8) -> Result<(), Violation> {
        self.expect_unused(position)?;
        if self.sealed(position) != Some(Kind::Message) {
            return Err("a message that is published can't be seen");
        }
        let sequence = self.published;
        let slot = self.slot_mut(position);
        if slot.seal.sequence != sequence {
            return Err("a sequence is used twice, or left out");
        }
        (slot.message, slot.handed_out, slot.fate) = (sequence, 0, Fate::Waiting);
        self.published += 1;
        Ok(())
    }

    /// C3 has succeeded.
    pub fn hand_out(&mut self, position: u8, owner: u8) -> Result<(), Violation> {
        let next = self.delivered;
        let slot = self.slot_mut(position);
        if slot.fate != Fate::Waiting {
            return Err("what is no unclaimed message is claimed");
        }
        if slot.message != next {
            return Err("the order of a lane is broken");
        }
        (slot.handed_out, slot.fate) = (1, Fate::Held(owner));
        self.delivered += 1;
        Ok(())
    }

    /// C5 has succeeded, and `bits` are what `done` told the new owner.
    pub fn hand_out_again(&mut self, first: u8, lease: Lease, bits: u8) -> Result<(), Violation> {
        for member in 0..lease.run {
            let slot = self.slot_mut(first + member);
            let given_back = bits >> member & 1 == 1;
            match slot.fate {
                Fate::Returned if given_back => {}
                Fate::Returned => return Err("a message is delivered again after its release"),
                Fate::Orphan { .. } if given_back => return Err("a message that nobody released counts as released"),
                Fate::Orphan { .. } if lease.deliveries != slot.handed_out => {
                    return Err("the flag of a message delivered again is wrong");
                }
                Fate::Orphan { .. } => {
                    slot.handed_out += 1;
                    slot.fate = Fate::Held(lease.owner);
                }
                _ => return Err("a message is delivered again while somebody has it"),
            }
        }
        Ok(())
    }

    pub fn give_back_one(&mut self, position: u8, owner: u8) -> Result<(), Violation> {
        let slot = self.slot_mut(position);
        if slot.fate != Fate::Held(owner) {
            return Err("a consumer releases what is not its own");
        }
        slot.fate = Fate::Returned;
        Ok(())
    }

    /// The lease of a run is released, with its last message given back, or by a recoverer who drops what is left.
    pub fn free_run(&mut self, first: u8, run: u8, dropped: bool) -> Result<(), Violation> {
        for position in first..first + run {
            let slot = self.slot_mut(position);
            match slot.fate {
                Fate::Returned => {}
                Fate::Orphan { .. } if dropped => {}
                _ => return Err("a lease is released, but its messages are not"),
            }
            (slot.message, slot.handed_out, slot.fate) = (0, 0, Fate::Free);
        }
        Ok(())
    }

    /// Its owner puts a run back that it has not looked at.
    pub fn put_back(&mut self, first: u8, run: u8, owner: u8) -> Result<(), Violation> {
        for position in first..first + run {
            let slot = self.slot_mut(position);
            match slot.fate {
                Fate::Returned => {}
                Fate::Held(holder) if holder == owner => {
                    slot.handed_out -= 1;
                    slot.fate = Fate::Orphan { announced: false };
                }
                _ => return Err("a consumer puts back what is not its own"),
            }
        }
        Ok(())
    }

    /// A recoverer requeues a run.
    pub fn expect_orphans(&self, first: u8, run: u8) -> Result<(), Violation> {
        let orphan = |position| matches!(self.slot(position).fate, Fate::Orphan { .. } | Fate::Returned);
        if (first..first + run).all(orphan) { Ok(()) } else { Err("a living consumer's lease is recovered") }
    }

    fn intact(&self) -> bool {
        self.slots.iter().all(|slot| match slot.fate {
            Fate::Held(_) | Fate::Orphan { .. } => slot.seal.sequence == slot.message,
            Fate::Waiting => slot.seal.sequence == slot.message && slot.seal.kind == Kind::Message,
            _ => true,
        })
    }
}

impl<const L: usize, const N: usize> State<L, N> {
    pub fn check(&self) -> Result<(), Violation> {
        if self.lanes.iter().all(Lane::intact) { Ok(()) } else { Err("the seal of a message in use has changed") }
    }

    pub fn orphan(&mut self, owner: u8) {
        for slot in self.lanes.iter_mut().flat_map(|lane| &mut lane.slots) {
            if slot.fate == Fate::Held(owner) {
                slot.fate = Fate::Orphan { announced: false };
            }
        }
    }

    /// R3 has been done. Values of `requeues` are only ever compared with the newest one.
    pub fn announce(&mut self) {
        for lane in &mut self.lanes {
            for index in 0..N as u8 {
                let lease = lane.slot(index).lease;
                for member in (0..lease.run).filter(|_| lease.state == Lent::Requeued) {
                    if let Fate::Orphan { announced } = &mut lane.slot_mut(index + member).fate {
                        *announced = true;
                    }
                }
            }
        }
        for seat in &mut self.seats {
            if let Seat::Alive(consumer) = seat {
                (consumer.seen, consumer.read) = (false, false);
            }
        }
    }

    /// The slots, a bit each, whose message anyone could have.
    pub fn available(&self) -> u8 {
        let slots = self.lanes.iter().flat_map(|lane| &lane.slots).enumerate();
        let available = |fate| matches!(fate, Fate::Waiting | Fate::Orphan { announced: true });
        slots.filter(|(_, slot)| available(slot.fate)).fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// Nobody who is looking for messages has overlooked what is gone by now.
    pub fn taken(&mut self) {
        let available = self.available();
        for seat in &mut self.seats {
            if let Seat::Alive(consumer) = seat {
                consumer.overlooked &= available;
            }
        }
    }
}
