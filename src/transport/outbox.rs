//! Sending pieces or bytes: frames, the parts of long messages, batches, and what there was no room for yet.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::time::Duration;

use super::frame::{Frame, HEADER, Identity, Kind, LONGEST};
use super::outlet::{LINGER, Outlet};
use super::port::{MOST, Piece, Port};
use super::sender::Outgoing;
use crate::channel::{Framing, PeerState, SendError};
use crate::sys::clock;
use crate::sys::epoll::{Epoll, Interest};

/// How much a batch collects before it is handed over.
const BATCH: usize = 64 << 10;
/// Up to this many bytes, a copy costs less than having the kernel collect two parts.
const COPIED: usize = 2 << 10;

/// The sending end of a mechanism that carries pieces or bytes.
#[derive(Debug)]
pub(super) struct Outbox<P> {
    port: P,
    framing: Framing,
    max: usize,
    source: u32,
    sequence: u64,
    /// What has been sent and not been handed over.
    staged: Vec<u8>,
    /// How much of it has been handed over meanwhile.
    done: usize,
    pieces: Vec<Piece>,
    /// Where the parts of a short piece are put together.
    whole: Vec<u8>,
    /// Where each message of a batch lies in it.
    batch: Vec<Range<usize>>,
    /// Whether the last frame has been sent.
    has_left: bool,
}

impl<P: Port> Outbox<P> {
    /// `max` is the longest message asked for.
    pub(super) fn new(port: P, framing: Framing, max: Option<usize>, hello: Option<Identity>) -> Self {
        let unit = port.unit();
        let most = match framing {
            Framing::None => unit,
            _ => LONGEST,
        };
        let max = max.unwrap_or(DEFAULT_LONGEST).min(most);
        let mut outbox = Self {
            port,
            framing,
            max,
            source: source_number(),
            sequence: 0,
            staged: Vec::new(),
            done: 0,
            pieces: Vec::new(),
            whole: Vec::new(),
            batch: Vec::new(),
            has_left: false,
        };
        if framing == Framing::Frames {
            outbox.stage_control(Kind::Hello, hello.map(|identity| identity.encode()).as_ref().map_or(&[], |b| &b[..]));
            // Without room it goes with the first message, which also tells what is wrong if something is.
            let _ = outbox.try_hand_over();
        }
        outbox
    }

    fn stage_control(&mut self, kind: Kind, payload: &[u8]) {
        let frame = Frame::control(kind, self.source, self.sequence, payload.len());
        self.staged.extend_from_slice(&frame.encode());
        self.staged.extend_from_slice(payload);
        self.pieces.push(Piece { end: self.staged.len(), tag: None });
    }

    /// How many bytes of a message go into one piece.
    fn share(&self) -> usize {
        self.port.unit().saturating_sub(HEADER).max(1)
    }

    fn frame(&self, message: Outgoing<'_>, offset: usize, length: usize) -> Frame {
        Frame {
            kind: Kind::Data,
            length: length as u32,
            tag: message.tag,
            total: message.payload.len() as u32,
            offset: offset as u32,
            source: self.source,
            sequence: self.sequence,
        }
    }

    fn stage(&mut self, message: Outgoing<'_>) {
        match self.framing {
            Framing::Frames => {
                let share = self.share();
                let mut offset = 0;
                loop {
                    let length = share.min(message.payload.len() - offset);
                    self.staged.extend_from_slice(&self.frame(message, offset, length).encode());
                    self.staged.extend_from_slice(&message.payload[offset..offset + length]);
                    self.end_piece(message.tag);
                    offset += length;
                    if offset == message.payload.len() {
                        break;
                    }
                }
            }
            Framing::None | Framing::Lines => {
                self.staged.extend_from_slice(message.payload);
                if self.framing == Framing::Lines {
                    self.staged.push(b'\n');
                }
                self.pieces.push(Piece { end: self.staged.len(), tag: Some(message.tag) });
            }
        }
        self.sequence += 1;
    }

    /// What was staged last is a piece, or goes with the last one, if both together are none too long.
    fn end_piece(&mut self, tag: u32) {
        let (end, tag) = (self.staged.len(), Some(tag));
        let start = self.pieces.iter().rev().nth(1).map_or(0, |before| before.end);
        match self.pieces.last_mut() {
            Some(last)
                if start >= self.done
                    && end - start <= self.port.unit()
                    && (last.tag == tag || !self.port.has_tags()) =>
            {
                last.end = end;
            }
            _ => self.pieces.push(Piece { end, tag }),
        }
    }

    /// Hands over what is staged.
    fn hand_over(&mut self) -> Result<(), SendError> {
        self.try_hand_over().map_err(|e| self.port.explain(&e))
    }

