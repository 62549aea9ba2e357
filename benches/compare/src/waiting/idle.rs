//! What waiting costs while nothing comes: CPU time and wake-ups of processes that wait for ten seconds, one after the other: several
//! at once would keep the kernel's code and data in the caches for each other. Each has a peer that is there, sleeps and is silent.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ringway::{Address, Events, Options, Receiver, RecvError, Wait, WaitSet, transport};
use ringway_harness::{Between, Pair, crew::Side};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::aio;

/// How long they wait.
const TIME: Duration = Duration::from_secs(10);

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// By receiving.
    Receiving(Wait),
    /// In an epoll instance of its own.
    Epoll(Wait),
    /// A task of tokio.
    Tokio(Wait),
    /// In a wait set, with so many rings.
    Set(usize),
}

/// All of them.
pub const WAITERS: [Waiter; 13] = [
    Waiter::Receiving(Wait::Futex),
    Waiter::Receiving(Wait::Semaphore),
    Waiter::Receiving(Wait::NamedSemaphore),
    Waiter::Receiving(Wait::SystemVSemaphore),
    Waiter::Receiving(Wait::Eventfd),
    Waiter::Receiving(Wait::Fifo),
    Waiter::Epoll(Wait::Eventfd),
    Waiter::Epoll(Wait::Futex),
    Waiter::Tokio(Wait::Eventfd),
    Waiter::Tokio(Wait::Futex),
    Waiter::Set(1),
    Waiter::Set(100),
    Waiter::Set(1000),
];

impl Waiter {
    /// What it goes by.
    pub fn name(self) -> String {
        match self {
            Self::Receiving(wait) => format!("receiving, wait={wait}"),
            Self::Epoll(wait) => format!("epoll, wait={wait}"),
            Self::Tokio(wait) => format!("tokio, wait={wait}"),
            Self::Set(1) => "wait set of 1 ring".to_owned(),
            Self::Set(rings) => format!("wait set of {rings} rings"),
        }
    }

    fn rings(self) -> usize {
        if let Self::Set(rings) = self { rings } else { 1 }
    }

    fn wait(self) -> Wait {
        match self {
            Self::Receiving(wait) | Self::Epoll(wait) | Self::Tokio(wait) => wait,
            Self::Set(_) => Wait::Futex,
        }
    }
}

/// What it cost.
pub struct Cost {
    /// CPU time of the process in ms.
    pub cpu_ms: f64,
    /// Voluntary context switches of all its threads, a second.
    pub wakes: f64,
}

/// Measures all of them.
pub fn measure(pair: &Pair) -> io::Result<Vec<(Waiter, Cost)>> {
    allow_descriptors()?;
    let cost = |waiter| {
        let used = one(pair, waiter)?;
        let wakes = used.switches as f64 / TIME.as_secs_f64();
        Ok((waiter, Cost { cpu_ms: used.cpu.as_secs_f64() * 1e3, wakes }))
    };
    WAITERS.into_iter().map(cost).collect()
}

/// What a process has used.
#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    switches: u64,
}

impl Usage {
    fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        // SAFETY: a plain structure of integers, which the call fills.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        Self { cpu: Duration::new(time.tv_sec as u64, time.tv_nsec as u32), switches: usage.ru_nvcsw as u64 }
    }

    fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu - before.cpu, switches: self.switches - before.switches }
    }
}

fn one(pair: &Pair, waiter: Waiter) -> io::Result<Usage> {
    let names = Names::new(waiter);
    let wait = |place: &Place, side: &Side| place.wait(|| side.meet()).unwrap_or_else(|error| panic!("{error}"));
    let peer =
        |place: &Place, side: &Side| place.keep_company(|| side.meet()).unwrap_or_else(|error| panic!("{error}"));
    let used = pair.run(Between::Processes, || Place::new(waiter, &names), (wait, peer))?;
    Ok(used.0)
}

/// The names of the rings of a waiter, which go with it whatever happens.
struct Names {
    waiter: Waiter,
    name: String,
}

