//! Receiving by copy.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auto::{Chosen, Decision, Held};
use super::inlet::Inward;
use super::meeting::Host;
use super::told::Told;
use crate::channel::{Attachment, PeerEvent, PeerState, RecvError, deadline_at, deadline_in, mpmc, spsc};
use crate::error;
use crate::layout::Ring;
use crate::ring::spsc::Record;
use crate::sys::copy::copy_racing;
use crate::wait::{Pollable, Watch, Watched};

/// The receiving end of a channel. Dropping it closes the channel for the sender.
///
/// At a ring, a message counts as received when its [`Message`] is dropped: a receiver killed before that has its successor
/// receive it again. So it is at a log with `reader=`. Elsewhere, what a killed receiver had read from the kernel is gone.
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
    end: End,
    /// The private copy of the message that is lent out.
    buffer: Vec<u8>,
    local_address: Option<SocketAddr>,
    /// Where it is agreed what carries the messages, at an `auto:` address.
    decision: Option<Held>,
    /// What was told of the sender, where nothing but its present state is known.
    told: Told,
    /// Who answers for this receiver, as long as it is here. It goes after the end, so that its peers hear of that first.
    _host: Option<Host>,
}

/// The end of whatever carries the messages.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and a box would cost each message")]
enum End {
    Spsc(spsc::Consumer),
    Mpmc(mpmc::Consumer),
    Carried(Inward),
    /// Not agreed on yet.
    Awaited(Arc<Decision>),
}

/// A message from there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    Spsc(Record),
    Mpmc(mpmc::Item),
    /// The end keeps its bytes until the next one is taken.
    Carried(Delivery),
}

// What was taken is only ever given to the end that it came from; the other arms can't be reached, and do nothing.
impl End {
    #[inline(always)]
    fn try_take(&mut self) -> Result<Taken, RecvError> {
        match self {
            Self::Spsc(consumer) => consumer.try_record().map(Taken::Spsc),
            Self::Mpmc(consumer) => consumer.try_item().map(Taken::Mpmc),
            Self::Carried(inward) => inward.try_take(false).map(Taken::Carried),
            Self::Awaited(_) => self.try_take_awaited(),
        }
    }

