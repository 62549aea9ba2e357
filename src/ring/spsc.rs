//! The single-producer single-consumer byte ring.
//!
//! Records are contiguous and 8-aligned: a header word, then the payload. The header is the truth: one store of it
//! publishes, nothing else has to be read to receive and nothing else is needed to recover. Positions count bytes since
//! the ring began and never wrap in practice (2^64); a position's place in the ring is its remainder by the capacity.
//!
//! # Who writes what
//! The producer alone writes the words of the ring. The consumer alone writes the [`Cursor`].
//!
//! # Why it is correct
//! *Invariant (end word)*: whenever a header is published, the word behind its record is 0. So the words from `released`
//! on form a chain of valid headers that ends at the producer's position, and stale payload is never taken for a header,
//! whatever its bytes are: a reader only looks at the word where the chain has led it, and that is either a header or 0.
//! The producer stores the 0 before it publishes (P1 before P2) and is the only one to write there, so nobody can
//! interfere between; the room for it is part of each reservation, so it never falls on an unreleased record.
//!
//! *Publication*: P2, Release, pairs with C1, Acquire: who sees the header sees the payload and the end word.
//! A record that does not fit into the rest of a lap starts the next one: its own header is written first (P1), then
//! the pad before it is published (P2). A batch writes the headers of its later records first and the first one's last,
//! which is the publication of them all.
//!
//! *Reuse*: C2, Release, pairs with P3, Acquire: the consumer's reads of a record come before the producer's writes over it.
//!
//! *Kill*: a producer killed before P2 has published nothing: the word at its position is still the 0 that ended the last
//! record, and its successor walks there from `released`. After P2 all of it is published. A consumer stores `taken` before
//! it hands a record out and `released` after, so its successor knows both what was certainly processed and what perhaps was.
//!
//! The shape is that of Aeron's and BBQueue's records (length first, padding at the end of a lap), without a tail index;
//! the cached opposite position is Lamport's queue as improved by FastForward, MCRingBuffer and rtrb.

use super::Violation;
use super::record::{HEADER, Header, stride};
use crate::primitive::{AtomicU64, Ordering};

// Each ordering that carries the argument above has a mutant that loom must catch.
const PUBLISH: Ordering = if cfg!(ringway_mutant = "publish_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const RECEIVE: Ordering = if cfg!(ringway_mutant = "receive_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
const RELEASE: Ordering = if cfg!(ringway_mutant = "release_relaxed") { Ordering::Relaxed } else { Ordering::Release };
const REFRESH: Ordering = if cfg!(ringway_mutant = "refresh_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };

/// No ring gets here, so that arithmetic on positions that come from its memory can't overflow.
const BEYOND: u64 = 1 << 63;

/// What the consumer writes, on a line of its own.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Cursor {
    /// Behind the last record that was handed out.
    pub taken: AtomicU64,
    /// Behind the last record that was given back: its bytes may be overwritten.
    pub released: AtomicU64,
}

/// Where a ring's words live.
pub trait Words {
    /// The word of the ring at `position`, a multiple of 8.
    fn word(&self, position: u64) -> &AtomicU64;
    /// The consumer's positions.
    fn cursor(&self) -> &Cursor;
}

/// The size of a ring and of its messages, in bytes. The capacity is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the ring.
    pub capacity: u64,
    /// The longest message.
    pub max_message: u64,
}

impl Bounds {
    /// From `position` to the end of its lap.
    fn lap_rest(self, position: u64) -> u64 {
        self.capacity - (position & (self.capacity - 1))
    }

    /// A record's stride, if a correct producer could have written one of that length at `position`.
    fn stride_at(self, position: u64, length: u64) -> Option<u64> {
        let stride = stride(length);
        (length <= self.max_message && stride <= self.lap_rest(position)).then_some(stride)
    }
}

/// Room for one message, not yet visible to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    start: u64,
    length: u64,
}

impl Reservation {
    /// The position of the header; the payload follows it.
    #[inline(always)]
    pub fn position(self) -> u64 {
        self.start
    }

    /// Bytes of payload that were asked for.
    #[inline(always)]
    pub fn length(self) -> u64 {
        self.length
    }
}

