//! The bytes of a segment: where each word lies, how a segment is formatted, and how one made by somebody else is checked.
//!
//! The specification is `docs/abi.md`; this module is its implementation. A header is copied once into private memory and
//! checked there; from then on only the private [`Geometry`] is believed.

mod header;
mod kind;
mod mpmc;
mod side;
mod spsc;
mod strategy;

pub(crate) use header::{Form, Geometry, Rejected};
pub use kind::{ParseRingError, Ring};
pub(crate) use mpmc::{LaneView, MpmcLayout, MpmcView};
pub(crate) use side::{Participant, Side};
pub(crate) use spsc::{SpscLayout, View};
pub use strategy::{ParseWaitError, Wait};

/// The unit in which each side's words are kept apart, in bytes.
pub(crate) const PAGE: u64 = 4096;
/// From one semaphore to the next, in bytes.
const SEMAPHORE: u64 = 128;

static_assertions::const_assert!(size_of::<crate::sys::semaphore::RawSemaphore>() <= SEMAPHORE as usize);
