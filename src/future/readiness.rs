//! What is needed of a runtime.

use std::io;
use std::task::{Context, Poll};

use crate::wait::Pollable;

/// What a runtime knows of the readiness of a descriptor: all that is needed of it.
///
/// For a runtime of your own: implement this by whatever it has for foreign descriptors, and use [`Receiver`](super::Receiver) and
/// [`Sender`](super::Sender) with that.
///
/// `forget` and `poll_ready` are called by one task at a time, and not always by the same. The last waker counts.
pub trait Readiness: Sized + Unpin {
    /// Has the runtime look after the descriptor's being readable, until this is dropped.
    ///
    /// # Errors
    /// What the runtime or the kernel says.
    fn register(pollable: Pollable) -> io::Result<Self>;

    /// The endpoint is about to be looked at: what was known up to now counts no longer. Of what becomes known from now on nothing may be
    /// forgotten. May register the waker of `cx`.
    fn forget(&mut self, cx: &mut Context<'_>);

    /// Whether the descriptor has become readable since it was [forgotten](Readiness::forget); if not, the waker of `cx` is woken when it
    /// does, or if it is already. Spurious answers and wakes cost a look at the endpoint.
    ///
    /// # Errors
    /// What the runtime says, such as that it is shutting down.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}
