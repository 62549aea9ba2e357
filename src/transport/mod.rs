//! Safe senders and receivers that are opened by address, whatever carries the messages.
//!
//! A [`Sender`] copies messages in and a [`Receiver`] copies them out, by copies that are defined for memory that another
//! process may be writing: a peer that breaks the ring's rules can cost the channel, never memory safety.

mod address;
mod anonymous;
mod open;
mod receiver;
mod sender;

pub use address::{Address, ParseAddressError, Target};
pub use open::Trusted;
pub use receiver::{Batch, Delivery, Message, Messages, Receiver};
pub use sender::{Outgoing, PartialSend, SendGrant, Sender};
