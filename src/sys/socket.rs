//! Sockets, by their descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, accept_with, bind, connect, listen, recvmsg, sendmsg,
    socket_with, sockopt,
};

use super::uninterrupted;

pub(crate) use rustix::net::SocketType as Type;

/// How many connections may wait to be accepted.
pub(crate) const BACKLOG: i32 = 128;
/// How many descriptors can go with a message: SCM_MAX_FD.
pub(crate) const MOST_DESCRIPTORS: usize = 253;
/// How many groups a peer may be in, beyond its own.
const MOST_GROUPS: usize = 1024;

/// An address that a socket can be bound or connected to.
#[derive(Clone, Debug)]
pub(crate) struct Place(SocketAddrAny);

impl Place {
    /// A Unix socket's path; `ENAMETOOLONG` if it doesn't fit into the kernel's 108 bytes.
    pub(crate) fn path(path: &Path) -> io::Result<Self> {
        Ok(Self(SocketAddrUnix::new(path)?.into()))
    }

    /// A name in the abstract namespace.
    pub(crate) fn abstract_name(name: &[u8]) -> io::Result<Self> {
        Ok(Self(SocketAddrUnix::new_abstract_name(name)?.into()))
    }

    pub(crate) fn inet(address: SocketAddr) -> Self {
        Self(address.into())
    }

    fn family(&self) -> AddressFamily {
        self.0.address_family()
    }
}

/// A socket that doesn't block and closes on exec, for such a place.
pub(crate) fn open(place: &Place, kind: Type) -> io::Result<OwnedFd> {
    Ok(socket_with(place.family(), kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

/// Two that are connected, block, and close on exec.
#[cfg(test)]
pub(crate) fn pair(kind: Type) -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

pub(crate) fn bind_to(fd: BorrowedFd, place: &Place) -> io::Result<()> {
    Ok(bind(fd, &place.0)?)
}

pub(crate) fn listen_on(fd: BorrowedFd) -> io::Result<()> {
    Ok(listen(fd, BACKLOG)?)
}

/// Connects; of a TCP socket it may only begin to (`EINPROGRESS`), and is done when the socket is ready to be written.
pub(crate) fn connect_to(fd: BorrowedFd, place: &Place) -> io::Result<()> {
    uninterrupted(|| Ok(connect(fd, &place.0)?))
}

/// The next connection, which doesn't block either.
pub(crate) fn accept(fd: BorrowedFd) -> io::Result<OwnedFd> {
    uninterrupted(|| Ok(accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?))
}

/// The socket's own error since it was last asked.
pub(crate) fn take_error(fd: BorrowedFd) -> io::Result<()> {
    match sockopt::socket_error(fd)? {
        Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

pub(crate) fn kind(fd: BorrowedFd) -> io::Result<Type> {
    Ok(sockopt::socket_type(fd)?)
}

/// Whether it is one between hosts.
pub(crate) fn is_inet(fd: BorrowedFd) -> io::Result<bool> {
    Ok([AddressFamily::INET, AddressFamily::INET6].contains(&sockopt::socket_domain(fd)?))
}

/// What it is connected to, of an internet socket.
pub(crate) fn peer_address(fd: BorrowedFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getpeername(fd)?.ok_or(io::ErrorKind::NotConnected)?).map_err(io::Error::from)
}

/// What it is bound to, of an internet socket.
pub(crate) fn local_address(fd: BorrowedFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(fd)?).map_err(io::Error::from)
}

/// Sets the mode that a path has which it is then bound to, less the umask.
pub(crate) fn set_mode(fd: BorrowedFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, rustix::fs::Mode::from_raw_mode(mode))?)
}

/// Lets a TCP listener take a port of which connections of the past still linger.
pub(crate) fn reuse_address(fd: BorrowedFd) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseaddr(fd, true)?)
}

/// Has the kernel find out in time that the other end is gone without a word.
pub(crate) fn keep_alive(fd: BorrowedFd) -> io::Result<()> {
    Ok(sockopt::set_socket_keepalive(fd, true)?)
}

/// The longest message that a Unix socket can send.
pub(crate) fn longest_message(fd: BorrowedFd) -> io::Result<usize> {
    /// What the kernel wants to be left over.
    const MARGIN: usize = 32;
    Ok(sockopt::socket_send_buffer_size(fd)?.saturating_sub(MARGIN))
}

/// Has TCP send small messages at once.
pub(crate) fn no_delay(fd: BorrowedFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(fd, true)?)
}

/// Asks for `bytes` of buffer on the sending or the receiving side, and says what the kernel granted, as it counts.
pub(crate) fn set_buffer(fd: BorrowedFd, bytes: usize, sending: bool) -> io::Result<usize> {
    if sending {
        sockopt::set_socket_send_buffer_size(fd, bytes)?;
        // The kernel doubles it for its own bookkeeping, and says so.
        Ok(sockopt::socket_send_buffer_size(fd)? / 2)
    } else {
        sockopt::set_socket_recv_buffer_size(fd, bytes)?;
        Ok(sockopt::socket_recv_buffer_size(fd)? / 2)
    }
}

/// The process and the user at the other end of a Unix socket, when it was connected.
pub(crate) fn peer(fd: BorrowedFd) -> io::Result<(u32, u32)> {
    let credentials = credentials(fd)?;
    Ok((credentials.pid as u32, credentials.uid))
}

