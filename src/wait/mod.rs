//! How an endpoint waits for its peer.

pub mod event;
