//! A segment with a ring of many producers and many consumers: where its parts lie, and the parts as references to atomics.

use std::ptr::NonNull;

use super::header::{Header, LanesHeader, Rejected};
use super::side::{Line, Participant};
use super::{PAGE, SEMAPHORE};
use crate::primitive::{AtomicU32, AtomicU64};
use crate::ring::mpmc::{
    Lane, MAX_CONSUMERS, MAX_DELIVERIES, MAX_LENGTH, MAX_POOLS, MAX_PRODUCERS, Place, Pool, Ring, SLOTS, Shape, Slot,
};

/// The largest chunk that a slot has for its own, in bytes. Smaller ones are a power of two from 8 on, which share cache lines, or
/// whole lines.
const LARGEST_CHUNK: u64 = 256;
/// From how many bytes of a lane on no chunk is smaller than a line.
const MANY_BYTES: u64 = 64 << 20;
/// From one size class to the next.
const CLASS_STEP: u64 = 16;
/// The least slots of a lane, and the least chunks of a pool: a few must not be in use while a few are.
const LEAST_SLOTS: u64 = 64;
const LEAST_CHUNKS: u64 = 4;
/// The largest ring, in bytes of chunks.
const LARGEST: u64 = 1 << 35;
/// Chunks start at a cache line, and the other parts of a lane at two.
const LINE: u64 = 64;
const LINES: u64 = 128;

/// What all share, each word on lines of its own.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Commons {
    /// Counts the changes of who is there.
    pub(crate) roster: Line<AtomicU32>,
    /// The consumers that sleep, or are about to: bit by bit.
    pub(crate) waiters: Line<AtomicU64>,
    /// How often messages were put back.
    pub(crate) requeues: Line<AtomicU64>,
    /// How many lanes were ever used.
    pub(crate) lanes_used: Line<AtomicU32>,
    /// Not 0 once somebody has seen what no correct peer writes.
    pub(crate) poisoned: Line<AtomicU32>,
    /// Messages put back since the ring was made, and messages dropped.
    pub(crate) recovered: Line<[AtomicU64; 2]>,
}

/// The words of one producer or consumer.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) participant: Participant,
    /// On which it sleeps.
    pub(crate) bell: Line<Bell>,
}

/// What a sleeper and those who wake it share.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Bell {
    /// Moves on with each wake.
    pub(crate) epoch: AtomicU32,
    /// How its owner wants to be woken.
    pub(crate) manner: AtomicU32,
    /// Of a producer: 1 while it sleeps, or is about to, for room in its lane.
    pub(crate) waiting: AtomicU64,
}

static_assertions::const_assert_eq!(size_of::<Commons>(), PAGE as usize);
static_assertions::const_assert_eq!(std::mem::offset_of!(Commons, waiters), 128);
static_assertions::const_assert_eq!(std::mem::offset_of!(Commons, requeues), 256);
static_assertions::const_assert_eq!(std::mem::offset_of!(Commons, lanes_used), 384);
static_assertions::const_assert_eq!(std::mem::offset_of!(Commons, poisoned), 512);
static_assertions::const_assert_eq!(std::mem::offset_of!(Commons, recovered), 640);
static_assertions::const_assert_eq!(size_of::<Member>(), 256);
static_assertions::const_assert_eq!(std::mem::offset_of!(Member, bell), 128);
static_assertions::const_assert_eq!(std::mem::offset_of!(Bell, waiting), 8);
static_assertions::const_assert_eq!(size_of::<Slot>(), 16);

/// Where the parts of such a segment lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MpmcLayout {
    pub(crate) shape: Shape,
    pub(crate) lanes: u32,
    pub(crate) max_deliveries: u32,
    commons: u64,
    members: u64,
    pub(super) semaphores: u64,
    data: u64,
}