/// A published message.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The position of its header, which the payload follows: unique and increasing over the life of the ring.
    pub position: u64,
    header: Header,
    /// Behind its last byte: release to here.
    pub end: u64,
}

impl Record {
    /// Bytes of payload.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        self.header.length()
    }

    /// The sender's tag.
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        self.header.tag()
    }
}

/// The producer's end.
#[derive(Debug)]
pub struct Writer<W> {
    words: W,
    bounds: Bounds,
    /// Where the next header goes.
    position: u64,
    /// `released` as last read, plus the capacity: nothing is written from here on.
    limit: u64,
    /// A record that ends here or before fits as it is: into the room known of, and into the lap of `position`. Never too
    /// high, often too low: then the slow path finds out.
    fits_until: u64,
    /// In a batch, the position and the word whose store will publish it.
    unpublished: Option<(u64, u64)>,
}

impl<W: Words> Writer<W> {
    /// Takes up a ring where the last producer left it. There must be no other producer.
    ///
    /// Walks the published records, at most a whole ring.
    ///
    /// # Errors
    /// [`Violation`] if no correct producer can have left the ring so.
    pub fn resume(words: W, bounds: Bounds) -> Result<Self, Violation> {
        // P3, for what the consumer gave back before we came.
        let released = words.cursor().released.load(REFRESH);
        let position = walk(&words, bounds, released, |_| {})?;
        let limit = released + bounds.capacity;
        Ok(Self { words, bounds, position, limit, fits_until: 0, unpublished: None })
    }

    /// Where the next header goes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Finds room for `length` bytes, at most `max_message`. `None` is Full, as of now.
    ///
    /// # Errors
    /// [`Violation`] if the consumer's position can't be.
    #[inline(always)]
    pub fn reserve(&mut self, length: u64) -> Result<Option<Reservation>, Violation> {
        // One comparison for the room and the lap: the fewer instructions, the more messages are in flight in the processor
        // while it waits for their cache lines.
        if self.position + stride(length) <= self.fits_until {
            return Ok(Some(Reservation { start: self.position, length }));
        }
        self.reserve_slowly(length)
    }

    #[inline(never)]
    fn reserve_slowly(&mut self, length: u64) -> Result<Option<Reservation>, Violation> {
        let stride = stride(length);
        let rest = self.bounds.lap_rest(self.position);
        let start = if stride <= rest { self.position } else { self.position + rest };
        // The end word is part of the room.
        let end = start + stride + HEADER;
        if end > self.limit && !self.refresh(end)? {
            return Ok(None);
        }
        self.fits_until = (self.limit - HEADER).min(self.position + rest);
        Ok(Some(Reservation { start, length }))
    }

    /// Reads how far the consumer is. Says whether there is now room up to `end`.
    fn refresh(&mut self, end: u64) -> Result<bool, Violation> {
        // P3, pairs with C2.
        let released = self.words.cursor().released.load(REFRESH);
        let limit = released.wrapping_add(self.bounds.capacity);
        if released > self.position || limit < self.limit || !released.is_multiple_of(HEADER) {
            return Err(Violation);
        }
        self.limit = limit;
        Ok(end <= limit)
    }

    /// Publishes the reserved message, cut to its first `used` bytes.
    #[inline(always)]
    pub fn commit(&mut self, reservation: Reservation, used: u64, tag: u32) -> u64 {
        let Reservation { start, length } = reservation;
        let used = used.min(length);
        let header = Header::message(used, tag);
        let end = start + stride(used);
        // P1: the end word, and behind a pad the header; both are published by P2.
        if !cfg!(ringway_mutant = "no_end_word") {
            self.words.word(end).store(Header::END, Ordering::Relaxed);
        }
        if start == self.position {
            // P2, pairs with C1.
            self.words.word(start).store(header, PUBLISH);
        } else {
            self.commit_behind_pad(start, header);
        }
        self.position = end;
        start
    }

    #[inline(never)]
    fn commit_behind_pad(&mut self, start: u64, header: u64) {
        if cfg!(ringway_mutant = "pad_first") {
            self.words.word(self.position).store(Header::PADDING, PUBLISH);
            self.words.word(start).store(header, PUBLISH);
            return;
        }
        // P1.
        self.words.word(start).store(header, Ordering::Relaxed);
        // P2, pairs with C1.
        self.words.word(self.position).store(Header::PADDING, PUBLISH);
    }

