//! TCP: a receiver listens, senders connect.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::address::Host;
use super::feed::{Door, Feed};
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use super::stream::{StreamFeed, StreamPort};
use super::unix::{set_buffer, turn_away_all};
use crate::channel::Framing;
use crate::error::{ErrorKind, Result};
use crate::sys::clock;
use crate::sys::descriptor::{self, Ready, Sink};
use crate::sys::socket::{self, Place, Type};

/// How long one attempt to connect may take, before another is made.
const ATTEMPT: Duration = Duration::from_secs(1);

pub(super) fn sender(plan: &Plan, host: &Host) -> Result<Sender> {
    let framing = plan.stream_framing()?;
    let addresses = resolve(plan, host)?;
    let attempt = ATTEMPT.min(plan.patience());
    let connected = plan.connect(|| first(&addresses, |address| connect(address, attempt)))?;
    set_buffer(plan, connected.as_fd(), true)?;
    socket::no_delay(connected.as_fd()).map_err(|e| plan.failed("set up the connection to", e))?;
    Ok(Sender::carried(plan.outward(StreamPort::new(connected, Sink::Socket, framing), framing)?))
}

pub(super) fn receiver(plan: &Plan, host: &Host) -> Result<Receiver> {
    let framing = plan.stream_framing()?;
    let addresses = resolve(plan, host)?;
    let bound = first(&addresses, bind).map_err(|e| taken(plan, e))?;
    // Connections inherit it.
    set_buffer(plan, bound.as_fd(), false)?;
    socket::listen_on(bound.as_fd()).map_err(|e| taken(plan, e))?;
    let address = socket::local_address(bound.as_fd()).ok();
    Ok(Receiver::carried(plan.inward_by(Box::new(Listener { fd: bound, framing }), framing)).at(address))
}

/// The addresses of a host.
pub(super) fn resolve(plan: &Plan, host: &Host) -> Result<Vec<SocketAddr>> {
    let addresses = (host.name.as_str(), host.port).to_socket_addrs();
    Ok(addresses.map_err(|e| plan.failed("look up the host of", e))?.collect())
}

/// Tries each address until one will do; else why the last one won't.
pub(super) fn first<T>(
    addresses: &[SocketAddr],
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for &address in addresses {
        match attempt(address) {
            Ok(value) => return Ok(value),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// What keeps a receiver from being bound.
pub(super) fn taken(plan: &Plan, error: io::Error) -> crate::error::Error {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            plan.refuse(ErrorKind::RoleTaken { pid: 0 }, "another process receives at this port; `ss -lpn` tells which")
        }
        _ => plan.failed("listen at", error),
    }
}

fn connect(address: SocketAddr, patience: Duration) -> io::Result<OwnedFd> {
    let place = Place::inet(address);
    let fd = socket::open(&place, Type::STREAM)?;
    match socket::connect_to(fd.as_fd(), &place) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {
            if !descriptor::wait_one(fd.as_fd(), Ready::Write, Some(clock::now() + patience))? {
                return Err(e);
            }
            socket::take_error(fd.as_fd())?;
        }
        connected => connected?,
    }
    // Within one machine, a socket may connect to itself, when the port is free and is chosen for its own end.
    if socket::local_address(fd.as_fd())? == address {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(fd)
}

fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let place = Place::inet(address);
    let fd = socket::open(&place, Type::STREAM)?;
    socket::reuse_address(fd.as_fd())?;
    socket::bind_to(fd.as_fd(), &place)?;
    Ok(fd)
}

#[derive(Debug)]
struct Listener {
    fd: OwnedFd,
    framing: Framing,
}

impl Door for Listener {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn accept(&mut self) -> io::Result<Box<dyn Feed>> {
        let fd = socket::accept(self.fd.as_fd())?;
        socket::no_delay(fd.as_fd())?;
        socket::keep_alive(fd.as_fd())?;
        Ok(Box::new(StreamFeed::new(fd, self.framing)))
    }

    fn close(&mut self) {
        turn_away_all(self);
        let _ = socket::shut_down_all(self.fd.as_fd());
    }
}
