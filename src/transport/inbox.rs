//! Receiving pieces or bytes: connections, each in its turn, and the messages in what comes from them.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::time::Duration;

use super::feed::{Buffer, Door, Feed, Part};
use super::frame::{Frame, HEADER, Malformed};
use super::inlet::Inlet;
use super::receiver::Delivery;
use super::sources::{Sources, Taken};
use crate::channel::{Framing, PeerState, RecvError};
use crate::sys::descriptor;

/// How many connections a receiver has at most.
const MOST_CONNECTIONS: usize = 1024;
/// After how many looks at the connections one is taken at the door, whatever comes from them.
const DOOR_TURN: u32 = 32;

/// The receiving end of a mechanism that carries pieces or bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    door: Option<Box<dyn Door>>,
    connections: Vec<Connection>,
    /// The connection that is looked at first.
    turn: usize,
    looks: u32,
    opened: u64,
    framing: Framing,
    max: usize,
    sources: Sources,
    /// Without frames, how many messages there were.
    count: u64,
    current: Current,
    delivery: Delivery,
    is_put_back: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    feed: Box<dyn Feed>,
    buffer: Buffer,
    /// Whether its end was reached, which the feed says once, and a last line came first.
    has_ended: bool,
}

impl Connection {
    fn new(number: u64, feed: Box<dyn Feed>) -> Self {
        Self { number, feed, buffer: Buffer::default(), has_ended: false }
    }
}

/// Where the current message lies.
#[derive(Debug)]
enum Current {
    None,
    Joined,
    In { connection: usize, range: Range<usize> },
}

/// What a buffer has led to.
enum Found {
    Message(Current, Delivery),
    Nothing,
    Malformed,
}

impl Inbox {
    /// `max` is the longest message; `is_lossy` if messages can get lost.
    pub(super) fn new(
        feed: Option<Box<dyn Feed>>,
        door: Option<Box<dyn Door>>,
        framing: Framing,
        max: usize,
        is_lossy: bool,
    ) -> Self {
        let mut inbox = Self {
            door,
            connections: Vec::new(),
            turn: 0,
            looks: 0,
            opened: 0,
            framing,
            max,
            sources: Sources::new(max, is_lossy),
            count: 0,
            current: Current::None,
            delivery: Delivery::default(),
            is_put_back: false,
            is_over: false,
        };
        inbox.connections.extend(feed.map(|feed| Connection::new(0, feed)));
        inbox
    }

    /// Reads from the connections, each in its turn, until one has a message.
    fn ask_all(&mut self, many: bool) -> Result<Option<Delivery>, RecvError> {
        let mut left = self.connections.len();
        while left > 0 {
            if self.turn >= self.connections.len() {
                self.turn = 0;
            }
            match self.take_from(self.turn, many)? {
                Some(delivery) => return Ok(Some(delivery)),
                None => {
                    left -= 1;
                    self.turn += 1;
                }
            }
        }
        Ok(None)
    }

