//! tokio's tasks, each side in a process with a runtime of one thread: ringway's endpoints for tokio, and a Unix socket.

use std::{
    io,
    os::unix::net::UnixStream as StdStream,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ringway::{
    Address, Options,
    tokio::{Receiver, Sender},
};
use ringway_harness::{
    Between, Block, Pair,
    block::{between_canaries, verify},
    crew::Side,
    payload::{self, Digest},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{Builder, Runtime},
};

use super::SIZE;

/// What connects two sides in both directions.
pub trait Connection: Sync {
    /// One side's end.
    type End: End;

    /// Takes the end of side 0 or 1, within its runtime.
    fn end(&self, side: usize) -> io::Result<Self::End>;
}

/// An end of a [`Connection`]. What fails, panics.
pub trait End {
    /// Sends a message.
    async fn send(&mut self, message: &[u8; SIZE]);

    /// Receives one.
    async fn recv(&mut self, read: impl FnOnce(&[u8; SIZE]));
}

/// Two rings.
pub struct Rings {
    /// The address to side 1, and the one back.
    addresses: [Address; 2],
    options: Options,
    /// Keep the memory until the sides have it. In a mutex only because endpoints are not `Sync`: nobody locks it.
    _holders: Mutex<Vec<ringway::Receiver>>,
}

impl Rings {
    /// Makes them, with these options.
    pub fn new(options: &Options) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: a counter of one thread.
        let name = || format!("anon:bench-tokio-{}", NEXT.fetch_add(1, Relaxed)).parse().map_err(io::Error::other);
        let addresses = [name()?, name()?];
        let holders: Result<_, _> = addresses.iter().map(|address| options.receiver(address)).collect();
        Ok(Self { options: options.clone(), _holders: Mutex::new(holders.map_err(io::Error::other)?), addresses })
    }
}

impl Connection for Rings {
    type End = RingEnd;

    fn end(&self, side: usize) -> io::Result<RingEnd> {
        let open = || -> ringway::Result<_> {
            let sender = Sender::new(self.options.sender(&self.addresses[side])?)?;
            Ok(RingEnd { sender, receiver: Receiver::new(self.options.receiver(&self.addresses[1 - side])?)? })
        };
        open().map_err(io::Error::other)
    }
}

/// An end of [`Rings`].
pub struct RingEnd {
    sender: Sender,
    receiver: Receiver,
}

impl End for RingEnd {
    async fn send(&mut self, message: &[u8; SIZE]) {
        self.sender.send(message).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn recv(&mut self, read: impl FnOnce(&[u8; SIZE])) {
        let message = self.receiver.recv().await.unwrap_or_else(|error| panic!("{error}"));
        read(message[..].try_into().expect("all messages are as long"));
    }
}

/// A Unix stream socket, written at once and read through a buffer, which takes several messages in one system call if they are
/// there.
pub struct Socket([StdStream; 2]);

impl Socket {
    /// Makes a pair.
    pub fn new() -> io::Result<Self> {
        let (one, other) = StdStream::pair()?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok(Self([one, other]))
    }
}

impl Connection for Socket {
    type End = SocketEnd;

    fn end(&self, side: usize) -> io::Result<SocketEnd> {
        let (reader, writer) = UnixStream::from_std(self.0[side].try_clone()?)?.into_split();
        Ok(SocketEnd { reader: BufReader::with_capacity(64 << 10, reader), writer })
    }
}

/// An end of [`Socket`].
pub struct SocketEnd {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl End for SocketEnd {
    async fn send(&mut self, message: &[u8; SIZE]) {
        self.writer
            .write_all(message)
            .await
            .unwrap_or_else(|error| panic!("could not write to the other side: {error}"));
    }

