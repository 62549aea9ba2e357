//! Who sends to a receiver, and the messages of theirs that have not come whole yet.

use super::frame::{Frame, Identity, Kind, Malformed};
use super::receiver::Delivery;
use crate::channel::{PeerState, RecvError};
use crate::sys::process::{Fate, ProcessId};

/// How many senders are remembered. Beyond that one that is gone is forgotten, or else the one that was silent for longest.
const MOST: usize = 1024;
/// Messages of one sender that may be under way at once: where some overtake others.
const MOST_PARTS: usize = 16;

/// What all unfinished messages together may hold, in bytes: 64 of the longest, but no more than 1 GiB unless 4 of them are more, and
/// no less than 4 MiB.
pub(super) fn most_unfinished(max: usize) -> usize {
    max.saturating_mul(64).min(1 << 30).max(max.saturating_mul(4)).max(4 << 20)
}

/// All senders that a receiver has heard of.
#[derive(Debug)]
pub(super) struct Sources {
    known: Vec<Source>,
    /// Where the last frame came from: mostly the next one does, too.
    last: usize,
    heard_of: u32,
    /// The last message that came in parts.
    joined: Vec<u8>,
    /// Bytes that all unfinished messages hold.
    held: usize,
    max: usize,
    /// Whether messages can get lost, so that a number left out is a gap.
    is_lossy: bool,
    /// How many are known to be lost.
    lost: u64,
    /// How many frames came.
    clock: u64,
    untold_deaths: u32,
    last_end: Option<State>,
}

#[derive(Debug)]
struct Source {
    id: u32,
    /// The connection it belongs to.
    connection: u64,
    /// In order of their arrival.
    number: u32,
    process: Option<ProcessId>,
    state: State,
    is_suspect: bool,
    next: u64,
    parts: Vec<Parts>,
    /// The message whose parts are dropped, since one was missing or there was no room for them.
    given_up: Option<u64>,
    /// When a frame of it came last.
    heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Here,
    Left,
    Dead,
}

#[derive(Debug)]
struct Parts {
    sequence: u64,
    tag: u32,
    total: u32,
    bytes: Vec<u8>,
}

/// What a frame has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    /// The frame's bytes are a message.
    Whole(Delivery),
    /// [`Sources::joined`] is a message.
    Joined(Delivery),
}

impl Sources {
    pub(super) fn new(max: usize, is_lossy: bool) -> Self {
        Self {
            known: Vec::new(),
            last: 0,
            heard_of: 0,
            joined: Vec::new(),
            held: 0,
            max,
            is_lossy,
            lost: 0,
            clock: 0,
            untold_deaths: 0,
            last_end: None,
        }
    }

    /// Takes in a frame, that was checked by itself, and its bytes. Malformed means that the message it belongs to is given up, and
    /// is said once for each.
    #[inline]
    pub(super) fn take(&mut self, frame: &Frame, bytes: &[u8], connection: u64) -> Result<Taken, Malformed> {
        let at = match self.known.get(self.last) {
            Some(source) if source.is(frame.source, connection) => self.last,
            _ if self.is_late(frame, connection) => return Ok(Taken::Nothing),
            _ => self.find(frame, connection),
        };
        self.last = at;
        self.clock += 1;
        let is_lossy = self.is_lossy;
        let source = &mut self.known[at];
        source.heard = self.clock;
        match frame.kind {
            Kind::Data => {}
            Kind::Hello => {
                source.process = Identity::decode(bytes).map(|Identity(process)| process);
                // One that comes late must not have what came be missed.
                source.next = source.next.max(frame.sequence);
                return Ok(Taken::Nothing);
            }
            Kind::Goodbye => {
                if is_lossy {
                    self.lost += frame.sequence.saturating_sub(source.next);
                }
                self.end(at, State::Left);
                return Ok(Taken::Nothing);
            }
        }
        if is_lossy && frame.sequence < source.next {
            // Late: the gap has been told.
            return Ok(Taken::Nothing);
        }
        if !frame.is_whole() {
            return self.join(at, frame, bytes);
        }
        let delivery = source.delivery(frame, is_lossy);
        self.lost += delivery.gap;
        Ok(Taken::Whole(delivery))
    }

    /// How many messages are known to be lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// How many bytes unfinished messages hold.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether the sender has ended, and what comes of it was overtaken by its goodbye.
    fn is_late(&self, frame: &Frame, connection: u64) -> bool {
        let has_ended = |source: &Source| {
            source.id == frame.source && source.connection == connection && source.state != State::Here
        };
        self.is_lossy && frame.kind != Kind::Hello && self.known.iter().any(has_ended)
    }

