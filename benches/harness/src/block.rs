//! One short measurement between two sides, with the canary before and after it.

use std::{
    io,
    ops::RangeInclusive,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    crew::{Between, Side},
    link::{Link, Receiver, Sender},
    pair::Pair,
    payload::{self, Digest},
    shared::Shared,
    stats, traffic,
};

/// The result of one block.
pub struct Block {
    /// The canary before and after, in ns per bare round trip; none where both sides share one CPU.
    pub canary: Option<(f64, f64)>,
    /// Total by number, in ns: per message of a stream, or per round trip.
    pub ns: f64,
    /// Single round trips, in ns. Each includes one time stamp (about 20 ns), which `ns` does not.
    pub histogram: Option<Histogram<u32>>,
}

impl Block {
    /// Whether the sides were on cores close together, and distinct, before and after: what figures are quoted for.
    pub fn near(&self) -> bool {
        self.canary.is_some_and(|(before, after)| [before, after].iter().all(|ns| (80.0..=130.0).contains(ns)))
    }

    /// Whether the sides were about as far apart before as after.
    pub fn steady(&self) -> bool {
        self.canary.is_none_or(|(before, _)| self.steady_at(before))
    }

    /// Whether the sides were about `canary` ns apart, before and after.
    pub fn steady_at(&self, canary: f64) -> bool {
        let alike = |ns| (canary / 1.5..=canary * 1.5).contains(&ns);
        self.canary.is_none_or(|(before, after)| alike(before) && alike(after))
    }
}

/// How messages stream from side 0 to side 1.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Messages sent before the clock starts.
    pub warm_up: u64,
    /// Messages measured.
    pub count: u64,
    /// How many are published, and received, at a time.
    pub batch: usize,
}

/// What a side of a block brings home.
#[derive(Clone, Copy)]
struct Outcome {
    ns: f64,
    sent: Digest,
    received: Digest,
}

/// Streams messages from side 0 to side 1 and measures on side 1, from the last message of the warm-up to the very last.
/// Without warm-up it begins when both sides are ready.
pub fn stream<const N: usize, L: Link<N>>(
    pair: &Pair,
    between: Between,
    link: impl FnOnce() -> io::Result<L> + Send,
    Stream { warm_up, count, batch }: Stream,
) -> io::Result<Block> {
    let warm_up = warm_up.next_multiple_of(batch as u64);
    let total = warm_up + count.next_multiple_of(batch as u64);
    let produce = move |link: &L, side: &Side| {
        let mut sender = link.sender().unwrap_or_else(|error| panic!("{error}"));
        between_canaries(side, || {
            let mut sent = Digest::default();
            traffic::send(&mut sender, 0..total, batch, |sum| sent.add(sum));
            Outcome { ns: 0.0, sent, received: Digest::default() }
        })
    };
    let consume = move |link: &L, side: &Side| {
        let mut receiver = link.receiver().unwrap_or_else(|error| panic!("{error}"));
        between_canaries(side, || {
            let mut received = Digest::default();
            traffic::receive(&mut receiver, warm_up, batch, |sum| received.add(sum));
            let start = side.clock.ticks();
            traffic::receive(&mut receiver, total - warm_up, batch, |sum| received.add(sum));
            let ns = side.clock.ns(side.clock.ticks() - start) / (total - warm_up) as f64;
            Outcome { ns, sent: Digest::default(), received }
        })
    };
    let ((canary, producer), (_, consumer)) = pair.run(between, link, (produce, consume))?;
    verify(producer.sent, consumer.received)?;
    Ok(Block { canary, ns: consumer.ns, histogram: None })
}

/// Sends messages to and fro over two links: `count` times with the clock around all of them, then `count` times with a
/// time stamp after each.
pub fn round_trips<const N: usize, L: Link<N>>(
    pair: &Pair,
    between: Between,
    link: impl Fn() -> io::Result<L> + Send,
    count: u64,
) -> io::Result<Block> {
    let warm_up = count / 10 + 1;
    let total = warm_up + 2 * count;
    let log = Shared::<AtomicU32>::new(count as usize)?;
    let log = &log;
    let ask = move |(forth, back): &(L, L), side: &Side| {
        let mut sender = forth.sender().unwrap_or_else(|error| panic!("{error}"));
        let mut receiver = back.receiver().unwrap_or_else(|error| panic!("{error}"));
        // The log's pages are made present now, not in the middle of a round trip.
        log.iter().for_each(|entry| entry.store(0, Relaxed));
        between_canaries(side, || {
            let (mut sent, mut received) = (Digest::default(), Digest::default());
            let mut round_trip = |i: u64| {
                sender.send(|message| sent.add(payload::write(message, 2 * i)));
                receiver.recv(|message| received.add(payload::read(message)));
            };
            let clock = &side.clock;
            (0..warm_up).for_each(&mut round_trip);
            let start = clock.ticks();
            (warm_up..warm_up + count).for_each(&mut round_trip);
            let mut last = clock.ticks();
            let ns = clock.ns(last - start) / count as f64;
            for (entry, i) in log.iter().zip(warm_up + count..) {
                round_trip(i);
                let now = clock.ticks();
                // Relaxed: the parent reads it when this side has ended.
                entry.store((now - last).try_into().unwrap_or(u32::MAX), Relaxed);
                last = now;
            }
            Outcome { ns, sent, received }
        })
    };
    let answer = move |links: &(L, L), side: &Side| answer(links, side, total);
    let ((canary, asking), (_, answering)) = pair.run(between, move || Ok((link()?, link()?)), (ask, answer))?;
    verify(asking.sent, answering.received)?;
    verify(answering.sent, asking.received)?;
    Ok(Block { canary, ns: asking.ns, histogram: Some(histogram(pair, log)) })
}

