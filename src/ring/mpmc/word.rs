//! The words of the ring and the arithmetic of positions.
//!
//! Every word is packed into 64 bits, read once and taken apart here. Positions are modulo 2^53, laps modulo 2^53 / N, and in
//! lanes of less than 32 slots modulo 2^48: they wrap, and are compared by their distance. Zeroed memory is a fresh lane: laps
//! are stored plus one, so that 0 is the lap before the first.

/// The longest run of messages that is claimed at once.
pub const LONGEST_RUN: u32 = 16;
/// How many consumers a ring can tell apart.
pub const MAX_CONSUMERS: u32 = 64;
/// How many lanes, and so producers, a ring can have.
pub const MAX_PRODUCERS: u32 = 64;
/// Slots of the smallest and of the largest lane.
pub const SLOTS: std::ops::RangeInclusive<u64> = 4..=1 << 26;
/// The longest message, in bytes: lengths have 30 bits.
pub const MAX_LENGTH: u64 = (1 << 30) - 1;
/// The most times a message can be delivered: deliveries have 4 bits.
pub const MAX_DELIVERIES: u32 = 15;

const POSITION_BITS: u32 = 53;
const POSITIONS: u64 = (1 << POSITION_BITS) - 1;
const LAPS: u64 = (1 << 48) - 1;

const fn bits(word: u64, from: u32, count: u32) -> u64 {
    word >> from & ((1 << count) - 1)
}

/// The position `count` slots behind this one.
#[inline(always)]
pub(super) const fn ahead(position: u64, count: u64) -> u64 {
    position.wrapping_add(count) & POSITIONS
}

/// The position `count` slots before this one.
#[inline(always)]
pub(super) const fn before(position: u64, count: u64) -> u64 {
    position.wrapping_sub(count) & POSITIONS
}

/// How far it is from one position on to another.
#[inline(always)]
pub(super) const fn distance(from: u64, to: u64) -> u64 {
    before(to, from)
}

/// The number of slots of a lane, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Laps {
    slots_log2: u32,
    slot_mask: u64,
    lap_mask: u64,
}

impl Laps {
    pub(super) const fn new(slots: u64) -> Self {
        let slots_log2 = slots.trailing_zeros();
        Self { slots_log2, slot_mask: slots - 1, lap_mask: POSITIONS >> slots_log2 & LAPS }
    }

    #[inline(always)]
    pub(super) const fn slots(self) -> u64 {
        self.slot_mask + 1
    }

    /// The slot of a position.
    #[inline(always)]
    pub(super) const fn slot(self, position: u64) -> u32 {
        (position & self.slot_mask) as u32
    }

    /// The stored form of a position's lap.
    #[inline(always)]
    pub(super) const fn lap(self, position: u64) -> u64 {
        (position >> self.slots_log2).wrapping_add(1) & self.lap_mask
    }

    /// The position of a slot in a lap, the last one before `head`.
    pub(super) const fn first(self, lap: u64, slot: u32, head: u64) -> u64 {
        let position = (lap.wrapping_sub(1) & self.lap_mask) << self.slots_log2 | slot as u64;
        // In a small lane a lap doesn't tell all of its position.
        let known = self.lap_mask << self.slots_log2 | self.slot_mask;
        before(head, distance(position, head) & known)
    }

    /// Whether stored lap `a` comes before stored lap `b`.
    #[inline(always)]
    pub(super) const fn is_earlier(self, a: u64, b: u64) -> bool {
        let ahead = b.wrapping_sub(a) & self.lap_mask;
        ahead != 0 && ahead <= self.lap_mask / 2
    }
}

/// `[position: 53 | owner: 6 | run: 5]`: behind the last position that was claimed, and who claimed how many there. A run of
/// 0 is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(pub(super) u64);

impl Head {
    #[inline(always)]
    pub(super) const fn new(position: u64, owner: u32, run: u32) -> Self {
        Self(position << 11 | (owner as u64) << 5 | run as u64)
    }

    #[inline(always)]
    pub(super) const fn position(self) -> u64 {
        self.0 >> 11
    }

    #[inline(always)]
    pub(super) const fn owner(self) -> u32 {
        bits(self.0, 5, 6) as u32
    }

    #[inline(always)]
    pub(super) const fn run(self) -> u32 {
        bits(self.0, 0, 5) as u32
    }

