//! Sockets that carry single messages, by one raw system call for each.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{FromRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use rustix::io::{read, write};

use crate::{
    link::{Link, Receiver, Sender},
    ring::{room, whole},
    windowed::Windowed,
};

/// A pair of sockets of which one direction is used.
pub struct Packets {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Unix datagrams to a name. Not a pair, whose queue isn't as short as that of a socket that anybody may send to.
pub fn unix_datagram() -> io::Result<Packets> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("ringway-bench-raw-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
    let address = SocketAddr::from_abstract_name(name)?;
    let reader = UnixDatagram::bind_addr(&address)?;
    let writer = UnixDatagram::unbound()?;
    writer.connect_addr(&address)?;
    Ok(Packets { reader: reader.into(), writer: writer.into() })
}

/// A Unix connection of sequenced packets.
pub fn unix_seqpacket() -> io::Result<Packets> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for the two descriptors.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were made just now and are nobody else's.
    let [reader, writer] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(Packets { reader, writer })
}

/// UDP within this machine, with a window so that nothing is lost.
pub fn udp() -> io::Result<Windowed<Packets>> {
    let reader = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let writer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    writer.connect(reader.local_addr()?)?;
    Windowed::new(Packets { reader: reader.into(), writer: writer.into() })
}

impl<const N: usize> Link<N> for Packets {
    type Sender = PacketEnd;
    type Receiver = PacketEnd;

    fn sender(&self) -> io::Result<PacketEnd> {
        Ok(PacketEnd { fd: self.writer.try_clone()?, buffer: Vec::new() })
    }

    fn receiver(&self) -> io::Result<PacketEnd> {
        Ok(PacketEnd { fd: self.reader.try_clone()?, buffer: Vec::new() })
    }
}

/// Either end of [`Packets`].
pub struct PacketEnd {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl<const N: usize> Sender<N> for PacketEnd {
    fn send(&mut self, build: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(N, 0);
        build(room(&mut self.buffer));
        match write(&self.fd, &self.buffer) {
            Ok(written) if written == N => {}
            other => panic!("could not send to the other side: {other:?}"),
        }
    }
}

impl<const N: usize> Receiver<N> for PacketEnd {
    fn recv(&mut self, look: impl FnOnce(&[u8; N])) {
        self.buffer.resize(N, 0);
        match read(&self.fd, &mut self.buffer[..]) {
            Ok(length) => look(whole(&self.buffer[..length])),
            Err(error) => panic!("could not receive from the other side: {error}"),
        }
    }
}
