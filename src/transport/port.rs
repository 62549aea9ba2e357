//! What a mechanism does for a sender.

use std::fmt::Debug;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::channel::{PeerState, SendError};

/// How many pieces are handed over at most in one call.
pub(super) const MOST: usize = 64;

/// What a mechanism does for a sender.
pub(super) trait Port: Debug + Send {
    /// The longest piece, in bytes, that it takes as one; `usize::MAX` if it carries a stream of bytes that is this sender's alone.
    fn unit(&self) -> usize;

    /// Hands over one piece if there is room for it now ([`ErrorKind::WouldBlock`]), and says how much of it: all, but for a
    /// stream. `tag` is for mechanisms that have one of their own.
    fn put(&mut self, parts: &[IoSlice<'_>], tag: u32) -> io::Result<usize>;

    /// Hands over pieces that lie behind one another, and says how many bytes of them it took.
    fn put_many(&mut self, bytes: &[u8], pieces: &[Piece]) -> io::Result<usize> {
        let mut start = 0;
        for piece in pieces {
            match self.put(&[IoSlice::new(&bytes[start..piece.end])], piece.tag.unwrap_or(0)) {
                Ok(taken) if taken < piece.end - start => return Ok(start + taken),
                Ok(_) => start = piece.end,
                Err(_) if start > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(start)
    }

    /// Sleeps until there may be room, or `deadline`.
    fn wait(&mut self, deadline: Duration) -> io::Result<()>;

    /// What can be polled for room, and for the end of the receiver unless it [must be looked after](Self::must_look).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Whether only [`Port::end`] tells that the receiver is gone.
    fn must_look(&self) -> bool {
        false
    }

    /// Whether the receiver is gone, as far as the mechanism can tell without being written to. Asked once per slice.
    fn end(&mut self) -> Option<SendError> {
        None
    }

    /// What an error means that it returned.
    fn explain(&mut self, error: &io::Error) -> SendError {
        explain(error)
    }

    /// Who receives, as far as the mechanism can tell.
    fn peer(&self) -> PeerState {
        PeerState::Unknown
    }

    /// Whether each piece has a tag of the mechanism's own, which all messages in it must share.
    fn has_tags(&self) -> bool {
        false
    }

    /// Whether it can carry a message of that tag and length as it is: without frames.
    fn is_fit(&self, _length: usize, _tag: u32) -> bool {
        true
    }

    /// Whether it has that tag, with frames.
    fn is_tag(&self, _tag: u32) -> bool {
        true
    }

    /// Takes away what all have left and nobody would ever receive from, and says whether it did: then it needs no goodbye. Asked
    /// once, when all has been handed over.
    fn retire(&mut self) -> bool {
        false
    }

    /// Leaves in good order, after the last message. Not called in a forked child.
    fn close(&mut self) {}
}

/// The usual meaning of an error.
pub(super) fn explain(error: &io::Error) -> SendError {
    match error.kind() {
        ErrorKind::WouldBlock => SendError::Full,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::NotConnected => {
            SendError::Closed
        }
        _ => SendError::Os { errno: error.raw_os_error().unwrap_or(libc::EIO) },
    }
}

/// Where a piece of a batch ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) end: usize,
    /// None of a hello or goodbye.
    pub(super) tag: Option<u32>,
}
