//! Sending by copy.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{error, fmt};

use super::auto::Chosen;
use super::outlet::Outward;
use super::told::Told;
use crate::channel::{Attachment, PeerEvent, PeerState, SendError, deadline_at, deadline_in, mpmc, spsc};
use crate::layout::Ring;
use crate::ring;
use crate::sys::copy::copy_racing;
use crate::wait::{Pollable, Watch, Watched};

/// The sending end of a channel. Dropping it closes the channel for the receiver, once that has received everything.
///
/// Each message is published, with release ordering, before the call that sends it returns.
///
/// ```
/// use ringway::{Address, Options};
///
/// let address: Address = "anon:example-sender".parse()?;
/// let mut sender = Options::new().sender(&address)?;
/// let mut receiver = Options::new().receiver(&address)?;
/// sender.send(b"hello")?;
/// sender.send(("tagged", 7))?;
/// assert_eq!(&receiver.recv()?[..], b"hello");
/// assert_eq!(receiver.recv()?.tag(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sender {
    end: End,
    /// Where grants are built.
    buffer: Vec<u8>,
    /// What was told of the receiver, where nothing but its present state is known.
    told: Told,
    /// What was agreed on with the receiver, at an `auto:` address.
    chosen: Option<Box<Chosen>>,
}

/// The end of whatever carries the messages.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and a box would cost each message")]
enum End {
    Spsc(spsc::Producer),
    Mpmc(mpmc::Producer),
    Carried(Outward),
}

/// Room for one message in a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    Spsc(ring::spsc::Reservation),
    Mpmc(ring::mpmc::Reservation),
}

impl Room {
    #[inline(always)]
    fn length(&self) -> u64 {
        match self {
            Self::Spsc(reservation) => reservation.length(),
            Self::Mpmc(reservation) => reservation.length(),
        }
    }
}

/// Room for one message: in a ring, or for this many bytes where the kernel looks after it when they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Space {
    Ring(Room),
    Carried(usize),
}

impl Space {
    fn length(&self) -> usize {
        match self {
            Self::Ring(room) => room.length() as usize,
            Self::Carried(length) => *length,
        }
    }
}

// A room is only ever given to the end that it came from; the other arms can't be reached, and do nothing.
impl End {
    #[inline(always)]
    fn try_room(&mut self, len: usize) -> Result<Room, SendError> {
        match self {
            Self::Spsc(producer) => producer.try_reservation(len).map(Room::Spsc),
            Self::Mpmc(producer) => producer.try_reservation(len).map(Room::Mpmc),
            Self::Carried(_) => Err(SendError::Full),
        }
    }

    #[inline(always)]
    fn room(&mut self, len: usize, deadline: Option<Duration>) -> Result<Room, SendError> {
        match self {
            Self::Spsc(producer) => producer.reservation(len, deadline).map(Room::Spsc),
            Self::Mpmc(producer) => producer.reservation(len, deadline).map(Room::Mpmc),
            Self::Carried(_) => Err(SendError::Full),
        }
    }

    #[inline(always)]
    fn copy_in(&self, room: &Room, payload: &[u8]) {
        debug_assert!(payload.len() as u64 <= room.length());
        let target = match (self, room) {
            (Self::Spsc(producer), Room::Spsc(reservation)) => producer.payload(*reservation),
            (Self::Mpmc(producer), Room::Mpmc(reservation)) => producer.payload(reservation),
            _ => return,
        };
        // SAFETY: as many bytes are reserved and mapped; a private slice can't overlap them.
        unsafe { copy_racing(target, payload.as_ptr(), payload.len()) };
    }

    #[inline(always)]
    fn commit(&mut self, room: Room, used: usize, tag: u32) -> u64 {
        match (self, room) {
            (Self::Spsc(producer), Room::Spsc(reservation)) => producer.commit(reservation, used, tag),
            (Self::Mpmc(producer), Room::Mpmc(reservation)) => producer.commit(reservation, used, tag),
            _ => 0,
        }
    }

    #[inline(always)]
    fn commit_in_batch(&mut self, room: Room, used: usize, tag: u32) {
        match (self, room) {
            (Self::Spsc(producer), Room::Spsc(reservation)) => producer.commit_in_batch(reservation, used, tag),
            (Self::Mpmc(producer), Room::Mpmc(reservation)) => producer.commit_in_batch(reservation, used, tag),
            _ => 0,
        };
    }

    fn publish(&mut self) {
        match self {
            Self::Spsc(producer) => producer.publish(),
            Self::Mpmc(producer) => producer.publish(),
            Self::Carried(_) => false,
        };
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::Spsc(producer) => producer.is_usable(),
            Self::Mpmc(producer) => producer.is_usable(),
            Self::Carried(_) => true,
        }
    }
}

