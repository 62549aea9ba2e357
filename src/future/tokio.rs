//! Endpoints for tokio.
//!
//! ```
//! use ringway::{Address, Options, RecvError};
//! use ringway::tokio::{Receiver, Sender};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address: Address = format!("shm:///example-tokio-{}", std::process::id()).parse()?;
//! let mut receiver = Receiver::new(Options::new().receiver(&address)?)?;
//! let mut sender = Sender::new(Options::new().sender(&address)?)?;
//!
//! let sending = tokio::spawn(async move {
//!     sender.send(b"hello").await?;
//!     let mut grant = sender.reserve(5).await?;
//!     grant.copy_from_slice(b"again");
//!     grant.commit(5)
//! });
//! assert_eq!(&receiver.recv().await?[..], b"hello");
//! assert_eq!(&receiver.recv().await?[..], b"again");
//! sending.await??;
//! assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
//! # Ok(())
//! # }
//! ```
//!
//! # Zero-copy endpoints
//! Their descriptor goes into tokio's `AsyncFd`. The order is what counts: forget the readiness that a wait has returned, and *then* try until there is
//! nothing.
//!
//! ```
//! use ringway::{Options, RecvError, Wait, spsc};
//! use tokio::io::{Interest, unix::AsyncFd};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut producer, mut consumer) = spsc::channel(&Options::new().wait(Wait::Eventfd))?;
//! // SAFETY: a Pollable has one descriptor for life, and keeps it open.
//! let descriptor = unsafe { AsyncFd::register_with_interest(consumer.pollable()?, Interest::READABLE)? };
//! let sending = tokio::spawn(async move {
//!     tokio::task::yield_now().await;
//!     let mut grant = producer.try_reserve(5)?;
//!     grant.copy_from_slice(b"hello");
//!     Ok::<_, ringway::SendError>(grant.commit(5))
//! });
//! let length = loop {
//!     match consumer.try_recv() {
//!         // A reference into the ring: not to be held across an await, which would keep its room.
//!         Ok(message) => break message.len(),
//!         Err(RecvError::Empty) => descriptor.readable().await?.clear_ready(),
//!         Err(error) => return Err(error.into()),
//!     }
//! };
//! assert_eq!(length, 5);
//! sending.await??;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;

use super::readiness::Readiness;
use crate::wait::Pollable;

/// A [receiver](super::Receiver) on tokio.
///
/// It is [made](super::Receiver::new) in the context of a runtime, which is an error elsewhere; one that was built without
/// [`enable_io`](::tokio::runtime::Builder::enable_io) makes tokio panic.
pub type Receiver = super::Receiver<Registration>;

/// A [sender](super::Sender) on tokio.
///
/// It is [made](super::Sender::new) in the context of a runtime, which is an error elsewhere; one that was built without
/// [`enable_io`](::tokio::runtime::Builder::enable_io) makes tokio panic.
pub type Sender = super::Sender<Registration>;

/// A descriptor that tokio looks after.
#[derive(Debug)]
pub struct Registration(AsyncFd<Pollable>);

impl Readiness for Registration {
    fn register(pollable: Pollable) -> io::Result<Self> {
        // What is made elsewhere panics.
        Handle::try_current().map_err(io::Error::other)?;
        // SAFETY: a Pollable has one descriptor for life, and keeps it open.
        Ok(Self(unsafe { AsyncFd::register_with_interest(pollable, Interest::READABLE) }?))
    }

    fn forget(&mut self, _: &mut Context<'_>) {
        // An attempt that would block is what makes it forget; none is made unless there is something to forget.
        let _ = self.0.try_io(Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx).map_ok(drop)
    }
}