    /// The message that came last in parts.
    pub(super) fn joined(&self) -> &[u8] {
        &self.joined
    }

    #[cold]
    fn find(&mut self, frame: &Frame, connection: u64) -> usize {
        if let Some(at) = self.known.iter().position(|source| source.is(frame.source, connection)) {
            return at;
        }
        if self.known.len() == MOST {
            let gone = self.known.iter().position(|source| source.state != State::Here);
            let silent = || (0..MOST).min_by_key(|&at| self.known[at].heard);
            if let Some(at) = gone.or_else(silent) {
                self.held -= self.known[at].forget(|_| true);
                self.known.remove(at);
            }
        }
        self.known.push(Source {
            id: frame.source,
            connection,
            number: self.heard_of,
            process: None,
            state: State::Here,
            is_suspect: false,
            // Of what was sent before it was first heard of, nothing is missed.
            next: frame.sequence,
            parts: Vec::new(),
            given_up: None,
            heard: 0,
        });
        self.heard_of = self.heard_of.wrapping_add(1);
        self.known.len() - 1
    }

    /// Whether a connection has a sender, and another one than that.
    pub(super) fn is_anothers(&self, id: u32, connection: u64) -> bool {
        let last = self.known.get(self.last).filter(|source| source.connection == connection);
        match last {
            Some(source) => source.id != id,
            None => self.known.iter().any(|source| source.connection == connection && source.id != id),
        }
    }

    #[cold]
    fn join(&mut self, at: usize, frame: &Frame, bytes: &[u8]) -> Result<Taken, Malformed> {
        let (is_lossy, most) = (self.is_lossy, most_unfinished(self.max));
        let source = &mut self.known[at];
        if is_lossy {
            // A newer message means that the rest of an older one is lost.
            self.held -= source.forget(|parts| parts.sequence != frame.sequence);
        }
        if source.given_up == Some(frame.sequence) {
            return Ok(Taken::Nothing);
        }
        let found = source.parts.iter().position(|parts| parts.sequence == frame.sequence);
        let index = match found {
            Some(index) if source.parts[index].is_followed_by(frame) => Some(index),
            None if frame.offset == 0 && source.parts.len() < MOST_PARTS => {
                let (sequence, tag, total) = (frame.sequence, frame.tag, frame.total);
                source.parts.push(Parts { sequence, tag, total, bytes: Vec::new() });
                Some(source.parts.len() - 1)
            }
            _ => None,
        };
        // Memory grows with what has come, not with what is announced; and all together is bounded.
        let Some(index) = index.filter(|_| self.held + bytes.len() <= most) else {
            self.held -= source.forget(|parts| parts.sequence == frame.sequence);
            source.given_up = Some(frame.sequence);
            // Where messages get lost, it will be missing. Elsewhere its beginning went to an earlier receiver, or its sender errs.
            return if is_lossy { Ok(Taken::Nothing) } else { Err(Malformed) };
        };
        let parts = &mut source.parts[index];
        parts.bytes.extend_from_slice(bytes);
        self.held += bytes.len();
        if parts.bytes.len() < frame.total as usize {
            return Ok(Taken::Nothing);
        }
        self.joined = source.parts.swap_remove(index).bytes;
        self.held -= self.joined.len();
        let delivery = source.delivery(frame, is_lossy);
        self.lost += delivery.gap;
        Ok(Taken::Joined(delivery))
    }

    fn end(&mut self, at: usize, state: State) {
        let source = &mut self.known[at];
        self.held -= source.forget(|_| true);
        source.state = state;
        self.last_end = Some(state);
        if state == State::Dead {
            self.untold_deaths += 1;
        }
    }

    /// A connection has ended: those of its senders that didn't say goodbye are dead.
    pub(super) fn end_connection(&mut self, connection: u64) {
        for at in 0..self.known.len() {
            let source = &self.known[at];
            if source.connection == connection && source.state == State::Here {
                self.end(at, State::Dead);
            }
        }
    }

    /// Something came without frames: somebody is there.
    pub(super) fn begin_plainly(&mut self) {
        self.last_end = None;
    }

    /// A connection without frames has ended.
    pub(super) fn end_plainly(&mut self) {
        self.last_end = Some(State::Left);
    }

    /// Looks whose process is gone. What they sent may not have been received yet: whoever then finds nothing more
    /// [buries](Self::bury) them.
    pub(super) fn suspect(&mut self) {
        for source in self.known.iter_mut().filter(|source| source.state == State::Here) {
            source.is_suspect = source.process.is_some_and(|process| process.fate() == Fate::Gone);
        }
    }

