//! Receiving where the kernel carries the messages: waiting, deadlines, and what is told when; the same for all mechanisms.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::pollset::{PollSet, Shared};
use super::receiver::Delivery;
use crate::channel::{Owner, PeerState, RecvError};
use crate::error;
use crate::sys::clock;
use crate::sys::epoll::Epoll;
use crate::wait::{SLICE, Side, Spin, Watch};

/// What a [`Receiver`](super::Receiver) needs of a mechanism.
pub(super) trait Inlet: Debug + Send {
    fn max_message(&self) -> usize;
    /// The next message, if there is one now; it is the current one then. `many` if more will be asked for at once.
    fn try_take(&mut self, many: bool) -> Result<Delivery, RecvError>;
    /// Whether a wait begins with looks by [`Inlet::retry_take`].
    fn has_retry(&self) -> bool {
        false
    }
    /// [`Inlet::try_take`] just after that found nothing: looks neither at who comes nor at who is gone.
    fn retry_take(&mut self, _many: bool) -> Result<Delivery, RecvError> {
        Err(RecvError::Empty)
    }
    /// Whether the next message has to be read from somewhere where several can be read at once.
    fn is_drained(&self, _many: bool) -> bool {
        false
    }
    /// Of the current message.
    fn payload(&self) -> &[u8];
    /// The current message will be the next one again.
    fn put_back(&mut self);
    /// All messages that were taken count as received.
    fn release(&mut self) {}
    /// Sleeps until there may be something, or `deadline`.
    fn wait(&mut self, deadline: Duration) -> Result<(), RecvError>;
    /// Looks who is gone; what they sent may still be there.
    fn look(&mut self) {}
    /// Whether something that concerns the next message is found by [`Inlet::look`], or by time, and shows in no descriptor. Asked only of a watched one.
    fn must_look(&self) -> bool;
    /// From now on has everything in the instance that shows what comes, and takes it out in time; false if the mechanism has nothing
    /// that could be polled. Called once, and again after an error.
    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool>;
    /// Whether there may be something beyond what was just said that no descriptor shows. Asked only of a watched one.
    fn has_hidden(&self) -> bool;
    /// How many messages are known to be lost on their way.
    fn lost(&self) -> u64 {
        0
    }
    fn select(&mut self, tag: Option<u32>) -> bool;
    fn peer(&self) -> PeerState;
    fn close(&mut self);
}

/// The receiving end of a mechanism, that only its own process uses.
#[derive(Debug)]
pub(super) struct Inward {
    inlet: Box<dyn Inlet>,
    owner: Owner,
    keep_open: bool,
    spin: Spin,
    looked: Option<Duration>,
    /// What ended a batch, to be told next.
    untold: Option<RecvError>,
    /// Once it is watched.
    set: Option<Box<PollSet>>,
    /// Once it is waited for along with others.
    shared: Option<Shared>,
}

impl Inward {
    pub(super) fn new(inlet: Box<dyn Inlet>, keep_open: bool, spin: Spin) -> Self {
        Self { inlet, owner: Owner::this(), keep_open, spin, looked: None, untold: None, set: None, shared: None }
    }

    pub(super) fn max_message(&self) -> usize {
        self.inlet.max_message()
    }

    pub(super) fn peer(&self) -> PeerState {
        self.inlet.peer()
    }

    pub(super) fn lost(&self) -> u64 {
        self.inlet.lost()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.inlet.payload()
    }

    pub(super) fn put_back(&mut self) {
        self.inlet.put_back();
        if let Some(set) = &mut self.set {
            set.nudge();
        }
    }

    pub(super) fn release(&mut self) {
        if self.owner.check().is_ok() {
            self.inlet.release();
        }
    }

    pub(super) fn select(&mut self, tag: Option<u32>) -> bool {
        self.inlet.select(tag)
    }

    #[inline]
    pub(super) fn try_take(&mut self, many: bool) -> Result<Delivery, RecvError> {
        self.owner.check()?;
        let taken = self.take_now(many);
        if !matches!(taken, Err(RecvError::Empty)) {
            return taken;
        }
        let taken = self.look_now(many);
        if let (Some(shared), Err(RecvError::Empty)) = (&mut self.shared, &taken) {
            shared.hold(self.inlet.must_look());
        }
        taken
    }

    /// There was nothing: looks after the peers, once per slice.
    fn look_now(&mut self, many: bool) -> Result<Delivery, RecvError> {
        if self.shared.as_ref().is_some_and(Shared::is_suspicious) {
            self.suspect();
        }
        let taken = Err(RecvError::Empty);
        let now = clock::now();
        match self.looked {
            Some(looked) if now < looked + SLICE => return taken,
            Some(_) => {}
            None => {
                self.looked = Some(now);
                return taken;
            }
        }
        self.looked = Some(now);
        self.inlet.look();
        self.take_now(many)
    }

