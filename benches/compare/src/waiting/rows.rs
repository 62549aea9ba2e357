//! What is measured, and what is compared with what.

use std::{io, sync::Arc, time::Duration};

use ringway::{Options, Profile, Wait};
use ringway_harness::{
    Between::Processes,
    Grouped, Link, NamedRings, Polled, Ring, Row, Watched,
    block::{self, Stream},
    yardstick::{Bell, Belled, Descriptors, Futex, PosixSemaphore, SystemVSemaphore, Waiting, pipe, unix},
};

use super::{SIZE, aio, iceoryx::Domain};
use crate::rows::SMALL;

/// A part of what is measured, which `--only` takes by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Sleeping at once.
    Blocked,
    /// Waiting in an epoll instance, or a wait set.
    Polled,
    /// Spinning, then sleeping; all day long, or after pauses.
    Spin,
    /// tokio's tasks.
    Tokio,
    /// What it costs to publish.
    Publish,
}

impl Section {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Blocked, Self::Polled, Self::Spin, Self::Tokio, Self::Publish];

    /// What it goes by, and what it is about.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Blocked => ("blocked", "round trip, sleeping at once"),
            Self::Polled => ("polled", "round trip, waiting in epoll or a wait set"),
            Self::Spin => ("spin", "round trip, spinning, then sleeping"),
            Self::Tokio => ("tokio", "between tokio's tasks"),
            Self::Publish => ("publish", "stream, what being woken costs who publishes"),
        }
    }
}

/// The name of a row.
pub type Name = &'static str;

/// How a row of ringway's is judged.
#[derive(Clone, Copy)]
pub enum Aim {
    /// At most so many times the others.
    Ratio(f64),
    /// At most so many ns more than the others.
    More(f64),
    /// None: for information.
    None,
}

/// One line of a table: a row of ringway's, and the fastest of those that it is compared with.
pub struct Line {
    /// Where it belongs.
    pub section: Section,
    /// ringway's row.
    pub ours: Name,
    /// Those of others.
    pub theirs: &'static [Name],
    /// What is to be reached.
    pub aim: Aim,
}

const fn line(section: Section, ours: Name, theirs: &'static [Name], aim: Aim) -> Line {
    Line { section, ours, theirs, aim }
}

/// All of them.
pub const LINES: [Line; 24] = {
    use Aim::{More, None, Ratio};
    use Section::{Blocked, Polled, Publish, Spin, Tokio};
    const PEERS: &[Name] = &["pipe", "unix socket", "iceoryx2 event"];
    const PAUSED_PEERS: &[Name] = &["pipe, paused", "unix socket, paused", "iceoryx2 event, paused"];
    [
        line(Blocked, "wait=futex", &["bare futex"], Ratio(1.1)),
        line(Blocked, "wait=sem", &["bare sem_t"], Ratio(1.1)),
        line(Blocked, "wait=named-sem", &["bare sem_t"], Ratio(1.1)),
        line(Blocked, "wait=sysv-sem", &["bare semop"], Ratio(1.1)),
        line(Blocked, "wait=eventfd", &["bare eventfd"], Ratio(1.1)),
        line(Blocked, "wait=fifo", &["bare fifo"], Ratio(1.1)),
        line(Polled, "epoll, wait=eventfd", &["epoll, bare eventfd"], Ratio(1.1)),
        line(Polled, "epoll, wait=fifo", &["epoll, bare fifo"], Ratio(1.1)),
        line(Polled, "epoll, wait=futex", &["epoll, bare datagram"], None),
        line(Polled, "wait set of 1", &["epoll, bare eventfd"], None),
        line(Polled, "wait set of 100", &["epoll, bare eventfd"], None),
        line(Polled, "wait set of 100, eventfd", &["epoll, bare eventfd"], None),
        line(Spin, "ringway", PEERS, Ratio(1.0)),
        line(Spin, "ringway, eventfd", PEERS, Ratio(1.0)),
        line(Spin, "ringway, paused", PAUSED_PEERS, Ratio(1.0)),
        line(Spin, "ringway, eventfd, paused", PAUSED_PEERS, Ratio(1.0)),
        line(Tokio, "round trip, wait=eventfd", &["round trip, UnixStream"], Ratio(1.3)),
        line(Tokio, "round trip, wait=futex", &["round trip, UnixStream"], Ratio(1.3)),
        line(Tokio, "16 under way, wait=eventfd", &["16 under way, UnixStream"], Ratio(1.0)),
        line(Tokio, "16 under way, wait=futex", &["16 under way, UnixStream"], Ratio(1.0)),
        line(Tokio, "stream, wait=eventfd", &["stream, UnixStream"], Ratio(1.0)),
        line(Tokio, "stream, wait=futex", &["stream, UnixStream"], Ratio(1.0)),
        line(Publish, "wait=futex, to one who spins", &["wait=spin"], More(3.0)),
        line(Publish, "wait=futex, watched", &["wait=spin"], More(3.0)),
    ]
};

