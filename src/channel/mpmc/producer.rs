//! A producer's end: reserve, build in place, commit.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use crate::channel::PeerState;
use crate::channel::endpoint::{Gone, deadline_at, deadline_in};
use crate::channel::outcome::{PeerEvent, SendError};
use crate::error;
use crate::layout::LaneView;
use crate::ring::Violation;
use crate::ring::mpmc::{Place, Reservation, Ring as _, Writer};
use crate::wait::{Backoff, Look, Pollable, Watch, Watched};

/// One of those that write into a ring, through a lane of its own. Dropping it closes the ring for the consumers if it was the
/// last, once they have received everything.
#[derive(Debug)]
pub struct Producer {
    writer: Writer<LaneView>,
    end: Endpoint,
    backoff: Backoff,
    lane: u32,
    /// The words of that lane.
    words: LaneView,
}

impl Producer {
    pub(super) fn new(writer: Writer<LaneView>, end: Endpoint, backoff: Backoff, lane: u32) -> Self {
        let words = end.view.lane(lane);
        Self { writer, end, backoff, lane, words }
    }

    /// The lane through which its messages go, from 0 on: what consumers are told as
    /// [`producer`](super::ReadGrant::producer).
    pub fn lane(&self) -> u32 {
        self.lane
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.end.view.shape().max_message as usize
    }

