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
        let record = self.consumer.record(None)?;
        let delivery = self.delivery(&record);
        if buffer.len() < delivery.len {
            self.consumer.untake(&record);
            return Err(RecvError::BufferTooSmall { needed: delivery.len });
        }
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
        /// Gives back what was handled, also when `handle` panics.
        struct Handled<'a> {
            receiver: &'a mut Receiver,
            until: Option<u64>,
            in_hand: Option<Record>,
        }
        impl Drop for Handled<'_> {
            fn drop(&mut self) {
                if let Some(record) = &self.in_hand {
                    self.receiver.consumer.untake(record);
                }
                if let Some(until) = self.until {
                    self.receiver.consumer.release(until);
                }
            }
        }

        let mut handled = Handled { receiver: self, until: None, in_hand: None };
        for count in 0..max {
            let receiver = &mut *handled.receiver;
            let found = match count {
                0 => receiver.consumer.record(None)?,
                _ => match receiver.consumer.try_record() {
                    Ok(record) => record,
                    Err(_) => return Ok(count),
                },
            };
            handled.in_hand = Some(found);
            let len = receiver.copy_out(&found);
            handle(&receiver.buffer[..len], receiver.delivery(&found));
            handled.in_hand = None;
            handled.until = Some(found.end);
        }
        Ok(max)
    }

    /// The messages as they come, each in a vector of its own, until the sender has left. Blocks.
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { receiver: self }
    }

    #[inline(always)]
    fn message(&mut self, record: Record) -> Message<'_> {
        self.copy_out(&record);
        Message { receiver: self, record }
    }

    #[inline(always)]
    fn copy_out(&mut self, record: &Record) -> usize {
        let len = record.length as usize;
        if self.buffer.len() < len {
            // Bounded: a record is at most as long as the geometry, which was checked once, allows.
            self.buffer.resize(len, 0);
        }
        // SAFETY: the buffer is large enough and private; the record's bytes are mapped.
        unsafe { copy_racing(self.buffer.as_mut_ptr(), self.consumer.payload(record), len) };
        len
    }

    fn delivery(&self, record: &Record) -> Delivery {
        Delivery {
            len: record.length as usize,
            tag: record.tag,
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
        self.record.tag
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
        &self.receiver.buffer[..self.record.length as usize]
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.consumer.release(self.record.end);
    }
}

/// Yields messages until the sender has left: see [`Receiver::messages`].
#[derive(Debug)]
pub struct Messages<'a> {
    receiver: &'a mut Receiver,
}

impl Iterator for Messages<'_> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.recv() {
            Ok(message) => Some(Ok(message.to_vec())),
            Err(RecvError::Closed) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
