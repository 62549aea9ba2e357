//! The ring of many producers and many consumers.
//!
//! Each producer has a *lane*, a queue that only it writes; consumers take messages from all lanes. So producers never
//! contend with each other, consumers contend only where they meet on a lane, and order holds per producer. A lane is a ring
//! of `N` slots, a power of two. Positions count slots since the lane began, modulo 2^53; a position's slot is its remainder
//! by `N` and its lap the quotient, modulo 2^48.
//!
//! # Words
//! | word | of | written by | holds |
//! |---|---|---|---|
//! | seal | slot | the producer, by stores | `[sequence: 32 \| lap tag: 25 \| kind]`: a message, a skip, or nothing; or a message announced |
//! | note | slot | the producer, before the seal | `[tag: 32 \| in a pool: 1 \| length: 30]` of the message |
//! | lease | slot | consumers and recoverers | `[lap: 48 \| owner: 6 \| deliveries: 4 \| run - 1: 4 \| state: 2]` |
//! | done | slot | the owner of the lease | `[lap: 48 \| 16 bits]`: the messages of a run that were given back early |
//! | head | lane | consumers, by compare and swap | `[position: 53 \| owner: 6 \| run: 5]` |
//! | requeues | ring | recoverers | how often messages were put back |
//!
//! Each slot has a chunk of memory of the smallest size class for its own; a longer message lies in a chunk of a pool of the
//! lane, and the first word of the slot's own chunk, the *link*, says in which. Which chunks of the pools are free, only the
//! producer knows, and its successor finds out: those that no unclaimed message and no lease refers to.
//!
//! # Steps
//! ```text
//! reserve  t = the lane's tail (private). The slot of a position q is free to be written if head.position > q - N, and
//!          P0  its lease is RELEASED (Acquire). A lease that is LEASED or REQUEUED, of whatever lap, pins its run of slots:
//!              the producer looks for a free slot beyond them, before head.position + N. None: full.
//! commit   P1  payload, note, link; and for a batch, or slots to be passed over, all their seals but the first
//!          P2  the first seal, Release. It publishes all of them. A seal of kind skip tells consumers to pass a slot over;
//!              skips are published only together with a message behind them. A skip keeps the sequence of the slot's last
//!              message, which may be delivered again. The seal of the last published message tells
//!              the sequence: if a batch that begins with a message goes on to that slot, the whole lap, then before that
//!              the first seal announces its message, which publishes nothing.
//! claim    C0  h = head. Walk from h.position over skips to the first message: C1 its seal, Acquire, has the lap of that
//!              position. A run of k <= 16 messages without skips between may be claimed at once.
//!          C2  record the claim that h tells of, unless recorded: h.owner has the run [h.position - h.run, h.position); if the lease
//!              of its first slot is of an earlier lap, CAS it to LEASED(h.owner, h.run).
//!          C3  CAS head from h to (first + k, me, k). Who wins has these messages.
//! release  C4  lease of the run's first slot := RELEASED, Release. Only the owner does this, and knows the value.
//!              One message of several: set its bit in done; the last one releases.
//!              What was claimed and not looked at: put back as by R2 and R3, with the deliveries it had.
//! recover  X, dead, with X's recovery lock held. For each lane:
//!          R1  h = head; if h.owner is X, record the claim as in C2
//!          R2  each lease LEASED(X): CAS to REQUEUED, deliveries + 1; or to RELEASED, if X's policy says so or deliveries
//!              reach the maximum
//!          then, if any REQUEUED lease was seen in any lane,
//!          R3  requeues += 1, and wake all consumers
//!          R4  X's seat is vacant
//! redeliver   before it claims, a consumer whose `seen` differs from requeues scans all leases: C5 CAS REQUEUED to LEASED(me).
//!          A complete scan that finds none: seen = the value of requeues that was read before it. A joiner starts with a scan.
//! leave    what one still holds: recover oneself. A lane needs nothing.
//! resume   a new producer of a lane: it has no other. From head.position over all sealed positions to the first that isn't:
//!          the tail. The sequence is that behind the last published message. Seals of later positions that seem valid were
//!          left by a batch that was never published: if it took the place of that message's seal, its own first message,
//!          or that announced, has the sequence, and the seal is restored. Then clear the others, but for their sequences.
//!          Record the claim of the head. From the tail on find the free slots one by one, to the first pinned or unclaimed one:
//!          the tail may lie within a run that was given back.
//! ```
//!
//! # Why it is correct
//! *One message, one owner.* head moves forward only, by C3, and each position is passed by exactly one successful C3, which
//! names its new owner in the same store. So a claim is never anonymous: until the next C3 the head itself tells who has the
//! last run, and C2 makes sure that by then the lease does. C3 releases and C0 acquires, so whoever sees a later head sees the
//! lease recorded. A C2 that comes late changes nothing: the lease is then no longer of an earlier lap.
//!
//! *Nothing is overwritten that is in use.* A slot is written again only when its lease is RELEASED and the head has passed its
//! last position. C4 releases and P0 acquires: the consumer's reads come before the producer's writes. A message whose lease is
//! not recorded yet has a lease of an earlier lap; then the producer looks at the head, and records the claim itself.
//!
//! *Members of a run.* Only the first slot of a run has a lease of its lap. Nobody looks at the others': consumers only go where
//! the head says, and the producer goes from run to run, and passes over a pinned one as a whole.
//!
//! *A paused consumer* keeps what it has claimed: its slots are passed over, lap for lap, with their notes and payload untouched.
//! *A paused producer* keeps its lane, and nobody else needs it.
//!
//! *Kill.* A producer killed before P2 has published nothing, after it everything. A consumer killed before C3 has nothing;
//! after it, R1 or R2 find what it has: R1 before R2, so that a claim that another consumer records meanwhile is seen in the
//! lease if it is no longer seen in the head. R2 is idempotent, so a killed recoverer is followed by another one, which sees the leases that are
//! REQUEUED already and so does not leave out R3. R3 after R2: a consumer that reads the new value scans after R2.
//!
//! *Empty* is said only when every lane has no message at its head and `seen` is current: so nothing that was published, or
//! requeued before requeues was read, is overlooked. A seal that is not of its lap may also mean that the head as known here is long
//! passed, so the head is read again before it counts as nothing.

