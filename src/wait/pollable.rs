//! Descriptors for event loops.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::lookout;
use super::watch::Watch;
use crate::error::{Error, Result};

/// A descriptor that is readable when an endpoint has something to do: for `poll`, `select`, `epoll` and any event loop.
///
/// That of a receiver is readable when there may be a message, or an end or error to be told; that of a sender when there may be room again
/// after it was told [`Full`](crate::SendError::Full); and both when a peer came, left or died.
///
/// # The order of things
/// 1. Drain: call `try_recv` until it says [`Empty`](crate::RecvError::Empty). Before it says so it clears the descriptor,
///    announces itself to the peer and looks once more, so that nothing is missed that comes from then on.
/// 2. Wait until the descriptor is readable.
///
/// A receiver that has not been drained stays readable (level-triggered), so that stopping early costs nothing but another round. With
/// edge triggering (`EPOLLET`) draining is a duty, as always. Wait for a sender only after `Full`: that is what makes it unreadable.
/// Now and then a descriptor becomes readable for nothing.
///
/// It must not be read, written or closed through another descriptor. It stays open as long as a clone of it lives. When its
/// endpoint is gone it becomes readable, and means nothing any more.
///
/// A thread of this process looks whether peers have died, as long as there are such descriptors: at each ten times a second, less often if
/// there are more than five.
///
/// ```
/// use std::os::fd::AsFd;
/// use ringway::{Options, Wait, spsc};
///
/// let (mut producer, mut consumer) = spsc::channel(&Options::new().wait(Wait::Eventfd))?;
/// let pollable = consumer.pollable()?;
/// assert!(consumer.try_recv().is_err());
/// // Now `pollable.as_fd()` is unreadable, until
/// producer.try_reserve(5)?.commit(5);
/// # let _ = pollable.as_fd();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pollable {
    /// It keeps the descriptor open.
    #[cfg_attr(not(feature = "async"), expect(dead_code, reason = "only tasks ask it for more than to be there"))]
    watch: Arc<Watch>,
    descriptor: RawFd,
}

impl Pollable {
    pub(crate) fn new(watch: Arc<Watch>) -> Result<Self> {
        let failed = |e| {
            Error::os(e, "make a descriptor that can be polled for", "an endpoint")
                .advise("this process probably has too many files open, see `ulimit -n`")
        };
        let descriptor = watch.descriptor().map_err(failed)?.as_raw_fd();
        lookout::add(&watch).map_err(|e| {
            Error::os(e, "start the thread that looks after peers for", "an endpoint")
                .advise("this user probably has too many threads, see `ulimit -u`")
        })?;
        Ok(Self { watch, descriptor })
    }

    /// What it has been rung for is about to be looked at.
    #[cfg(feature = "async")]
    pub(crate) fn clear(&self) {
        self.watch.clear();
    }
}

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is the watch's own, which never closes it while it lives.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}
