//! Zero-copy shared-memory ring buffers that survive `kill -9`.

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
