//! The places that addresses name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::encoding::Encoded;
use crate::segment::{Key, Name};

pub(super) const DEFAULT_ID: u8 = 1;

/// The place an [`Address`](super::Address) names. It prints as the address without its options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A segment that other processes can find.
    Segment(Name),
    /// Memory that only threads and forked children share.
    Anonymous(String),
    /// A sealed anonymous file, handed over at a Unix socket of that path.
    Memfd(PathBuf),
    /// Whatever the two sides can agree on, when they meet under that name.
    Auto(String),
    /// A pipe without a name, for [`Options::pair`](crate::Options::pair).
    Pipe,
    /// A descriptor that this process inherited.
    Descriptor(u32),
    /// A FIFO.
    Fifo(PathBuf),
    /// A pseudo-terminal, by a symbolic link of that path.
    Terminal(PathBuf),
    /// A POSIX message queue.
    PosixQueue {
        /// Its name, without the slash.
        name: String,
        /// The priority of what is sent.
        priority: Priority,
    },
    /// A System V message queue.
    SysVQueue {
        /// The key by which it is found.
        key: Key,
        /// The type of the messages that are sent, and the only one that is received.
        kind: Option<u32>,
    },
    /// A Unix socket.
    Unix {
        /// What it is bound to.
        name: UnixName,
        /// The kind of the socket.
        kind: UnixKind,
    },
    /// A TCP socket.
    Tcp(Host),
    /// A UDP socket.
    Udp(Host),
    /// Queued real-time signals to a process.
    Signal {
        /// The process; none for this one, which can only receive.
        pid: Option<u32>,
        /// The signal, counted from `SIGRTMIN`.
        number: u8,
    },
    /// A file that is only appended to.
    Log {
        /// The file.
        path: PathBuf,
        /// How writers keep each other apart.
        lock: LogLock,
        /// The name under which a receiver's position is kept.
        reader: Option<String>,
    },
}

/// The priority of messages in a POSIX message queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// The same for all messages: 0 unless said.
    Fixed(u16),
    /// Each message's tag, which must be below 32,768.
    Tag,
}

/// What a Unix socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// A path.
    Path(PathBuf),
    /// A name in the abstract namespace, which belongs to the network namespace and has no permissions.
    Abstract(String),
}

/// The kinds of Unix sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnixKind {
    /// A stream of bytes to each receiver. The default.
    #[default]
    Stream,
    /// Single messages.
    Datagram,
    /// Single messages on a connection.
    SeqPacket,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name to look up, an IPv4 address, or an IPv6 address (without brackets).
    pub name: String,
    /// The port; 0 has a receiver choose one that is free.
    pub port: u16,
}

/// How the writers of a log keep each other apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogLock {
    /// `flock`. The default.
    #[default]
    Flock,
    /// `fcntl` locks, which are lockf's too: these belong to a process, so that its threads must share one sender.
    Fcntl,
    /// Open-file-description locks.
    Ofd,
}

impl Target {
    /// The word before the colon.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Segment(Name::Posix(_)) => "shm",
            Self::Segment(Name::SysV(_)) => "sysv",
            Self::Segment(Name::File(_)) => "file",
            Self::Anonymous(_) => "anon",
            Self::Memfd(_) => "memfd",
            Self::Auto(_) => "auto",
            Self::Pipe => "pipe",
            Self::Descriptor(_) => "fd",
            Self::Fifo(_) => "fifo",
            Self::Terminal(_) => "pty",
            Self::PosixQueue { .. } => "mq",
            Self::SysVQueue { .. } => "sysvmq",
            Self::Unix { .. } => "unix",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Signal { .. } => "signal",
            Self::Log { .. } => "log",
        }
    }

    /// Whether it is a ring in a segment, whoever finds it and however.
    pub fn is_ring(&self) -> bool {
        matches!(self, Self::Segment(_) | Self::Anonymous(_) | Self::Memfd(_))
    }
}

impl UnixKind {
    /// Each with its name in addresses.
    pub(super) const ALL: [(Self, &str); 3] =
        [(Self::Stream, "stream"), (Self::Datagram, "dgram"), (Self::SeqPacket, "seqpacket")];
}

