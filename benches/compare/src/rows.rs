//! Who is measured, doing what.

use std::{fmt, io, time::Duration};

use ringway::{Options, Profile, Wait};
use ringway_harness::{
    Between, Link, Ring, Row,
    block::{self, Stream},
    with_size,
    yardstick::{BareRing, Futex},
};
use serde::Serialize;

use crate::peers::{GilInPlace, GilMpmc, GilValue, RtrbInPlace, RtrbValue};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// ringway between processes; the sides never sleep.
    RingwaySpin,
    /// ringway between processes; the sides spin for a moment, then sleep.
    RingwayFutex,
    /// ringway between processes; the sides sleep at once.
    RingwaySleep,
    /// rtrb between threads, in place.
    RtrbInPlace,
    /// rtrb between threads, by value.
    RtrbValue,
    /// gil's SPSC queue between threads, in place.
    GilInPlace,
    /// gil's SPSC queue between threads, by value.
    GilValue,
    /// gil's MPMC queue between threads, by value.
    GilMpmc,
    /// The bare streaming loop between processes.
    BareRing,
    /// The bare ping-pong over two cache lines between processes.
    PingPong,
    /// The bare futex between processes.
    BareFutex,
}

/// Doing what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Metric {
    /// ns per message of a stream.
    #[serde(rename = "one_way_ns")]
    OneWay,
    /// ns per message and answer.
    #[serde(rename = "rtt_ns")]
    RoundTrip,
    /// ns per message of a million, from the very start.
    #[serde(rename = "million_ns")]
    Million,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Who.
    pub who: Who,
    /// Doing what.
    pub metric: Metric,
    /// Bytes in the ring.
    pub ring: usize,
    /// Bytes per message.
    pub size: usize,
    /// Messages at a time.
    pub batch: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {} B in {} B, {} at a time", self.who, self.metric, self.size, self.ring, self.batch)
    }
}

/// 64 KiB: what the sides pass to each other stays in their own caches.
pub const SMALL: usize = 64 << 10;
/// 4 MiB: it goes through the cache they share.
pub const LARGE: usize = 4 << 20;

/// Who takes part in the streams.
const STREAMING: [Who; 6] =
    [Who::RingwaySpin, Who::RtrbInPlace, Who::RtrbValue, Who::GilInPlace, Who::GilValue, Who::BareRing];

/// All rows.
pub fn all() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |who: &[Who], metric, ring, size, batch| {
        keys.extend(who.iter().map(|&who| Key { who, metric, ring, size, batch }));
    };
    for ring in [SMALL, LARGE] {
        add(&STREAMING, Metric::OneWay, ring, 64, 1);
        add(&[Who::RingwayFutex], Metric::OneWay, ring, 64, 1);
        add(&[Who::RingwaySpin, Who::RtrbInPlace, Who::GilInPlace, Who::BareRing], Metric::OneWay, ring, 64, 32);
    }
    add(
        &[Who::RingwaySpin, Who::PingPong, Who::RtrbInPlace, Who::RtrbValue, Who::GilMpmc],
        Metric::RoundTrip,
        SMALL,
        64,
        1,
    );
    add(&[Who::RingwaySleep, Who::RingwayFutex, Who::BareFutex], Metric::RoundTrip, SMALL, 64, 1);
    add(&[Who::RingwaySpin], Metric::Million, LARGE, 1024, 1);
    for ring in [SMALL, LARGE] {
        add(&STREAMING, Metric::OneWay, ring, 8, 1);
        add(&STREAMING, Metric::OneWay, ring, 256, 1);
    }
    // By value is behind from here on.
    let in_place = [Who::RingwaySpin, Who::RtrbInPlace, Who::GilInPlace, Who::BareRing];
    for (ring, size) in [(SMALL, 1 << 10), (SMALL, 4 << 10), (LARGE, 1 << 10), (LARGE, 4 << 10), (LARGE, 64 << 10)] {
        add(&in_place, Metric::OneWay, ring, size, 1);
    }
    keys
}

/// How to measure it.
pub fn row(key: Key) -> Row<Key> {
    use Between::{Processes, Threads};
    let ring = key.ring;
    match key.who {
        Who::RingwaySpin | Who::RingwayFutex | Who::RingwaySleep => {
            let options = options(key);
            with_size!(key.size, N => linked::<N, _>(key, Processes, move || Ring::new(&options)))
        }
        Who::RtrbInPlace => with_size!(key.size, N => linked::<N, _>(key, Threads, move || RtrbInPlace::new(ring))),
        Who::RtrbValue => with_size!(key.size, N => linked::<N, _>(key, Threads, move || RtrbValue::new(ring))),
        Who::GilInPlace => with_size!(key.size, N => linked::<N, _>(key, Threads, move || GilInPlace::new(ring))),
        Who::GilValue => with_size!(key.size, N => linked::<N, _>(key, Threads, move || GilValue::new(ring))),
        Who::GilMpmc => with_size!(key.size, N => linked::<N, _>(key, Threads, move || GilMpmc::new(ring))),
        Who::BareRing => with_size!(key.size, N => linked::<N, _>(key, Processes, move || BareRing::new(ring))),
        Who::BareFutex => with_size!(key.size, N => linked::<N, _>(key, Processes, Futex::new)),
        Who::PingPong => Row::new(key, |pair, count| block::ping_pong(pair, Processes, count)),
    }
}

/// How ringway is set up for it.
fn options(key: Key) -> Options {
    let options = Options::new().capacity(key.ring).profile(match key.metric {
        Metric::OneWay | Metric::Million => Profile::Throughput,
        Metric::RoundTrip => Profile::Latency,
    });
    match key.who {
        Who::RingwaySpin => options.wait(Wait::Spin),
        Who::RingwaySleep => options.wait(Wait::Futex).spin(Duration::ZERO),
        _ => options.wait(Wait::Futex),
    }
}

fn linked<const N: usize, L: Link<N>>(
    key: Key,
    between: Between,
    link: impl Fn() -> io::Result<L> + Clone + Send + 'static,
) -> Row<Key> {
    let batch = key.batch;
    match key.metric {
        Metric::OneWay => Row::new(key, move |pair, count| {
            block::stream::<N, L>(pair, between, link.clone(), Stream { warm_up: count / 5, count, batch })
        }),
        Metric::RoundTrip => {
            Row::new(key, move |pair, count| block::round_trips::<N, L>(pair, between, link.clone(), count / 2))
        }
        Metric::Million => Row::fixed(key, 1_000_000, move |pair, count| {
            block::stream::<N, L>(pair, between, link.clone(), Stream { warm_up: 0, count, batch })
        }),
    }
}
