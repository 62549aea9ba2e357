//! What an endpoint shares with whoever waits for it along with others: a wait set, or an event loop that has its descriptor.
//!
//! The endpoint of a ring *arms* itself before it says that there is nothing: it clears its descriptor, announces itself, looks once more, and
//! is then [held](super::hold). So there are two rules, and both directions hold at every moment:
//!
//! - Unless it is held, it is reported: its descriptor is readable. A receiver is ready from the start, and becomes ready
//!   again, with a ring at its own descriptor, whenever it gives up an announcement by itself.
//! - When it is held and something comes, its epoch moves on and its descriptor becomes readable, in this order. A ring that comes late, for an
//!   announcement of the past, makes it readable for nothing, until it is emptied the next time.
//!
//! A receiver is reported until it has been emptied. A sender is told each change once, since it mostly has nothing to wait for.
//!
//! What nobody rings for is found by [probing](Watch::probe), once in a while: the kernel tells of a killed peer only who asks. A peer killed
//! between moving the epoch on and waking is found [too](Watch::ring_if_missed).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::hold::Hold;
use super::manner::Manner;
use crate::primitive::AtomicU32;
use crate::sys::doorbell::{self, Name};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::{bell, descriptor, random};

/// What an endpoint waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Messages.
    Receiver,
    /// Room.
    Sender,
}

/// The shared words of a ring's endpoint, with what keeps them mapped.
#[derive(Debug)]
pub(crate) struct Words {
    epoch: NonNull<AtomicU32>,
    manner: NonNull<AtomicU32>,
    /// The name of its doorbells, but for their number.
    name: (u64, u32),
    /// The ring's strategy's own bell, if that is a descriptor.
    bell: Option<OwnedFd>,
    _keep: Arc<dyn std::any::Any + Send + Sync>,
}

// SAFETY: the pointers lead to atomics in memory that belongs to no thread, and that is kept.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// # Safety
    /// `keep` must keep both words mapped.
    pub(crate) unsafe fn new(
        (epoch, manner): (&AtomicU32, &AtomicU32),
        name: (u64, u32),
        bell: Option<OwnedFd>,
        keep: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Self {
        Self { epoch: NonNull::from(epoch), manner: NonNull::from(manner), name, bell, _keep: keep }
    }

    fn epoch(&self) -> &AtomicU32 {
        // SAFETY: the promise to `new`.
        unsafe { self.epoch.as_ref() }
    }

    fn manner(&self) -> &AtomicU32 {
        // SAFETY: the promise to `new`.
        unsafe { self.manner.as_ref() }
    }
}

/// What becomes readable.
#[derive(Debug)]
enum Descriptor {
    /// The ring's own kind of bell.
    Bell(OwnedFd),
    /// A doorbell.
    Doorbell(OwnedFd, Name),
    /// What the kernel makes readable itself; and if somebody has to look now and then, an epoll instance with that and an event.
    Carried(Arc<OwnedFd>, Option<(Epoll, OwnedFd)>),
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Bell(fd) | Self::Doorbell(fd, _) => fd.as_fd(),
            Self::Carried(_, Some((epoll, _))) => epoll.as_fd(),
            Self::Carried(fd, None) => fd.as_fd(),
        }
    }
}

impl Descriptor {
    fn ring(&self) {
        match self {
            Self::Bell(fd) => bell::ring(fd.as_fd()),
            Self::Doorbell(fd, name) => doorbell::ring_own(fd.as_fd(), *name),
            Self::Carried(_, Some((_, event))) => descriptor::set_event(event.as_fd()),
            Self::Carried(_, None) => {}
        }
    }

    fn clear(&self) {
        match self {
            Self::Bell(fd) => bell::clear(fd.as_fd()),
            Self::Doorbell(fd, _) => doorbell::clear(fd.as_fd()),
            Self::Carried(_, Some((_, event))) => descriptor::unset_event(event.as_fd()),
            Self::Carried(_, None) => {}
        }
    }
}

/// Whoever waits for several without descriptors.
pub(crate) trait Waiter: Send + Sync {
    /// There is something to look at.
    fn wake(&self);
}

/// Looks for peers that have died, thoroughly or cheaply: a number that changes with each death that nobody has noted yet; 0 while there is
/// none.
pub(crate) type Deaths = Box<dyn Fn(bool) -> u64 + Send + Sync>;

