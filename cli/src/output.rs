//! Standard output: messages in bulk, and text that a closed pipe may cut short.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
};

use crate::{failure::Failure, signals::Caught};

/// From this size on, a message is written by itself rather than gathered with others.
const LARGE: usize = 32 << 10;

/// Gathers messages and writes them.
pub struct Output {
    file: File,
    newlines: bool,
    gathered: Vec<u8>,
}

impl Output {
    /// With a newline behind each message, or as they are. Nothing else in this process writes there.
    pub fn stdout(newlines: bool) -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, newlines, gathered: Vec::with_capacity(4 * LARGE) })
    }

    /// Adds a message. As for all writes, [`ErrorKind::Interrupted`] means that a signal came.
    pub fn push(&mut self, message: &[u8]) -> io::Result<()> {
        if message.len() >= LARGE {
            self.flush()?;
            write_all(&mut self.file, message)?;
        } else {
            self.gathered.extend_from_slice(message);
        }
        if self.newlines {
            self.gathered.push(b'\n');
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        write_all(&mut self.file, &self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

/// The standard library's would go on after a signal.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        if Caught::now().is_some() {
            return Err(ErrorKind::Interrupted.into());
        }
        match file.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Prints text, of which the reader may take as much as it likes.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::of_io("write to standard output", &error)),
        _ => Ok(()),
    }
}