    #[cold]
    fn try_take_awaited(&mut self) -> Result<Taken, RecvError> {
        match self.settle(Some(Duration::ZERO)) {
            Ok(()) => self.try_take(),
            Err(RecvError::Timeout) => Err(RecvError::Empty),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn take_awaited(&mut self, deadline: Option<Duration>) -> Result<Taken, RecvError> {
        self.settle(deadline)?;
        self.take(deadline)
    }

    /// Becomes the end that was agreed on; waits for that until `deadline`.
    fn settle(&mut self, deadline: Option<Duration>) -> Result<(), RecvError> {
        if let Self::Awaited(decision) = self {
            let decision = Arc::clone(decision);
            *self = decision.wait(deadline)?.end;
            if decision.is_watched() {
                decision.pass_on(self.watch().and_then(Pollable::new))?;
            }
        }
        Ok(())
    }

    fn watch(&mut self) -> error::Result<Arc<Watch>> {
        match self {
            Self::Spsc(consumer) => consumer.watch(),
            Self::Mpmc(consumer) => consumer.watch(),
            Self::Carried(inward) => inward.watch_shared(),
            Self::Awaited(decision) => decision.watch(),
        }
    }

    #[inline(always)]
    fn take(&mut self, deadline: Option<Duration>) -> Result<Taken, RecvError> {
        match self {
            Self::Spsc(consumer) => consumer.record(deadline).map(Taken::Spsc),
            Self::Mpmc(consumer) => consumer.item(deadline).map(Taken::Mpmc),
            Self::Carried(inward) => inward.take(deadline, false).map(Taken::Carried),
            Self::Awaited(_) => self.take_awaited(deadline),
        }
    }

    /// Where its bytes are in a segment.
    #[inline(always)]
    fn payload(&self, taken: &Taken) -> Option<*const u8> {
        match (self, taken) {
            (Self::Spsc(consumer), Taken::Spsc(record)) => Some(consumer.payload(record)),
            (Self::Mpmc(_), Taken::Mpmc(item)) => Some(item.payload()),
            _ => None,
        }
    }

    #[inline(always)]
    fn release(&mut self, taken: &Taken) {
        match (self, taken) {
            (Self::Spsc(consumer), Taken::Spsc(record)) => consumer.release(record.end),
            (Self::Mpmc(consumer), Taken::Mpmc(item)) => consumer.release(item),
            (Self::Carried(inward), Taken::Carried(_)) => inward.release(),
            _ => {}
        }
    }

    /// What was just taken stays the next one.
    #[cfg(feature = "async")]
    fn put_back(&mut self, taken: &Taken) {
        match (self, taken) {
            (Self::Spsc(consumer), Taken::Spsc(record)) => consumer.untake(record),
            (Self::Mpmc(consumer), Taken::Mpmc(item)) => consumer.untake(item),
            (Self::Carried(inward), Taken::Carried(_)) => inward.put_back(),
            _ => {}
        }
    }

    /// A longer message stays the next one.
    fn take_up_to(&mut self, longest: usize) -> Result<Taken, RecvError> {
        let too_small = |len: u64| match len as usize {
            needed if needed > longest => Err(RecvError::BufferTooSmall { needed }),
            _ => Ok(()),
        };
        match self {
            Self::Spsc(consumer) => {
                let record = consumer.peek(None)?;
                too_small(record.length())?;
                consumer.accept(&record);
                Ok(Taken::Spsc(record))
            }
            Self::Mpmc(consumer) => {
                let item = consumer.item(None)?;
                too_small(item.len() as u64).inspect_err(|_| consumer.untake(&item))?;
                Ok(Taken::Mpmc(item))
            }
            Self::Carried(inward) => {
                let delivery = inward.take(None, false)?;
                too_small(delivery.len as u64).inspect_err(|_| inward.put_back())?;
                Ok(Taken::Carried(delivery))
            }
            Self::Awaited(_) => {
                self.settle(None)?;
                self.take_up_to(longest)
            }
        }
    }

    #[inline(always)]
    fn delivery(&self, taken: &Taken) -> Delivery {
        match (self, taken) {
            (Self::Spsc(consumer), Taken::Spsc(record)) => Delivery {
                len: record.length() as usize,
                tag: record.tag(),
                sequence: record.position,
                producer: 0,
                gap: 0,
                redelivered: consumer.is_redelivered(record),
            },
            (_, Taken::Mpmc(item)) => Delivery {
                len: item.len(),
                tag: item.tag(),
                sequence: item.sequence(),
                producer: item.lane(),
                gap: item.gap(),
                redelivered: item.deliveries() > 0,
            },
            (_, Taken::Carried(delivery)) => *delivery,
            _ => Delivery::default(),
        }
    }

    /// The bytes of a message, of which `copy` is the private copy if it came from a segment.
    #[inline(always)]
    fn bytes<'a>(&'a self, copy: &'a [u8], delivery: &Delivery) -> &'a [u8] {
        match self {
            Self::Spsc(_) | Self::Mpmc(_) => &copy[..delivery.len],
            Self::Carried(inward) => inward.payload(),
            Self::Awaited(_) => &[],
        }
    }
}

/// What came with a message, besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// How many bytes it has.
    pub len: usize,
    /// The sender's number for it.
    pub tag: u32,
    /// In a ring with one sender, its position in the ring in bytes: increasing from message to message, over the whole life of
    /// the ring. With many, its number among all messages of its lane, from 0. Elsewhere, its number among all messages of its
    /// sender, from 0; without frames, among all that were received.
    pub sequence: u64,
    /// In a ring of many, the [lane](super::Sender::lane) of its sender. Elsewhere, the number of its sender among those that this
    /// receiver has heard of; 0 without frames.
    pub producer: u32,
    /// How many messages of its sender are missing between this one and the last one that this receiver got from there: those
    /// that other receivers got, that were dropped, or that got lost. 0 where that can't be.
    pub gap: u64,
    /// Whether a receiver that died had been handed it already, and may have processed it.
    pub redelivered: bool,
}

impl Receiver {
    pub(super) fn new(attachment: Attachment) -> crate::error::Result<Self> {
        let end = match attachment.ring() {
            Ring::Spsc => End::Spsc(attachment.into_spsc_consumer()?),
            Ring::Mpmc => End::Mpmc(attachment.into_mpmc_consumer()?),
        };
        Ok(Self { end, buffer: Vec::new(), local_address: None, decision: None, told: Told::default(), _host: None })
    }

    pub(super) fn carried(inward: Inward) -> Self {
        Self {
            end: End::Carried(inward),
            buffer: Vec::new(),
            local_address: None,
            decision: None,
            told: Told::default(),
            _host: None,
        }
    }

    pub(super) fn at(self, local_address: Option<SocketAddr>) -> Self {
        Self { local_address, ..self }
    }