    async fn recv(&mut self, read: impl FnOnce(&[u8; SIZE])) {
        let mut message = [0; SIZE];
        let received = self.reader.read_exact(&mut message).await;
        received.unwrap_or_else(|error| panic!("could not read from the other side: {error}"));
        read(&message);
    }
}

/// What a side brings home.
#[derive(Clone, Copy)]
struct Outcome {
    ns: f64,
    sent: Digest,
    received: Digest,
}

/// Sends messages to and fro, `flight` of them under way at once. `ns` is the time for one there and one back.
pub fn round_trips<C: Connection>(
    pair: &Pair,
    connection: impl FnOnce() -> io::Result<C> + Send,
    count: u64,
    flight: u64,
) -> io::Result<Block> {
    let warm_up = count / 10 + flight;
    let ask = |connection: &C, side: &Side| {
        run(connection, side, 0, async |end, traffic| {
            for _ in 0..flight {
                traffic.send(end).await;
            }
            for _ in 0..warm_up {
                traffic.recv(end).await;
                traffic.send(end).await;
            }
            let start = side.clock.ticks();
            for _ in 0..count {
                traffic.recv(end).await;
                traffic.send(end).await;
            }
            let ns = side.clock.ns(side.clock.ticks() - start) / count as f64;
            for _ in 0..flight {
                traffic.recv(end).await;
            }
            ns
        })
    };
    let answer = |connection: &C, side: &Side| {
        run(connection, side, 1, async |end, traffic| {
            for _ in 0..warm_up + count + flight {
                traffic.recv(end).await;
                traffic.send(end).await;
            }
            0.0
        })
    };
    let ((canary, asking), (_, answering)) = pair.run(Between::Processes, connection, (ask, answer))?;
    verify(asking.sent, answering.received)?;
    verify(answering.sent, asking.received)?;
    Ok(Block { canary, ns: asking.ns, histogram: None })
}

/// Streams messages from side 0 to side 1.
pub fn stream<C: Connection>(
    pair: &Pair,
    connection: impl FnOnce() -> io::Result<C> + Send,
    count: u64,
) -> io::Result<Block> {
    let warm_up = count / 5;
    let produce = |connection: &C, side: &Side| {
        run(connection, side, 0, async |end, traffic| {
            for _ in 0..warm_up + count {
                traffic.send(end).await;
            }
            0.0
        })
    };
    let consume = |connection: &C, side: &Side| {
        run(connection, side, 1, async |end, traffic| {
            for _ in 0..warm_up {
                traffic.recv(end).await;
            }
            let start = side.clock.ticks();
            for _ in 0..count {
                traffic.recv(end).await;
            }
            side.clock.ns(side.clock.ticks() - start) / count as f64
        })
    };
    let ((canary, producer), (_, consumer)) = pair.run(Between::Processes, connection, (produce, consume))?;
    verify(producer.sent, consumer.received)?;
    Ok(Block { canary, ns: consumer.ns, histogram: None })
}

/// Messages that are counted, and what they were.
#[derive(Default)]
struct Traffic {
    count: u64,
    sent: Digest,
    received: Digest,
}

impl Traffic {
    async fn send(&mut self, end: &mut impl End) {
        let mut message = std::mem::MaybeUninit::uninit();
        self.sent.add(payload::write(&mut message, self.count));
        self.count += 1;
        // SAFETY: `write` writes all of it.
        end.send(unsafe { message.assume_init_ref() }).await;
    }

    async fn recv(&mut self, end: &mut impl End) {
        end.recv(|message| self.received.add(payload::read(message))).await;
    }
}

/// Runs one side's work in a runtime of its own, between canaries.
fn run<C: Connection>(
    connection: &C,
    side: &Side,
    index: usize,
    work: impl AsyncFnOnce(&mut C::End, &mut Traffic) -> f64,
) -> (Option<(f64, f64)>, Outcome) {
    let runtime = runtime().unwrap_or_else(|error| panic!("{error}"));
    let _inside = runtime.enter();
    let mut end = connection.end(index).unwrap_or_else(|error| panic!("{error}"));
    between_canaries(side, || {
        let mut traffic = Traffic::default();
        let ns = runtime.block_on(work(&mut end, &mut traffic));
        Outcome { ns, sent: traffic.sent, received: traffic.received }
    })
}

/// A runtime of the calling thread.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}
