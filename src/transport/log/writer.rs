//! Appending to a log.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use super::super::feed::READ;
use super::super::frame::{Frame, Identity, Kind, LONGEST};
use super::super::outbox::{DEFAULT_LONGEST, source_number};
use super::super::outlet::{LINGER, Outlet};
use super::super::plan::Pauses;
use super::super::sender::Outgoing;
use super::PRESENCE;
use super::record::{self, Found, HEAD, Head, Window};
use crate::channel::{PeerState, SendError};
use crate::sys::epoll::Epoll;
use crate::sys::record_lock::{try_lock_exclusive, unlock};
use crate::sys::{clock, ofd, record_lock};

/// How much a batch collects before it is appended.
const BATCH: usize = 64 << 10;

/// A sender's end.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    lock: record_lock::Kind,
    /// The number of the log.
    log: u32,
    max: usize,
    source: u32,
    sequence: u64,
    /// Where the valid records end, as far as is known.
    valid: u64,
    /// What others have appended is checked by this.
    window: Window,
    /// What has been sent and not been appended.
    staged: Vec<u8>,
    records: Vec<Record>,
    pauses: Pauses,
}

/// A record among what is staged.
#[derive(Clone, Copy, Debug)]
struct Record {
    end: usize,
    is_message: bool,
}

impl Writer {
    /// `file` is open for reading and writing, and locked as present.
    pub(super) fn new(file: File, head: Head, max: Option<usize>, hello: Identity) -> io::Result<Self> {
        let mut writer = Self {
            file,
            lock: head.lock,
            log: head.id,
            max: max.unwrap_or(DEFAULT_LONGEST).min(LONGEST),
            source: source_number(),
            sequence: 0,
            valid: HEAD as u64,
            window: Window::new(READ, head.id),
            staged: Vec::new(),
            records: Vec::new(),
            pauses: Pauses::new(),
        };
        // Without the lock as far as it goes, lest a long log keeps the others waiting: valid records never change.
        while let Found::Record { end, .. } = writer.window.next(&writer.file, writer.valid)? {
            writer.valid = end;
        }
        writer.stage(Frame::control(Kind::Hello, writer.source, 0, Identity::BYTES), &hello.encode());
        Ok(writer)
    }

    /// Appends the hello; if another writer has the lock, it goes with the first message.
    pub(super) fn greet(&mut self) -> Result<(), SendError> {
        match self.append() {
            Err(SendError::Full) => Ok(()),
            outcome => outcome,
        }
    }

    /// Where the valid records end, as far as is known.
    pub(super) fn valid(&self) -> u64 {
        self.valid
    }

    fn stage(&mut self, frame: Frame, payload: &[u8]) {
        record::stage(&mut self.staged, self.log, &frame, payload);
        self.records.push(Record { end: self.staged.len(), is_message: frame.kind == Kind::Data });
    }

    fn stage_message(&mut self, message: Outgoing<'_>) {
        let length = message.payload.len() as u32;
        let (source, sequence) = (self.source, self.sequence);
        let kind = Kind::Data;
        self.stage(
            Frame { kind, length, tag: message.tag, total: length, offset: 0, source, sequence },
            message.payload,
        );
        self.sequence += 1;
    }