impl Names {
    fn new(waiter: Waiter) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: a counter of one thread.
        Self { waiter, name: format!("ringway-idle-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)) }
    }

    fn addresses(&self) -> io::Result<Vec<Address>> {
        let scheme = if self.waiter.wait() == Wait::Eventfd { "anon:" } else { "shm:///" };
        let address = |ring| format!("{scheme}{}-{ring}", self.name).parse().map_err(io::Error::other);
        (0..self.waiter.rings()).map(address).collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.waiter.wait() == Wait::Eventfd {
            return;
        }
        for address in self.addresses().into_iter().flatten() {
            // Of a wait that went well nothing is left.
            let _ = transport::remove(&address, true);
        }
    }
}

/// Where a waiter and its peer meet.
struct Place {
    waiter: Waiter,
    options: Options,
    addresses: Vec<Address>,
    /// Keeps the memory of a ring without a name until the sides have it. In a mutex only because endpoints are not `Sync`:
    /// nobody locks it.
    _holder: Option<Mutex<Receiver>>,
}

impl Place {
    fn new(waiter: Waiter, names: &Names) -> io::Result<Self> {
        let options = Options::new().capacity(4 << 10).wait(waiter.wait());
        let addresses = names.addresses()?;
        let holder = match waiter.wait() {
            Wait::Eventfd => Some(Mutex::new(options.receiver(&addresses[0]).map_err(io::Error::other)?)),
            _ => None,
        };
        Ok(Self { waiter, options, addresses, _holder: holder })
    }

    /// Is there, and silent.
    fn keep_company(&self, meet: impl Fn()) -> io::Result<Usage> {
        let senders = self.addresses.iter().map(|address| self.options.sender(address));
        let senders = senders.collect::<ringway::Result<Vec<_>>>().map_err(io::Error::other)?;
        meet();
        // Whoever meets spins.
        std::thread::sleep(TIME);
        meet();
        drop(senders);
        Ok(Usage::now())
    }

    /// Waits for as long as it has to, and says what that took.
    fn wait(&self, meet: impl Fn()) -> io::Result<Usage> {
        let open = |address| self.options.receiver(address).map_err(io::Error::other);
        let begin = || {
            meet();
            (Usage::now(), Instant::now() + TIME)
        };
        let (before, nothing) = match self.waiter {
            Waiter::Receiving(_) => {
                let mut receiver = open(&self.addresses[0])?;
                let (before, deadline) = begin();
                (before, receiver.recv_deadline(deadline).err())
            }
            Waiter::Epoll(_) => {
                let mut receiver = open(&self.addresses[0])?;
                let pollable = receiver.pollable().map_err(io::Error::other)?;
                let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                epoll::add(&epoll, &pollable, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
                let (before, deadline) = begin();
                loop {
                    let nothing = receiver.try_recv().err();
                    if nothing != Some(RecvError::Empty) || !await_epoll(&epoll, deadline)? {
                        break (before, nothing);
                    }
                }
            }
            Waiter::Tokio(_) => {
                let runtime = aio::runtime()?;
                let _inside = runtime.enter();
                let mut receiver =
                    ringway::tokio::Receiver::new(open(&self.addresses[0])?).map_err(io::Error::other)?;
                let (before, deadline) = begin();
                let received = async {
                    tokio::time::timeout_at(deadline.into(), receiver.recv()).await.map(|result| result.err())
                };
                (before, runtime.block_on(received).unwrap_or(Some(RecvError::Timeout)))
            }
            Waiter::Set(_) => {
                let set = WaitSet::new().map_err(io::Error::other)?;
                let mut receivers = self.addresses.iter().map(open).collect::<io::Result<Vec<_>>>()?;
                for (token, receiver) in receivers.iter_mut().enumerate() {
                    set.add(token, receiver).map_err(io::Error::other)?;
                    // That the sender is there is no news to wait for.
                    while receiver.peer_event().is_some() {}
                }
                let mut events = Events::with_capacity(64);
                let mut nothing = Some(RecvError::Empty);
                let (before, deadline) = begin();
                while nothing == Some(RecvError::Empty)
                    && set.wait_deadline(&mut events, deadline).map_err(io::Error::other)? > 0
                {
                    for event in &events {
                        nothing = receivers[event.token()].try_recv().err();
                    }
                }
                (before, nothing)
            }
        };
        let used = Usage::now().since(before);
        meet();
        match nothing {
            Some(RecvError::Empty | RecvError::Timeout) => Ok(used),
            other => Err(io::Error::other(format!("there was to be nothing, not {other:?}"))),
        }
    }
}

/// Waits until something in the instance is ready; false at the deadline.
fn await_epoll(epoll: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let mut events = Vec::with_capacity(1);
    match epoll::wait(epoll, spare_capacity(&mut events), Some(&left)) {
        Err(Errno::INTR) => Ok(true),
        waited => Ok(waited? > 0),
    }
}

/// A thousand rings take more descriptors than processes usually may have.
fn allow_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
