//! How ringway measures.
//!
//! A *block* is one short measurement: two processes (or two threads) are pinned to two CPUs, measure the bare cost of
//! passing a cache line to and fro (the *canary*), do their work, and measure the canary again. A larger *crew* shares the
//! CPUs there are, and its first two sides measure the canary. A *row* is the same block repeated over many *rounds*,
//! interleaved with the blocks of all other rows, so that whatever disturbs the machine disturbs all of them alike. Results
//! are medians over rounds, shown beside the canaries.
//!
//! Every message is written in full and read in full, and the digests of what was sent and received must agree, or there is
//! no result.
//!
//! A way to carry messages implements [`Link`]; [`block`] and [`many`] turn it into numbers; [`rounds`] repeats and interleaves.
//! [`yardstick`] holds what everything else is measured against: the kernel's own transports and the bare hardware.

pub mod block;
mod canary;
pub mod carried;
mod children;
pub mod clock;
pub mod cpus;
pub mod crew;
pub mod link;
pub mod many;
mod meeting;
pub mod mpmc;
pub mod pair;
pub mod payload;
pub mod ring;
pub mod rounds;
pub mod shared;
pub mod stats;
mod traffic;
pub mod waited;
pub mod windowed;
pub mod yardstick;

pub use block::Block;
pub use carried::{Carried, Carrier, Mechanism};
pub use crew::{Between, Crew};
pub use link::{Link, Receiver, SIZES, Sender};
pub use many::Roles;
pub use mpmc::MpmcRing;
pub use pair::Pair;
pub use ring::Ring;
pub use rounds::{Plan, Row};
pub use waited::{Grouped, NamedRings, Polled, Watched};
pub use windowed::Windowed;