impl LogLock {
    /// Each with its name in addresses.
    pub(super) const ALL: [(Self, &str); 3] = [(Self::Flock, "flock"), (Self::Fcntl, "fcntl"), (Self::Ofd, "ofd")];
}

/// The name of `value` in such a list.
fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> &'static str {
    all.iter().find(|(one, _)| one == value).map_or("", |(_, name)| name)
}

/// The path of a `scheme:///path`.
struct Of<'a>(&'a Path);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "//{}", Encoded(self.0.as_os_str().as_bytes()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme())?;
        let mut separator = '?';
        let mut option = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            write!(f, "{separator}{text}")?;
            separator = '&';
            Ok(())
        };
        match self {
            Self::Segment(Name::Posix(name)) | Self::Auto(name) => write!(f, "///{}", Encoded(name.as_bytes())),
            Self::Segment(Name::File(path)) | Self::Memfd(path) | Self::Fifo(path) | Self::Terminal(path) => {
                Of(path).fmt(f)
            }
            Self::Segment(Name::SysV(key)) | Self::SysVQueue { key, .. } => {
                match key {
                    Key::Path { path, id } => {
                        Of(path).fmt(f)?;
                        if *id != DEFAULT_ID {
                            option(f, format_args!("id={id}"))?;
                        }
                    }
                    Key::Raw(key) => option(f, format_args!("key={key:#x}"))?,
                }
                match self {
                    Self::SysVQueue { kind: Some(kind), .. } => option(f, format_args!("type={kind}")),
                    _ => Ok(()),
                }
            }
            Self::Anonymous(name) => Encoded(name.as_bytes()).fmt(f),
            Self::Pipe => Ok(()),
            Self::Descriptor(number) => write!(f, "//{number}"),
            Self::PosixQueue { name, priority } => {
                write!(f, "///{}", Encoded(name.as_bytes()))?;
                match priority {
                    Priority::Fixed(0) => Ok(()),
                    Priority::Fixed(priority) => option(f, format_args!("priority={priority}")),
                    Priority::Tag => option(f, format_args!("priority=tag")),
                }
            }
            Self::Unix { name, kind } => {
                match name {
                    UnixName::Path(path) => Of(path).fmt(f)?,
                    UnixName::Abstract(name) => write!(f, "@{}", Encoded(name.as_bytes()))?,
                }
                match kind {
                    UnixKind::Stream => Ok(()),
                    kind => option(f, format_args!("type={}", name_of(&UnixKind::ALL, kind))),
                }
            }
            Self::Tcp(host) | Self::Udp(host) => write!(f, "//{host}"),
            Self::Signal { pid, number } => {
                match pid {
                    Some(pid) => write!(f, "//{pid}")?,
                    None => f.write_str("//self")?,
                }
                match number {
                    0 => Ok(()),
                    number => option(f, format_args!("sig=RTMIN+{number}")),
                }
            }
            Self::Log { path, lock, reader } => {
                Of(path).fmt(f)?;
                if *lock != LogLock::default() {
                    option(f, format_args!("lock={}", name_of(&LogLock::ALL, lock)))?;
                }
                match reader {
                    Some(reader) => option(f, format_args!("reader={}", Encoded(reader.as_bytes()))),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Host {
    /// `host:port`, with brackets around an IPv6 address. Addresses are read in all their spellings and kept in one.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wanted = || format!("{text:?} is no host:port, such as 127.0.0.1:7000, [::1]:7000 or localhost:7000");
        let (name, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = Some(port).filter(|_| digits).and_then(|port| port.parse().ok()).ok_or_else(wanted)?;
        let name = match name.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).ok_or_else(wanted)?.to_string(),
            None => match name.parse::<Ipv4Addr>() {
                Ok(address) => address.to_string(),
                Err(_) if is_host_name(name) => name.to_ascii_lowercase(),
                Err(_) => return Err(wanted()),
            },
        };
        Ok(Self { name, port })
    }
}

/// Letters, digits, hyphens and dots; what looks like a number is a mistyped address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !last_is_number
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.parse() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.name, self.port),
        }
    }
}
