//! Two sides that agree, when they meet, on the best way that both can go: `docs/auto.md` specifies how.
//!
//! They meet at the Unix stream socket of the abstract name `ringway-auto/NAME`, which needs no file system and leaves nothing
//! behind. The ways, best first:
//! 1. a ring in a sealed memfd, whose descriptor is handed over;
//! 2. a ring in POSIX shared memory, under a random name that is taken away once the sender has opened it, or can't;
//! 3. the very connection on which they met, with frames as in `unix:`.
//!
//! # Protocol
//! The receiver offers one way after the other, skipping those that it can't go. It is attached to a ring before it offers it.
//! The sender tries to map, check and attach to it, and answers yes, or no with the reason. At the first yes the receiver
//! answers that this is settled, with all reasons there were against better ways. That is a two-phase commit: the sender
//! returns only once it has heard that it is settled, and the receiver settles before it says anything else to anybody. If
//! either dies or leaves in between, the other finds the connection ended or its peer in the ring gone, drops what it has
//! made, and meets the next one. So both have the same way and the same reasons, or the sender has nothing at all.
//!
//! The last way can't be refused, since they met on it. What is no inability but a contradiction (options that the ring doesn't
//! meet) is an error of the sender, and not a reason for the next best way.
//!
//! # Successors
//! There is one sender at a time. One who comes after that gets what was settled on, by descriptor or as a connection of its
//! own; if it can't use that, it is told so. Who comes earlier is refused: at a ring the role itself is taken, and of a
//! connection the kernel tells whether its sender still sends.
//!
//! # Time
//! One is dealt with at a time, and given up on after 2 s, or when the receiver leaves.

mod decision;
mod queue;
mod table;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::decision::{Decision, Held};
use self::queue::Queue;
use self::table::Table;
use super::frame::Identity;
use super::meeting::{self, Host, Word, hear, say};
use super::memfd::{denied, is_there};
use super::outbox::Outbox;
use super::plan::Plan;
use super::stream::StreamPort;
use super::{Address, Receiver, Sender};
use crate::channel::{Existence, Framing, Options, Place, attach, make};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Ring;
use crate::liveness::Role;
use crate::segment::{Name, Segment};
use crate::sys::descriptor::Sink;
use crate::sys::process::ProcessId;
use crate::sys::socket::{self, Type};
use crate::wait::unfit;

/// What the abstract names begin with.
const PREFIX: &str = "ringway-auto/";
/// What the two sides of an `auto:` address have agreed on: the same on both.
///
/// ```
/// use ringway::{Address, Options};
///
/// let address: Address = format!("auto:///example-{}", std::process::id()).parse()?;
/// let mut receiver = Options::new().receiver(&address)?;
/// assert!(receiver.chosen().is_none(), "nobody is there to agree with");
/// let mut sender = Options::new().sender(&address)?;
/// println!("{}", sender.chosen().unwrap());
/// sender.send(b"hello")?;
/// assert_eq!(&receiver.recv()?[..], b"hello");
/// assert_eq!(sender.chosen(), receiver.chosen());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chosen {
    /// How messages go: `"memfd"`, `"shm"` or `"unix"`.
    pub scheme: &'static str,
    /// What was against each better way; empty if there is none.
    pub why: String,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why[..] {
            "" => write!(f, "{}: the best way, open to both sides", self.scheme),
            why => write!(f, "{}: the best way open to both sides, since {why}", self.scheme),
        }
    }
}

impl Chosen {
    fn new(word: Word, why: String) -> Self {
        Self { scheme: scheme(word), why }
    }

    /// As an event for the user's log.
    fn report(&self, address: &Address, role: &str) {
        ::log::info!(target: "ringway::auto", "the {role} at {} uses {self}", address.target());
    }
}

fn scheme(word: Word) -> &'static str {
    match word {
        Word::Memfd => "memfd",
        Word::Shm => "shm",
        _ => "unix",
    }
}

