//! Endpoints of a ring: attached to a segment, with a role, able to wait.

mod attach;
mod consumer;
mod endpoint;
mod options;
mod outcome;
mod producer;
mod report;

pub(crate) use attach::{Attachment, Place, attach, make};
pub(crate) use endpoint::{deadline_at, deadline_in};
pub(crate) use options::Existence;
pub use options::{Options, Profile, Takeover};
pub use outcome::{RecvError, SendError};

/// Zero-copy access to a ring with one producer and one consumer.
///
/// Messages are built and read in place. [`channel`](spsc::channel) makes a ring for the threads of this process; the
/// endpoints of one that other processes share come from
/// [`Options::assume_trusted_peers`](crate::Options::assume_trusted_peers).
///
/// ```
/// use ringway::{Options, spsc};
///
/// let (mut producer, mut consumer) = spsc::channel(&Options::new())?;
/// let mut grant = producer.try_reserve(100)?;
/// grant[..5].copy_from_slice(b"hello");
/// grant.set_tag(7);
/// grant.commit(5);
///
/// let message = consumer.try_recv()?;
/// assert_eq!((&message[..], message.tag()), (&b"hello"[..], 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub mod spsc {
    pub use super::attach::channel;
    pub use super::consumer::{Consumer, Iter, ReadBatch, ReadGrant, Received};
    pub use super::producer::{Producer, WriteBatch, WriteGrant};
}
pub use report::{Peer, PeerState, Report, inspect};
