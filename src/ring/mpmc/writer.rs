//! The producer's end of a lane.

use std::collections::VecDeque;

use super::word::{Head, Kind, Laps, Lease, Link, Note, Seal, State, ahead, before, distance};
use super::{Lane, MAX_POOLS, PUBLISH, Place, RECEIVE, REUSE, Shape, load_head, record};
use crate::primitive::Ordering;
use crate::ring::Violation;

/// Room for one message, not yet visible to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The position that the message will have.
    position: u64,
    length: u64,
    place: Place,
}

impl Reservation {
    /// Where the payload goes.
    #[inline(always)]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Bytes of payload that were asked for.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// A slot's chunk is in no pool.
const NOTHING: Link = Link(u64::MAX);

/// The producer of a lane.
#[derive(Debug)]
pub struct Writer<L> {
    lane: L,
    shape: Shape,
    laps: Laps,
    /// The position of the next message.
    tail: u64,
    /// From the tail to here the slots are free.
    free_until: u64,
    /// Free slots behind pinned ones, when there are none at the tail: from the first position to the second.
    beyond: (u64, u64),
    /// How many slots have been passed over, modulo 2^32: what the sequence lags behind the position. Kept instead of the sequence,
    /// because each message less that is written is room in the processor's store buffer.
    passed: u32,
    /// The free chunks of the pools, oldest first: those that went longest unused are in no core's own cache.
    free: [VecDeque<u32>; MAX_POOLS],
    /// The pool's chunk of each slot's last message, until it is found free; empty without pools.
    held: Vec<Link>,
    batch: Option<Batch>,
}

/// Messages that are not published yet.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// The first seal, whose store will publish all, and its position.
    seal: u64,
    start: u64,
    /// What to go back to.
    free_until: u64,
    passed: u32,
}

/// What has become of the slots of a run.
enum Slots {
    /// So many are free.
    Free(u64),
    /// So many are pinned.
    Pinned(u64),
    /// They have not even been claimed.
    Full,
}

impl<L: Lane> Writer<L> {
    /// Takes up a lane where its last producer left it. It must have no other producer.
    ///
    /// Walks the lane once.
    ///
    /// # Errors
    /// [`Violation`] if no correct producer can have left the lane so.
    pub fn resume(lane: L, shape: &Shape) -> Result<Self, Violation> {
        let laps = shape.laps();
        let head = load_head(&lane);
        record(&lane, laps, head);
        let mut tail = head.position();
        let seal = |position| Seal(lane.slot(laps.slot(position)).seal.load(RECEIVE));
        let mut sequence = Self::next_sequence(&lane, laps, tail);
        for _ in 0..laps.slots() {
            match seal(tail).of(laps.lap(tail)) {
                None => break,
                Some(Kind::Message) => sequence = seal(tail).sequence().wrapping_add(1),
                Some(Kind::Skip) => {}
            }
            tail = ahead(tail, 1);
        }
        let mut writer = Self {
            lane,
            shape: *shape,
            laps,
            tail,
            free_until: tail,
            beyond: (tail, tail),
            passed: (tail as u32).wrapping_sub(sequence),
            free: Default::default(),
            held: Vec::new(),
            batch: None,
        };
        writer.clear_unpublished(ahead(tail, laps.slots()));
        writer.find_free(head);
        if shape.pools[0].size != 0 {
            writer.find_chunks(head)?;
        }
        Ok(writer)
    }

    /// The sequence of the next message, if the last one that was published lies right before `tail`.
    fn next_sequence(lane: &L, laps: Laps, tail: u64) -> u32 {
        // Relaxed: as in `seal`.
        let seal = |position| Seal(lane.slot(laps.slot(position)).seal.load(Ordering::Relaxed));
        let last = before(tail, 1);
        if seal(last).of(laps.lap(last)).is_some() {
            return seal(last).sequence().wrapping_add(1);
        }
        let end = ahead(last, laps.slots());
        if seal(end).of(laps.lap(end)).is_none() {
            // Nothing has been published yet.
            return 0;
        }
        // What was never published has taken its place; then the first message of that tells.
        let is_message = |position: &u64| {
            let (seal, lap) = (seal(*position), laps.lap(*position));
            seal.is_announced(lap) || seal.of(lap) == Some(Kind::Message)
        };
        let first = (0..laps.slots()).map(|count| ahead(tail, count)).find(is_message);
        first.map_or(0, |position| seal(position).sequence())
    }