    /// The next message of all connections, also those that are new; without one, whether that is the end.
    fn look_around(&mut self, many: bool) -> Result<Delivery, RecvError> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(DOOR_TURN) {
            self.open_door()?;
        }
        // Those that come in meanwhile are looked at, too, but not without end.
        for _ in 0..DOOR_TURN {
            if let Some(delivery) = self.ask_all(many)? {
                return Ok(delivery);
            }
            if !self.open_door()? {
                break;
            }
        }
        if self.connections.iter_mut().any(|connection| connection.feed.has_unselected()) {
            // Those that are gone may have left it.
            return Err(RecvError::Empty);
        }
        self.sources.bury();
        if self.framing != Framing::Frames && self.door.is_some() && !self.connections.is_empty() {
            return Err(RecvError::Empty);
        }
        let end = self.sources.tell_end();
        Err(end.unwrap_or(if self.is_over { RecvError::Closed } else { RecvError::Empty }))
    }

    /// The next message of one connection; none if there is none now, or the connection is gone.
    fn take_from(&mut self, at: usize, many: bool) -> Result<Option<Delivery>, RecvError> {
        loop {
            match self.parse(at) {
                Found::Message(current, delivery) => {
                    if self.framing != Framing::Frames {
                        self.sources.begin_plainly();
                    }
                    self.current = current;
                    self.delivery = delivery;
                    return Ok(Some(delivery));
                }
                Found::Nothing => {}
                Found::Malformed => {
                    // A stream's next frame can't be found; a piece stands for itself, but not its sender.
                    if self.door.is_some() || self.connections[at].buffer.is_stream {
                        self.hang_up(at);
                    }
                    return Err(RecvError::Malformed);
                }
            }
            let Connection { feed, buffer, has_ended, .. } = &mut self.connections[at];
            if std::mem::take(has_ended) {
                return self.finish(at);
            }
            match feed.fill(buffer, many) {
                Ok(true) => {}
                Ok(false) => return self.finish(at),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == ErrorKind::InvalidData => return Err(RecvError::Malformed),
                // Whatever broke one connection, the others go on.
                Err(e) if e.kind() == ErrorKind::ConnectionReset || self.door.is_some() => return self.finish(at),
                Err(e) => return Err(RecvError::Os { errno: e.raw_os_error().unwrap_or(libc::EIO) }),
            }
        }
    }

    /// A connection has come to its end.
    fn finish(&mut self, at: usize) -> Result<Option<Delivery>, RecvError> {
        let connection = &mut self.connections[at];
        let pending = connection.buffer.pending();
        // The last line may lack its newline.
        if self.framing == Framing::Lines && pending > 0 && pending <= self.max {
            let range = connection.buffer.start..connection.buffer.end;
            connection.buffer.start = connection.buffer.end;
            connection.buffer.searched = 0;
            connection.has_ended = true;
            let delivery = Delivery { len: range.len(), sequence: self.count, ..Delivery::default() };
            self.count += 1;
            (self.current, self.delivery) = (Current::In { connection: at, range }, delivery);
            return Ok(Some(delivery));
        }
        self.hang_up(at);
        Ok(None)
    }

    fn hang_up(&mut self, at: usize) {
        let number = self.connections[at].number;
        if self.door.is_some() || self.framing == Framing::Frames {
            self.sources.end_connection(number);
        }
        if self.framing != Framing::Frames {
            self.sources.end_plainly();
        }
        // A connection of a door's is gone for good; the only one there ever is may have others at its end later.
        if self.door.is_some() {
            let mut connection = self.connections.remove(at);
            connection.feed.close();
        } else {
            self.is_over |= self.connections[at].feed.is_over();
            self.connections[at].buffer = Buffer::default();
        }
    }

    /// Lets in who waits; says whether anybody did.
    fn open_door(&mut self) -> Result<bool, RecvError> {
        let Some(door) = &mut self.door else { return Ok(false) };
        if self.connections.len() >= MOST_CONNECTIONS {
            return Ok(false);
        }
        match door.accept() {
            Ok(feed) => {
                self.opened += 1;
                self.connections.push(Connection::new(self.opened, feed));
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => Ok(false),
            Err(e) => Err(RecvError::Os { errno: e.raw_os_error().unwrap_or(libc::EIO) }),
        }
    }

    /// The next message in a connection's buffer.
    #[inline]
    fn parse(&mut self, at: usize) -> Found {
        match self.framing {
            Framing::Frames => self.parse_frames(at),
            Framing::None => self.parse_piece(at),
            Framing::Lines => self.parse_line(at),
        }
    }

    #[inline]
    fn parse_frames(&mut self, at: usize) -> Found {
        let Connection { number, buffer, .. } = &mut self.connections[at];
        loop {
            let whole = match buffer.pieces.front() {
                Some(piece) => piece.range.clone(),
                None if buffer.pending() < HEADER => return Found::Nothing,
                None => buffer.start..buffer.end,
            };
            let is_piece = !buffer.pieces.is_empty();
            let frame = buffer.bytes[whole.clone()].first_chunk().map(|header| Frame::decode(header, self.max));
            let Some(Ok(frame)) = frame else {
                buffer.drop_piece();
                return Found::Malformed;
            };
            let length = HEADER + frame.length as usize;
            if whole.len() < length {
                if !is_piece {
                    return Found::Nothing;
                }
                buffer.drop_piece();
                return Found::Malformed;
            }
            // A piece has one or more whole frames.
            match buffer.pieces.front_mut() {
                Some(piece) if whole.len() > length => piece.range.start += length,
                _ => buffer.drop_piece(),
            }
            let payload = whole.start + HEADER..whole.start + length;
            buffer.start = payload.end;
            match self.sources.take(&frame, &buffer.bytes[payload.clone()], *number) {
                Ok(Taken::Nothing) => {}
                Ok(Taken::Whole(delivery)) => {
                    return Found::Message(Current::In { connection: at, range: payload }, delivery);
                }
                Ok(Taken::Joined(delivery)) => return Found::Message(Current::Joined, delivery),
                Err(Malformed) => return Found::Malformed,
            }
        }
    }

    fn parse_piece(&mut self, at: usize) -> Found {
        let buffer = &mut self.connections[at].buffer;
        let Some(Part { range, tag, is_whole }) = buffer.pieces.pop_front() else { return Found::Nothing };
        buffer.start = range.end;
        if !is_whole || range.len() > self.max {
            return Found::Malformed;
        }
        let delivery = Delivery { len: range.len(), tag, sequence: self.count, ..Delivery::default() };
        self.count += 1;
        Found::Message(Current::In { connection: at, range }, delivery)
    }

    fn parse_line(&mut self, at: usize) -> Found {
        let buffer = &mut self.connections[at].buffer;
        let pending = &buffer.bytes[buffer.start..buffer.end];
        let Some(newline) = pending[buffer.searched..].iter().position(|&byte| byte == b'\n') else {
            buffer.searched = pending.len();
            return if pending.len() > self.max { Found::Malformed } else { Found::Nothing };
        };
        let range = buffer.start..buffer.start + buffer.searched + newline;
        buffer.start = range.end + 1;
        buffer.searched = 0;
        if range.len() > self.max {
            return Found::Malformed;
        }
        let delivery = Delivery { len: range.len(), sequence: self.count, ..Delivery::default() };
        self.count += 1;
        Found::Message(Current::In { connection: at, range }, delivery)
    }
}