impl MpmcLayout {
    /// For a ring with that many lanes, of together at least `capacity` bytes, and messages of at least `max_message` bytes,
    /// if sizes allow it. Without `max_message` it is a sixteenth of a lane.
    ///
    /// A lane's bytes are divided evenly among its size classes.
    pub(crate) fn new(capacity: u64, max_message: Option<u64>, lanes: u32, max_deliveries: u32) -> Option<Self> {
        if !(1..=MAX_PRODUCERS).contains(&lanes) || !(1..=MAX_DELIVERIES).contains(&max_deliveries) {
            return None;
        }
        let share = capacity.div_ceil(lanes.into());
        let max_message = max_message.unwrap_or((share / 16).clamp(LINE, 1 << 29));
        if max_message > MAX_LENGTH {
            return None;
        }
        let largest = match max_message {
            // In a large ring the words of a slot would take more than its chunk.
            0..LINE if share <= MANY_BYTES => max_message.max(8).next_power_of_two(),
            0..LINE => LINE,
            _ => max_message.next_multiple_of(LINE),
        };
        let chunk = largest.min(LARGEST_CHUNK);
        let mut sizes: Vec<u64> = std::iter::successors(Some(chunk), |size| Some(size * CLASS_STEP))
            .take_while(|&size| size < largest)
            .skip(1)
            .collect();
        sizes.extend((largest > chunk).then_some(largest));
        let share = share.div_ceil(1 + sizes.len() as u64);
        let slots = share.div_ceil(chunk).max(LEAST_SLOTS).checked_next_power_of_two().filter(|n| SLOTS.contains(n))?;
        let mut pools = [Pool::default(); MAX_POOLS];
        for (pool, size) in pools.iter_mut().zip(sizes) {
            let count = share.div_ceil(size).max(LEAST_CHUNKS);
            *pool = Pool { size: u32::try_from(size).ok()?, count: u32::try_from(count).ok()? };
        }
        let shape = Shape { slots, chunk: chunk as u32, pools, max_message };
        let commons = PAGE;
        let members = commons + PAGE;
        let semaphores = members + members_bytes(lanes);
        let data = semaphores + semaphores_bytes(lanes);
        let layout = Self { shape, lanes, max_deliveries, commons, members, semaphores, data };
        (layout.capacity() <= LARGEST).then_some(layout)
    }

    /// How many members there can be.
    pub(super) fn members(&self) -> u32 {
        self.lanes + MAX_CONSUMERS
    }

    /// Bytes of all chunks.
    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.lanes) * chunk_bytes(&self.shape)
    }

    pub(super) fn parts(&self) -> [u64; 4] {
        [self.commons, self.members, self.semaphores, self.data]
    }

    /// Bytes of each part.
    pub(super) fn sizes(&self) -> [u64; 4] {
        let lanes = u64::from(self.lanes) * Plan::new(&self.shape).bytes;
        [PAGE, members_bytes(self.lanes), semaphores_bytes(self.lanes), lanes]
    }

    /// Behind the last part of a segment made here.
    pub(super) fn end(&self) -> u64 {
        self.data + self.sizes()[3]
    }

    pub(super) fn header(&self) -> LanesHeader {
        LanesHeader {
            lanes: self.lanes,
            consumers: MAX_CONSUMERS,
            max_deliveries: self.max_deliveries,
            chunk: self.shape.chunk,
            slots: self.shape.slots,
            lane_bytes: Plan::new(&self.shape).bytes,
            pools: self.shape.pools.map(|pool| [pool.size, pool.count]),
            ..LanesHeader::default()
        }
    }

    pub(super) fn check(header: &Header) -> Result<Self, Rejected> {
        let given = &header.lanes;
        let damaged = |why| Err(Rejected::Damaged(why));
        if !(1..=MAX_PRODUCERS).contains(&given.lanes) || given.consumers != MAX_CONSUMERS {
            return damaged("it has a number of lanes, or of consumers, out of bounds");
        }
        if !(1..=MAX_DELIVERIES).contains(&given.max_deliveries) {
            return damaged("its most deliveries are out of bounds");
        }
        let chunk = u64::from(given.chunk);
        if !given.slots.is_power_of_two()
            || !SLOTS.contains(&given.slots)
            || given.slots < LEAST_SLOTS
            || !is_chunk(chunk)
        {
            return damaged("its slots are out of bounds");
        }
        let pools = given.pools.map(|[size, count]| Pool { size, count });
        let mut largest = chunk;
        for (index, pool) in pools.iter().enumerate() {
            let size = u64::from(pool.size);
            let unused = pool.size == 0 && pool.count == 0 && pools[index..].iter().all(|pool| pool.size == 0);
            let used = size > largest && size.is_multiple_of(LINE) && u64::from(pool.count) >= LEAST_CHUNKS;
            if !unused && !used {
                return damaged("its pools are out of order");
            }
            largest = largest.max(size);
        }
        let shape = Shape { slots: given.slots, chunk: given.chunk, pools, max_message: header.max_message };
        if shape.max_message > largest.min(MAX_LENGTH) {
            return damaged("the largest message does not fit into a chunk");
        }
        // Checked before it is multiplied by the number of lanes.
        if chunk_bytes(&shape) > LARGEST {
            return damaged("its lanes are out of bounds");
        }
        let [commons, members, semaphores, data] = header.parts;
        let (lanes, max_deliveries) = (given.lanes, given.max_deliveries);
        let layout = Self { shape, lanes, max_deliveries, commons, members, semaphores, data };
        if layout.capacity() > LARGEST || layout.capacity() != header.capacity {
            return damaged("its capacity is not that of its lanes");
        }
        if Plan::new(&shape).bytes != given.lane_bytes {
            return damaged("its lanes have another size");
        }
        Ok(layout)
    }
}