    /// Takes the seals of messages and skips that were never published off the slots from the tail to `end`. Nobody looks at them
    /// yet. The last one goes first: if it lies where the last published message was, that one's takes its place again.
    fn clear_unpublished(&self, end: u64) {
        for count in (1..distance(self.tail, end)).rev() {
            let position = ahead(self.tail, count);
            if self.seal(position).of(self.laps.lap(position)).is_none() || cfg!(ringway_mutant = "lane_seals_stay") {
                continue;
            }
            let seal = if count == self.laps.slots() - 1 && !cfg!(ringway_mutant = "lane_sequence_lost") {
                Seal::message(self.laps.lap(before(self.tail, 1)), self.sequence().wrapping_sub(1))
            } else {
                self.seal(position).cleared()
            };
            self.set_seal(position, seal);
        }
    }

    /// Finds the slots that are free from the tail on, one by one: the tail may lie within a run that was given back.
    fn find_free(&mut self, head: Head) {
        while distance(self.tail, self.free_until) < self.laps.slots()
            && distance(head.position(), self.free_until) < self.laps.slots()
            && self.lease(self.free_until).is_released()
        {
            self.free_until = ahead(self.free_until, 1);
        }
    }

    /// Finds the free chunks of the pools: those to which no message refers that is unclaimed, leased or put back.
    fn find_chunks(&mut self, head: Head) -> Result<(), Violation> {
        self.held = vec![NOTHING; self.laps.slots() as usize];
        let mut used: [Vec<bool>; MAX_POOLS] = self.shape.pools.map(|pool| vec![false; pool.count as usize]);
        let unclaimed = distance(head.position(), self.tail);
        for count in 0..self.laps.slots() {
            let position = ahead(head.position(), count);
            // The note of a slot that was passed over is an older message's, of which its lease tells.
            if count < unclaimed && self.seal(position).of(self.laps.lap(position)) == Some(Kind::Message) {
                self.hold(position, &mut used)?;
            }
            let lease = self.lease(position);
            if !lease.is_released() {
                for member in 0..u64::from(lease.run()) {
                    self.hold(ahead(position, member), &mut used)?;
                }
            }
        }
        for (free, used) in self.free.iter_mut().zip(used) {
            *free = (0..).zip(used).filter(|(_, used)| !used).map(|(index, _)| index).collect();
        }
        Ok(())
    }

    fn hold(&mut self, position: u64, used: &mut [Vec<bool>]) -> Result<(), Violation> {
        let slot = self.laps.slot(position);
        if !Note(self.lane.slot(slot).note.load(Ordering::Relaxed)).is_pooled() {
            return Ok(());
        }
        let link = Link(self.lane.link(slot).load(Ordering::Relaxed));
        let used = used.get_mut(link.pool() as usize).and_then(|pool| pool.get_mut(link.index() as usize));
        let held = &mut self.held[slot as usize];
        match used {
            Some(used) if !*used => (*used, *held) = (true, link),
            // It was claimed while we looked, and counts once.
            Some(_) if *held == link && !cfg!(ringway_mutant = "lane_chunk_twice") => {}
            _ => return Err(Violation),
        }
        Ok(())
    }

    /// The seal of a position's slot.
    fn seal(&self, position: u64) -> Seal {
        // Relaxed: only producers write seals, and the lock that makes us the only one orders us behind our predecessor.
        Seal(self.lane.slot(self.laps.slot(position)).seal.load(Ordering::Relaxed))
    }

    /// P1: seals a slot to which consumers get only behind a P2 to come.
    fn set_seal(&self, position: u64, seal: u64) {
        self.lane.slot(self.laps.slot(position)).seal.store(seal, Ordering::Relaxed);
    }

    /// The lease of a position's slot.
    fn lease(&self, position: u64) -> Lease {
        // P0, pairs with C4: the consumer's reads come before our writes.
        Lease(self.lane.lease(self.laps.slot(position)).load(REUSE))
    }

    /// The position of the next message.
    pub fn position(&self) -> u64 {
        self.tail
    }

    /// Finds room for `length` bytes, at most `max_message`. `None` is Full, as of now.
    ///
    /// # Errors
    /// [`Violation`] if what consumers write can't be.
    #[inline(always)]
    pub fn reserve(&mut self, length: u64) -> Result<Option<Reservation>, Violation> {
        if length <= u64::from(self.shape.chunk) && self.tail != self.free_until {
            let place = Place::Slot(self.laps.slot(self.tail));
            return Ok(Some(Reservation { position: self.tail, length, place }));
        }
        self.reserve_slowly(length)
    }