fn place(address: &Address, name: &str) -> Result<socket::Place> {
    socket::Place::abstract_name(format!("{PREFIX}{name}").as_bytes()).map_err(|e| {
        let most = 107 - PREFIX.len();
        Error::os(e, "use the name of", address.target())
            .advise(format!("a Unix socket's name has at most 107 bytes, which leaves {most} here"))
    })
}

/// Of a ring: it has one sender and one receiver.
fn ring_options(options: &Options) -> Options {
    Options { existence: Existence::OpenOrCreate, ..options.clone() }.ring(Ring::Spsc)
}

/// Of a connection: the ring's wait strategy has no meaning there.
fn socket_options(options: &Options) -> Options {
    Options { wait: None, ..options.clone() }
}

fn check(address: &Address, options: &Options, is_receiver: bool) -> Result<()> {
    meeting::check(address, options, is_receiver)?;
    if options.ring == Some(Ring::Mpmc) {
        return Err(Error::new(ErrorKind::InvalidInput, "open", address.target())
            .advise("it has one sender and one receiver; use memfd: or shm: with ring=mpmc for more"));
    }
    if let Some(wait) = options.wait
        && !wait.goes_with(false)
    {
        return Err(unfit(wait, false, address.target()));
    }
    Plan::new(address, &Options { ring: None, ..socket_options(options) }).map(drop)
}

pub(super) fn sender(address: &Address, options: &Options, name: &str) -> Result<Sender> {
    check(address, options, false)?;
    let place = place(address, name)?;
    // Now: there may be no descriptor left for it after connecting.
    let me = ProcessId::current().map(Identity).map_err(|e| {
        Error::os(e, "identify this process in", "/proc").advise("ringway needs /proc to tell the living from the dead")
    })?;
    meeting::meet(address, options, |deadline| {
        let Some(link) = meeting::visit(address, options, &place, Type::STREAM)? else { return Ok(None) };
        match converse(address, options, link, me, deadline)? {
            Ok(sender) => Ok(sender),
            Err(e) => meeting::unheard(address, options, e),
        }
    })
}

/// The sender's part of the conversation. None if the receiver has left.
fn converse(
    address: &Address,
    options: &Options,
    link: OwnedFd,
    me: Identity,
    deadline: Duration,
) -> Result<io::Result<Option<Sender>>> {
    let mut taken = None;
    loop {
        let letter = match hear(link.as_fd(), deadline, None) {
            Ok(letter) => letter,
            Err(e) => return Ok(Err(e)),
        };
        let answer = match (letter.word, &taken) {
            (word @ (Word::Memfd | Word::Shm), None) => {
                match try_ring(options, word, &letter.text, letter.descriptors) {
                    Ok(sender) if !is_there(sender.peer()) => return Ok(Ok(None)),
                    Ok(sender) => {
                        taken = Some((word, Some(sender)));
                        say(link.as_fd(), Word::Yes, "", &[])
                    }
                    Err(e) if is_contradiction(&e) => return Err(e),
                    Err(e) => say(link.as_fd(), Word::No, &e.to_string(), &[]),
                }
            }
            (Word::Socket, None) => {
                taken = Some((Word::Socket, None));
                say(link.as_fd(), Word::Yes, "", &[])
            }
            (Word::Settled, Some(_)) => {
                let Some((word, ring)) = taken else { return Ok(Err(io::ErrorKind::InvalidData.into())) };
                let chosen = Chosen::new(word, letter.text);
                chosen.report(address, "sender");
                let sender = match ring {
                    Some(sender) => sender,
                    None => {
                        let options = Options { ring: None, ..socket_options(options) };
                        let plan = Plan::new(address, &options)?;
                        let port = StreamPort::new(link, Sink::Socket, Framing::Frames);
                        let outbox = Outbox::new(port, Framing::Frames, plan.max_message(), Some(me));
                        Sender::carried(plan.outlet(Box::new(outbox)))
                    }
                };
                return Ok(Ok(Some(sender.by(chosen))));
            }
            (Word::Denied, _) => return Err(denied(address, &letter.text)),
            (Word::Busy, _) => {
                let pid = letter.text.parse().unwrap_or(0);
                return Err(Error::new(ErrorKind::RoleTaken { pid }, "become the sender at", address.target())
                    .advise("it has one at a time; wait until that one has finished"));
            }
            (Word::Unfit, _) => {
                return Err(Error::new(ErrorKind::Mismatch, "join", address.target()).advise(letter.text));
            }
            _ => return Ok(Err(io::ErrorKind::InvalidData.into())),
        };
        if let Err(e) = answer {
            return Ok(Err(e));
        }
    }
}

