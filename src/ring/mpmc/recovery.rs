//! Taking back what a dead consumer held, and looking at what there is.

use super::word::{Head, Kind, Lease, Seal, State, ahead, distance};
use super::{Lane, RECEIVE, REQUEUE, Ring, Shape, TELL, load_head, record};
use crate::primitive::Ordering;

/// What becomes of messages that a dead consumer had been handed and had not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// They are dropped at once, instead of delivered again.
    pub drop: bool,
    /// How often a message is delivered at most; then it is dropped.
    pub max_deliveries: u32,
}

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Messages put back, to be delivered again.
    pub requeued: u64,
    /// Messages dropped.
    pub dropped: u64,
    /// Whether the consumers have to be woken: there are messages that were put back, by this recovery or by one that was
    /// killed before it could tell.
    pub news: bool,
}

/// Takes back what the consumer `owner` held. It must be dead, or be the caller; and nobody else may take its place before
/// this returns. It may be killed anywhere, and is then done again.
pub fn recover(ring: &impl Ring, shape: &Shape, owner: u32, policy: Policy) -> Recovered {
    let laps = shape.laps();
    let mut recovered = Recovered::default();
    for number in 0..ring.lanes_used() {
        let lane = ring.lane(number);
        // R1: a claim of which only the head tells.
        if !cfg!(ringway_mutant = "lane_head_forgotten") {
            let head = load_head(&lane);
            if head.owner() == owner {
                record(&lane, laps, head);
            }
        }
        for slot in 0..shape.slots as u32 {
            let word = lane.lease(slot);
            // Relaxed: the owner's death, or the head, orders us behind what made it the owner's.
            let lease = Lease(word.load(Ordering::Relaxed));
            if lease.state() == State::Leased && lease.owner() == owner {
                let deliveries = lease.deliveries() + 1;
                let dropped = policy.drop || deliveries >= policy.max_deliveries;
                let next = lease.with(if dropped { State::Released } else { State::Requeued }, deliveries.min(15));
                // Relaxed: as above. Before others may have the lease, and write it.
                let released = super::word::Done(lane.done(slot).load(Ordering::Relaxed)).released(lease.lap());
                // R2, pairs with C5, and with P0.
                if word.compare_exchange(lease.0, next.0, REQUEUE, Ordering::Relaxed).is_err() {
                    continue;
                }
                let messages = u64::from(lease.run().saturating_sub(released.count_ones()));
                *if dropped { &mut recovered.dropped } else { &mut recovered.requeued } += messages;
            }
            recovered.news |= Lease(word.load(Ordering::Relaxed)).state() == State::Requeued;
        }
    }
    if recovered.news && !cfg!(ringway_mutant = "lane_no_news") {
        // R3, pairs with the load of a consumer that looks for them.
        ring.requeues().fetch_add(1, TELL);
    }
    recovered
}

/// What there is in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that nobody has claimed yet.
    pub unclaimed: u64,
    /// Runs of messages that consumers hold, or held when they died.
    pub leased: u64,
    /// Runs of messages that wait to be delivered again.
    pub requeued: u64,
    /// Bytes in the messages that nobody has claimed.
    pub bytes: u64,
}

/// Counts what there is, without changing anything; if the ring is in use, the figures are of slightly different moments.
pub fn backlog(ring: &impl Ring, shape: &Shape) -> Backlog {
    let laps = shape.laps();
    let mut backlog = Backlog::default();
    for number in 0..ring.lanes_used() {
        let lane = ring.lane(number);
        let head = load_head(&lane);
        let mut position = head.position();
        while distance(head.position(), position) < shape.slots {
            let slot = lane.slot(laps.slot(position));
            match Seal(slot.seal.load(RECEIVE)).of(laps.lap(position)) {
                None => break,
                Some(Kind::Skip) => {}
                Some(Kind::Message) => {
                    backlog.unclaimed += 1;
                    backlog.bytes += super::word::Note(slot.note.load(Ordering::Relaxed)).length();
                }
            }
            position = ahead(position, 1);
        }
        for slot in 0..shape.slots as u32 {
            match Lease(lane.lease(slot).load(Ordering::Relaxed)).state() {
                State::Released => {}
                State::Leased => backlog.leased += 1,
                State::Requeued => backlog.requeued += 1,
            }
        }
        backlog.leased += u64::from(is_unrecorded(&lane, laps, head));
    }
    backlog
}

/// Whether every published message has been given back, as of now.
pub fn is_drained(ring: &impl Ring, shape: &Shape) -> bool {
    let laps = shape.laps();
    (0..ring.lanes_used()).all(|number| {
        let lane = ring.lane(number);
        let head = load_head(&lane);
        let seal = Seal(lane.slot(laps.slot(head.position())).seal.load(RECEIVE));
        seal.of(laps.lap(head.position())).is_none()
            && !is_unrecorded(&lane, laps, head)
            && (0..shape.slots as u32).all(|slot| Lease(lane.lease(slot).load(Ordering::Acquire)).is_released())
    })
}

/// Whether only the head tells of the last claim: then its messages have not been given back.
fn is_unrecorded(lane: &impl Lane, laps: super::Laps, head: Head) -> bool {
    let lease = Lease(lane.lease(laps.slot(head.claimed())).load(Ordering::Acquire));
    head.run() != 0 && laps.is_earlier(lease.lap(), laps.lap(head.claimed()))
}
