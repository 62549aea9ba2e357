//! Rings in a sealed memfd, handed over at a Unix socket: memory without a name, of a size that nobody can change.
//!
//! The receiver [claims](Claim) the path, makes the ring, attaches to it, and only then listens. Whoever connects is checked, and is
//! sent one letter with the descriptor, and those of the eventfds if the ring has some; nothing is read from it, and it is hung up on, so that nobody can keep others waiting.
//! The sender checks who listens, that the memfd is sealed, and the ring in it, and attaches.
//!
//! Whoever was handed the ring finds its receivers attached, or gone: the first attached before it listened. So a ring that
//! nobody receives from any longer is known by that, and isn't used: its sender looks for the next receiver, who makes a new
//! one. For the same reason a sender whose receiver died has to be opened anew to reach a successor. With `ring=mpmc` others may
//! receive too; they get the ring as senders do, and it outlives the one who hands it over, but then nobody can join.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::meeting::{self, Host, Service, Word, hear, is_admitted, say};
use super::{Address, Receiver, Sender};
use crate::channel::{Attachment, Existence, Options, PeerState, Place, attach, make};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Ring;
use crate::liveness::Role;
use crate::segment::Segment;
use crate::sys::process::user_id;
use crate::sys::socket::{self, Type};

pub(super) fn sender(address: &Address, options: &Options, path: &Path) -> Result<Sender> {
    meeting::check(address, options, false)?;
    let place = place(address, path)?;
    meeting::meet(address, options, |deadline| {
        let Some(attachment) = join(address, options, &place, Role::Producer, deadline)? else { return Ok(None) };
        let sender = Sender::new(attachment)?;
        Ok(is_there(sender.peer()).then_some(sender))
    })
}

pub(super) fn receiver(address: &Address, options: &Options, path: &Path) -> Result<Receiver> {
    meeting::check(address, options, true)?;
    let place = place(address, path)?;
    meeting::meet(address, options, |deadline| {
        if options.existence != Existence::Open {
            match Claim::take(address, path) {
                Ok(claim) => return host(address, options, path, &place, claim).map(Some),
                Err(e) if !may_join(options, &e) => return Err(e),
                Err(_) => {}
            }
        }
        let attachment = join(address, options, &place, Role::Consumer, deadline)?;
        attachment.map(Receiver::new).transpose()
    })
}

fn may_join(options: &Options, error: &Error) -> bool {
    let is_taken = matches!(error.kind(), ErrorKind::RoleTaken { .. });
    is_taken && options.ring == Some(Ring::Mpmc) && options.existence == Existence::OpenOrCreate
}

fn place(address: &Address, path: &Path) -> Result<socket::Place> {
    socket::Place::path(path).map_err(|e| {
        Error::os(e, "use the path of", address.target())
            .advise("the path of a Unix socket has at most 107 bytes (sun_path): choose a shorter one")
    })
}

/// Whether somebody is there, as far as can be told.
pub(super) fn is_there(peer: PeerState) -> bool {
    !matches!(peer, PeerState::Absent | PeerState::Left | PeerState::Dead { .. })
}

/// Gets the ring and attaches to it; none if nobody hands it over yet.
fn join(
    address: &Address,
    options: &Options,
    place: &socket::Place,
    role: Role,
    deadline: Duration,
) -> Result<Option<Attachment>> {
    let Some(link) = meeting::visit(address, options, place, Type::SEQPACKET)? else { return Ok(None) };
    let letter = match hear(link.as_fd(), deadline, None) {
        Ok(letter) => letter,
        Err(e) => return meeting::unheard(address, options, e),
    };
    match (letter.word, letter.descriptors.is_empty()) {
        (Word::Memfd, false) => {
            let segment = Segment::received(&address.target().to_string(), letter.descriptors, false)?;
            attach(Place::Made(&Arc::new(segment)), options, role).map(Some)
        }
        (Word::Memfd, true) => {
            Err(Error::new(ErrorKind::NoSpace, "take the descriptor handed over at", address.target())
                .advise("this process probably has too many files open, see `ulimit -n`"))
        }
        (Word::Denied, _) => Err(denied(address, &letter.text)),
        _ => meeting::unheard(address, options, io::ErrorKind::InvalidData.into()),
    }
}

/// The receiver's answer to who may not come.
pub(super) fn denied(address: &Address, why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, "connect to", address.target()).advise(why)
}

/// What it tells them.
pub(super) fn denial(perm: u32) -> String {
    let user = user_id();
    format!(
        "the receiver is user {user}'s, and lets in that user, root, and those whom perm={perm:04o} lets read and write"
    )
}

/// Makes the ring, and hands it to whoever comes.
fn host(address: &Address, options: &Options, path: &Path, place: &socket::Place, claim: Claim) -> Result<Receiver> {
    let label = address.target().to_string();
    let perm = options.perm.unwrap_or(0o600);
    let opened = || {
        let segment = make(options, &label, |bytes, init| Segment::memfd("ringway", bytes, perm, init))?;
        let segment = Arc::new(segment);
        let receiver = Receiver::new(attach(Place::Made(&segment), options, Role::Consumer)?)?;
        let failed = |tried: &'static str| move |e| Error::os(e, tried, address.target());
        let listener = socket::open(place, Type::SEQPACKET).map_err(failed("open a socket for"))?;
        socket::bind_to(listener.as_fd(), place).map_err(failed("bind a socket to"))?;
        claim.made();
        // Nobody can connect before it listens.
        fs::set_permissions(path, Permissions::from_mode(perm)).map_err(failed("set the mode of"))?;
        socket::listen_on(listener.as_fd()).map_err(failed("listen at"))?;
        Ok((receiver, listener, Counter { segment, perm }))
    };
    match opened() {
        Ok((receiver, listener, counter)) => Ok(receiver.hosted(Host::start(listener, Some(claim), counter, address)?)),
        Err(e) => {
            claim.release();
            Err(e)
        }
    }
}

/// Hands the ring over.
struct Counter {
    segment: Arc<Segment>,
    perm: u32,
}

impl Service for Counter {
    fn serve(&mut self, link: OwnedFd, _stop: BorrowedFd<'_>) {
        // Whoever can't be told comes again, or is gone.
        let _ = match is_admitted(link.as_fd(), self.perm) {
            Ok(true) => say(link.as_fd(), Word::Memfd, "", &self.segment.descriptors()),
            Ok(false) => say(link.as_fd(), Word::Denied, &denial(self.perm), &[]),
            Err(e) => Err(e),
        };
    }
}
