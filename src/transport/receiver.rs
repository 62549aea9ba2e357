//! Receiving by copy.

use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::channel::spsc::Consumer;
use crate::channel::{PeerState, RecvError, deadline_at, deadline_in};
use crate::ring::spsc::Record;
use crate::sys::copy::copy_racing;

/// The receiving end of a channel. Dropping it closes the channel for the sender.
///
/// A message counts as received when its [`Message`] is dropped: a receiver killed before that has its successor receive
/// it again.
///
/// ```
/// use ringway::{Address, Options, RecvError};
///
/// let address: Address = "anon:example-receiver".parse()?;
/// let mut receiver = Options::new().receiver(&address)?;
/// assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
/// let mut sender = Options::new().sender(&address)?;
/// sender.send(b"hello")?;
/// drop(sender);
/// assert_eq!(&receiver.recv()?[..], b"hello");
/// assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Receiver {
    consumer: Consumer,
    /// The private copy of the message that is lent out.
    buffer: Vec<u8>,
}

/// What came with a message, besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// How many bytes it has.
    pub len: usize,
    /// The sender's number for it.
    pub tag: u32,
    /// Its position in the ring in bytes: increasing from message to message, over the whole life of the ring.
    pub sequence: u64,
    /// Whether a receiver that died had been handed it already, and may have processed it.
    pub redelivered: bool,
}

impl Receiver {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self { consumer, buffer: Vec::new() }
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.consumer.max_message()
    }

    /// Who holds the other end, as the kernel knows it: costs system calls.
    pub fn peer(&self) -> PeerState {
        self.consumer.peer()
    }

    /// The next message, if there is one now. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](RecvError::Empty), [`Closed`](RecvError::Closed), [`PeerDied`](RecvError::PeerDied),
    /// [`Fenced`](RecvError::Fenced) or [`Poisoned`](RecvError::Poisoned).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        let record = self.consumer.try_record()?;
        Ok(self.message(record))
    }

    /// The next message; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), but not `Empty`.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        let record = self.consumer.record(None)?;
        Ok(self.message(record))
    }

    /// [`recv`](Self::recv) for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let record = self.consumer.record(Some(deadline_in(timeout)))?;
        Ok(self.message(record))
    }

    /// [`recv`](Self::recv) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_>, RecvError> {
        let record = self.consumer.record(Some(deadline_at(deadline)))?;
        Ok(self.message(record))
    }

    /// Receives the next message into `buffer`; waits for it as long as it takes. It counts as received on return.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`BufferTooSmall`](RecvError::BufferTooSmall), which leaves the message the next one.
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Delivery, RecvError> {
        let record = self.consumer.peek(None)?;
        let delivery = self.delivery(&record);
        if buffer.len() < delivery.len {
            return Err(RecvError::BufferTooSmall { needed: delivery.len });
        }
        self.consumer.accept(&record);
        // SAFETY: the buffer is large enough and private; the record's bytes are mapped.
        unsafe { copy_racing(buffer.as_mut_ptr(), self.consumer.payload(&record), delivery.len) };
        self.consumer.release(record.end);
        Ok(delivery)
    }

    /// Waits for a message, then passes up to `max` that are there to `handle`, and returns how many. They count as
    /// received all at once when this returns; if `handle` panics, those before it do, and its message comes again.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); once there was a message, it is left to the next call.
    pub fn recv_many(&mut self, max: usize, mut handle: impl FnMut(&[u8], Delivery)) -> Result<usize, RecvError> {
        let mut batch = self.recv_batch(max)?;
        let mut count = 0;
        while let Some(record) = batch.take() {
            let delivery = batch.receiver.delivery(&record);
            batch.in_hand = Some(record);
            handle(&batch.receiver.buffer[..delivery.len], delivery);
            batch.in_hand = None;
            batch.until = Some(record.end);
            count += 1;
        }
        Ok(count)
    }

    /// Waits for a message, then yields up to `max` that are there, which count as received together.
    ///
    /// ```
    /// # use ringway::{Address, Options};
    /// # let address: Address = "anon:example-batch".parse()?;
    /// # let (mut sender, mut receiver) = (Options::new().sender(&address)?, Options::new().receiver(&address)?);
    /// sender.send_many(["one", "two"])?;
    /// let mut text = Vec::new();
    /// let mut batch = receiver.recv_batch(32)?;
    /// while let Some((payload, _)) = batch.next() {
    ///     text.extend_from_slice(payload);
    /// }
    /// std::fs::write("/dev/null", &text)?;
    /// // Only now: a receiver killed before this has its successor receive them again.
    /// drop(batch);
    /// # assert_eq!(text, b"onetwo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_batch(&mut self, max: usize) -> Result<Batch<'_>, RecvError> {
        self.consumer.peek(None)?;
        Ok(Batch { receiver: self, left: max, until: None, in_hand: None })
    }

    /// [`recv_batch`](Self::recv_batch) that waits for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_batch_timeout(&mut self, max: usize, timeout: Duration) -> Result<Batch<'_>, RecvError> {
        self.consumer.peek(Some(deadline_in(timeout)))?;
        Ok(Batch { receiver: self, left: max, until: None, in_hand: None })
    }

    /// The messages as they come, each in a vector of its own, until the sender has left. Blocks.
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { receiver: self, ended: false }
    }

    #[inline(always)]
    fn message(&mut self, record: Record) -> Message<'_> {
        self.copy_out(&record);
        Message { receiver: self, record }
    }

    #[inline(always)]
    fn copy_out(&mut self, record: &Record) {
        let len = record.length() as usize;
        if self.buffer.len() < len {
            // Bounded: a record is at most as long as the geometry, which was checked once, allows.
            self.buffer.resize(len, 0);
        }
        // SAFETY: the buffer is large enough and private; the record's bytes are mapped.
        unsafe { copy_racing(self.buffer.as_mut_ptr(), self.consumer.payload(record), len) };
    }

    fn delivery(&self, record: &Record) -> Delivery {
        Delivery {
            len: record.length() as usize,
            tag: record.tag(),
            sequence: record.position,
            redelivered: self.consumer.is_redelivered(record),
        }
    }
}

