//! Receiving pieces or bytes: connections, each in its turn, and the messages in what comes from them.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::feed::{Buffer, Door, Feed, Part, READ};
use super::frame::{Frame, HEADER, Kind, Malformed};
use super::inlet::Inlet;
use super::receiver::Delivery;
use super::sources::{Sources, Taken, most_unfinished};
use crate::channel::{Framing, PeerState, RecvError};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::{clock, descriptor};
use crate::wait::SLICE;

/// How many connections a receiver has at most.
const MOST_CONNECTIONS: usize = 1024;
/// After how many looks at the connections one is taken at the door, whatever comes from them.
const DOOR_TURN: u32 = 32;
/// How often a connection is read in a row that has something, but no message.
const PATIENCE: u32 = 64;
/// After how many messages in a row another connection is looked at first.
const STREAK: u32 = 64;
/// Up to so many connections are read to see whether they have something; of more the kernel is asked first.
const FEW: usize = 4;

/// The receiving end of a mechanism that carries pieces or bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    door: Option<Box<dyn Door>>,
    connections: Vec<Connection>,
    /// The connection that is looked at first: it had the last message.
    turn: usize,
    /// How many it had in a row.
    streak: u32,
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
    /// The door can't be opened before that, for want of descriptors or memory.
    shut_until: Option<Duration>,
    /// Nothing was said to be there before everything was looked at.
    is_put_off: bool,
    /// Where the descriptors are in, once it is watched.
    epoll: Option<Arc<Epoll>>,
    is_door_shown: bool,
    /// How many connections are not in there, for want of memory.
    unshown: usize,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    feed: Box<dyn Feed>,
    buffer: Buffer,
    /// Whether its end was reached, which the feed says once, and a last line came first.
    has_ended: bool,
    /// Whether nothing can come any more.
    is_over: bool,
    /// Whether its descriptor is where those are that are polled.
    is_shown: bool,
}

