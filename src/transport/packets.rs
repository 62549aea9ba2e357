//! Sockets that carry single messages: datagrams and seqpackets.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::feed::{Buffer, Feed};
use super::port::{Piece, Port};
use crate::channel::PeerState;
use crate::sys::descriptor::{self, Ready, Sink};
use crate::sys::socket::{self, Messages, Type};

/// How many messages are received at once, at most.
const MANY: usize = 32;
/// And of a connection, of which there may be many.
const MANY_CONNECTED: usize = 8;

/// A sender's end: a connected socket.
#[derive(Debug)]
pub(super) struct PacketPort {
    fd: OwnedFd,
    unit: usize,
    /// An empty message would look like the end.
    is_connection: bool,
}

impl PacketPort {
    /// The longest piece between Unix sockets: longer ones need memory that the kernel may not find in one piece, and with the
    /// usual buffer two of these fit.
    pub(super) const LONGEST_UNIX: usize = 64 << 10;

    /// `fd` is connected and doesn't block.
    pub(super) fn new(fd: OwnedFd, unit: usize) -> Self {
        let is_connection = socket::kind(fd.as_fd()).is_ok_and(|kind| kind == Type::SEQPACKET);
        Self { fd, unit, is_connection }
    }
}

impl Port for PacketPort {
    fn unit(&self) -> usize {
        self.unit
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], _tag: u32) -> io::Result<usize> {
        descriptor::write(self.fd.as_fd(), parts, Sink::Socket)
    }

    fn put_many(&mut self, bytes: &[u8], pieces: &[Piece]) -> io::Result<usize> {
        let mut ends = [0; super::port::MOST];
        for (end, piece) in ends.iter_mut().zip(pieces) {
            *end = piece.end;
        }
        let sent = socket::send_all(self.fd.as_fd(), bytes, &ends[..pieces.len()])?;
        Ok(sent.checked_sub(1).map_or(0, |last| ends[last]))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        descriptor::wait_one(self.fd.as_fd(), Ready::Write, Some(deadline)).map(drop)
    }

    fn is_fit(&self, length: usize, _tag: u32) -> bool {
        length > 0 || !self.is_connection
    }

    fn close(&mut self) {
        if self.is_connection {
            let _ = socket::shut_down(self.fd.as_fd());
        }
    }

    fn peer(&self) -> PeerState {
        match socket::peer(self.fd.as_fd()) {
            Ok((pid, _)) if self.is_connection && pid != 0 => PeerState::Alive { pid },
            _ => PeerState::Unknown,
        }
    }
}

/// The receiver's end: a bound or connected socket.
#[derive(Debug)]
pub(super) struct PacketFeed {
    fd: OwnedFd,
    unit: usize,
    /// Of a connection an empty message is the end.
    is_connection: bool,
    has_ended: bool,
    many: Option<Messages>,
}

impl PacketFeed {
    /// `fd` doesn't block.
    pub(super) fn new(fd: OwnedFd, unit: usize) -> Self {
        let is_connection = socket::kind(fd.as_fd()).is_ok_and(|kind| kind == Type::SEQPACKET);
        Self { fd, unit, is_connection, has_ended: false, many: None }
    }

    fn fill_many(&mut self, buffer: &mut Buffer) -> io::Result<bool> {
        let count = if self.is_connection { MANY_CONNECTED } else { MANY };
        let messages = self.many.get_or_insert_with(|| Messages::new(count, self.unit));
        let count = messages.receive(self.fd.as_fd())?;
        for index in 0..count {
            let Some((bytes, length)) = messages.get(index) else { break };
            if length == 0 && self.is_connection {
                self.has_ended = true;
                // What came before it is to be received first.
                return Ok(index > 0);
            }
            buffer.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            buffer.filled_piece(bytes.len(), 0, length);
        }
        Ok(true)
    }
}

impl Feed for PacketFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, many: bool) -> io::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        if many {
            return self.fill_many(buffer);
        }
        let room = buffer.room(self.unit);
        let there = room.len();
        let length = socket::receive(self.fd.as_fd(), room)?;
        if length == 0 && self.is_connection {
            return Ok(false);
        }
        buffer.filled_piece(length.min(there), 0, length);
        Ok(true)
    }

    fn is_shared(&self) -> bool {
        !self.is_connection
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn close(&mut self) {
        if self.is_connection {
            // Also for a forked child, which would keep it open.
            let _ = socket::shut_down_all(self.fd.as_fd());
        }
    }
}
