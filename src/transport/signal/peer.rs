//! A process that sends, as its receiver sees it.

use std::os::fd::{AsFd, OwnedFd};

use super::word::{HELLO, Header};
use crate::sys::descriptor::{self, Ready};
use crate::sys::process::{Fate, ProcessId};
use crate::transport::frame::Identity;

/// A process that sends.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) stage: Stage,
    /// The last words.
    pub(super) window: [u64; HELLO],
    /// Once it has said hello.
    pub(super) caller: Option<Caller>,
}

#[derive(Debug)]
pub(super) struct Caller {
    pub(super) process: ProcessId,
    /// None if there was none to be had.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) is_suspect: bool,
    /// Tells it from earlier ones of the same pid.
    pub(super) number: u64,
    pub(super) sequence: u64,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// What comes isn't understood; of a hello, this many words may have come.
    Stray {
        greeting: usize,
        is_told: bool,
    },
    Header,
    /// This many words of another hello are still to come.
    Hello {
        left: usize,
    },
    Message {
        length: usize,
        tag: u32,
        bytes: Vec<u8>,
    },
}

impl Caller {
    pub(super) fn is_dead(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => descriptor::is_ready(pidfd.as_fd(), Ready::Read).unwrap_or(false),
            None => self.process.fate() == Fate::Gone,
        }
    }
}

impl Peer {
    /// One that hasn't said hello.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, stage: Stage::Stray { greeting: 0, is_told: false }, window: [0; HELLO], caller: None }
    }

    /// Who says hello with the last words, if they are one.
    pub(super) fn greeting(&self) -> Option<ProcessId> {
        if self.window[0] != Header::Hello.encode() {
            return None;
        }
        let bytes = self.window[1..].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        Identity::decode(&bytes).map(|Identity(process)| process).filter(|process| process.pid == self.pid)
    }

    /// Whether such a hello is in its place here.
    pub(super) fn may_begin(&self, process: &ProcessId) -> bool {
        match (&self.stage, &self.caller) {
            (Stage::Stray { .. }, _) | (_, None) | (Stage::Hello { left: 1 }, _) => true,
            // Its pid is another's now, and so the rest of what it had begun will never come.
            (_, Some(caller)) => caller.process != *process && caller.is_dead(),
        }
    }
}
