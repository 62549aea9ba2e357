//! Unix sockets: streams, datagrams and seqpackets, by a path or by a name in the abstract namespace.
//!
//! The receiver owns its path by a [`Claim`]; the kernel keeps abstract names apart by itself, and ends them with the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::address::{UnixKind, UnixName};
use super::claim::Claim;
use super::feed::{Buffer, Door, Feed};
use super::meeting::is_admitted;
use super::packets::{PacketFeed, PacketPort};
use super::plan::Plan;
use super::receiver::Receiver;
use super::sender::Sender;
use super::stream::{StreamFeed, StreamPort};
use crate::channel::Framing;
use crate::error::{ErrorKind, Result};
use crate::sys::descriptor::Sink;
use crate::sys::file;
use crate::sys::socket::{self, Place, Type};

/// The longest path, in bytes: the kernel's field has 108, one of which ends it.
const LONGEST_PATH: usize = 107;

pub(super) fn sender(plan: &Plan, name: &UnixName, kind: UnixKind) -> Result<Sender> {
    let framing = framing(plan, kind)?;
    let place = place(plan, name)?;
    let connected = plan.connect(|| {
        let fd = socket::open(&place, type_of(kind))?;
        socket::connect_to(fd.as_fd(), &place)?;
        Ok(fd)
    })?;
    check_owner(plan, name, kind, connected.as_fd())?;
    set_buffer(plan, connected.as_fd(), true)?;
    let outward = match kind {
        UnixKind::Stream => plan.outward(StreamPort::new(connected, Sink::Socket, framing), framing)?,
        _ => {
            let fits =
                socket::longest_message(connected.as_fd()).map_err(|e| plan.failed("look at the buffer of", e))?;
            plan.outward(PacketPort::new(connected, PacketPort::LONGEST_UNIX.min(fits)), framing)?
        }
    };
    Ok(Sender::carried(outward))
}

pub(super) fn receiver(plan: &Plan, name: &UnixName, kind: UnixKind) -> Result<Receiver> {
    let framing = framing(plan, kind)?;
    let place = place(plan, name)?;
    let claim = match name {
        UnixName::Path(path) => Some(Claim::take(plan.address, path)?),
        UnixName::Abstract(_) => None,
    };
    // From here on, what fails leaves the path as it was found.
    let bound =
        bind(plan, &place, name, kind, claim.as_ref()).inspect_err(|_| claim.iter().for_each(Claim::release))?;
    let inward = match kind {
        UnixKind::Datagram => {
            let feed = PacketFeed::new(bound, PacketPort::LONGEST_UNIX);
            plan.inward(Box::new(Bound { feed, claim }), framing, false)
        }
        _ => plan.inward_by(Box::new(Listener { fd: bound, claim, kind, framing, perm: plan.perm() }), framing),
    };
    Ok(Receiver::carried(inward))
}

fn framing(plan: &Plan, kind: UnixKind) -> Result<Framing> {
    if kind == UnixKind::Stream { plan.stream_framing() } else { plan.piece_framing() }
}

fn type_of(kind: UnixKind) -> Type {
    match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    }
}

fn place(plan: &Plan, name: &UnixName) -> Result<Place> {
    let place = match name {
        UnixName::Path(path) => Place::path(path),
        UnixName::Abstract(name) => Place::abstract_name(name.as_bytes()),
    };
    place.map_err(|e| {
        plan.failed("name", e).advise(format!(
            "the name of a Unix socket has at most {LONGEST_PATH} bytes (sun_path): choose a shorter one"
        ))
    })
}

fn bind(plan: &Plan, place: &Place, name: &UnixName, kind: UnixKind, claim: Option<&Claim>) -> Result<OwnedFd> {
    let fd = socket::open(place, type_of(kind)).map_err(|e| plan.failed("make a socket for", e))?;
    set_buffer(plan, fd.as_fd(), false)?;
    // The path is born with the socket's own mode, less the umask, so that nobody gets in before it is as wanted.
    socket::set_mode(fd.as_fd(), plan.perm()).map_err(|e| plan.failed("set the mode of", e))?;
    socket::bind_to(fd.as_fd(), place).map_err(|e| match e.raw_os_error() {
        Some(libc::EADDRINUSE) => plan.refuse(ErrorKind::RoleTaken { pid: holder(place, kind) }, ""),
        _ => plan.failed("bind a socket to", e),
    })?;
    claim.into_iter().for_each(Claim::made);
    let opened = match name {
        UnixName::Path(path) => file::set_path_mode(path, plan.perm()),
        UnixName::Abstract(_) => Ok(()),
    };
    opened
        .and_then(|()| if kind == UnixKind::Datagram { Ok(()) } else { socket::listen_on(fd.as_fd()) })
        .map_err(|e| plan.failed("listen at", e))?;
    Ok(fd)
}

