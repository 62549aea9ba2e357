//! The shared words, and what each participant has for itself.

use crate::consumer::Consumer;
use crate::producer::{self, Producer};
use crate::recovery::Recoverer;

/// A word that never was written is of lap 0; positions start at lap 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seal {
    pub lap: u8,
    pub kind: Kind,
    pub sequence: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Kind {
    #[default]
    Nothing,
    Message,
    Skip,
    /// A message whose sequence is all that counts yet.
    Announced,
}

/// Of a released lease nobody looks at more than lap and run, and of a requeued one at the owner: these are 0, which spares
/// states that differ in nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lease {
    pub lap: u8,
    pub owner: u8,
    pub deliveries: u8,
    pub run: u8,
    pub state: Lent,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Lent {
    #[default]
    Released,
    Leased,
    Requeued,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Done {
    pub lap: u8,
    pub bits: u8,
}

/// A run of 0 tells of no claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Head {
    pub position: u8,
    pub owner: u8,
    pub run: u8,
}

impl Head {
    pub fn first(self) -> u8 {
        self.position - self.run
    }
}

/// What really becomes of a slot's message, whatever the words say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Fate {
    #[default]
    Free,
    /// Published, and nobody's yet.
    Waiting,
    Held(u8),
    /// Given back by the holder of a run that keeps the others.
    Returned,
    /// Its holder died or left. Announced: R3 came after it was requeued.
    Orphan {
        announced: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Slot {
    pub seal: Seal,
    pub lease: Lease,
    pub done: Done,
    /// The sequence that its payload belongs to, how often that was handed out, and what became of it.
    pub message: u8,
    pub handed_out: u8,
    pub fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane<const N: usize> {
    pub head: Head,
    pub slots: [Slot; N],
    pub producer: Producer,
    /// How many messages were published, and how many of them were handed out at least once.
    pub published: u8,
    pub delivered: u8,
}

impl<const N: usize> Lane<N> {
    fn new() -> Self {
        let start = N as u8;
        let head = Head { position: start, ..Head::default() };
        let lease = Lease { run: 1, ..Lease::default() };
        let slot = Slot { lease, ..Slot::default() };
        Lane { head, slots: [slot; N], producer: Producer::new(start, 0), published: 0, delivered: 0 }
    }

    pub fn lap(position: u8) -> u8 {
        position / N as u8
    }

    pub fn slot(&self, position: u8) -> &Slot {
        &self.slots[position as usize % N]
    }

    pub fn slot_mut(&mut self, position: u8) -> &mut Slot {
        &mut self.slots[position as usize % N]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seat<const L: usize> {
    Alive(Consumer<L>),
    /// Its consumer died or is leaving, and someone recovers it.
    Orphaned(Recoverer),
    Vacant,
}

/// The seats come first: they mostly decide how two states compare.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct State<const L: usize, const N: usize> {
    pub seats: [Seat<L>; 2],
    pub lanes: [Lane<N>; L],
    /// How many more may be killed, and may leave.
    pub kills: u8,
    pub leaves: u8,
}

impl<const L: usize, const N: usize> State<L, N> {
    pub fn new(consumers: usize, kills: u8, leaves: u8) -> Self {
        // They have scanned the ring while it was empty.
        let lanes = [Lane::new(); L];
        let consumer = Consumer { seen: true, ..Consumer::new(lanes.map(|lane: Lane<N>| lane.head)) };
        let seats = std::array::from_fn(|seat| if seat < consumers { Seat::Alive(consumer) } else { Seat::Vacant });
        State { seats, lanes, kills, leaves }
    }

    /// The same with the two consumers' names exchanged: whatever one of them leads to, the other one does.
    pub fn canonical(&self) -> Self {
        let mut other = *self;
        other.seats.swap(0, 1);
        for seat in &mut other.seats {
            match seat {
                Seat::Alive(consumer) => consumer.rename(),
                Seat::Orphaned(recoverer) => recoverer.rename(),
                Seat::Vacant => {}
            }
        }
        for lane in &mut other.lanes {
            rename_head(&mut lane.head);
            if let producer::At::Record { head, .. } | producer::At::Resume(head) = &mut lane.producer.at {
                rename_head(head);
            }
            for slot in &mut lane.slots {
                if slot.lease.state == Lent::Leased {
                    slot.lease.owner = 1 - slot.lease.owner;
                }
                if let Fate::Held(owner) = &mut slot.fate {
                    *owner = 1 - *owner;
                }
            }
        }
        other.min(*self)
    }
}

pub fn rename_head(head: &mut Head) {
    if head.run > 0 {
        head.owner = 1 - head.owner;
    }
}