    fn try_hand_over(&mut self) -> io::Result<()> {
        let mut first = 0;
        while self.done < self.staged.len() {
            // Of the first piece a part may have gone; pieces count from there.
            while self.pieces[first].end <= self.done {
                first += 1;
            }
            let last = self.pieces.len().min(first + MOST);
            let base = self.done;
            let mut pieces = [Piece { end: 0, tag: None }; MOST];
            for (place, piece) in pieces.iter_mut().zip(&self.pieces[first..last]) {
                *place = Piece { end: piece.end - base, ..*piece };
            }
            let end = self.pieces[last - 1].end;
            match self.port.put_many(&self.staged[base..end], &pieces[..last - first]) {
                Ok(taken) => self.done += taken,
                Err(e) => {
                    self.pieces.drain(..first);
                    return Err(e);
                }
            }
        }
        self.staged.clear();
        self.pieces.clear();
        self.batch.clear();
        self.done = 0;
        Ok(())
    }

    /// Drops what is staged from `length` on, as if it had never been sent.
    fn unstage(&mut self, length: usize, messages: usize) {
        self.staged.truncate(length);
        let mut start = 0;
        self.pieces.retain_mut(|piece| {
            let begins_before = start < length;
            start = piece.end;
            piece.end = piece.end.min(length);
            begins_before
        });
        self.sequence -= messages as u64;
    }

    /// Sends what fits into one piece without staging it.
    #[inline]
    fn put(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        let header;
        let (first, second) = match self.framing {
            Framing::Frames => {
                header = self.frame(message, 0, message.payload.len()).encode();
                (&header[..], message.payload)
            }
            Framing::None => (message.payload, &[][..]),
            Framing::Lines => (message.payload, &b"\n"[..]),
        };
        let put = if second.is_empty() {
            self.port.put(&[IoSlice::new(first)], message.tag)
        } else if first.len() + second.len() <= COPIED {
            self.whole.clear();
            self.whole.extend_from_slice(first);
            self.whole.extend_from_slice(second);
            self.port.put(&[IoSlice::new(&self.whole)], message.tag)
        } else {
            self.port.put(&[IoSlice::new(first), IoSlice::new(second)], message.tag)
        };
        match put {
            Ok(taken) => {
                let whole = first.len() + second.len();
                if taken < whole {
                    // The rest of a stream's bytes must follow.
                    let split = taken.min(first.len());
                    self.staged.extend_from_slice(&first[split..]);
                    self.staged.extend_from_slice(&second[taken - split..]);
                    self.pieces.push(Piece { end: self.staged.len(), tag: Some(message.tag) });
                }
                Ok(())
            }
            Err(e) => Err(self.port.explain(&e)),
        }
    }
}

/// The longest message unless told, in bytes.
pub(super) const DEFAULT_LONGEST: usize = 16 << 20;

impl<P: Port> Outlet for Outbox<P> {
    fn max_message(&self) -> usize {
        self.max
    }

    #[inline]
    fn check(&self, length: usize, tag: u32) -> Result<(), SendError> {
        if length > self.max {
            return Err(SendError::TooLarge { max: self.max });
        }
        if self.has_left {
            return Err(SendError::Closed);
        }
        let is_fit = match self.framing {
            Framing::Frames => self.port.is_tag(tag),
            Framing::None | Framing::Lines => self.port.is_fit(length, tag),
        };
        if is_fit { Ok(()) } else { Err(SendError::Unfit) }
    }

