//! The binary as its users meet it: real processes, real rings.

mod ends;
mod look;
mod many;
mod place;
mod running;
mod transfer;
mod transports;
