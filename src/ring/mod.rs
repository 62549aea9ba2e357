//! The algorithms, pure: no I/O, no system calls, generic over where the words live, so that loom runs the very same code.

pub mod mpmc;
mod record;
pub mod spsc;

pub use record::{MAX_CAPACITY, MIN_CAPACITY, largest_message};

/// The ring holds what no correct peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation;
