//! Pipes, stream sockets and pseudo-terminals, by raw reads and writes of whole messages or batches of them.

use std::{
    fs::File,
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, FromRawFd},
        unix::net::UnixStream,
    },
    ptr,
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

/// A TCP connection within this machine, of which one direction is used. Nothing waits for more to be sent with it.
pub fn tcp(waiting: Waiting) -> io::Result<Bytes<TcpStream, TcpStream>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let writer = TcpStream::connect(listener.local_addr()?)?;
    let (reader, _) = listener.accept()?;
    writer.set_nodelay(true)?;
    Bytes { reader, writer }.prepare(waiting)
}

/// A pseudo-terminal in raw mode, from the slave to the master.
pub fn terminal(waiting: Waiting) -> io::Result<Bytes<File, File>> {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: both are valid places; the name, the settings and the size are left out.
    if unsafe { libc::openpty(&mut master, &mut slave, ptr::null_mut(), ptr::null(), ptr::null()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were opened just now and are nobody else's.
    let (reader, writer) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    // SAFETY: zeroes are a valid value of these settings, and each call gets a valid place for them.
    let set = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        libc::tcgetattr(slave, &mut settings);
        libc::cfmakeraw(&mut settings);
        libc::tcsetattr(slave, libc::TCSANOW, &settings)
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
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
duplicate!(PipeReader PipeWriter UnixStream TcpStream File);

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
