//! A consumer's end of all lanes.

use super::word::{Done, Head, Kind, LONGEST_RUN, Laps, Lease, Link, Note, Seal, State, ahead};
use super::writer::widen;
use super::{
    CLAIM, HEAD, LISTEN, Lane, Place, RECEIVE, REDELIVER, RELEASE, REQUEUE, Ring, Shape, TELL, load_head, record,
};
use crate::primitive::Ordering;
use crate::ring::Violation;

/// How many messages a consumer takes from a lane before it looks at the next one.
const BURST: u32 = 64;
/// How often to go on after another consumer was quicker, before it counts as nothing found: a bound against peers that
/// break the rules, and otherwise a look at the clock for those who wait.
const ATTEMPTS: u32 = 64;

/// No count of requeues: they don't get that far.
const NEVER: u64 = u64::MAX;

/// Messages that this consumer has claimed, one behind the other in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    lane: u32,
    /// Bit by bit, which were given back.
    released: u16,
    first: u64,
    lease: Lease,
}

impl Claim {
    /// How many messages there are, given back or not.
    #[inline(always)]
    pub fn run(&self) -> u32 {
        self.lease.run()
    }

    /// Whether that one was given back.
    #[inline(always)]
    pub fn is_released(&self, index: u32) -> bool {
        self.released & 1 << index != 0
    }

    /// The first from `index` on that was not given back, by its index; if there is none, at least the number of messages.
    #[inline(always)]
    pub fn first_held(&self, index: u32) -> u32 {
        (u32::from(self.released) | ((1 << index) - 1)).trailing_ones()
    }

    /// The lane in which they are.
    pub fn lane(&self) -> u32 {
        self.lane
    }

    /// How often they were delivered before, to those that died with them.
    pub fn deliveries(&self) -> u32 {
        self.lease.deliveries()
    }

    /// Whether these are the same messages, whatever has been given back of them.
    pub fn is_same_run(&self, other: &Self) -> bool {
        (self.lane, self.first) == (other.lane, other.first)
    }

    fn all(&self) -> u16 {
        u16::MAX >> (LONGEST_RUN - self.run())
    }
}

/// A message of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Whose lane it came through.
    pub lane: u32,
    /// Where its payload is.
    pub place: Place,
    /// Bytes of payload.
    pub length: u64,
    /// The sender's tag.
    pub tag: u32,
    /// Its number among all messages of the lane, from 0.
    pub sequence: u64,
    /// How often it was delivered before, to those that died with it.
    pub deliveries: u32,
}

/// A lane as this consumer knows it.
#[derive(Clone, Debug)]
struct Known<L> {
    lane: L,
    /// As last seen.
    head: Head,
}

/// A consumer.
#[derive(Debug)]
pub struct Reader<R: Ring> {
    ring: R,
    shape: Shape,
    laps: Laps,
    me: u32,
    /// The lane that is looked at first, and its number.
    here: Known<R::Lane>,
    number: u32,
    /// How many messages in a row came from it.
    burst: u32,
    /// A head whose claim has been given back: there is nothing to record.
    settled: Head,
    /// The longest message in a slot's own chunk.
    longest: u32,
    /// The count of requeues at the last scan that found nothing, or [`NEVER`] before the first.
    seen: u64,
    /// All lanes that are known to be used.
    lanes: Vec<Known<R::Lane>>,
}

impl<R: Ring> Reader<R> {
    /// Joins as the consumer `me`, less than [`MAX_CONSUMERS`](super::MAX_CONSUMERS), which nobody else is, and whose last
    /// claims were recovered.
    pub fn join(ring: R, shape: &Shape, me: u32) -> Self {
        // There always is a first one.
        let here = know(ring.lane(0));
        Self {
            ring,
            shape: *shape,
            laps: shape.laps(),
            me,
            here,
            number: 0,
            burst: BURST,
            settled: Head::new(0, 0, 0),
            longest: shape.max_message.min(shape.chunk.into()) as u32,
            seen: NEVER,
            lanes: Vec::new(),
        }
    }

    /// Claims up to `max` messages, at most [`LONGEST_RUN`](super::LONGEST_RUN), if there are some now.
    #[inline]
    pub fn claim(&mut self, max: u32) -> Option<Claim> {
        self.claim_here(max).or_else(|| self.claim_anywhere(max))
    }

    /// [`claim`](Self::claim) for less, from the lane of the last messages: nothing need not mean that there is none.
    #[inline(always)]
    pub fn claim_here(&mut self, max: u32) -> Option<Claim> {
        // Pairs with R3. What was put back comes first.
        let requeues = self.ring.requeues().load(LISTEN);
        let first = self.here.head.position();
        let lap = self.laps.lap(first);
        // C1, pairs with P2.
        let seal = Seal(self.here.lane.slot(self.laps.slot(first)).seal.load(RECEIVE));
        if requeues != self.seen || self.burst >= BURST || seal.of(lap) != Some(Kind::Message) {
            return None;
        }
        self.take(first, lap, max)
    }