    /// Room for a message of up to `len` bytes, if there is some now. Never blocks.
    ///
    /// # Errors
    /// [`Full`](SendError::Full), [`TooLarge`](SendError::TooLarge), [`Closed`](SendError::Closed),
    /// [`PeerDied`](SendError::PeerDied), [`Fenced`](SendError::Fenced) or [`Poisoned`](SendError::Poisoned).
    #[inline(always)]
    pub fn try_reserve(&mut self, len: usize) -> Result<WriteGrant<'_>, SendError> {
        let reservation = self.try_reservation(len)?;
        Ok(WriteGrant { producer: self, reservation, tag: 0, in_batch: false })
    }

    /// Room for a message of up to `len` bytes; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`try_reserve`](Self::try_reserve), but not `Full`.
    #[inline(always)]
    pub fn reserve(&mut self, len: usize) -> Result<WriteGrant<'_>, SendError> {
        let reservation = self.reservation(len, None)?;
        Ok(WriteGrant { producer: self, reservation, tag: 0, in_batch: false })
    }

    /// [`reserve`](Self::reserve) for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](SendError::Timeout).
    pub fn reserve_timeout(&mut self, len: usize, timeout: Duration) -> Result<WriteGrant<'_>, SendError> {
        let reservation = self.reservation(len, Some(deadline_in(timeout)))?;
        Ok(WriteGrant { producer: self, reservation, tag: 0, in_batch: false })
    }

    /// [`reserve`](Self::reserve) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](SendError::Timeout).
    pub fn reserve_deadline(&mut self, len: usize, deadline: Instant) -> Result<WriteGrant<'_>, SendError> {
        let reservation = self.reservation(len, Some(deadline_at(deadline)))?;
        Ok(WriteGrant { producer: self, reservation, tag: 0, in_batch: false })
    }

    /// Begins a batch: its messages become visible all at once, for the price of one publication.
    ///
    /// Forgetting a batch (`mem::forget`) leaves its messages, and those committed later, unpublished.
    pub fn batch(&mut self) -> WriteBatch<'_> {
        WriteBatch { producer: self }
    }

    /// The consumers, as the kernel knows them: costs system calls.
    pub fn peers(&self) -> Vec<PeerState> {
        self.end.peers()
    }

    /// What has become of consumers and was not told here yet, one thing at a time; the first is that they are there. Never blocks, but
    /// costs system calls. Independent of what sending tells.
    pub fn peer_event(&mut self) -> Option<PeerEvent> {
        self.end.peer_event()
    }

    /// A descriptor that is readable when there may be room after [`Full`](SendError::Full), or something to tell of consumers.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the ring was made with [`Wait::Spin`](crate::Wait::Spin);
    /// [`NoSpace`](crate::ErrorKind::NoSpace) without descriptors or threads.
    pub fn pollable(&mut self) -> error::Result<Pollable> {
        Pollable::new(self.watch()?)
    }

    #[inline(always)]
    pub(crate) fn try_reservation(&mut self, len: usize) -> Result<Reservation, SendError> {
        self.check(len)?;
        match self.room(len) {
            Some(reservation) => Ok(reservation),
            None => self.look_closer(len as u64),
        }
    }

    #[inline(always)]
    pub(crate) fn reservation(&mut self, len: usize, deadline: Option<Duration>) -> Result<Reservation, SendError> {
        self.check(len)?;
        match self.room(len) {
            Some(reservation) => Ok(reservation),
            None => self.wait_for_room(len as u64, deadline),
        }
    }

    /// Room, if there is some. A violation looks like none here: every closer look tells it.
    #[inline(always)]
    fn room(&mut self, len: usize) -> Option<Reservation> {
        self.writer.reserve(len as u64).ok()?
    }

    /// Room for one more message of a batch. What may be wrong besides is found when there is none, or at the commit.
    #[inline(always)]
    fn room_in_batch(&mut self, len: usize) -> Option<Reservation> {
        if self.is_usable() && len <= self.max_message() { self.room(len) } else { None }
    }

    #[inline(always)]
    fn check(&mut self, len: usize) -> Result<(), SendError> {
        self.end.check()?;
        if len > self.max_message() {
            return Err(SendError::TooLarge { max: self.max_message() });
        }
        if self.end.others_have_left() {
            return Err(SendError::Closed);
        }
        Ok(())
    }

    /// Why there is no room, unless there is some after all.
    #[cold]
    fn look_closer(&mut self, len: u64) -> Result<Reservation, SendError> {
        let look = self.end.look_when_stuck(self.writer.position());
        let Self { writer, end, .. } = self;
        look_for_room(writer, end, len, look)
            .or_else(|| end.arm(|end, look| look_for_room(writer, end, len, look)).found)
            .unwrap_or(Err(SendError::Full))
    }

    #[cold]
    fn wait_for_room(&mut self, len: u64, deadline: Option<Duration>) -> Result<Reservation, SendError> {
        // Blocking with unpublished messages could be waiting for oneself.
        self.publish();
        let Self { writer, end, backoff, .. } = self;
        backoff.caught_up(writer.position(), 1);
        match end.wait(deadline, backoff, |end, look| look_for_room(writer, end, len, look)).0 {
            Some(found) => found,
            // Waits that are all shorter than a slice must find out about the others, too.
            None => self.look_closer(len).map_err(|error| match error {
                SendError::Full => SendError::Timeout,
                error => error,
            }),
        }
    }

    /// Whether what was reserved may still be written and committed: not in a forked child, whose parent does.
    #[inline(always)]
    pub(crate) fn is_usable(&self) -> bool {
        self.end.check().is_ok()
    }

    /// The payload of a reservation, to be written by a copy that expects races.
    #[inline(always)]
    pub(crate) fn payload(&self, reservation: &Reservation) -> *mut u8 {
        match reservation.place() {
            Place::Slot(slot) => self.words.chunk(slot).as_ptr(),
            place => self.end.view.payload(self.lane, place).as_ptr(),
        }
    }

    #[inline(always)]
    pub(crate) fn commit(&mut self, reservation: Reservation, used: usize, tag: u32) -> u64 {
        if !self.is_usable() {
            return 0;
        }
        let sequence = self.writer.commit(reservation, used as u64, tag);
        self.end.wake_consumer();
        sequence
    }

    #[inline(always)]
    pub(crate) fn commit_in_batch(&mut self, reservation: Reservation, used: usize, tag: u32) -> u64 {
        if !self.is_usable() {
            return 0;
        }
        self.writer.commit_in_batch(reservation, used as u64, tag)
    }

    pub(crate) fn publish(&mut self) -> bool {
        if !self.is_usable() {
            return false;
        }
        let any = self.writer.publish();
        if any {
            self.end.wake_consumer();
        }
        any
    }
}

impl Watched for Producer {
    fn watch(&mut self) -> error::Result<Arc<Watch>> {
        self.end.watch()
    }
}

