//! One producer and one consumer.

use std::{io, time::Duration};

use ringway::{Options, Profile, Wait};
use ringway_harness::{
    Between, Link, Ring, Row,
    block::{self, Stream},
    with_size,
    yardstick::{BareRing, Futex},
};

use crate::{
    figures::{Figure, Measure},
    peers::{GilInPlace, GilValue, RtrbInPlace, RtrbValue, gil_mpmc},
    rows::{Key, LARGE, Metric, ONE, SMALL, Who},
    suite::{Column, Suite},
};

/// All of it.
pub const SUITE: Suite = Suite { keys, row, figures: &FIGURES, columns: &COLUMNS };

const COLUMNS: [Column; 8] = [
    ("ringway spin", &[Who::RingwaySpin]),
    ("futex", &[Who::RingwayFutex]),
    ("sleep", &[Who::RingwaySleep]),
    ("rtrb in place", &[Who::RtrbInPlace]),
    ("by value", &[Who::RtrbValue]),
    ("gil in place", &[Who::GilInPlace]),
    ("by value", &[Who::GilValue, Who::GilMpmc]),
    ("bare", &[Who::BareRing, Who::PingPong, Who::BareFutex]),
];

const RTRB: &[Who] = &[Who::RtrbInPlace, Who::RtrbValue];

const FIGURES: [Figure; 9] = {
    use Measure::{Difference, Ratio, Seconds};
    use Metric::{Million, OneWay, RoundTrip};
    use Who::{BareFutex, PingPong, RingwayFutex, RingwaySleep, RingwaySpin, RtrbInPlace};
    [
        figure("stream, 64 KiB ring, to rtrb", (RingwaySpin, OneWay, SMALL, 64, 1), Ratio(RTRB), 1.0),
        figure("stream, 4 MiB ring, to rtrb", (RingwaySpin, OneWay, LARGE, 64, 1), Ratio(RTRB), 1.0),
        figure("futex - spin, 64 KiB ring", (RingwayFutex, OneWay, SMALL, 64, 1), Difference(RingwaySpin), 3.0),
        figure("futex - spin, 4 MiB ring", (RingwayFutex, OneWay, LARGE, 64, 1), Difference(RingwaySpin), 3.0),
        figure("batches, 64 KiB ring, to rtrb", (RingwaySpin, OneWay, SMALL, 64, 32), Ratio(&[RtrbInPlace]), 1.2),
        figure("batches, 4 MiB ring, to rtrb", (RingwaySpin, OneWay, LARGE, 64, 32), Ratio(&[RtrbInPlace]), 1.2),
        figure("round trip, spinning, to bare", (RingwaySpin, RoundTrip, SMALL, 64, 1), Ratio(&[PingPong]), 1.5),
        figure("round trip, blocked, to bare", (RingwaySleep, RoundTrip, SMALL, 64, 1), Ratio(&[BareFutex]), 1.15),
        figure("1 M messages of 1 KiB", (RingwaySpin, Million, LARGE, 1024, 1), Seconds, 0.15),
    ]
};

const fn figure(
    name: &'static str,
    (who, metric, ring, size, batch): (Who, Metric, usize, usize, usize),
    measure: Measure,
    target: f64,
) -> Figure {
    Figure { name, ours: Key { who, metric, roles: ONE, ring, size, batch }, measure, target }
}

/// Who takes part in the streams.
const STREAMING: [Who; 6] =
    [Who::RingwaySpin, Who::RtrbInPlace, Who::RtrbValue, Who::GilInPlace, Who::GilValue, Who::BareRing];

fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |who: &[Who], metric, ring, size, batch| {
        keys.extend(who.iter().map(|&who| Key { who, metric, roles: ONE, ring, size, batch }));
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

fn row(key: Key) -> Row<Key> {
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
        Who::GilMpmc => with_size!(key.size, N => linked::<N, _>(key, Threads, move || gil_mpmc(ring))),
        Who::BareRing => with_size!(key.size, N => linked::<N, _>(key, Processes, move || BareRing::new(ring))),
        Who::BareFutex => with_size!(key.size, N => linked::<N, _>(key, Processes, Futex::new)),
        Who::PingPong => Row::new(key, |pair, count| block::ping_pong(pair, Processes, count)),
        _ => unreachable!("{key}: not one of these rows"),
    }
}

/// How ringway is set up for it.
fn options(key: Key) -> Options {
    let options = Options::new().capacity(key.ring).profile(match key.metric {
        Metric::OneWay | Metric::Million => Profile::Throughput,
        Metric::RoundTrip | Metric::Many => Profile::Latency,
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
        Metric::Many => unreachable!("{key}: not one of these rows"),
    }
}
