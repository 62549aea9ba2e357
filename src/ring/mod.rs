//! The algorithms, pure: no I/O, no system calls, generic over where the words live, so that loom runs the very same code.

mod record;
pub mod spsc;

pub use record::{MAX_CAPACITY, MIN_CAPACITY, largest_message};
