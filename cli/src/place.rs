//! Addresses that other processes can find, and what is common to them.

use nix::unistd::{Uid, User};
use ringway::{Address, Error, ErrorKind, transport::Target};

use crate::{failure::Failure, ring};

/// Reads an address of something that other processes can find.
pub fn address(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error: ringway::transport::ParseAddressError| error.to_string())?;
    match address.target() {
        Target::Anonymous(_) => {
            Err(format!("{address} is memory that no other process can find; use shm, sysv, file or memfd"))
        }
        Target::Pipe => Err(format!(
            "{address} has no name by which another process could find it; use fd://NUMBER for a pipe that was inherited, or fifo"
        )),
        _ => Ok(address),
    }
}

/// Whether there can be several senders at a time. Of a ring that exists, it tells itself.
pub fn has_many_senders(address: &Address) -> bool {
    match ring::look(address) {
        Some(report) => report.lanes.is_some(),
        None => address.capabilities().producers != Some(1),
    }
}

/// Whether there can be several receivers at a time.
pub fn has_many_receivers(address: &Address) -> bool {
    match ring::look(address) {
        Some(report) => report.lanes.is_some(),
        None => address.capabilities().consumers != Some(1),
    }
}

/// Why there is no place for this sender or receiver.
pub fn refused(error: Error, address: &Address) -> Failure {
    match error.kind() {
        ErrorKind::RoleTaken { .. } if ring::name(address).is_some() => Failure::Usage(format!(
            "{error}; a ring has one sender and one receiver, and several of each if it is made with ring=mpmc"
        )),
        _ => error.into(),
    }
}

/// The name of a user. Without one, the number has to do.
pub fn user(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
