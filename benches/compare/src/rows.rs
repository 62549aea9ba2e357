//! Who is measured, doing what.

use std::fmt;

use ringway_harness::Roles;
use serde::Serialize;

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
    /// ringway's ring of many between processes.
    RingwayMpmc,
    /// ringway's ring of many between threads.
    RingwayMpmcThreads,
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
    /// crossbeam's ArrayQueue between threads, by value.
    ArrayQueue,
    /// crossbeam's bounded channel between threads, by value.
    CrossbeamChannel,
    /// kanal's bounded channel between threads, by value.
    Kanal,
    /// thingbuf's queue between threads, in place.
    Thingbuf,
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
    /// ns per message of a stream from all producers to all consumers, by the time from the first to the last.
    #[serde(rename = "many_ns")]
    Many,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Who.
    pub who: Who,
    /// Doing what.
    pub metric: Metric,
    /// How many do it.
    #[serde(flatten, with = "RolesFields")]
    pub roles: Roles,
    /// Bytes in the ring.
    pub ring: usize,
    /// Bytes per message.
    pub size: usize,
    /// Messages at a time.
    pub batch: usize,
}

/// The fields of `Roles`.
#[derive(Serialize)]
#[serde(remote = "Roles")]
struct RolesFields {
    producers: usize,
    consumers: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, metric, roles, ring, size, batch } = self;
        write!(f, "{who:?} {metric:?} {roles} {size} B in {ring} B, {batch} at a time")
    }
}

/// 64 KiB: what the sides pass to each other stays in their own caches.
pub const SMALL: usize = 64 << 10;
/// 4 MiB: it goes through the cache they share.
pub const LARGE: usize = 4 << 20;

/// One producer and one consumer.
pub const ONE: Roles = Roles { producers: 1, consumers: 1 };