    /// There is nothing left to receive: the suspects are dead.
    pub(super) fn bury(&mut self) {
        for at in 0..self.known.len() {
            if self.known[at].is_suspect && self.known[at].state == State::Here {
                self.end(at, State::Dead);
            }
        }
    }

    /// Why nothing will come, when there is nothing left to receive and nobody is there to send.
    pub(super) fn tell_end(&mut self) -> Option<RecvError> {
        if self.known.iter().any(|source| source.state == State::Here) {
            return None;
        }
        if self.untold_deaths > 0 {
            // Of several at once it is said once.
            self.untold_deaths = 0;
            return Some(RecvError::PeerDied);
        }
        (self.last_end == Some(State::Left)).then_some(RecvError::Closed)
    }

    /// Whether anyone is there.
    pub(super) fn has_any(&self) -> bool {
        self.known.iter().any(|source| source.state == State::Here)
    }

    /// One that is there, or else the last that was.
    pub(super) fn peer(&self) -> PeerState {
        let here = self.known.iter().rfind(|source| source.state == State::Here);
        match here.or(self.known.last()) {
            None => PeerState::Absent,
            Some(source) => match (source.state, source.process.map(|process| process.pid)) {
                (State::Here, Some(pid)) => PeerState::Alive { pid },
                (State::Dead, Some(pid)) => PeerState::Dead { pid },
                (State::Left, _) => PeerState::Left,
                (_, None) => PeerState::Unknown,
            },
        }
    }
}

impl Parts {
    /// Whether that frame is the next part.
    fn is_followed_by(&self, frame: &Frame) -> bool {
        let has_same = (self.tag, self.total) == (frame.tag, frame.total);
        has_same && self.bytes.len() == frame.offset as usize
    }
}

impl Source {
    fn is(&self, id: u32, connection: u64) -> bool {
        self.id == id && self.connection == connection && self.state == State::Here
    }

    #[inline]
    fn delivery(&mut self, frame: &Frame, is_lossy: bool) -> Delivery {
        let gap = if is_lossy { frame.sequence.saturating_sub(self.next) } else { 0 };
        self.next = frame.sequence.wrapping_add(1);
        Delivery {
            len: frame.total as usize,
            tag: frame.tag,
            sequence: frame.sequence,
            producer: self.number,
            gap,
            redelivered: false,
        }
    }

