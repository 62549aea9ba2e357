//! Descriptors that this process inherited: pipes, sockets, terminals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::packets::{PacketFeed, PacketPort};
use super::pipe;
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use super::stream::{StreamFeed, StreamPort};
use crate::error::{ErrorKind, Result};
use crate::sys::descriptor::{self, Kind, Ready, Sink};
use crate::sys::socket::{self, Type};

pub(super) fn sender(plan: &Plan, number: u32) -> Result<Sender> {
    let fd = duplicate(plan, number)?;
    let outward = match kind(plan, fd.as_fd())? {
        Kind::Pipe => return pipe::sender(plan, fd.as_fd()),
        Kind::Terminal => {
            let framing = plan.stream_framing()?;
            plan.outward(StreamPort::new(reopen(plan, &fd, Ready::Write)?, Sink::Other, framing), framing)?
        }
        _ if has_boundaries(plan, &fd)? => {
            let framing = plan.piece_framing()?;
            plan.outward(PacketPort::new(fd, PacketPort::LONGEST_UNIX), framing)?
        }
        _ => {
            let framing = plan.stream_framing()?;
            plan.outward(StreamPort::new(fd, Sink::Socket, framing), framing)?
        }
    };
    Ok(Sender::carried(outward))
}

pub(super) fn receiver(plan: &Plan, number: u32) -> Result<Receiver> {
    let fd = duplicate(plan, number)?;
    let inward = match kind(plan, fd.as_fd())? {
        Kind::Pipe => return pipe::receiver(plan, fd.as_fd()),
        Kind::Terminal => {
            let framing = plan.stream_framing()?;
            plan.inward(Box::new(StreamFeed::new(reopen(plan, &fd, Ready::Read)?, framing)), framing, false)
        }
        _ if has_boundaries(plan, &fd)? => {
            let framing = plan.piece_framing()?;
            plan.inward(Box::new(PacketFeed::new(fd, PacketPort::LONGEST_UNIX)), framing, false)
        }
        _ => {
            let framing = plan.stream_framing()?;
            plan.inward(Box::new(StreamFeed::new(fd, framing)), framing, false)
        }
    };
    Ok(Receiver::carried(inward))
}

/// A descriptor of our own. The inherited one stays whoever's it is, but closes on exec from now on.
fn duplicate(plan: &Plan, number: u32) -> Result<OwnedFd> {
    descriptor::duplicate(number).map_err(|e| {
        plan.failed("take over", e).advise("the descriptor must be open in this process: check how it was handed over")
    })
}

fn kind(plan: &Plan, fd: BorrowedFd) -> Result<Kind> {
    match descriptor::kind(fd).map_err(|e| plan.failed("look at", e))? {
        Kind::Other => Err(plan
            .refuse(ErrorKind::InvalidInput, "it leads to a file or device; pipes, sockets and terminals can be used")),
        kind => Ok(kind),
    }
}

/// Whether a socket carries single messages. It doesn't block from now on.
fn has_boundaries(plan: &Plan, fd: &OwnedFd) -> Result<bool> {
    descriptor::set_nonblocking(fd.as_fd()).map_err(|e| plan.failed("set up", e))?;
    Ok(socket::kind(fd.as_fd()).map_err(|e| plan.failed("look at", e))? != Type::STREAM)
}

fn reopen(plan: &Plan, fd: &OwnedFd, ready: Ready) -> Result<OwnedFd> {
    descriptor::reopen_pipe(fd.as_fd(), ready).map_err(|e| plan.failed("open", e))
}