    /// Appends what is staged, if nobody else has the lock.
    fn append(&mut self) -> Result<(), SendError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        if !try_lock_exclusive(self.lock, &self.file).map_err(explain)? {
            return Err(SendError::Full);
        }
        let outcome = self.append_locked();
        // It can't fail on a descriptor that was locked; and if it did, the next attempt would tell.
        let _ = unlock(self.lock, &self.file);
        outcome
    }

    fn append_locked(&mut self) -> Result<(), SendError> {
        self.pauses.reset();
        let size = self.file.metadata().map_err(explain)?.len();
        if size != self.valid {
            self.catch_up(size)?;
        }
        let (written, outcome) = match record::write_at(&self.file, &self.staged, self.valid) {
            Ok(written) if written == self.staged.len() => (written, Ok(())),
            // On a file that is what running out of space looks like, if some of it went.
            Ok(written) => (written, Err(SendError::Os { errno: libc::ENOSPC })),
            Err(e) => (0, Err(explain(e))),
        };
        // Whole records stay, as somebody may have read them already.
        let whole = self.records.iter().rev().map(|record| record.end).find(|&end| end <= written).unwrap_or(0);
        self.valid += whole as u64;
        if outcome.is_err() {
            // If that fails, too, the rest is a torn tail, which no reader takes and the next append cuts off.
            let _ = self.file.set_len(self.valid);
        }
        self.forget(whole);
        outcome
    }

    /// Goes over what others have appended, and cuts off what one of them was killed in. Under the lock.
    #[cold]
    fn catch_up(&mut self, size: u64) -> Result<(), SendError> {
        self.window.clear();
        loop {
            match self.window.next(&self.file, self.valid).map_err(explain)? {
                Found::Record { end, .. } | Found::Damaged { end } => self.valid = end,
                Found::Unfinished if size >= self.valid => break,
                // Somebody shortened it: what was read is not what is there.
                Found::Unfinished | Found::Ruined => return Err(SendError::Poisoned),
            }
        }
        if size <= self.valid {
            return Ok(());
        }
        // No kill leaves records behind what it tore: then it is damage that only looks so.
        if record::hides_records(&self.file, self.log, self.valid, size).map_err(explain)? {
            return Err(SendError::Poisoned);
        }
        self.file.set_len(self.valid).map_err(explain)
    }

    /// The first `length` bytes of what is staged are done with.
    fn forget(&mut self, length: usize) {
        if length == self.staged.len() {
            self.staged.clear();
            self.records.clear();
            return;
        }
        self.staged.drain(..length);
        self.records.retain(|record| record.end > length);
        for record in &mut self.records {
            record.end -= length;
        }
    }

    /// Takes back messages that are staged, from the last one, as if they had never been sent; says how many.
    fn unstage(&mut self, most: usize) -> usize {
        let mut count = 0;
        while count < most && self.records.pop_if(|record| record.is_message).is_some() {
            count += 1;
        }
        self.staged.truncate(self.records.last().map_or(0, |record| record.end));
        self.sequence -= count as u64;
        count
    }
}

fn explain(error: io::Error) -> SendError {
    SendError::Os { errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

impl Outlet for Writer {
    fn max_message(&self) -> usize {
        self.max
    }

    fn check(&self, length: usize, _tag: u32) -> Result<(), SendError> {
        if length > self.max { Err(SendError::TooLarge { max: self.max }) } else { Ok(()) }
    }

    fn try_send(&mut self, message: Outgoing<'_>) -> Result<u64, SendError> {
        self.check(message.payload.len(), message.tag)?;
        let sequence = self.sequence;
        self.stage_message(message);
        match self.append() {
            Ok(()) => Ok(sequence),
            Err(error) => {
                self.unstage(1);
                Err(error)
            }
        }
    }

    fn add(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        self.check(message.payload.len(), message.tag)?;
        if self.staged.len() >= BATCH {
            self.append()?;
        }
        self.stage_message(message);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.append()
    }

    fn give_up(&mut self) -> usize {
        self.unstage(usize::MAX)
    }

    /// No kind of file lock has a wait with a deadline, hence the pauses.
    fn wait(&mut self, deadline: Duration) -> Result<(), SendError> {
        self.pauses.pause(deadline);
        Ok(())
    }

    fn end(&mut self) -> Option<SendError> {
        None
    }

    fn must_look(&self) -> bool {
        false
    }

    /// No kind of file lock can be polled.
    fn watch(&mut self, _epoll: &Epoll) -> io::Result<bool> {
        Ok(false)
    }

    fn peer(&self) -> PeerState {
        PeerState::Unknown
    }

    fn close(&mut self) {
        self.stage(Frame::control(Kind::Goodbye, self.source, self.sequence, 0), &[]);
        let deadline = clock::now().saturating_add(LINGER);
        while let Err(SendError::Full) = self.append() {
            if !self.pauses.pause(deadline) {
                break;
            }
        }
        // A forked child may share the description, and the lock with it.
        let _ = ofd::unlock(&self.file, PRESENCE);
        // Unlocking is no event that wakes readers; this is, where the file is the user's own.
        let _ = self.file.set_modified(SystemTime::now());
    }
}
