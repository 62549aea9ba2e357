//! Standard input in pieces: lines, or chunks of a size.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::AsFd,
};

use crate::signals::Caught;

/// Read at once, at most. More would leave the processor's cache before it is sent.
const BUFFER: usize = 256 << 10;

/// What a piece is.
#[derive(Clone, Copy)]
pub enum Framing {
    /// Up to a newline, which is dropped; the last one may lack it.
    Lines,
    /// So many bytes; the last one may have fewer.
    Chunks(usize),
}

/// Hands out each piece as soon as it is there.
pub struct Input<R = File> {
    source: R,
    framing: Framing,
    longest: usize,
    buffer: Vec<u8>,
    /// What of the buffer was read and not handed out.
    start: usize,
    end: usize,
    /// How many of those bytes hold no newline.
    searched: usize,
    ended: bool,
}

impl Input {
    /// See [`Input::new`]. The standard library's own buffer is passed by: nothing else in this process reads.
    pub fn stdin(framing: Framing, longest: usize) -> io::Result<Self> {
        Ok(Self::new(File::from(io::stdin().as_fd().try_clone_to_owned()?), framing, longest))
    }
}

impl<R: Read> Input<R> {
    /// A piece longer than `longest` is cut off somewhere behind that.
    fn new(source: R, framing: Framing, longest: usize) -> Self {
        let buffer = vec![0; BUFFER];
        Self { source, framing, longest, buffer, start: 0, end: 0, searched: 0, ended: false }
    }

    /// The next piece; none at the end. [`ErrorKind::Interrupted`] means that a signal came.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let (length, taken) = loop {
            let pending = &self.buffer[self.start..self.end];
            let whole = match self.framing {
                Framing::Lines => {
                    memchr::memchr(b'\n', &pending[self.searched..]).map(|at| self.searched + at).map(|at| (at, at + 1))
                }
                Framing::Chunks(size) => (pending.len() >= size).then_some((size, size)),
            };
            let pending = pending.len();
            match whole {
                Some(found) => break found,
                None if self.ended && pending == 0 => return Ok(None),
                None if self.ended || pending > self.longest => break (pending, pending),
                None => self.searched = pending,
            }
            self.fill()?;
        };
        let piece = self.start..self.start + length;
        self.start += taken;
        self.searched = 0;
        Ok(Some(&self.buffer[piece]))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        loop {
            if Caught::now().is_some() {
                return Err(ErrorKind::Interrupted.into());
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.end += read;
                    self.ended = read == 0;
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = self.1.min(self.0.len());
            self.0.split_off(..some).unwrap_or_default().read(buffer)
        }
    }

    fn pieces(bytes: &[u8], framing: Framing, longest: usize) -> Vec<Vec<u8>> {
        let each = [1, 2, 3, 1000].map(|step| {
            let mut input = Input::new(Trickle(bytes, step), framing, longest);
            std::iter::from_fn(|| input.next().unwrap().map(<[u8]>::to_vec)).collect::<Vec<_>>()
        });
        assert!(each.iter().all(|pieces| *pieces == each[0]), "however it is read");
        each.into_iter().next_back().unwrap()
    }

    #[test]
    fn lines_lose_their_newline() {
        let lines = |text: &str| pieces(text.as_bytes(), Framing::Lines, 100);
        assert_eq!(lines(""), [b""; 0]);
        assert_eq!(lines("\n"), [b""]);
        assert_eq!(lines("one\n\nthree\n"), [&b"one"[..], b"", b"three"]);
        assert_eq!(lines("one\ntwo"), [b"one", b"two"]);
    }

    #[test]
    fn chunks_are_whole_but_the_last() {
        assert_eq!(pieces(b"a\nbcdefg", Framing::Chunks(3), 3), [&b"a\nb"[..], b"cde", b"fg"]);
        assert_eq!(pieces(b"abcdef", Framing::Chunks(3), 3), [b"abc", b"def"]);
        assert_eq!(pieces(b"", Framing::Chunks(3), 3), [b""; 0]);
    }

    #[test]
    fn what_is_longer_than_the_buffer_is_whole() {
        let long = vec![b'x'; 3 * BUFFER + 1];
        let mut input = Input::new(Trickle(&long, 1 << 16), Framing::Lines, long.len());
        assert_eq!(input.next().unwrap(), Some(&long[..]));
        assert_eq!(input.next().unwrap(), None);
    }

    #[test]
    fn endless_lines_are_given_up_in_time() {
        let mut input = Input::new(io::repeat(b'x').take(10 * BUFFER as u64), Framing::Lines, 1000);
        assert!(input.next().unwrap().is_some_and(|piece| piece.len() > 1000));
        assert_eq!(input.buffer.len(), BUFFER);
    }
}
