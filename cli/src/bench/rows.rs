//! What is measured.

use std::{fmt, io, sync::Arc, time::Duration};

use ringway::{self, Options, Profile, units::ByteSize};
use ringway_harness::{
    Between, Carrier, Link, Mechanism, MpmcRing, Pair, Ring, Row, SIZES, Windowed,
    block::{self, Stream},
    with_size,
    yardstick::{Futex, Waiting, pipe, unix},
};
use serde::Serialize;

/// What carries the messages, as `--only` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// ringway over shared memory
    Shm,
    /// ringway over an anonymous pipe
    Pipe,
    /// ringway over a FIFO
    Fifo,
    /// ringway over a Unix stream socket
    Unix,
    /// ringway over Unix datagrams
    UnixDgram,
    /// ringway over a Unix socket of sequenced packets
    UnixSeqpacket,
    /// ringway over TCP within this machine
    Tcp,
    /// ringway over UDP within this machine; the sender waits for the receiver, so that nothing is lost
    Udp,
    /// ringway over a POSIX message queue
    Mq,
    /// ringway over a System V message queue
    Sysvmq,
    /// ringway over a pseudo-terminal
    Pty,
    /// ringway over queued signals
    Signal,
    /// ringway over a file that is appended to
    Log,
    /// ringway over a sealed anonymous file that is handed over
    Memfd,
    /// ringway over what the sides agree on
    Auto,
    /// A pipe, by raw system calls
    RawPipe,
    /// A Unix stream socket, by raw system calls
    RawUnix,
    /// A bare futex
    Futex,
}

impl Transport {
    /// What ringway's endpoints open by address.
    fn mechanism(self) -> Option<Mechanism> {
        Some(match self {
            Self::Pipe => Mechanism::Pipe,
            Self::Fifo => Mechanism::Fifo,
            Self::Unix => Mechanism::Unix,
            Self::UnixDgram => Mechanism::UnixDatagram,
            Self::UnixSeqpacket => Mechanism::UnixSeqPacket,
            Self::Tcp => Mechanism::Tcp,
            Self::Udp => Mechanism::Udp,
            Self::Mq => Mechanism::PosixQueue,
            Self::Sysvmq => Mechanism::SysVQueue,
            Self::Pty => Mechanism::Terminal,
            Self::Signal => Mechanism::Signal,
            Self::Log => Mechanism::Log,
            Self::Memfd => Mechanism::Memfd,
            Self::Auto => Mechanism::Auto,
            Self::Shm | Self::RawPipe | Self::RawUnix | Self::Futex => return None,
        })
    }
}

/// What a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Metric {
    /// ns per message of a stream in one direction.
    #[serde(rename = "one_way_ns")]
    OneWay,
    /// ns per message and its answer.
    #[serde(rename = "rtt_ns")]
    RoundTrip,
}

/// How the sides wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// They never sleep.
    Spin,
    /// They spin for a moment, then sleep on a futex.
    Futex,
    /// They spin for a moment, then sleep in a system call.
    Poll,
    /// They sleep at once.
    Sleep,
}

/// Which row it is; the first fields of its JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// What carries the messages.
    pub transport: Transport,
    /// The kind and the size of the ring.
    pub ring: Option<String>,
    /// How the sides wait.
    pub wait: Wait,
    /// Bytes per message.
    pub size: usize,
    /// Messages published and received at a time.
    pub batch: usize,
    /// What is measured.
    pub metric: Metric,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = match self.metric {
            Metric::OneWay => "one way",
            Metric::RoundTrip => "round trip",
        };
        let (transport, size, wait) = (name(&self.transport), ByteSize(self.size as u64), name(&self.wait));
        write!(f, "{transport} {metric}, {size}, {wait}")
    }
}

/// The name of a value as JSON has it.
pub fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A transport as it is set up for a row.
#[derive(Clone, Copy)]
struct Way {
    transport: Transport,
    wait: Wait,
    /// The kind of ring and its bytes, where there is one.
    ring: Option<(ringway::Ring, usize)>,
}

const SMALL: usize = 64 << 10;
const LARGE: usize = 4 << 20;

const fn shm(wait: Wait, bytes: usize) -> Way {
    Way { transport: Transport::Shm, wait, ring: Some((ringway::Ring::Spsc, bytes)) }
}

const fn shm_of_many(wait: Wait, bytes: usize) -> Way {
    Way { transport: Transport::Shm, wait, ring: Some((ringway::Ring::Mpmc, bytes)) }
}

const fn raw(transport: Transport, wait: Wait) -> Way {
    Way { transport, wait, ring: None }
}

const STREAMS: &[Way] = &[
    shm(Wait::Spin, LARGE),
    shm(Wait::Futex, LARGE),
    shm_of_many(Wait::Spin, LARGE),
    shm_of_many(Wait::Futex, LARGE),
    raw(Transport::RawPipe, Wait::Sleep),
    raw(Transport::RawUnix, Wait::Sleep),
];

