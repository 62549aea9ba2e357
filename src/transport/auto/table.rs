//! The receiver's part of the conversations.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::decision::Decision;
use super::queue::{Exit, Queue};
use super::{Chosen, ring_options, scheme, socket_options};
use crate::channel::{Framing, Options, Place, attach, make};
use crate::error::Result;
use crate::liveness::Role;
use crate::segment::{self, Name, Segment};
use crate::sys::{clock, descriptor, socket};
use crate::transport::meeting::{Service, Word, fitting, hear, is_admitted, say};
use crate::transport::memfd::denial;
use crate::transport::plan::Plan;
use crate::transport::{Address, Receiver};

/// How long a receiver deals with one sender.
const PATIENCE: Duration = Duration::from_secs(2);
/// The ways, best first.
const RINGS: [Word; 2] = [Word::Memfd, Word::Shm];

/// Deals with who comes.
pub(super) struct Table {
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
            Ok(false) => say(link.as_fd(), Word::Denied, &denial(perm), &[]).map_err(GaveUp::from),
            Ok(true) => match self.settled {
                None => self.settle(link, stop),
                Some(_) => self.succeed(link, stop),
            },
        };
    }
}

impl Table {
    pub(super) fn new(address: &Address, options: &Options, decision: Arc<Decision>, queue: Queue) -> Self {
        let (address, options) = (address.clone(), options.clone());
        Self { address, options, decision, queue: Arc::new(queue), settled: None }
    }

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
                Some(Temporary(Name::Posix(name))) => ask(&link, word, name, &[], deadline, stop)?,
                _ => ask(&link, word, "", &offer.segment.descriptors(), deadline, stop)?,
            };
            let Offer { receiver, segment, name } = offer;
            drop(name);
            match answer {
                Ok(()) => {
                    let chosen = Chosen::new(word, fitting(reasons.join("; ")));
                    say(link.as_fd(), Word::Settled, &chosen.why, &[])?;
                    self.decide(receiver, chosen, Way::Ring(word, segment));
                    return Ok(());
                }
                Err(why) => reasons.push(format!("the sender can't use {}: {why}", scheme(word))),
            }
        }
        if ask(&link, Word::Socket, "", &[], deadline, stop)?.is_err() {
            return Err(GaveUp);
        }
        let options = Options { ring: None, ..socket_options(&self.options) };
        let plan = Plan::new(&self.address, &options).map_err(|_| GaveUp)?;
        let exit = Exit::new(Arc::clone(&self.queue));
        let inward = plan.inward_by(Box::new(exit), Framing::Frames);
        let chosen = Chosen::new(Word::Socket, fitting(reasons.join("; ")));
        say(link.as_fd(), Word::Settled, &chosen.why, &[])?;
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
        self.decision.make(receiver, chosen.clone());
        let settled = self.settled.insert(Settled { chosen, way });
        // Last: it may be the user's code that takes the event.
        settled.chosen.report(&self.address, "receiver");
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
            Way::Ring(word, segment) => ask(&link, *word, "", &segment.descriptors(), deadline, stop)?,
            // The receiver may have it a moment longer by this, which costs it one slice at worst.
            Way::Socket(last) => match last.upgrade().filter(|last| !descriptor::has_hung_up(last.as_fd())) {
                Some(last) => {
                    let pid = socket::peer(last.as_fd())?.0;
                    return Ok(say(link.as_fd(), Word::Busy, &pid.to_string(), &[])?);
                }
                None => ask(&link, Word::Socket, "", &[], deadline, stop)?,
            },
        };
        if let Err(why) = answer {
            let why = format!("an earlier sender and the receiver have settled on {}, and {why}", chosen.scheme);
            return Ok(say(link.as_fd(), Word::Unfit, &why, &[])?);
        }
        say(link.as_fd(), Word::Settled, &chosen.why, &[])?;
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
    descriptors: &[BorrowedFd<'_>],
    deadline: Duration,
    stop: BorrowedFd<'_>,
) -> Result<Result<(), String>, GaveUp> {
    say(link.as_fd(), word, text, descriptors)?;
    let letter = hear(link.as_fd(), deadline, Some(stop))?;
    match letter.word {
        Word::Yes => Ok(Ok(())),
        Word::No => Ok(Err(letter.text)),
        _ => Err(GaveUp),
    }
}
