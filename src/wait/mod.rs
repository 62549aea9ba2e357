//! How an endpoint waits for its peer, and how it tells it that there is something to see.

#[cfg(not(ringway_loom))]
mod backoff;
#[cfg(not(ringway_loom))]
mod blocking;
#[cfg(not(ringway_loom))]
mod brief;
pub mod crowd;
pub mod event;

#[cfg(not(ringway_loom))]
pub(crate) use backoff::Backoff;
#[cfg(not(ringway_loom))]
pub(crate) use blocking::{Look, Patience, SLICE, SPIN, Sleeper, Station};
#[cfg(not(ringway_loom))]
pub(crate) use brief::{Spin, spin_for_room};
