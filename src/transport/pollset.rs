//! One descriptor for everything that an endpoint waits for.
//!
//! It is an epoll instance that the endpoint keeps in step with its connections, and it is readable while anything in it is. Most of
//! what may be there the kernel shows by itself, until it is read. The rest shows by a *nudge*, an eventfd in the same instance: what
//! was read together with the last message, was put back, or has to be told again. It is set when something is handed out and more
//! may follow, and taken back when [`Empty`](crate::RecvError::Empty) is said: so whoever polls levels may stop after each message, and
//! whoever polls edges goes on until `Empty`, after which all that comes is another edge. Nobody but the endpoint itself sets or takes
//! back the nudge, in the order of what it says, so that none is lost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;
use crate::sys::epoll::{Epoll, Interest};
use crate::wait::{Side, Watch};

/// What a watched receiver has.
#[derive(Debug)]
pub(super) struct PollSet {
    epoll: Arc<Epoll>,
    nudge: OwnedFd,
    is_nudged: bool,
}

impl PollSet {
    /// Ready from the beginning, since nobody has looked yet what is there.
    pub(super) fn new() -> io::Result<Self> {
        let mut set = Self { epoll: Arc::new(Epoll::new()?), nudge: descriptor::event()?, is_nudged: false };
        set.epoll.add(set.nudge.as_fd(), Interest::READ, 0)?;
        set.nudge();
        Ok(set)
    }

    pub(super) fn epoll(&self) -> &Arc<Epoll> {
        &self.epoll
    }

    /// It is ready until [calmed](Self::calm).
    pub(super) fn nudge(&mut self) {
        if !self.is_nudged {
            self.nudge_again();
        }
    }

    /// The same, and an edge in any case.
    #[cold]
    pub(super) fn nudge_again(&mut self) {
        descriptor::set_event(self.nudge.as_fd());
        self.is_nudged = true;
    }

    /// It is ready only if something in it is.
    pub(super) fn calm(&mut self) {
        if std::mem::take(&mut self.is_nudged) {
            descriptor::unset_event(self.nudge.as_fd());
        }
    }
}

/// What an endpoint shares with those who wait for it along with others, where the kernel shows most of what there is.
#[derive(Debug)]
pub(super) struct Shared {
    watch: Arc<Watch>,
    /// It had to look by itself: then it may have been rung for that at any time since.
    was_restless: bool,
}

impl Shared {
    /// By what it shows; none if it can't be polled.
    pub(super) fn new(side: Side, shown: io::Result<Option<Arc<OwnedFd>>>) -> Result<Self> {
        let failed = |e: io::Error| {
            Error::os(e, "make a descriptor that can be polled for", "an endpoint").advise(
                "this process probably has too many files open, see `ulimit -n`, or this user too many descriptors in epoll \
                 instances, see /proc/sys/fs/epoll/max_user_watches",
            )
        };
        let shown = shown.map_err(failed)?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "poll", "an endpoint").advise(
                "the kernel has no descriptor for it: capabilities and docs/transports.md say where there is one",
            )
        })?;
        let watch = Watch::carried(side, shown, true).map_err(failed)?;
        watch.hold(0, false);
        Ok(Self { watch: Arc::new(watch), was_restless: false })
    }

    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Nothing was found: whether that is to be made sure of now by a look who is gone.
    pub(super) fn is_suspicious(&self) -> bool {
        if !self.was_restless {
            return false;
        }
        // In this order: who rings later is heard the next time.
        self.watch.clear();
        self.watch.take_suspicion()
    }

    /// It is said that there is nothing. Somebody may have to ring once per slice, since not everything shows.
    pub(super) fn hold(&mut self, must_look: bool) {
        if self.was_restless || must_look {
            self.was_restless = true;
            self.watch.hold(0, must_look);
        }
    }
}
