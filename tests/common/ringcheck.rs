//! Looks at the bytes of a ring of many and checks what must hold of them at any moment, whoever was killed or stopped where.
//!
//! It knows the format (`docs/abi.md`) and shares no code with the library.

use ringway::segment::{Name, Segment};
use std::collections::HashSet;

const SLOTS_START: usize = 128;
const MEMBER: usize = 256;
const CONSUMERS: u32 = 64;
const PRESENT: u64 = 1;

/// The hands in which a run of messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    Leased { consumer: u32 },
    Requeued,
}

/// Messages that were claimed at once and have not all been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub lane: u32,
    pub first: u64,
    pub length: u32,
    pub hands: Hands,
    pub deliveries: u32,
    /// How many of them were given back.
    pub released: u32,
}

/// What there is in a ring.
#[derive(Debug, Default)]
pub struct Found {
    pub runs: Vec<Run>,
    /// Lane and sequence of what was published and not claimed.
    pub unclaimed: Vec<(u32, u32)>,
    /// Of each lane, how many slots have been claimed.
    pub heads: Vec<u64>,
}

impl Found {
    /// Messages in the hands of that consumer.
    pub fn held_by(&self, consumer: u32) -> u32 {
        let runs = self.runs.iter().filter(|run| run.hands == Hands::Leased { consumer });
        runs.map(|run| run.length - run.released).sum()
    }
}

/// Checks the ring of that name.
#[track_caller]
pub fn check(name: &Name) -> Found {
    // Others may be at work: until they have done nothing meanwhile.
    let (ring, report) = loop {
        let (before, report) = (Copy::of(name), ringway::inspect(name).unwrap());
        if Copy::of(name).words == before.words {
            break (before, report);
        }
    };
    assert_eq!(ring.half(ring.commons + 512), 0, "poisoned");
    let mut found = Found::default();
    let used = ring.half(ring.commons + 384);
    assert!(used <= ring.lanes);
    for lane in 0..used {
        Lane { ring: &ring, number: lane, base: ring.data + lane as usize * ring.lane_bytes }.check(&mut found);
    }
    for run in &found.runs {
        if let Hands::Leased { consumer } = run.hands {
            assert!(ring.is_present(ring.lanes + consumer), "one who is gone holds {run:?}");
        }
    }
    let sleepers = ring.word(ring.commons + 128);
    for consumer in (0..CONSUMERS).filter(|&consumer| sleepers & 1 << consumer != 0) {
        assert!(ring.is_present(ring.lanes + consumer), "consumer {consumer} is gone and sleeps");
    }
    for producer in 0..ring.lanes {
        let sleeps = ring.word(ring.members + producer as usize * MEMBER + 136) != 0;
        assert!(!sleeps || ring.is_present(producer), "producer {producer} is gone and sleeps");
    }
    let lanes = report.lanes.unwrap();
    let leased = found.runs.iter().filter(|run| run.hands != Hands::Requeued).count() as u64;
    let requeued = found.runs.len() as u64 - leased;
    let seen = (report.depth, lanes.leased, lanes.requeued);
    assert_eq!(seen, (found.unclaimed.len() as u64, leased, requeued), "the report differs");
    found
}

/// Checks one through which everything has passed.
#[track_caller]
pub fn check_idle(name: &Name) {
    let found = check(name);
    assert!(found.runs.is_empty() && found.unclaimed.is_empty(), "{found:?}");
}

/// The segment's bytes at one moment.
struct Copy {
    words: Vec<u64>,
    lanes: u32,
    slots: u64,
    lane_bytes: usize,
    max_deliveries: u32,
    commons: usize,
    members: usize,
    data: usize,
}

impl Copy {
    fn of(name: &Name) -> Self {
        let segment = Segment::open_read_only(name).unwrap();
        // SAFETY: inside of the mapping and aligned; others may be writing it, of which the compiler can know nothing.
        let word = |index| unsafe { segment.as_ptr().as_ptr().cast::<u64>().add(index).read_volatile() };
        let words: Vec<u64> = (0..segment.len() / 8).map(word).collect();
        let mut copy =
            Self { words, lanes: 0, slots: 0, lane_bytes: 0, max_deliveries: 0, commons: 0, members: 0, data: 0 };
        assert_eq!((copy.half(40), copy.half(132)), (2, CONSUMERS), "not a ring of many");
        copy.lanes = copy.half(128);
        copy.max_deliveries = copy.half(136);
        copy.slots = copy.word(144);
        copy.lane_bytes = copy.word(152) as usize;
        [copy.commons, copy.members, copy.data] = [80, 88, 104].map(|offset| copy.word(offset) as usize);
        copy
    }

    fn word(&self, offset: usize) -> u64 {
        self.words[offset / 8]
    }

    fn half(&self, offset: usize) -> u32 {
        (self.word(offset & !7) >> (offset % 8 * 8)) as u32
    }

    /// How many chunks of what size a pool has.
    fn pool(&self, pool: usize) -> (u32, u32) {
        assert!(pool < 6);
        (self.half(160 + pool * 8), self.half(164 + pool * 8))
    }