mod reader;
mod recovery;
#[cfg(test)]
#[cfg(not(ringway_loom))]
mod tests;
mod word;
mod writer;

pub use reader::{Claim, Reader, Received};
pub use recovery::{Policy, Recovered, backlog, is_drained, recover};
pub use word::{LONGEST_RUN, MAX_CONSUMERS, MAX_DELIVERIES, MAX_LENGTH, MAX_PRODUCERS, SLOTS};
pub use writer::{Reservation, Writer};

use self::word::{Head, Laps, Lease};
use crate::primitive::{AtomicU64, Ordering};

/// What the producer writes to publish a slot.
#[repr(C)]
#[derive(Debug)]
pub struct Slot {
    /// Whether, and in which lap, the slot was published.
    pub seal: AtomicU64,
    /// Length and tag of its message.
    pub note: AtomicU64,
}

/// Where the words of a lane live. Slots are counted from 0 to [`Shape::slots`].
pub trait Lane {
    /// How far consumers are, and who claimed last.
    fn head(&self) -> &AtomicU64;
    /// What the producer says of a slot.
    fn slot(&self, slot: u32) -> &Slot;
    /// In whose hands the messages from a slot on are.
    fn lease(&self, slot: u32) -> &AtomicU64;
    /// Which of them were given back before the others.
    fn done(&self, slot: u32) -> &AtomicU64;
    /// The first word of the slot's own chunk.
    fn link(&self, slot: u32) -> &AtomicU64;
    /// The slot's own chunk will be read: a hint.
    fn prefetch(&self, _slot: u32) {}
}