fn is_chunk(bytes: u64) -> bool {
    match bytes {
        0..LINE => bytes >= 8 && bytes.is_power_of_two(),
        _ => bytes.is_multiple_of(LINE) && bytes <= LARGEST_CHUNK,
    }
}

fn members_bytes(lanes: u32) -> u64 {
    (u64::from(lanes + MAX_CONSUMERS) * size_of::<Member>() as u64).next_multiple_of(PAGE)
}

fn semaphores_bytes(lanes: u32) -> u64 {
    (u64::from(lanes + MAX_CONSUMERS) * SEMAPHORE).next_multiple_of(PAGE)
}

/// Bytes of the chunks of a lane. The pools' sizes and counts have 32 bits, so that it can't overflow.
fn chunk_bytes(shape: &Shape) -> u64 {
    let pools = shape.pools.iter().map(|pool| u64::from(pool.size).saturating_mul(pool.count.into()));
    pools.fold(shape.slots * u64::from(shape.chunk), u64::saturating_add)
}

/// Where the parts of a lane lie, in bytes from its start: the head, the slots, the leases, which of them are done, the slots'
/// chunks and those of the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    leases: u64,
    done: u64,
    chunks: u64,
    chunk: u64,
    pools: [u64; MAX_POOLS],
    bytes: u64,
}

/// The head's lines come first.
const SLOTS_START: u64 = LINES;

impl Plan {
    fn new(shape: &Shape) -> Self {
        let leases = SLOTS_START + shape.slots * size_of::<Slot>() as u64;
        let done = leases + shape.slots * 8;
        let chunks = (done + shape.slots * 8).next_multiple_of(LINES);
        let mut end = chunks + shape.slots * u64::from(shape.chunk);
        let pools = shape.pools.map(|pool| {
            let start = end.next_multiple_of(LINES);
            end = start + u64::from(pool.size) * u64::from(pool.count);
            start
        });
        Self { leases, done, chunks, chunk: shape.chunk.into(), pools, bytes: end.next_multiple_of(PAGE) }
    }
}

/// A mapped ring. It borrows the mapping without saying so: see [`new`](Self::new).
#[derive(Clone, Copy, Debug)]
pub(crate) struct MpmcView {
    commons: NonNull<Commons>,
    members: NonNull<Member>,
    data: NonNull<u8>,
    plan: Plan,
    shape: Shape,
    lanes: u32,
}

// SAFETY: a view is pointers to memory that is only accessed atomically, or by asm copies, or by grants that the ring's
// protocol makes exclusive; none of it belongs to a thread.
unsafe impl Send for MpmcView {}
// SAFETY: as above; a view itself is never written.
unsafe impl Sync for MpmcView {}

