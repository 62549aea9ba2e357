//! Reading a log, as far as it has come.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::super::frame::{Frame, Kind, Malformed};
use super::super::inlet::Inlet;
use super::super::receiver::Delivery;
use super::super::sources::{Sources, Taken};
use super::PRESENCE;
use super::position::Position;
use super::record::{Found, HEAD, Head, Window, hides_records};
use crate::channel::{PeerState, RecvError};
use crate::sys::descriptor::{self, Ready};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::inotify::Watch;
use crate::sys::ofd;
use crate::sys::record_lock::{self, try_lock_shared, unlock};

/// A receiver's end.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// What keeps writers out.
    lock: record_lock::Kind,
    /// The number of the log.
    log: u32,
    max: usize,
    watch: Watch,
    /// Whether its events are polled for, outside of here.
    is_watched: bool,
    /// Events were taken, and what was read since has not come to its end.
    has_unshown: bool,
    window: Window,
    /// Where the current message begins, and where the next record does.
    begin: u64,
    at: u64,
    position: Option<Position>,
    /// What lies before it may have been handed to the last receiver of that name, which died.
    redelivered: u64,
    sources: Sources,
    current: Range<usize>,
    delivery: Delivery,
    is_put_back: bool,
    /// The last record is a goodbye: whoever else has died, did so before.
    is_left: bool,
    /// No writer was there at the last look, since which nothing was read.
    is_deserted: bool,
    is_ruined: bool,
    /// There was something behind what was read, at the last look.
    is_tail_suspect: bool,
    /// The tail that was found to be torn: where it begins and ends.
    torn: Range<u64>,
}

impl Reader {
    /// `position` comes with whether its last receiver died.
    pub(super) fn new(
        file: File,
        head: Head,
        max: usize,
        watch: Watch,
        position: Option<(Position, bool)>,
    ) -> io::Result<Self> {
        let has_died = position.as_ref().is_some_and(|(_, has_died)| *has_died);
        let position = position.map(|(position, _)| position);
        let at = position.as_ref().map_or(HEAD as u64, Position::at);
        Ok(Self {
            // A lock that belongs to the process could be a writer's of this process, which this must not end.
            lock: if head.lock == record_lock::Kind::Fcntl { record_lock::Kind::Ofd } else { head.lock },
            log: head.id,
            max,
            watch,
            is_watched: false,
            has_unshown: false,
            window: Window::new(max, head.id),
            begin: at,
            at,
            position,
            redelivered: if has_died { file.metadata()?.len() } else { 0 },
            sources: Sources::new(max, false),
            current: 0..0,
            delivery: Delivery::default(),
            is_put_back: false,
            is_left: false,
            is_deserted: false,
            is_ruined: false,
            is_tail_suspect: false,
            torn: 0..0,
            file,
        })
    }

    fn take(&mut self, frame: &Frame, payload: &Range<usize>) -> Taken {
        let bytes = self.window.payload(payload);
        match self.sources.take(frame, bytes, 0) {
            Ok(taken) => taken,
            // A whole frame fails only for too many senders, of which those that were killed long ago may never have been found
            // out. Whoever lives is heard of anew.
            Err(Malformed) => {
                self.sources.end_connection(0);
                self.sources.take(frame, bytes, 0).unwrap_or(Taken::Nothing)
            }
        }
    }

    /// What doesn't seem to be valid, looked at while no writer can be in the middle of it.
    #[cold]
    fn look_again(&mut self) -> Result<Found, RecvError> {
        if !try_lock_shared(self.lock, &self.file).map_err(explain)? {
            return Err(RecvError::Empty);
        }
        self.window.clear();
        let found = self.window.next(&self.file, self.at);
        // It can't fail on a descriptor that was locked.
        let _ = unlock(self.lock, &self.file);
        found.map_err(explain)
    }

    /// Whether what seems to be a torn tail is damage, which keeps writers from cutting it off.
    #[cold]
    fn has_damaged_tail(&mut self) -> io::Result<bool> {
        if !try_lock_shared(self.lock, &self.file)? {
            return Ok(false);
        }
        let outcome = self.look_into_tail();
        // It can't fail on a descriptor that was locked.
        let _ = unlock(self.lock, &self.file);
        outcome
    }

    /// Under the lock. Goes over each tail once.
    fn look_into_tail(&mut self) -> io::Result<bool> {
        let tail = self.at..self.file.metadata()?.len();
        self.window.clear();
        if tail == self.torn || self.window.next(&self.file, self.at)? != Found::Unfinished {
            return Ok(false);
        }
        let is_damaged = hides_records(&self.file, self.log, tail.start, tail.end)?;
        self.torn = tail;
        Ok(is_damaged)
    }