/// A message to send: its bytes and the user's number for it, 0 unless said.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The bytes.
    pub payload: &'a [u8],
    /// The user's number.
    pub tag: u32,
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Outgoing<'a> {
    fn from(payload: &'a T) -> Self {
        Self { payload: payload.as_ref(), tag: 0 }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<(&'a T, u32)> for Outgoing<'a> {
    fn from((payload, tag): (&'a T, u32)) -> Self {
        Self { payload: payload.as_ref(), tag }
    }
}

impl Sender {
    pub(super) fn new(attachment: Attachment) -> crate::error::Result<Self> {
        let end = match attachment.ring() {
            Ring::Spsc => End::Spsc(attachment.into_spsc_producer()?),
            Ring::Mpmc => End::Mpmc(attachment.into_mpmc_producer()?),
        };
        Ok(Self { end, buffer: Vec::new(), told: Told::default(), chosen: None })
    }

    pub(super) fn carried(outward: Outward) -> Self {
        Self { end: End::Carried(outward), buffer: Vec::new(), told: Told::default(), chosen: None }
    }

    /// This sender, with what was agreed on.
    pub(super) fn by(self, chosen: Chosen) -> Self {
        Self { chosen: Some(Box::new(chosen)), ..self }
    }

    /// What this sender and the receiver have agreed on, at an `auto:` address; none at others.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_deref()
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        match &self.end {
            End::Spsc(producer) => producer.max_message(),
            End::Mpmc(producer) => producer.max_message(),
            End::Carried(outward) => outward.max_message(),
        }
    }

    /// The lane through which the messages of this sender go, in a ring of many; 0 in another one.
    pub fn lane(&self) -> u32 {
        match &self.end {
            End::Mpmc(producer) => producer.lane(),
            End::Spsc(_) | End::Carried(_) => 0,
        }
    }

    /// Who holds the other end, as the kernel knows it: costs system calls. Of many receivers, one that is alive, if there is
    /// one.
    pub fn peer(&self) -> PeerState {
        match &self.end {
            End::Spsc(producer) => producer.peer(),
            End::Mpmc(producer) => PeerState::of_many(producer.peers()),
            End::Carried(outward) => outward.peer(),
        }
    }

    /// What has become of the receiver and was not told here yet, one thing at a time; the first is that it is there. Never blocks, but costs
    /// system calls. Independent of what sending tells.
    ///
    /// At a ring nothing is left out, unless more than 4,096 peers came and went since the last call. Elsewhere it follows from what [`peer`](Self::peer) says.
    pub fn peer_event(&mut self) -> Option<PeerEvent> {
        match &mut self.end {
            End::Spsc(producer) => producer.peer_event(),
            End::Mpmc(producer) => producer.peer_event(),
            End::Carried(_) => self.told.next(self.peer()),
        }
    }

    /// A descriptor that is readable when there may be room after [`Full`](SendError::Full), or something to tell of the receiver: for `poll`, `epoll` and other event
    /// loops. [`Pollable`] says in which order to do what.
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use ringway::{Address, Options};
    ///
    /// let address: Address = "anon:example-pollable-sender".parse()?;
    /// let mut sender = Options::new().sender(&address)?;
    /// let pollable = sender.pollable()?;
    /// # let _ = pollable.as_fd();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) at a ring that was made with [`Wait::Spin`](crate::Wait::Spin), and where
    /// [`Capabilities`](super::Capabilities) say that there is nothing to poll; [`NoSpace`](crate::ErrorKind::NoSpace) without descriptors or
    /// threads.
    pub fn pollable(&mut self) -> crate::error::Result<Pollable> {
        Pollable::new(self.watch()?)
    }

    /// Sends a message if there is room now, and returns its sequence. Never blocks.
    ///
    /// Where the kernel carries messages, one that is too large to go at once counts as sent when its beginning went; the rest
    /// follows with the next calls, at the latest when the sender is dropped, which may then take up to a second.
    ///
    /// # Errors
    /// [`Full`](SendError::Full), [`TooLarge`](SendError::TooLarge), [`Closed`](SendError::Closed),
    /// [`PeerDied`](SendError::PeerDied), [`Fenced`](SendError::Fenced) or [`Poisoned`](SendError::Poisoned); where the kernel
    /// carries messages also [`Unfit`](SendError::Unfit) and [`Os`](SendError::Os).
    #[inline]
    pub fn try_send<'m>(&mut self, message: impl Into<Outgoing<'m>>) -> Result<u64, SendError> {
        let message = message.into();
        if let End::Carried(outward) = &mut self.end {
            return outward.try_send(message);
        }
        let room = self.end.try_room(message.payload.len())?;
        Ok(self.fill(room, message))
    }

    /// Sends a message; waits for room as long as it takes.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), but not `Full`.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<Outgoing<'m>>) -> Result<u64, SendError> {
        self.send_until(message.into(), None)
    }

    /// [`send`](Self::send) within `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](SendError::Timeout).
    pub fn send_timeout<'m>(&mut self, message: impl Into<Outgoing<'m>>, timeout: Duration) -> Result<u64, SendError> {
        self.send_until(message.into(), Some(deadline_in(timeout)))
    }

    /// [`send`](Self::send) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](SendError::Timeout).
    pub fn send_deadline<'m>(&mut self, message: impl Into<Outgoing<'m>>, deadline: Instant) -> Result<u64, SendError> {
        self.send_until(message.into(), Some(deadline_at(deadline)))
    }

    /// Sends messages as a batch. In a ring they become visible together, for the price of one publication, unless the ring is
    /// filled by them; where the kernel carries them, many go with one system call. Waits for room as long as it takes. Returns
    /// how many were sent.
    ///
    /// # Errors
    /// As [`send`](Self::send), together with how many had been sent until then: all before the one that failed.
    pub fn send_many<'m, M: Into<Outgoing<'m>>>(
        &mut self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<usize, PartialSend> {
        /// Publishes what was sent, also when `messages` panics: later messages would wait for it.
        struct Batch<'a>(&'a mut Sender);
        impl Drop for Batch<'_> {
            fn drop(&mut self) {
                self.0.end.publish();
            }
        }

        if let End::Carried(outward) = &mut self.end {
            return send_batch(outward, messages);
        }
        let batch = Batch(self);
        let mut sent = 0;
        for message in messages {
            let message = message.into();
            let room = batch.0.end.room(message.payload.len(), None);
            let room = room.map_err(|error| PartialSend { sent, error })?;
            batch.0.end.copy_in(&room, message.payload);
            batch.0.end.commit_in_batch(room, message.payload.len(), message.tag);
            sent += 1;
        }
        Ok(sent)
    }

    /// Waits until nothing is left here of a message that was too large to go at once. Rings never leave anything.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout); after [`Timeout`](SendError::Timeout) it can be called again.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), SendError> {
        match &mut self.end {
            End::Carried(outward) => outward.hand_over(false, deadline_in(timeout)),
            End::Spsc(_) | End::Mpmc(_) => Ok(()),
        }
    }

    /// As [`flush`](Self::flush), and has the receiver know that nothing follows, which is told anyway when the sender is
    /// dropped: but that waits for room for a second at most, after which the receiver takes this end for dead. Where the kernel
    /// carries messages, sending fails with [`Closed`](SendError::Closed) from then on.
    ///
    /// ```
    /// use ringway::{Address, Options, SendError};
    /// use std::time::Duration;
    ///
    /// let (sender, receiver) = Options::new().pair(&"pipe:".parse::<Address>()?)?;
    /// let (mut sender, mut receiver) = (sender.sender()?, receiver.receiver()?);
    /// sender.send(b"the last one")?;
    /// sender.finish(Duration::from_secs(10))?;
    /// assert_eq!(sender.send(b"no more"), Err(SendError::Closed));
    /// assert_eq!(receiver.messages().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn finish(&mut self, timeout: Duration) -> Result<(), SendError> {
        match &mut self.end {
            End::Carried(outward) => outward.hand_over(true, deadline_in(timeout)),
            End::Spsc(_) | End::Mpmc(_) => Ok(()),
        }
    }

    /// Room for a message of up to `len` bytes, to be built in a private buffer and sent by [`commit`](SendGrant::commit). In a
    /// ring, waits for it as long as it takes; elsewhere it is commit that waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn reserve(&mut self, len: usize) -> Result<SendGrant<'_>, SendError> {
        let space = match &self.end {
            End::Carried(outward) => {
                outward.check(len)?;
                Space::Carried(len)
            }
            _ => Space::Ring(self.end.room(len, None)?),
        };
        Ok(self.grant(space))
    }

    /// Room for a message of up to `len` bytes if there is some now, for [`Sender::grant`]: elsewhere than in a ring, when nothing is left of the
    /// messages before.
    #[cfg(feature = "async")]
    pub(crate) fn try_space(&mut self, len: usize) -> Result<Space, SendError> {
        match &mut self.end {
            End::Carried(outward) => {
                outward.check(len)?;
                outward.try_flush()?;
                Ok(Space::Carried(len))
            }
            end => end.try_room(len).map(Space::Ring),
        }
    }

    /// A buffer for that room.
    pub(crate) fn grant(&mut self, space: Space) -> SendGrant<'_> {
        if self.buffer.len() < space.length() {
            self.buffer.resize(space.length(), 0);
        }
        SendGrant { sender: self, space, tag: 0 }
    }

    /// Whether it is a ring's, which tells of whoever receives.
    #[cfg(feature = "async")]
    pub(crate) fn is_of_ring(&self) -> bool {
        !matches!(self.end, End::Carried(_))
    }

    /// As [`flush`](Self::flush), or [`finish`](Self::finish) if nothing follows; [`Full`](SendError::Full) if that isn't done at once.
    #[cfg(feature = "async")]
    pub(crate) fn try_hand_over(&mut self, last: bool) -> Result<(), SendError> {
        match &mut self.end {
            End::Carried(outward) if last => outward.try_finish(),
            End::Carried(outward) => outward.try_flush(),
            End::Spsc(_) | End::Mpmc(_) => Ok(()),
        }
    }

    #[inline(always)]
    fn send_until(&mut self, message: Outgoing<'_>, deadline: Option<Duration>) -> Result<u64, SendError> {
        if let End::Carried(outward) = &mut self.end {
            return outward.send(message, deadline);
        }
        let room = self.end.room(message.payload.len(), deadline)?;
        Ok(self.fill(room, message))
    }

    #[inline(always)]
    fn fill(&mut self, room: Room, message: Outgoing<'_>) -> u64 {
        self.end.copy_in(&room, message.payload);
        self.end.commit(room, message.payload.len(), message.tag)
    }
}

