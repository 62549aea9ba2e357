//! Zero-copy shared-memory ring buffers that survive `kill -9`.
//!
//! Processes on one machine exchange messages through lock-free rings in shared memory: one producer and one consumer, or
//! many of both. Any of them may come first, any may be killed at any instruction, and the others, or a successor, go on.
//!
//! ```
//! use ringway::{Address, Options, RecvError};
//!
//! let address: Address = format!("shm:///example-{}", std::process::id()).parse()?;
//!
//! let mut sender = Options::new().sender(&address)?;
//! sender.send(b"hello")?;
//! sender.send(("with a tag", 7))?;
//! drop(sender);
//!
//! // Perhaps in another process, perhaps later.
//! let mut receiver = Options::new().receiver(&address)?;
//! assert_eq!(&receiver.recv()?[..], b"hello");
//! assert_eq!(receiver.recv()?.tag(), 7);
//! assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two levels of one API
//! | | portable and safe | zero-copy |
//! |---|---|---|
//! | endpoints | [`Sender`], [`Receiver`] | [`spsc::Producer`], [`spsc::Consumer`]; [`mpmc::Producer`], [`mpmc::Consumer`] |
//! | between processes | [`Options::sender`], [`Options::receiver`] with an [`Address`] | [`Options::assume_trusted_peers`], which is `unsafe` |
//! | between threads | an `anon:` address | [`spsc::channel`], [`mpmc::channel`] |
//! | a message | copied in and copied out | built and read in the segment: [`spsc::WriteGrant`], [`spsc::ReadGrant`] |
//! | several at once | [`Sender::send_many`], [`Receiver::recv_batch`] | [`spsc::Producer::batch`], [`spsc::Consumer::recv_batch`] |
//!
//! Both have the same rings and [`Options`], and meet in the same segment. [`inspect`] looks at a ring without taking part in
//! it, [`segment`] has the shared memory itself, [`units`] the sizes that addresses are written in.
//!
//! # Two kinds of rings
//! [`Ring::Spsc`], the default, has one producer and one consumer and is the fastest; its messages have a total order. [`Ring::Mpmc`]
//! has up to 64 of each: every message goes to one consumer, messages can be held and given back in any order, and order holds
//! for each producer. Ask for it with `ring=mpmc` in the address or [`Options::ring`].
//!
//! # Transports
//! The portable level works over every mechanism that the system has, chosen by the [`Address`]. `docs/transports.md` in the
//! repository says which to choose, and what it costs.
//!
//! | | addresses | |
//! |---|---|---|
//! | rings | `shm:`, `sysv:`, `file:`, `anon:`, `memfd:` | shared memory, as above and below |
//! | pipes | `pipe:`, `fd:`, `fifo:` | [`Options::pair`], [`PipeEnd`](transport::PipeEnd) |
//! | queues | `mq:`, `sysvmq:` | [`Priority`](transport::Priority), [`Receiver::select`] |
//! | sockets | `unix:`, `tcp:`, `udp:` | [`UnixKind`](transport::UnixKind), [`Receiver::local_address`] |
//! | others | `pty:`, `signal:`, `log:` | [`LogLock`](transport::LogLock) |
//! | the best that both sides can do | `auto:` | [`Sender::chosen`], [`Receiver::chosen`] |
//!
//! [`Address::capabilities`](Address::capabilities) says beforehand what an address can do: whether messages can get lost, how long they
//! can be, how many can take part. Where the kernel carries messages they travel in frames, with their tag and number; by
//! [`Options::framing`], as plain [lines or single messages](Framing), for programs that know nothing of ringway.
//! [`Sender::finish`] waits until everything is handed over; [`transport::remove`] takes away what is left under a name, and
//! [`transport::list`] shows what is there.
//!
//! # Blocking
//! A name with `try_` never blocks, one with `_timeout` or `_deadline` blocks until then, and any other as long as it takes. At a
//! ring, waiting follows its [`Wait`] strategy: by default it spins for [`Options::spin`] and then sleeps on a futex; it can also only spin, or sleep on
//! a POSIX semaphore in the segment or with a name, a System V semaphore, an eventfd or a FIFO. A sleeper wakes
//! up when there is something to do, and every 100 ms to see whether its peer still lives. Where nobody has to wait or to be
//! woken, sending and receiving make no system call. Joining a ring waits for others that are joining it. Where the kernel carries
//! messages, a waiter sleeps in `poll`, or tries again after pauses of up to 10 ms where there is nothing to poll (System V queues,
//! the locks of a log, signals at the limit of pending ones); opening a sender waits for a receiver, see [`Options::connect`]; and
//! dropping a sender waits for a second at most to hand over what is left.
//!
//! # Waiting for many things
//! A [`WaitSet`] waits in one thread for any number of endpoints, foreign descriptors and timers: by one futex call for a few rings, by
//! epoll otherwise. An event loop of your own takes an endpoint's [`Pollable`], a descriptor that is readable when there is something to do. Both
//! know one rule: receive until [`RecvError::Empty`], send until [`SendError::Full`], and only then wait. Peers that come, leave or die
//! are told there, too; [`Receiver::peer_event`] says what it was. Rings made with [`Wait::Spin`], System V queues,
//! and senders of signals and logs can't be waited for like that. `docs/waiting.md` in the
//! repository says what to choose, and what is promised.
//!
//! # Features
//! None is on unless asked for.
//!
//! - `tokio`: `ringway::tokio`, with endpoints for tasks: `recv().await`, `reserve(len).await`, streams and sinks.
//! - `async-io`: `ringway::async_io`, the same for async-io, smol's part that waits.
//! - `async`: what both have in common, `ringway::future`, for any other runtime.
//!
//! # Memory ordering
//! A message is published before the call that sends it returns, with release ordering, and received with acquire ordering:
//! what the sender did before is visible to the receiver after. Only batches are published later, all at once. Whoever is told
//! [`RecvError::Closed`] or [`RecvError::PeerDied`] has received everything that was sent. Endpoints are `Send` and not `Sync`.
//!
//! # Life and death
//! The kernel proves who is alive, not a timer: a killed process is dead at once, and one that is merely stopped never is. A
//! receiver hears of its sender's death after it has received everything, a sender of its receiver's when it finds the ring full;
//! both can go on with whoever takes over. Messages that a dead receiver was handed and had not given back are received again,
//! marked, or skipped: see [`Takeover`]. Among many, the others receive them: whoever joins or waits looks for the dead, and
//! [`recover`] does so from outside. A ring goes with its last user once everything was received, unless told to
//! [persist](Options::persist). An endpoint that a forked child inherited refuses to work there.
//!
//! # Trust
//! Whoever may write the segment (its mode is 0600 unless told) can end the traffic: by filling the ring, by breaking its rules,
//! which is [`Poisoned`](RecvError::Poisoned), or by truncating a named segment, which is a `SIGBUS`. The safe level stays
//! memory-safe nevertheless: it copies by accesses that are defined for racing memory, and checks every word that it
//! reads. The zero-copy level lends out references into the segment, and has its contract at [`Options::assume_trusted_peers`].
//!
//! # Limits
//! With one producer and one consumer, rings of 4 KiB to 2 GiB, messages of 0 bytes to half the ring less 16; with many, rings of
//! up to 32 GiB, messages of less than 1 GiB, and 64 producers and 64 consumers at a time. Linux
//! with glibc 2.30 or later, little-endian, with `/proc` mounted. Nothing is promised after a power loss.
//!
//! # More
//! In the repository: `docs/abi.md`, the bytes, for other implementations; `docs/protocol.md` and `docs/liveness.md`, why it is
//! correct and what a kill leaves at each step; `docs/waiting.md`, how to wait for many things; `docs/decisions.md`, what was tried; `examples/`.