    #[inline(never)]
    fn reserve_slowly(&mut self, length: u64) -> Result<Option<Reservation>, Violation> {
        let Some(position) = self.find_slot() else { return Ok(None) };
        let place = if length <= u64::from(self.shape.chunk) {
            Place::Slot(self.laps.slot(position))
        } else {
            let pool = self.shape.pool_for(length).ok_or(Violation)?;
            if self.free[pool].is_empty() {
                self.collect();
            }
            let Some(&index) = self.free[pool].front() else { return Ok(None) };
            Place::Pool { pool: pool as u32, index }
        };
        Ok(Some(Reservation { position, length, place }))
    }

    /// The next free slot's position: the tail, or one beyond pinned slots.
    fn find_slot(&mut self) -> Option<u64> {
        if self.tail != self.free_until {
            return Some(self.tail);
        }
        let mut position = self.tail;
        while distance(self.tail, position) < self.laps.slots() {
            match self.look(position) {
                Slots::Free(count) => {
                    let until = self.extend(position, ahead(position, count));
                    if position == self.tail {
                        self.free_until = until;
                    }
                    self.beyond = (position, until);
                    return Some(position);
                }
                Slots::Pinned(count) => position = ahead(position, count),
                Slots::Full => return None,
            }
        }
        None
    }

    /// What has become of the run whose first slot is that of `position`.
    fn look(&mut self, position: u64) -> Slots {
        let last = before(position, self.laps.slots());
        let mut lease = self.lease(position);
        let run = |lease: Lease| if cfg!(ringway_mutant = "lane_members_ignored") { 1 } else { u64::from(lease.run()) };
        if !lease.is_released() || lease.lap() != self.laps.lap(last) {
            let head = load_head(&self.lane);
            if distance(head.position(), position) >= self.laps.slots() {
                return Slots::Full;
            }
            record(&self.lane, self.laps, head);
            lease = self.lease(position);
            if lease.state() != State::Released {
                return Slots::Pinned(run(lease));
            }
        }
        let count = run(lease);
        self.freed(position, count);
        Slots::Free(count)
    }

    /// So many slots are free: what they held is, too. Returns the position behind them.
    fn freed(&mut self, position: u64, count: u64) -> u64 {
        if !self.held.is_empty() {
            for member in 0..count {
                self.let_go(ahead(position, member));
            }
        }
        ahead(position, count)
    }

    /// The chunk of that slot's last message is free.
    fn let_go(&mut self, position: u64) {
        let link = std::mem::replace(&mut self.held[self.laps.slot(position) as usize], NOTHING);
        if link != NOTHING {
            self.free[link.pool() as usize].push_back(link.index());
        }
    }

    /// Looks at the leases that lie in the same cache line: those further on the consumers may be writing.
    fn extend(&mut self, start: u64, mut until: u64) -> u64 {
        while !self.laps.slot(until).is_multiple_of(8) && distance(start, until) < self.laps.slots() / 2 {
            let lease = self.lease(until);
            // Each for itself: a run of several may lead beyond the line, and into the next lap.
            if !lease.is_released() || lease.lap() != self.laps.lap(before(until, self.laps.slots())) {
                break;
            }
            until = self.freed(until, u64::from(lease.run()));
        }
        until
    }

    /// Collects the chunks of messages that were given back; of slots that were passed over, when consumers have, too.
    fn collect(&mut self) {
        let end = ahead(self.tail, self.laps.slots());
        let mut position = self.free_until;
        while distance(position, end) != 0 && distance(self.tail, position) < self.laps.slots() {
            match self.look(position) {
                Slots::Free(count) | Slots::Pinned(count) => position = ahead(position, count),
                Slots::Full => return,
            }
        }
    }

    /// Publishes the reserved message, cut to its first `used` bytes, and returns its sequence.
    #[inline(always)]
    pub fn commit(&mut self, reservation: Reservation, used: u64, tag: u32) -> u64 {
        let position = reservation.position;
        self.describe(&reservation, used, tag);
        let seal = Seal::message(self.laps.lap(position), self.sequence());
        if position == self.tail {
            // P2, pairs with C1.
            self.lane.slot(self.laps.slot(position)).seal.store(seal, PUBLISH);
        } else {
            self.commit_beyond(position, seal);
        }
        self.advance(position)
    }

