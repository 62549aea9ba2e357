//! Pseudo-terminals in raw mode: one sender, one receiver, and between them the kernel's terminal driver.
//!
//! The receiver holds the master and leads senders to the slave by a symbolic link, which it owns by a [`Claim`]. The sender holds
//! the slave, exclusively. While nobody has the slave open, the master hangs up, and would go on doing so: so the receiver keeps the
//! slave open itself, until something comes from a sender; then the hang-up is that sender's end.
//!
//! Who may send is said by the mode of the slave: the link has none.

use std::fs::File;
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
use crate::sys::{file, pty};

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
    let feed = PtyFeed::open(path, plan.perm(), claim).map_err(|(e, claim)| {
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

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.port.descriptor()
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
    fn open(path: &Path, perm: u32, claim: Claim) -> Result<Self, (io::Error, Claim)> {
        let open = || {
            let (master, slave_path) = pty::open()?;
            let slave = File::from(pty::open_slave(&slave_path)?);
            pty::set_raw(&slave)?;
            file::set_mode(&slave, perm)?;
            std::os::unix::fs::symlink(&slave_path, path)?;
            claim.made();
            Ok((master, slave_path, slave.into()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Options;
    use crate::sys::child::Child;
    use crate::transport::Address;
    use crate::transport::watched_tests::numbers_are_not_used_again;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("ringway-pty-{name}-{}", std::process::id())))
        }

        fn lock(&self) -> PathBuf {
            format!("{}.lock", self.0.display()).into()
        }

        fn receiver(&self, options: &str) -> Result<Receiver> {
            let address: Address = format!("pty://{}{options}", self.0.display()).parse().unwrap();
            Options::new().receiver(&address)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
            let _ = fs::remove_file(self.lock());
        }
    }

    #[test]
    fn the_slave_has_the_mode_that_was_asked_for() {
        let _terminals = numbers_are_not_used_again();
        let scratch = Scratch::new("mode");
        for (options, mode) in [("", 0o600), ("?perm=0666", 0o666), ("?perm=0622", 0o622)] {
            let receiver = scratch.receiver(options).unwrap();
            assert_eq!(fs::metadata(&scratch.0).unwrap().mode() & 0o777, mode, "{options}");
            drop(receiver);
            assert!(!scratch.0.is_symlink() && !scratch.lock().exists());
        }
    }

    #[test]
    fn a_living_receiver_keeps_its_link_without_its_lock_file() {
        let _terminals = numbers_are_not_used_again();
        // In a process of its own, lest another test's child keeps the master.
        Child::fork(|_| {
            let scratch = Scratch::new("alive");
            let first = scratch.receiver("").unwrap();
            let slave = fs::read_link(&scratch.0).unwrap();
            fs::remove_file(scratch.lock()).unwrap();
            assert_eq!(scratch.receiver("").unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(fs::read_link(&scratch.0).unwrap(), slave);
            assert!(!scratch.lock().exists());
            drop(first);
            drop(scratch.receiver("").unwrap());
            assert!(!scratch.0.is_symlink());
        })
        .expect_success();
    }

    #[test]
    fn a_dead_receivers_link_goes_though_its_number_is_used_again() {
        let _terminals = numbers_are_not_used_again();
        let scratch = Scratch::new("again");
        let mut child = Child::fork(|tell| {
            let _receiver = scratch.receiver("").unwrap();
            tell.say(b'r');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        child.kill_without_reaping();
        let (_master, slave) = pty::open().unwrap();
        fs::remove_file(&scratch.0).unwrap();
        symlink(slave, &scratch.0).unwrap();
        drop(scratch.receiver("").unwrap());
        assert!(!scratch.0.is_symlink() && !scratch.lock().exists());
    }
}