    fn is_present(&self, member: u32) -> bool {
        self.word(self.members + member as usize * MEMBER) & 3 == PRESENT
    }
}

struct Lane<'a> {
    ring: &'a Copy,
    number: u32,
    base: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Skip,
}

impl Lane<'_> {
    fn check(&self, found: &mut Found) {
        let slots = self.ring.slots;
        let head = self.ring.word(self.base) >> 11;
        let runs = self.runs(head);
        let mut held = HashSet::new();
        let mut chunks = HashSet::new();
        for run in &runs {
            assert!(run.first + u64::from(run.length) <= head, "held, but not claimed: {run:?}");
            assert!(run.length <= 16 && run.deliveries <= self.ring.max_deliveries, "{run:?}");
            for position in run.first..run.first + u64::from(run.length) {
                assert!(held.insert(position % slots), "two hold slot {}: {runs:?}", position % slots);
                self.check_chunk(position, &mut chunks);
            }
        }
        let mut published = (head..head + slots).map_while(|position| Some((position, self.kind(position)?)));
        let mut last = None;
        let mut is_skip = false;
        for (position, kind) in &mut published {
            is_skip = kind == Kind::Skip;
            if is_skip {
                continue;
            }
            assert!(!held.contains(&(position % slots)), "position {position} was written while its slot was held");
            self.check_chunk(position, &mut chunks);
            let sequence = (self.seal(position) >> 32) as u32;
            assert!(last.is_none_or(|last: u32| sequence == last + 1), "{last:?}, then {sequence}");
            assert!(u64::from(sequence) <= position);
            last = Some(sequence);
            found.unclaimed.push((self.number, sequence));
        }
        assert!(!is_skip, "skips without a message behind them");
        found.heads.push(head);
        found.runs.extend(runs);
    }

    /// What is in somebody's hands, also if only the head tells so.
    fn runs(&self, head: u64) -> Vec<Run> {
        let slots = self.ring.slots;
        let leases = self.base + SLOTS_START + slots as usize * 16;
        let done = leases + slots as usize * 8;
        let lap = |position: u64| position / slots + 1;
        let released = |first: u64, length: u32| {
            let done = self.ring.word(done + (first % slots) as usize * 8);
            let released = if done >> 16 == lap(first) { done as u16 } else { 0 };
            assert_eq!(u32::from(released) >> length, 0, "more is given back than there is");
            released.count_ones()
        };
        let mut runs = Vec::new();
        for slot in 0..slots {
            let lease = self.ring.word(leases + slot as usize * 8);
            let hands = match lease & 3 {
                0 => continue,
                1 => Hands::Leased { consumer: (lease >> 10) as u32 & 63 },
                2 => Hands::Requeued,
                _ => panic!("slot {slot} has lease {lease:#x}"),
            };
            let length = (lease >> 2) as u32 % 16 + 1;
            let first = ((lease >> 16) - 1) * slots + slot;
            let deliveries = (lease >> 6) as u32 % 16;
            runs.push(Run { lane: self.number, first, length, hands, deliveries, released: released(first, length) });
        }
        let word = self.ring.word(self.base);
        let (consumer, length) = ((word >> 5) as u32 & 63, word as u32 & 31);
        let first = head - u64::from(length);
        if length > 0 && self.ring.word(leases + (first % slots) as usize * 8) >> 16 < lap(first) {
            let hands = Hands::Leased { consumer };
            runs.push(Run {
                lane: self.number,
                first,
                length,
                hands,
                deliveries: 0,
                released: released(first, length),
            });
        }
        runs
    }

    fn seal(&self, position: u64) -> u64 {
        self.ring.word(self.base + SLOTS_START + (position % self.ring.slots) as usize * 16)
    }

    /// What is published at a position.
    fn kind(&self, position: u64) -> Option<Kind> {
        let lap = (position / self.ring.slots + 1) & ((1 << 25) - 1);
        match self.seal(position) as u32 ^ (lap as u32) << 7 {
            1 => Some(Kind::Message),
            2 => Some(Kind::Skip),
            _ => None,
        }
    }

    /// The chunk of a message must be there, and be no other's.
    fn check_chunk(&self, position: u64, chunks: &mut HashSet<(usize, u32)>) {
        let slots = self.ring.slots as usize;
        let slot = (position % self.ring.slots) as usize;
        let note = self.ring.word(self.base + SLOTS_START + slot * 16 + 8);
        let (length, chunk) = (note as u32 & ((1 << 30) - 1), self.ring.half(140));
        if note & 1 << 30 == 0 {
            return assert!(length <= chunk, "{length} bytes in a slot's chunk");
        }
        let own = (SLOTS_START + slots * 32).next_multiple_of(128) + slot * chunk as usize;
        let link = self.ring.word(self.base + own);
        let (pool, index) = ((link >> 32) as usize, link as u32);
        let (size, count) = self.ring.pool(pool);
        assert!(index < count && length <= size, "{length} bytes in chunk {index} of {count} of {size} bytes");
        assert!(chunks.insert((pool, index)), "two messages in chunk {index} of pool {pool}");
    }
}