/// Sends messages to and fro over two links, `count` times, each after a pause of a random length during which the asking
/// side is busy and the other one waits. `ns` is the median of the single round trips.
pub fn paced<const N: usize, L: Link<N>>(
    pair: &Pair,
    between: Between,
    link: impl Fn() -> io::Result<L> + Send,
    count: u64,
    pauses: RangeInclusive<Duration>,
) -> io::Result<Block> {
    let log = Shared::<AtomicU32>::new(count as usize)?;
    let log = &log;
    let (shortest, spread) = (pauses.start().as_nanos() as f64, (*pauses.end() - *pauses.start()).as_nanos() as f64);
    let ask = move |(forth, back): &(L, L), side: &Side| {
        let mut sender = forth.sender().unwrap_or_else(|error| panic!("{error}"));
        let mut receiver = back.receiver().unwrap_or_else(|error| panic!("{error}"));
        log.iter().for_each(|entry| entry.store(0, Relaxed));
        between_canaries(side, || {
            let (mut sent, mut received) = (Digest::default(), Digest::default());
            let clock = &side.clock;
            for (entry, i) in log.iter().zip(0..) {
                let pause = shortest + spread * random(i);
                let before = clock.ticks();
                while clock.ns(clock.ticks() - before) < pause {
                    std::hint::spin_loop();
                }
                let start = clock.ticks();
                sender.send(|message| sent.add(payload::write(message, 2 * i)));
                receiver.recv(|message| received.add(payload::read(message)));
                // Relaxed: the parent reads it when this side has ended.
                entry.store((clock.ticks() - start).try_into().unwrap_or(u32::MAX), Relaxed);
            }
            Outcome { ns: 0.0, sent, received }
        })
    };
    let answer = move |links: &(L, L), side: &Side| answer(links, side, count);
    let ((canary, asking), (_, answering)) = pair.run(between, move || Ok((link()?, link()?)), (ask, answer))?;
    verify(asking.sent, answering.received)?;
    verify(answering.sent, asking.received)?;
    let histogram = histogram(pair, log);
    Ok(Block { canary, ns: histogram.value_at_quantile(0.5) as f64, histogram: Some(histogram) })
}

/// From 0 to 1, the same for the same number.
fn random(number: u64) -> f64 {
    // SplitMix64's output function.
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// The side that answers what it receives.
fn answer<const N: usize, L: Link<N>>(
    (forth, back): &(L, L),
    side: &Side,
    count: u64,
) -> (Option<(f64, f64)>, Outcome) {
    let mut receiver = forth.receiver().unwrap_or_else(|error| panic!("{error}"));
    let mut sender = back.sender().unwrap_or_else(|error| panic!("{error}"));
    between_canaries(side, || {
        let (mut sent, mut received) = (Digest::default(), Digest::default());
        for i in 0..count {
            receiver.recv(|message| received.add(payload::read(message)));
            sender.send(|message| sent.add(payload::write(message, 2 * i + 1)));
        }
        Outcome { ns: 0.0, sent, received }
    })
}

/// All round trips of a log of ticks.
fn histogram(pair: &Pair, log: &[AtomicU32]) -> Histogram<u32> {
    let mut histogram = stats::histogram();
    for entry in log {
        histogram.saturating_record((pair.clock.ns(entry.load(Relaxed).into()) as u64).max(1));
    }
    histogram
}

/// The bare round trip over two cache lines, without a payload: the same as the canary, for longer.
pub fn ping_pong(pair: &Pair, between: Between, count: u64) -> io::Result<Block> {
    let work = |_: &(), side: &Side| {
        between_canaries(side, || {
            side.ping_pong(count / 10);
            let start = side.clock.ticks();
            side.ping_pong(count);
            side.clock.ns(side.clock.ticks() - start) / count as f64
        })
    };
    let ((canary, ns), _) = pair.run(between, || Ok(()), (work, work))?;
    Ok(Block { canary, ns, histogram: None })
}

/// The canaries before and after, on side 0, and what `work` returns.
pub fn between_canaries<T>(side: &Side, work: impl FnOnce() -> T) -> (Option<(f64, f64)>, T) {
    side.meet();
    let before = side.canary();
    side.meet();
    let outcome = work();
    side.meet();
    let after = side.canary();
    (before.zip(after), outcome)
}

/// An error unless the digests agree.
pub fn verify<D: PartialEq>(sent: D, received: D) -> io::Result<()> {
    if sent == received {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what was received is not what was sent"))
}
