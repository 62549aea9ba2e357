//! The bytes of a segment: where each word lies, how a segment is formatted, and how one made by somebody else is checked.
//!
//! The specification is `docs/abi.md`; this module is its implementation. A header is copied once into private memory and
//! checked there; from then on only the private [`Geometry`] is believed.

mod header;
mod side;
mod strategy;
mod view;

pub(crate) use header::{Geometry, Rejected};
pub(crate) use side::{Participant, Side};
pub use strategy::{ParseWaitError, Wait};
pub(crate) use view::View;

/// The unit in which each side's words are kept apart, in bytes.
pub(crate) const PAGE: u64 = 4096;
