//! Pseudo-terminals in raw mode: one sender, one receiver, and between them the kernel's terminal driver.
//!
//! The receiver holds the master and leads senders to the slave by a symbolic link, which it owns by a [`Claim`]. The sender holds
//! the slave, exclusively. While nobody has the slave open, the master hangs up, and would go on doing so: so the receiver keeps the
//! slave open itself, until something comes from a sender; then the hang-up is that sender's end.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::claim::Claim;
use super::feed::{Buffer, Feed, READ};
use super::plan::Plan;
use super::port::{Piece, Port};
use super::receiver::Receiver;
use super::sender::Sender;
use super::stream::StreamPort;
use crate::channel::SendError;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor::{self, Sink};
use crate::sys::pty;

pub(super) fn sender(plan: &Plan, path: &Path) -> Result<Sender> {
    use std::os::unix::fs::MetadataExt;
    let framing = plan.stream_framing()?;
    let slave = plan.connect(|| pty::open_slave(path))?;
    if descriptor::kind(slave.as_fd()).map_err(|e| plan.failed("look at", e))? != descriptor::Kind::Terminal {
        return Err(plan.refuse(ErrorKind::InvalidInput, "it is no terminal; choose another path"));
    }
    let link = path.symlink_metadata().map_err(|e| plan.failed("look at", e))?;
    plan.check_owner(link.uid())?;
    if !descriptor::try_flock(slave.as_fd()).map_err(|e| plan.failed("lock", e))? {
        let pid = descriptor::flock_holder(slave.as_fd()).unwrap_or(0);
        return Err(Error::new(ErrorKind::RoleTaken { pid }, "send to", plan.address.target()));
    }
    pty::set_raw(&slave).map_err(|e| plan.failed("set up", e))?;
    Ok(Sender::carried(plan.outward(PtyPort { port: StreamPort::new(slave, Sink::Other, framing) }, framing)?))
}

pub(super) fn receiver(plan: &Plan, path: &Path) -> Result<Receiver> {
    let framing = plan.stream_framing()?;
    if plan.capacity().is_some() {
        return Err(
            plan.refuse(ErrorKind::InvalidInput, "the kernel gives a terminal a buffer of 4 KiB, and no capacity")
        );
    }
    let claim = Claim::take(plan.address, path)?;
    let feed = PtyFeed::open(path, claim).map_err(|(e, claim)| {
        claim.release();
        plan.failed("make", e).advise("/proc/sys/kernel/pty/max says how many pseudo-terminals there can be")
    })?;
    Ok(Receiver::carried(plan.inward(Box::new(feed), framing, false)))
}

/// The sender's end: the slave.
#[derive(Debug)]
struct PtyPort {
    port: StreamPort,
}

impl Port for PtyPort {
    fn unit(&self) -> usize {
        self.port.unit()
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], tag: u32) -> io::Result<usize> {
        self.port.put(parts, tag)
    }

    fn put_many(&mut self, bytes: &[u8], pieces: &[Piece]) -> io::Result<usize> {
        self.port.put_many(bytes, pieces)
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        self.port.wait(deadline)
    }

    fn explain(&mut self, error: &io::Error) -> SendError {
        match error.raw_os_error() {
            // The master is closed.
            Some(libc::EIO) => SendError::Closed,
            _ => super::port::explain(error),
        }
    }
}

/// The receiver's end: the master.
#[derive(Debug)]
struct PtyFeed {
    master: OwnedFd,
    slave_path: PathBuf,
    /// Held while no sender has been heard of.
    slave: Option<OwnedFd>,
    claim: Claim,
}

impl PtyFeed {
    fn open(path: &Path, claim: Claim) -> Result<Self, (io::Error, Claim)> {
        let open = || {
            let (master, slave_path) = pty::open()?;
            let slave = pty::open_slave(&slave_path)?;
            pty::set_raw(&slave)?;
            std::os::unix::fs::symlink(&slave_path, path)?;
            Ok((master, slave_path, slave))
        };
        match open() {
            Ok((master, slave_path, slave)) => Ok(Self { master, slave_path, slave: Some(slave), claim }),
            Err(e) => Err((e, claim)),
        }
    }
}

impl Feed for PtyFeed {
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        match descriptor::read(self.master.as_fd(), buffer.room(READ)) {
            Ok(read) if read > 0 => {
                buffer.filled(read);
                // From now on, a hang-up is the sender's.
                self.slave = None;
                Ok(true)
            }
            Err(e) if e.raw_os_error() != Some(libc::EIO) => Err(e),
            // Hung up, and everything was read.
            _ => {
                self.slave = Some(pty::open_slave(&self.slave_path)?);
                Ok(false)
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.master.as_fd())
    }

    fn is_over(&self) -> bool {
        false
    }

    fn close(&mut self) {
        self.claim.release();
    }
}
