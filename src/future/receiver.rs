//! Receiving.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::poller::{Poller, errno};
use super::readiness::Readiness;
use crate::channel::{PeerEvent, RecvError};
use crate::error::{Error, Result};
use crate::transport::{self, Batch, Delivery, Message, Taken};

/// A [`ringway::Receiver`](crate::Receiver) for tasks: waits without keeping its thread.
///
/// As a [`Stream`], yields each message in a vector of its own, until the sender has left.
///
/// Every method can be cancelled: a future that is dropped before it is ready has taken nothing, and the next call receives what there is. What a
/// dropped future leaves behind is a waker: the task may be woken once more, for nothing.
///
/// After 128 messages without a wait, the task lets others go first.
#[derive(Debug)]
pub struct Receiver<R> {
    // It goes before the receiver: nobody is to be woken by that.
    poller: Poller<R>,
    receiver: transport::Receiver,
    /// An error that stays was yielded.
    ended: bool,
}

/// What a receiver can hear of: see [`Receiver::event`].
#[derive(Debug)]
pub enum Event<'a> {
    /// A message.
    Message(Message<'a>),
    /// A sender came, left or died.
    Peer(PeerEvent),
}

/// An [`Event`], of which the message is not lent out yet: what is borrowed could not be returned from a loop.
enum Seen {
    Taken(Taken),
    Peer(PeerEvent),
}

impl<R: Readiness> Receiver<R> {
    /// Registers a receiver with the runtime.
    ///
    /// # Errors
    /// As [`ringway::Receiver::pollable`](crate::Receiver::pollable): at a ring with [`Wait::Spin`](crate::Wait::Spin), and where there is nothing
    /// to poll; and what the runtime says. The receiver is dropped then.
    pub fn new(mut receiver: transport::Receiver) -> Result<Self> {
        let registered = R::register(receiver.pollable()?);
        let readiness = registered.map_err(|e| Error::os(e, "register with the runtime", "a receiver"))?;
        Ok(Self { poller: Poller::new(readiness), receiver, ended: false })
    }

    /// The receiver. Nothing gets lost.
    pub fn into_inner(self) -> transport::Receiver {
        self.receiver
    }

    /// The receiver, for what it tells of itself.
    pub fn get_ref(&self) -> &transport::Receiver {
        &self.receiver
    }

    /// The receiver: for [`select`](crate::Receiver::select) and all that never blocks. What blocks does so here, too.
    pub fn get_mut(&mut self) -> &mut transport::Receiver {
        &mut self.receiver
    }

    /// The next message, for futures made by hand. When there is none, the task is woken once there may be one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message<'_>, RecvError>> {
        let taken = ready!(self.poll_take(cx))?;
        Poll::Ready(Ok(self.receiver.message(taken)))
    }

    /// The next message; waits for it as long as it takes. Safe to cancel: what was not returned is received by the next call.
    ///
    /// The message counts as received when it is dropped. Until then this receiver can't be used; copy it, or drop it, before awaiting anything that
    /// takes long.
    ///
    /// # Errors
    /// As [`ringway::Receiver::recv`](crate::Receiver::recv), and [`Os`](RecvError::Os) with `ECANCELED` when the runtime is shutting down.
    pub async fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        let taken = poll_fn(|cx| self.poll_take(cx)).await?;
        Ok(self.receiver.message(taken))
    }

    /// Waits for a message, then yields up to `max` that are there, which count as received together: as
    /// [`ringway::Receiver::recv_batch`](crate::Receiver::recv_batch). Safe to cancel: nothing is taken while it waits.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_batch(&mut self, max: usize) -> Result<Batch<'_>, RecvError> {
        self.until_filled().await?;
        self.receiver.recv_batch(max)
    }

    /// Waits for a message, then passes up to `max` that are there to `handle`, and returns how many: as
    /// [`ringway::Receiver::recv_many`](crate::Receiver::recv_many). Safe to cancel: `handle` is only called when this is about to return.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_many(&mut self, max: usize, handle: impl FnMut(&[u8], Delivery)) -> Result<usize, RecvError> {
        self.until_filled().await?;
        self.receiver.recv_many(max, handle)
    }

    /// [`event`](Self::event) for futures made by hand.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event<'_>, RecvError>> {
        let seen = ready!(self.poll_see(cx))?;
        Poll::Ready(Ok(self.event_of(seen)))
    }

    /// The next message, or if there is none what has become of a sender: [`ringway::Receiver::peer_event`](crate::Receiver::peer_event). Safe to
    /// cancel: nothing was taken by a future that did not return it.
    ///
    /// That a sender has left or died is told twice: as an event, and as an error.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn event(&mut self) -> Result<Event<'_>, RecvError> {
        let seen = poll_fn(|cx| self.poll_see(cx)).await?;
        Ok(self.event_of(seen))
    }

    fn event_of(&mut self, seen: Seen) -> Event<'_> {
        match seen {
            Seen::Taken(taken) => Event::Message(self.receiver.message(taken)),
            Seen::Peer(event) => Event::Peer(event),
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Taken, RecvError>> {
        self.poll_until(cx, transport::Receiver::try_take)
    }

    /// Asks for what has become of the senders behind the try, which clears what they have rung.
    fn poll_see(&mut self, cx: &mut Context<'_>) -> Poll<Result<Seen, RecvError>> {
        self.poll_until(cx, |receiver| match receiver.try_take() {
            Err(RecvError::Empty) => receiver.peer_event().map(Seen::Peer).ok_or(RecvError::Empty),
            taken => taken.map(Seen::Taken),
        })
    }

    /// Waits for a message, which stays the next one.
    async fn until_filled(&mut self) -> Result<(), RecvError> {
        poll_fn(|cx| self.poll_until(cx, transport::Receiver::try_peek)).await
    }

    #[inline]
    fn poll_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&mut transport::Receiver) -> Result<T, RecvError>,
    ) -> Poll<Result<T, RecvError>> {
        let Self { poller, receiver, .. } = self;
        let polled = poller.poll(cx, || match attempt(receiver) {
            Err(RecvError::Empty) => None,
            outcome => Some(outcome),
        });
        polled.map(|outcome| outcome.unwrap_or_else(|e| Err(RecvError::Os { errno: errno(&e) })))
    }
}

/// Ends when the sender has left, and after an error that will stay. After the end, as after other errors, it can be polled again, for what a successor
/// sends.
impl<R: Readiness> Stream for Receiver<R> {
    type Item = Result<Vec<u8>, RecvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let received = ready!(this.poll_recv(cx)).map(|message| message.to_vec());
        Poll::Ready(match received {
            Err(RecvError::Closed) => None,
            received => {
                this.ended = matches!(received, Err(RecvError::Fenced | RecvError::Poisoned));
                Some(received)
            }
        })
    }
}
