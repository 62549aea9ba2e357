//! What everything else is measured against: the kernel's transports by raw system calls, and the bare hardware.

mod bytes;
mod futex;
mod ring;

pub use bytes::{Bytes, Waiting, pipe, unix};
pub use futex::Futex;
pub use ring::BareRing;