/// A received message: a private copy. Dropping it counts it as received, and frees its room in the channel.
#[derive(Debug)]
pub struct Message<'a> {
    receiver: &'a mut Receiver,
    record: Record,
}

impl Message<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.record.tag()
    }

    /// Its position in the ring in bytes: increasing from message to message, over the whole life of the ring.
    pub fn sequence(&self) -> u64 {
        self.record.position
    }

    /// Whether a receiver that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.receiver.consumer.is_redelivered(&self.record)
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.receiver.buffer[..self.record.length() as usize]
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.consumer.release(self.record.end);
    }
}

/// Messages that count as received all at once, when the batch is dropped: those that were yielded.
#[derive(Debug)]
pub struct Batch<'a> {
    receiver: &'a mut Receiver,
    left: usize,
    /// The end of the last message that will count as received.
    until: Option<u64>,
    /// A message whose handler has not returned: if it panics, the message comes again.
    in_hand: Option<Record>,
}

impl Batch<'_> {
    /// The next message, if the batch may have more and there is one now. Never blocks.
    #[expect(clippy::should_implement_trait, reason = "what it lends is overwritten by the next call")]
    pub fn next(&mut self) -> Option<(&[u8], Delivery)> {
        let record = self.take()?;
        self.until = Some(record.end);
        let delivery = self.receiver.delivery(&record);
        Some((&self.receiver.buffer[..delivery.len], delivery))
    }

    /// Copies the next message out.
    #[inline(always)]
    fn take(&mut self) -> Option<Record> {
        self.left = self.left.checked_sub(1)?;
        let record = self.receiver.consumer.take_in_batch()?;
        self.receiver.copy_out(&record);
        Some(record)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(record) = &self.in_hand {
            self.receiver.consumer.untake(record);
        }
        if let Some(until) = self.until {
            self.receiver.consumer.release(until);
        }
    }
}

/// Yields messages until the sender has left, or an error that will stay: see [`Receiver::messages`].
#[derive(Debug)]
pub struct Messages<'a> {
    receiver: &'a mut Receiver,
    ended: bool,
}

impl Iterator for Messages<'_> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.receiver.recv() {
            Ok(message) => Some(Ok(message.to_vec())),
            Err(RecvError::Closed) => None,
            Err(error) => {
                self.ended = matches!(error, RecvError::Fenced | RecvError::Poisoned);
                Some(Err(error))
            }
        }
    }
}