    /// Finishes the reserved message without publishing it: [`publish`](Self::publish) does, for all of a batch.
    #[inline(always)]
    pub fn commit_in_batch(&mut self, reservation: Reservation, used: u64, tag: u32) -> u64 {
        let Reservation { start, length } = reservation;
        let used = used.min(length);
        let header = Header::message(used, tag);
        // P1 for all but the word that will publish.
        let opening = if start == self.position {
            header
        } else {
            self.words.word(start).store(header, Ordering::Relaxed);
            Header::PADDING
        };
        match self.unpublished {
            None if !cfg!(ringway_mutant = "batch_head_early") => self.unpublished = Some((self.position, opening)),
            _ => self.words.word(self.position).store(opening, Ordering::Relaxed),
        }
        self.position = start + stride(used);
        start
    }

    /// Publishes what was committed in the batch, all at once, and says whether there was any.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some((first, opening)) = self.unpublished.take() else { return false };
        // P1.
        self.words.word(self.position).store(Header::END, Ordering::Relaxed);
        // P2, pairs with C1.
        self.words.word(first).store(opening, PUBLISH);
        true
    }

    /// The words of the ring.
    #[inline(always)]
    pub fn words(&self) -> &W {
        &self.words
    }

    /// Forgets what was committed in the batch. The word at its start is still the 0 that ended what came before.
    pub fn abandon(&mut self) {
        if let Some((first, _)) = self.unpublished.take() {
            self.position = first;
            // It may have been found for a later lap.
            self.fits_until = 0;
        }
    }
}

/// Where a new consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At the first message that the last consumer did not give back: at least once.
    Released,
    /// At the first message that it was not handed: at most once.
    Taken,
}

/// Before the first message: fits into no lap, whatever the header.
const NONE_YET: (u32, u64) = (u32::MAX, 1 << 62);

/// The consumer's end.
#[derive(Debug)]
pub struct Reader<W> {
    words: W,
    bounds: Bounds,
    /// Where the next header is.
    position: u64,
    /// Where the lap of `position` ends, or `position` itself.
    lap_end: u64,
    /// The low half of the last header, which says that it is a message and how long, and its stride: the next message is
    /// likely to be as long. So one comparison tells all, and the next place doesn't wait for this header to arrive.
    usual: (u32, u64),
    /// What an earlier consumer was handed and did not give back ends here.
    redelivered_until: u64,
}

impl<W: Words> Reader<W> {
    /// Takes up a ring where the last consumer left it. There must be no other consumer.
    ///
    /// # Errors
    /// [`Violation`] if no correct consumer can have left the ring so.
    pub fn resume(words: W, bounds: Bounds, from: Resume) -> Result<Self, Violation> {
        // Relaxed: the lock that makes us the only consumer orders us behind our predecessor.
        let released = words.cursor().released.load(Ordering::Relaxed);
        let taken = words.cursor().taken.load(Ordering::Relaxed).max(released);
        if !(released | taken).is_multiple_of(HEADER) || taken - released > bounds.capacity || taken >= BEYOND {
            return Err(Violation);
        }
        let position = match from {
            Resume::Released => released,
            Resume::Taken => taken,
        };
        if position != released {
            // C2: nothing of ours reads what is skipped.
            words.cursor().released.store(position, RELEASE);
        }
        Ok(Self { words, bounds, position, lap_end: position, usual: NONE_YET, redelivered_until: taken })
    }