/// The process that listens at an abstract name; 0 if it doesn't accept connections or can't be told.
fn holder(place: &Place, kind: UnixKind) -> u32 {
    let connected = socket::open(place, type_of(kind)).and_then(|fd| {
        socket::connect_to(fd.as_fd(), place)?;
        socket::peer(fd.as_fd())
    });
    connected.map_or(0, |(pid, _)| pid)
}

/// Refuses a receiver of another user's, unless it is meant to be shared.
fn check_owner(plan: &Plan, name: &UnixName, kind: UnixKind, connected: BorrowedFd) -> Result<()> {
    let owner = match (kind, name) {
        (UnixKind::Datagram, UnixName::Path(path)) => owner_of(path).map_err(|e| plan.failed("look at", e))?,
        // Nobody can tell whose it is, and it can't be shared with permissions either.
        (UnixKind::Datagram, UnixName::Abstract(_)) => return Ok(()),
        _ => socket::peer(connected).map_err(|e| plan.failed("look who listens at", e))?.1,
    };
    plan.check_owner(owner)
}

fn owner_of(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(path.symlink_metadata()?.uid())
}

/// Asks for the room that was asked for.
pub(super) fn set_buffer(plan: &Plan, fd: BorrowedFd, sending: bool) -> Result<()> {
    let Some(wanted) = plan.capacity() else { return Ok(()) };
    let wanted = wanted.min(i32::MAX as usize / 2);
    let granted = socket::set_buffer(fd, wanted, sending).map_err(|e| plan.failed("set the buffer of", e))?;
    if granted >= wanted {
        return Ok(());
    }
    let limit = if sending { "wmem_max" } else { "rmem_max" };
    Err(plan.refuse(
        ErrorKind::NoSpace,
        format!(
            "{wanted} bytes of buffer were asked for and /proc/sys/net/core/{limit} allows {granted}: ask for less capacity, or \
             raise it with `sysctl net.core.{limit}={wanted}`"
        ),
    ))
}

/// Has those who connected, and were never let in, know that the receiver has left.
pub(super) fn turn_away_all(door: &mut dyn Door) {
    for _ in 0..socket::BACKLOG {
        match door.accept() {
            Ok(mut feed) => feed.close(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => break,
        }
    }
}

/// A socket at which senders connect.
#[derive(Debug)]
struct Listener {
    fd: OwnedFd,
    claim: Option<Claim>,
    kind: UnixKind,
    framing: Framing,
    perm: u32,
}

impl Door for Listener {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn accept(&mut self) -> io::Result<Box<dyn Feed>> {
        let fd = socket::accept(self.fd.as_fd())?;
        // Of a path, the kernel has looked at the mode; an abstract name has none.
        if self.claim.is_none() && !is_admitted(fd.as_fd(), self.perm)? {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(match self.kind {
            UnixKind::Stream => Box::new(StreamFeed::new(fd, self.framing)),
            _ => Box::new(PacketFeed::new(fd, PacketPort::LONGEST_UNIX)),
        })
    }

    fn close(&mut self) {
        turn_away_all(self);
        let _ = socket::shut_down_all(self.fd.as_fd());
        self.claim.iter().for_each(Claim::release);
    }
}

/// A socket that receives datagrams.
#[derive(Debug)]
struct Bound {
    feed: PacketFeed,
    claim: Option<Claim>,
}

impl Feed for Bound {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, many: bool) -> io::Result<bool> {
        self.feed.fill(buffer, many)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.feed.descriptor()
    }

    fn close(&mut self) {
        self.claim.iter().for_each(Claim::release);
    }
}