    pub(super) fn take(&mut self, deadline: Option<Duration>, many: bool) -> Result<Delivery, RecvError> {
        self.owner.check()?;
        if self.inlet.is_drained(many) {
            self.spin.gather();
        }
        let mut looked = None;
        loop {
            match self.take_now(many) {
                Err(RecvError::Empty) => {}
                taken => return taken,
            }
            let now = clock::now();
            match looked {
                None => {
                    looked = Some(now);
                    if let Some(taken) = self.retry(deadline, many) {
                        return taken;
                    }
                    // An end may have been found, and isn't told there.
                    continue;
                }
                Some(before) if now >= before + SLICE => {
                    looked = Some(now);
                    // What they sent is there if it ever was: look again before going to sleep.
                    self.inlet.look();
                    continue;
                }
                Some(_) => {}
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                // Waits that are all shorter than a slice must find out about the peer, too.
                return self.try_take(many).map_err(|error| match error {
                    RecvError::Empty => RecvError::Timeout,
                    error => error,
                });
            }
            let slice = now.saturating_add(SLICE);
            self.inlet.wait(deadline.map_or(slice, |deadline| deadline.min(slice)))?;
        }
    }

    /// The next message of a batch. What ends the batch early is told to the next call.
    pub(super) fn take_in_batch(&mut self) -> Option<Delivery> {
        self.owner.check().ok()?;
        match self.take_now(true) {
            Ok(delivery) => Some(delivery),
            Err(RecvError::Empty) => None,
            Err(error) => {
                self.untold = Some(error);
                None
            }
        }
    }

    #[inline]
    fn take_now(&mut self, many: bool) -> Result<Delivery, RecvError> {
        let taken = match self.untold.take() {
            Some(error) => Err(error),
            None => match self.inlet.try_take(many) {
                Err(RecvError::Closed | RecvError::PeerDied) if self.keep_open => Err(RecvError::Empty),
                taken => taken,
            },
        };
        if self.set.is_some() {
            self.show(&taken);
        }
        taken
    }

    /// Has the descriptor show what there may be beyond what is said now.
    fn show(&mut self, taken: &Result<Delivery, RecvError>) {
        let Some(set) = &mut self.set else { return };
        match (taken, self.inlet.has_hidden()) {
            (Err(RecvError::Empty), true) => set.nudge_again(),
            (Err(RecvError::Empty), false) => set.calm(),
            (Ok(_), false) => {}
            // An end stays one, and behind any other error there may be more.
            (Err(_), _) | (Ok(_), true) => set.nudge(),
        }
    }

    /// What it shares with whoever waits for it along with others.
    pub(super) fn watch_shared(&mut self) -> error::Result<Arc<Watch>> {
        let shared = match self.shared.take() {
            Some(shared) => shared,
            None => Shared::new(Side::Receiver, self.watch())?,
        };
        Ok(Arc::clone(self.shared.insert(shared).watch()))
    }

    /// What is readable whenever there may be a message or anything else to be told, and no longer once [`RecvError::Empty`] was said,
    /// unless something has come since. None if the mechanism can't be polled.
    pub(super) fn watch(&mut self) -> io::Result<Option<Arc<OwnedFd>>> {
        let fenced = |_| io::Error::new(io::ErrorKind::PermissionDenied, RecvError::Fenced);
        self.owner.check().map_err(fenced)?;
        if self.set.is_none() {
            let set = PollSet::new()?;
            if !self.inlet.watch(set.epoll())? {
                return Ok(None);
            }
            self.set = Some(Box::new(set));
        }
        Ok(self.set.as_ref().map(|set| Arc::clone(set.epoll().descriptor())))
    }

    /// Whether whoever polls must come back once per slice nevertheless, and [suspect](Self::suspect) the peers.
    #[cfg(test)]
    pub(super) fn must_look(&self) -> bool {
        self.inlet.must_look()
    }

    /// The next attempt that finds nothing looks at once who is gone.
    pub(super) fn suspect(&mut self) {
        self.looked = Some(Duration::ZERO);
    }

    /// Spins for the next message, just after there was none.
    fn retry(&mut self, deadline: Option<Duration>, many: bool) -> Option<Result<Delivery, RecvError>> {
        let Self { inlet, spin, .. } = self;
        if !inlet.has_retry() {
            return None;
        }
        let taken = spin.spin(deadline, || match inlet.retry_take(many) {
            Err(RecvError::Empty) => None,
            taken => Some(taken),
        })?;
        self.show(&taken);
        Some(taken)
    }
}

impl Drop for Inward {
    fn drop(&mut self) {
        // What a forked child has is its parent's.
        if self.owner.check().is_ok() {
            self.inlet.close();
            self.shared.iter().for_each(|shared| shared.watch().close());
        }
    }
}