    /// A receiver that is told later what carries its messages.
    pub(super) fn awaited(decision: Arc<Decision>) -> Self {
        let end = End::Awaited(Arc::clone(&decision));
        Self {
            end,
            buffer: Vec::new(),
            local_address: None,
            decision: Some(Held(decision)),
            told: Told::default(),
            _host: None,
        }
    }

    /// This receiver, with who answers for it.
    pub(super) fn hosted(self, host: Host) -> Self {
        Self { _host: Some(host), ..self }
    }

    /// What this receiver and its sender have agreed on, at an `auto:` address: none before a sender has come, and at other
    /// addresses.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.decision.as_ref()?.chosen()
    }

    /// How many messages are known to have been lost on their way: those that [`Delivery::gap`] told of, and those behind the last
    /// one of a sender that has left in good order. More than 0 only by UDP, with frames.
    pub fn lost(&self) -> u64 {
        match &self.end {
            End::Carried(inward) => inward.lost(),
            _ => 0,
        }
    }

    /// Where senders reach an internet socket: with the port that was chosen, if the address left it open.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// From now on receives only messages of that tag, out of their order, or again all. False, without effect, where the
    /// transport can't choose: see [`Capabilities::select_by_tag`](super::Capabilities::select_by_tag).
    ///
    /// Of a message in several pieces the rest is received when its tag is, again.
    ///
    /// ```
    /// use ringway::{Address, Options};
    ///
    /// let address: Address = format!("sysvmq:?key={:#x}", 0x3000_0000 | std::process::id()).parse()?;
    /// let mut receiver = Options::new().receiver(&address)?;
    /// let mut sender = Options::new().sender(&address)?;
    /// sender.send(("later", 1))?;
    /// sender.send(("at once", 2))?;
    /// assert!(receiver.select(Some(2)));
    /// assert_eq!(&receiver.recv()?[..], b"at once");
    /// receiver.select(None);
    /// assert_eq!(&receiver.recv()?[..], b"later");
    /// # drop((sender, receiver));
    /// # let _ = ringway::transport::remove(&address, true);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn select(&mut self, tag: Option<u32>) -> bool {
        match &mut self.end {
            End::Carried(inward) => inward.select(tag),
            _ => false,
        }
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        match &self.end {
            End::Spsc(consumer) => consumer.max_message(),
            End::Mpmc(consumer) => consumer.max_message(),
            End::Carried(inward) => inward.max_message(),
            End::Awaited(decision) => decision.max_message(),
        }
    }

    /// Who holds the other end, as the kernel knows it: costs system calls. Of many senders, one that is alive, if there is
    /// one.
    pub fn peer(&self) -> PeerState {
        match &self.end {
            End::Spsc(consumer) => consumer.peer(),
            End::Mpmc(consumer) => PeerState::of_many(consumer.peers()),
            End::Carried(inward) => inward.peer(),
            End::Awaited(_) => PeerState::Absent,
        }
    }

    /// What has become of the sender and was not told here yet, one thing at a time; the first is that it is there. Never blocks, but costs
    /// system calls. Independent of what receiving tells.
    ///
    /// At a ring nothing is left out, unless more than 4,096 peers came and went since the last call. Elsewhere it follows from what [`peer`](Self::peer) says.
    pub fn peer_event(&mut self) -> Option<PeerEvent> {
        match &mut self.end {
            End::Spsc(consumer) => consumer.peer_event(),
            End::Mpmc(consumer) => consumer.peer_event(),
            End::Carried(_) | End::Awaited(_) => self.told.next(self.peer()),
        }
    }

    /// A descriptor that is readable when there may be something to receive, or something to tell of the sender: for `poll`, `epoll` and other event
    /// loops. [`Pollable`] says in which order to do what.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use ringway::{Address, Options};
    ///
    /// let address: Address = "anon:example-pollable-receiver".parse()?;
    /// let mut receiver = Options::new().receiver(&address)?;
    /// let pollable = receiver.pollable()?;
    /// # let _ = pollable.as_fd();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) at a ring that was made with [`Wait::Spin`](crate::Wait::Spin), and where
    /// [`Capabilities`](super::Capabilities) say that there is nothing to poll; [`NoSpace`](crate::ErrorKind::NoSpace) without descriptors or
    /// threads.
    pub fn pollable(&mut self) -> error::Result<Pollable> {
        Pollable::new(self.watch()?)
    }

    /// The next message, if there is one now. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](RecvError::Empty), [`Closed`](RecvError::Closed), [`PeerDied`](RecvError::PeerDied),
    /// [`Fenced`](RecvError::Fenced) or [`Poisoned`](RecvError::Poisoned); where the kernel carries messages also
    /// [`Malformed`](RecvError::Malformed) and [`Os`](RecvError::Os).
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        let taken = self.try_take()?;
        Ok(self.message(taken))
    }

    /// The next message; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), but not `Empty`.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        let taken = self.end.take(None)?;
        Ok(self.message(taken))
    }

    /// [`recv`](Self::recv) for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let taken = self.end.take(Some(deadline_in(timeout)))?;
        Ok(self.message(taken))
    }

    /// [`recv`](Self::recv) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_>, RecvError> {
        let taken = self.end.take(Some(deadline_at(deadline)))?;
        Ok(self.message(taken))
    }

    /// Receives the next message into `buffer`; waits for it as long as it takes. It counts as received on return.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`BufferTooSmall`](RecvError::BufferTooSmall), which leaves the message the next one.
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Delivery, RecvError> {
        let taken = self.end.take_up_to(buffer.len())?;
        let delivery = self.end.delivery(&taken);
        match self.end.payload(&taken) {
            // SAFETY: the buffer is large enough and private; the message's bytes are mapped.
            Some(payload) => unsafe { copy_racing(buffer.as_mut_ptr(), payload, delivery.len) },
            None => buffer[..delivery.len].copy_from_slice(self.end.bytes(&[], &delivery)),
        }
        self.end.release(&taken);
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
        while let Some(taken) = batch.take() {
            let delivery = batch.receiver.end.delivery(&taken);
            batch.in_hand = true;
            handle(batch.receiver.bytes(&delivery), delivery);
            batch.in_hand = false;
            count += 1;
        }
        Ok(count)
    }

    /// Waits for a message, then yields up to `max` that are there, which count as received together; from a ring of many at most
    /// 16.
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
    /// // Only now: at a ring, a receiver killed before this has its successor receive them again.
    /// drop(batch);
    /// # assert_eq!(text, b"onetwo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_batch(&mut self, max: usize) -> Result<Batch<'_>, RecvError> {
        self.batch(max, None)
    }

    /// [`recv_batch`](Self::recv_batch) that waits for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_batch_timeout(&mut self, max: usize, timeout: Duration) -> Result<Batch<'_>, RecvError> {
        self.batch(max, Some(deadline_in(timeout)))
    }

    /// The messages as they come, each in a vector of its own, until the sender has left. Blocks.
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { receiver: self, ended: false }
    }

    fn batch(&mut self, max: usize, deadline: Option<Duration>) -> Result<Batch<'_>, RecvError> {
        let run = match &mut self.end {
            End::Spsc(consumer) => {
                consumer.peek(deadline)?;
                Run::Spsc { left: max, last: None }
            }
            End::Mpmc(consumer) => Run::Mpmc(consumer.batch(max, deadline)?),
            End::Carried(inward) => {
                inward.take(deadline, max > 1)?;
                inward.put_back();
                Run::Carried { left: max, has_taken: false }
            }
            End::Awaited(_) => {
                self.end.settle(deadline)?;
                return self.batch(max, deadline);
            }
        };
        Ok(Batch { receiver: self, run, in_hand: false })
    }

    #[inline(always)]
    fn bytes(&self, delivery: &Delivery) -> &[u8] {
        self.end.bytes(&self.buffer, delivery)
    }

    /// Takes the next message, if there is one now, for [`Receiver::message`].
    #[inline(always)]
    pub(crate) fn try_take(&mut self) -> Result<Taken, RecvError> {
        self.end.try_take()
    }

    /// Whether there is a message now, which stays the next one.
    #[cfg(feature = "async")]
    pub(crate) fn try_peek(&mut self) -> Result<(), RecvError> {
        let taken = self.end.try_take()?;
        self.end.put_back(&taken);
        Ok(())
    }

    /// Lends out what was just taken.
    #[inline(always)]
    pub(crate) fn message(&mut self, taken: Taken) -> Message<'_> {
        let delivery = self.copy_out(&taken);
        Message { receiver: self, taken, delivery }
    }

    #[inline(always)]
    fn copy_out(&mut self, taken: &Taken) -> Delivery {
        let delivery = self.end.delivery(taken);
        if matches!(taken, Taken::Carried(_)) {
            return delivery;
        }
        if self.buffer.len() < delivery.len {
            // Bounded: a message is at most as long as the geometry, which was checked once, allows.
            self.buffer.resize(delivery.len, 0);
        }
        if let Some(payload) = self.end.payload(taken) {
            // SAFETY: the buffer is large enough and private; the message's bytes are mapped.
            unsafe { copy_racing(self.buffer.as_mut_ptr(), payload, delivery.len) };
        }
        delivery
    }
}

