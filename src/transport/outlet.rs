//! Sending where the kernel carries the messages: waiting, deadlines, and what is told when; the same for all mechanisms.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::pollset::Shared;
use super::sender::Outgoing;
use crate::channel::{Owner, PeerState, SendError};
use crate::error;
use crate::sys::clock;
use crate::sys::epoll::Epoll;
use crate::wait::{SLICE, Side, Watch, spin_for_room};

/// How long an endpoint that is dropped tries to hand over what was sent, and to say that it leaves.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What a [`Sender`](super::Sender) needs of a mechanism.
pub(super) trait Outlet: Debug + Send {
    fn max_message(&self) -> usize;
    fn check(&self, length: usize, tag: u32) -> Result<(), SendError>;
    fn try_send(&mut self, message: Outgoing<'_>) -> Result<u64, SendError>;
    /// Adds to a batch, and hands it over when it is large enough.
    fn add(&mut self, message: Outgoing<'_>) -> Result<(), SendError>;
    /// Hands over what is left of a batch, or of a message that was too large to go at once.
    fn flush(&mut self) -> Result<(), SendError>;
    /// As [`Outlet::flush`], behind the last message: this end says that it leaves, if it has a way to say so.
    fn finish(&mut self) -> Result<(), SendError> {
        self.flush()
    }
    /// Of what was added to a batch, drops what has not been handed over; says how many messages these are.
    fn give_up(&mut self) -> usize;
    fn wait(&mut self, deadline: Duration) -> Result<(), SendError>;
    fn end(&mut self) -> Option<SendError>;
    /// Whether the end of the receiver is found by [`Outlet::end`], and shows in no descriptor.
    fn must_look(&self) -> bool;
    /// Has in the instance what shows that there may be room, or that the receiver is gone; false if the mechanism can't be polled.
    fn watch(&mut self, epoll: &Epoll) -> io::Result<bool>;
    fn peer(&self) -> PeerState;
    fn close(&mut self);
}

/// The sending end of a mechanism, that only its own process uses.
#[derive(Debug)]
pub(super) struct Outward {
    outlet: Box<dyn Outlet>,
    owner: Owner,
    keep_open: bool,
    /// How long to spin before it sleeps.
    spin: Duration,
    /// When the receiver was last looked after, while there was no room.
    looked: Option<Duration>,
    /// Once it is watched.
    epoll: Option<Epoll>,
    /// Once it is waited for along with others.
    shared: Option<Shared>,
}

impl Outward {
    pub(super) fn new(outlet: Box<dyn Outlet>, keep_open: bool, spin: Duration) -> Self {
        Self { outlet, owner: Owner::this(), keep_open, spin, looked: None, epoll: None, shared: None }
    }

    pub(super) fn max_message(&self) -> usize {
        self.outlet.max_message()
    }

    pub(super) fn peer(&self) -> PeerState {
        self.outlet.peer()
    }

    /// Whether a message of that length can be sent at all.
    pub(super) fn check(&self, length: usize) -> Result<(), SendError> {
        self.owner.check()?;
        self.outlet.check(length, 0)
    }

    #[inline]
    pub(super) fn try_send(&mut self, message: Outgoing<'_>) -> Result<u64, SendError> {
        self.owner.check()?;
        match self.outlet.try_send(message) {
            Err(SendError::Full) => Err(self.look()),
            outcome => outcome,
        }
    }

    pub(super) fn send(&mut self, message: Outgoing<'_>, deadline: Option<Duration>) -> Result<u64, SendError> {
        self.owner.check()?;
        let sent = match self.outlet.try_send(message) {
            Err(SendError::Full) => self.wait_for(deadline, |outlet| outlet.try_send(message))?,
            outcome => outcome?,
        };
        // What is on its way is sent: the rest of it follows now, or with the next call.
        match self.outlet.flush() {
            Err(SendError::Full) => match self.wait_for(deadline, |outlet| outlet.flush()) {
                Ok(()) | Err(SendError::Timeout) => Ok(sent),
                Err(error) => Err(error),
            },
            outcome => outcome.map(|()| sent),
        }
    }

    /// Adds to a batch; waits for room as long as it takes.
    pub(super) fn add(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        self.owner.check()?;
        match self.outlet.add(message) {
            Err(SendError::Full) => self.wait_for(None, |outlet| outlet.add(message)),
            outcome => outcome,
        }
    }

    /// Hands over what is left of messages that were sent; [`SendError::Full`] if that is not all of it.
    #[cfg(any(test, feature = "async"))]
    pub(super) fn try_flush(&mut self) -> Result<(), SendError> {
        self.owner.check()?;
        match self.outlet.flush() {
            Err(SendError::Full) => Err(self.look()),
            outcome => outcome,
        }
    }

    /// As [`try_flush`](Self::try_flush), and behind that says that this end leaves.
    #[cfg(feature = "async")]
    pub(super) fn try_finish(&mut self) -> Result<(), SendError> {
        self.owner.check()?;
        match self.outlet.finish() {
            Err(SendError::Full) => Err(self.look()),
            outcome => outcome,
        }
    }

    /// Sends a message, or keeps it, to be flushed, if there is no room; of those before nothing may be left.
    #[cfg(feature = "async")]
    pub(super) fn send_or_keep(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        match self.try_send(message) {
            Err(SendError::Full) => self.outlet.add(message),
            outcome => outcome.map(drop),
        }
    }

    /// What it shares with whoever waits for it along with others.
    pub(super) fn watch_shared(&mut self) -> error::Result<Arc<Watch>> {
        let shared = match self.shared.take() {
            Some(shared) => shared,
            None => Shared::new(Side::Sender, self.watch())?,
        };
        Ok(Arc::clone(self.shared.insert(shared).watch()))
    }

    /// What is readable whenever there may be room, or the receiver is gone. None if the mechanism can't be polled.
    pub(super) fn watch(&mut self) -> io::Result<Option<Arc<OwnedFd>>> {
        let fenced = |_| io::Error::new(io::ErrorKind::PermissionDenied, SendError::Fenced);
        self.owner.check().map_err(fenced)?;
        if self.epoll.is_none() {
            let epoll = Epoll::new()?;
            if !self.outlet.watch(&epoll)? {
                return Ok(None);
            }
            self.epoll = Some(epoll);
        }
        Ok(self.epoll.as_ref().map(|epoll| Arc::clone(epoll.descriptor())))
    }

    /// Whether whoever polls for room must come back once per slice nevertheless, and [suspect](Self::suspect) the receiver.
    #[cfg(test)]
    pub(super) fn must_look(&self) -> bool {
        self.outlet.must_look()
    }

    /// The next attempt that finds no room looks at once after the receiver.
    pub(super) fn suspect(&mut self) {
        self.looked = Some(Duration::ZERO);
    }

    /// Hands over a batch; an error comes with how many of its last messages were not handed over.
    pub(super) fn flush(&mut self) -> Result<(), (SendError, usize)> {
        let flushed = self.owner.check().map_err(SendError::from).and_then(|()| match self.outlet.flush() {
            Err(SendError::Full) => self.wait_for(None, |outlet| outlet.flush()),
            outcome => outcome,
        });
        flushed.map_err(|error| (error, self.outlet.give_up()))
    }

    /// Hands over what is left of a message; `last` if nothing follows.
    pub(super) fn hand_over(&mut self, last: bool, deadline: Duration) -> Result<(), SendError> {
        self.owner.check()?;
        let attempt = |outlet: &mut dyn Outlet| if last { outlet.finish() } else { outlet.flush() };
        match attempt(&mut *self.outlet) {
            Err(SendError::Full) => self.wait_for(Some(deadline), attempt),
            outcome => outcome,
        }
    }

    #[cold]
    fn wait_for<T>(
        &mut self,
        deadline: Option<Duration>,
        mut attempt: impl FnMut(&mut dyn Outlet) -> Result<T, SendError>,
    ) -> Result<T, SendError> {
        let attempted = spin_for_room(self.spin, deadline, || match attempt(&mut *self.outlet) {
            Err(SendError::Full) => None,
            outcome => Some(outcome),
        });
        if let Some(outcome) = attempted {
            self.looked = None;
            return outcome;
        }
        loop {
            let now = clock::now();
            let slice = now.saturating_add(SLICE);
            self.outlet.wait(deadline.map_or(slice, |deadline| deadline.min(slice)))?;
            match attempt(&mut *self.outlet) {
                Err(SendError::Full) => {}
                outcome => {
                    self.looked = None;
                    return outcome;
                }
            }
            match self.look() {
                SendError::Full if deadline.is_some_and(|deadline| clock::now() >= deadline) => {
                    return Err(SendError::Timeout);
                }
                SendError::Full => {}
                error => return Err(error),
            }
        }
    }

    /// Why there is no room: looks after the receiver once per slice.
    #[cold]
    fn look(&mut self) -> SendError {
        if let Some(shared) = &mut self.shared {
            let is_suspicious = shared.is_suspicious();
            shared.hold(self.outlet.must_look());
            if is_suspicious {
                self.suspect();
            }
        }
        let now = clock::now();
        match self.looked {
            Some(looked) if now < looked + SLICE => return SendError::Full,
            Some(_) => self.looked = Some(now),
            None => {
                self.looked = Some(now);
                return SendError::Full;
            }
        }
        self.outlet.end().filter(|_| !self.keep_open).unwrap_or(SendError::Full)
    }
}

impl Drop for Outward {
    fn drop(&mut self) {
        // What a forked child has is its parent's.
        if self.owner.check().is_ok() {
            self.outlet.close();
            self.shared.iter().for_each(|shared| shared.watch().close());
        }
    }
}
