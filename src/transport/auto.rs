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
//! One is dealt with at a time, and given up on after [`PATIENCE`], or when the receiver leaves.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::frame::Identity;
use super::inlet::{Door, Feed};
use super::meeting::{self, Host, Service, Word, fitting, hear, is_admitted, say};
use super::memfd::{denial, denied, is_there};
use super::outlet::Outbox;
use super::plan::Plan;
use super::stream::{StreamFeed, StreamPort};
use super::{Address, Receiver, Sender};
use crate::channel::{Existence, Framing, Options, Owner, Place, RecvError, attach, make};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Ring;
use crate::liveness::Role;
use crate::segment::{self, Name, Segment};
use crate::sys::clock;
use crate::sys::descriptor::{self, Sink};
use crate::sys::process::ProcessId;
use crate::sys::socket::{self, Type};

/// How long a receiver deals with one sender.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the abstract names begin with.
const PREFIX: &str = "ringway-auto/";
/// The ways, best first.
const RINGS: [Word; 2] = [Word::Memfd, Word::Shm];

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
                match try_ring(options, word, &letter.text, letter.descriptor) {
                    Ok(sender) if !is_there(sender.peer()) => return Ok(Ok(None)),
                    Ok(sender) => {
                        taken = Some((word, Some(sender)));
                        say(link.as_fd(), Word::Yes, "", None)
                    }
                    Err(e) if is_contradiction(&e) => return Err(e),
                    Err(e) => say(link.as_fd(), Word::No, &e.to_string(), None),
                }
            }
            (Word::Socket, None) => {
                taken = Some((Word::Socket, None));
                say(link.as_fd(), Word::Yes, "", None)
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
fn try_ring(options: &Options, word: Word, text: &str, descriptor: Option<OwnedFd>) -> Result<Sender> {
    let segment = match (word, descriptor) {
        (word, Some(descriptor)) => Segment::received("ringway-auto", File::from(descriptor), word == Word::Shm)?,
        (Word::Shm, None) => Segment::open(&Name::Posix(text.to_owned()))?,
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
    let queue = Arc::new(Queue::new().map_err(failed("make a descriptor for connections at"))?);
    let host = Table {
        address: address.clone(),
        options: options.clone(),
        decision: Arc::clone(&decision),
        queue,
        settled: None,
    };
    let host = Host::start(listener, None, host, address)?;
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

/// What a receiver waits for before it can receive.
#[derive(Debug)]
pub(super) struct Decision {
    receiver: Mutex<Option<Receiver>>,
    made: Condvar,
    chosen: OnceLock<Chosen>,
    owner: Owner,
    max: usize,
}

impl Decision {
    fn new(options: &Options) -> Self {
        Self {
            receiver: Mutex::default(),
            made: Condvar::new(),
            chosen: OnceLock::new(),
            owner: Owner::this(),
            max: options.max_message.map_or(super::outlet::DEFAULT_LONGEST, |max| max as usize),
        }
    }

    fn receiver(&self) -> MutexGuard<'_, Option<Receiver>> {
        // Nothing panics while it is locked.
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, receiver: Receiver, chosen: Chosen) {
        *self.receiver() = Some(receiver);
        // It is made once.
        let _ = self.chosen.set(chosen);
        self.made.notify_all();
    }

    /// What was agreed on, once it is.
    pub(super) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.get()
    }

    /// The longest message asked for: what goes is known only after the decision.
    pub(super) fn max_message(&self) -> usize {
        self.max
    }

    /// The receiver to be used from then on. Waits until the monotonic `deadline`: then [`RecvError::Timeout`].
    pub(super) fn wait(&self, deadline: Option<Duration>) -> Result<Receiver, RecvError> {
        self.owner.check()?;
        let mut receiver = self.receiver();
        loop {
            if let Some(receiver) = receiver.take() {
                return Ok(receiver);
            }
            let made = match deadline.map(|deadline| deadline.saturating_sub(clock::now())) {
                None => self.made.wait(receiver),
                Some(Duration::ZERO) => return Err(RecvError::Timeout),
                Some(left) => {
                    let made = self.made.wait_timeout(receiver, left);
                    made.map(|(receiver, _)| receiver).map_err(|e| PoisonError::new(e.into_inner().0))
                }
            };
            receiver = made.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Connections that were settled on, on their way to the receiver.
#[derive(Debug)]
struct Queue {
    waiting: Mutex<VecDeque<Arc<OwnedFd>>>,
    bell: OwnedFd,
}

impl Queue {
    fn new() -> io::Result<Self> {
        Ok(Self { waiting: Mutex::default(), bell: descriptor::event()? })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<OwnedFd>>> {
        // Nothing panics while it is locked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, link: Arc<OwnedFd>) {
        self.waiting().push_back(link);
        descriptor::set_event(self.bell.as_fd());
    }
}

/// Where the receiver gets them: one after the other, since all that a sender sent comes before what its successor sends.
#[derive(Debug)]
struct Exit {
    queue: Arc<Queue>,
    /// The last one, as long as the receiver has it.
    current: Weak<OwnedFd>,
}

impl Door for Exit {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // Who waits while there is one is let in when that has ended, which is an event by itself.
        (self.current.strong_count() == 0).then(|| self.queue.bell.as_fd())
    }

    fn accept(&mut self) -> io::Result<Box<dyn Feed>> {
        let mut waiting = self.queue.waiting();
        if self.current.strong_count() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let link = waiting.pop_front();
        if waiting.is_empty() {
            descriptor::unset_event(self.queue.bell.as_fd());
        }
        match link {
            Some(link) => {
                self.current = Arc::downgrade(&link);
                Ok(Box::new(StreamFeed::new(link, Framing::Frames)))
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn close(&mut self) {
        for link in self.queue.waiting().drain(..) {
            StreamFeed::new(link, Framing::Frames).close();
        }
    }
}

/// The receiver's part of the conversations.
struct Table {
    address: Address,
    options: Options,
    decision: Arc<Decision>,
    queue: Arc<Queue>,
    settled: Option<Settled>,
}

/// What successors get.
struct Settled {
    chosen: Chosen,
    way: Way,
}

enum Way {
    Ring(Word, Arc<Segment>),
    /// The connection of the last sender, as long as the receiver has it.
    Socket(Weak<OwnedFd>),
}

/// A ring that can be offered.
struct Offer {
    receiver: Receiver,
    segment: Arc<Segment>,
    /// The name of one that has one, taken away with this.
    name: Option<Temporary>,
}

/// A name in the file system of shared memory.
struct Temporary(Name);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = segment::remove(&self.0);
    }
}

/// Somebody with whom nothing was settled: gone, silent, or confused.
struct GaveUp;

impl From<io::Error> for GaveUp {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Service for Table {
    fn serve(&mut self, link: OwnedFd, stop: BorrowedFd<'_>) {
        let perm = self.options.perm.unwrap_or(0o600);
        // Who gave up comes again or doesn't; there is nobody to tell.
        let _ = match is_admitted(link.as_fd(), perm) {
            Err(_) => Err(GaveUp),
            Ok(false) => say(link.as_fd(), Word::Denied, &denial(perm), None).map_err(GaveUp::from),
            Ok(true) => match self.settled {
                None => self.settle(link, stop),
                Some(_) => self.succeed(link, stop),
            },
        };
    }
}

impl Table {
    /// Finds the best way with the first sender.
    fn settle(&mut self, link: OwnedFd, stop: BorrowedFd<'_>) -> Result<(), GaveUp> {
        let deadline = clock::now().saturating_add(PATIENCE);
        let mut reasons = Vec::new();
        for word in RINGS {
            let offer = match self.make_offer(word) {
                Ok(offer) => offer,
                Err(e) => {
                    reasons.push(format!("the receiver can't use {}: {e}", scheme(word)));
                    continue;
                }
            };
            let answer = match &offer.name {
                Some(Temporary(Name::Posix(name))) => ask(&link, word, name, None, deadline, stop)?,
                _ => ask(&link, word, "", offer.segment.descriptor(), deadline, stop)?,
            };
            let Offer { receiver, segment, name } = offer;
            drop(name);
            match answer {
                Ok(()) => {
                    let chosen = Chosen::new(word, fitting(reasons.join("; ")));
                    say(link.as_fd(), Word::Settled, &chosen.why, None)?;
                    self.decide(receiver, chosen, Way::Ring(word, segment));
                    return Ok(());
                }
                Err(why) => reasons.push(format!("the sender can't use {}: {why}", scheme(word))),
            }
        }
        if ask(&link, Word::Socket, "", None, deadline, stop)?.is_err() {
            return Err(GaveUp);
        }
        let options = Options { ring: None, ..socket_options(&self.options) };
        let plan = Plan::new(&self.address, &options).map_err(|_| GaveUp)?;
        let exit = Exit { queue: Arc::clone(&self.queue), current: Weak::new() };
        let inward = plan.inward_by(Box::new(exit), Framing::Frames);
        let chosen = Chosen::new(Word::Socket, fitting(reasons.join("; ")));
        say(link.as_fd(), Word::Settled, &chosen.why, None)?;
        let way = self.admit(link);
        self.decide(Receiver::carried(inward), chosen, way);
        Ok(())
    }

    fn make_offer(&self, word: Word) -> Result<Offer> {
        let options = ring_options(&self.options);
        let perm = options.perm.unwrap_or(0o600);
        let (segment, name) = match word {
            Word::Memfd => {
                let what = "a memfd";
                (make(&options, &what, |bytes, init| Segment::memfd("ringway-auto", bytes, perm, init))?, None)
            }
            _ => {
                let name = Name::Posix(format!("ringway-auto-{}-{:016x}", std::process::id(), random()));
                let create = |bytes, init: &dyn Fn(_)| Segment::create_new(&name, bytes, perm, 0, init);
                let segment = make(&options, &name, create)?;
                (segment, Some(Temporary(name)))
            }
        };
        let segment = Arc::new(segment);
        let receiver = Receiver::new(attach(Place::Made(&segment), &options, Role::Consumer)?)?;
        Ok(Offer { receiver, segment, name })
    }

    fn decide(&mut self, receiver: Receiver, chosen: Chosen, way: Way) {
        chosen.report(&self.address, "receiver");
        self.settled = Some(Settled { chosen: chosen.clone(), way });
        self.decision.make(receiver, chosen);
    }

    /// Lets a sender's connection in.
    fn admit(&self, link: OwnedFd) -> Way {
        let link = Arc::new(link);
        let way = Way::Socket(Arc::downgrade(&link));
        self.queue.push(link);
        way
    }

    /// Gives a later sender what was settled on.
    fn succeed(&mut self, link: OwnedFd, stop: BorrowedFd<'_>) -> Result<(), GaveUp> {
        let deadline = clock::now().saturating_add(PATIENCE);
        let Some(Settled { chosen, way }) = &self.settled else { return Err(GaveUp) };
        let answer = match way {
            Way::Ring(word, segment) => ask(&link, *word, "", segment.descriptor(), deadline, stop)?,
            // The receiver may have it a moment longer by this, which costs it one slice at worst.
            Way::Socket(last) => match last.upgrade().filter(|last| !descriptor::has_hung_up(last.as_fd())) {
                Some(last) => {
                    let pid = socket::peer(last.as_fd())?.0;
                    return Ok(say(link.as_fd(), Word::Busy, &pid.to_string(), None)?);
                }
                None => ask(&link, Word::Socket, "", None, deadline, stop)?,
            },
        };
        if let Err(why) = answer {
            let why = format!("an earlier sender and the receiver have settled on {}, and {why}", chosen.scheme);
            return Ok(say(link.as_fd(), Word::Unfit, &why, None)?);
        }
        say(link.as_fd(), Word::Settled, &chosen.why, None)?;
        if matches!(way, Way::Socket(_)) {
            let way = self.admit(link);
            if let Some(settled) = &mut self.settled {
                settled.way = way;
            }
        }
        Ok(())
    }
}

/// A number that nobody draws twice: seeded by the kernel's random numbers, differently for each.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// Makes an offer, and gets the answer: yes, or why not.
fn ask(
    link: &OwnedFd,
    word: Word,
    text: &str,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: Duration,
    stop: BorrowedFd<'_>,
) -> Result<Result<(), String>, GaveUp> {
    say(link.as_fd(), word, text, descriptor)?;
    let letter = hear(link.as_fd(), deadline, Some(stop))?;
    match letter.word {
        Word::Yes => Ok(Ok(())),
        Word::No => Ok(Err(letter.text)),
        _ => Err(GaveUp),
    }
}
