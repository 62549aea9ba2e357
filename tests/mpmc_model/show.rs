//! States as text, for traces.

use crate::model::Model;
use crate::words::{Done, Fate, Head, Kind, Lease, Lent, Seal, Seat, Slot, State};
use std::fmt::{Display, Formatter, Result};

impl<const L: usize, const N: usize> Display for State<L, N> {
    fn fmt(&self, f: &mut Formatter) -> Result {
        for lane in &self.lanes {
            write!(f, "\n    head {}, tail {}, {:?}", lane.head, lane.producer.tail, lane.producer.at)?;
            for slot in &lane.slots {
                write!(f, " | {slot}")?;
            }
        }
        for (index, seat) in self.seats.iter().enumerate() {
            match seat {
                Seat::Alive(consumer) => {
                    let current = if consumer.seen { "" } else { ", must scan" };
                    write!(f, "\n    {index}: {:?}{current}", consumer.at)?;
                }
                other => write!(f, "\n    {index}: {other:?}")?,
            }
        }
        Ok(())
    }
}

impl Display for Model {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let Model { lanes, slots, messages, batch, run, hold, kills, leaves, .. } = self;
        write!(f, "{lanes} lanes of {slots} slots and {messages} messages, batches of {batch}, runs of {run}, ")?;
        write!(f, "{} consumers, {hold} leases, {kills} kills, {leaves} leaves", self.consumers)?;
        match self.max_deliveries {
            1 => write!(f, ", dropped at once")?,
            2.. if self.kills + self.leaves < self.max_deliveries => {}
            most => write!(f, ", dropped after {most} deliveries")?,
        }
        let also = [(self.aborts, "aborts"), (self.puts_back, "puts back"), (self.stopped, "somebody stopped")];
        also.into_iter().filter(|(set, _)| *set).try_for_each(|(_, what)| write!(f, ", {what}"))
    }
}

impl Display for Head {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(f, "({}, owner {}, run {})", self.position, self.owner, self.run)
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter) -> Result {
        let Seal { lap, kind, sequence } = self.seal;
        match kind {
            Kind::Nothing => write!(f, "-")?,
            Kind::Message => write!(f, "lap {lap} #{sequence}")?,
            Kind::Skip => write!(f, "lap {lap} skip #{sequence}")?,
            Kind::Announced => write!(f, "lap {lap} announced #{sequence}")?,
        }
        let Lease { lap, owner, deliveries, run, state } = self.lease;
        match state {
            Lent::Released => write!(f, ", released {lap}")?,
            Lent::Leased => write!(f, ", leased {lap} by {owner}, run {run}, deliveries {deliveries}")?,
            Lent::Requeued => write!(f, ", requeued {lap}, run {run}, deliveries {deliveries}")?,
        }
        let Done { lap, bits } = self.done;
        if bits != 0 {
            write!(f, ", done {lap}:{bits:b}")?;
        }
        if self.fate != Fate::Free {
            write!(f, ", {:?}", self.fate)?;
        }
        Ok(())
    }
}