/// Where the words of a ring live.
pub trait Ring {
    /// A lane of it.
    type Lane: Lane + Clone;
    /// How many lanes have ever been used: those from 0 on.
    fn lanes_used(&self) -> u32;
    /// One of them, or the first one.
    fn lane(&self, lane: u32) -> Self::Lane;
    /// How often messages were put back.
    fn requeues(&self) -> &AtomicU64;
}

/// A size class of chunks that belong to no slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Bytes of a chunk.
    pub size: u32,
    /// How many there are in a lane.
    pub count: u32,
}

/// How many pools a lane can have.
pub const MAX_POOLS: usize = 6;

/// The sizes of a lane; all lanes of a ring have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots of a lane, a power of two within [`SLOTS`].
    pub slots: u64,
    /// Bytes of a slot's own chunk.
    pub chunk: u32,
    /// The pools, smallest chunks first; those behind the last one have a size of 0.
    pub pools: [Pool; MAX_POOLS],
    /// The longest message, in bytes.
    pub max_message: u64,
}

impl Shape {
    fn laps(&self) -> Laps {
        Laps::new(self.slots)
    }

    /// The pool of the smallest chunks that hold so many bytes.
    fn pool_for(&self, length: u64) -> Option<usize> {
        self.pools.iter().position(|pool| u64::from(pool.size) >= length)
    }
}

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the chunk of that slot.
    Slot(u32),
    /// In a chunk of a pool.
    Pool {
        /// Which one.
        pool: u32,
        /// Which of its chunks.
        index: u32,
    },
}

// Each ordering that carries the argument above has a mutant that loom must catch.
const PUBLISH: Ordering =
    if cfg!(ringway_mutant = "lane_publish_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const RECEIVE: Ordering =
    if cfg!(ringway_mutant = "lane_receive_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
const RELEASE: Ordering =
    if cfg!(ringway_mutant = "lane_release_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const REUSE: Ordering = if cfg!(ringway_mutant = "lane_reuse_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
const CLAIM: Ordering = if cfg!(ringway_mutant = "lane_claim_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const HEAD: Ordering = if cfg!(ringway_mutant = "lane_head_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
const REQUEUE: Ordering =
    if cfg!(ringway_mutant = "lane_requeue_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const REDELIVER: Ordering =
    if cfg!(ringway_mutant = "lane_redeliver_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
const TELL: Ordering = if cfg!(ringway_mutant = "lane_tell_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const LISTEN: Ordering =
    if cfg!(ringway_mutant = "lane_listen_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };

/// C0: how far consumers are. Pairs with C3: sees all claims before the last one recorded.
fn load_head(lane: &impl Lane) -> Head {
    Head(lane.head().load(HEAD))
}

/// C2: records the claim that `head` tells of in the lease, unless it is recorded.
#[inline(always)]
fn record(lane: &impl Lane, laps: Laps, head: Head) {
    if head.run() == 0 || cfg!(ringway_mutant = "lane_unrecorded") {
        return;
    }
    let first = head.claimed();
    let word = lane.lease(laps.slot(first));
    // Relaxed: only its lap is looked at; what is stored over it by others is ordered by them.
    let lease = Lease(word.load(Ordering::Relaxed));
    if laps.is_earlier(lease.lap(), laps.lap(first)) {
        record_slowly(word, lease, laps.lap(first), head);
    }
}

#[cold]
fn record_slowly(word: &AtomicU64, lease: Lease, lap: u64, head: Head) {
    let claimed = Lease::leased(lap, head.owner(), 0, head.run());
    // Failure means that somebody recorded it, or that its owner has released it already. Relaxed: the claim that made us
    // record it, or the recovery, releases it.
    let _ = word.compare_exchange(lease.0, claimed.0, Ordering::Relaxed, Ordering::Relaxed);
}