impl Watched for Sender {
    fn watch(&mut self) -> crate::error::Result<Arc<Watch>> {
        match &mut self.end {
            End::Spsc(producer) => producer.watch(),
            End::Mpmc(producer) => producer.watch(),
            End::Carried(outward) => outward.watch_shared(),
        }
    }
}

fn send_batch<'m, M: Into<Outgoing<'m>>>(
    outward: &mut Outward,
    messages: impl IntoIterator<Item = M>,
) -> Result<usize, PartialSend> {
    let mut sent = 0;
    for message in messages {
        if let Err(error) = outward.add(message.into()) {
            // Those before it go, if they can.
            let lost = outward.flush().map_or_else(|(_, lost)| lost, |()| 0);
            return Err(PartialSend { sent: sent - lost, error });
        }
        sent += 1;
    }
    outward.flush().map_err(|(error, lost)| PartialSend { sent: sent - lost, error })?;
    Ok(sent)
}

/// A private buffer for one message, with room for it in the channel. Dropping it sends nothing.
#[derive(Debug)]
#[must_use = "nothing is sent without commit"]
pub struct SendGrant<'a> {
    sender: &'a mut Sender,
    space: Space,
    tag: u32,
}

impl SendGrant<'_> {
    /// Marks the message with a number of the user's own; 0 unless said.
    pub fn set_tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Sends the first `used` bytes, or all if `used` is more, and returns the message's sequence.
    ///
    /// # Errors
    /// [`Fenced`](SendError::Fenced) in a forked child, since the grant is its parent's, and none else in a ring. Elsewhere as
    /// [`Sender::send`].
    pub fn commit(self, used: usize) -> Result<u64, SendError> {
        let used = used.min(self.len());
        let Sender { end, buffer, .. } = &mut *self.sender;
        match (self.space, end) {
            (Space::Carried(_), End::Carried(outward)) => {
                outward.send(Outgoing { payload: &buffer[..used], tag: self.tag }, None)
            }
            (Space::Ring(room), end) if end.is_usable() => {
                end.copy_in(&room, &buffer[..used]);
                Ok(end.commit(room, used, self.tag))
            }
            _ => Err(SendError::Fenced),
        }
    }

    /// [`commit`](Self::commit) that doesn't wait: what there is no room for is kept, for [`Sender::try_hand_over`].
    #[cfg(feature = "async")]
    pub(crate) fn commit_at_once(self, used: usize) -> Result<(), SendError> {
        let used = used.min(self.len());
        if let (Space::Carried(_), Sender { end: End::Carried(outward), buffer, .. }) = (self.space, &mut *self.sender)
        {
            return outward.send_or_keep(Outgoing { payload: &buffer[..used], tag: self.tag });
        }
        self.commit(used).map(drop)
    }
}

impl Deref for SendGrant<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.sender.buffer[..self.space.length()]
    }
}

impl DerefMut for SendGrant<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.sender.buffer[..self.space.length()]
    }
}

/// A batch of which not all messages were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialSend {
    /// How many were sent: the first ones.
    pub sent: usize,
    /// Why the next one was not.
    pub error: SendError,
}

impl fmt::Display for PartialSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} messages", self.error, self.sent)
    }
}

impl error::Error for PartialSend {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
impl Sender {
    /// The end where the kernel carries the messages.
    pub(super) fn outward(&mut self) -> &mut Outward {
        match &mut self.end {
            End::Carried(outward) => outward,
            end => panic!("{end:?}"),
        }
    }
}
