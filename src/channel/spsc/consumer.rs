//! The consumer's end: receive, read in place, give back.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use crate::channel::PeerState;
use crate::channel::endpoint::{Gone, deadline_at, deadline_in};
use crate::channel::outcome::{PeerEvent, RecvError};
use crate::error;
use crate::layout::View;
use crate::ring::Violation;
use crate::ring::spsc::{Next, Reader, Record};
use crate::wait::{Backoff, Look, Pollable, Side, Watch, Watched};

/// The one that reads from a ring. Dropping it closes the ring for the producer.
#[derive(Debug)]
pub struct Consumer {
    reader: Reader<View>,
    end: Endpoint,
    backoff: Backoff,
}

impl Consumer {
    pub(in crate::channel) fn new(reader: Reader<View>, end: Endpoint, backoff: Backoff) -> Self {
        Self { reader, end, backoff }
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.end.bounds.capacity as usize
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.end.bounds.max_message as usize
    }

    /// The next message, if there is one now. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](RecvError::Empty), [`Closed`](RecvError::Closed), [`PeerDied`](RecvError::PeerDied),
    /// [`Fenced`](RecvError::Fenced) or [`Poisoned`](RecvError::Poisoned).
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<ReadGrant<'_>, RecvError> {
        let record = self.try_record()?;
        Ok(ReadGrant { consumer: self, record })
    }

    /// The next message; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), but not `Empty`.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<ReadGrant<'_>, RecvError> {
        let record = self.record(None)?;
        Ok(ReadGrant { consumer: self, record })
    }

    /// [`recv`](Self::recv) for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<ReadGrant<'_>, RecvError> {
        let record = self.record(Some(deadline_in(timeout)))?;
        Ok(ReadGrant { consumer: self, record })
    }

    /// [`recv`](Self::recv) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<ReadGrant<'_>, RecvError> {
        let record = self.record(Some(deadline_at(deadline)))?;
        Ok(ReadGrant { consumer: self, record })
    }

    /// Up to `max` messages that are there now, to be given back all at once. Never blocks.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_batch(&mut self, max: usize) -> Result<ReadBatch<'_>, RecvError> {
        self.end.check()?;
        if !matches!(self.reader.peek(), Ok(Some(_))) {
            self.look_closer(Reader::peek)?;
        }
        Ok(ReadBatch { consumer: self, left: max, taken: false })
    }

    /// Waits for a message, then yields up to `max` that are there.
    ///
    /// ```
    /// # use ringway::{Options, spsc};
    /// let (mut producer, mut consumer) = spsc::channel(&Options::new())?;
    /// producer.try_reserve(1)?.commit(1);
    /// producer.try_reserve(2)?.commit(2);
    /// let mut batch = consumer.recv_batch(32)?;
    /// let lengths: Vec<usize> = (&mut batch).into_iter().map(|message| message.len()).collect();
    /// assert_eq!(lengths, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn recv_batch(&mut self, max: usize) -> Result<ReadBatch<'_>, RecvError> {
        self.peek(None)?;
        Ok(ReadBatch { consumer: self, left: max, taken: false })
    }

    /// Who holds the other role, as the kernel knows it: costs system calls.
    pub fn peer(&self) -> PeerState {
        self.end.peer_status().into()
    }

    /// What has become of the producer and was not told here yet, one thing at a time; the first is that it is there. Never blocks, but
    /// costs system calls. Independent of what receiving tells.
    pub fn peer_event(&mut self) -> Option<PeerEvent> {
        self.end.peer_event()
    }

    /// A descriptor that is readable when there may be something to receive, or to tell of the producer.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the ring was made with [`Wait::Spin`](crate::Wait::Spin);
    /// [`NoSpace`](crate::ErrorKind::NoSpace) without descriptors or threads.
    pub fn pollable(&mut self) -> error::Result<Pollable> {
        Pollable::new(self.watch()?)
    }

    #[inline(always)]
    pub(crate) fn try_record(&mut self) -> Result<Record, RecvError> {
        self.end.check()?;
        match self.take() {
            Some(record) => Ok(record),
            None => self.look_closer(Reader::take),
        }
    }

    #[inline(always)]
    pub(crate) fn record(&mut self, deadline: Option<Duration>) -> Result<Record, RecvError> {
        self.end.check()?;
        match self.take() {
            Some(record) => Ok(record),
            None => self.wait_for(deadline, Reader::take),
        }
    }

    /// Waits for a message without taking it.
    #[inline(always)]
    pub(crate) fn peek(&mut self, deadline: Option<Duration>) -> Result<Record, RecvError> {
        self.end.check()?;
        match self.reader.peek() {
            Ok(Some(record)) => Ok(record),
            _ => self.wait_for(deadline, Reader::peek),
        }
    }

    /// Takes the message that was just peeked at.
    #[inline(always)]
    pub(crate) fn accept(&mut self, record: &Record) {
        self.reader.accept(record);
    }

    /// The next message, if there is one. A violation looks like none here: every closer look tells it.
    #[inline(always)]
    fn take(&mut self) -> Option<Record> {
        self.reader.take().ok()?
    }

    /// The next message of a batch; none in a forked child, which then is told why when it begins another.
    #[inline(always)]
    pub(crate) fn take_in_batch(&mut self) -> Option<Record> {
        self.end.check().ok()?;
        self.take()
    }

    /// Why there is no message, unless there is one after all.
    #[cold]
    fn look_closer<T>(&mut self, find: impl Find<T>) -> Result<T, RecvError> {
        let look = self.end.look_when_stuck(self.reader.position());
        let Self { reader, end, .. } = self;
        look_for(reader, end, find, look)
            .or_else(|| end.arm(|end, look| look_for(reader, end, find, look)))
            .unwrap_or(Err(RecvError::Empty))
    }

    #[cold]
    fn wait_for<T>(&mut self, deadline: Option<Duration>, find: impl Find<T>) -> Result<T, RecvError> {
        let Self { reader, end, backoff } = self;
        backoff.caught_up(reader.position(), reader.usual_stride());
        match end.wait(deadline, backoff, |end, look| look_for(reader, end, find, look)) {
            Some(found) => found,
            // Waits that are all shorter than a slice must find out about the peer, too.
            None => self.look_closer(find).map_err(|error| match error {
                RecvError::Empty => RecvError::Timeout,
                error => error,
            }),
        }
    }

    /// The payload of a record, to be read by a copy that expects races.
    #[inline(always)]
    pub(crate) fn payload(&self, record: &Record) -> *const u8 {
        self.reader.words().payload(record.position).as_ptr()
    }

    /// Gives back all records up to this one; not in a forked child, whose parent is still reading them.
    #[inline(always)]
    pub(crate) fn release(&self, end: u64) {
        if self.end.check().is_err() {
            return;
        }
        self.reader.release(end);
        // A producer that falls asleep just now may be missed: whatever this side does next makes up for it, and the
        // producer's slice if it does nothing.
        self.end.wake_peer_soon();
    }

    #[inline(always)]
    pub(crate) fn is_redelivered(&self, record: &Record) -> bool {
        self.reader.is_redelivered(record.position)
    }

    /// Takes back that a record was taken: it will be the next one.
    pub(crate) fn untake(&mut self, record: &Record) {
        self.reader.rewind(record.position);
    }
}

