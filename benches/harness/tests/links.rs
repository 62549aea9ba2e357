//! Every yardstick carries every message, whole and in order, between real processes.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use ringway::{Options, Wait};
use ringway_harness::{
    Between, Carrier, Grouped, Link, Mechanism, MpmcRing, NamedRings, Pair, Polled, Ring, Roles, Watched, Windowed,
    block::{self, Stream},
    many, with_size,
    yardstick::{
        BareRing, Belled, Descriptors, Futex, Log, PosixQueue, PosixSemaphore, Signals, SysVQueue, SystemVSemaphore,
        Waiting, pipe, tcp, terminal, udp, unix, unix_datagram, unix_seqpacket,
    },
};

/// One test at a time, as the harness wants it: a fork while another thread holds a lock would leave that lock locked in the
/// child.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn streams<const N: usize, L: Link<N>>(link: impl Fn() -> io::Result<L> + Send + Clone) {
    streams_between::<N, L>(&[Between::Processes, Between::Threads], link);
}

fn streams_between<const N: usize, L: Link<N>>(kinds: &[Between], link: impl Fn() -> io::Result<L> + Send + Clone) {
    let pair = Pair::new().unwrap();
    for &between in kinds {
        for batch in [1, 32] {
            let block =
                block::stream::<N, L>(&pair, between, link.clone(), Stream { warm_up: 100, count: 1000, batch })
                    .unwrap();
            assert!(block.ns > 0.0 && block.histogram.is_none());
        }
        let block = block::round_trips::<N, L>(&pair, between, link.clone(), 100).unwrap();
        assert_eq!(block.histogram.unwrap().len(), 100);
        assert_eq!(block.canary.is_some(), pair.cpus.are_two());
    }
}

#[test]
fn a_pipe() {
    let _alone = alone();
    for size in [8, 64, 65536] {
        with_size!(size, N => streams::<N, _>(|| pipe(Waiting::Sleep)));
    }
}

#[test]
fn a_unix_stream() {
    let _alone = alone();
    for size in [8, 64, 65536] {
        with_size!(size, N => streams::<N, _>(|| unix(Waiting::Sleep)));
    }
}

#[test]
fn tcp_and_a_terminal() {
    let _alone = alone();
    for size in [8, 64, 65536] {
        with_size!(size, N => streams::<N, _>(|| tcp(Waiting::Sleep)));
        with_size!(size, N => streams::<N, _>(|| terminal(Waiting::Sleep)));
    }
}

#[test]
fn packets() {
    let _alone = alone();
    for size in [8, 64, 4096] {
        with_size!(size, N => streams::<N, _>(unix_datagram));
        with_size!(size, N => streams::<N, _>(unix_seqpacket));
        with_size!(size, N => streams::<N, _>(udp));
    }
}

#[test]
fn queues() {
    let _alone = alone();
    for size in [8, 64, 4096] {
        with_size!(size, N => streams::<N, _>(PosixQueue::new));
        let queue = SysVQueue::new().unwrap();
        let kinds = Arc::new(AtomicU32::new(1));
        with_size!(size, N => streams::<N, _>(move || Ok(queue.another(kinds.fetch_add(1, Relaxed)))));
    }
}

#[test]
fn signals_and_a_log() {
    let _alone = alone();
    let numbers = Arc::new(AtomicU32::new(0));
    streams_between::<64, _>(&[Between::Processes], move || {
        Signals::new(1 + (numbers.fetch_add(1, Relaxed) % 2) as u8)
    });
    for size in [8, 64, 4096] {
        with_size!(size, N => streams::<N, _>(Log::new));
    }
}

/// The public endpoints, over each mechanism.
#[test]
fn ringway_carried() {
    let _alone = alone();
    for mechanism in Mechanism::ALL {
        let carrier = Arc::new(Carrier::new(mechanism, &Options::new()).unwrap());
        match mechanism {
            Mechanism::Udp => {
                streams_between::<64, _>(&[Between::Processes], move || Windowed::new(carrier.link()?));
            }
            _ => streams_between::<64, _>(&[Between::Processes], move || carrier.link()),
        }
    }
}

#[test]
fn nothing_is_left_behind() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let left = || -> Vec<_> {
        let ours = format!("ringway-bench-{}-", std::process::id());
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().starts_with(&ours)).collect()
    };
    for mechanism in [Mechanism::Fifo, Mechanism::Terminal, Mechanism::Log, Mechanism::Memfd] {
        let carrier = Carrier::new(mechanism, &Options::new()).unwrap();
        let once = Stream { warm_up: 0, count: 10, batch: 1 };
        block::stream::<8, _>(&pair, Between::Processes, || carrier.link(), once).unwrap();
        assert_eq!(left().len(), 1, "{mechanism:?}: its directory");
        drop(carrier);
        assert!(left().is_empty(), "{mechanism:?}: {:?}", left());
    }
}

#[test]
fn spinning_descriptors() {
    let _alone = alone();
    streams::<64, _>(|| pipe(Waiting::Spin));
    streams::<64, _>(|| unix(Waiting::Spin));
}

#[test]
fn ringway() {
    let _alone = alone();
    for wait in [Wait::Spin, Wait::Futex] {
        let options = Options::new().capacity(64 << 10).wait(wait);
        streams_between::<64, _>(&[Between::Processes], || Ring::new(&options));
        streams_between::<4096, _>(&[Between::Processes], || Ring::new(&options.clone().spin(Duration::ZERO)));
    }
}

#[test]
fn the_bare_ring() {
    let _alone = alone();
    streams::<64, _>(|| BareRing::new(4096));
    streams::<8, _>(|| BareRing::new(256));
}

