//! A connection that carries bytes, and has one sender and one receiver: stream sockets and terminals.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::feed::{Buffer, Feed, READ};
use super::frame::{Frame, HEADER, Kind, LONGEST};
use super::port::{Piece, Port, explain};
use crate::channel::{Framing, PeerState, SendError};
use crate::sys::descriptor::{self, Ready, Sink};
use crate::sys::socket;

/// The sender's end.
#[derive(Debug)]
pub(super) struct StreamPort {
    fd: OwnedFd,
    sink: Sink,
    framing: Framing,
    /// Who receives, as far as it is known.
    peer: PeerState,
}

impl StreamPort {
    pub(super) fn new(fd: OwnedFd, sink: Sink, framing: Framing) -> Self {
        let peer = match socket::peer(fd.as_fd()) {
            Ok((pid, _)) if sink == Sink::Socket && pid != 0 => PeerState::Alive { pid },
            _ => PeerState::Unknown,
        };
        Self { fd, sink, framing, peer }
    }

    /// Whether the receiver said goodbye before it went.
    fn reads_goodbye(&self) -> bool {
        let mut bytes = [0; HEADER];
        let mut length = 0;
        while let Ok(read @ 1..) = descriptor::read(self.fd.as_fd(), &mut bytes[length..]) {
            length += read;
        }
        Frame::decode(&bytes, LONGEST).is_ok_and(|frame| frame.kind == Kind::Goodbye)
    }
}

impl Port for StreamPort {
    fn unit(&self) -> usize {
        usize::MAX
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], _tag: u32) -> io::Result<usize> {
        descriptor::write(self.fd.as_fd(), parts, self.sink)
    }

    fn put_many(&mut self, bytes: &[u8], _pieces: &[Piece]) -> io::Result<usize> {
        descriptor::write(self.fd.as_fd(), &[IoSlice::new(bytes)], self.sink)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        descriptor::wait_one(self.fd.as_fd(), Ready::Write, Some(deadline)).map(drop)
    }

    fn explain(&mut self, error: &io::Error) -> SendError {
        match explain(error) {
            SendError::Closed if self.sink == Sink::Socket && self.framing == Framing::Frames => {
                let was_told = matches!(self.peer, PeerState::Left);
                if was_told || self.reads_goodbye() {
                    self.peer = PeerState::Left;
                    return SendError::Closed;
                }
                match self.peer {
                    // It was told of once.
                    PeerState::Dead { .. } => SendError::Closed,
                    PeerState::Alive { pid } => {
                        self.peer = PeerState::Dead { pid };
                        SendError::PeerDied
                    }
                    _ => {
                        self.peer = PeerState::Dead { pid: 0 };
                        SendError::PeerDied
                    }
                }
            }
            error => error,
        }
    }

    fn peer(&self) -> PeerState {
        self.peer
    }

    fn close(&mut self) {
        if self.sink == Sink::Socket {
            // The receiver reads all that was sent, and then the end.
            let _ = socket::shut_down(self.fd.as_fd());
        }
    }
}

/// The receiver's end of a socket.
#[derive(Debug)]
pub(super) struct StreamFeed {
    fd: Arc<OwnedFd>,
    framing: Framing,
}

impl StreamFeed {
    pub(super) fn new(fd: impl Into<Arc<OwnedFd>>, framing: Framing) -> Self {
        Self { fd: fd.into(), framing }
    }
}

impl Feed for StreamFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        match descriptor::read(self.fd.as_fd(), buffer.room(READ)) {
            Ok(read) => {
                buffer.filled(read);
                Ok(read > 0)
            }
            // A terminal whose other end is closed.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn close(&mut self) {
        if self.framing == Framing::Frames {
            // A sender that is about to write learns why it can't.
            let goodbye = Frame::control(Kind::Goodbye, 0, 0, 0).encode();
            let _ = descriptor::write(self.fd.as_fd(), &[IoSlice::new(&goodbye)], Sink::Socket);
        }
        // Also for a forked child, which would keep it open.
        let _ = socket::shut_down_all(self.fd.as_fd());
    }
}
