//! Who has which role in this process: one receiver for each signal, and one sender for each target and signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::sys::descriptor::{self, Ready};
use crate::sys::{clock, fork};
use crate::transport::plan::Pauses;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Receiver,
    Sender { pid: u32 },
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// How long others may take with the entries: far longer than they do.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    role: Role,
    signal: i32,
    /// Of the process that made it: a forked child has none of its parent's roles.
    generation: u32,
    /// What the last holder left, if it is no longer held.
    left: Option<Rest>,
}

/// What a sender could not hand over.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) pidfd: OwnedFd,
    pub(super) words: Vec<u64>,
}

/// A role, until dropped.
#[derive(Debug)]
pub(super) struct Claim {
    role: Role,
    signal: i32,
    generation: u32,
    /// What the last holder left.
    left: Option<Rest>,
}

impl Claim {
    /// None if it is taken.
    pub(super) fn take(role: Role, signal: i32) -> io::Result<Option<Self>> {
        let generation = fork::enter();
        let mut entries = entries().ok_or(io::ErrorKind::Deadlock)?;
        // A rest is of no use when its target is gone.
        entries.retain(|entry| {
            let is_useless = |rest: &Rest| descriptor::is_ready(rest.pidfd.as_fd(), Ready::Read).unwrap_or(true);
            entry.generation == generation && !entry.left.as_ref().is_some_and(is_useless)
        });
        let mut left = None;
        if let Some(at) = entries.iter().position(|entry| entry.role == role && entry.signal == signal) {
            left = entries.swap_remove(at).left;
            if left.is_none() {
                entries.push(Entry { role, signal, generation, left });
                return Ok(None);
            }
        }
        entries.push(Entry { role, signal, generation, left: None });
        Ok(Some(Self { role, signal, generation, left }))
    }

    /// What the last holder left, once.
    pub(super) fn take_rest(&mut self) -> Vec<u64> {
        self.left.take().map_or_else(Vec::new, |rest| rest.words)
    }

    /// Leaves words to the next holder.
    pub(super) fn leave(&mut self, rest: Rest) {
        self.left = Some(rest);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !fork::is_current(self.generation) {
            return;
        }
        let Some(mut entries) = entries() else { return };
        let own = entries.iter().position(|entry| entry.role == self.role && entry.signal == self.signal);
        if let Some(at) = own {
            match self.left.take() {
                Some(rest) => entries[at].left = Some(rest),
                None => drop(entries.swap_remove(at)),
            }
        }
    }
}

/// None if a thread that this process doesn't have, because it was forked, holds them for ever.
fn entries() -> Option<MutexGuard<'static, Vec<Entry>>> {
    let deadline = clock::now().saturating_add(PATIENCE);
    let mut pauses = Pauses::new();
    loop {
        match ENTRIES.try_lock() {
            Ok(entries) => return Some(entries),
            // Each change is a single step.
            Err(TryLockError::Poisoned(poisoned)) => return Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) if !pauses.pause(deadline) => return None,
            Err(TryLockError::WouldBlock) => {}
        }
    }
}