/// The rows of a section, each beside those that it is compared with.
pub fn rows(section: Section) -> io::Result<Vec<Row<Name>>> {
    match section {
        Section::Blocked => blocked(),
        Section::Polled => polled(),
        Section::Spin => spin(),
        Section::Tokio => Ok(tokio()),
        Section::Publish => Ok(publish()),
    }
}

fn blocked() -> io::Result<Vec<Row<Name>>> {
    let set = SystemVSemaphore::new()?;
    Ok(vec![
        round_trips("bare futex", Futex::<SIZE>::new),
        round_trips("wait=futex", ring(sleeping(Wait::Futex))),
        round_trips("bare sem_t", || bell(PosixSemaphore::new()?)),
        round_trips("wait=sem", ring(sleeping(Wait::Semaphore))),
        named("wait=named-sem", sleeping(Wait::NamedSemaphore)),
        round_trips("bare semop", move || bell(set.another()?)),
        named("wait=sysv-sem", sleeping(Wait::SystemVSemaphore)),
        round_trips("bare eventfd", || bell(Descriptors::eventfd()?)),
        round_trips("wait=eventfd", ring(sleeping(Wait::Eventfd))),
        round_trips("bare fifo", || bell(Descriptors::pipe()?)),
        named("wait=fifo", sleeping(Wait::Fifo)),
    ])
}

fn polled() -> io::Result<Vec<Row<Name>>> {
    let fifos = Arc::new(NamedRings::new(&sleeping(Wait::Fifo)));
    let set = |name, wait, members| {
        let ring = ring(sleeping(wait));
        round_trips(name, move || Ok(Grouped { link: ring()?, members }))
    };
    let epoll = |name, wait| {
        let ring = ring(sleeping(wait));
        round_trips(name, move || Ok(Polled(ring()?)))
    };
    Ok(vec![
        round_trips("epoll, bare eventfd", || bell(Descriptors::eventfd()?.polled()?)),
        epoll("epoll, wait=eventfd", Wait::Eventfd),
        set("wait set of 1", Wait::Futex, 1),
        set("wait set of 100", Wait::Futex, 100),
        set("wait set of 100, eventfd", Wait::Eventfd, 100),
        round_trips("epoll, bare datagram", || bell(Descriptors::datagrams()?.polled()?)),
        epoll("epoll, wait=futex", Wait::Futex),
        round_trips("epoll, bare fifo", || bell(Descriptors::pipe()?.polled()?)),
        round_trips("epoll, wait=fifo", move || Ok(Polled(fifos.link()?))),
    ])
}

fn spin() -> io::Result<Vec<Row<Name>>> {
    let domain = Arc::new(Domain::new()?);
    let mut rows = Vec::new();
    for is_paused in [false, true] {
        let name = |tight, paused| if is_paused { paused } else { tight };
        let domain = domain.clone();
        rows.push(to_and_fro(name("ringway", "ringway, paused"), is_paused, ring(default(Wait::Futex))));
        rows.push(to_and_fro(
            name("ringway, eventfd", "ringway, eventfd, paused"),
            is_paused,
            ring(default(Wait::Eventfd)),
        ));
        rows.push(to_and_fro(name("pipe", "pipe, paused"), is_paused, || pipe(Waiting::Sleep)));
        rows.push(to_and_fro(name("unix socket", "unix socket, paused"), is_paused, || unix(Waiting::Sleep)));
        rows.push(to_and_fro(name("iceoryx2 event", "iceoryx2 event, paused"), is_paused, move || bell(domain.bell())));
    }
    Ok(rows)
}