const MORE_STREAMS: &[Way] = &[
    shm(Wait::Spin, SMALL),
    shm(Wait::Futex, SMALL),
    shm_of_many(Wait::Spin, SMALL),
    shm_of_many(Wait::Futex, SMALL),
    raw(Transport::RawPipe, Wait::Spin),
    raw(Transport::RawUnix, Wait::Spin),
];

/// By copy, over what the kernel carries: of one size unless told, since these are many.
const CARRIED: &[Transport] = &[
    Transport::Pipe,
    Transport::Fifo,
    Transport::Unix,
    Transport::UnixDgram,
    Transport::UnixSeqpacket,
    Transport::Tcp,
    Transport::Udp,
    Transport::Mq,
    Transport::Sysvmq,
    Transport::Pty,
    Transport::Signal,
    Transport::Log,
    Transport::Memfd,
    Transport::Auto,
];

const fn carried(transport: Transport) -> Way {
    let wait = match transport {
        // A ring, once the sides have met.
        Transport::Memfd | Transport::Auto => Wait::Futex,
        Transport::Signal | Transport::Log => Wait::Sleep,
        _ => Wait::Poll,
    };
    Way { transport, wait, ring: None }
}

const ROUND_TRIPS: &[Way] = &[
    shm(Wait::Spin, SMALL),
    raw(Transport::RawPipe, Wait::Spin),
    raw(Transport::RawUnix, Wait::Spin),
    shm(Wait::Futex, SMALL),
    shm(Wait::Sleep, SMALL),
    raw(Transport::RawPipe, Wait::Sleep),
    raw(Transport::RawUnix, Wait::Sleep),
    raw(Transport::Futex, Wait::Sleep),
];

/// The rows that the arguments ask for. Where both sides share one CPU, nothing is measured that spins only.
pub fn select(only: &[Transport], sizes: &[usize], full: bool, two_cpus: bool) -> Vec<Row<Key>> {
    let sizes_or = |default: &[usize]| match (sizes, full) {
        ([], false) => default.to_vec(),
        ([], true) => SIZES.to_vec(),
        (chosen, _) => chosen.to_vec(),
    };
    let wanted =
        |way: &&Way| (only.is_empty() || only.contains(&way.transport)) && (two_cpus || way.wait != Wait::Spin);
    let sizes_or_64 = if sizes.is_empty() { &[64][..] } else { sizes };
    let mut rows = Vec::new();
    let carried: Vec<Way> = CARRIED.iter().map(|&transport| carried(transport)).collect();
    for way in STREAMS.iter().chain(MORE_STREAMS.iter().take_while(|_| full)).filter(wanted) {
        for batch in if full { &[1, 32][..] } else { &[1] } {
            rows.extend(
                sizes_or(&[64, 1 << 10, 4 << 10, 64 << 10])
                    .iter()
                    .filter_map(|&size| way.row(Metric::OneWay, size, *batch)),
            );
        }
    }
    for way in carried.iter().filter(wanted) {
        for batch in if full { &[1, 32][..] } else { &[1] } {
            rows.extend(sizes_or_64.iter().filter_map(|&size| way.row(Metric::OneWay, size, *batch)));
        }
    }
    for way in ROUND_TRIPS.iter().filter(wanted) {
        rows.extend(sizes_or(&[64]).iter().filter_map(|&size| way.row(Metric::RoundTrip, size, 1)));
    }
    for way in carried.iter().take_while(|_| full).filter(wanted) {
        rows.extend(sizes_or_64.iter().filter_map(|&size| way.row(Metric::RoundTrip, size, 1)));
    }
    rows
}

/// The transports that can't be had here, and why.
pub fn missing(pair: &Pair, only: &[Transport]) -> Vec<(Transport, io::Error)> {
    let wanted = |transport: &&Transport| only.is_empty() || only.contains(transport);
    let failed = |&transport: &Transport| {
        let trial = Stream { warm_up: 0, count: 1, batch: 1 };
        let result = Carrier::new(transport.mechanism()?, &Options::new())
            .and_then(|carrier| block::stream::<64, _>(pair, Between::Processes, || carrier.link(), trial));
        result.err().map(|error| (transport, error))
    };
    CARRIED.iter().filter(wanted).filter_map(failed).collect()
}

impl Way {
    /// The row for one size, unless the ring is too small for it.
    fn row(self, metric: Metric, size: usize, batch: usize) -> Option<Row<Key>> {
        // A ring carries messages of up to half its capacity; so must a batch, lest the sides take turns.
        let room = self.bytes() / 2;
        if (size + 16) * batch > room {
            return None;
        }
        let ring = self.ring.map(|(ring, bytes)| format!("{ring}/{}", ByteSize(bytes as u64)));
        let key = Key { transport: self.transport, ring, wait: self.wait, size, batch, metric };
        let waiting = if self.wait == Wait::Spin { Waiting::Spin } else { Waiting::Sleep };
        Some(match self.transport {
            Transport::Shm => {
                let options = self.options(metric);
                match self.ring {
                    Some((ringway::Ring::Mpmc, _)) => {
                        let options = options.max_message(size);
                        with_size!(size, N => row::<N, _>(key, move || MpmcRing::new(&options, 1)))
                    }
                    _ => with_size!(size, N => row::<N, _>(key, move || Ring::new(&options))),
                }
            }
            Transport::RawPipe => with_size!(size, N => row::<N, _>(key, move || pipe(waiting))),
            Transport::RawUnix => with_size!(size, N => row::<N, _>(key, move || unix(waiting))),
            Transport::Futex => with_size!(size, N => row::<N, _>(key, Futex::new)),
            transport => {
                // What keeps it from being made has been told: see `missing`.
                let carrier = Arc::new(Carrier::new(transport.mechanism()?, &Options::new()).ok()?);
                match transport {
                    Transport::Udp => {
                        with_size!(size, N => row::<N, _>(key, move || Windowed::new(carrier.link()?)))
                    }
                    _ => with_size!(size, N => row::<N, _>(key, move || carrier.link())),
                }
            }
        })
    }