    #[inline(never)]
    fn commit_beyond(&mut self, position: u64, seal: u64) {
        // P1: the message's seal, and those of all skips but the first.
        self.set_seal(position, seal);
        let first = self.skip();
        // P2, pairs with C1.
        self.lane.slot(self.laps.slot(self.tail)).seal.store(first, PUBLISH);
    }

    /// Seals the pinned slots at the tail, but the first; returns its seal.
    fn skip(&mut self) -> u64 {
        let (end, until) = self.beyond;
        for count in 1..distance(self.tail, end) {
            let position = ahead(self.tail, count);
            self.set_seal(position, self.seal(position).skip(self.laps.lap(position)));
        }
        self.free_until = until;
        self.passed = self.passed.wrapping_add(distance(self.tail, end) as u32);
        self.seal(self.tail).skip(self.laps.lap(self.tail))
    }

    /// The low half of the next message's sequence.
    #[inline(always)]
    fn sequence(&self) -> u32 {
        (self.tail as u32).wrapping_sub(self.passed)
    }

    /// P1: what comes with the message.
    #[inline(always)]
    fn describe(&mut self, reservation: &Reservation, used: u64, tag: u32) {
        let slot = self.laps.slot(reservation.position);
        let pooled = match reservation.place {
            Place::Slot(_) => false,
            Place::Pool { pool, index } => {
                let link = Link::new(pool, index);
                self.free[pool as usize].pop_front();
                self.held[slot as usize] = link;
                self.lane.link(slot).store(link.0, Ordering::Relaxed);
                true
            }
        };
        let note = Note::new(used.min(reservation.length), pooled, tag);
        self.lane.slot(slot).note.store(note.0, Ordering::Relaxed);
    }

    /// Goes on behind `position`, and returns the sequence of the message there.
    #[inline(always)]
    fn advance(&mut self, position: u64) -> u64 {
        self.tail = ahead(position, 1);
        widen((position as u32).wrapping_sub(self.passed), position)
    }

    /// Finishes the reserved message without publishing it: [`publish`](Self::publish) does, for all of a batch.
    #[inline(always)]
    pub fn commit_in_batch(&mut self, reservation: Reservation, used: u64, tag: u32) -> u64 {
        let position = reservation.position;
        self.describe(&reservation, used, tag);
        let (start, free_until, passed) = (self.tail, self.free_until, self.passed);
        let seal = Seal::message(self.laps.lap(position), self.sequence());
        if let Some(batch) = self.batch
            && distance(batch.start, position) == self.laps.slots() - 1
        {
            self.announce(batch);
        }
        let first = if position == start {
            seal
        } else {
            // P1 for all but the seal that will publish.
            self.set_seal(position, seal);
            self.skip()
        };
        match self.batch {
            None if !cfg!(ringway_mutant = "lane_batch_early") => {
                self.batch = Some(Batch { seal: first, start, free_until, passed });
            }
            _ => self.set_seal(start, first),
        }
        self.advance(position)
    }

    /// P1: the sequence of a batch's first message, before the last message that was published loses its seal to the batch.
    #[cold]
    fn announce(&self, batch: Batch) {
        let is_message = Seal(batch.seal).of(self.laps.lap(batch.start)) == Some(Kind::Message);
        if is_message && !cfg!(ringway_mutant = "lane_unannounced") {
            self.set_seal(batch.start, Seal(batch.seal).announced());
        }
    }

    /// Publishes what was committed in the batch, all at once, and says whether there was any.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some(batch) = self.batch.take() else { return false };
        // P2, pairs with C1.
        self.lane.slot(self.laps.slot(batch.start)).seal.store(batch.seal, PUBLISH);
        true
    }

    /// Forgets what was committed in the batch.
    pub fn abandon(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        let end = std::mem::replace(&mut self.tail, batch.start);
        self.free_until = batch.free_until;
        self.passed = batch.passed;
        if !self.held.is_empty() {
            for count in 0..distance(batch.start, end) {
                let position = ahead(batch.start, count);
                let seal = if count == 0 { Seal(batch.seal) } else { self.seal(position) };
                // Of the slots to be passed over the chunks are in use.
                if seal.of(self.laps.lap(position)) == Some(Kind::Message) {
                    self.let_go(position);
                }
            }
        }
        self.clear_unpublished(end);
    }
}

/// A whole sequence from its low half: it is the position less the slots that were passed over until then.
#[inline(always)]
pub(super) fn widen(sequence: u32, position: u64) -> u64 {
    before(position, u64::from((position as u32).wrapping_sub(sequence)))
}