fn tokio() -> Vec<Row<Name>> {
    let rings = |wait| {
        let options = default(wait);
        move || aio::Rings::new(&options)
    };
    vec![
        tasks("round trip, UnixStream", 1, aio::Socket::new),
        tasks("round trip, wait=eventfd", 1, rings(Wait::Eventfd)),
        tasks("round trip, wait=futex", 1, rings(Wait::Futex)),
        tasks("16 under way, UnixStream", 16, aio::Socket::new),
        tasks("16 under way, wait=eventfd", 16, rings(Wait::Eventfd)),
        tasks("16 under way, wait=futex", 16, rings(Wait::Futex)),
        task_stream("stream, UnixStream", aio::Socket::new),
        task_stream("stream, wait=eventfd", rings(Wait::Eventfd)),
        task_stream("stream, wait=futex", rings(Wait::Futex)),
    ]
}

fn publish() -> Vec<Row<Name>> {
    let watched = ring(streaming(Wait::Futex));
    vec![
        stream("wait=spin", ring(streaming(Wait::Spin))),
        stream("wait=futex, to one who spins", ring(streaming(Wait::Futex))),
        stream("wait=futex, watched", move || Ok(Watched(watched()?))),
    ]
}

/// To sleep at once.
fn sleeping(wait: Wait) -> Options {
    default(wait).spin(Duration::ZERO)
}

/// To spin for as long as usual.
fn default(wait: Wait) -> Options {
    Options::new().capacity(SMALL).profile(Profile::Latency).wait(wait)
}

fn streaming(wait: Wait) -> Options {
    default(wait).profile(Profile::Throughput)
}

fn ring(options: Options) -> impl Fn() -> io::Result<Ring> + Clone + Send + 'static {
    move || Ring::new(&options)
}

fn bell<B: Bell>(bell: B) -> io::Result<Belled<SIZE, B>> {
    Belled::new(bell)
}

fn named(name: Name, options: Options) -> Row<Name> {
    let rings = Arc::new(NamedRings::new(&options));
    round_trips(name, move || rings.link())
}

fn round_trips<L: Link<SIZE>>(name: Name, link: impl Fn() -> io::Result<L> + Clone + Send + 'static) -> Row<Name> {
    Row::new(name, move |pair, count| block::round_trips::<SIZE, L>(pair, Processes, link.clone(), count / 2))
}

/// All day long, or each after a pause of about a millisecond, when no spin lasts any longer.
fn to_and_fro<L: Link<SIZE>>(
    name: Name,
    is_paused: bool,
    link: impl Fn() -> io::Result<L> + Clone + Send + 'static,
) -> Row<Name> {
    if !is_paused {
        return round_trips(name, link);
    }
    let pauses = Duration::from_micros(500)..=Duration::from_micros(1500);
    Row::fixed(name, 100, move |pair, count| {
        block::paced::<SIZE, L>(pair, Processes, link.clone(), count, pauses.clone())
    })
}

fn stream<L: Link<SIZE>>(name: Name, link: impl Fn() -> io::Result<L> + Clone + Send + 'static) -> Row<Name> {
    Row::new(name, move |pair, count| {
        let stream = Stream { warm_up: count / 5, count, batch: 1 };
        block::stream::<SIZE, L>(pair, Processes, link.clone(), stream)
    })
}

fn tasks<C: aio::Connection>(
    name: Name,
    flight: u64,
    connection: impl Fn() -> io::Result<C> + Clone + Send + 'static,
) -> Row<Name> {
    Row::new(name, move |pair, count| aio::round_trips(pair, connection.clone(), count, flight))
}

fn task_stream<C: aio::Connection>(
    name: Name,
    connection: impl Fn() -> io::Result<C> + Clone + Send + 'static,
) -> Row<Name> {
    Row::new(name, move |pair, count| aio::stream(pair, connection.clone(), count))
}
