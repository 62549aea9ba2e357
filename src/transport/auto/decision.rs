//! What a receiver waits for until it knows what it receives from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::Chosen;
use crate::channel::{Options, Owner, RecvError};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Wait;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::{clock, descriptor};
use crate::transport::Receiver;
use crate::transport::outbox::DEFAULT_LONGEST;
use crate::wait::{Pollable, Side, Watch};

/// What a receiver waits for before it can receive.
#[derive(Debug)]
pub(in crate::transport) struct Decision {
    state: Mutex<State>,
    made: Condvar,
    chosen: OnceLock<Chosen>,
    owner: Owner,
    max: usize,
    is_sleepless: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Once it is made, and until it is taken.
    receiver: Option<Receiver>,
    relay: Option<Relay>,
}

/// The one descriptor of a receiver that is watched before it knows what it receives from: there is in it first what tells of the
/// decision, and then what the receiver has to show from then on.
#[derive(Debug)]
struct Relay {
    epoll: Epoll,
    bell: OwnedFd,
    watch: Arc<Watch>,
    /// It stays open as long as it is in there.
    end: Option<Pollable>,
}

impl Relay {
    fn new() -> io::Result<Self> {
        let (epoll, bell) = (Epoll::new()?, descriptor::event()?);
        epoll.add(bell.as_fd(), Interest::READ, 0)?;
        let watch = Arc::new(Watch::carried(Side::Receiver, Arc::clone(epoll.descriptor()), false)?);
        Ok(Self { epoll, bell, watch, end: None })
    }
}

/// A decision, as its receiver has it: when that goes, those who wait for it along with others are told.
#[derive(Debug)]
pub(in crate::transport) struct Held(pub(in crate::transport) Arc<Decision>);

impl std::ops::Deref for Held {
    type Target = Decision;

    fn deref(&self) -> &Decision {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What a forked child has is its parent's.
        if self.0.owner.check().is_ok()
            && let Some(relay) = &self.0.state().relay
        {
            descriptor::set_event(relay.bell.as_fd());
            relay.watch.close();
        }
    }
}

impl Decision {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            made: Condvar::new(),
            chosen: OnceLock::new(),
            owner: Owner::this(),
            is_sleepless: options.wait == Some(Wait::Spin),
            max: options.max_message.map_or(DEFAULT_LONGEST, |max| max as usize),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn make(&self, receiver: Receiver, chosen: Chosen) {
        // It is made once; and before, as whoever is woken looks at it.
        let _ = self.chosen.set(chosen);
        let mut state = self.state();
        state.receiver = Some(receiver);
        if let Some(relay) = &state.relay {
            descriptor::set_event(relay.bell.as_fd());
        }
        self.made.notify_all();
    }

    /// What was agreed on, once it is.
    pub(in crate::transport) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.get()
    }

    /// The longest message asked for: what goes is known only after the decision.
    pub(in crate::transport) fn max_message(&self) -> usize {
        self.max
    }

    /// The receiver to be used from then on. Waits until the monotonic `deadline`: then [`RecvError::Timeout`].
    pub(in crate::transport) fn wait(&self, deadline: Option<Duration>) -> Result<Receiver, RecvError> {
        self.owner.check()?;
        let mut state = self.state();
        loop {
            if let Some(receiver) = state.receiver.take() {
                return Ok(receiver);
            }
            let made = match deadline.map(|deadline| deadline.saturating_sub(clock::now())) {
                None => self.made.wait(state),
                Some(Duration::ZERO) => return Err(RecvError::Timeout),
                Some(left) => {
                    let made = self.made.wait_timeout(state, left);
                    made.map(|(state, _)| state).map_err(|e| PoisonError::new(e.into_inner().0))
                }
            };
            state = made.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is shared with whoever waits for the receiver along with others, before and after the decision is made.
    pub(in crate::transport) fn watch(&self) -> Result<Arc<Watch>> {
        let failed = |e| Error::os(e, "make a descriptor that can be polled for", "an endpoint");
        let fenced = |_| failed(io::Error::new(io::ErrorKind::PermissionDenied, RecvError::Fenced));
        self.owner.check().map_err(fenced)?;
        if self.is_sleepless {
            return Err(Error::new(ErrorKind::InvalidInput, "wait for", "an endpoint along with others")
                .advise("a ring with wait=spin wakes nobody; use another strategy"));
        }
        let State { receiver, relay } = &mut *self.state();
        let relay = match relay {
            Some(relay) => relay,
            None => relay.insert(Relay::new().map_err(failed)?),
        };
        if receiver.is_some() {
            descriptor::set_event(relay.bell.as_fd());
        }
        Ok(Arc::clone(&relay.watch))
    }

    /// Whether somebody waits for the receiver along with others, since before the decision was made.
    pub(in crate::transport) fn is_watched(&self) -> bool {
        self.state().relay.is_some()
    }

    /// What the receiver has to show, now that it is taken. If that is an error, it goes on showing that there may be something.
    pub(in crate::transport) fn pass_on(&self, end: Result<Pollable>) -> Result<(), RecvError> {
        let mut state = self.state();
        let Some(relay) = &mut state.relay else { return Ok(()) };
        let errno = |e: &io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        let end = end.map_err(|e| {
            let source = std::error::Error::source(&e).and_then(|source| source.downcast_ref());
            RecvError::Os { errno: source.map_or(libc::EIO, errno) }
        })?;
        let added = relay.epoll.add(end.as_fd(), Interest::READ, 0);
        added.map_err(|e| RecvError::Os { errno: errno(&e) })?;
        relay.end = Some(end);
        descriptor::unset_event(relay.bell.as_fd());
        Ok(())
    }
}
