//! Taking away what an address names, with the messages in it.

use super::address::{Address, Target, UnixName};
use super::plan::Plan;
use super::{claim, fifo, log, mq, sysvmq};
use crate::channel::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::segment;

/// Removes what `address` names, and the messages in it: a ring, a queue, a FIFO, a log, or what a dead receiver left of a socket
/// or terminal.
///
/// Refuses what somebody uses, except rings: these it [removes](segment::remove) always, so [look](crate::inspect) before.
/// `force` removes the names of queues, FIFOs and the like anyway; those who use them go on without being found.
///
/// ```
/// use ringway::{Address, Options, transport};
///
/// let address: Address = format!("fifo:///tmp/ringway-example-{}", std::process::id()).parse()?;
/// let receiver = Options::new().receiver(&address)?;
/// // Somebody uses it.
/// assert!(transport::remove(&address, false).is_err());
/// transport::remove(&address, true)?;
/// # drop(receiver);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound); [`RoleTaken`](ErrorKind::RoleTaken) if somebody uses it; [`InvalidInput`](ErrorKind::InvalidInput) if
/// an address of that kind leaves nothing behind that could be removed, or something else is there.
pub fn remove(address: &Address, force: bool) -> Result<()> {
    let options = Options::new();
    let plan = || Plan::new(address, &options);
    match address.target() {
        Target::Segment(name) => segment::remove(name),
        Target::Fifo(path) => fifo::remove(&plan()?, path, force),
        Target::PosixQueue { name, .. } => mq::remove(&plan()?, name, force),
        Target::SysVQueue { key, .. } => sysvmq::remove(&plan()?, key, force),
        Target::Log { path, .. } => log::remove(address, path, force),
        Target::Terminal(path) | Target::Memfd(path) | Target::Unix { name: UnixName::Path(path), .. } => {
            claim::remove(address, path, force)
        }
        _ => Err(Error::new(ErrorKind::InvalidInput, "remove", address.target())
            .advise("it leaves nothing behind: it goes with the processes that use it")),
    }
}
