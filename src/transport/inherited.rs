//! Descriptors that this process inherited: pipes, sockets, terminals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::packets::{PacketFeed, PacketPort};
use super::pipe;
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use super::stream::{StreamFeed, StreamPort};
use super::udp;
use crate::error::{ErrorKind, Result};
use crate::sys::descriptor::{self, Kind, Ready, Sink};
use crate::sys::pty;
use crate::sys::socket::{self, Type};

pub(super) fn sender(plan: &Plan, number: u32) -> Result<Sender> {
    let fd = duplicate(plan, number)?;
    let outward = match kind(plan, fd.as_fd())? {
        Kind::Pipe => return pipe::sender(plan, fd.as_fd()),
        Kind::Terminal => {
            let framing = plan.stream_framing()?;
            plan.outward(StreamPort::new(terminal(plan, fd, Ready::Write)?, Sink::Other, framing), framing)?
        }
        _ if has_boundaries(plan, &fd)? => {
            if is_udp(plan, &fd)? {
                let is_local = is_local(&fd);
                return udp::sender_on(plan, fd, is_local);
            }
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
            plan.inward(Box::new(StreamFeed::new(terminal(plan, fd, Ready::Read)?, framing)), framing, false)
        }
        _ if has_boundaries(plan, &fd)? => {
            if is_udp(plan, &fd)? {
                return udp::receiver_on(plan, fd);
            }
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

/// Whether messages can get lost in that socket.
fn is_udp(plan: &Plan, fd: &OwnedFd) -> Result<bool> {
    socket::is_inet(fd.as_fd()).map_err(|e| plan.failed("look at", e))
}

fn is_local(fd: &OwnedFd) -> bool {
    socket::peer_address(fd.as_fd()).is_ok_and(|address| address.ip().is_loopback())
}

/// A terminal that doesn't block. Of a slave the flags are left alone that others share; a master can't be opened again.
fn terminal(plan: &Plan, fd: OwnedFd, ready: Ready) -> Result<OwnedFd> {
    if pty::is_master(&fd) {
        descriptor::set_nonblocking(fd.as_fd()).map_err(|e| plan.failed("set up", e))?;
        return Ok(fd);
    }
    descriptor::reopen_pipe(fd.as_fd(), ready).map_err(|e| plan.failed("open", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Options;
    use crate::transport::watched_tests::numbers_are_not_used_again;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    fn address(fd: &impl AsRawFd) -> crate::transport::Address {
        format!("fd://{}", fd.as_raw_fd()).parse().unwrap()
    }

    #[test]
    fn a_master_is_used_itself() {
        let _terminals = numbers_are_not_used_again();
        let (master, path) = pty::open().unwrap();
        let slave = pty::open_slave(&path).unwrap();
        pty::set_raw(&slave).unwrap();
        let mut receiver = Options::new().receiver(&address(&master)).unwrap();
        let mut sender = Options::new().sender(&address(&slave)).unwrap();
        sender.send(b"to the master").unwrap();
        let message = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(&message[..], b"to the master");
    }

    #[test]
    fn what_udp_loses_is_counted() {
        let receiving = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sending = UdpSocket::bind("127.0.0.1:0").unwrap();
        sending.connect(receiving.local_addr().unwrap()).unwrap();
        let mut sender = Options::new().sender(&address(&sending)).unwrap();
        let mut receiver = Options::new().receiver(&address(&receiving)).unwrap();
        sender.send(b"first").unwrap();
        assert_eq!(&receiver.recv_timeout(Duration::from_secs(10)).unwrap()[..], b"first");
        sender.send(b"lost").unwrap();
        receiving.set_nonblocking(false).unwrap();
        receiving.recv(&mut [0; 100]).unwrap();
        sender.send(b"found").unwrap();
        let message = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((&message[..], message.gap()), (&b"found"[..], 1));
    }
}
