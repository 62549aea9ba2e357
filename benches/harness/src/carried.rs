//! ringway over whatever the kernel offers, by copy, as links: each side opens its end by address, in its own process.

use std::{
    fs,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    path::PathBuf,
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use ringway::{
    Address, Options,
    transport::{self, PipeEnd},
};
use rustix::{
    io::Errno,
    thread::futex::{Flags, wait, wake},
};

use crate::{
    link::{Link, Receiver, Sender},
    ring::{room, whole},
    shared::Shared,
};

/// What can carry the messages, besides rings in shared memory with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// An anonymous pipe.
    Pipe,
    /// A pipe with a name.
    Fifo,
    /// A Unix stream socket.
    Unix,
    /// A Unix datagram socket.
    UnixDatagram,
    /// A Unix socket of sequenced packets.
    UnixSeqPacket,
    /// TCP within this machine.
    Tcp,
    /// UDP within this machine; only through [`Windowed`](crate::Windowed) does all of it arrive.
    Udp,
    /// A POSIX message queue.
    PosixQueue,
    /// A System V message queue.
    SysVQueue,
    /// A pseudo-terminal.
    Terminal,
    /// Queued signals: between processes, not threads.
    Signal,
    /// A file that is appended to.
    Log,
    /// Shared memory without a name, handed over.
    Memfd,
    /// What the sides agree on.
    Auto,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Pipe,
        Self::Fifo,
        Self::Unix,
        Self::UnixDatagram,
        Self::UnixSeqPacket,
        Self::Tcp,
        Self::Udp,
        Self::PosixQueue,
        Self::SysVQueue,
        Self::Terminal,
        Self::Signal,
        Self::Log,
        Self::Memfd,
        Self::Auto,
    ];

    /// What it goes by: the scheme of its addresses, and the type where a scheme has several.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Fifo => "fifo",
            Self::Unix => "unix",
            Self::UnixDatagram => "unix-dgram",
            Self::UnixSeqPacket => "unix-seqpacket",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::PosixQueue => "mq",
            Self::SysVQueue => "sysvmq",
            Self::Terminal => "pty",
            Self::Signal => "signal",
            Self::Log => "log",
            Self::Memfd => "memfd",
            Self::Auto => "auto",
        }
    }

    /// Whether the sender can only find a receiver that is there, or misses what it wasn't there for.
    fn needs_word(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Signal | Self::Log)
    }
}

/// Makes links over one mechanism, and takes away what they leave behind when they fail.
pub struct Carrier {
    mechanism: Mechanism,
    options: Options,
    name: String,
    directory: PathBuf,
    links: AtomicU32,
}

/// Two links are in use at once, there and back.
const LINKS: u32 = 2;