    /// [`claim`](Self::claim) after [`claim_here`](Self::claim_here) found nothing.
    #[cold]
    pub fn claim_anywhere(&mut self, max: u32) -> Option<Claim> {
        // Pairs with R3. Before the lanes are looked at: what was put back before is found, or is news for the next call.
        let requeues = self.ring.requeues().load(LISTEN);
        let lanes = self.ring.lanes_used();
        let is_new = self.lanes.is_empty();
        for number in self.lanes.len() as u32..lanes {
            self.lanes.push(know(self.ring.lane(number)));
        }
        if self.seen != requeues {
            if let Some(claim) = self.scan() {
                return Some(claim);
            }
            if !cfg!(ringway_mutant = "lane_seen_late") {
                self.seen = requeues;
            } else {
                self.seen = self.ring.requeues().load(Ordering::Acquire);
            }
        }
        // Consumers that join at once begin with different lanes.
        let begin = if is_new { self.me } else { self.number + u32::from(self.burst >= BURST) };
        for number in begin..begin + lanes {
            self.turn_to(number % lanes);
            if let Some(claim) = self.claim_in_turn(max) {
                return Some(claim);
            }
        }
        None
    }

    fn turn_to(&mut self, number: u32) {
        if number == self.number {
            // Others may be so quick that each claim comes this way: the burst goes on.
            self.burst %= BURST;
            return;
        }
        self.lanes[self.number as usize].head = self.here.head;
        self.here = self.lanes[number as usize].clone();
        self.number = number;
        self.burst = 0;
        // The head of another lane may look the same.
        self.settled = Head::new(0, 0, 0);
    }

    /// Claims messages of this lane, if it has some.
    fn claim_in_turn(&mut self, max: u32) -> Option<Claim> {
        for _ in 0..ATTEMPTS {
            match first_message(&self.here.lane, self.here.head, self.laps) {
                Some(first) => {
                    if let Some(claim) = self.take(first, self.laps.lap(first), max) {
                        return Some(claim);
                    }
                }
                None => {
                    let actual = load_head(&self.here.lane);
                    if actual == std::mem::replace(&mut self.here.head, actual) {
                        break;
                    }
                }
            }
        }
        None
    }

    /// Claims the message at `first`, and those right behind it, unless the head has moved on; then it is known.
    #[inline(always)]
    fn take(&mut self, first: u64, lap: u64, max: u32) -> Option<Claim> {
        // The locked operation below holds up what is read behind it, but not what is on its way already.
        self.here.lane.prefetch(self.laps.slot(first));
        let run = if max == 1 { 1 } else { self.run(first, max) };
        let Known { lane, head } = &mut self.here;
        // C2: before the head no longer tells of it.
        if *head != self.settled {
            record(lane, self.laps, *head);
        }
        let next = Head::new(ahead(first, u64::from(run)), self.me, run);
        // C3, pairs with C0: who sees this head sees the last claim recorded.
        match lane.head().compare_exchange(head.0, next.0, CLAIM, HEAD) {
            Ok(_) => {
                *head = next;
                self.burst += run;
                Some(Claim { lane: self.number, released: 0, first, lease: Lease::leased(lap, self.me, 0, run) })
            }
            Err(actual) => {
                *head = Head(actual);
                None
            }
        }
    }

    /// How many messages, at most `max`, are published from `first` on.
    fn run(&self, first: u64, max: u32) -> u32 {
        let lane = &self.here.lane;
        let most = u64::from(max.clamp(1, LONGEST_RUN)).min(self.laps.slots()) as u32;
        let is_message = |&count: &u32| {
            let position = ahead(first, u64::from(count));
            // C1, pairs with P2.
            let slot = self.laps.slot(position);
            let seal = Seal(lane.slot(slot).seal.load(RECEIVE));
            lane.prefetch(slot);
            seal.of(self.laps.lap(position)) == Some(Kind::Message)
        };
        1 + (1..most).take_while(is_message).count() as u32
    }

    /// Claims messages that were put back, if there are some.
    #[cold]
    fn scan(&mut self) -> Option<Claim> {
        for number in 0..self.lanes.len() {
            let lane = self.lanes[number].lane.clone();
            for slot in 0..self.laps.slots() as u32 {
                let word = lane.lease(slot);
                let lease = Lease(word.load(Ordering::Relaxed));
                if lease.state() != State::Requeued {
                    continue;
                }
                let mine = lease.leased_to(self.me);
                // C5, pairs with R2: what the last owner knew of it.
                if word.compare_exchange(lease.0, mine.0, REDELIVER, Ordering::Relaxed).is_err() {
                    continue;
                }
                // Relaxed: ordered by C5.
                let released = Done(lane.done(slot).load(Ordering::Relaxed)).released(lease.lap());
                let first = self.laps.first(lease.lap(), slot, load_head(&lane).position());
                let claim = Claim { lane: number as u32, released, first, lease: mine };
                // Nothing is left of it, which no consumer leaves so.
                if released & claim.all() == claim.all() {
                    self.release(&claim);
                    continue;
                }
                return Some(claim);
            }
        }
        None
    }