fn credentials(fd: BorrowedFd) -> io::Result<libc::ucred> {
    // SAFETY: a ucred is plain integers, for which zero is a value.
    let mut credentials: libc::ucred = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both are valid places for the answer, of the size given.
    super::check(unsafe {
        let place = (&raw mut credentials).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &mut length)
    })?;
    Ok(credentials)
}

/// Whether the process at the other end of a Unix socket was in that group when it was connected.
pub(crate) fn is_peer_in_group(fd: BorrowedFd, group: u32) -> io::Result<bool> {
    let mut groups = [0u32; MOST_GROUPS];
    let mut length = size_of_val(&groups) as libc::socklen_t;
    // SAFETY: both are valid places for the answer, of the size given.
    super::check(unsafe {
        let place = (&raw mut groups).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, place, &mut length)
    })?;
    Ok(groups[..length as usize / size_of::<u32>()].contains(&group) || credentials(fd)?.gid == group)
}

/// Ends one's own sending: the other side reads the end.
pub(crate) fn shut_down(fd: BorrowedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, rustix::net::Shutdown::Write)?)
}

/// Ends both directions, also for those who wait in accept.
pub(crate) fn shut_down_all(fd: BorrowedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, rustix::net::Shutdown::Both)?)
}

/// Receives one message, without blocking: how long it was, which may be more than the buffer has.
pub(crate) fn receive(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: the buffer is valid for the call.
        let length = unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    })
}

/// Buffers for several messages at once.
#[derive(Debug)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    unit: usize,
    lengths: Vec<usize>,
}

impl Messages {
    /// Room for `count` messages of up to `unit` bytes.
    pub(crate) fn new(count: usize, unit: usize) -> Self {
        Self { bytes: vec![0; count * unit], unit, lengths: Vec::with_capacity(count) }
    }

    /// Receives as many as are there and fit, at least one, without blocking; those that were there are gone.
    pub(crate) fn receive(&mut self, fd: BorrowedFd) -> io::Result<usize> {
        self.lengths.clear();
        let mut parts: Vec<IoSliceMut<'_>> = self.bytes.chunks_exact_mut(self.unit).map(IoSliceMut::new).collect();
        let mut headers: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: a mmsghdr is plain integers and pointers, for which zero is a value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = std::ptr::from_mut(part).cast();
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        let count = uninterrupted(|| {
            let (flags, no_timeout) = (libc::MSG_DONTWAIT | libc::MSG_TRUNC, std::ptr::null_mut());
            // SAFETY: an IoSliceMut is an iovec by its documentation; all are valid for the call.
            super::check(unsafe {
                libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as _, flags as _, no_timeout)
            })
        })?;
        self.lengths.extend(headers[..count as usize].iter().map(|header| header.msg_len as usize));
        Ok(count as usize)
    }

    /// One of those that were received: its bytes, and how many it had, which may be more.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], usize)> {
        let length = *self.lengths.get(index)?;
        let start = index * self.unit;
        Some((&self.bytes[start..start + length.min(self.unit)], length))
    }
}

/// Sends messages that lie behind one another in `bytes`, each ending at one of `ends`, without blocking or a SIGPIPE; says
/// how many went.
pub(crate) fn send_all(fd: BorrowedFd, bytes: &[u8], ends: &[usize]) -> io::Result<usize> {
    let mut start = 0;
    let parts: Vec<IoSlice<'_>> = ends
        .iter()
        .map(|&end| {
            let part = IoSlice::new(&bytes[start..end]);
            start = end;
            part
        })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = parts
        .iter()
        .map(|part| {
            // SAFETY: a mmsghdr is plain integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = std::ptr::from_ref(part).cast_mut().cast();
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let sent = uninterrupted(|| {
        // SAFETY: an IoSlice is an iovec by its documentation; all are valid for the call, which only reads them.
        super::check(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as _, flags as _) })
    })?;
    Ok(sent as usize)
}

/// Sends bytes and up to [`MOST_DESCRIPTORS`] descriptors as one message.
pub(crate) fn send_with(fd: BorrowedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    uninterrupted(|| Ok(sendmsg(fd, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?))
}

/// Receives bytes and the descriptors that came with them: fewer than were sent if this process may not have as many.
pub(crate) fn receive_with(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = uninterrupted(|| {
        let mut parts = [IoSliceMut::new(buffer)];
        Ok(recvmsg(fd, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?)
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn several_messages_go_in_one_call() {
        let (one, other) = UnixDatagram::pair().unwrap();
        assert_eq!(send_all(one.as_fd(), b"onetwothree", &[3, 6, 11]).unwrap(), 3);
        let mut messages = Messages::new(8, 4);
        assert_eq!(messages.receive(other.as_fd()).unwrap(), 3);
        assert_eq!(messages.get(0), Some((&b"one"[..], 3)));
        assert_eq!(messages.get(2), Some((&b"thre"[..], 5)), "cut off, and known to be");
        assert_eq!(messages.get(3), None);
        assert_eq!(messages.receive(other.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_descriptor_is_handed_over() {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, writer) = super::super::descriptor::pipe().unwrap();
        send_with(one.as_fd(), b"x", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 8];
        let (length, descriptors) = receive_with(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((length, descriptors.len()), (1, 1));
        rustix::io::write(&descriptors[0], b"through").unwrap();
        assert_eq!(rustix::io::read(reader, &mut buffer).unwrap(), 7);
        assert_eq!(peer(one.as_fd()).unwrap().0, std::process::id());
    }
}
