//! FIFOs: pipes with a name, made and taken away by their receiver.
//!
//! The receiver holds a `flock` on the FIFO, which the kernel ends with it. One that ringway has made bears the sticky bit, which
//! means nothing else for a FIFO: whoever receives last takes such a one away, also after a receiver that was killed; one
//! that the user has made stays.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::feed::{Buffer, Feed, READ};
use super::pipe::{PipePort, set_capacity};
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::channel::Existence;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor::{self, Ready};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::file::{self, Identity};

/// The mark of a FIFO that goes with its last receiver.
const TEMPORARY: u32 = 0o1000;

pub(super) fn sender(plan: &Plan, path: &Path) -> Result<Sender> {
    let framing = plan.stream_framing()?;
    // ENXIO as long as nobody reads.
    let fifo = plan.connect(|| file::open_fifo(path, Ready::Write))?;
    check(plan, &fifo)?;
    set_capacity(plan, fifo.as_fd())?;
    Ok(Sender::carried(plan.outward(PipePort::new(fifo.into(), framing), framing)?))
}

pub(super) fn receiver(plan: &Plan, path: &Path) -> Result<Receiver> {
    let framing = plan.stream_framing()?;
    let mut feed = FifoFeed::open(plan, path)?;
    // What fails from here on takes away what was made.
    set_capacity(plan, feed.lock.as_fd()).inspect_err(|_| feed.close())?;
    Ok(Receiver::carried(plan.inward(Box::new(feed), framing, false)))
}

/// Takes away the FIFO at `path`, unless somebody receives from it and it is not to be taken away nevertheless.
pub(super) fn remove(plan: &Plan, path: &Path, even_if_used: bool) -> Result<()> {
    let fifo = file::open_fifo(path, Ready::Read).map_err(|e| plan.failed("open", e))?;
    if !fifo.metadata().map_err(|e| plan.failed("look at", e))?.file_type().is_fifo() {
        return Err(plan.refuse(ErrorKind::InvalidInput, "it is no FIFO"));
    }
    if !even_if_used && !descriptor::try_flock(fifo.as_fd()).map_err(|e| plan.failed("lock", e))? {
        return Err(taken(plan, &fifo));
    }
    fs::remove_file(path).map_err(|e| plan.failed("remove", e))
}

fn taken(plan: &Plan, fifo: &File) -> Error {
    let pid = descriptor::flock_holder(fifo.as_fd()).unwrap_or(0);
    Error::new(ErrorKind::RoleTaken { pid }, "receive at", plan.address.target())
}

/// Refuses what is no FIFO, or somebody else's.
fn check(plan: &Plan, fifo: &File) -> Result<fs::Metadata> {
    let metadata = fifo.metadata().map_err(|e| plan.failed("look at", e))?;
    if !metadata.file_type().is_fifo() {
        return Err(plan.refuse(ErrorKind::InvalidInput, "it is no FIFO; choose another path"));
    }
    plan.check_owner(metadata.uid())?;
    Ok(metadata)
}

/// The receiver's end.
#[derive(Debug)]
struct FifoFeed {
    path: PathBuf,
    /// Holds the role.
    lock: File,
    /// Opened anew after each end, so that its end is news again.
    fifo: OwnedFd,
    is_temporary: bool,
    /// Where it is in, once it is watched.
    epoll: Option<Arc<Epoll>>,
}

impl FifoFeed {
    fn open(plan: &Plan, path: &Path) -> Result<Self> {
        loop {
            let made = match (plan.existence(), path.symlink_metadata()) {
                (Existence::Open, _) => false,
                (Existence::OpenOrCreate, Ok(_)) => false,
                _ => match file::make_fifo(path, plan.perm() & 0o700) {
                    Ok(()) => true,
                    Err(e)
                        if e.kind() == io::ErrorKind::AlreadyExists && plan.existence() == Existence::OpenOrCreate =>
                    {
                        false
                    }
                    Err(e) => return Err(plan.failed("create", e)),
                },
            };
            let lock = match file::open_fifo(path, Ready::Read) {
                // Another receiver took it away meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound && plan.existence() == Existence::OpenOrCreate => {
                    continue;
                }
                lock => lock.map_err(|e| plan.failed("open", e))?,
            };
            let metadata = check(plan, &lock)?;
            if made {
                let mark = if plan.persists() { 0 } else { TEMPORARY };
                file::set_mode(&lock, plan.perm() | mark).map_err(|e| plan.failed("set the mode of", e))?;
            }
            if !descriptor::try_flock(lock.as_fd()).map_err(|e| plan.failed("lock", e))? {
                return Err(taken(plan, &lock));
            }
            if !is_at(&lock, path) {
                // The last receiver took it away before the lock was free.
                continue;
            }
            let is_temporary = if made { !plan.persists() } else { metadata.mode() & TEMPORARY != 0 };
            let fifo = descriptor::reopen_pipe(lock.as_fd(), Ready::Read).map_err(|e| plan.failed("open", e))?;
            return Ok(Self { path: path.to_owned(), lock, fifo, is_temporary, epoll: None });
        }
    }
}

/// Whether the path still leads to that file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(held), Ok(there)) => Identity::from(&held) == Identity::from(&there),
        _ => false,
    }
}

impl Feed for FifoFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        let read = descriptor::read(self.fifo.as_fd(), buffer.room(READ))?;
        buffer.filled(read);
        if read > 0 {
            return Ok(true);
        }
        // Nothing to read and no writer: has there been one since it was opened? Only then it hangs up, and goes on doing so.
        if !descriptor::is_ready(self.fifo.as_fd(), Ready::Read)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let anew = descriptor::reopen_pipe(self.lock.as_fd(), Ready::Read)?;
        if let Some(epoll) = &self.epoll {
            epoll.add(anew.as_fd(), Interest::READ, 0)?;
            // It was added, so that this can't fail.
            let _ = epoll.delete(self.fifo.as_fd());
        }
        // A writer may have come, and gone, between the two: what it wrote is still there.
        let read = descriptor::read(self.fifo.as_fd(), buffer.room(READ));
        self.fifo = anew;
        match read {
            Ok(0) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Ok(read) => {
                buffer.filled(read);
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fifo.as_fd())
    }

    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool> {
        epoll.add(self.fifo.as_fd(), Interest::READ, 0)?;
        self.epoll = Some(Arc::clone(epoll));
        Ok(true)
    }

    fn is_over(&self) -> bool {
        false
    }

    fn close(&mut self) {
        if self.is_temporary && is_at(&self.lock, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
        descriptor::unflock(self.lock.as_fd());
    }
}