/// What an endpoint shares with whoever waits for it.
pub struct Watch {
    side: Side,
    hold: Hold,
    words: Option<Words>,
    descriptor: OnceLock<Descriptor>,
    /// Held while the descriptor is made, or the waiter changes.
    waiter: Mutex<Option<Weak<dyn Waiter>>>,
    deaths: Deaths,
    /// The last such number that was reported.
    known_deaths: AtomicU64,
    /// It may miss what comes, and is to look by itself once in a while.
    is_restless: AtomicBool,
    /// To be reported, whatever the hold says.
    is_suspected: AtomicBool,
    /// The endpoint is to look at the lives of its peers.
    must_look: AtomicBool,
    /// The endpoint is gone.
    is_closed: AtomicBool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("side", &self.side).field("hold", &self.hold).finish_non_exhaustive()
    }
}

// Of the flags of this process Relaxed is enough where nothing else is read because of them, and Release with Acquire where the endpoint is
// to see what the prober saw.
impl Watch {
    /// Of a ring's endpoint, whose news begin at `epoch`.
    pub(crate) fn of_ring(side: Side, words: Words, epoch: u32, deaths: Deaths) -> Self {
        let hold = match side {
            Side::Receiver => Hold::ready(),
            Side::Sender => Hold::held(epoch),
        };
        Self::new(side, hold, Some(words), deaths, false)
    }

    /// Of an endpoint for which the kernel keeps a descriptor; `is_restless` if it has to look by itself now and then.
    pub(crate) fn carried(side: Side, fd: Arc<OwnedFd>, is_restless: bool) -> io::Result<Self> {
        let event = if is_restless {
            let (epoll, event) = (Epoll::new()?, descriptor::event()?);
            epoll.add(fd.as_fd(), Interest::READ, 0)?;
            epoll.add(event.as_fd(), Interest::READ, 1)?;
            Some((epoll, event))
        } else {
            None
        };
        let watch = Self::new(side, Hold::ready(), None, Box::new(|_| 0), is_restless);
        let _ = watch.descriptor.set(Descriptor::Carried(fd, event));
        Ok(watch)
    }

