//! The way of connections from the thread that made them to the receiver.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::channel::Framing;
use crate::sys::descriptor;
use crate::transport::feed::{Door, Feed};
use crate::transport::stream::StreamFeed;

/// Connections that were settled on, on their way to the receiver.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Arc<OwnedFd>>>,
    bell: OwnedFd,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { waiting: Mutex::default(), bell: descriptor::event()? })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arc<OwnedFd>>> {
        // Nothing panics while it is locked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, link: Arc<OwnedFd>) {
        self.waiting().push_back(link);
        descriptor::set_event(self.bell.as_fd());
    }
}

/// Where the receiver gets them: one after the other, since all that a sender sent comes before what its successor sends.
#[derive(Debug)]
pub(super) struct Exit {
    queue: Arc<Queue>,
    /// The last one, as long as the receiver has it.
    current: Weak<OwnedFd>,
}

impl Exit {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, current: Weak::new() }
    }
}

impl Door for Exit {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.bell.as_fd()
    }

    fn is_open(&self) -> bool {
        // Who waits while there is one is let in when that has ended, which is an event by itself.
        self.current.strong_count() == 0
    }

    fn accept(&mut self) -> io::Result<Box<dyn Feed>> {
        let mut waiting = self.queue.waiting();
        if !self.is_open() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let link = waiting.pop_front();
        if waiting.is_empty() {
            descriptor::unset_event(self.queue.bell.as_fd());
        }
        match link {
            Some(link) => {
                self.current = Arc::downgrade(&link);
                Ok(Box::new(StreamFeed::new(link, Framing::Frames)))
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn close(&mut self) {
        for link in self.queue.waiting().drain(..) {
            StreamFeed::new(link, Framing::Frames).close();
        }
    }
}