impl MpmcView {
    /// The view of a segment with a checked layout.
    ///
    /// # Safety
    /// `base` must be page-aligned and the start of a segment with this layout, which stays mapped as long as the view or
    /// anything got from it is used. Of its bytes only atomics and racing copies are made by all, but for grants.
    pub(crate) unsafe fn new(base: NonNull<u8>, layout: &MpmcLayout) -> Self {
        // SAFETY: a checked layout lies within its segment.
        let part = |offset: u64| unsafe { base.add(offset as usize) };
        Self {
            commons: part(layout.commons).cast(),
            members: part(layout.members).cast(),
            data: part(layout.data),
            plan: Plan::new(&layout.shape),
            shape: layout.shape,
            lanes: layout.lanes,
        }
    }

    #[inline(always)]
    pub(crate) fn commons(&self) -> &Commons {
        // SAFETY: page-aligned, mapped and made of atomics, by the promise to `new`.
        unsafe { self.commons.as_ref() }
    }

    /// How many producers there can be.
    pub(crate) fn lanes(&self) -> u32 {
        self.lanes
    }

    /// The sizes of each lane.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The words of a member: the producers come first, then the consumers.
    #[inline(always)]
    pub(crate) fn member(&self, number: u32) -> &Member {
        assert!(number < self.lanes + MAX_CONSUMERS);
        // SAFETY: within the members, aligned, and made of atomics.
        unsafe { self.members.add(number as usize).as_ref() }
    }

    /// Where a message of a lane lies. Places come from the ring's algorithm, which has checked them.
    #[inline(always)]
    pub(crate) fn payload(&self, lane: u32, place: Place) -> NonNull<u8> {
        match place {
            Place::Slot(slot) => self.lane(lane).chunk(slot),
            Place::Pool { pool, index } => self.pooled(lane, pool, index),
        }
    }

    #[cold]
    fn pooled(&self, lane: u32, pool: u32, index: u32) -> NonNull<u8> {
        let Pool { size, count } = self.shape.pools[pool as usize];
        debug_assert!(index < count);
        let offset = self.plan.pools[pool as usize] + u64::from(index) * u64::from(size);
        // SAFETY: a chunk of a lane of the layout.
        unsafe { self.lane(lane).base.add(offset as usize) }
    }
}

impl Ring for MpmcView {
    type Lane = LaneView;

    #[inline(always)]
    fn lanes_used(&self) -> u32 {
        // Acquire: pairs with the store of who joined as a producer of it.
        self.commons().lanes_used.0.load(crate::primitive::Ordering::Acquire).min(self.lanes)
    }

    #[inline(always)]
    fn lane(&self, lane: u32) -> LaneView {
        debug_assert!(lane < self.lanes);
        // SAFETY: lanes are counted below `lanes`, by their owner or by `lanes_used`.
        let base = unsafe { self.data.add(lane as usize * self.plan.bytes as usize) };
        LaneView {
            base,
            leases: self.plan.leases,
            done: self.plan.done,
            chunks: self.plan.chunks,
            chunk: self.plan.chunk,
        }
    }

    #[inline(always)]
    fn requeues(&self) -> &AtomicU64 {
        &self.commons().requeues.0
    }
}

/// A lane of a mapped ring; it borrows the mapping like the view that it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneView {
    base: NonNull<u8>,
    leases: u64,
    done: u64,
    chunks: u64,
    chunk: u64,
}

// SAFETY: as for the view.
unsafe impl Send for LaneView {}

impl LaneView {
    /// A slot's own chunk.
    #[inline(always)]
    pub(crate) fn chunk(&self, slot: u32) -> NonNull<u8> {
        // SAFETY: within the lane, for a slot below the number of slots.
        unsafe { self.base.add((self.chunks + u64::from(slot) * self.chunk) as usize) }
    }

