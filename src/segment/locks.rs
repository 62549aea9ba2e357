//! Locks that the kernel frees when their holder dies: a participant's proof of life.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::sys::{fork, ofd, sysv_sem};

/// One party's hold on the numbered locks of a segment.
///
/// Handles exclude each other even within a process. Dropping one frees what it holds, unless in a forked child: there the
/// copy is inert, since the locks are still the parent's.
#[derive(Debug)]
pub(crate) struct Locks {
    holder: Holder,
    held: RefCell<BTreeSet<u32>>,
    generation: u32,
    segment: String,
}

/// Who keeps the locks.
#[derive(Debug)]
pub(super) enum Holder {
    /// The kernel, on bytes of a file opened for this handle alone.
    File(File),
    /// The kernel, as semaphores that it undoes at death.
    SysV { set: sysv_sem::Set, count: u32 },
    /// This process, for a segment that no other can see.
    Table(Arc<Table>),
}

impl Locks {
    pub(super) fn new(holder: Holder, segment: String) -> Self {
        Self { holder, held: RefCell::default(), generation: fork::enter(), segment }
    }

    /// Takes lock `index` if it is free, and says whether this handle has it now.
    pub(crate) fn try_acquire(&self, index: u32) -> Result<bool> {
        if self.held.borrow().contains(&index) {
            return Ok(true);
        }
        let taken = self.holder.try_take(index).map_err(|e| self.error(e, "take", index))?;
        if taken {
            self.held.borrow_mut().insert(index);
        }
        Ok(taken)
    }

    /// Takes lock `index`, sleeping while another handle has it.
    ///
    /// Fails with [`NotFound`](crate::error::ErrorKind::NotFound) when a System V segment is removed meanwhile.
    pub(crate) fn acquire(&self, index: u32) -> Result<()> {
        if self.held.borrow().contains(&index) {
            return Ok(());
        }
        self.holder.take(index).map_err(|e| self.error(e, "take", index))?;
        self.held.borrow_mut().insert(index);
        Ok(())
    }

    /// Frees lock `index` if this handle has it.
    pub(crate) fn release(&self, index: u32) {
        if self.held.borrow_mut().remove(&index) && fork::is_current(self.generation) {
            // It fails only if the locks are gone altogether.
            let _ = self.holder.free(index);
        }
    }

    /// Whether another handle, in any process, has lock `index`. The answer for one's own lock is of no use.
    pub(crate) fn is_held(&self, index: u32) -> Result<bool> {
        self.holder.is_taken(index).map_err(|e| self.error(e, "look at", index))
    }

    fn error(&self, source: io::Error, tried: &str, index: u32) -> Error {
        // The set's id is no longer valid, whichever way the kernel says so.
        let removed = matches!(self.holder, Holder::SysV { .. }) && sysv_sem::was_removed(&source);
        let source = if removed { io::Error::from_raw_os_error(libc::EIDRM) } else { source };
        let read_only = source.raw_os_error() == Some(libc::EBADF);
        let error = Error::os(source, format!("{tried} lock {index} of"), &self.segment);
        if read_only { error.advise("it was opened read-only") } else { error }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        // Closing a description isn't enough: a forked child may still have it.
        while let Some(index) = self.held.get_mut().first().copied() {
            self.release(index);
        }
    }
}

impl Holder {
    fn try_take(&self, index: u32) -> io::Result<bool> {
        match self {
            Self::File(file) => ofd::try_lock(file, index.into()),
            Self::SysV { set, count } => set.try_take(within(index, *count)?),
            Self::Table(table) => Ok(table.held().insert(index)),
        }
    }

    fn take(&self, index: u32) -> io::Result<()> {
        match self {
            Self::File(file) => ofd::lock(file, index.into()),
            Self::SysV { set, count } => set.take(within(index, *count)?, None).map(drop),
            Self::Table(table) => {
                let free = table.freed.wait_while(table.held(), |held| held.contains(&index));
                free.unwrap_or_else(PoisonError::into_inner).insert(index);
                Ok(())
            }
        }
    }

    fn free(&self, index: u32) -> io::Result<()> {
        match self {
            Self::File(file) => ofd::unlock(file, index.into()),
            Self::SysV { set, .. } => set.free(index),
            Self::Table(table) => {
                table.held().remove(&index);
                table.freed.notify_all();
                Ok(())
            }
        }
    }

    fn is_taken(&self, index: u32) -> io::Result<bool> {
        match self {
            Self::File(file) => ofd::is_locked(file, index.into()),
            Self::SysV { set, count } => Ok(set.value(within(index, *count)?)? != 0),
            Self::Table(table) => Ok(table.held().contains(&index)),
        }
    }
}

/// The semaphores behind `count` aren't for participants.
fn within(index: u32, count: u32) -> io::Result<u32> {
    if index < count { Ok(index) } else { Err(io::Error::from_raw_os_error(libc::EFBIG)) }
}

/// The locks of a segment that lives in one process.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: Mutex<BTreeSet<u32>>,
    freed: Condvar,
}

impl Table {
    fn held(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Nothing panics while it is locked, and a set is whole after each call.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