    /// Where the last claim begins.
    #[inline(always)]
    pub(super) const fn claimed(self) -> u64 {
        before(self.position(), self.run() as u64)
    }
}

/// What a seal says of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It holds a message.
    Message,
    /// It is pinned: pass over it.
    Skip,
}

/// `[sequence: 32 | lap tag: 25 | 0: 5 | kind: 2]`. The sequence stays that of the slot's last message while the slot is
/// passed over: it may have to be delivered again.
///
/// The tag needs no more bits: a seal is written in every lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal(pub(super) u64);

impl Seal {
    /// The same slot, not published.
    pub(super) const fn cleared(self) -> u64 {
        self.0 >> 32 << 32
    }

    const fn tag(lap: u64) -> u64 {
        bits(lap, 0, 25) << 7
    }

    #[inline(always)]
    pub(super) const fn message(lap: u64, sequence: u32) -> u64 {
        (sequence as u64) << 32 | Self::tag(lap) | 1
    }

    /// The same slot, to be passed over in that lap.
    #[inline(always)]
    pub(super) const fn skip(self, lap: u64) -> u64 {
        self.cleared() | Self::tag(lap) | 2
    }

    /// The same message, of which only the sequence is known yet.
    pub(super) const fn announced(self) -> u64 {
        self.0 | 3
    }

    /// Whether it is such a message, in that lap.
    pub(super) const fn is_announced(self, lap: u64) -> bool {
        self.0 as u32 ^ Self::tag(lap) as u32 == 3
    }

