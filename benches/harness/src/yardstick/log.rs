//! A file that is appended to under a lock and read from its beginning, by raw system calls.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    mem::MaybeUninit,
    os::unix::fs::{FileExt, OpenOptionsExt},
    thread,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    link::{Link, Receiver, Sender},
    ring::room,
};

/// A file without a name.
pub struct Log(File);

impl Log {
    /// Makes it where temporary files are.
    pub fn new() -> io::Result<Self> {
        let flags = libc::O_TMPFILE | libc::O_APPEND;
        Ok(Self(OpenOptions::new().read(true).write(true).custom_flags(flags).open(std::env::temp_dir())?))
    }
}

impl<const N: usize> Link<N> for Log {
    type Sender = LogWriter;
    type Receiver = LogReader<N>;

    fn sender(&self) -> io::Result<LogWriter> {
        Ok(LogWriter { file: self.0.try_clone()?, buffer: Vec::new() })
    }

    fn receiver(&self) -> io::Result<LogReader<N>> {
        Ok(LogReader { file: self.0.try_clone()?, position: 0, buffer: [0; N] })
    }
}

/// The writing end of a [`Log`].
pub struct LogWriter {
    file: File,
    buffer: Vec<u8>,
}

impl<const N: usize> Sender<N> for LogWriter {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(N, 0);
        write(room(&mut self.buffer));
        let written = flock(&self.file, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(&self.buffer))
            .and_then(|()| Ok(flock(&self.file, FlockOperation::Unlock)?));
        written.unwrap_or_else(|error| panic!("could not append: {error}"));
    }
}

/// The reading end of a [`Log`]; nothing tells it that there is more, so it looks again and again.
pub struct LogReader<const N: usize> {
    file: File,
    position: u64,
    buffer: [u8; N],
}

impl<const N: usize> Receiver<N> for LogReader<N> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut filled = 0;
        while filled < N {
            match self.file.read_at(&mut self.buffer[filled..], self.position) {
                Ok(0) => thread::yield_now(),
                Ok(got) => {
                    filled += got;
                    self.position += got as u64;
                }
                Err(error) => panic!("could not read: {error}"),
            }
        }
        read(&self.buffer);
    }
}
