//! Zero-copy shared-memory ring buffers that survive `kill -9`.

#[cfg(not(ringway_loom))]
mod channel;
#[cfg(not(ringway_loom))]
pub mod error;
#[cfg(not(ringway_loom))]
mod layout;
#[cfg(not(ringway_loom))]
mod liveness;
mod primitive;
#[cfg(not(ringway_loom))]
mod ring;
#[cfg(ringway_loom)]
pub mod ring;
#[cfg(not(ringway_loom))]
pub mod segment;
#[cfg(not(ringway_loom))]
mod sys;
#[cfg(not(ringway_loom))]
pub mod transport;
#[cfg(not(ringway_loom))]
pub mod units;
#[cfg(not(ringway_loom))]
mod wait;
#[cfg(ringway_loom)]
pub mod wait;

#[cfg(not(ringway_loom))]
pub use channel::{Options, Peer, PeerState, Profile, RecvError, Report, SendError, Takeover, inspect, spsc};
#[cfg(not(ringway_loom))]
pub use error::{Error, ErrorKind, Result};
#[cfg(not(ringway_loom))]
pub use layout::{ParseWaitError, Wait};
#[cfg(not(ringway_loom))]
pub use transport::{Address, Receiver, Sender};