    #[inline(always)]
    fn word(&self, offset: u64) -> &AtomicU64 {
        // SAFETY: within the lane: each caller adds a part's offset and a slot below the number of slots; 8-aligned; and
        // such words are accessed as atomics by everybody.
        unsafe { self.base.add(offset as usize).cast().as_ref() }
    }
}

impl Lane for LaneView {
    #[inline(always)]
    fn head(&self) -> &AtomicU64 {
        self.word(0)
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> &Slot {
        let offset = SLOTS_START as usize + slot as usize * size_of::<Slot>();
        // SAFETY: as in `word`; a slot is two such words.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    #[inline(always)]
    fn lease(&self, slot: u32) -> &AtomicU64 {
        self.word(self.leases + u64::from(slot) * 8)
    }

    #[inline(always)]
    fn done(&self, slot: u32) -> &AtomicU64 {
        self.word(self.done + u64::from(slot) * 8)
    }

    #[inline(always)]
    fn link(&self, slot: u32) -> &AtomicU64 {
        self.word(self.chunks + u64::from(slot) * self.chunk)
    }

    #[inline(always)]
    fn prefetch(&self, slot: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, harmless for any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self.link(slot)).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = slot;
    }
}

static_assertions::assert_impl_all!(MpmcView: Send, Sync);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_to_what_fits() {
        let shape = |capacity, max, lanes| {
            let shape = MpmcLayout::new(capacity, max, lanes, 8)?.shape;
            let pools = shape.pools.into_iter().filter(|pool| pool.size > 0).map(|pool| (pool.size, pool.count));
            Some((shape.slots, shape.chunk, pools.collect::<Vec<_>>(), shape.max_message))
        };
        assert_eq!(shape(64 << 10, Some(64), 1), Some((1024, 64, vec![], 64)));
        assert_eq!(shape(0, Some(0), 4), Some((64, 8, vec![], 0)));
        assert_eq!(shape(4096, Some(9), 1), Some((256, 16, vec![], 9)));
        assert_eq!(shape(4 << 20, Some(256), 4), Some((4096, 256, vec![], 256)));
        assert_eq!(shape(0, Some(257), 1), Some((64, 256, vec![(320, 4)], 257)));
        assert_eq!(shape(4 << 20, None, 8), Some((1024, 256, vec![(4096, 43), (32768, 6)], 32768)));
        assert_eq!(shape(0, Some(MAX_LENGTH), 1).unwrap().2.len(), MAX_POOLS);
        for refused in
            [(1 << 36, None, 1), (u64::MAX, None, 64), (0, Some(MAX_LENGTH + 1), 1), (0, None, 0), (0, None, 65)]
        {
            assert_eq!(shape(refused.0, refused.1, refused.2), None, "{refused:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_there() {
        for capacity in [0, 1, 4096, 1 << 20, 5 << 20, (1 << 30) + 1] {
            for max in [0, 1, 64, 65, 256, 257, 4096, 4097, 1 << 20] {
                for lanes in [1, 3, 8, 64] {
                    let layout = MpmcLayout::new(capacity, Some(max), lanes, 8).unwrap();
                    assert!(layout.capacity() >= capacity, "{capacity} {max} {lanes}");
                    assert!(layout.shape.pools.iter().any(|pool| u64::from(pool.size) >= max) || max <= 256);
                }
            }
        }
    }

    #[test]
    fn the_parts_of_a_lane_do_not_overlap() {
        let layout = MpmcLayout::new(1 << 20, Some(100_000), 3, 8).unwrap();
        let (shape, plan) = (layout.shape, Plan::new(&layout.shape));
        let mut parts = vec![(0, 8), (SLOTS_START, shape.slots * 16), (plan.leases, shape.slots * 8)];
        parts.extend([(plan.done, shape.slots * 8), (plan.chunks, shape.slots * u64::from(shape.chunk))]);
        let pools = shape.pools.iter().zip(plan.pools);
        parts.extend(pools.map(|(pool, start)| (start, u64::from(pool.size) * u64::from(pool.count))));
        for pair in parts.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        assert!(parts.last().map(|(start, bytes)| start + bytes) <= Some(plan.bytes));
    }
}
