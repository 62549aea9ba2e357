//! What a ring, or what else is met at, shall be like, and how an endpoint shall behave.

use std::time::Duration;

use super::framing::Framing;
use crate::layout::{Ring, Wait};
use crate::wait::SPIN;

/// How to open or create a ring, or whatever else an address names, and how the endpoint behaves. Reads like
/// [`std::fs::OpenOptions`].
///
/// Without further words a ring is opened, or created if there is none. For an existing ring, `capacity` and
/// `max_message` mean "at least", `wait` must match, and what isn't said is whatever exists.
///
/// ```
/// use ringway::{Options, Wait};
///
/// let options = Options::new().capacity(1 << 20).max_message(1000).wait(Wait::Futex);
/// let mut sender = options.sender(&"anon:orders".parse()?)?;
/// sender.send(b"hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) ring: Option<Ring>,
    pub(crate) producers: Option<u32>,
    pub(crate) max_deliveries: Option<u32>,
    pub(crate) capacity: Option<u64>,
    pub(crate) max_message: Option<u64>,
    pub(crate) wait: Option<Wait>,
    pub(crate) perm: Option<u32>,
    pub(crate) persist: Option<bool>,
    pub(crate) framing: Option<Framing>,
    pub(crate) connect: Option<Duration>,
    pub(crate) existence: Existence,
    pub(crate) profile: Profile,
    pub(crate) takeover: Takeover,
    pub(crate) keep_open: bool,
    pub(crate) spin: Duration,
}

/// What a ring is tuned for: sets the capacity when none is said, and how this endpoint spins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// A ring of 4 MiB, beyond the reach of a core's own cache, whose lines are then found in the shared one; a consumer
    /// that keeps catching up pauses a little longer, to take several messages in one go. The default.
    #[default]
    Throughput,
    /// A ring of 64 KiB, and no pauses beyond the shortest.
    Latency,
}

/// What becomes of messages that a dead consumer had been handed and had not given back.
///
/// With one consumer its successor's options say so, with many the dead one's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Receive them again, marked as redelivered: each message at least once. The default.
    #[default]
    Redeliver,
    /// Skip or drop them: each message at most once.
    Drop,
}

/// Whether the ring must, may or must not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    OpenOrCreate,
    CreateNew,
    Open,
}

impl Options {
    /// Open or create; everything else by default.
    pub fn new() -> Self {
        Self {
            ring: None,
            producers: None,
            max_deliveries: None,
            capacity: None,
            max_message: None,
            wait: None,
            perm: None,
            persist: None,
            framing: None,
            connect: None,
            existence: Existence::OpenOrCreate,
            profile: Profile::default(),
            takeover: Takeover::default(),
            keep_open: false,
            spin: SPIN,
        }
    }

    /// The kind of ring: [`Ring::Spsc`] unless said.
    pub fn ring(mut self, ring: Ring) -> Self {
        self.ring = Some(ring);
        self
    }

    /// How many producers a ring of [`Ring::Mpmc`] has room for at a time, 1 to 64; 8 unless said. The capacity is divided
    /// evenly among them.
    pub fn producers(mut self, producers: u32) -> Self {
        self.producers = Some(producers);
        self
    }

    /// How often a ring of [`Ring::Mpmc`] delivers a message at most, 1 to 15; 8 unless said. A message that so many consumers
    /// died with is dropped, and counted.
    pub fn max_deliveries(mut self, deliveries: u32) -> Self {
        self.max_deliveries = Some(deliveries);
        self
    }

    /// Bytes of the ring. With one producer and one consumer, rounded up to a power of two from 4 KiB to 2 GiB; a record takes
    /// 8 bytes and its payload, rounded up to 8. With many, divided evenly among the producers' lanes, and there among the
    /// size classes, each rounded up to whole chunks: chunks of up to 256 bytes, and for longer messages of 16 times that, and
    /// so on.
    ///
    /// Where the kernel carries messages: bytes of its buffer, of the pipe, of this end's socket, or of the queue, up to the
    /// system's limits. Terminals and logs have none, and refuse it; at signals, and at what was inherited, it changes nothing.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = Some(bytes as u64);
        self
    }

    /// The longest message, in bytes. With one producer and one consumer it is at most half the capacity, less 16, and that
    /// unless said; with many it is less than 1 GiB, and a sixteenth of a lane unless said. A capacity too small for it grows.
    ///
    /// Where the kernel carries messages it is up to each end, which refuses longer ones: 16 MiB unless said, and at signals
    /// 64 KiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = Some(bytes as u64);
        self
    }

    /// How the sides wait for each other: [`Wait::Futex`] unless said. Some ways need a ring with a name, and [`Wait::Eventfd`] one without;
    /// another one is refused when the ring is made.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// The mode of what is created, as in `chmod`, whatever the umask: 0o600 unless said. What has no mode of its own (abstract
    /// names, `memfd:`, `auto:`) asks who comes instead. Bits for group or others also allow to use what another user made.
    pub fn perm(mut self, mode: u32) -> Self {
        self.perm = Some(mode);
        self
    }

    /// Whether what is created outlives its last user. Unless said, only a ring in a mapped file and a log do; other rings, and
    /// queues, go when the last user leaves and every message has been received.
    pub fn persist(mut self, persist: bool) -> Self {
        self.persist = Some(persist);
        self
    }

    /// How messages are told apart on transports other than rings: [`Framing::Frames`] unless said.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    /// How long a sender tries to reach a receiver, where it has to be there first (FIFOs, pseudo-terminals, Unix and TCP
    /// sockets, signals, `memfd:`, `auto:`): 5 s unless said.
    pub fn connect(mut self, timeout: Duration) -> Self {
        self.connect = Some(timeout);
        self
    }

    /// Create what is met at; it must not exist. Only of rings, queues, FIFOs and logs: elsewhere it makes no difference.
    pub fn create_new(mut self) -> Self {
        self.existence = Existence::CreateNew;
        self
    }

    /// Open what is met at; it must exist. Only of rings, queues, FIFOs and logs: elsewhere it makes no difference.
    pub fn existing(mut self) -> Self {
        self.existence = Existence::Open;
        self
    }

    /// What the ring is tuned for.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// What this consumer does with its dead predecessor's unfinished messages; with many consumers, what becomes of its own if
    /// it dies.
    pub fn takeover(mut self, takeover: Takeover) -> Self {
        self.takeover = takeover;
        self
    }

    /// Whether this endpoint waits for a new peer when its peer leaves or dies, instead of being told.
    pub fn keep_open(mut self, keep_open: bool) -> Self {
        self.keep_open = keep_open;
        self
    }

    /// How long this endpoint spins at most before it sleeps; 20 µs unless said, about what sleeping and waking across cores
    /// cost. After waits that took longer it spins shorter, down to a sixteenth. It never spins where there is one core. Without effect with [`Wait::Spin`]. Where the kernel carries messages, it
    /// tries again for so long before it sleeps in `poll`.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
