//! How an endpoint waits for its peer, and how it tells it that there is something to see.

#[cfg(not(ringway_loom))]
mod backoff;
#[cfg(not(ringway_loom))]
mod belfry;
#[cfg(not(ringway_loom))]
mod blocking;
#[cfg(not(ringway_loom))]
mod brief;
#[cfg(not(ringway_loom))]
mod budget;
pub mod crowd;
pub mod event;
pub mod hold;
#[cfg(not(ringway_loom))]
mod lookout;
pub mod manner;
#[cfg(not(ringway_loom))]
mod pollable;
#[cfg(not(ringway_loom))]
mod rounds;
#[cfg(not(ringway_loom))]
mod set;
#[cfg(not(ringway_loom))]
mod waitable;
#[cfg(not(ringway_loom))]
mod watch;

#[cfg(not(ringway_loom))]
pub(crate) use backoff::Backoff;
#[cfg(not(ringway_loom))]
pub(crate) use belfry::{Belfry, Sleeper, unfit};
#[cfg(not(ringway_loom))]
pub(crate) use blocking::{Look, Patience, SLICE, SPIN, Station};
#[cfg(not(ringway_loom))]
pub(crate) use brief::{Spin, spin_for_room};
#[cfg(not(ringway_loom))]
pub(crate) use budget::Budget;
#[cfg(not(ringway_loom))]
pub(crate) use manner::Manner;
#[cfg(not(ringway_loom))]
pub use pollable::Pollable;
#[cfg(not(ringway_loom))]
pub use set::{Event, Events, Interest, WaitSet, Waker};
#[cfg(not(ringway_loom))]
pub use waitable::Waitable;
#[cfg(not(ringway_loom))]
pub(crate) use waitable::Watched;
#[cfg(not(ringway_loom))]
pub(crate) use watch::{Deaths, Side, Watch, Words};
