//! Messages from many producers to many consumers.

use std::{
    fmt, io,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    block::{Block, Stream, between_canaries, verify},
    crew::{Between, Side},
    link::Link,
    pair::Pair,
    payload::Tally,
    shared::{Shared, Zeroed},
    traffic,
};

/// How many sides do what. The producers come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Roles {
    /// How many produce.
    pub producers: usize,
    /// How many consume.
    pub consumers: usize,
}

impl Roles {
    /// How many sides there are.
    pub const fn sides(self) -> usize {
        self.producers + self.consumers
    }
}

/// As in "2P1C".
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}P{}C", self.producers, self.consumers)
    }
}

/// Streams messages from all producers to whichever consumer takes them, and measures from the first side's beginning,
/// when all are ready and the warm-up's messages are gone, until the last consumer has finished.
pub fn stream<const N: usize, L: Link<N>>(
    pair: &Pair,
    between: Between,
    link: impl FnOnce() -> io::Result<L> + Send,
    roles: Roles,
    Stream { warm_up, count, batch }: Stream,
) -> io::Result<Block> {
    let warm_up = Phase::new(0, warm_up, roles, batch);
    let measured = Phase::new(warm_up.total, count, roles, batch);
    let taken = Shared::<Taken>::new(2)?;
    let produce = |link: &L, side: &Side| {
        let mut sender = link.sender().unwrap_or_else(|error| panic!("{error}"));
        between_canaries(side, || {
            let mut tally = Tally::default();
            let mut send = |phase: &Phase| {
                traffic::send(&mut sender, phase.sequences(side.index), batch, |sum| tally.add(sum));
            };
            send(&warm_up);
            let (start, end) = timed(side, || send(&measured));
            Part { start, end, tally }
        })
    };
    let consume = |link: &L, side: &Side| {
        let mut receiver = link.receiver().unwrap_or_else(|error| panic!("{error}"));
        between_canaries(side, || {
            let mut tally = Tally::default();
            let mut receive = |phase: &Phase, taken: &Taken| {
                while let Some(count) = phase.take(taken) {
                    traffic::receive(&mut receiver, count, batch, |sum| tally.add(sum));
                }
            };
            receive(&warm_up, &taken[0]);
            let (start, end) = timed(side, || receive(&measured, &taken[1]));
            Part { start, end, tally }
        })
    };
    let parts = pair.crew(roles.sides()).run(between, link, |link, side| {
        if side.index < roles.producers { produce(link, side) } else { consume(link, side) }
    })?;
    let (producers, consumers) = parts.split_at(roles.producers);
    let tally = |parts: &[Report]| parts.iter().fold(Tally::default(), |sum, (_, part)| sum.join(part.tally));
    verify(tally(producers), tally(consumers))?;
    let start = parts.iter().map(|(_, part)| part.start).min().unwrap_or_default();
    let end = consumers.iter().map(|(_, part)| part.end).max().unwrap_or_default();
    let ns = pair.clock.ns(end - start) / measured.total as f64;
    Ok(Block { canary: parts[0].0, ns, histogram: None })
}

/// What one side brings home; times are in ticks.
#[derive(Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
    tally: Tally,
}

/// With the canaries.
type Report = (Option<(f64, f64)>, Part);

/// Meets the others, and times `work`.
fn timed(side: &Side, work: impl FnOnce()) -> (u64, u64) {
    side.meet();
    let start = side.clock.ticks();
    work();
    (start, side.clock.ticks())
}

/// The messages of the warm-up, or those measured.
struct Phase {
    first: u64,
    /// Of each producer.
    share: u64,
    total: u64,
    quota: u64,
}

/// How many messages of a phase consumers have undertaken to receive.
#[derive(Default)]
#[repr(C, align(128))]
struct Taken(AtomicU64);

// SAFETY: zero is a valid number, and access is atomic.
unsafe impl Zeroed for Taken {}

impl Phase {
    fn new(first: u64, count: u64, Roles { producers, consumers }: Roles, batch: usize) -> Self {
        let share = count.div_ceil(producers as u64).next_multiple_of(batch as u64);
        let total = share * producers as u64;
        // Small enough that at the end nobody is left alone with much, large enough that taking it costs nothing.
        let quota = (total / (8 * consumers as u64)).clamp(1, 1024).next_multiple_of(batch as u64);
        Self { first, share, total, quota }
    }

    /// What a producer has to send. No two messages of a block are alike.
    fn sequences(&self, producer: usize) -> Range<u64> {
        let start = self.first + producer as u64 * self.share;
        start..start + self.share
    }

    /// What a consumer has to receive next, until all is taken. All quotas together are all messages, so whoever waits for
    /// the rest of its own waits for messages that come: no consumer needs to be told to stop, and a count that all share
    /// changes once per quota only.
    fn take(&self, taken: &Taken) -> Option<u64> {
        // Relaxed: it is only a number; the messages are handed over by the link.
        let before = taken.0.fetch_add(self.quota, Relaxed);
        Some(self.total.saturating_sub(before).min(self.quota)).filter(|&count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_and_shares_are_all_messages() {
        for (producers, consumers) in [(1, 1), (3, 2), (4, 4)] {
            for (count, batch) in [(0, 1), (1, 1), (500, 32), (100_000, 1), (100_001, 32)] {
                let phase = Phase::new(7, count, Roles { producers, consumers }, batch);
                assert!(phase.total >= count && phase.total < count + (producers * batch) as u64);
                let sent: Vec<u64> = (0..producers).flat_map(|producer| phase.sequences(producer)).collect();
                assert!(sent.iter().copied().eq(7..7 + phase.total));
                let taken = Taken::default();
                let received: u64 = std::iter::from_fn(|| phase.take(&taken)).sum();
                assert_eq!(received, phase.total);
            }
        }
    }
}