impl Watched for Receiver {
    fn watch(&mut self) -> error::Result<Arc<Watch>> {
        match &self.decision {
            // It stays the same when the decision is made.
            Some(decision) if decision.is_watched() => decision.watch(),
            _ => self.end.watch(),
        }
    }
}

/// A received message: a private copy. Dropping it counts it as received, and frees its room in the channel.
#[derive(Debug)]
pub struct Message<'a> {
    receiver: &'a mut Receiver,
    taken: Taken,
    delivery: Delivery,
}

impl Message<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.delivery.tag
    }

    /// Its number in the ring, or in its sender's lane: see [`Delivery::sequence`].
    pub fn sequence(&self) -> u64 {
        self.delivery.sequence
    }

    /// The lane of its sender: see [`Delivery::producer`].
    pub fn producer(&self) -> u32 {
        self.delivery.producer
    }

    /// How many messages are missing before it: see [`Delivery::gap`].
    pub fn gap(&self) -> u64 {
        self.delivery.gap
    }

    /// Whether a consumer that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    /// All that came with it.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.receiver.bytes(&self.delivery)
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.end.release(&self.taken);
    }
}

/// Messages that count as received all at once, when the batch is dropped: those that were yielded.
#[derive(Debug)]
pub struct Batch<'a> {
    receiver: &'a mut Receiver,
    run: Run,
    /// The last message's handler has not returned: if it panics, the message comes again.
    in_hand: bool,
}