    /// How many the ring has, or is taken to have.
    fn bytes(self) -> usize {
        self.ring.map_or(LARGE, |(_, bytes)| bytes)
    }

    /// How ringway is set up for it.
    fn options(self, metric: Metric) -> Options {
        let options = Options::new().capacity(self.bytes()).profile(match metric {
            Metric::OneWay => Profile::Throughput,
            Metric::RoundTrip => Profile::Latency,
        });
        match self.wait {
            Wait::Spin => options.wait(ringway::Wait::Spin),
            Wait::Futex => options.wait(ringway::Wait::Futex),
            Wait::Poll => options,
            Wait::Sleep => options.wait(ringway::Wait::Futex).spin(Duration::ZERO),
        }
    }
}

fn row<const N: usize, L: Link<N>>(key: Key, link: impl Fn() -> io::Result<L> + Clone + Send + 'static) -> Row<Key> {
    let (metric, batch) = (key.metric, key.batch);
    Row::new(key, move |pair, count| match metric {
        Metric::OneWay => {
            let stream = Stream { warm_up: count / 5, count, batch };
            block::stream::<N, L>(pair, Between::Processes, link.clone(), stream)
        }
        Metric::RoundTrip => block::round_trips::<N, L>(pair, Between::Processes, link.clone(), count / 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(only: &[Transport], sizes: &[usize], full: bool, two_cpus: bool) -> Vec<Key> {
        select(only, sizes, full, two_cpus).into_iter().map(|row| row.label).collect()
    }

    #[test]
    fn each_transport_is_there_by_default() {
        let keys = keys(&[], &[], false, true);
        for transport in [Transport::Shm, Transport::RawPipe, Transport::RawUnix] {
            for (metric, sizes) in [(Metric::OneWay, &[64, 1 << 10, 4 << 10, 64 << 10][..]), (Metric::RoundTrip, &[64])]
            {
                for &size in sizes {
                    let here = |key: &Key| (key.transport, key.metric, key.size) == (transport, metric, size);
                    assert!(keys.iter().any(here), "{transport:?} {metric:?} {size}");
                }
            }
        }
        assert!(keys.iter().any(|key| key.transport == Transport::Futex));
        for &transport in CARRIED {
            let rows: Vec<_> = keys.iter().filter(|key| key.transport == transport).collect();
            assert!(
                matches!(rows[..], [key] if (key.metric, key.size, key.batch) == (Metric::OneWay, 64, 1)),
                "{transport:?}"
            );
        }
        for ring in ["spsc/4MiB", "mpmc/4MiB"] {
            let one_way = |key: &&Key| key.metric == Metric::OneWay && key.ring.as_deref() == Some(ring);
            assert_eq!(keys.iter().filter(one_way).count(), 2 * 4, "{ring}: two ways to wait, four sizes");
        }
    }

    #[test]
    fn in_full_each_transport_has_batches_and_round_trips() {
        let keys = keys(&[], &[], true, true);
        for &transport in CARRIED {
            let has = |metric, batch| {
                keys.iter().any(|key| (key.transport, key.metric, key.batch) == (transport, metric, batch))
            };
            assert!(has(Metric::OneWay, 32) && has(Metric::RoundTrip, 1), "{transport:?}");
        }
    }

    #[test]
    fn the_arguments_narrow() {
        let narrow = keys(&[Transport::Pipe], &[8], false, true);
        assert!(!narrow.is_empty() && narrow.iter().all(|key| key.transport == Transport::Pipe && key.size == 8));
        assert!(keys(&[], &[], true, true).len() > keys(&[], &[], false, true).len());
    }

    #[test]
    fn nothing_spins_on_one_cpu() {
        let alone = keys(&[], &[], true, false);
        assert!(!alone.is_empty() && alone.iter().all(|key| key.wait != Wait::Spin));
    }

    #[test]
    fn messages_fit_their_ring() {
        for way in [shm, shm_of_many] {
            assert!(way(Wait::Spin, SMALL).row(Metric::OneWay, 64 << 10, 1).is_none());
            assert!(way(Wait::Spin, LARGE).row(Metric::OneWay, 64 << 10, 1).is_some());
        }
    }
}