impl Watched for Consumer {
    fn watch(&mut self) -> error::Result<Arc<Watch>> {
        self.end.watch(Side::Receiver)
    }
}

/// Takes the next message, or only looks whether there is one.
trait Find<T>: Fn(&mut Reader<View>) -> Result<Option<T>, Violation> + Copy {}

impl<T, F: Fn(&mut Reader<View>) -> Result<Option<T>, Violation> + Copy> Find<T> for F {}

#[inline(always)]
fn look_for<T>(
    reader: &mut Reader<View>,
    end: &mut Endpoint,
    find: impl Find<T>,
    look: Look,
) -> Option<Result<T, RecvError>> {
    match find(reader) {
        Ok(Some(found)) => Some(Ok(found)),
        _ if look == Look::Quick => None,
        _ => look_closely(reader, end, find, look),
    }
}

#[cold]
fn look_closely<T>(
    reader: &mut Reader<View>,
    end: &mut Endpoint,
    find: impl Find<T>,
    look: Look,
) -> Option<Result<T, RecvError>> {
    match reader.find_or_end(find, || end.peer_is_gone(look)) {
        Ok(Next::Found(found)) => Some(Ok(found)),
        Ok(Next::Nothing) => {
            end.wake_peer_soon();
            None
        }
        Ok(Next::End) => Some(Err(match end.tell() {
            Ok(Gone::Left) => RecvError::Closed,
            Ok(Gone::Died) => RecvError::PeerDied,
            Err(unusable) => unusable.into(),
        })),
        Err(Violation) => {
            end.poison();
            Some(Err(RecvError::Poisoned))
        }
    }
}