/// How far a batch is.
#[derive(Debug)]
enum Run {
    /// The last record, and the one before.
    Spsc {
        left: usize,
        last: Option<(Record, Option<u64>)>,
    },
    Mpmc(mpmc::Part),
    Carried {
        left: usize,
        has_taken: bool,
    },
}

impl Batch<'_> {
    /// The next message, if the batch may have more and there is one now. Never blocks.
    #[expect(clippy::should_implement_trait, reason = "what it lends is overwritten by the next call")]
    pub fn next(&mut self) -> Option<(&[u8], Delivery)> {
        let taken = self.take()?;
        let delivery = self.receiver.end.delivery(&taken);
        Some((self.receiver.bytes(&delivery), delivery))
    }

    /// Copies the next message out.
    #[inline(always)]
    fn take(&mut self) -> Option<Taken> {
        let taken = match (&mut self.run, &mut self.receiver.end) {
            (Run::Spsc { left, last }, End::Spsc(consumer)) => {
                *left = left.checked_sub(1)?;
                let record = consumer.take_in_batch()?;
                *last = Some((record, last.map(|(record, _)| record.end)));
                Taken::Spsc(record)
            }
            // A violation ends the batch; the next call tells it.
            (Run::Mpmc(part), End::Mpmc(consumer)) => Taken::Mpmc(consumer.batch_item(part)?.ok()?),
            // As does an error here.
            (Run::Carried { left, has_taken }, End::Carried(inward)) => {
                *left = left.checked_sub(1)?;
                let taken = inward.take_in_batch()?;
                *has_taken = true;
                Taken::Carried(taken)
            }
            _ => return None,
        };
        self.receiver.copy_out(&taken);
        Some(taken)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        match (&mut self.run, &mut self.receiver.end) {
            (Run::Spsc { last: Some((record, before)), .. }, End::Spsc(consumer)) => {
                let done = if self.in_hand {
                    consumer.untake(record);
                    *before
                } else {
                    Some(record.end)
                };
                if let Some(end) = done {
                    consumer.release(end);
                }
            }
            (Run::Mpmc(part), End::Mpmc(consumer)) => {
                if self.in_hand {
                    part.untake();
                }
                consumer.close_batch(*part);
            }
            (Run::Carried { has_taken: true, .. }, End::Carried(inward)) => {
                if self.in_hand {
                    inward.put_back();
                }
                inward.release();
            }
            _ => {}
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

#[cfg(test)]
impl Receiver {
    /// The end where the kernel carries the messages.
    pub(super) fn inward(&mut self) -> &mut Inward {
        match &mut self.end {
            End::Carried(inward) => inward,
            end => panic!("{end:?}"),
        }
    }
}
