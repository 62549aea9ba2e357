//! The atomics every algorithm is written against: loom's when the orderings are being checked, core's otherwise.

#[cfg(not(ringway_loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(ringway_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
