//! What a wait set tells.

use crate::sys::epoll;

/// What a foreign descriptor is waited for. That it has failed or was hung up is told in any case.
///
/// ```
/// use ringway::Interest;
///
/// let both = Interest { readable: true, writable: true };
/// assert_ne!(both, Interest::READABLE);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// It can be read without blocking.
    pub readable: bool,
    /// It can be written without blocking.
    pub writable: bool,
}

impl Interest {
    /// That it can be read.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// That it can be written.
    pub const WRITABLE: Self = Self { readable: false, writable: true };
}

/// One member of a wait set that has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    token: usize,
    source: Source,
}

/// What has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Receiver,
    Sender,
    Descriptor(Interest),
    Timer,
}

impl Event {
    pub(super) fn of_receiver(token: usize) -> Self {
        Self { token, source: Source::Receiver }
    }

    pub(super) fn of_sender(token: usize) -> Self {
        Self { token, source: Source::Sender }
    }

    pub(super) fn of_descriptor(token: usize, ready: Interest) -> Self {
        Self { token, source: Source::Descriptor(ready) }
    }

    pub(super) fn of_timer(token: usize) -> Self {
        Self { token, source: Source::Timer }
    }

    /// The token that the member was added with.
    pub fn token(&self) -> usize {
        self.token
    }

    /// A receiver to be drained, or a descriptor that can be read, has ended or failed.
    pub fn is_readable(&self) -> bool {
        matches!(self.source, Source::Receiver | Source::Descriptor(Interest { readable: true, .. }))
    }

    /// A sender that may have room again, or a descriptor that can be written or has failed.
    pub fn is_writable(&self) -> bool {
        matches!(self.source, Source::Sender | Source::Descriptor(Interest { writable: true, .. }))
    }

    /// An endpoint, and no descriptor or timer.
    pub fn is_endpoint(&self) -> bool {
        matches!(self.source, Source::Receiver | Source::Sender)
    }

    /// A timer.
    pub fn is_timer(&self) -> bool {
        self.source == Source::Timer
    }
}

/// Room for what one wait tells.
///
/// ```
/// use ringway::Events;
///
/// let events = Events::with_capacity(64);
/// assert!(events.is_empty());
/// assert_eq!(events.iter().count(), 0);
/// ```
pub struct Events {
    pub(super) list: Vec<Event>,
    capacity: usize,
    /// For what the kernel finds.
    pub(super) found: epoll::Events,
}

impl Events {
    /// Room for that many events, one at least. What finds none is told by the next wait.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { list: Vec::with_capacity(capacity), capacity, found: epoll::Events::with_capacity(capacity) }
    }

    /// What the last wait told, no member twice.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether the last wait told nothing.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() == self.capacity
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