    /// Drops unfinished messages, and says how many bytes they held.
    fn forget(&mut self, is_lost: impl Fn(&Parts) -> bool) -> usize {
        let before: usize = self.parts.iter().map(|parts| parts.bytes.len()).sum();
        self.parts.retain(|parts| !is_lost(parts));
        before - self.parts.iter().map(|parts| parts.bytes.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(source: u32, sequence: u64, total: u32, range: std::ops::Range<u32>) -> Frame {
        let length = range.end - range.start;
        Frame { kind: Kind::Data, length, tag: 7, total, offset: range.start, source, sequence }
    }

    fn message(taken: Result<Taken, Malformed>) -> (usize, u64, u64, u32) {
        match taken.unwrap() {
            Taken::Whole(d) | Taken::Joined(d) => (d.len, d.sequence, d.gap, d.producer),
            Taken::Nothing => panic!("no message"),
        }
    }

    #[test]
    fn parts_of_several_senders_are_joined_apart() {
        let mut sources = Sources::new(100, false);
        assert_eq!(sources.take(&data(1, 0, 6, 0..3), b"abc", 0), Ok(Taken::Nothing));
        assert_eq!(sources.take(&data(2, 0, 4, 0..2), b"12", 0), Ok(Taken::Nothing));
        assert_eq!(message(sources.take(&data(1, 0, 6, 3..6), b"def", 0)), (6, 0, 0, 0));
        assert_eq!(sources.joined(), b"abcdef");
        assert_eq!(message(sources.take(&data(2, 0, 4, 2..4), b"34", 0)), (4, 0, 0, 1));
        assert_eq!(sources.joined(), b"1234");
        assert_eq!(sources.held, 0);
        assert_eq!(sources.take(&data(1, 1, 6, 3..6), b"def", 0), Err(Malformed), "it has no beginning");
    }

    #[test]
    fn what_is_lost_is_a_gap() {
        let mut sources = Sources::new(100, true);
        assert_eq!(message(sources.take(&data(1, 5, 1, 0..1), b"x", 0)), (1, 5, 0, 0));
        assert_eq!(message(sources.take(&data(1, 8, 1, 0..1), b"x", 0)), (1, 8, 2, 0));
        assert_eq!(sources.take(&data(1, 7, 1, 0..1), b"x", 0), Ok(Taken::Nothing), "too late");
        // A part is missing in 9, and 10 comes whole.
        assert_eq!(sources.take(&data(1, 9, 9, 0..3), b"abc", 0), Ok(Taken::Nothing));
        assert_eq!(sources.take(&data(1, 9, 9, 6..9), b"ghi", 0), Ok(Taken::Nothing));
        assert_eq!(message(sources.take(&data(1, 10, 1, 0..1), b"x", 0)), (1, 10, 1, 0));
        assert_eq!((sources.held, sources.lost()), (0, 3));
        // A hello that comes late, or twice, takes nothing back.
        sources.take(&Frame::control(Kind::Hello, 1, 0, 0), b"", 0).unwrap();
        assert_eq!(message(sources.take(&data(1, 11, 1, 0..1), b"x", 0)), (1, 11, 0, 0));
        assert_eq!(sources.take(&data(1, 3, 1, 0..1), b"x", 0), Ok(Taken::Nothing));
        // The goodbye knows how many there were; what comes after it is too late.
        sources.take(&Frame::control(Kind::Goodbye, 1, 14, 0), b"", 0).unwrap();
        assert_eq!(sources.lost(), 5);
        assert_eq!(sources.take(&data(1, 13, 1, 0..1), b"x", 0), Ok(Taken::Nothing));
        assert_eq!(sources.tell_end(), Some(RecvError::Closed));
    }

    #[test]
    fn memory_is_bounded_by_what_came() {
        let mut sources = Sources::new(1 << 20, false);
        let part = vec![0; 1 << 20];
        let mut source = 0;
        let refused = loop {
            source += 1;
            if sources.take(&data(source, 0, 2 << 20, 0..1 << 20), &part, 0).is_err() {
                break source;
            }
        };
        assert_eq!((refused, sources.held), (65, 64 << 20));
        let rest = data(refused, 0, 2 << 20, 1 << 20..2 << 20);
        assert_eq!(sources.take(&rest, &part, 0), Ok(Taken::Nothing), "that was told");
        assert_eq!(message(sources.take(&data(refused, 1, 1, 0..1), b"x", 0)).1, 1, "the next one is no worse for it");
        sources.end_connection(0);
        assert_eq!(sources.held, 0);
    }

    #[test]
    fn parts_that_don_t_belong_together_are_refused_once() {
        let mut sources = Sources::new(100, false);
        sources.take(&data(1, 0, 6, 0..3), b"abc", 0).unwrap();
        let other = Frame { tag: 8, ..data(1, 0, 6, 3..6) };
        assert_eq!(sources.take(&other, b"def", 0), Err(Malformed));
        assert_eq!(sources.take(&data(1, 0, 6, 3..6), b"def", 0), Ok(Taken::Nothing));
        assert_eq!(message(sources.take(&data(1, 1, 1, 0..1), b"x", 0)).1, 1);
    }

    #[test]
    fn many_who_never_leave_keep_nobody_out() {
        let mut sources = Sources::new(100, false);
        for source in 0..3 * MOST as u32 {
            assert_eq!(message(sources.take(&data(source, 0, 1, 0..1), b"x", 0)).3, source);
            // One that goes on isn't forgotten.
            assert_eq!(message(sources.take(&data(0, u64::from(source) + 1, 1, 0..1), b"x", 0)).3, 0);
        }
        assert_eq!(sources.known.len(), MOST);
    }

    #[test]
    fn the_last_to_end_says_how_it_ended() {
        let goodbye = |source| Frame::control(Kind::Goodbye, source, 0, 0);
        let mut sources = Sources::new(100, false);
        assert_eq!(sources.tell_end(), None, "nobody came yet");
        for source in [1, 2] {
            sources.take(&Frame::control(Kind::Hello, source, 0, 0), b"", source.into()).unwrap();
        }
        sources.end_connection(1);
        assert_eq!(sources.tell_end(), None, "one is left");
        sources.take(&goodbye(2), b"", 2).unwrap();
        assert_eq!(sources.tell_end(), Some(RecvError::PeerDied));
        assert_eq!([sources.tell_end(), sources.tell_end()], [Some(RecvError::Closed); 2]);
        sources.take(&data(3, 0, 0, 0..0), b"", 3).unwrap();
        sources.end_connection(3);
        assert_eq!([sources.tell_end(), sources.tell_end()], [Some(RecvError::PeerDied), None]);
    }
}
