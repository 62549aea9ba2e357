//! Where a channel lives: addresses.

mod address;

pub use address::{Address, ParseAddressError, Ring, Target};
