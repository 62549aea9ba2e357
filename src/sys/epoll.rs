//! Epoll instances: many descriptors behind one, which can be polled itself.
//!
//! An instance refers to open file descriptions and not to numbers: what a forked child still has open stays in it after it was
//! closed here, so whatever goes must be [deleted](Epoll::delete) first. A child shares the instance itself, too: whoever may run in
//! one must not change it there.
//!
//! Limits: a user may have as many descriptors in instances as `/proc/sys/fs/epoll/max_user_watches` says, 4 % of the memory
//! unless told: beyond that [`Epoll::add`] fails with `ENOSPC`. Instances in instances may be five deep, and not in a circle: `ELOOP`.
//! What is always ready, files and directories, can't be added: `EPERM`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::{check, clock};

/// What to be told of. An error or a hang-up is told whatever was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Once for each change, and not as long as it is so.
    pub(crate) edge: bool,
}

impl Interest {
    pub(crate) const READ: Self = Self { read: true, write: false, edge: false };
    pub(crate) const WRITE: Self = Self { read: false, write: true, edge: false };

    pub(crate) fn on_edge(self) -> Self {
        Self { edge: true, ..self }
    }

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags.set(EventFlags::ET, self.edge);
        flags
    }
}

/// Room for what one [`Epoll::wait`] finds.
pub(crate) struct Events {
    found: Vec<libc::epoll_event>,
    count: usize,
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// What it was added with.
    pub(crate) data: u64,
    /// It can be read, also because it has come to its end or failed.
    pub(crate) is_readable: bool,
    /// It can be written, or that fails.
    pub(crate) is_writable: bool,
}

impl Events {
    pub(crate) fn with_capacity(most: usize) -> Self {
        Self { found: vec![libc::epoll_event { events: 0, u64: 0 }; most.max(1)], count: 0 }
    }

    /// What the last wait found.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Event> {
        self.found[..self.count].iter().map(|event| {
            let (events, data) = (event.events.cast_signed(), event.u64);
            let has = |flags| events & flags != 0;
            let is_broken = has(libc::EPOLLERR | libc::EPOLLHUP);
            Event { data, is_readable: is_broken || has(libc::EPOLLIN), is_writable: is_broken || has(libc::EPOLLOUT) }
        })
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: Arc<OwnedFd>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { fd: Arc::new(epoll::create(CreateFlags::CLOEXEC)?) })
    }

    /// Readable while anything in it is ready.
    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(crate) fn add(&self, fd: BorrowedFd, interest: Interest, data: u64) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, EventData::new_u64(data), interest.flags())?)
    }

    /// To be done before it is closed, see above.
    pub(crate) fn delete(&self, fd: BorrowedFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Sleeps until something in it is ready, or the monotonic `deadline`, and says how much is. A signal ends it with
    /// [`Interrupted`](io::ErrorKind::Interrupted).
    pub(crate) fn wait(&self, events: &mut Events, deadline: Option<Duration>) -> io::Result<usize> {
        static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

        events.count = 0;
        let fd = self.fd.as_fd().as_raw_fd();
        let (room, most) = (events.found.as_mut_ptr(), events.found.len().try_into().unwrap_or(libc::c_int::MAX));
        let left = deadline.map(|deadline| deadline.saturating_sub(clock::now()));
        // Relaxed, here and below: a flag that guards no other memory.
        if !IS_UNKNOWN.load(Ordering::Relaxed) {
            // As the kernel has it on every machine.
            let left = left.map(|left| [left.as_secs().min(i64::MAX as u64), left.subsec_nanos().into()]);
            let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let no_mask: *const libc::sigset_t = std::ptr::null();
            // SAFETY: there is room for `most` events, and the time, if any, outlives the call; no mask is given.
            let answer = unsafe { libc::syscall(libc::SYS_epoll_pwait2, fd, room, most, left, no_mask, 0_usize) };
            match check(answer as libc::c_int) {
                // Since Linux 5.11; sandboxes that are older refuse what they don't know in their own ways.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    IS_UNKNOWN.store(true, Ordering::Relaxed);
                }
                answer => {
                    events.count = answer? as usize;
                    return Ok(events.count);
                }
            }
        }
        // Rounded up, lest it comes back before the deadline again and again.
        let left = left.map_or(-1, |left| left.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX));
        // SAFETY: as above.
        events.count = check(unsafe { libc::epoll_wait(fd, room, most, left) })? as usize;
        Ok(events.count)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use crate::sys::descriptor::{self, Ready};

    fn found(epoll: &Epoll) -> Vec<Event> {
        let mut events = Events::with_capacity(8);
        let count = epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        let found: Vec<Event> = events.iter().collect();
        assert_eq!(found.len(), count);
        found
    }

    #[test]
    fn levels_last_and_edges_come_once() {
        let (level, edge) = (descriptor::event().unwrap(), descriptor::event().unwrap());
        let epoll = Epoll::new().unwrap();
        epoll.add(level.as_fd(), Interest::READ, u64::MAX).unwrap();
        epoll.add(edge.as_fd(), Interest::READ.on_edge(), 7).unwrap();
        assert_eq!(found(&epoll), []);
        assert!(!descriptor::is_ready(epoll.as_fd(), Ready::Read).unwrap());
        descriptor::set_event(level.as_fd());
        descriptor::set_event(edge.as_fd());
        assert!(descriptor::is_ready(epoll.as_fd(), Ready::Read).unwrap());
        let event = |data| Event { data, is_readable: true, is_writable: false };
        assert_eq!(found(&epoll), [event(u64::MAX), event(7)]);
        assert_eq!(found(&epoll), [event(u64::MAX)]);
        descriptor::set_event(edge.as_fd());
        assert_eq!(found(&epoll).len(), 2, "the next edge");
        epoll.delete(level.as_fd()).unwrap();
        assert_eq!(found(&epoll), []);
        epoll.add(level.as_fd(), Interest::WRITE, 1).unwrap();
        assert_eq!(found(&epoll), [Event { data: 1, is_readable: false, is_writable: true }]);
    }

    #[test]
    fn a_broken_descriptor_is_ready_for_everything() {
        let (reader, writer) = descriptor::pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(writer.as_fd(), Interest::default(), 3).unwrap();
        assert_eq!(found(&epoll), []);
        drop(reader);
        assert_eq!(found(&epoll), [Event { data: 3, is_readable: true, is_writable: true }]);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(1);
        for wait in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(20)] {
            let deadline = clock::now() + wait;
            assert_eq!(epoll.wait(&mut events, Some(deadline)).unwrap(), 0);
            assert!(clock::now() >= deadline, "{wait:?}");
        }
    }

    #[test]
    fn a_signal_ends_a_wait() {
        extern "C" fn nothing(_: libc::c_int) {}
        let mut child = Child::fork(|tell| {
            // SAFETY: the handler does nothing; it is this child's alone.
            unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
            tell.say(b'r');
            let epoll = Epoll::new().unwrap();
            let error = epoll.wait(&mut Events::with_capacity(1), None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        });
        child.expect(b'r');
        child.await_sleep();
        child.signal(libc::SIGUSR1);
        child.expect_success();
    }
}
