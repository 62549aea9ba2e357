//! What everything else is measured against: the kernel's transports by raw system calls, and the bare hardware.

mod bells;
mod bytes;
mod futex;
mod log;
mod packets;
mod queues;
mod ring;
mod signals;

pub use bells::{Bell, Belled, Descriptors, Polled, PosixSemaphore, SystemVSemaphore, await_epoll};
pub use bytes::{Bytes, Waiting, pipe, tcp, terminal, unix};
pub use futex::Futex;
pub use log::Log;
pub use packets::{Packets, udp, unix_datagram, unix_seqpacket};
pub use queues::{PosixQueue, SysVQueue};
pub use ring::BareRing;
pub use signals::Signals;
