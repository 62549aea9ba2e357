//! From an address and options to endpoints.

use std::fmt::Display;

use super::address::{Address, Target};
use super::anonymous;
use super::receiver::Receiver;
use super::sender::Sender;
use crate::channel::{Attachment, Options, Place, attach, mpmc, spsc};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Ring;
use crate::liveness::Role;
use crate::units::ByteSize;

impl Options {
    /// Becomes the sender at `address`. Either side may come first; who comes first creates the ring.
    ///
    /// # Errors
    /// [`RoleTaken`](ErrorKind::RoleTaken) if another process, or this one, is the sender already, of a ring with one;
    /// [`NoSpace`](ErrorKind::NoSpace) if a ring of many has as many as it takes;
    /// [`Mismatch`](ErrorKind::Mismatch) if the ring exists and is not as wanted;
    /// [`InvalidInput`](ErrorKind::InvalidInput) if address and options contradict each other; and whatever keeps the ring
    /// from being created or opened.
    pub fn sender(&self, address: &Address) -> Result<Sender> {
        Sender::new(self.join_as(address, Role::Producer, None)?)
    }

    /// Becomes the receiver at `address`. Either side may come first; who comes first creates the ring.
    ///
    /// # Errors
    /// As [`sender`](Self::sender).
    pub fn receiver(&self, address: &Address) -> Result<Receiver> {
        Receiver::new(self.join_as(address, Role::Consumer, None)?)
    }

    /// Opens the way to [`spsc`] and [`mpmc`] endpoints, which lend out references straight into the shared segment.
    ///
    /// # Safety
    /// As long as an endpoint got from the returned value lives, every process that can write the segment must keep the
    /// ring's protocol (`docs/abi.md`): above all, it must not write bytes that are lent out here, nor truncate the
    /// segment. All of ringway's own endpoints do. The mode of the segment (0600 unless told) says which users' processes
    /// these are. A process that does otherwise makes what is lent out change under a `&[u8]`, which is undefined
    /// behaviour.
    ///
    /// ```
    /// use ringway::{Address, Options};
    ///
    /// let address: Address = "anon:trusted".parse()?;
    /// // SAFETY: only this process has the ring, and it uses nothing but ringway's endpoints.
    /// let trusted = unsafe { Options::new().assume_trusted_peers() };
    /// let mut producer = trusted.producer(&address)?;
    /// let mut consumer = trusted.consumer(&address)?;
    /// producer.reserve(4)?.commit(4);
    /// assert_eq!(consumer.recv()?.len(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn assume_trusted_peers(self) -> Trusted {
        Trusted(self)
    }

    /// Joins a ring, which is of that kind unless address or options say another.
    fn join_as(&self, address: &Address, role: Role, ring: Option<Ring>) -> Result<Attachment> {
        let mut options = self.merged(address)?;
        options.ring = options.ring.or(ring);
        match address.target() {
            Target::Segment(name) => attach(Place::Named(name), &options, role),
            Target::Anonymous(name) => attach(Place::Made(&anonymous::find_or_make(name, &options)?), &options, role),
        }
    }

    /// These options with what the address says; they must not contradict each other.
    fn merged(&self, address: &Address) -> Result<Options> {
        let mut options = self.clone();
        merge(address, "ring", &mut options.ring, address.ring(), |ring| ring)?;
        merge(address, "producers", &mut options.producers, address.producers(), |count| count)?;
        merge(address, "max_deliveries", &mut options.max_deliveries, address.max_deliveries(), |count| count)?;
        merge(address, "capacity", &mut options.capacity, address.capacity(), ByteSize)?;
        merge(address, "max_message", &mut options.max_message, address.max_message(), ByteSize)?;
        merge(address, "wait", &mut options.wait, address.wait(), |wait| wait)?;
        merge(address, "perm", &mut options.perm, address.perm(), |bits| format!("{bits:04o}"))?;
        merge(address, "persist", &mut options.persist, address.persist(), |stays| if stays { "yes" } else { "no" })?;
        Ok(options)
    }
}

/// `show` shows a value as it is written in an address.
fn merge<T: PartialEq + Copy, S: Display>(
    address: &Address,
    key: &str,
    option: &mut Option<T>,
    said: Option<T>,
    show: impl Fn(T) -> S,
) -> Result<()> {
    match (*option, said) {
        (Some(option), Some(said)) if option != said => {
            let (option, said) = (show(option), show(said));
            Err(Error::new(ErrorKind::InvalidInput, "use the options with", address)
                .advise(format!("the address says {key}={said} and the options say {option}; say it once")))
        }
        (None, Some(said)) => {
            *option = Some(said);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Options under which endpoints lend out references into the segment; made by
/// [`Options::assume_trusted_peers`], which has the contract.
#[derive(Clone, Debug)]
pub struct Trusted(Options);

impl Trusted {
    /// Becomes the producer of a ring with one, at `address`.
    ///
    /// # Errors
    /// As [`Options::sender`].
    pub fn producer(&self, address: &Address) -> Result<spsc::Producer> {
        self.0.join_as(address, Role::Producer, Some(Ring::Spsc))?.into_spsc_producer()
    }

    /// Becomes the consumer of a ring with one, at `address`.
    ///
    /// # Errors
    /// As [`Options::receiver`].
    pub fn consumer(&self, address: &Address) -> Result<spsc::Consumer> {
        self.0.join_as(address, Role::Consumer, Some(Ring::Spsc))?.into_spsc_consumer()
    }

    /// Becomes a producer of a ring of many, at `address`.
    ///
    /// # Errors
    /// As [`Options::sender`].
    pub fn mpmc_producer(&self, address: &Address) -> Result<mpmc::Producer> {
        self.0.join_as(address, Role::Producer, Some(Ring::Mpmc))?.into_mpmc_producer()
    }

    /// Becomes a consumer of a ring of many, at `address`.
    ///
    /// # Errors
    /// As [`Options::receiver`].
    pub fn mpmc_consumer(&self, address: &Address) -> Result<mpmc::Consumer> {
        self.0.join_as(address, Role::Consumer, Some(Ring::Mpmc))?.into_mpmc_consumer()
    }
}
