//! The sending end.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use super::roles::{Claim, Rest};
use super::target::{Readiness, Target};
use super::word::{self, Header};
use crate::channel::{PeerState, SendError};
use crate::sys::clock;
use crate::sys::epoll::Epoll;
use crate::sys::signal::Origin;
use crate::transport::frame::Identity;
use crate::transport::outlet::{LINGER, Outlet};
use crate::transport::plan::Pauses;
use crate::transport::sender::Outgoing;
use crate::wait::SLICE;

/// How many words a batch collects before it is handed over.
const BATCH: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct SignalOutlet {
    target: Target,
    claim: Claim,
    origin: Origin,
    max: usize,
    sequence: u64,
    /// What has been sent and not been handed over.
    staged: Vec<u64>,
    /// How much of it has been handed over meanwhile.
    done: usize,
    /// Where each message of a batch lies in it.
    batch: Vec<Range<usize>>,
    peer: PeerState,
    /// When it was last made sure that the signal kills nobody, by the coarse clock.
    checked: u64,
    pauses: Pauses,
    /// Whether there was no room. A dead process has room again, in which everything is lost.
    was_full: bool,
}

impl SignalOutlet {
    /// `target` was found ready just now.
    pub(super) fn new(target: Target, mut claim: Claim, max: usize, identity: Identity) -> Self {
        // First what an earlier sender of this process could not finish.
        let mut staged = claim.take_rest();
        staged.push(Header::Hello.encode());
        word::push(&mut staged, &identity.encode());
        Self {
            peer: PeerState::Alive { pid: target.pid },
            target,
            claim,
            origin: Origin::this(),
            max,
            sequence: 0,
            staged,
            done: 0,
            batch: Vec::new(),
            checked: clock::coarse_ns(),
            pauses: Pauses::new(),
            was_full: false,
        }
    }

    /// Says hello; without room that goes with the first message.
    pub(super) fn greet(&mut self) -> Result<(), SendError> {
        self.hand_over()
    }

    fn stage(&mut self, message: Outgoing<'_>) {
        let header = Header::Message { length: message.payload.len() as u32, tag: message.tag };
        self.staged.push(header.encode());
        word::push(&mut self.staged, message.payload);
        self.sequence += 1;
    }

    /// Drops what is staged from `length` on, as if it had never been sent.
    fn unstage(&mut self, length: usize, messages: usize) {
        self.staged.truncate(length);
        self.sequence -= messages as u64;
    }

    /// Hands over what is staged.
    fn hand_over(&mut self) -> Result<(), SendError> {
        if self.was_full && self.target.is_dead() {
            return Err(self.has_died());
        }
        self.was_full = false;
        while let Some(&word) = self.staged.get(self.done) {
            self.check_target()?;
            self.origin.queue(self.target.pidfd(), self.target.signal, word).map_err(|e| self.explain(&e))?;
            self.done += 1;
            self.pauses.reset();
        }
        self.staged.clear();
        self.batch.clear();
        self.done = 0;
        Ok(())
    }

    /// Makes sure, once per slice, that the signal kills nobody. A process that has died takes signals until it is reaped.
    #[inline]
    fn check_target(&mut self) -> Result<(), SendError> {
        let now = clock::coarse_ns();
        let is_alive = matches!(self.peer, PeerState::Alive { .. });
        if is_alive && now < self.checked + SLICE.as_nanos() as u64 { Ok(()) } else { self.check_again(now) }
    }

    #[cold]
    fn check_again(&mut self, now: u64) -> Result<(), SendError> {
        match self.target.readiness() {
            Ok(Readiness::Ready) => {
                self.checked = now;
                Ok(())
            }
            Ok(Readiness::Unsure) => Err(SendError::Full),
            // It no longer receives, or has become another program.
            Ok(Readiness::Unprepared { .. } | Readiness::Ignored) => Err(SendError::Closed),
            Ok(Readiness::Dead) => Err(self.has_died()),
            Err(e) => Err(self.explain(&e)),
        }
    }

    fn explain(&mut self, error: &io::Error) -> SendError {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => {
                self.was_full = true;
                SendError::Full
            }
            Some(libc::ESRCH) => self.has_died(),
            errno => SendError::Os { errno: errno.unwrap_or(libc::EIO) },
        }
    }

    fn has_died(&mut self) -> SendError {
        match self.peer {
            // It was told of once.
            PeerState::Dead { .. } => SendError::Closed,
            _ => {
                self.peer = PeerState::Dead { pid: self.target.pid };
                SendError::PeerDied
            }
        }
    }
}

impl Outlet for SignalOutlet {
    fn max_message(&self) -> usize {
        self.max
    }

    #[inline]
    fn check(&self, length: usize, _tag: u32) -> Result<(), SendError> {
        if length > self.max { Err(SendError::TooLarge { max: self.max }) } else { Ok(()) }
    }

    fn try_send(&mut self, message: Outgoing<'_>) -> Result<u64, SendError> {
        self.check(message.payload.len(), message.tag)?;
        self.flush()?;
        let sequence = self.sequence;
        self.stage(message);
        match self.hand_over() {
            // As long as nothing of it has gone, it can be taken back.
            Err(error) if self.done == 0 => {
                self.unstage(0, 1);
                Err(error)
            }
            Ok(()) | Err(SendError::Full) => Ok(sequence),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        self.check(message.payload.len(), message.tag)?;
        if self.staged.len() >= BATCH {
            self.hand_over()?;
        }
        let start = self.staged.len();
        self.stage(message);
        self.batch.push(start..self.staged.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.hand_over()
    }

    fn give_up(&mut self) -> usize {
        let kept = match self.batch.iter().find(|message| message.end > self.done) {
            None => self.staged.len(),
            // The rest of a message of which a part has gone must follow.
            Some(message) if message.start < self.done => message.end,
            Some(message) => message.start,
        };
        let lost = self.batch.iter().filter(|message| message.end > kept).count();
        self.batch.clear();
        self.unstage(kept, lost);
        lost
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), SendError> {
        self.pauses.pause(deadline);
        Ok(())
    }

    fn end(&mut self) -> Option<SendError> {
        self.target.is_dead().then(|| self.has_died())
    }

    fn must_look(&self) -> bool {
        true
    }

    /// The kernel tells nobody that there is room.
    fn watch(&mut self, _epoll: &Epoll) -> io::Result<bool> {
        Ok(false)
    }

    fn peer(&self) -> PeerState {
        self.peer
    }

    fn close(&mut self) {
        self.staged.push(Header::Goodbye.encode());
        let deadline = clock::now().saturating_add(LINGER);
        let mut outcome = self.hand_over();
        while outcome == Err(SendError::Full) && clock::now() < deadline && self.wait(deadline).is_ok() {
            outcome = self.hand_over();
        }
        if outcome == Err(SendError::Full)
            && let Ok(pidfd) = self.target.pidfd().as_fd().try_clone_to_owned()
        {
            let words = self.staged.split_off(self.done);
            self.claim.leave(Rest { pidfd, words });
        }
    }
}