/// A message in the ring. Dropping it gives its bytes back to the producer.
#[derive(Debug)]
pub struct ReadGrant<'a> {
    consumer: &'a mut Consumer,
    record: Record,
}

impl ReadGrant<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.record.tag()
    }

    /// Its position in the ring in bytes: increasing from message to message, over the whole life of the ring.
    pub fn sequence(&self) -> u64 {
        self.record.position
    }

    /// Whether a consumer that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.consumer.is_redelivered(&self.record)
    }
}

impl Deref for ReadGrant<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are contiguous, mapped while the consumer lives and initialised, and by the ring's protocol the
        // producer doesn't write them until they are released: the promise of `assume_trusted_peers`, or of a heap ring.
        unsafe { std::slice::from_raw_parts(self.consumer.payload(&self.record), self.record.length() as usize) }
    }
}

impl Drop for ReadGrant<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.consumer.release(self.record.end);
    }
}

/// Messages that are given back together, when the batch is dropped: those that were yielded.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    consumer: &'a mut Consumer,
    left: usize,
    taken: bool,
}

impl<'b> IntoIterator for &'b mut ReadBatch<'_> {
    type Item = Received<'b>;
    type IntoIter = Iter<'b>;

    fn into_iter(self) -> Iter<'b> {
        Iter { consumer: self.consumer, left: &mut self.left, taken: &mut self.taken }
    }
}

impl Drop for ReadBatch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.taken {
            self.consumer.release(self.consumer.reader.position());
        }
    }
}

/// Yields the messages of a [`ReadBatch`].
#[derive(Debug)]
pub struct Iter<'b> {
    consumer: &'b mut Consumer,
    left: &'b mut usize,
    taken: &'b mut bool,
}

impl<'b> Iterator for Iter<'b> {
    type Item = Received<'b>;

    #[inline(always)]
    fn next(&mut self) -> Option<Received<'b>> {
        if *self.left == 0 {
            return None;
        }
        let record = self.consumer.take_in_batch()?;
        *self.left -= 1;
        *self.taken = true;
        // SAFETY: as for a ReadGrant; the batch, which releases it, is borrowed as long as the slice lives.
        let payload = unsafe { std::slice::from_raw_parts(self.consumer.payload(&record), record.length() as usize) };
        let redelivered = self.consumer.is_redelivered(&record);
        Some(Received { payload, tag: record.tag(), sequence: record.position, redelivered })
    }
}

/// A message of a [`ReadBatch`].
#[derive(Clone, Copy, Debug)]
pub struct Received<'b> {
    payload: &'b [u8],
    tag: u32,
    sequence: u64,
    redelivered: bool,
}

impl Received<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Its position in the ring in bytes: see [`ReadGrant::sequence`].
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether a consumer that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.payload
    }
}