fn look_for_room(
    writer: &mut Writer<LaneView>,
    end: &mut Endpoint,
    len: u64,
    look: Look,
) -> Option<Result<Reservation, SendError>> {
    match writer.reserve(len) {
        Ok(Some(reservation)) => return Some(Ok(reservation)),
        _ if look == Look::Quick => return None,
        Ok(None) => {}
        Err(Violation) => return Some(Err(poison(end))),
    }
    let gone = end.others_are_gone(look);
    // What the dead held may have been given back just now.
    if look >= Look::Lock
        && let Ok(Some(reservation)) = writer.reserve(len)
    {
        return Some(Ok(reservation));
    }
    gone.then(|| {
        Err(match end.tell() {
            Ok(Gone::Left) => SendError::Closed,
            Ok(Gone::Died) => SendError::PeerDied,
            Err(unusable) => unusable.into(),
        })
    })
}

#[cold]
fn poison(end: &mut Endpoint) -> SendError {
    end.poison();
    SendError::Poisoned
}

/// Room for one message in the ring. [`commit`](Self::commit) sends it; dropping the grant sends nothing.
#[derive(Debug)]
#[must_use = "nothing is sent without commit"]
pub struct WriteGrant<'a> {
    producer: &'a mut Producer,
    reservation: Reservation,
    tag: u32,
    in_batch: bool,
}

impl WriteGrant<'_> {
    /// Marks the message with a number of the user's own; 0 unless said.
    #[inline(always)]
    pub fn set_tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Sends the first `used` bytes, or all if `used` is more, and returns the message's sequence: its number among all
    /// messages of the lane, from 0.
    ///
    /// The message is published before this returns, with release ordering, except inside a batch. In a forked child it
    /// sends nothing: the grant is its parent's, and so are the bytes, which a child must not write.
    #[inline(always)]
    pub fn commit(self, used: usize) -> u64 {
        if self.in_batch {
            self.producer.commit_in_batch(self.reservation, used, self.tag)
        } else {
            self.producer.commit(self.reservation, used, self.tag)
        }
    }
}

impl Deref for WriteGrant<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the reserved bytes are contiguous, mapped while the producer lives, initialised (by the segment's
        // creator at the latest), and by the ring's protocol nobody else's until commit: the promise of
        // `assume_trusted_peers`, or of a heap ring, which no other process can see.
        unsafe {
            std::slice::from_raw_parts(self.producer.payload(&self.reservation), self.reservation.length() as usize)
        }
    }
}

impl DerefMut for WriteGrant<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the grant is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(self.producer.payload(&self.reservation), self.reservation.length() as usize)
        }
    }
}

/// Messages that become visible together. Dropping the batch sends none of them.
#[derive(Debug)]
#[must_use = "nothing is sent without publish"]
pub struct WriteBatch<'a> {
    producer: &'a mut Producer,
}

impl WriteBatch<'_> {
    /// Room for one more message, if there is some now. Never blocks.
    ///
    /// # Errors
    /// As [`Producer::try_reserve`]. The batch's own messages count as occupying the ring.
    #[inline(always)]
    pub fn try_reserve(&mut self, len: usize) -> Result<WriteGrant<'_>, SendError> {
        let reservation = match self.producer.room_in_batch(len) {
            Some(reservation) => reservation,
            None => self.producer.try_reservation(len)?,
        };
        Ok(WriteGrant { producer: self.producer, reservation, tag: 0, in_batch: true })
    }

    /// Room for one more message. If it has to wait, it first publishes what the batch has so far.
    ///
    /// # Errors
    /// As [`Producer::reserve`].
    #[inline(always)]
    pub fn reserve(&mut self, len: usize) -> Result<WriteGrant<'_>, SendError> {
        let reservation = match self.producer.room_in_batch(len) {
            Some(reservation) => reservation,
            None => self.producer.reservation(len, None)?,
        };
        Ok(WriteGrant { producer: self.producer, reservation, tag: 0, in_batch: true })
    }

    /// Publishes the batch with release ordering, and says whether there was anything to publish.
    #[inline]
    pub fn publish(self) -> bool {
        self.producer.publish()
    }
}

impl Drop for WriteBatch<'_> {
    fn drop(&mut self) {
        // In a forked child the batch is the parent's.
        if self.producer.is_usable() {
            self.producer.writer.abandon();
        }
    }
}
