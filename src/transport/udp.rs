//! UDP: messages that may get lost, which is counted, and never kept quiet.
//!
//! The receiver's buffer is all there is: a sender is never told to wait, and what comes while the buffer is full is lost. The
//! numbers in the frames say how much: see [`Delivery::gap`](super::Delivery::gap).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::address::Host;
use super::packets::{PacketFeed, PacketPort};
use super::plan::Plan;
use super::port::{Piece, Port};
use super::receiver::Receiver;
use super::sender::Sender;
use super::tcp::{first, resolve, taken};
use super::unix::set_buffer;
use crate::channel::{Framing, SendError};
use crate::error::Result;
use crate::sys::socket::{self, Place, Type};

/// The longest datagram, in bytes: 65,535 less the headers of IP and UDP.
const LONGEST: usize = 65_507;
/// What fits into a packet on most paths between hosts, so that no datagram is taken apart on its way.
const BETWEEN_HOSTS: usize = 1_232;

pub(super) fn sender(plan: &Plan, host: &Host) -> Result<Sender> {
    let addresses = resolve(plan, host)?;
    let (fd, is_local) = first(&addresses, |address| {
        let place = Place::inet(address);
        let fd = socket::open(&place, Type::DGRAM)?;
        socket::connect_to(fd.as_fd(), &place)?;
        Ok((fd, address.ip().is_loopback()))
    })
    .map_err(|e| plan.failed("connect to", e))?;
    set_buffer(plan, fd.as_fd(), true)?;
    sender_on(plan, fd, is_local)
}

/// A sender by a socket that is connected to another host, or to this one.
pub(super) fn sender_on(plan: &Plan, fd: OwnedFd, is_local: bool) -> Result<Sender> {
    let framing = plan.piece_framing()?;
    let unit = if framing == Framing::Frames && !is_local { BETWEEN_HOSTS } else { LONGEST };
    Ok(Sender::carried(plan.outward(UdpPort { port: PacketPort::new(fd, unit) }, framing)?))
}

pub(super) fn receiver(plan: &Plan, host: &Host) -> Result<Receiver> {
    let addresses = resolve(plan, host)?;
    let bound: OwnedFd = first(&addresses, |address| {
        let place = Place::inet(address);
        let fd = socket::open(&place, Type::DGRAM)?;
        socket::bind_to(fd.as_fd(), &place)?;
        Ok(fd)
    })
    .map_err(|e| taken(plan, e))?;
    set_buffer(plan, bound.as_fd(), false)?;
    let address = socket::local_address(bound.as_fd()).ok();
    Ok(receiver_on(plan, bound)?.at(address))
}

/// A receiver by a socket that is bound.
pub(super) fn receiver_on(plan: &Plan, fd: OwnedFd) -> Result<Receiver> {
    let framing = plan.piece_framing()?;
    Ok(Receiver::carried(plan.inward(Box::new(PacketFeed::new(fd, LONGEST)), framing, true)))
}

/// A sender's end.
#[derive(Debug)]
struct UdpPort {
    port: PacketPort,
}

/// That nobody was there when an earlier datagram arrived is no error of the next one.
fn again<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match attempt() {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => attempt(),
        outcome => outcome,
    }
}

impl Port for UdpPort {
    fn unit(&self) -> usize {
        self.port.unit()
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], tag: u32) -> io::Result<usize> {
        again(|| self.port.put(parts, tag))
    }

    fn put_many(&mut self, bytes: &[u8], pieces: &[Piece]) -> io::Result<usize> {
        again(|| self.port.put_many(bytes, pieces))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.port.descriptor()
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        self.port.wait(deadline)
    }

    fn explain(&mut self, error: &io::Error) -> SendError {
        match error.kind() {
            // It is lost, like any that finds nobody there.
            io::ErrorKind::ConnectionRefused => SendError::Closed,
            _ => super::port::explain(error),
        }
    }
}