    /// The message of a claim, by its index in the run.
    ///
    /// # Errors
    /// [`Violation`] if no correct producer can have written it.
    #[inline(always)]
    pub fn message(&self, claim: &Claim, index: u32) -> Result<Received, Violation> {
        let position = ahead(claim.first, u64::from(index));
        let slot = self.laps.slot(position);
        let words = self.lane(claim).slot(slot);
        // Relaxed: ordered by C1, or C5.
        let note = Note(words.note.load(Ordering::Relaxed));
        let sequence = Seal(words.seal.load(Ordering::Relaxed)).sequence();
        // That it lies in a pool makes it longer than any.
        let place =
            if note.0 as u32 <= self.longest { Place::Slot(slot) } else { self.place_in_pool(claim, slot, note)? };
        Ok(Received {
            lane: claim.lane,
            place,
            length: note.length(),
            tag: note.tag(),
            sequence: widen(sequence, position),
            deliveries: claim.lease.deliveries(),
        })
    }

    #[cold]
    fn place_in_pool(&self, claim: &Claim, slot: u32, note: Note) -> Result<Place, Violation> {
        let link = Link(self.lane(claim).link(slot).load(Ordering::Relaxed));
        let pool = self.shape.pools.get(link.pool() as usize).ok_or(Violation)?;
        let fits = note.length() <= u64::from(pool.size).min(self.shape.max_message);
        if !note.is_pooled() || link.index() >= pool.count || !fits {
            return Err(Violation);
        }
        Ok(Place::Pool { pool: link.pool(), index: link.index() })
    }

    /// Gives back all messages of a claim.
    #[inline(always)]
    pub fn release(&mut self, claim: &Claim) {
        if claim.lane == self.number && ahead(claim.first, claim.run().into()) == self.here.head.position() {
            self.settled = self.here.head;
        }
        let released = claim.lease.released();
        // C4, pairs with P0.
        self.set_lease(claim, released, RELEASE);
    }

    /// Gives back one message of a claim, and says whether it was the last one.
    #[inline(always)]
    pub fn release_one(&mut self, claim: &mut Claim, index: u32) -> bool {
        claim.released |= 1 << index;
        let last = claim.released & claim.all() == claim.all();
        if last {
            self.release(claim);
        } else {
            let done = Done::new(claim.lease.lap(), claim.released);
            // Relaxed: who takes it after our death is ordered behind that, or behind the store that puts it back.
            self.lane(claim).done(self.laps.slot(claim.first)).store(done.0, Ordering::Relaxed);
        }
        last
    }

    /// Puts back what is left of a claim whose messages this consumer has not looked at: they don't count as delivered.
    pub fn put_back(&self, claim: &Claim) {
        let requeued = claim.lease.with(State::Requeued, claim.lease.deliveries());
        // As R2 and R3.
        self.set_lease(claim, requeued, REQUEUE);
        self.ring.requeues().fetch_add(1, TELL);
    }

    #[inline(always)]
    fn set_lease(&self, claim: &Claim, lease: Lease, ordering: Ordering) {
        let word = self.lane(claim).lease(self.laps.slot(claim.first));
        #[cfg(not(ringway_loom))]
        word.store(lease.0, ordering);
        // A store comes behind a C2 that found the lease unrecorded; loom knows that only of a swap.
        #[cfg(ringway_loom)]
        word.swap(lease.0, ordering);
    }

    /// The words of the lane of a claim.
    #[inline(always)]
    pub fn lane_of(&self, claim: &Claim) -> &R::Lane {
        self.lane(claim)
    }

    /// Whether there seem to be more messages to claim.
    pub fn has_more(&self) -> bool {
        let news = self.seen != self.ring.requeues().load(Ordering::Relaxed);
        // A head as last seen may lie before what others have claimed.
        let has = |lane| first_message(lane, load_head(lane), self.laps).is_some();
        news || self.lanes.iter().any(|known| has(&known.lane))
    }

    /// The lane of a claim: known, since it was claimed there.
    #[inline(always)]
    fn lane(&self, claim: &Claim) -> &R::Lane {
        if claim.lane == self.number { &self.here.lane } else { &self.lanes[claim.lane as usize].lane }
    }

    /// How far this consumer has seen the lane from which it took the last message.
    pub fn position(&self) -> u64 {
        self.here.head.position()
    }
}

fn know<L: Lane>(lane: L) -> Known<L> {
    let head = load_head(&lane);
    Known { lane, head }
}

/// The first message of a lane from its head on, behind slots to be passed over.
fn first_message(lane: &impl Lane, head: Head, laps: Laps) -> Option<u64> {
    let mut position = head.position();
    for _ in 0..laps.slots() {
        // C1, pairs with P2.
        let seal = Seal(lane.slot(laps.slot(position)).seal.load(RECEIVE));
        match seal.of(laps.lap(position))? {
            Kind::Message => return Some(position),
            Kind::Skip => position = ahead(position, 1),
        }
    }
    None
}
