//! From an address and options to endpoints.

use std::fmt::Display;

use super::address::{Address, Target};
use super::pipe::PipeEnd;
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use super::{anonymous, auto, fifo, inherited, log, memfd, mq, pipe, pty, signal, sysvmq, tcp, udp, unix};
use crate::channel::{Attachment, Options, Place, attach, mpmc, spsc};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Ring;
use crate::liveness::Role;
use crate::segment::Name;
use crate::units::{ByteSize, format_duration};

impl Options {
    /// Becomes a sender at `address`.
    ///
    /// At rings other than `memfd:`, queues and logs either side may come first; who comes first creates what they meet at. At
    /// UDP nobody is waited for, and what is sent before a receiver is there is lost. Elsewhere, Unix datagram sockets and
    /// `memfd:` included, a receiver has to be there: this waits for it as long as [`connect`](Self::connect) says.
    ///
    /// # Errors
    /// [`RoleTaken`](ErrorKind::RoleTaken) if another process, or this one, is the sender already, where there is one;
    /// [`NoSpace`](ErrorKind::NoSpace) if a ring of many has as many as it takes;
    /// [`Mismatch`](ErrorKind::Mismatch) if what exists there is not as wanted;
    /// [`NotFound`](ErrorKind::NotFound) if no receiver is there in time;
    /// [`InvalidInput`](ErrorKind::InvalidInput) if address and options contradict each other or can't be met; and whatever
    /// keeps it from being created or opened.
    pub fn sender(&self, address: &Address) -> Result<Sender> {
        let options = self.merged(address)?;
        let plan = |options| Plan::new(address, options);
        match address.target() {
            Target::Segment(name) => Sender::new(options.join_named(address, name, Role::Producer)?),
            Target::Anonymous(name) => Sender::new(options.join_anonymous(address, name, Role::Producer)?),
            Target::Memfd(path) => memfd::sender(address, &options, path),
            Target::Auto(name) => auto::sender(address, &options, name),
            Target::Pipe => Err(unpaired(address)),
            Target::Descriptor(number) => inherited::sender(&plan(&options)?, *number),
            Target::Fifo(path) => fifo::sender(&plan(&options)?, path),
            Target::Terminal(path) => pty::sender(&plan(&options)?, path),
            Target::PosixQueue { name, priority } => mq::sender(&plan(&options)?, name, *priority),
            Target::SysVQueue { key, kind } => sysvmq::sender(&plan(&options)?, key, *kind),
            Target::Unix { name, kind } => unix::sender(&plan(&options)?, name, *kind),
            Target::Tcp(host) => tcp::sender(&plan(&options)?, host),
            Target::Udp(host) => udp::sender(&plan(&options)?, host),
            Target::Signal { pid, number } => signal::sender(&plan(&options)?, *pid, *number),
            Target::Log { path, lock, reader } => log::sender(&plan(&options)?, path, *lock, reader.as_deref()),
        }
    }