#[test]
fn the_bare_futex_makes_round_trips() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let block = block::round_trips::<64, _>(&pair, Between::Processes, Futex::new, 100).unwrap();
    assert!(block.ns > 0.0);
}

#[test]
fn bare_bells_make_round_trips() {
    let _alone = alone();
    round_trip(|| Belled::new(PosixSemaphore::new()?));
    let set = SystemVSemaphore::new().unwrap();
    round_trip(|| Belled::new(set.another()?));
    for bell in [Descriptors::eventfd, Descriptors::pipe, Descriptors::datagrams] {
        round_trip(|| Belled::new(bell()?));
        round_trip(|| Belled::new(bell()?.polled()?));
    }
}

/// Every strategy, sleeping at once.
#[test]
fn ringway_however_it_waits() {
    let _alone = alone();
    let options = |wait| Options::new().capacity(64 << 10).wait(wait).spin(Duration::ZERO);
    for wait in [Wait::Semaphore, Wait::Eventfd] {
        streams_between::<64, _>(&[Between::Processes], || Ring::new(&options(wait)));
    }
    for wait in [Wait::Futex, Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo] {
        let rings = NamedRings::new(&options(wait));
        let rings = &rings;
        streams_between::<64, _>(&[Between::Processes], || rings.link());
    }
}

/// In an epoll instance, in a wait set of futexes, in one of descriptors, and as ever with a descriptor given out.
#[test]
fn ringway_waited_for_along_with_others() {
    let _alone = alone();
    for wait in [Wait::Futex, Wait::Eventfd] {
        let options = Options::new().capacity(64 << 10).wait(wait);
        let options = &options;
        streams_between::<64, _>(&[Between::Processes], || Ok(Polled(Ring::new(options)?)));
        streams_between::<64, _>(&[Between::Processes], || Ok(Watched(Ring::new(options)?)));
        for members in [1, 100, 200] {
            streams_between::<64, _>(&[Between::Processes], || Ok(Grouped { link: Ring::new(options)?, members }));
        }
    }
}

#[test]
fn a_pause_is_not_counted() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let pauses = Duration::from_millis(10)..=Duration::from_millis(11);
    let block = block::paced::<64, _>(&pair, Between::Processes, || pipe(Waiting::Sleep), 20, pauses).unwrap();
    assert!(block.ns < 10e6, "{} ns", block.ns);
    assert_eq!(block.histogram.unwrap().len(), 20);
}

fn round_trip<L: Link<64>>(link: impl Fn() -> io::Result<L> + Send) {
    let block = block::round_trips::<64, L>(&Pair::new().unwrap(), Between::Processes, link, 100).unwrap();
    assert!(block.ns > 0.0);
}

#[test]
fn the_bare_ping_pong() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    if pair.cpus.are_two() {
        assert!(block::ping_pong(&pair, Between::Processes, 1000).unwrap().ns > 1.0);
    }
}

/// A link that damages one message.
struct Liar(BareRing<64>);

struct LyingSender(<BareRing<64> as Link<64>>::Sender, u32);

impl Link<64> for Liar {
    type Sender = LyingSender;
    type Receiver = <BareRing<64> as Link<64>>::Receiver;

    fn sender(&self) -> io::Result<LyingSender> {
        Ok(LyingSender(self.0.sender()?, 0))
    }

    fn receiver(&self) -> io::Result<Self::Receiver> {
        self.0.receiver()
    }
}

impl ringway_harness::Sender<64> for LyingSender {
    fn send(&mut self, write: impl FnOnce(&mut std::mem::MaybeUninit<[u8; 64]>)) {
        self.1 += 1;
        let damaged = self.1 == 50;
        self.0.send(|message| {
            write(message);
            if damaged {
                message.write([0; 64]);
            }
        });
    }
}

#[test]
fn damage_is_seen() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let once = Stream { warm_up: 0, count: 100, batch: 1 };
    let result = block::stream(&pair, Between::Processes, || Ok(Liar(BareRing::new(4096)?)), once);
    assert_eq!(result.err().unwrap().kind(), io::ErrorKind::InvalidData);
}

const KINDS: [Between; 2] = [Between::Processes, Between::Threads];

/// Whole messages, as long as what is written at once fits into `PIPE_BUF`.
#[test]
fn a_pipe_of_many() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    for between in KINDS {
        for (producers, consumers) in [(1, 1), (3, 1), (1, 3), (2, 2), (4, 4)] {
            for batch in [1, 32] {
                let (roles, stream) = (Roles { producers, consumers }, Stream { warm_up: 100, count: 3000, batch });
                let block = many::stream::<64, _>(&pair, between, || pipe(Waiting::Sleep), roles, stream).unwrap();
                assert!(block.ns > 0.0 && block.canary.is_some() == pair.cpus.are_two());
            }
        }
    }
}

#[test]
fn damage_among_many_is_seen() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let (roles, once) = (Roles { producers: 1, consumers: 1 }, Stream { warm_up: 0, count: 100, batch: 1 });
    for between in KINDS {
        let result = many::stream(&pair, between, || Ok(Liar(BareRing::new(4096)?)), roles, once);
        assert_eq!(result.err().unwrap().kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn ringway_of_many() {
    let _alone = alone();
    let pair = Pair::new().unwrap();
    let options = Options::new().capacity(64 << 10).max_message(64).wait(Wait::Futex);
    for between in KINDS {
        for (producers, consumers) in [(1, 1), (3, 1), (1, 3), (2, 2), (4, 4)] {
            for batch in [1, 32] {
                let (roles, stream) = (Roles { producers, consumers }, Stream { warm_up: 100, count: 100_000, batch });
                let link = || MpmcRing::new(&options, producers as u32);
                let block = many::stream::<64, _>(&pair, between, link, roles, stream).unwrap();
                assert!(block.ns > 0.0);
            }
        }
    }
}
