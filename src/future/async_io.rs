//! Endpoints for async-io, which smol is made of, and for any executor beside it: async-io brings its own thread.
//!
//! ```
//! use ringway::{Address, Options, RecvError};
//! use ringway::async_io::{Receiver, Sender};
//!
//! let address: Address = format!("shm:///example-async-io-{}", std::process::id()).parse()?;
//! let mut receiver = Receiver::new(Options::new().receiver(&address)?)?;
//! let mut sender = Sender::new(Options::new().sender(&address)?)?;
//!
//! async_io::block_on(async {
//!     sender.send(b"hello").await?;
//!     let mut grant = sender.reserve(5).await?;
//!     grant.copy_from_slice(b"again");
//!     grant.commit(5)?;
//!     assert_eq!(&receiver.recv().await?[..], b"hello");
//!     assert_eq!(&receiver.recv().await?[..], b"again");
//!     drop(sender);
//!     assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::task::{Context, Poll};

use ::async_io::Async;

use super::readiness::Readiness;
use crate::wait::Pollable;

/// A [receiver](super::Receiver) on async-io. It can be made anywhere.
pub type Receiver = super::Receiver<Registration>;

/// A [sender](super::Sender) on async-io. It can be made anywhere.
pub type Sender = super::Sender<Registration>;

/// A descriptor that async-io looks after.
#[derive(Debug)]
pub struct Registration {
    descriptor: Async<Pollable>,
    /// A report was asked for, and it was not seen to come.
    is_asked: bool,
}

impl Readiness for Registration {
    fn register(pollable: Pollable) -> io::Result<Self> {
        // It never reads or writes the descriptor, whose mode stays as it is.
        Ok(Self { descriptor: Async::new_nonblocking(pollable)?, is_asked: false })
    }

    fn forget(&mut self, cx: &mut Context<'_>) {
        // If the report has not come, it is still asked for, and for that nothing has to be done. An error will come again.
        if self.is_asked && self.descriptor.poll_readable(cx).is_ready() {
            self.is_asked = false;
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.descriptor.poll_readable(cx);
        self.is_asked = polled.is_pending();
        polled
    }
}
