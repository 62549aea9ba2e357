//! Sending.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_sink::Sink;

use super::poller::{Poller, errno};
use super::readiness::Readiness;
use crate::channel::{PeerEvent, SendError};
use crate::error::{Error, Result};
use crate::transport::{self, Outgoing, SendGrant, Space};
use crate::wait::Pollable;

/// A [`ringway::Sender`](crate::Sender) for tasks: waits without keeping its thread.
///
/// As a [`Sink`], takes anything that has bytes.
///
/// Every method can be cancelled: a future that is dropped before it is ready has sent nothing. What a dropped future leaves behind is a waker: the task may
/// be woken once more, for nothing.
///
/// Where the kernel carries messages, one that is too large to go at once counts as sent when its beginning went. The rest follows
/// with the next calls, and with [`flush`](Self::flush), which is to be awaited before waiting for an answer; or when the sender is dropped, which
/// then takes up to a second, and blocks. Rings never leave anything.
///
/// After 128 messages without a wait, the task lets others go first.
#[derive(Debug)]
pub struct Sender<R> {
    // It goes before the sender: nobody is to be woken by that.
    poller: Poller<R>,
    pollable: Pollable,
    sender: transport::Sender,
    /// What a sink was given while there was no room.
    held: Option<Vec<u8>>,
    /// The last poll found no room.
    wants_room: bool,
    /// The last look at the receivers found nothing new.
    wants_event: bool,
    /// What was found when the descriptor was cleared for another purpose.
    event: Option<PeerEvent>,
}

impl<R: Readiness> Sender<R> {
    /// Registers a sender with the runtime.
    ///
    /// # Errors
    /// As [`ringway::Sender::pollable`](crate::Sender::pollable): at a ring with [`Wait::Spin`](crate::Wait::Spin), and where there is nothing
    /// to poll; and what the runtime says. The sender is dropped then.
    pub fn new(mut sender: transport::Sender) -> Result<Self> {
        let pollable = sender.pollable()?;
        let registered = R::register(pollable.clone());
        let readiness = registered.map_err(|e| Error::os(e, "register with the runtime", "a sender"))?;
        let poller = Poller::new(readiness);
        Ok(Self { poller, pollable, sender, held: None, wants_room: false, wants_event: false, event: None })
    }

    /// The sender. What was given to it as a sink, and not [flushed](Self::flush), is lost if there was no room for it.
    pub fn into_inner(self) -> transport::Sender {
        self.sender
    }

    /// The sender, for what it tells of itself.
    pub fn get_ref(&self) -> &transport::Sender {
        &self.sender
    }

