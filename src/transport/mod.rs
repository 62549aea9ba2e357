//! Safe senders and receivers that are opened by address, whatever carries the messages.
//!
//! A [`Sender`] copies messages in and a [`Receiver`] copies them out. Where a ring carries them, by copies that are defined for
//! memory that another process may be writing; where the kernel does (pipes, queues, sockets, terminals, signals, a file), in
//! frames that are checked. A peer that breaks the rules can cost the ring or the connection, never memory safety.
//! [`Address::capabilities`] says what can be expected of each.

mod address;
mod anonymous;
mod auto;
mod capabilities;
mod claim;
mod feed;
mod fifo;
mod frame;
mod inbox;
mod inherited;
mod inlet;
mod list;
mod log;
mod meeting;
mod memfd;
mod mq;
mod open;
mod outbox;
mod outlet;
mod packets;
mod pipe;
mod plan;
mod pollset;
mod port;
mod pty;
mod receiver;
mod remove;
mod sender;
mod signal;
mod sources;
mod stream;
mod sysvmq;
mod tcp;
mod told;
mod udp;
mod unix;

#[cfg(test)]
mod watched_tests;

pub use address::{Address, Host, LogLock, ParseAddressError, Priority, Target, UnixKind, UnixName};
pub use auto::Chosen;
pub use capabilities::Capabilities;
pub use list::{Listed, list};
pub use open::Trusted;
pub use pipe::PipeEnd;
#[cfg(feature = "async")]
pub(crate) use receiver::Taken;
pub use receiver::{Batch, Delivery, Message, Messages, Receiver};
pub use remove::remove;
#[cfg(feature = "async")]
pub(crate) use sender::Space;
pub use sender::{Outgoing, PartialSend, SendGrant, Sender};
