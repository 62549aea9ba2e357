//! Pseudoterminals, as pipes that any program takes for a terminal.

use std::ffi::{CStr, OsStr};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::{ffi::OsStrExt, fs::OpenOptionsExt};
use std::{io, mem, path::Path, path::PathBuf};

use super::{check, uninterrupted};

/// A new master, and the path of its slave, which ends with it.
pub(crate) fn open() -> io::Result<(OwnedFd, PathBuf)> {
    // Not posix_openpt, which promises nothing about O_NONBLOCK.
    let master = open_terminal(Path::new("/dev/ptmx"))?;
    // SAFETY: a plain system call, which on Linux needs no helper program and thus no handler of SIGCHLD.
    check(unsafe { libc::grantpt(master.as_raw_fd()) })?;
    // SAFETY: a plain system call.
    check(unsafe { libc::unlockpt(master.as_raw_fd()) })?;
    let mut path = [0u8; 64];
    // SAFETY: a buffer and its length.
    match unsafe { libc::ptsname_r(master.as_raw_fd(), path.as_mut_ptr().cast(), path.len()) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((master, OsStr::from_bytes(path.to_bytes()).into()))
}

/// Opens a slave.
pub(crate) fn open_slave(path: &Path) -> io::Result<OwnedFd> {
    open_terminal(path)
}

/// Whether the master of the slave at this path is open.
pub(crate) fn is_alive(path: &Path) -> io::Result<bool> {
    match open_slave(path) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EIO | libc::ENXIO)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether it is a master, whose path in /proc would open a new terminal.
pub(crate) fn is_master(fd: impl AsFd) -> bool {
    let mut number: libc::c_uint = 0;
    // SAFETY: `number` is a valid place for the answer.
    unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGPTN, &mut number) == 0 }
}

/// Neither waits nor makes it the controlling terminal, whose end would be the end of this process.
fn open_terminal(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?.into())
}

/// Lets all bytes pass as they are, both ways and without an echo; either end may be given.
pub(crate) fn set_raw(terminal: impl AsFd) -> io::Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: termios is plain integers, for which zero is a value.
    let mut settings: libc::termios = unsafe { mem::zeroed() };
    // SAFETY: `settings` is a valid place for the answer.
    check(unsafe { libc::tcgetattr(fd, &mut settings) })?;
    // SAFETY: it changes a struct that the call above filled.
    unsafe { libc::cfmakeraw(&mut settings) };
    // SAFETY: `settings` outlives the call.
    uninterrupted(|| check(unsafe { libc::tcsetattr(fd, libc::TCSANOW, &settings) })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use std::fs::File;
    use std::io::{Read, Write};

    /// The kernel hands bytes over in the background, so that they may arrive late.
    fn read_exactly(from: &mut File, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 512];
        while bytes.len() < len {
            match from.read(&mut buffer) {
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                    // SAFETY: one pollfd, which outlives the call.
                    assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1, "{} bytes came", bytes.len());
                }
            }
        }
        bytes
    }

    #[test]
    fn every_byte_passes_unchanged_both_ways() {
        let (master, path) = open().unwrap();
        set_raw(&master).unwrap();
        let slave = open_slave(&path).unwrap();
        let (mut master, mut slave) = (File::from(master), File::from(slave));
        assert_eq!(master.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(slave.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let all: Vec<u8> = (0..=255).collect();
        slave.write_all(&all).unwrap();
        assert_eq!(read_exactly(&mut master, 256), all);
        master.write_all(&all).unwrap();
        assert_eq!(read_exactly(&mut slave, 256), all);
        assert_eq!(master.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "no echo");
        for end in [&master, &slave] {
            // SAFETY: a plain system call.
            assert_eq!(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        }
    }

    #[test]
    fn the_end_of_the_slave_is_an_error_at_the_master() {
        // In a process of its own, lest another test's child inherits the slave.
        let mut process = Child::fork(|_| {
            let (master, path) = open().unwrap();
            drop(open_slave(&path).unwrap());
            let error = File::from(master).read(&mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
        });
        process.expect_success();
    }
}
