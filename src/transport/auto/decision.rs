//! What a receiver waits for until it knows what it receives from.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::Chosen;
use crate::channel::{Options, Owner, RecvError};
use crate::sys::clock;
use crate::transport::Receiver;
use crate::transport::outbox::DEFAULT_LONGEST;

/// What a receiver waits for before it can receive.
#[derive(Debug)]
pub(in crate::transport) struct Decision {
    receiver: Mutex<Option<Receiver>>,
    made: Condvar,
    chosen: OnceLock<Chosen>,
    owner: Owner,
    max: usize,
}

impl Decision {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            receiver: Mutex::default(),
            made: Condvar::new(),
            chosen: OnceLock::new(),
            owner: Owner::this(),
            max: options.max_message.map_or(DEFAULT_LONGEST, |max| max as usize),
        }
    }

    fn receiver(&self) -> MutexGuard<'_, Option<Receiver>> {
        // Nothing panics while it is locked.
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn make(&self, receiver: Receiver, chosen: Chosen) {
        *self.receiver() = Some(receiver);
        // It is made once.
        let _ = self.chosen.set(chosen);
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
