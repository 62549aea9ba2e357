//! Zero-copy shared-memory ring buffers that survive `kill -9`.

pub mod error;
mod primitive;
pub mod segment;
mod sys;
pub mod transport;
pub mod units;
pub mod wait;