    /// Becomes a receiver at `address`. It may come first.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn receiver(&self, address: &Address) -> Result<Receiver> {
        let options = self.merged(address)?;
        let plan = |options| Plan::new(address, options);
        match address.target() {
            Target::Segment(name) => Receiver::new(options.join_named(address, name, Role::Consumer)?),
            Target::Anonymous(name) => Receiver::new(options.join_anonymous(address, name, Role::Consumer)?),
            Target::Memfd(path) => memfd::receiver(address, &options, path),
            Target::Auto(name) => auto::receiver(address, &options, name),
            Target::Pipe => Err(unpaired(address)),
            Target::Descriptor(number) => inherited::receiver(&plan(&options)?, *number),
            Target::Fifo(path) => fifo::receiver(&plan(&options)?, path),
            Target::Terminal(path) => pty::receiver(&plan(&options)?, path),
            Target::PosixQueue { name, .. } => mq::receiver(&plan(&options)?, name),
            Target::SysVQueue { key, kind } => sysvmq::receiver(&plan(&options)?, key, *kind),
            Target::Unix { name, kind } => unix::receiver(&plan(&options)?, name, *kind),
            Target::Tcp(host) => tcp::receiver(&plan(&options)?, host),
            Target::Udp(host) => udp::receiver(&plan(&options)?, host),
            Target::Signal { pid, number } => signal::receiver(&plan(&options)?, *pid, *number),
            Target::Log { path, lock, reader } => log::receiver(&plan(&options)?, path, *lock, reader.as_deref()),
        }
    }

    /// Both ends of a new pipe: the sender's, then the receiver's. `address` is `pipe:`.
    ///
    /// Fork, and open one end in each process; dropping the other one there lets each learn when the other is gone. Or
    /// [hand one over](PipeEnd::hand_over) to a program that is executed.
    ///
    /// ```
    /// use ringway::{Address, Options};
    ///
    /// let (sender, receiver) = Options::new().pair(&"pipe:".parse::<Address>()?)?;
    /// let (mut sender, mut receiver) = (sender.sender()?, receiver.receiver()?);
    /// sender.send(b"hello")?;
    /// assert_eq!(&receiver.recv()?[..], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the address isn't `pipe:`, or contradicts the options;
    /// [`NoSpace`](ErrorKind::NoSpace) if there are too many descriptors.
    pub fn pair(&self, address: &Address) -> Result<(PipeEnd, PipeEnd)> {
        let options = self.merged(address)?;
        match address.target() {
            Target::Pipe => pipe::pair(&Plan::new(address, &options)?),
            _ => Err(Error::new(ErrorKind::InvalidInput, "make a pair of", address.target())
                .advise("only pipe: has two ends without a name; open the others by their address")),
        }
    }

    /// Opens the way to [`spsc`] and [`mpmc`] endpoints, which lend out references straight into the shared segment.
    ///
    /// # Safety
    /// As long as an endpoint got from the returned value lives, every process that can write the segment must keep the
    /// ring's protocol (`docs/abi.md`): above all, it must not write bytes that are lent out here, nor truncate the
    /// segment. All of ringway's own endpoints do. The mode of the segment (0600 unless told) says which users' processes
    /// these are. A process that does otherwise makes what is lent out change under a `&[u8]`, which is undefined
    /// behaviour.
    ///
    /// ```
    /// use ringway::{Address, Options};
    ///
    /// let address: Address = "anon:trusted".parse()?;
    /// // SAFETY: only this process has the ring, and it uses nothing but ringway's endpoints.
    /// let trusted = unsafe { Options::new().assume_trusted_peers() };
    /// let mut producer = trusted.producer(&address)?;
    /// let mut consumer = trusted.consumer(&address)?;
    /// producer.reserve(4)?.commit(4);
    /// assert_eq!(consumer.recv()?.len(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn assume_trusted_peers(self) -> Trusted {
        Trusted(self)
    }

    /// Joins a ring for the zero-copy endpoints, which is of that kind unless address or options say another.
    fn join_as(&self, address: &Address, role: Role, ring: Ring) -> Result<Attachment> {
        let mut options = self.merged(address)?;
        options.ring = options.ring.or(Some(ring));
        match address.target() {
            Target::Segment(name) => options.join_named(address, name, role),
            Target::Anonymous(name) => options.join_anonymous(address, name, role),
            _ => Err(Error::new(ErrorKind::Unsupported, "get references into", address.target())
                .advise("only rings that are found by a name have that; use Options::sender and Options::receiver")),
        }
    }

    /// Joins the ring in a named segment; these options have been merged.
    fn join_named(&self, address: &Address, name: &Name, role: Role) -> Result<Attachment> {
        self.check_for_ring(address)?;
        attach(Place::Named(name), self, role)
    }

    /// Joins the ring of that name in this process; these options have been merged.
    fn join_anonymous(&self, address: &Address, name: &str, role: Role) -> Result<Attachment> {
        self.check_for_ring(address)?;
        attach(Place::Made(&anonymous::find_or_make(name, self)?), self, role)
    }

    /// Refuses what rings don't have.
    pub(super) fn check_for_ring(&self, address: &Address) -> Result<()> {
        match self.framing {
            None => Ok(()),
            Some(framing) => Err(Error::new(ErrorKind::InvalidInput, "open", address.target())
                .advise(format!("a ring keeps messages apart by itself, so that framing={framing} isn't for it"))),
        }
    }

    /// These options with what the address says; they must not contradict each other.
    fn merged(&self, address: &Address) -> Result<Options> {
        let mut options = self.clone();
        merge(address, "ring", &mut options.ring, address.ring(), |ring| ring)?;
        merge(address, "producers", &mut options.producers, address.producers(), |count| count)?;
        merge(address, "max_deliveries", &mut options.max_deliveries, address.max_deliveries(), |count| count)?;
        merge(address, "capacity", &mut options.capacity, address.capacity(), ByteSize)?;
        merge(address, "max_message", &mut options.max_message, address.max_message(), ByteSize)?;
        merge(address, "wait", &mut options.wait, address.wait(), |wait| wait)?;
        merge(address, "framing", &mut options.framing, address.framing(), |framing| framing)?;
        merge(address, "perm", &mut options.perm, address.perm(), |bits| format!("{bits:04o}"))?;
        merge(address, "persist", &mut options.persist, address.persist(), |stays| if stays { "yes" } else { "no" })?;
        merge(address, "connect", &mut options.connect, address.connect(), format_duration)?;
        Ok(options)
    }
}