impl Inlet for Inbox {
    fn max_message(&self) -> usize {
        self.max
    }

    #[inline]
    fn try_take(&mut self, many: bool) -> Result<Delivery, RecvError> {
        if self.is_put_back {
            self.is_put_back = false;
            return Ok(self.delivery);
        }
        self.current = Current::None;
        self.look_around(many)
    }

    fn has_retry(&self) -> bool {
        true
    }

    fn retry_take(&mut self, many: bool) -> Result<Delivery, RecvError> {
        self.ask_all(many)?.ok_or(RecvError::Empty)
    }

    #[inline]
    fn is_drained(&self, many: bool) -> bool {
        let is_drained = |buffer: &Buffer| buffer.pending() == 0 && (buffer.is_stream || many);
        !self.is_put_back && self.connections.iter().all(|connection| is_drained(&connection.buffer))
    }

    #[inline]
    fn payload(&self) -> &[u8] {
        match &self.current {
            Current::None => &[],
            Current::Joined => self.sources.joined(),
            Current::In { connection, range } => &self.connections[*connection].buffer.bytes[range.clone()],
        }
    }

    fn put_back(&mut self) {
        self.is_put_back = true;
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), RecvError> {
        let failed = |e: io::Error| RecvError::Os { errno: e.raw_os_error().unwrap_or(libc::EIO) };
        if let [Connection { feed, .. }] = &mut self.connections[..]
            && feed.descriptor().is_none()
        {
            return feed.wait(deadline).map_err(failed);
        }
        let feeds = self.connections.iter().filter_map(|connection| connection.feed.descriptor());
        let door = self.door.iter().filter_map(|door| door.descriptor());
        let all = feeds.chain(door).map(|fd| (fd, descriptor::Ready::Read));
        descriptor::wait(all, Some(deadline)).map_err(failed).map(drop)
    }

    fn look(&mut self) {
        self.sources.suspect();
    }

    fn select(&mut self, tag: Option<u32>) -> bool {
        self.connections.len() == 1 && self.connections[0].feed.select(tag)
    }

    fn peer(&self) -> PeerState {
        let known = self.connections.iter().find_map(|connection| connection.feed.peer());
        known.unwrap_or_else(|| self.sources.peer())
    }

    fn close(&mut self) {
        for connection in &mut self.connections {
            connection.feed.close();
        }
        if let Some(door) = &mut self.door {
            door.close();
        }
    }
}