#[cfg(not(ringway_loom))]
mod channel;
#[cfg(not(ringway_loom))]
pub mod error;
#[cfg(all(feature = "async", not(ringway_loom)))]
pub mod future;
#[cfg(not(ringway_loom))]
mod layout;
#[cfg(not(ringway_loom))]
mod liveness;
mod primitive;
#[cfg(not(ringway_loom))]
mod ring;
#[cfg(ringway_loom)]
pub mod ring;
#[cfg(not(ringway_loom))]
pub mod segment;
#[cfg(not(ringway_loom))]
mod sys;
#[cfg(not(ringway_loom))]
pub mod transport;
#[cfg(not(ringway_loom))]
pub mod units;
#[cfg(not(ringway_loom))]
mod wait;
#[cfg(ringway_loom)]
pub mod wait;

#[cfg(not(ringway_loom))]
pub use channel::{
    Framing, Lanes, Options, ParseFramingError, Peer, PeerEvent, PeerState, Positions, Profile, Recovery, RecvError,
    Report, SendError, Takeover, inspect, mpmc, recover, spsc,
};
#[cfg(not(ringway_loom))]
pub use error::{Error, ErrorKind, Result};
#[cfg(all(feature = "async-io", not(ringway_loom)))]
pub use future::async_io;
#[cfg(all(feature = "tokio", not(ringway_loom)))]
pub use future::tokio;
#[cfg(not(ringway_loom))]
pub use layout::{ParseRingError, ParseWaitError, Ring, Wait};
#[cfg(not(ringway_loom))]
pub use transport::{Address, Receiver, Sender};
#[cfg(not(ringway_loom))]
pub use wait::{Event, Events, Interest, Pollable, WaitSet, Waitable, Waker};

/// Keeps the README's code working.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