    /// The next message, if there is one.
    fn read_on(&mut self) -> Result<Option<Delivery>, RecvError> {
        loop {
            if self.is_ruined {
                return Err(RecvError::Poisoned);
            }
            let found = match self.window.next(&self.file, self.at).map_err(explain)? {
                Found::Damaged { .. } | Found::Ruined => self.look_again()?,
                found => found,
            };
            match found {
                Found::Unfinished => return Ok(None),
                Found::Ruined => self.is_ruined = true,
                Found::Damaged { end } | Found::Record { payload: None, end, .. } => {
                    (self.begin, self.at) = (end, end);
                    return Err(RecvError::Malformed);
                }
                Found::Record { frame, payload: Some(payload), end } => {
                    (self.begin, self.at) = (self.at, end);
                    self.is_deserted = false;
                    self.is_left = frame.kind == Kind::Goodbye;
                    if let Taken::Whole(delivery) = self.take(&frame, &payload) {
                        self.current = payload;
                        self.delivery = Delivery { redelivered: self.begin < self.redelivered, ..delivery };
                        return Ok(Some(self.delivery));
                    }
                }
            }
        }
    }

    /// There is nothing more to read: why.
    #[cold]
    fn end(&mut self) -> RecvError {
        if std::mem::take(&mut self.is_tail_suspect) {
            match self.has_damaged_tail() {
                Ok(false) => {}
                Ok(true) => {
                    self.is_ruined = true;
                    return RecvError::Poisoned;
                }
                Err(e) => return explain(e),
            }
        }
        if self.is_deserted {
            self.sources.end_connection(0);
        }
        self.sources.bury();
        if self.sources.has_any() {
            return RecvError::Empty;
        }
        // Somebody may be there who has said nothing since this reader's position.
        match ofd::is_locked(&self.file, PRESENCE) {
            Ok(true) => RecvError::Empty,
            Ok(false) => {
                self.sources.tell_end().unwrap_or(if self.is_left { RecvError::Closed } else { RecvError::Empty })
            }
            Err(e) => explain(e),
        }
    }
}

fn explain(error: io::Error) -> RecvError {
    RecvError::Os { errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

impl Inlet for Reader {
    fn max_message(&self) -> usize {
        self.max
    }

    fn try_take(&mut self, _many: bool) -> Result<Delivery, RecvError> {
        if self.is_put_back {
            self.is_put_back = false;
            return Ok(self.delivery);
        }
        let is_nothing = |found: &_| matches!(found, Ok(None) | Err(RecvError::Empty));
        let mut found = self.read_on();
        if self.is_watched && is_nothing(&found) {
            // Before the file is read once more: what comes from now on is another event.
            self.watch.drain().map_err(explain)?;
            found = self.read_on();
            self.has_unshown = !is_nothing(&found);
        }
        found?.ok_or_else(|| self.end())
    }

    fn has_retry(&self) -> bool {
        true
    }

    fn retry_take(&mut self, _many: bool) -> Result<Delivery, RecvError> {
        self.read_on()?.ok_or(RecvError::Empty)
    }

    fn payload(&self) -> &[u8] {
        self.window.payload(&self.current)
    }

    fn put_back(&mut self) {
        self.is_put_back = true;
    }

    fn release(&mut self) {
        let done = if self.is_put_back { self.begin } else { self.at };
        if let Some(position) = &mut self.position {
            // If it can't be written, they come again after a restart: that is the safe side.
            let _ = position.advance(done);
        }
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), RecvError> {
        if descriptor::wait_one(self.watch.as_fd(), Ready::Read, Some(deadline)).map_err(explain)? {
            // Before the file is read: what comes from now on is another event.
            self.watch.drain().map_err(explain)?;
            self.has_unshown = true;
        }
        Ok(())
    }

    fn look(&mut self) {
        self.sources.suspect();
        self.is_deserted = matches!(ofd::is_locked(&self.file, PRESENCE), Ok(false));
        let size = self.file.metadata().map_or(self.at, |metadata| metadata.len());
        self.is_ruined |= size < self.at;
        self.is_tail_suspect = size > self.at;
    }

    /// The death of a writer is no event, nor is damage.
    fn must_look(&self) -> bool {
        true
    }

    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool> {
        epoll.add(self.watch.as_fd(), Interest::READ, 0)?;
        self.is_watched = true;
        Ok(true)
    }

    fn has_hidden(&self) -> bool {
        self.is_put_back || self.has_unshown
    }

    fn select(&mut self, _tag: Option<u32>) -> bool {
        false
    }

    fn peer(&self) -> PeerState {
        self.sources.peer()
    }

    fn close(&mut self) {
        if let Some(position) = &mut self.position {
            position.leave();
        }
    }
}
