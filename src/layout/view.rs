//! The parts of a mapped segment, as references to atomics: the only place where offsets become pointers.

use std::ptr::NonNull;

use super::{Geometry, Side};
use crate::primitive::AtomicU64;
use crate::ring::spsc::{Cursor, Words};
use crate::sys::semaphore::RawSemaphore;

/// A mapped ring. It borrows the mapping without saying so: see [`new`](Self::new).
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    data: NonNull<u8>,
    /// Positions to places; the low bits stay clear, so that every place is 8-aligned whatever the position.
    mask: u64,
    producer: NonNull<Side>,
    consumer: NonNull<Side>,
    semaphores: NonNull<RawSemaphore>,
}

// SAFETY: a View is pointers to memory that is only accessed atomically, or by asm copies, or by grants that the ring's
// protocol makes exclusive; none of it belongs to a thread.
unsafe impl Send for View {}
// SAFETY: as above; a View itself is never written.
unsafe impl Sync for View {}

impl View {
    /// The view of a segment with a checked geometry.
    ///
    /// # Safety
    /// `base` must be page-aligned and point to `geometry.total()` bytes that stay mapped as long as the view or anything
    /// got from it is used. Of those bytes only atomics and racing copies are made by all sides, but for grants.
    pub(crate) unsafe fn new(base: NonNull<u8>, geometry: &Geometry) -> Self {
        // SAFETY: a checked geometry lies within its total.
        let part = |offset: u64| unsafe { base.add(offset as usize) };
        Self {
            data: part(geometry.data),
            mask: geometry.bounds.capacity - 8,
            producer: part(geometry.producer).cast(),
            consumer: part(geometry.consumer).cast(),
            semaphores: part(geometry.semaphores).cast(),
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

    /// The semaphores on which the producer (0) and the consumer (1) sleep with `wait=sem`.
    pub(crate) fn semaphore(&self, index: usize) -> *mut RawSemaphore {
        debug_assert!(index < 2);
        // SAFETY: they have a page to themselves, each on its own 128 bytes, which a sem_t doesn't fill.
        unsafe { self.semaphores.byte_add(index * 128) }.as_ptr()
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

static_assertions::const_assert!(size_of::<RawSemaphore>() <= 128);
static_assertions::assert_impl_all!(View: Send, Sync);
