//! How far a receiver with a name has come: a file beside the log.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::plan::Plan;
use super::record::{self, HEAD};
use crate::error::{ErrorKind, Result};
use crate::sys::{descriptor, file};

/// Bytes of the file: the position, a state, and a check.
const LENGTH: usize = 16;
/// The last receiver left in good order.
const LEFT: u32 = 0;
/// A receiver is there, or was killed.
const HERE: u32 = 1;

/// A receiver's name, held as long as this is.
#[derive(Debug)]
pub(super) struct Position {
    file: File,
    /// The log's number: a position in another log means nothing.
    log: u32,
    at: u64,
}

/// Where the position of a receiver is kept.
pub(super) fn path_of(log: &Path, reader: &str) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(format!(".{reader}.position"));
    path.into()
}

impl Position {
    /// Takes the name; and says whether its last receiver died, so that it may have been handed what comes next.
    pub(super) fn take(plan: &Plan, path: &Path, reader: &str, log: u32) -> Result<(Self, bool)> {
        let path = path_of(path, reader);
        let tried = |what: &str| format!("{what} the position {} of", path.display());
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(file::NO_FOLLOW | file::NO_WAIT).mode(plan.perm());
            match options.clone().create_new(true).open(&path) {
                Ok(created) => file::set_mode(&created, plan.perm()).map(|()| created),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => options.open(&path),
                Err(e) => Err(e),
            }
        };
        let file = open().map_err(|e| plan.failed(&tried("open"), e))?;
        let metadata = file.metadata().map_err(|e| plan.failed(&tried("look at"), e))?;
        plan.check_owner(metadata.uid())?;
        if !metadata.is_file() {
            return Err(plan.refuse(ErrorKind::InvalidInput, format!("{} is no regular file", path.display())));
        }
        if !descriptor::try_flock(file.as_fd()).map_err(|e| plan.failed(&tried("lock"), e))? {
            let pid = descriptor::flock_holder(file.as_fd()).unwrap_or(0);
            let advice = format!("one receiver at a time has the name {reader:?}; choose another one by reader=");
            return Err(plan.refuse(ErrorKind::RoleTaken { pid }, advice));
        }
        let mut bytes = [0; LENGTH];
        record::read_at(&file, &mut bytes, 0).map_err(|e| plan.failed(&tried("read"), e))?;
        // One that is damaged, or of another log: from the start, as twice is better than never.
        let (at, state) = decode(&bytes, log).unwrap_or((HEAD as u64, LEFT));
        let mut position = Self { file, log, at };
        position.write(HERE).map_err(|e| plan.failed(&tried("write"), e))?;
        Ok((position, state == HERE))
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// All before `at` has been received.
    pub(super) fn advance(&mut self, at: u64) -> io::Result<()> {
        if at == self.at {
            return Ok(());
        }
        self.at = at;
        self.write(HERE)
    }

    /// Gives the name up in good order.
    pub(super) fn leave(&mut self) {
        // If it can't be written, messages count as delivered before: that is the safe side.
        let _ = self.write(LEFT);
        descriptor::unflock(self.file.as_fd());
    }

    fn write(&mut self, state: u32) -> io::Result<()> {
        match record::write_at(&self.file, &encode(self.at, state, self.log), 0)? {
            LENGTH => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
}

fn encode(at: u64, state: u32, log: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    bytes[8..12].copy_from_slice(&state.to_le_bytes());
    let check = check(&bytes, log);
    bytes[12..].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH], log: u32) -> Option<(u64, u32)> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let at = u64::from(word(0)) | u64::from(word(4)) << 32;
    (check(bytes, log) == word(12) && at >= HEAD as u64).then_some((at, word(8)))
}

/// Of position and state, and of the log that they belong to.
fn check(bytes: &[u8; LENGTH], log: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&log.to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_belongs_to_its_log() {
        let bytes = encode(1 << 40, HERE, 7);
        assert_eq!(decode(&bytes, 7), Some((1 << 40, HERE)));
        assert_eq!(decode(&bytes, 8), None);
        assert_eq!(decode(&[0; LENGTH], 0), None);
        for byte in 0..LENGTH {
            let mut wrong = bytes;
            wrong[byte] ^= 4;
            assert_eq!(decode(&wrong, 7), None);
        }
    }
}