fn unpaired(address: &Address) -> Error {
    Error::new(ErrorKind::InvalidInput, "open", address.target())
        .advise("a pipe has no name: make both ends by Options::pair, or open an inherited one by fd://number")
}

/// `show` shows a value as it is written in an address.
fn merge<T: PartialEq + Copy, S: Display>(
    address: &Address,
    key: &str,
    option: &mut Option<T>,
    said: Option<T>,
    show: impl Fn(T) -> S,
) -> Result<()> {
    match (*option, said) {
        (Some(option), Some(said)) if option != said => {
            let (option, said) = (show(option), show(said));
            Err(Error::new(ErrorKind::InvalidInput, "use the options with", address)
                .advise(format!("the address says {key}={said} and the options say {option}; say it once")))
        }
        (None, Some(said)) => {
            *option = Some(said);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Options under which endpoints lend out references into the segment; made by
/// [`Options::assume_trusted_peers`], which has the contract.
#[derive(Clone, Debug)]
pub struct Trusted(Options);

impl Trusted {
    /// Becomes the producer of a ring with one, at `address`.
    ///
    /// # Errors
    /// As [`Options::sender`].
    pub fn producer(&self, address: &Address) -> Result<spsc::Producer> {
        self.0.join_as(address, Role::Producer, Ring::Spsc)?.into_spsc_producer()
    }

    /// Becomes the consumer of a ring with one, at `address`.
    ///
    /// # Errors
    /// As [`Options::receiver`].
    pub fn consumer(&self, address: &Address) -> Result<spsc::Consumer> {
        self.0.join_as(address, Role::Consumer, Ring::Spsc)?.into_spsc_consumer()
    }

    /// Becomes a producer of a ring of many, at `address`.
    ///
    /// # Errors
    /// As [`Options::sender`].
    pub fn mpmc_producer(&self, address: &Address) -> Result<mpmc::Producer> {
        self.0.join_as(address, Role::Producer, Ring::Mpmc)?.into_mpmc_producer()
    }

    /// Becomes a consumer of a ring of many, at `address`.
    ///
    /// # Errors
    /// As [`Options::receiver`].
    pub fn mpmc_consumer(&self, address: &Address) -> Result<mpmc::Consumer> {
        self.0.join_as(address, Role::Consumer, Ring::Mpmc)?.into_mpmc_consumer()
    }
}
