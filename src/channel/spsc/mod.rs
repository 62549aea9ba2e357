//! Zero-copy access to a ring with one producer and one consumer.
//!
//! Messages are built and read in place. [`channel`] makes a ring for the threads of this process; the endpoints of one that
//! other processes share come from [`Options::assume_trusted_peers`](crate::Options::assume_trusted_peers).
//!
//! ```
//! use ringway::{Options, spsc};
//!
//! let (mut producer, mut consumer) = spsc::channel(&Options::new())?;
//! let mut grant = producer.try_reserve(100)?;
//! grant[..5].copy_from_slice(b"hello");
//! grant.set_tag(7);
//! grant.commit(5);
//!
//! let message = consumer.try_recv()?;
//! assert_eq!((&message[..], message.tag()), (&b"hello"[..], 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod consumer;
mod endpoint;
mod producer;
mod watching;

use std::sync::Arc;

pub use consumer::{Consumer, Iter, ReadBatch, ReadGrant, Received};
pub use producer::{Producer, WriteBatch, WriteGrant};

pub(super) use endpoint::Endpoint;

use super::attach::{Place, attach, make};
use super::options::Options;
use crate::error::Result;
use crate::layout::Ring;
use crate::liveness::Role;
use crate::segment::Segment;

/// Makes a ring for the threads of this process, and both of its ends.
///
/// Safe, because no other process can see it. Capacity, longest message, wait strategy, profile and spin of the options
/// apply.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the sizes can't be, or the options ask for another kind of ring;
/// [`NoSpace`](crate::ErrorKind::NoSpace).
pub fn channel(options: &Options) -> Result<(Producer, Consumer)> {
    let options = options.clone().ring(Ring::Spsc);
    let segment = Arc::new(make(&options, &"a heap ring", |bytes, init| Segment::heap(bytes, init))?);
    let producer = attach(Place::Made(&segment), &options, Role::Producer)?.into_spsc_producer()?;
    let consumer = attach(Place::Made(&segment), &options, Role::Consumer)?.into_spsc_consumer()?;
    Ok((producer, consumer))
}
