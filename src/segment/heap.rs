//! Segments on the heap, for the threads of one process.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use super::locks::Table;
use super::{PAGE, publish};
use crate::error::{Error, ErrorKind, Result};

/// Zeroed memory that starts at a page.
#[derive(Debug)]
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    pub(super) locks: Arc<Table>,
}

// SAFETY: it owns its memory, and gives out only a pointer.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    pub(super) fn new(size: usize, init: impl FnOnce(NonNull<u8>)) -> Result<Self> {
        let error = |kind| Error::new(kind, format!("allocate {size} bytes for"), "a heap segment");
        let layout = Layout::from_size_align(size, PAGE).map_err(|_| error(ErrorKind::InvalidInput))?;
        // SAFETY: the caller rounded the size up to at least one page.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })
            .ok_or_else(|| error(ErrorKind::NoSpace).advise("this process can't get that much memory"))?;
        let block = Self { start, layout, locks: Arc::default() };
        publish(start, init);
        Ok(block)
    }

    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and whoever uses the memory borrows from us.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