    /// Sends a message, for futures made by hand. When there is no room, nothing is sent, and the task is woken once there may be room.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn poll_send<'m>(
        &mut self,
        cx: &mut Context<'_>,
        message: impl Into<Outgoing<'m>>,
    ) -> Poll<Result<u64, SendError>> {
        let message = message.into();
        self.poll_until(cx, |sender| sender.try_send(message))
    }

    /// Sends a message and returns its sequence; waits for room as long as it takes. Safe to cancel: it returns as soon as the message counts as sent.
    ///
    /// # Errors
    /// As [`ringway::Sender::send`](crate::Sender::send), and [`Os`](SendError::Os) with `ECANCELED` when the runtime is shutting down.
    pub async fn send<'m>(&mut self, message: impl Into<Outgoing<'m>>) -> Result<u64, SendError> {
        let message = message.into();
        poll_fn(|cx| self.poll_send(cx, message)).await
    }

    /// [`reserve`](Self::reserve) for futures made by hand. When there is no room, the task is woken once there may be some.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn poll_reserve(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<Grant<'_>, SendError>> {
        let space = ready!(self.poll_space(cx, len))?;
        Poll::Ready(Ok(Grant(self.sender.grant(space))))
    }

    /// Room for a message of up to `len` bytes, to be built in a private buffer and sent by [`commit`](Grant::commit), which never waits. Waits for
    /// room in a ring as long as it takes; elsewhere, until nothing is left of the messages before. Safe to cancel: nothing is reserved while it waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn reserve(&mut self, len: usize) -> Result<Grant<'_>, SendError> {
        let space = poll_fn(|cx| self.poll_space(cx, len)).await?;
        Ok(Grant(self.sender.grant(space)))
    }

    /// Waits until all that was sent is handed over: of a message that was too large to go at once the rest, and what a sink was given. Safe to
    /// cancel: the next call goes on where it was.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn flush(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_hand_over(cx, false)).await
    }

    /// As [`flush`](Self::flush), and has the receiver know that nothing follows, where the kernel carries messages: as
    /// [`ringway::Sender::finish`](crate::Sender::finish). At a ring, dropping the sender tells it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn finish(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_hand_over(cx, true)).await
    }

    /// [`peer_event`](Self::peer_event) for futures made by hand. It can be polled along with one of the others, by the same task.
    ///
    /// # Errors
    /// As [`peer_event`](Self::peer_event).
    pub fn poll_peer_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<PeerEvent, SendError>> {
        if !self.sender.is_of_ring() {
            return Poll::Ready(Err(SendError::Os { errno: libc::EOPNOTSUPP }));
        }
        let Self { poller, pollable, sender, wants_room, event, .. } = self;
        let clear = |cx: &Context<'_>| {
            pollable.clear();
            // That may have been about room.
            if std::mem::take(wants_room) {
                cx.waker().wake_by_ref();
            }
        };
        let polled = poller.poll_clearing(cx, || event.take().or_else(|| sender.peer_event()), clear);
        self.wants_event = polled.is_pending();
        polled.map_err(|e| SendError::Os { errno: errno(&e) })
    }

    /// Waits until a receiver of the ring comes, leaves or dies: [`ringway::Sender::peer_event`](crate::Sender::peer_event). Safe to cancel.
    ///
    /// # Errors
    /// [`Os`](SendError::Os): with `EOPNOTSUPP` where the kernel carries messages, since its descriptors tell of room as well, and it is sending that tells of
    /// the receiver's end; with `ECANCELED` when the runtime is shutting down.
    pub async fn peer_event(&mut self) -> Result<PeerEvent, SendError> {
        poll_fn(|cx| self.poll_peer_event(cx)).await
    }

    fn poll_space(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<Space, SendError>> {
        self.poll_until(cx, |sender| sender.try_space(len))
    }

    fn poll_hand_over(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<Result<(), SendError>> {
        self.poll_until(cx, |sender| sender.try_hand_over(last))
    }

    /// What a sink holds goes first.
    #[inline]
    fn poll_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut transport::Sender) -> Result<T, SendError>,
    ) -> Poll<Result<T, SendError>> {
        let Self { poller, sender, held, .. } = self;
        let polled = poller.poll(cx, || match let_go(sender, held).and_then(|()| attempt(sender)) {
            Err(SendError::Full) => None,
            outcome => Some(outcome),
        });
        self.wants_room = polled.is_pending();
        if self.wants_room && self.wants_event {
            self.look_at_peers(cx);
        }
        polled.map(|outcome| outcome.unwrap_or_else(|e| Err(SendError::Os { errno: errno(&e) })))
    }

    /// What was cleared may have been about the receivers.
    #[cold]
    fn look_at_peers(&mut self, cx: &mut Context<'_>) {
        self.event = self.event.take().or_else(|| self.sender.peer_event());
        if self.event.is_some() {
            self.wants_event = false;
            cx.waker().wake_by_ref();
        }
    }
}

#[inline]
fn let_go(sender: &mut transport::Sender, held: &mut Option<Vec<u8>>) -> Result<(), SendError> {
    if let Some(message) = held {
        sender.try_send(&*message)?;
        *held = None;
    }
    Ok(())
}

/// A private buffer for one message, with room for it in the channel. Dropping it sends nothing.
#[derive(Debug)]
#[must_use = "nothing is sent without commit"]
pub struct Grant<'a>(SendGrant<'a>);

impl Grant<'_> {
    /// Marks the message with a number of the user's own; 0 unless said.
    pub fn set_tag(&mut self, tag: u32) {
        self.0.set_tag(tag);
    }

    /// Sends the first `used` bytes, or all if `used` is more. Never waits: where the kernel carries messages and there is no room, the message stays
    /// with the sender, and goes with the next calls.
    ///
    /// # Errors
    /// As [`SendGrant::commit`].
    pub fn commit(self, used: usize) -> Result<(), SendError> {
        self.0.commit_at_once(used)
    }
}

impl Deref for Grant<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Grant<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Holds one message back while there is no room, until it is ready for the next: if the sender is dropped before it was flushed, that one is lost.
/// Closing is [`finish`](Sender::finish).
impl<R: Readiness, T: AsRef<[u8]>> Sink<T> for Sender<R> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        match this.held {
            Some(_) => this.poll_until(cx, |_| Ok(())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), SendError> {
        let this = self.get_mut();
        let_go(&mut this.sender, &mut this.held)?;
        match this.sender.try_send(&item) {
            Err(SendError::Full) => {
                this.held = Some(item.as_ref().to_vec());
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_hand_over(cx, false)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_hand_over(cx, true)
    }
}
