//! Many producers and many consumers.

use std::io;

use ringway::{Options, Profile, Wait};
use ringway_harness::{Between, Link, MpmcRing, Roles, Row, block::Stream, many, with_size, yardstick::BareRing};

use crate::{
    figures::{Figure, Measure},
    peers::{Thing, array_queue, channel, gil_mpmc, kanal},
    rows::{Key, LARGE, Metric, ONE, SMALL, Who},
    suite::{Column, Suite},
};

/// All of it.
pub const SUITE: Suite = Suite { keys, row, figures: &FIGURES, columns: &COLUMNS };

const COLUMNS: [Column; 8] = [
    ("ringway processes", &[Who::RingwayMpmc]),
    ("threads", &[Who::RingwayMpmcThreads]),
    ("ArrayQueue", &[Who::ArrayQueue]),
    ("crossbeam channel", &[Who::CrossbeamChannel]),
    ("kanal", &[Who::Kanal]),
    ("thingbuf", &[Who::Thingbuf]),
    ("gil", &[Who::GilMpmc]),
    ("bare", &[Who::BareRing]),
];

const fn roles(producers: usize, consumers: usize) -> Roles {
    Roles { producers, consumers }
}

const ROLES: [Roles; 5] = [ONE, roles(2, 1), roles(1, 2), roles(2, 2), roles(4, 4)];

/// None of them sends or receives several messages at once.
const PEERS: [Who; 5] = [Who::ArrayQueue, Who::CrossbeamChannel, Who::Kanal, Who::Thingbuf, Who::GilMpmc];

const RINGWAY: [Who; 2] = [Who::RingwayMpmc, Who::RingwayMpmcThreads];

const FIGURES: [Figure; 18] = {
    use Measure::{Ratio, RatioTo};
    use Who::{ArrayQueue, BareRing, RingwayMpmc, RingwayMpmcThreads};
    const PEER: Measure = Ratio(&[ArrayQueue]);
    const LIMIT: Measure = Ratio(&[BareRing]);
    const fn key(who: Who, roles: Roles, ring: usize, size: usize, batch: usize) -> Key {
        Key { who, metric: Metric::Many, roles, ring, size, batch }
    }
    const fn to_peer(name: &'static str, who: Who, roles: Roles, ring: usize) -> Figure {
        Figure { name, ours: key(who, roles, ring, 64, 1), measure: PEER, target: 1.0 }
    }
    const fn to_limit(name: &'static str, ring: usize) -> Figure {
        Figure { name, ours: key(RingwayMpmc, ONE, ring, 64, 32), measure: LIMIT, target: 1.4 }
    }
    const fn batches(name: &'static str, ring: usize) -> Figure {
        let (ours, one_by_one) = (key(RingwayMpmc, ONE, ring, 8, 32), key(RingwayMpmc, ONE, ring, 8, 1));
        Figure { name, ours, measure: RatioTo(one_by_one), target: 0.2 }
    }
    const fn crowd(name: &'static str, ring: usize) -> Figure {
        let (ours, fewer) = (key(RingwayMpmc, roles(4, 4), ring, 64, 1), key(RingwayMpmc, roles(2, 2), ring, 64, 1));
        Figure { name, ours, measure: RatioTo(fewer), target: 2.0 }
    }
    [
        to_peer("processes 1P1C, 64 KiB ring, to ArrayQueue", RingwayMpmc, ONE, SMALL),
        to_peer("processes 2P1C, 64 KiB ring, to ArrayQueue", RingwayMpmc, roles(2, 1), SMALL),
        to_peer("processes 2P2C, 64 KiB ring, to ArrayQueue", RingwayMpmc, roles(2, 2), SMALL),
        to_peer("processes 1P1C, 4 MiB ring, to ArrayQueue", RingwayMpmc, ONE, LARGE),
        to_peer("processes 2P1C, 4 MiB ring, to ArrayQueue", RingwayMpmc, roles(2, 1), LARGE),
        to_peer("processes 2P2C, 4 MiB ring, to ArrayQueue", RingwayMpmc, roles(2, 2), LARGE),
        to_peer("threads 1P1C, 64 KiB ring, to ArrayQueue", RingwayMpmcThreads, ONE, SMALL),
        to_peer("threads 2P1C, 64 KiB ring, to ArrayQueue", RingwayMpmcThreads, roles(2, 1), SMALL),
        to_peer("threads 2P2C, 64 KiB ring, to ArrayQueue", RingwayMpmcThreads, roles(2, 2), SMALL),
        to_peer("threads 1P1C, 4 MiB ring, to ArrayQueue", RingwayMpmcThreads, ONE, LARGE),
        to_peer("threads 2P1C, 4 MiB ring, to ArrayQueue", RingwayMpmcThreads, roles(2, 1), LARGE),
        to_peer("threads 2P2C, 4 MiB ring, to ArrayQueue", RingwayMpmcThreads, roles(2, 2), LARGE),
        to_limit("batches of 64 B, 64 KiB ring, to bare", SMALL),
        to_limit("batches of 64 B, 4 MiB ring, to bare", LARGE),
        batches("batches of 8 B, 64 KiB ring, to one by one", SMALL),
        batches("batches of 8 B, 4 MiB ring, to one by one", LARGE),
        crowd("4P4C, 64 KiB ring, to 2P2C", SMALL),
        crowd("4P4C, 4 MiB ring, to 2P2C", LARGE),
    ]
};

fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |who: &[Who], roles, ring, size, batch| {
        keys.extend(who.iter().map(|&who| Key { who, metric: Metric::Many, roles, ring, size, batch }));
    };
    for size in [64, 8, 1 << 10] {
        for ring in [SMALL, LARGE] {
            for roles in ROLES {
                add(&RINGWAY, roles, ring, size, 1);
                add(&PEERS, roles, ring, size, 1);
                add(&RINGWAY, roles, ring, size, 32);
            }
            add(&[Who::BareRing], ONE, ring, size, 1);
            add(&[Who::BareRing], ONE, ring, size, 32);
        }
    }
    keys
}

fn row(key: Key) -> Row<Key> {
    use Between::{Processes, Threads};
    let ring = key.ring;
    match key.who {
        Who::RingwayMpmc | Who::RingwayMpmcThreads => {
            let (between, options) = (if key.who == Who::RingwayMpmc { Processes } else { Threads }, options(key));
            let producers = key.roles.producers as u32;
            with_size!(key.size, N => linked::<N, _>(key, between, move || MpmcRing::new(&options, producers)))
        }
        Who::ArrayQueue => with_size!(key.size, N => linked::<N, _>(key, Threads, move || Ok(array_queue(ring)))),
        Who::CrossbeamChannel => with_size!(key.size, N => linked::<N, _>(key, Threads, move || Ok(channel(ring)))),
        Who::Kanal => with_size!(key.size, N => linked::<N, _>(key, Threads, move || Ok(kanal(ring)))),
        Who::Thingbuf => with_size!(key.size, N => linked::<N, _>(key, Threads, move || Ok(Thing::new(ring)))),
        Who::GilMpmc => with_size!(key.size, N => linked::<N, _>(key, Threads, move || gil_mpmc(ring))),
        Who::BareRing => with_size!(key.size, N => linked::<N, _>(key, Processes, move || BareRing::new(ring))),
        _ => unreachable!("{key}: not one of these rows"),
    }
}

/// How ringway is set up for it: where sides share CPUs, one that spins keeps the one it waits for from running.
fn options(key: Key) -> Options {
    let shared = std::thread::available_parallelism().is_ok_and(|cpus| key.roles.sides() > cpus.get());
    let wait = if shared { Wait::Futex } else { Wait::Spin };
    Options::new().capacity(key.ring).max_message(key.size).profile(Profile::Throughput).wait(wait)
}

fn linked<const N: usize, L: Link<N>>(
    key: Key,
    between: Between,
    link: impl Fn() -> io::Result<L> + Clone + Send + 'static,
) -> Row<Key> {
    let (roles, batch) = (key.roles, key.batch);
    Row::new(key, move |pair, count| {
        many::stream::<N, L>(pair, between, link.clone(), roles, Stream { warm_up: count / 5, count, batch })
    })
}