impl Carrier {
    /// Makes a directory for what has a path.
    pub fn new(mechanism: Mechanism, options: &Options) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-bench-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory)?;
        let carrier = Self { mechanism, options: options.clone(), name, directory, links: AtomicU32::new(0) };
        fs::write(carrier.directory.join("key"), "")?;
        Ok(carrier)
    }

    /// The next link. Its address is that of the one before the last, which must be out of use.
    pub fn link(&self) -> io::Result<Carried> {
        let number = self.links.fetch_add(1, Relaxed) % LINKS;
        self.clear(number)?;
        let address = self.address(number, 0)?;
        let ends = match self.mechanism {
            Mechanism::Pipe => {
                let (sender, receiver) = self.options.pair(&address).map_err(io::Error::other)?;
                (Some(sender), Some(receiver))
            }
            _ => (None, None),
        };
        let sender_at = match self.mechanism {
            // The sender's names the receiver, which isn't there yet.
            Mechanism::Tcp | Mechanism::Udp | Mechanism::Signal => SenderAt::Told(number),
            _ => SenderAt::Same,
        };
        Ok(Carried {
            mechanism: self.mechanism,
            options: self.options.clone().connect(Duration::from_secs(10)),
            address,
            sender_at,
            ends: Mutex::new(ends),
            word: Shared::new(1)?,
        })
    }

    fn address(&self, number: u32, told: u32) -> io::Result<Address> {
        address(self.mechanism, &self.name, &self.directory.display().to_string(), number, told)
    }

    /// Takes away what a link left behind.
    fn clear(&self, number: u32) -> io::Result<()> {
        use Mechanism::{Fifo, Log, Memfd, PosixQueue, SysVQueue, Terminal};
        if !matches!(self.mechanism, Fifo | Log | Memfd | PosixQueue | SysVQueue | Terminal) {
            return Ok(());
        }
        match transport::remove(&self.address(number, 0)?, true) {
            Err(error) if error.kind() != ringway::ErrorKind::NotFound => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        for number in 0..LINKS {
            // What can't be removed was never made, but for a reason that the link told.
            let _ = self.clear(number);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The address of a link; `told` is the receiver's port or process, 0 for the receiver itself.
fn address(mechanism: Mechanism, name: &str, directory: &str, number: u32, told: u32) -> io::Result<Address> {
    let text = match mechanism {
        Mechanism::Pipe => "pipe:".to_owned(),
        Mechanism::Fifo => format!("fifo://{directory}/{number}"),
        Mechanism::Unix => format!("unix:@{name}-{number}"),
        Mechanism::UnixDatagram => format!("unix:@{name}-{number}?type=dgram"),
        Mechanism::UnixSeqPacket => format!("unix:@{name}-{number}?type=seqpacket"),
        Mechanism::Tcp => format!("tcp://127.0.0.1:{told}"),
        Mechanism::Udp => format!("udp://127.0.0.1:{told}"),
        Mechanism::PosixQueue => format!("mq:///{name}-{number}"),
        Mechanism::SysVQueue => format!("sysvmq://{directory}/key?id={}", number + 1),
        Mechanism::Terminal => format!("pty://{directory}/{number}"),
        Mechanism::Signal if told == 0 => format!("signal://self?sig=RTMIN+{}", number + 1),
        Mechanism::Signal => format!("signal://{told}?sig=RTMIN+{}", number + 1),
        Mechanism::Log => format!("log://{directory}/{number}"),
        Mechanism::Memfd => format!("memfd://{directory}/{number}"),
        Mechanism::Auto => format!("auto:///{name}-{number}"),
    };
    text.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

/// Where the sender finds its receiver.
enum SenderAt {
    /// At the receiver's own address.
    Same,
    /// Where the receiver says, of the link of that number.
    Told(u32),
}

/// A link by the endpoints that users have.
pub struct Carried {
    mechanism: Mechanism,
    options: Options,
    /// The receiver's.
    address: Address,
    sender_at: SenderAt,
    /// Of a pipe, the sender's and the receiver's.
    ends: Mutex<(Option<PipeEnd>, Option<PipeEnd>)>,
    /// What the receiver tells once it is there: its port or process, or 1. Before, 0.
    word: Shared<AtomicU32>,
}

impl Carried {
    /// What the receiver tells.
    fn await_word(&self) -> io::Result<u32> {
        loop {
            // Acquire: pairs with the Release in `tell`.
            match self.word[0].load(Acquire) {
                0 => match wait(&self.word[0], Flags::empty(), 0, None) {
                    Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                },
                word => return Ok(word),
            }
        }
    }

    fn tell(&self, word: u32) -> io::Result<()> {
        // Release: pairs with the Acquire in `await_word`: the receiver is there.
        self.word[0].store(word, Release);
        wake(&self.word[0], Flags::empty(), 1)?;
        Ok(())
    }

    fn end(&self, take: impl FnOnce(&mut (Option<PipeEnd>, Option<PipeEnd>)) -> Option<PipeEnd>) -> Option<PipeEnd> {
        take(&mut self.ends.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<const N: usize> Link<N> for Carried {
    type Sender = CarriedSender;
    type Receiver = ringway::Receiver;

    fn sender(&self) -> io::Result<CarriedSender> {
        let told = if self.mechanism.needs_word() { self.await_word()? } else { 0 };
        let opened = match (self.end(|ends| ends.0.take()), &self.sender_at) {
            (Some(end), _) => end.sender(),
            (None, SenderAt::Same) => self.options.sender(&self.address),
            (None, SenderAt::Told(number)) => self.options.sender(&address(self.mechanism, "", "", *number, told)?),
        };
        Ok(CarriedSender { sender: opened.map_err(io::Error::other)?, buffer: Vec::new() })
    }

    fn receiver(&self) -> io::Result<ringway::Receiver> {
        let opened = match self.end(|ends| ends.1.take()) {
            Some(end) => end.receiver(),
            None => self.options.receiver(&self.address),
        };
        let receiver = opened.map_err(io::Error::other)?;
        if self.mechanism.needs_word() {
            let port = receiver.local_address().map(|address| address.port().into());
            self.tell(port.unwrap_or_else(process::id))?;
        }
        Ok(receiver)
    }
}

/// The writing end of [`Carried`].
pub struct CarriedSender {
    sender: ringway::Sender,
    buffer: Vec<u8>,
}

impl<const N: usize> Sender<N> for CarriedSender {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(N, 0);
        write(room(&mut self.buffer));
        self.sender.send(&self.buffer).unwrap_or_else(|error| panic!("{error}"));
    }

    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(count * N, 0);
        self.buffer.chunks_exact_mut(N).for_each(|message| write(room(message)));
        self.sender.send_many(self.buffer.chunks_exact(N)).unwrap_or_else(|error| panic!("{error}"));
        self.buffer.truncate(N);
    }
}

impl<const N: usize> Receiver<N> for ringway::Receiver {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        read(whole(&ringway::Receiver::recv(self).unwrap_or_else(|error| panic!("{error}"))));
    }

    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        self.recv_many(max, |message, _| read(whole(message))).unwrap_or_else(|error| panic!("{error}"))
    }
}