    fn new(side: Side, hold: Hold, words: Option<Words>, deaths: Deaths, is_restless: bool) -> Self {
        Self {
            side,
            hold,
            words,
            descriptor: OnceLock::new(),
            waiter: Mutex::new(None),
            deaths,
            known_deaths: AtomicU64::new(0),
            is_restless: AtomicBool::new(is_restless),
            is_suspected: AtomicBool::new(false),
            must_look: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    // What the endpoint does.

    /// How the endpoint is to be woken.
    pub(crate) fn manner(&self) -> Manner {
        match self.descriptor.get() {
            None => Manner::FUTEX,
            Some(Descriptor::Doorbell(_, name)) => Manner::doorbell(name.number),
            Some(Descriptor::Bell(_) | Descriptor::Carried(..)) => Manner::STRATEGY,
        }
        .watched()
    }

    /// What has rung so far is about to be looked at.
    pub(crate) fn clear(&self) {
        if let Some(descriptor) = self.descriptor.get() {
            descriptor.clear();
        }
    }

    /// Whether the endpoint is to look at the lives of its peers now.
    pub(crate) fn take_suspicion(&self) -> bool {
        // It looks at the ring now in any case; nobody may ever ask for a report. SeqCst, and in this order, against the other one in
        // `probe`: of a death that isn't looked at now the suspicion stays.
        self.is_suspected.store(false, Ordering::SeqCst);
        self.must_look.swap(false, Ordering::SeqCst)
    }

    /// Whether nothing has come since it was armed on that epoch.
    pub(crate) fn is_still(&self, epoch: u32) -> bool {
        self.expected() == Some(epoch)
    }

    /// It has found nothing since it announced itself on that epoch; `is_restless` if it may miss what comes.
    pub(crate) fn hold(&self, epoch: u32, is_restless: bool) {
        self.is_restless.store(is_restless, Ordering::Relaxed);
        self.hold.hold(epoch);
        // Whoever moved the epoch on meanwhile may have rung in the manner of an announcement before.
        self.ring_if_missed();
    }

    /// It has given up its announcement by itself.
    pub(crate) fn release(&self) {
        self.is_restless.store(false, Ordering::Relaxed);
        self.hold.release();
        self.tell();
    }

    /// The same, of one that is or will be rung: that is not done twice.
    pub(crate) fn release_rung(&self) {
        self.is_restless.store(false, Ordering::Relaxed);
        self.hold.release();
    }

    /// It no longer waits by itself: what it slept on may have been its descriptor, and news come in its own manner again.
    pub(crate) fn resume(&self) {
        if let Some(words) = &self.words {
            self.manner().store(words.manner());
            // As in `descriptor`.
            fence(Ordering::SeqCst);
        }
        self.ring_if_missed();
    }

    /// The endpoint is gone.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.tell();
    }

    // What those do who wait for it.

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// What to sleep on, if it is a ring's endpoint.
    pub(crate) fn word(&self) -> Option<&AtomicU32> {
        self.words.as_ref().map(Words::epoch)
    }

    /// The value with which to sleep on [`Watch::word`]; none if the endpoint is to be reported, or isn't a ring's.
    pub(crate) fn expected(&self) -> Option<u32> {
        if self.is_suspected.load(Ordering::Relaxed) {
            return None;
        }
        self.hold.expected(self.word()?)
    }

    /// It is reported now; says whether there is anything that wasn't before.
    pub(crate) fn report(&self) -> bool {
        let is_suspected = self.is_suspected.swap(false, Ordering::Relaxed);
        match (self.side, self.word()) {
            (Side::Sender, Some(word)) => {
                // Before the epoch is read: what rings for a later one is seen. One that nobody empties would fill up.
                self.clear();
                self.hold.told(word).is_none() || is_suspected
            }
            _ => true,
        }
    }

    /// Its descriptor, which is made if there is none.
    pub(crate) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        if self.descriptor.get().is_none()
            && let Some(words) = &self.words
        {
            let made = match &words.bell {
                Some(bell) => Descriptor::Bell(bell.try_clone()?),
                None => hang(words.name)?,
            };
            let _ = self.descriptor.set(made);
            // From here on it is rung. Whoever was told the manner of before rings nobody: so it looks again.
            self.manner().store(words.manner());
            // Pairs with the fence of whoever moves the epoch on and then reads the manner.
            fence(Ordering::SeqCst);
            if self.side == Side::Receiver || self.hold.expected(words.epoch()).is_none() {
                self.hold.release();
                self.ring();
            }
            // Nor is a waiter that sleeps on the epoch woken any more.
            let waiter = waiter.as_ref().and_then(Weak::upgrade);
            if let Some(waiter) = &waiter {
                waiter.wake();
            }
        }
        match self.descriptor.get() {
            Some(descriptor) => Ok(descriptor.as_fd()),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether somebody has its descriptor, or could have.
    pub(crate) fn has_descriptor(&self) -> bool {
        self.descriptor.get().is_some()
    }

    /// Whom to wake when it becomes ready by itself; false if that is somebody else already.
    pub(crate) fn set_waiter(&self, waiter: Option<Weak<dyn Waiter>>) -> bool {
        let mut current = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = current.as_ref().is_some_and(|current| current.strong_count() > 0);
        if is_taken && waiter.is_some() {
            return false;
        }
        *current = waiter;
        true
    }

    /// Looks for what nobody rings for. To be called now and then: it costs a system call, and if it is to be `thorough`, some more.
    pub(crate) fn probe(&self, thorough: bool) {
        if self.is_closed() {
            return;
        }
        let deaths = (self.deaths)(thorough);
        let news = deaths != 0 && deaths != self.known_deaths.swap(deaths, Ordering::Relaxed);
        if news || self.is_restless.load(Ordering::Relaxed) {
            if news || self.words.is_none() {
                self.must_look.store(true, Ordering::SeqCst);
            }
            self.is_suspected.store(true, Ordering::SeqCst);
            self.tell();
        }
    }

    /// Whether its epoch has moved on without anybody ringing, as far as it seems; if so it is rung.
    pub(crate) fn ring_if_missed(&self) {
        // Of one that is gone, word and bell are its successor's.
        if self.words.is_some() && !self.is_closed() && self.expected().is_none() {
            self.ring();
        }
    }

    fn ring(&self) {
        if let Some(descriptor) = self.descriptor.get() {
            descriptor.ring();
        }
    }

    fn tell(&self) {
        self.ring();
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A doorbell with a number that no other one of that name has.
fn hang((ring, member): (u64, u32)) -> io::Result<Descriptor> {
    /// Enough for two to differ.
    const ATTEMPTS: usize = 16;

    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..ATTEMPTS {
        let name = Name { ring, member, number: random::number()? as u32 % Manner::DOORBELLS };
        outcome = doorbell::hang(name).map(|fd| Descriptor::Doorbell(fd, name));
        if !matches!(&outcome, Err(e) if e.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    outcome
}
