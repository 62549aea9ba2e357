//! Doorbells: descriptors that become readable when somebody in another process, who was given nothing, rings them.
//!
//! A doorbell is a Unix datagram socket with a name in the abstract namespace: the kernel takes it away with its last descriptor,
//! whatever becomes of its owner, and it needs no directory. Ringing it takes one system call and no descriptor of its own. It is
//! reached only within a network namespace. Whoever learns its name can ring it, which costs its owner a look for nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, recv, sendto};

use super::socket::{self, Place, Type};

/// More rings than that are not waiting in a doorbell, unless somebody floods it.
const MOST_RINGS: usize = 64;

/// The name of a doorbell: of which ring, whose, and which of that one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) ring: u64,
    pub(crate) member: u32,
    pub(crate) number: u32,
}

impl Name {
    fn bytes(self) -> String {
        format!("ringway.{:016x}.{}.{}", self.ring, self.member, self.number)
    }
}

/// A new doorbell of that name; [`AddrInUse`](io::ErrorKind::AddrInUse) if there is one.
pub(crate) fn hang(name: Name) -> io::Result<OwnedFd> {
    let place = Place::abstract_name(name.bytes().as_bytes())?;
    let doorbell = socket::open(&place, Type::DGRAM)?;
    socket::bind_to(doorbell.as_fd(), &place)?;
    Ok(doorbell)
}

/// Rings it. One that is full of rings already is as good as rung.
pub(crate) fn ring(name: Name) {
    /// One that isn't bound can send to all, whichever process of a family it was made by.
    static SENDER: OnceLock<OwnedFd> = OnceLock::new();

    let sender = match SENDER.get() {
        Some(sender) => sender,
        // There is nobody to tell of an error, and the waiter's slice makes up for it.
        None => match open_sender() {
            Ok(sender) => SENDER.get_or_init(|| sender),
            Err(_) => return,
        },
    };
    match send(sender.as_fd(), name) {
        // Nobody has that name any longer.
        Ok(()) | Err(Errno::CONNREFUSED) => {}
        // Either the doorbell is full; or too many rings of this process, a few hundred, lie in doorbells that nobody empties. They count
        // for the socket that they were sent by, so that another one can still send. Or somebody closed it under us, as daemons do.
        Err(_) => {
            if let Ok(another) = open_sender() {
                let _ = send(another.as_fd(), name);
            }
        }
    }
}

/// Rings one's own.
pub(crate) fn ring_own(doorbell: BorrowedFd, name: Name) {
    // It fails only if it is full.
    let _ = send(doorbell, name);
}

fn send(from: BorrowedFd, to: Name) -> Result<(), Errno> {
    let address = SocketAddrUnix::new_abstract_name(to.bytes().as_bytes())?;
    sendto(from, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &address).map(drop)
}

fn open_sender() -> io::Result<OwnedFd> {
    Place::abstract_name(b"").and_then(|place| socket::open(&place, Type::DGRAM))
}

/// Takes the rings away, but not without end.
pub(crate) fn clear(doorbell: BorrowedFd) {
    for _ in 0..MOST_RINGS {
        if recv(doorbell, &mut [0; 1], RecvFlags::DONTWAIT).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use crate::sys::descriptor::{Ready, is_ready, wait_one};

    #[test]
    fn a_doorbell_is_rung_by_another_process_and_goes_with_its_owner() {
        let name = Name { ring: std::process::id().into(), member: 3, number: 1 };
        ring(name);
        let doorbell = hang(name).unwrap();
        assert_eq!(hang(name).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
        let readable = || is_ready(doorbell.as_fd(), Ready::Read).unwrap();
        assert!(!readable());
        Child::fork(|_| (0..1000).for_each(|_| ring(name))).expect_success();
        assert!(wait_one(doorbell.as_fd(), Ready::Read, None).unwrap());
        clear(doorbell.as_fd());
        assert!(!readable());
        ring_own(doorbell.as_fd(), name);
        assert!(readable());
        clear(doorbell.as_fd());
        Child::fork(|tell| {
            // What was opened to ring by is gone.
            tell.close_inherited();
            ring(name);
        })
        .expect_success();
        assert!(readable());
        clear(doorbell.as_fd());
        ring(Name { number: 2, ..name });
        assert!(!readable());
        drop(doorbell);
        drop(hang(name).unwrap());
    }

    #[test]
    fn many_that_nobody_answers_keep_no_other_from_being_rung() {
        let ring_of_this_test = u64::from(std::process::id()) | 1 << 40;
        let mut unanswered = Vec::new();
        for number in 0..500 {
            let name = Name { ring: ring_of_this_test, member: 4, number };
            let doorbell = hang(name).unwrap();
            ring(name);
            assert!(is_ready(doorbell.as_fd(), Ready::Read).unwrap(), "number {number}");
            unanswered.push(doorbell);
        }
    }
}