    /// What it says, if it was published in that lap.
    #[inline(always)]
    pub(super) const fn of(self, lap: u64) -> Option<Kind> {
        match self.0 as u32 ^ Self::tag(lap) as u32 {
            1 => Some(Kind::Message),
            2 => Some(Kind::Skip),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// `[tag: 32 | 0 | pooled: 1 | length: 30]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note(pub(super) u64);

impl Note {
    #[inline(always)]
    pub(super) const fn new(length: u64, pooled: bool, tag: u32) -> Self {
        Self((tag as u64) << 32 | (pooled as u64) << 30 | length)
    }

    #[inline(always)]
    pub(super) const fn length(self) -> u64 {
        bits(self.0, 0, 30)
    }

    #[inline(always)]
    pub(super) const fn is_pooled(self) -> bool {
        bits(self.0, 30, 1) != 0
    }

    #[inline(always)]
    pub(super) const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// In whose hands a run of messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Given back: its slots may be written again.
    Released,
    /// The owner's.
    Leased,
    /// Taken from a dead owner, for whoever takes it first.
    Requeued,
}

/// `[lap: 48 | owner: 6 | deliveries: 4 | run - 1: 4 | state: 2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease(pub(super) u64);

impl Lease {
    const STATE: u64 = 3;

    #[inline(always)]
    pub(super) const fn leased(lap: u64, owner: u32, deliveries: u32, run: u32) -> Self {
        Self(lap << 16 | (owner as u64) << 10 | (deliveries as u64) << 6 | ((run - 1) as u64) << 2 | 1)
    }

    /// The same run, in other hands.
    pub(super) const fn with(self, state: State, deliveries: u32) -> Self {
        let state = match state {
            State::Released => 0,
            State::Leased => 1,
            State::Requeued => 2,
        };
        Self(self.0 & !(Self::STATE | 15 << 6) | (deliveries as u64) << 6 | state)
    }

    /// The same run, given back.
    #[inline(always)]
    pub(super) const fn released(self) -> Self {
        Self(self.0 & !Self::STATE)
    }

    /// The same run, leased to `owner`.
    pub(super) const fn leased_to(self, owner: u32) -> Self {
        Self(self.0 & !(Self::STATE | 63 << 10) | (owner as u64) << 10 | 1)
    }

    #[inline(always)]
    pub(super) const fn state(self) -> State {
        match self.0 & Self::STATE {
            0 => State::Released,
            1 => State::Leased,
            // 3 is never written.
            _ => State::Requeued,
        }
    }

    #[inline(always)]
    pub(super) const fn is_released(self) -> bool {
        self.0 & Self::STATE == 0
    }

    #[inline(always)]
    pub(super) const fn lap(self) -> u64 {
        self.0 >> 16
    }

    pub(super) const fn owner(self) -> u32 {
        bits(self.0, 10, 6) as u32
    }

    /// How often these messages were delivered before, to those that died with them.
    #[inline(always)]
    pub(super) const fn deliveries(self) -> u32 {
        bits(self.0, 6, 4) as u32
    }

    #[inline(always)]
    pub(super) const fn run(self) -> u32 {
        bits(self.0, 2, 4) as u32 + 1
    }
}

/// `[lap: 48 | released: 16]`: which messages of a run were given back before the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done(pub(super) u64);

impl Done {
    pub(super) const fn new(lap: u64, released: u16) -> Self {
        Self(lap << 16 | released as u64)
    }

    /// Bit by bit, for the run of that lap.
    pub(super) const fn released(self, lap: u64) -> u16 {
        if self.0 >> 16 == lap { self.0 as u16 } else { 0 }
    }
}

/// `[pool: 32 | index: 32]`: where a message lies that is too long for its slot's own chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u64);

impl Link {
    pub(super) const fn new(pool: u32, index: u32) -> Self {
        Self((pool as u64) << 32 | index as u64)
    }

    pub(super) const fn pool(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) const fn index(self) -> u32 {
        self.0 as u32
    }
}

static_assertions::const_assert!(POSITION_BITS + 6 + 5 == 64);
static_assertions::const_assert!(LONGEST_RUN == 16 && MAX_DELIVERIES == 15 && MAX_CONSUMERS == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_their_extremes() {
        for (position, owner, run) in [(0, 0, 0), (POSITIONS, 63, LONGEST_RUN), (12345, 7, 3)] {
            let head = Head::new(position, owner, run);
            assert_eq!((head.position(), head.owner(), head.run()), (position, owner, run));
        }
        for (lap, owner, deliveries, run) in [(0, 0, 0, 1), ((1 << 48) - 1, 63, 15, 16), (9, 5, 3, 2)] {
            let lease = Lease::leased(lap, owner, deliveries, run);
            assert_eq!((lease.lap(), lease.owner(), lease.deliveries(), lease.run()), (lap, owner, deliveries, run));
            assert_eq!(lease.state(), State::Leased);
            let requeued = lease.with(State::Requeued, 15);
            assert_eq!((requeued.state(), requeued.deliveries(), requeued.run()), (State::Requeued, 15, run));
            assert_eq!(requeued.leased_to(9), Lease::leased(lap, 9, 15, run));
            assert!(lease.with(State::Released, 0).is_released());
        }
        for (length, pooled, tag) in [(0, false, 0), (MAX_LENGTH, true, u32::MAX), (17, true, 4)] {
            let note = Note::new(length, pooled, tag);
            assert_eq!((note.length(), note.is_pooled(), note.tag()), (length, pooled, tag));
        }
        assert!(Lease(0).is_released());
    }

    #[test]
    fn a_seal_is_of_its_lap_only() {
        let laps = Laps::new(4);
        for position in [0, 3, 4, POSITIONS - 4, POSITIONS] {
            let lap = laps.lap(position);
            let seal = Seal(Seal::message(lap, u32::MAX));
            assert_eq!((seal.of(lap), seal.sequence()), (Some(Kind::Message), u32::MAX));
            let skip = Seal(seal.skip(laps.lap(ahead(position, 4))));
            assert_eq!((skip.of(laps.lap(ahead(position, 4))), skip.sequence()), (Some(Kind::Skip), u32::MAX));
            for other in [before(position, 4), ahead(position, 4)] {
                assert_eq!(seal.of(laps.lap(other)), None);
                assert_eq!(Seal(0).of(laps.lap(other)), None);
                assert_eq!(Seal(seal.cleared()).of(laps.lap(other)), None);
            }
        }
    }

    #[test]
    fn laps_wrap() {
        let laps = Laps::new(8);
        assert_eq!(ahead(POSITIONS, 1), 0);
        assert_eq!(distance(POSITIONS, 2), 3);
        assert_eq!(laps.lap(before(0, 1)), 0, "fresh memory is of the lap before the first");
        let (last, first) = (laps.lap(POSITIONS), laps.lap(0));
        assert!(laps.is_earlier(last, first) && !laps.is_earlier(first, last));
        assert!(!laps.is_earlier(first, first));
    }
}
