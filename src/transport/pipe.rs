//! Pipes: any number of senders, each of whose pieces the kernel takes whole, and one receiver.
//!
//! The kernel never takes apart what is written at once and is not longer than `PIPE_BUF`. So no piece is longer, and senders
//! need no lock: one that is killed leaves whole pieces, and at most a message that never gets its last one.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::Address;
use super::feed::{Buffer, Feed, READ};
use super::plan::Plan;
use super::port::{Piece, Port};
use super::receiver::Receiver;
use super::sender::Sender;
use crate::channel::{Framing, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor::{self, Ready, Sink};

/// What the kernel takes whole: part of the format of frames in pipes.
const ATOMIC: usize = 4096;
const _: () = assert!(ATOMIC <= descriptor::PIPE_ATOMIC);

/// A sender's end.
#[derive(Debug)]
pub(super) struct PipePort {
    fd: OwnedFd,
    /// A line longer than [`ATOMIC`] is written in parts, as everybody does.
    framing: Framing,
}

impl PipePort {
    /// `fd` must not block.
    pub(super) fn new(fd: OwnedFd, framing: Framing) -> Self {
        Self { fd, framing }
    }
}

impl Port for PipePort {
    fn unit(&self) -> usize {
        match self.framing {
            Framing::Frames => ATOMIC,
            _ => usize::MAX,
        }
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], _tag: u32) -> io::Result<usize> {
        descriptor::write(self.fd.as_fd(), parts, Sink::Pipe)
    }

    fn put_many(&mut self, bytes: &[u8], pieces: &[Piece]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            // As many whole pieces as the kernel takes whole.
            let fits = pieces.iter().rev().map(|piece| piece.end).find(|&end| end > taken && end - taken <= ATOMIC);
            let end = match fits {
                Some(end) => end,
                None => pieces.iter().map(|piece| piece.end).find(|&end| end > taken).unwrap_or(bytes.len()),
            };
            match descriptor::write(self.fd.as_fd(), &[IoSlice::new(&bytes[taken..end])], Sink::Pipe) {
                Ok(written) => taken += written,
                Err(_) if taken > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(taken)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        descriptor::wait_one(self.fd.as_fd(), Ready::Write, Some(deadline)).map(drop)
    }
}

/// The receiver's end.
#[derive(Debug)]
struct PipeFeed {
    fd: OwnedFd,
}

impl Feed for PipeFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        let read = descriptor::read(self.fd.as_fd(), buffer.room(READ))?;
        buffer.filled(read);
        Ok(read > 0)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

/// Has the pipe hold what was asked for.
pub(super) fn set_capacity(plan: &Plan, fd: BorrowedFd) -> Result<()> {
    let Some(wanted) = plan.capacity() else { return Ok(()) };
    let there = descriptor::pipe_capacity(fd).map_err(|e| plan.failed("look at the size of", e))?;
    if there >= wanted {
        return Ok(());
    }
    descriptor::set_pipe_capacity(fd, wanted).map_err(|e| {
        let limit = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap_or_default();
        plan.failed(&format!("make room for {wanted} bytes in"), e).advise(format!(
            "without privileges a pipe holds at most the {} bytes of /proc/sys/fs/pipe-max-size: ask for less capacity, or raise it \
             with `sysctl fs.pipe-max-size={wanted}`",
            limit.trim()
        ))
    })
}

/// The end of a pipe that has not been opened, to be handed to a forked child or a program that is executed.
///
/// Made by [`Options::pair`].
#[derive(Debug)]
pub struct PipeEnd {
    fd: OwnedFd,
    options: Options,
    address: Address,
}

impl PipeEnd {
    /// Opens the writing end.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this is the reading end; and whatever keeps it from being opened.
    pub fn sender(self) -> Result<Sender> {
        let plan = Plan::new(&self.address, &self.options)?;
        sender(&plan, self.fd.as_fd())
    }

    /// Opens the reading end.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this is the writing end; and whatever keeps it from being opened.
    pub fn receiver(self) -> Result<Receiver> {
        let plan = Plan::new(&self.address, &self.options)?;
        receiver(&plan, self.fd.as_fd())
    }

    /// Has the descriptor stay open in programs that are executed from now on, which then open it by the returned address.
    ///
    /// ```
    /// use ringway::{Address, Options};
    /// use std::process::Command;
    ///
    /// let (sender, receiver) = Options::new().pair(&"pipe:?framing=lines".parse::<Address>()?)?;
    /// let theirs = sender.hand_over()?;
    /// let number = theirs.to_string().replace("fd://", "").replace("?framing=lines", "");
    /// let mut child = Command::new("sh").args(["-c", &format!("echo hello >&{number}")]).spawn()?;
    /// drop(sender);
    /// assert_eq!(&receiver.receiver()?.recv()?[..], b"hello");
    /// child.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn hand_over(&self) -> Result<Address> {
        let fd = self.fd.as_fd();
        descriptor::set_close_on_exec(fd, false).map_err(|e| Error::os(e, "hand over", &self.address))?;
        format!("fd://{}", fd.as_raw_fd())
            .parse()
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "name", format!("{e}")))
    }
}

impl AsFd for PipeEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Both ends of a new pipe: the writing one first.
pub(super) fn pair(plan: &Plan) -> Result<(PipeEnd, PipeEnd)> {
    plan.stream_framing()?;
    let (reader, writer) = descriptor::pipe().map_err(|e| plan.failed("make", e))?;
    set_capacity(plan, writer.as_fd())?;
    let end = |fd| PipeEnd { fd, options: plan.options().clone(), address: plan.address.clone() };
    Ok((end(writer), end(reader)))
}

pub(super) fn sender(plan: &Plan, fd: BorrowedFd) -> Result<Sender> {
    let framing = plan.stream_framing()?;
    let fd = reopen(plan, fd, Ready::Write)?;
    Ok(Sender::carried(plan.outward(PipePort::new(fd, framing), framing)?))
}

pub(super) fn receiver(plan: &Plan, fd: BorrowedFd) -> Result<Receiver> {
    let framing = plan.stream_framing()?;
    let fd = reopen(plan, fd, Ready::Read)?;
    Ok(Receiver::carried(plan.inward(Box::new(PipeFeed { fd }), framing, false)))
}

/// A description that doesn't block, and changes nothing for others.
fn reopen(plan: &Plan, fd: BorrowedFd, ready: Ready) -> Result<OwnedFd> {
    let (reads, writes) = descriptor::access(fd).map_err(|e| plan.failed("look at", e))?;
    match ready {
        Ready::Read if !reads => {
            Err(plan.refuse(ErrorKind::InvalidInput, "it is the writing end of a pipe, for a sender"))
        }
        Ready::Write if !writes => {
            Err(plan.refuse(ErrorKind::InvalidInput, "it is the reading end of a pipe, for a receiver"))
        }
        ready => descriptor::reopen_pipe(fd, ready).map_err(|e| plan.failed("open", e)),
    }
}