/// Maps and checks an offered ring, and attaches to it.
fn try_ring(options: &Options, word: Word, text: &str, descriptors: Vec<OwnedFd>) -> Result<Sender> {
    let segment = match (word, descriptors.is_empty()) {
        (word, false) => Segment::received("ringway-auto", descriptors, word == Word::Shm)?,
        (Word::Shm, true) => Segment::open(&Name::Posix(text.to_owned()))?,
        _ => {
            return Err(Error::new(ErrorKind::NoSpace, "take", "a descriptor")
                .advise("this process probably has too many files open, see `ulimit -n`"));
        }
    };
    Sender::new(attach(Place::Made(&Arc::new(segment)), &ring_options(options), Role::Producer)?)
}

/// Whether another way would only hide it.
fn is_contradiction(error: &Error) -> bool {
    use ErrorKind::{InvalidInput, Mismatch, Quarantined, RoleTaken};
    matches!(error.kind(), Mismatch | InvalidInput | RoleTaken { .. } | Quarantined { .. })
}

pub(super) fn receiver(address: &Address, options: &Options, name: &str) -> Result<Receiver> {
    check(address, options, true)?;
    let failed = |tried: &'static str| move |e| Error::os(e, tried, address.target());
    if options.existence == Existence::Open {
        return Err(Error::new(ErrorKind::InvalidInput, "open", address.target())
            .advise("what they use is made when they meet; leave out that it must exist"));
    }
    let ring = ring_options(options);
    // What no ring can be is told now, and not to whoever comes.
    let probe = make(&ring, address.target(), |_, _| Err(Error::new(ErrorKind::Unsupported, "make", address.target())));
    match probe {
        Err(e) if e.kind() == ErrorKind::InvalidInput => return Err(e),
        _ => {}
    }
    let place = place(address, name)?;
    let listener = socket::open(&place, Type::STREAM).map_err(failed("open a socket for"))?;
    match socket::bind_to(listener.as_fd(), &place) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(taken(address, options, &place)),
        bound => bound.map_err(failed("bind a socket to"))?,
    }
    socket::listen_on(listener.as_fd()).map_err(failed("listen at"))?;
    let decision = Arc::new(Decision::new(options));
    let queue = Queue::new().map_err(failed("make a descriptor for connections at"))?;
    let table = Table::new(address, options, Arc::clone(&decision), queue);
    let host = Host::start(listener, None, table, address)?;
    Ok(Receiver::awaited(decision).hosted(host))
}

/// Somebody has the name.
fn taken(address: &Address, options: &Options, place: &socket::Place) -> Error {
    let link = meeting::visit(address, options, place, Type::STREAM);
    let pid = link.ok().flatten().and_then(|link| socket::peer(link.as_fd()).ok()).map_or(0, |(pid, _)| pid);
    let error = Error::new(ErrorKind::RoleTaken { pid }, "become the receiver at", address.target());
    match pid {
        0 => error.advise(
            "whoever has the name doesn't listen to us: another user, or a child forked by a receiver that left",
        ),
        _ => error.advise("wait until it has finished, or use another name"),
    }
}
