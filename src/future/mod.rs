//! Endpoints for tasks: `recv().await`, `reserve(len).await`, streams and sinks, on any runtime.
//!
//! [`Receiver`] and [`Sender`] take the endpoints that [`Options`](crate::Options) open, of any transport that can be polled
//! ([`Capabilities::pollable`](crate::transport::Capabilities::pollable), and rings but those with [`Wait::Spin`](crate::Wait::Spin)). All that they need of a
//! runtime is in [`Readiness`]; `ringway::tokio` has it for tokio, and `ringway::async_io` for async-io, which is smol's. Opening an endpoint may block:
//! do that before, or where the runtime has blocking work done.
//!
//! Where messages are there already, nothing here makes a system call, as long as none is made to a peer that sleeps.
//!
//! There is nothing like this for the zero-copy endpoints, whose grants are references into the ring. Their `pollable()` gives a descriptor, for
//! what each runtime has for foreign descriptors: `ringway::tokio` shows it.

#[cfg(feature = "async-io")]
pub mod async_io;
mod poller;
mod readiness;
mod receiver;
mod sender;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use readiness::Readiness;
pub use receiver::{Event, Receiver};
pub use sender::{Grant, Sender};
