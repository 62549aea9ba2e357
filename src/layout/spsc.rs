//! A segment with a ring of one producer and one consumer: where its parts lie, and the parts as references to atomics.

use std::ptr::NonNull;

use super::header::{Header, Rejected};
use super::{PAGE, Side};
use crate::primitive::AtomicU64;
use crate::ring::spsc::{Bounds, Cursor, Words};
use crate::ring::{MAX_CAPACITY, MIN_CAPACITY, largest_message};

/// Where the parts of such a segment lie, in bytes from its start. Readers take it from the header, so that later versions can
/// move them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpscLayout {
    pub(crate) bounds: Bounds,
    producer: u64,
    consumer: u64,
    pub(super) semaphores: u64,
    data: u64,
}

impl SpscLayout {
    /// For a ring of at least `capacity` bytes and messages of at least `max_message` bytes, if sizes allow it. Without
    /// `max_message` it is the largest that fits.
    pub(crate) fn new(capacity: u64, max_message: Option<u64>) -> Option<Self> {
        let message = max_message.unwrap_or(0);
        let least = capacity.max(MIN_CAPACITY).max(message.checked_add(16)?.checked_mul(2)?);
        let capacity = least.checked_next_power_of_two().filter(|&c| c <= MAX_CAPACITY)?;
        let max_message = max_message.unwrap_or(largest_message(capacity));
        let bounds = Bounds { capacity, max_message };
        Some(Self { bounds, producer: PAGE, consumer: 2 * PAGE, semaphores: 3 * PAGE, data: 4 * PAGE })
    }

    pub(super) fn check(header: &Header) -> Result<Self, Rejected> {
        let capacity = header.capacity;
        if !capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
            return Err(Rejected::Damaged("the capacity is no power of two within bounds"));
        }
        if header.max_message > largest_message(capacity) {
            return Err(Rejected::Damaged("the largest message does not fit into the ring"));
        }
        let [producer, consumer, semaphores, data] = header.parts;
        Ok(Self { bounds: Bounds { capacity, max_message: header.max_message }, producer, consumer, semaphores, data })
    }

    pub(super) fn parts(&self) -> [u64; 4] {
        [self.producer, self.consumer, self.semaphores, self.data]
    }

    /// Bytes of each part.
    pub(super) fn sizes(&self) -> [u64; 4] {
        [PAGE, PAGE, PAGE, self.bounds.capacity]
    }

    /// Behind the last part of a segment made here.
    pub(super) fn end(&self) -> u64 {
        self.data + self.bounds.capacity
    }
}

/// A mapped ring. It borrows the mapping without saying so: see [`new`](Self::new).
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    data: NonNull<u8>,
    /// Positions to places; the low bits stay clear, so that every place is 8-aligned whatever the position.
    mask: u64,
    producer: NonNull<Side>,
    consumer: NonNull<Side>,
}

// SAFETY: a View is pointers to memory that is only accessed atomically, or by asm copies, or by grants that the ring's
// protocol makes exclusive; none of it belongs to a thread.
unsafe impl Send for View {}
// SAFETY: as above; a View itself is never written.
unsafe impl Sync for View {}

impl View {
    /// The view of a segment with a checked layout.
    ///
    /// # Safety
    /// `base` must be page-aligned and the start of a segment with this layout, which stays mapped as long as the view or
    /// anything got from it is used. Of its bytes only atomics and racing copies are made by all sides, but for grants.
    pub(crate) unsafe fn new(base: NonNull<u8>, layout: &SpscLayout) -> Self {
        // SAFETY: a checked layout lies within its segment.
        let part = |offset: u64| unsafe { base.add(offset as usize) };
        Self {
            data: part(layout.data),
            mask: layout.bounds.capacity - 8,
            producer: part(layout.producer).cast(),
            consumer: part(layout.consumer).cast(),
        }
    }

    /// What the producer writes.
    pub(crate) fn producer(&self) -> &Side {
        // SAFETY: page-aligned, mapped and made of atomics, by the promise to `new`.
        unsafe { self.producer.as_ref() }
    }

    /// What the consumer writes.
    pub(crate) fn consumer(&self) -> &Side {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    /// The first byte of the payload of the record at `position`; all of it follows.
    #[inline(always)]
    pub(crate) fn payload(&self, position: u64) -> NonNull<u8> {
        // SAFETY: the word at a position is within the data, and what follows it at most its end.
        unsafe { self.place(position).add(8) }
    }

    #[inline(always)]
    fn place(&self, position: u64) -> NonNull<u8> {
        // SAFETY: the mask keeps it within the data.
        unsafe { self.data.add((position & self.mask) as usize) }
    }
}

impl Words for View {
    #[inline(always)]
    fn word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: within the data, 8-aligned by the mask; ring words are accessed as atomics by everybody.
        unsafe { self.place(position).cast().as_ref() }
    }

    #[inline(always)]
    fn cursor(&self) -> &Cursor {
        &self.consumer().cursor
    }
}

static_assertions::assert_impl_all!(View: Send, Sync);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_to_what_fits() {
        let size = |capacity, max| SpscLayout::new(capacity, max).map(|layout| layout.bounds);
        assert_eq!(size(0, None), Some(Bounds { capacity: 4096, max_message: 2032 }));
        assert_eq!(size(4097, None), Some(Bounds { capacity: 8192, max_message: 4080 }));
        assert_eq!(size(0, Some(2033)), Some(Bounds { capacity: 8192, max_message: 2033 }));
        assert_eq!(size(MAX_CAPACITY, None).map(|b| b.capacity), Some(MAX_CAPACITY));
        assert_eq!(size(MAX_CAPACITY + 1, None), None);
        assert_eq!(size(u64::MAX, None), None);
        assert_eq!(size(0, Some(u64::MAX)), None);
    }
}