impl Connection {
    fn new(number: u64, feed: Box<dyn Feed>) -> Self {
        Self { number, feed, buffer: Buffer::default(), has_ended: false, is_over: false, is_shown: false }
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
    /// Something that counts for itself alone.
    Malformed,
    /// A connection of which nothing more can be made.
    Broken,
}

fn failed(error: io::Error) -> RecvError {
    RecvError::Os { errno: error.raw_os_error().unwrap_or(libc::EIO) }
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
            streak: 0,
            looks: 0,
            opened: 0,
            framing,
            max,
            sources: Sources::new(max, is_lossy),
            count: 0,
            current: Current::None,
            delivery: Delivery::default(),
            is_put_back: false,
            shut_until: None,
            is_put_off: false,
            epoll: None,
            is_door_shown: false,
            unshown: 0,
        };
        inbox.connections.extend(feed.map(|feed| Connection::new(0, feed)));
        inbox
    }

    /// The next message of those connections that have one, each in its turn.
    fn ask_all(&mut self, many: bool) -> Result<Option<Delivery>, RecvError> {
        let count = self.connections.len();
        if self.streak >= STREAK {
            (self.turn, self.streak) = (self.turn + 1, 0);
        }
        if let Some(delivery) = self.ask_next(many)? {
            self.streak += 1;
            return Ok(Some(delivery));
        }
        self.streak = 0;
        if self.connections.len() < count {
            return self.ask_all(many);
        }
        let is_ready = if count > FEW { Some(self.who_is_ready()?) } else { None };
        let turn = self.turn;
        for at in (1..count).map(|step| (turn + step) % count) {
            if self.connections.len() < count {
                // One is gone, and the others' places have changed: once more.
                return self.ask_all(many);
            }
            if self.connections[at].is_over || is_ready.as_ref().is_some_and(|ready| !ready[at]) {
                continue;
            }
            if let Some(delivery) = self.take_from(at, many)? {
                self.turn = at;
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// The next message of the connection whose turn it is.
    fn ask_next(&mut self, many: bool) -> Result<Option<Delivery>, RecvError> {
        if self.turn >= self.connections.len() {
            self.turn = 0;
        }
        match self.connections.get(self.turn) {
            Some(connection) if !connection.is_over => self.take_from(self.turn, many),
            _ => Ok(None),
        }
    }

    /// Which connections can be read.
    fn who_is_ready(&self) -> Result<Vec<bool>, RecvError> {
        let feeds = self.connections.iter().map(|connection| connection.feed.descriptor());
        descriptor::are_readable(feeds).map_err(failed)
    }

    /// The next message of all connections, also those that are new; without one, whether that is the end.
    fn look_around(&mut self, many: bool) -> Result<Delivery, RecvError> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(DOOR_TURN) {
            self.open_door()?;
        }
        // Those that come in meanwhile are looked at, too, but not without end.
        let mut is_all = false;
        for _ in 0..DOOR_TURN {
            if let Some(delivery) = self.ask_all(many)? {
                return Ok(delivery);
            }
            if !self.open_door()? {
                is_all = true;
                break;
            }
        }
        self.is_put_off |= !is_all;
        if self.connections.iter_mut().any(|connection| connection.feed.has_unselected()) {
            // Those that are gone may have left it.
            return Err(RecvError::Empty);
        }
        self.sources.bury();
        if self.framing != Framing::Frames && self.door.is_some() && !self.connections.is_empty() {
            return Err(RecvError::Empty);
        }
        let is_over = self.door.is_none() && self.connections.iter().all(|connection| connection.is_over);
        let end = self.sources.tell_end();
        Err(end.unwrap_or(if is_over { RecvError::Closed } else { RecvError::Empty }))
    }

    /// The next message of one connection; none if there is none now, or the connection is gone.
    fn take_from(&mut self, at: usize, many: bool) -> Result<Option<Delivery>, RecvError> {
        for _ in 0..PATIENCE {
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
                Found::Malformed => return Err(RecvError::Malformed),
                Found::Broken => {
                    self.hang_up(at);
                    return Err(RecvError::Malformed);
                }
            }
            if self.is_too_much(at) {
                self.hang_up(at);
                return Err(RecvError::Malformed);
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
                Err(e) => return Err(failed(e)),
            }
        }
        self.is_put_off = true;
        Ok(None)
    }

    /// Whether a connection has more of an unfinished message than there is room for, all connections together.
    fn is_too_much(&self, at: usize) -> bool {
        let held = |connection: &Connection| connection.buffer.pending();
        held(&self.connections[at]) > READ
            && self.connections.iter().map(held).sum::<usize>() + self.sources.held() > most_unfinished(self.max)
    }

    /// A connection has come to its end.
    fn finish(&mut self, at: usize) -> Result<Option<Delivery>, RecvError> {
        let connection = &mut self.connections[at];
        let pending = connection.buffer.pending();
        // The last line may lack its newline.
        if self.framing == Framing::Lines && pending > 0 && !connection.buffer.is_skipping && pending <= self.max {
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
        match self.framing {
            Framing::Frames => self.sources.end_connection(number),
            Framing::None | Framing::Lines => self.sources.end_plainly(),
        }
        // A connection of a door's is gone for good; the only one there ever is may have others at its end later.
        if self.door.is_some() {
            self.hide(at);
            let mut connection = self.connections.remove(at);
            connection.feed.close();
        } else {
            self.connections[at].is_over = self.connections[at].feed.is_over();
            self.connections[at].buffer = Buffer::default();
            if self.connections[at].is_over {
                self.hide(at);
            }
        }
    }

    /// Has a connection polled together with all the others, once they are. Without memory for that it is looked at by time.
    fn show(&mut self, at: usize) -> io::Result<bool> {
        let connection = &mut self.connections[at];
        if let Some(epoll) = &self.epoll {
            let shown = connection.feed.watch(epoll);
            connection.is_shown = matches!(shown, Ok(true));
            self.unshown += usize::from(!connection.is_shown);
            return shown;
        }
        Ok(true)
    }

    /// Takes a connection out again, before it is closed: a forked child may keep it open.
    fn hide(&mut self, at: usize) {
        let Some(epoll) = &self.epoll else { return };
        let connection = &mut self.connections[at];
        match connection.feed.descriptor() {
            Some(fd) if connection.is_shown => drop(epoll.delete(fd)),
            _ => self.unshown -= 1,
        }
        connection.is_shown = false;
    }

    /// Has the door polled while somebody can be let in, and only then, since it stays ready until that is done.
    fn tend_door(&mut self) {
        let (Some(epoll), Some(door)) = (&self.epoll, &self.door) else { return };
        match (self.is_door_open(), self.is_door_shown) {
            (true, false) => self.is_door_shown = epoll.add(door.descriptor(), Interest::READ, 0).is_ok(),
            (false, true) => self.is_door_shown = epoll.delete(door.descriptor()).is_err(),
            _ => {}
        }
    }

    /// Lets in who waits; says whether anybody did. What keeps everybody out is told once, and tried again after a slice.
    fn open_door(&mut self) -> Result<bool, RecvError> {
        if !self.is_door_open() {
            return Ok(false);
        }
        let Some(door) = &mut self.door else { return Ok(false) };
        match door.accept() {
            Ok(feed) => {
                self.shut_until = None;
                self.opened += 1;
                self.connections.push(Connection::new(self.opened, feed));
                let _ = self.show(self.connections.len() - 1);
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => {
                let is_news = self.shut_until.is_none();
                self.shut_until = Some(clock::now() + SLICE);
                let is_want =
                    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS));
                // Otherwise it is the affair of who wanted in.
                if is_news && is_want { Err(failed(e)) } else { Ok(false) }
            }
        }
    }

    /// Whether there is room for somebody else.
    fn is_door_open(&self) -> bool {
        self.has_room() && self.shut_until.is_none_or(|until| clock::now() >= until)
    }

    /// The same, whatever keeps them out for a while; else somebody else has to go first.
    fn has_room(&self) -> bool {
        self.connections.len() < MOST_CONNECTIONS && self.door.as_ref().is_some_and(|door| door.is_open())
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
        let Connection { number, buffer, feed, .. } = &mut self.connections[at];
        loop {
            let is_piece = !buffer.pieces.is_empty();
            let whole = match buffer.pieces.front() {
                Some(piece) => piece.range.clone(),
                None if buffer.pending() < HEADER => return Found::Nothing,
                None => buffer.start..buffer.end,
            };
            let bytes = &buffer.bytes[whole.clone()];
            let frame = bytes.first_chunk().map_or(Err(Malformed), |header| Frame::decode(header, self.max));
            let frame = match frame {
                Ok(frame) if bytes.len() >= HEADER + frame.length as usize => frame,
                Ok(_) if !is_piece => return Found::Nothing,
                _ if is_piece => {
                    buffer.drop_piece();
                    return if self.door.is_some() { Found::Broken } else { Found::Malformed };
                }
                _ if !feed.is_shared() => return Found::Broken,
                // Among the frames of others there is something else: they begin again where a header does.
                _ => {
                    let length = distance_to_header(bytes, self.max);
                    buffer.skip_over(length);
                    if std::mem::replace(&mut buffer.is_skipping, true) {
                        continue;
                    }
                    return Found::Malformed;
                }
            };
            buffer.is_skipping = false;
            let length = HEADER + frame.length as usize;
            // A piece has one or more whole frames.
            match buffer.pieces.front_mut() {
                Some(piece) if whole.len() > length => piece.range.start += length,
                _ => buffer.drop_piece(),
            }
            let payload = whole.start + HEADER..whole.start + length;
            buffer.start = payload.end;
            if !feed.is_shared() && self.sources.is_anothers(frame.source, *number) && self.door.is_some() {
                return Found::Broken;
            }
            match self.sources.take(&frame, &buffer.bytes[payload.clone()], *number) {
                Ok(Taken::Nothing) => {}
                Ok(Taken::Whole(delivery)) => {
                    return Found::Message(Current::In { connection: at, range: payload }, delivery);
                }
                Ok(Taken::Joined(delivery)) => return Found::Message(Current::Joined, delivery),
                Err(Malformed) if self.door.is_some() => return Found::Broken,
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
        loop {
            let pending = &buffer.bytes[buffer.start..buffer.end];
            let newline = pending[buffer.searched..].iter().position(|&byte| byte == b'\n');
            let Some(length) = newline.map(|newline| buffer.searched + newline) else {
                buffer.searched = pending.len();
                if pending.len() <= self.max && !buffer.is_skipping {
                    return Found::Nothing;
                }
                // The rest of it is to come.
                buffer.skip_over(pending.len());
                return if std::mem::replace(&mut buffer.is_skipping, true) {
                    Found::Nothing
                } else {
                    Found::Malformed
                };
            };
            let range = buffer.start..buffer.start + length;
            buffer.skip_over(length + 1);
            if std::mem::take(&mut buffer.is_skipping) {
                continue;
            }
            if range.len() > self.max {
                return Found::Malformed;
            }
            let delivery = Delivery { len: range.len(), sequence: self.count, ..Delivery::default() };
            self.count += 1;
            return Found::Message(Current::In { connection: at, range }, delivery);
        }
    }
}

/// How many bytes lie before the next header, or what may be the beginning of one; at least 1.
fn distance_to_header(bytes: &[u8], max: usize) -> usize {
    let is_header = |at: &usize| match bytes[*at..].first_chunk::<HEADER>() {
        Some(header) => Frame::decode(header, max).is_ok(),
        None => Kind::may_begin(&bytes[*at..]),
    };
    (1..bytes.len()).find(is_header).unwrap_or(bytes.len())
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
        self.is_put_off = false;
        let taken = self.look_around(many);
        if self.epoll.is_some() {
            self.tend_door();
        }
        taken
    }

    fn has_retry(&self) -> bool {
        true
    }

    fn retry_take(&mut self, many: bool) -> Result<Delivery, RecvError> {
        // The one that had the last message: others have to wake it up.
        self.ask_next(many)?.ok_or(RecvError::Empty)
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
        if let [Connection { feed, is_over: false, .. }] = &mut self.connections[..]
            && feed.descriptor().is_none()
        {
            return feed.wait(deadline).map_err(failed);
        }
        if std::mem::take(&mut self.is_put_off) {
            return Ok(());
        }
        // What has ended is always ready, and never has anything; a door that can't be opened is no better.
        let alive = self.connections.iter().filter(|connection| !connection.is_over);
        let feeds = alive.filter_map(|connection| connection.feed.descriptor());
        let door = self.door.iter().filter(|_| self.is_door_open()).map(|door| door.descriptor());
        let all = feeds.chain(door).map(|fd| (fd, descriptor::Ready::Read));
        descriptor::wait(all, Some(deadline)).map_err(failed).map(drop)
    }

    fn look(&mut self) {
        // A connection ends by itself, and may hold back what is to come before that.
        if self.connections.iter().any(|connection| connection.feed.is_shared()) {
            self.sources.suspect();
        }
        for at in 0..self.connections.len() {
            if self.unshown > 0 && !self.connections[at].is_shown && !self.connections[at].is_over {
                self.unshown -= 1;
                let _ = self.show(at);
            }
        }
    }

    fn must_look(&self) -> bool {
        let is_shared = self.connections.first().is_some_and(|connection| connection.feed.is_shared());
        // It opens by time; or the thread that makes the connections had the last one a moment longer.
        let is_door_late =
            !self.is_door_shown && self.door.is_some() && (self.has_room() || self.connections.is_empty());
        (is_shared && self.sources.has_any()) || self.unshown > 0 || is_door_late
    }

    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool> {
        self.epoll = Some(Arc::clone(epoll));
        self.unshown = 0;
        for at in 0..self.connections.len() {
            if self.connections[at].is_over {
                continue;
            }
            match self.show(at) {
                Ok(true) => {}
                shown => {
                    (self.epoll, self.unshown) = (None, 0);
                    return shown;
                }
            }
        }
        self.is_door_shown = false;
        self.tend_door();
        Ok(true)
    }

    #[inline]
    fn has_hidden(&self) -> bool {
        let has_more = || match self.current {
            Current::None => false,
            // It had the message.
            _ => self.connections.get(self.turn).is_some_and(|connection| connection.buffer.pending() > 0),
        };
        self.is_put_back || self.is_put_off || has_more()
    }

    fn lost(&self) -> u64 {
        self.sources.lost()
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
