//! What a mechanism does for a receiver: where its bytes come from, and its connections.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::PeerState;
use crate::sys::epoll::{Epoll, Interest};

/// Bytes that are read at once from a stream.
pub(super) const READ: usize = 64 << 10;
/// After how many short messages, or batches of them, room for long ones is given back.
const MODEST: u32 = 64;

/// Where the pieces or bytes of one connection come from.
pub(super) trait Feed: Debug + Send {
    /// Adds to the buffer what is there ([`ErrorKind::WouldBlock`] if nothing is); several pieces only if `many`. False at
    /// the end.
    fn fill(&mut self, buffer: &mut Buffer, many: bool) -> io::Result<bool>;

    /// Whether several senders share it, none of whom ends it alone.
    fn is_shared(&self) -> bool {
        false
    }

    /// What can be polled; without it, [`Feed::wait`] is called, and there is one connection.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Puts its descriptor into the instance, as any that takes its place later; false without one.
    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool> {
        match self.descriptor() {
            Some(fd) => epoll.add(fd, Interest::READ, 0).map(|()| true),
            None => Ok(false),
        }
    }

    /// Sleeps until there may be something, or `deadline`.
    fn wait(&mut self, _deadline: Duration) -> io::Result<()> {
        Ok(())
    }

    /// From now on only messages of that tag are wanted, or all; false if it can't choose.
    fn select(&mut self, _tag: Option<u32>) -> bool {
        false
    }

    /// Whether there is something that isn't selected.
    fn has_unselected(&mut self) -> bool {
        false
    }

    /// Whether nothing can ever come again, now that the end was reached.
    fn is_over(&self) -> bool {
        true
    }

    /// Who sends, if the mechanism knows better than the frames tell.
    fn peer(&self) -> Option<PeerState> {
        None
    }

    /// Leaves in good order. Not called in a forked child.
    fn close(&mut self) {}
}

/// How connections come to be.
pub(super) trait Door: Debug + Send {
    /// What is ready to be read when somebody is there.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Whether whoever is there could be let in now. It is shut at most until a connection ends.
    fn is_open(&self) -> bool {
        true
    }

    /// The next connection, or [`ErrorKind::WouldBlock`].
    fn accept(&mut self) -> io::Result<Box<dyn Feed>>;

    /// Leaves in good order. Not called in a forked child.
    fn close(&mut self);
}

/// What has been read and not been handed out.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Of bytes without frames, how many hold no newline.
    pub(super) searched: usize,
    /// What comes belongs to something that was given up, and is dropped up to where the next thing begins.
    pub(super) is_skipping: bool,
    /// How often it was emptied without needing more room than [`READ`].
    modest: u32,
    /// Where the pieces lie, if it isn't a stream.
    pub(super) pieces: VecDeque<Part>,
    pub(super) is_stream: bool,
}

/// A piece in a buffer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) range: Range<usize>,
    pub(super) tag: u32,
    pub(super) is_whole: bool,
}

impl Buffer {
    /// Room for `least` bytes or more behind what is there; to be followed by [`Buffer::filled`].
    pub(super) fn room(&mut self, least: usize) -> &mut [u8] {
        if self.start == self.end {
            self.empty();
        }
        if self.bytes.len() - self.end < least {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let needed = self.end + least;
            if self.bytes.len() < needed {
                self.bytes.resize(needed.max(READ), 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Begins anew, and gives back what a long message needed, once none has come for a while.
    fn empty(&mut self) {
        self.modest = if self.end <= READ { self.modest + 1 } else { 0 };
        (self.start, self.end) = (0, 0);
        if self.modest >= MODEST && self.bytes.len() > 2 * READ {
            self.bytes.truncate(READ);
            self.bytes.shrink_to_fit();
            self.modest = 0;
        }
    }

    /// Drops `length` of the bytes that are there.
    pub(super) fn skip_over(&mut self, length: usize) {
        self.start += length;
        self.searched = 0;
    }

    /// `length` more bytes are there.
    pub(super) fn filled(&mut self, length: usize) {
        self.is_stream = true;
        self.end += length;
    }

    /// What the mechanism puts in front of a piece is there: `length` bytes.
    pub(super) fn skip(&mut self, length: usize) {
        self.end += length;
    }

    /// A piece is there, with the mechanism's own tag, of which `length` bytes fitted.
    pub(super) fn filled_piece(&mut self, length: usize, tag: u32, whole: usize) {
        self.pieces.push_back(Part { range: self.end..self.end + length, tag, is_whole: length == whole });
        self.end += length;
    }

    pub(super) fn drop_piece(&mut self) {
        if let Some(piece) = self.pieces.pop_front() {
            self.start = piece.range.end;
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.end - self.start
    }
}
