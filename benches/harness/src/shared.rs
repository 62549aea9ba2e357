//! Memory that stays shared across `fork`.

use std::{io, mem, ops::Deref, ptr, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Types that are valid when all their bytes are zero and that bear being shared between processes.
///
/// # Safety
/// Zeroed memory must be a valid value, and all access through `&self` must be sound while other processes use the same
/// memory: atomics, and cells whose users agree by means of atomics.
pub unsafe trait Zeroed: Sync {}

// SAFETY: zero is a valid integer, and access is atomic.
unsafe impl Zeroed for std::sync::atomic::AtomicU32 {}

/// A slice of `T`, zeroed, in an anonymous shared mapping of its own: children forked later see the same memory.
pub struct Shared<T: Zeroed> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: it is a `&[T]` with an owner, and `Zeroed` types are `Sync`.
unsafe impl<T: Zeroed> Sync for Shared<T> {}
// SAFETY: unmapping does not depend on the thread, and `T` is never dropped.
unsafe impl<T: Zeroed> Send for Shared<T> {}

impl<T: Zeroed> Shared<T> {
    /// Maps room for `len` values.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len);
        // SAFETY: the kernel picks the place, so nothing that exists is replaced.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED) }?;
        Ok(Self { start: NonNull::new(start.cast()).expect("the kernel maps nothing at address 0"), len })
    }

    /// The kernel maps nothing that has no size.
    fn bytes(len: usize) -> usize {
        (len * mem::size_of::<T>()).max(1)
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, lives as long as `self`, is page-aligned (no `T` needs more) and began
        // zeroed, which `Zeroed` calls valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length in `new`, and no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), Self::bytes(self.len)) };
        debug_assert!(unmapped.is_ok());
    }
}
