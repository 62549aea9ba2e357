//! Pipes and Unix stream sockets, by raw reads and writes of whole messages or batches of them.

use std::{
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::link::{Link, Receiver, Sender};

/// How an end of a byte stream waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The descriptor is non-blocking, and asked again and again.
    Spin,
    /// The system call blocks.
    Sleep,
}

/// A byte stream of the kernel.
pub struct Bytes<R, W> {
    reader: R,
    writer: W,
}

/// A pipe.
pub fn pipe(waiting: Waiting) -> io::Result<Bytes<PipeReader, PipeWriter>> {
    let (reader, writer) = io::pipe()?;
    Bytes { reader, writer }.prepare(waiting)
}

/// A pair of connected Unix stream sockets, of which one direction is used.
pub fn unix(waiting: Waiting) -> io::Result<Bytes<UnixStream, UnixStream>> {
    let (reader, writer) = UnixStream::pair()?;
    Bytes { reader, writer }.prepare(waiting)
}

impl<R: AsFd, W: AsFd> Bytes<R, W> {
    fn prepare(self, waiting: Waiting) -> io::Result<Self> {
        if waiting == Waiting::Spin {
            for fd in [self.reader.as_fd(), self.writer.as_fd()] {
                fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            }
        }
        Ok(self)
    }
}

/// A descriptor that can be duplicated.
pub trait Duplicate: Sized {
    /// Another descriptor for the same thing.
    fn duplicate(&self) -> io::Result<Self>;
}

macro_rules! duplicate {
    ($($type:ty)*) => { $(impl Duplicate for $type {
        fn duplicate(&self) -> io::Result<Self> {
            self.try_clone()
        }
    })* };
}
duplicate!(PipeReader PipeWriter UnixStream);

impl<const N: usize, R: Read + Duplicate + Sync, W: Write + Duplicate + Sync> Link<N> for Bytes<R, W> {
    type Sender = BytesSender<W>;
    type Receiver = BytesReceiver<R>;

    fn sender(&self) -> io::Result<BytesSender<W>> {
        Ok(BytesSender { writer: self.writer.duplicate()?, buffer: Vec::new() })
    }

    fn receiver(&self) -> io::Result<BytesReceiver<R>> {
        Ok(BytesReceiver { reader: self.reader.duplicate()?, buffer: Vec::new(), filled: 0 })
    }
}

/// The writing end of [`Bytes`].
pub struct BytesSender<W> {
    writer: W,
    buffer: Vec<u8>,
}

impl<const N: usize, W: Write> Sender<N> for BytesSender<W> {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut write = Some(write);
        self.send_batch(1, |message: &mut MaybeUninit<[u8; N]>| write.take().expect("a batch of one")(message));
    }

    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(count * N, 0);
        for message in self.buffer.chunks_exact_mut(N) {
            // SAFETY: the chunk is N bytes long, needs no alignment and is borrowed exclusively; writing through
            // `MaybeUninit` could un-initialise it, but `write` writes all of it, and bytes can't be invalid.
            write(unsafe { &mut *message.as_mut_ptr().cast() });
        }
        let mut left = &self.buffer[..];
        while !left.is_empty() {
            match self.writer.write(left) {
                Ok(written) => left = &left[written..],
                Err(error) if retry(&error) => {}
                Err(error) => panic!("could not write to the other side: {error}"),
            }
        }
    }
}

/// The reading end of [`Bytes`].
pub struct BytesReceiver<R> {
    reader: R,
    buffer: Vec<u8>,
    filled: usize,
}

impl<const N: usize, R: Read> Receiver<N> for BytesReceiver<R> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut read = Some(read);
        self.recv_batch(1, |message: &[u8; N]| read.take().expect("at most one")(message));
    }

    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        self.buffer.resize(max * N, 0);
        while self.filled < N {
            match self.reader.read(&mut self.buffer[self.filled..]) {
                Ok(0) => panic!("the other side has gone"),
                Ok(got) => self.filled += got,
                Err(error) if retry(&error) => {}
                Err(error) => panic!("could not read from the other side: {error}"),
            }
        }
        let (messages, rest) = self.buffer[..self.filled].as_chunks();
        messages.iter().for_each(&mut read);
        let (count, rest) = (messages.len(), rest.len());
        // Part of a message stays for the next call.
        self.buffer.copy_within(count * N..self.filled, 0);
        self.filled = rest;
        count
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}