    /// Where the next header is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next message, if one is published, without taking it.
    ///
    /// # Errors
    /// [`Violation`] if the word can't be a header there.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Record>, Violation> {
        // C1, pairs with P2.
        let header = Header::from_word(self.words.word(self.position).load(RECEIVE));
        let (low, stride) = self.usual;
        let end = self.position + stride;
        if header.low() == low && end <= self.lap_end {
            return Ok(Some(Record { position: self.position, header, end }));
        }
        if !header.is_valid() {
            return Ok(None);
        }
        self.peek_slowly(header).map(Some)
    }

    #[inline(never)]
    fn peek_slowly(&mut self, mut header: Header) -> Result<Record, Violation> {
        let mut position = self.position;
        if header.is_pad() {
            position += self.bounds.lap_rest(position);
            // C1: the pad and the header behind it are published together.
            header = Header::from_word(self.words.word(position).load(RECEIVE));
            if !header.is_valid() || header.is_pad() {
                return Err(Violation);
            }
        }
        let stride = self.bounds.stride_at(position, header.length()).ok_or(Violation)?;
        self.usual = (header.low(), stride);
        self.lap_end = position + self.bounds.lap_rest(position);
        Ok(Record { position, header, end: position + stride })
    }

    /// Takes the next message, if one is published.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Record>, Violation> {
        let Some(record) = self.peek()? else { return Ok(None) };
        self.accept(&record);
        Ok(Some(record))
    }

    /// Takes the message that was just [`peek`](Self::peek)ed at.
    #[inline(always)]
    pub fn accept(&mut self, record: &Record) {
        // What was redelivered had been taken before.
        if record.end > self.redelivered_until {
            // Relaxed: only a successor reads it, and what a killed process stored is stored in program order.
            self.words.cursor().taken.store(record.end, Ordering::Relaxed);
        }
        self.position = record.end;
    }

    /// Makes the record at `position`, which was taken and not released, the next one again.
    pub fn rewind(&mut self, position: u64) {
        self.position = position;
        self.lap_end = position;
    }

    /// Looks with `find`, and if there is nothing and `ended` says that nothing will follow, once more.
    ///
    /// `ended` must acquire what the producer did before it ended; so the second look sees all that it published.
    ///
    /// # Errors
    /// Those of `find`.
    #[inline]
    pub fn find_or_end<T>(
        &mut self,
        find: impl Fn(&mut Self) -> Result<Option<T>, Violation>,
        ended: impl FnOnce() -> bool,
    ) -> Result<Next<T>, Violation> {
        if let Some(found) = find(self)? {
            return Ok(Next::Found(found));
        }
        if !ended() {
            return Ok(Next::Nothing);
        }
        if cfg!(ringway_mutant = "no_last_look") {
            return Ok(Next::End);
        }
        Ok(find(self)?.map_or(Next::End, Next::Found))
    }

    /// From a record to the next one of the same length, as it was last.
    pub fn usual_stride(&self) -> u64 {
        self.usual.1
    }

    /// The words of the ring.
    #[inline(always)]
    pub fn words(&self) -> &W {
        &self.words
    }

    /// Gives back all records that end at or before `end`, a [`Record::end`].
    #[inline]
    pub fn release(&self, end: u64) {
        // C2, pairs with P3.
        self.words.cursor().released.store(end, RELEASE);
    }

    /// Whether an earlier consumer may have processed the message at `position` already.
    #[inline]
    pub fn is_redelivered(&self, position: u64) -> bool {
        position < self.redelivered_until
    }
}

/// What the consumer will find next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// What it looked for.
    Found(T),
    /// Nothing yet.
    Nothing,
    /// Nothing, for good.
    End,
}

/// Whether every published message has been given back, as of now.
pub fn is_drained(words: &impl Words) -> bool {
    // Acquire, to see what was published before it was given back.
    let released = words.cursor().released.load(Ordering::Acquire);
    // C1.
    !Header::from_word(words.word(released).load(RECEIVE)).is_valid()
}

/// Follows the chain of published records from `position`, calls `visit` with each one's length, and returns where the
/// chain ends. Changes nothing. It is exact if producer and consumer stand still, else it may also end in a violation.
///
/// # Errors
/// [`Violation`] if the chain is broken or longer than the ring.
pub fn walk(words: &impl Words, bounds: Bounds, position: u64, mut visit: impl FnMut(u64)) -> Result<u64, Violation> {
    if !position.is_multiple_of(HEADER) || position >= BEYOND {
        return Err(Violation);
    }
    let end = position + bounds.capacity;
    let mut position = position;
    while position < end {
        // C1.
        let header = Header::from_word(words.word(position).load(RECEIVE));
        if !header.is_valid() {
            return Ok(position);
        }
        position += if header.is_pad() {
            bounds.lap_rest(position)
        } else {
            visit(header.length());
            bounds.stride_at(position, header.length()).ok_or(Violation)?
        };
    }
    // A full ring still has room for the word that ends it.
    Err(Violation)
}
