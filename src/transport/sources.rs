//! Who sends to a receiver, and the messages of theirs that have not come whole yet.

use super::frame::{Frame, Identity, Kind, Malformed};
use super::receiver::Delivery;
use crate::channel::{PeerState, RecvError};
use crate::sys::process::{Fate, ProcessId};

/// How many senders are remembered. Of those that are gone, the oldest is forgotten; more that are there are refused.
const MOST: usize = 1024;
/// Messages of one sender that may be under way at once: where some overtake others.
const MOST_PARTS: usize = 16;

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
            untold_deaths: 0,
            last_end: None,
        }
    }

    /// Takes in a frame, that was checked by itself, and its bytes.
    #[inline]
    pub(super) fn take(&mut self, frame: &Frame, bytes: &[u8], connection: u64) -> Result<Taken, Malformed> {
        let at = match self.known.get(self.last) {
            Some(source) if source.is(frame.source, connection) => self.last,
            _ => self.find(frame, connection)?,
        };
        self.last = at;
        let is_lossy = self.is_lossy;
        let source = &mut self.known[at];
        match frame.kind {
            Kind::Data => {}
            Kind::Hello => {
                source.process = Identity::decode(bytes).map(|Identity(process)| process);
                source.next = frame.sequence;
                return Ok(Taken::Nothing);
            }
            Kind::Goodbye => {
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
        Ok(Taken::Whole(source.delivery(frame, is_lossy)))
    }

    /// The message that came last in parts.
    pub(super) fn joined(&self) -> &[u8] {
        &self.joined
    }

    #[cold]
    fn find(&mut self, frame: &Frame, connection: u64) -> Result<usize, Malformed> {
        if let Some(at) = self.known.iter().position(|source| source.is(frame.source, connection)) {
            return Ok(at);
        }
        if self.known.len() == MOST {
            let gone = self.known.iter().position(|source| source.state != State::Here).ok_or(Malformed)?;
            self.known.remove(gone);
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
        });
        self.heard_of = self.heard_of.wrapping_add(1);
        Ok(self.known.len() - 1)
    }

    #[cold]
    fn join(&mut self, at: usize, frame: &Frame, bytes: &[u8]) -> Result<Taken, Malformed> {
        let source = &mut self.known[at];
        if self.is_lossy {
            // A newer message means that the rest of an older one is lost.
            self.held -= source.forget(|parts| parts.sequence != frame.sequence);
        }
        let found = source.parts.iter().position(|parts| parts.sequence == frame.sequence);
        let index = match found {
            Some(index) if source.parts[index].bytes.len() == frame.offset as usize => index,
            None if frame.offset == 0 && source.parts.len() < MOST_PARTS => {
                source.parts.push(Parts { sequence: frame.sequence, bytes: Vec::new() });
                source.parts.len() - 1
            }
            // Where nothing is lost or overtaken, no correct sender does that.
            _ if !self.is_lossy => return Err(Malformed),
            _ => {
                self.held -= source.forget(|parts| parts.sequence == frame.sequence);
                return Ok(Taken::Nothing);
            }
        };
        // Memory grows with what has come, not with what is announced; and all together is bounded.
        if self.held + bytes.len() > 4 * self.max.max(1 << 20) {
            return Err(Malformed);
        }
        let parts = &mut source.parts[index];
        parts.bytes.extend_from_slice(bytes);
        self.held += bytes.len();
        if parts.bytes.len() < frame.total as usize {
            return Ok(Taken::Nothing);
        }
        self.joined = source.parts.swap_remove(index).bytes;
        self.held -= self.joined.len();
        Ok(Taken::Joined(source.delivery(frame, self.is_lossy)))
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
        assert_eq!(sources.held, 0);
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
        assert_eq!((refused, sources.held), (5, 4 << 20));
        sources.end_connection(0);
        assert_eq!(sources.held, 0);
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
