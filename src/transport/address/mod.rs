//! Addresses: one line of text that says where a channel lives and what it is made of.

mod encoding;
mod parse;
mod target;

use std::{error, fmt, str::FromStr, time::Duration};

pub use target::{Host, LogLock, Priority, Target, UnixKind, UnixName};

use crate::channel::Framing;
use crate::layout::{Ring, Wait};
use crate::units::{ByteSize, format_duration};

/// Where a channel lives and what it is made of, as in `shm:///orders?capacity=4MiB&wait=futex`.
///
/// | address | place |
/// |---|---|
/// | `shm:///orders` | POSIX shared memory |
/// | `sysv:///run/orders?id=7` | System V shared memory, its key by `ftok` from an existing file and an id of 1 (unless said) to 255 |
/// | `sysv:?key=0x51` | System V shared memory by its key |
/// | `file:///data/orders.ring` | a mapped file, which survives a restart |
/// | `anon:orders` | memory without a name outside: for threads, or across fork |
/// | `memfd:///run/orders.sock` | a sealed anonymous file, handed over at a Unix socket |
/// | `auto:///orders` | whatever both sides can do: shared memory, else a Unix socket |
/// | `pipe:`, `fd://3` | a pipe without a name; an inherited descriptor |
/// | `fifo:///run/orders` | a FIFO |
/// | `pty:///run/orders` | a pseudo-terminal in raw mode |
/// | `mq:///orders` | a POSIX message queue |
/// | `sysvmq:///run/orders?id=7`, `sysvmq:?key=0x51` | a System V message queue |
/// | `unix:///run/orders`, `unix:@orders` | a Unix socket by its path, or by an abstract name |
/// | `tcp://127.0.0.1:7000`, `udp://[::1]:7000` | an internet socket |
/// | `signal://4711?sig=RTMIN+1`, `signal://self` | queued real-time signals to a process |
/// | `log:///var/orders.log` | a file that is only appended to |
///
/// | key | value |
/// |---|---|
/// | `capacity`, `max_message` | a [`ByteSize`] |
/// | `ring` | `spsc` or `mpmc`; of rings, as the next three |
/// | `producers` | with `mpmc`, how many it has room for: 1 to 64 |
/// | `max_deliveries` | with `mpmc`, how often a message is delivered at most: 1 to 15 |
/// | `wait` | `spin`, `futex` or `sem`; of rings with a name also `named-sem`, `sysv-sem` or `fifo`, of others `eventfd` |
/// | `framing` | [`frames`, `none` or `lines`](Framing); not of rings, signals and logs |
/// | `type` | of `unix:`, `stream`, `dgram` or `seqpacket`; of `sysvmq:`, the only type of message to send and to receive |
/// | `priority` | of `mq:`, of the messages sent: a number, or `tag` |
/// | `sig` | `RTMIN+0` to `RTMIN+30` |
/// | `lock` | of `log:`, how writers exclude each other: `flock`, `fcntl` (as lockf does) or `ofd` |
/// | `reader` | of `log:`, the name under which the receiver's position is kept |
/// | `perm` | octal, at most `0777`; of all that has a name in a file system or a key |
/// | `persist` | `yes` or `no`; of named rings, queues and FIFOs |
/// | `connect` | how long a sender tries to reach a receiver, such as `5s` |
///
/// In names and paths `%XX` stands for any byte; `?`, `%`, `&` and `#` must be written so.
///
/// Equal addresses print the same, and what is printed parses back to an equal address.
///
/// ```
/// use ringway::transport::Address;
///
/// let address: Address = "shm:///orders?wait=spin&capacity=4096KiB".parse()?;
/// assert_eq!(address.capacity(), Some(4 << 20));
/// assert_eq!(address.to_string(), "shm:///orders?capacity=4MiB&wait=spin");
/// # Ok::<(), ringway::transport::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    target: Target,
    ring: Option<Ring>,
    producers: Option<u32>,
    max_deliveries: Option<u32>,
    capacity: Option<ByteSize>,
    max_message: Option<ByteSize>,
    wait: Option<Wait>,
    framing: Option<Framing>,
    perm: Option<u32>,
    persist: Option<bool>,
    connect: Option<Duration>,
}

impl Address {
    /// Where the channel lives.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The ring asked for.
    pub fn ring(&self) -> Option<Ring> {
        self.ring
    }

    /// How many producers the ring is to have room for.
    pub fn producers(&self) -> Option<u32> {
        self.producers
    }

    /// How often the ring is to deliver a message at most.
    pub fn max_deliveries(&self) -> Option<u32> {
        self.max_deliveries
    }

    /// The bytes the ring is to hold.
    pub fn capacity(&self) -> Option<u64> {
        self.capacity.map(|ByteSize(bytes)| bytes)
    }

    /// The largest message that is to fit, in bytes.
    pub fn max_message(&self) -> Option<u64> {
        self.max_message.map(|ByteSize(bytes)| bytes)
    }

    /// How its endpoints are to wait.
    pub fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// How messages are told apart.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// How long a sender is to try to reach a receiver.
    pub fn connect(&self) -> Option<Duration> {
        self.connect
    }

    /// The permission bits of a segment that is created.
    pub fn perm(&self) -> Option<u32> {
        self.perm
    }

    /// Whether the segment is to stay when its last user leaves.
    pub fn persist(&self) -> Option<bool> {
        self.persist
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.to_string();
        f.write_str(&target)?;
        let options = [
            self.ring.map(|ring| format!("ring={ring}")),
            self.producers.map(|count| format!("producers={count}")),
            self.max_deliveries.map(|count| format!("max_deliveries={count}")),
            self.capacity.map(|size| format!("capacity={size}")),
            self.max_message.map(|size| format!("max_message={size}")),
            self.wait.map(|wait| format!("wait={wait}")),
            self.framing.map(|framing| format!("framing={framing}")),
            self.perm.map(|bits| format!("perm={bits:04o}")),
            self.persist.map(|stays| format!("persist={}", if stays { "yes" } else { "no" })),
            self.connect.map(|timeout| format!("connect={}", format_duration(timeout))),
        ];
        let mut separator = if target.contains('?') { '&' } else { '?' };
        for option in options.into_iter().flatten() {
            write!(f, "{separator}{option}")?;
            separator = '&';
        }
        Ok(())
    }
}

/// The text is no address; the message says where, why and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError {
    given: String,
    problem: String,
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad address {:?}: {}", self.given, self.problem)
    }
}

impl error::Error for ParseAddressError {}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(given: &str) -> Result<Self, ParseAddressError> {
        parse::parse(given).map_err(|problem| ParseAddressError { given: given.to_owned(), problem })
    }
}