    #[inline]
    fn try_send(&mut self, message: Outgoing<'_>) -> Result<u64, SendError> {
        self.check(message.payload.len(), message.tag)?;
        if self.framing == Framing::Lines && message.payload.contains(&b'\n') {
            return Err(SendError::Unfit);
        }
        if !self.staged.is_empty() {
            self.hand_over()?;
        }
        let sequence = self.sequence;
        if message.payload.len() <= self.share() || self.framing != Framing::Frames {
            self.put(message)?;
            self.sequence += 1;
            return Ok(sequence);
        }
        self.stage(message);
        match self.hand_over() {
            // As long as nothing of it has gone, it can be taken back.
            Err(error) if self.done == 0 => {
                self.unstage(0, 1);
                Err(error)
            }
            Ok(()) | Err(SendError::Full) => Ok(sequence),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, message: Outgoing<'_>) -> Result<(), SendError> {
        self.check(message.payload.len(), message.tag)?;
        if self.framing == Framing::Lines && message.payload.contains(&b'\n') {
            return Err(SendError::Unfit);
        }
        if self.staged.len() >= BATCH {
            self.hand_over()?;
        }
        let start = self.staged.len();
        self.stage(message);
        self.batch.push(start..self.staged.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        if self.staged.is_empty() { Ok(()) } else { self.hand_over() }
    }

    fn finish(&mut self) -> Result<(), SendError> {
        if !self.has_left {
            self.flush()?;
            self.has_left = true;
            if !self.port.retire() && self.framing == Framing::Frames {
                self.stage_control(Kind::Goodbye, &[]);
            }
        }
        self.flush()
    }

    fn give_up(&mut self) -> usize {
        let kept = match self.batch.iter().find(|message| message.end > self.done) {
            None => self.staged.len(),
            // The rest of a message of which a part has gone must follow.
            Some(message) if message.start < self.done => message.end,
            Some(message) => message.start,
        };
        let lost = self.batch.iter().filter(|message| message.end > kept).count();
        self.batch.clear();
        self.unstage(kept, lost);
        lost
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), SendError> {
        self.port.wait(deadline).map_err(|e| self.port.explain(&e))
    }

    fn end(&mut self) -> Option<SendError> {
        self.port.end()
    }

    fn must_look(&self) -> bool {
        self.port.must_look()
    }

    fn watch(&mut self, epoll: &Epoll) -> io::Result<bool> {
        match self.port.descriptor() {
            Some(fd) => epoll.add(fd, Interest::WRITE, 0).map(|()| true),
            None => Ok(false),
        }
    }

    fn peer(&self) -> PeerState {
        self.port.peer()
    }

    fn close(&mut self) {
        let deadline = clock::now().saturating_add(LINGER);
        while let Err(SendError::Full) = self.finish() {
            if clock::now() >= deadline || self.port.wait(deadline).is_err() {
                break;
            }
        }
        self.port.close();
    }
}

/// A number that no other sender has, but by a chance of one in four milliards.
pub(super) fn source_number() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the kernel's random numbers, differently for each; but a forked child goes on with its parent's.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.write_u128(clock::now().as_nanos());
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::{self, Ready};
    use crate::transport::pipe::PipePort;
    use std::os::fd::{AsFd, OwnedFd};

    fn outbox() -> (Outbox<PipePort>, OwnedFd) {
        let (reader, writer) = descriptor::pipe().unwrap();
        let writer = descriptor::reopen_pipe(writer.as_fd(), Ready::Write).unwrap();
        let reader = descriptor::reopen_pipe(reader.as_fd(), Ready::Read).unwrap();
        (Outbox::new(PipePort::new(writer, Framing::Frames), Framing::Frames, None, None), reader)
    }

    fn message(payload: &[u8]) -> Outgoing<'_> {
        Outgoing { payload, tag: 1 }
    }

    /// The sequences and offsets of the frames in a pipe.
    fn frames(reader: &OwnedFd) -> Vec<(u64, u32)> {
        let mut bytes = vec![0; 1 << 20];
        let mut length = 0;
        while let Ok(read @ 1..) = descriptor::read(reader.as_fd(), &mut bytes[length..]) {
            length += read;
        }
        let mut rest = &bytes[..length];
        let mut found = Vec::new();
        while let Some(header) = rest.first_chunk() {
            let frame = Frame::decode(header, LONGEST).unwrap();
            if frame.kind == Kind::Data {
                found.push((frame.sequence, frame.offset));
            }
            rest = &rest[HEADER + frame.length as usize..];
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn of_a_batch_that_fails_a_message_that_has_begun_stays_and_the_others_go() {
        let (mut outbox, reader) = outbox();
        descriptor::set_pipe_capacity(reader.as_fd(), 4 * 4096).unwrap();
        let large = vec![7; 60_000];
        // Its last part shares a piece with what comes behind it.
        for payload in [&large[..], b"second", b"third"] {
            outbox.add(message(payload)).unwrap();
        }
        assert_eq!(outbox.flush(), Err(SendError::Full));
        assert_eq!(outbox.give_up(), 2);
        let mut received = frames(&reader);
        while outbox.flush() == Err(SendError::Full) {
            received.extend(frames(&reader));
        }
        assert_eq!(outbox.try_send(message(b"next")), Ok(1));
        received.extend(frames(&reader));
        let share = outbox.share() as u32;
        let expected = (0..60_000_u32.div_ceil(share)).map(|part| (0, part * share)).chain([(1, 0)]);
        assert_eq!(received, expected.collect::<Vec<_>>());
    }

    #[test]
    fn of_a_batch_of_which_nothing_goes_nothing_stays() {
        let (mut outbox, reader) = outbox();
        while outbox.try_send(message(&[1; 4000])).is_ok() {}
        let sent = frames(&reader).len() as u64;
        while outbox.try_send(message(&[1; 4000])).is_ok() {}
        for payload in [&b"one"[..], b"two"] {
            outbox.add(message(payload)).unwrap();
        }
        drop(reader);
        assert_eq!((outbox.flush(), outbox.give_up()), (Err(SendError::Closed), 2));
        assert_eq!(outbox.flush(), Ok(()), "nothing is left");
        assert_eq!(outbox.sequence, 2 * sent);
    }
}
