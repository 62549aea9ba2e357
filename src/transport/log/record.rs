//! What a log consists of: its head, and records of which each can be judged by itself.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::feed::READ;
use super::super::frame::{Frame, HEADER, LONGEST};
use crate::sys::record_lock;

/// Bytes of the head.
pub(super) const HEAD: usize = 16;
/// Bytes behind a payload.
pub(super) const CHECK: usize = 4;

const MAGIC: &[u8; 7] = b"ringlog";
const VERSION: u8 = 1;
/// What each record begins with.
const RECORD_MAGIC: &[u8; 2] = b"R\x01";

/// The beginning of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// What all of its writers lock.
    pub(super) lock: record_lock::Kind,
    /// A random number, by which a position knows its log.
    pub(super) id: u32,
}

/// Why a file has no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// It is empty, or whoever was to write the head did not come far.
    Unfinished,
    Foreign,
    NewerVersion,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..7].copy_from_slice(MAGIC);
        bytes[7] = VERSION;
        bytes[8] = match self.lock {
            record_lock::Kind::Flock => 0,
            record_lock::Kind::Fcntl => 1,
            record_lock::Kind::Ofd => 2,
        };
        bytes[12..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    pub(super) fn read(file: &File) -> io::Result<Result<Self, NoHead>> {
        let mut bytes = [0; HEAD];
        let length = read_at(file, &mut bytes, 0)?;
        Ok(Self::decode(&bytes[..length]))
    }

    fn decode(bytes: &[u8]) -> Result<Self, NoHead> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(NoHead::Foreign);
        }
        let bytes: &[u8; HEAD] = bytes.try_into().map_err(|_| NoHead::Unfinished)?;
        let lock = match bytes[7..12] {
            [VERSION, 0, 0, 0, 0] => record_lock::Kind::Flock,
            [VERSION, 1, 0, 0, 0] => record_lock::Kind::Fcntl,
            [VERSION, 2, 0, 0, 0] => record_lock::Kind::Ofd,
            [version, ..] if version > VERSION => return Err(NoHead::NewerVersion),
            _ => return Err(NoHead::Foreign),
        };
        let id = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        Ok(Self { lock, id })
    }
}

/// Adds a record of the log with the number `log` to `bytes`.
pub(super) fn stage(bytes: &mut Vec<u8>, log: u32, frame: &Frame, payload: &[u8]) {
    let start = bytes.len();
    bytes.extend_from_slice(&frame.encode());
    bytes.extend_from_slice(payload);
    let check = check(log, &bytes[start..]);
    bytes.extend_from_slice(&check);
}

/// What stands behind a header and payload. A payload that is a piece of another log thus holds no record of this one.
#[inline]
fn check(log: u32, bytes: &[u8]) -> [u8; CHECK] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    finish(hasher, log)
}

#[inline]
fn finish(mut hasher: crc32fast::Hasher, log: u32) -> [u8; CHECK] {
    hasher.update(&log.to_le_bytes());
    hasher.finalize().to_le_bytes()
}

/// What is found where a record should begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole one, which ends there. Its payload is in the window, unless it is longer than what is held.
    Record { frame: Frame, payload: Option<Range<usize>>, end: u64 },
    /// Nothing, or a beginning.
    Unfinished,
    /// A record whose bytes are all there and wrong, and behind it, as it seems, the next one.
    Damaged { end: u64 },
    /// No record, and nothing says where the next one is.
    Ruined,
}

/// A part of the file, as it was last read.
#[derive(Debug)]
pub(super) struct Window {
    bytes: Vec<u8>,
    base: u64,
    length: usize,
    /// The longest payload that is held in memory; longer ones are only checked.
    hold: usize,
    /// The number of the log.
    log: u32,
}

impl Window {
    pub(super) fn new(hold: usize, log: u32) -> Self {
        Self { bytes: vec![0; READ], base: 0, length: 0, hold, log }
    }

    pub(super) fn payload(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// What begins `at`. Of what was read before only valid records count: anything else may have changed since, and is read
    /// again.
    #[inline]
    pub(super) fn next(&mut self, file: &File, at: u64) -> io::Result<Found> {
        if let Some(found) = self.held(at) {
            return Ok(found);
        }
        self.read(file, at, 0)?;
        match self.held(at) {
            Some(found) => Ok(found),
            None => self.judge(file, at),
        }
    }

    /// Forgets everything, so that all is read anew.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Reads the file from `at` on: at least `least` bytes, if it has them.
    fn read(&mut self, file: &File, at: u64, least: usize) -> io::Result<()> {
        let most = least.max(READ);
        if self.bytes.len() < most {
            self.bytes.resize(most, 0);
        }
        (self.base, self.length) = (at, 0);
        while self.length < least.max(1) {
            match file.read_at(&mut self.bytes[self.length..most], at + self.length as u64) {
                Ok(0) => break,
                Ok(read) => self.length += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The frame that begins `at`, and where it does in the window.
    #[inline]
    fn header(&self, at: u64) -> Option<(usize, Option<Frame>)> {
        let start = usize::try_from(at.checked_sub(self.base)?).ok()?;
        let header = self.bytes[..self.length].get(start..)?.first_chunk::<HEADER>()?;
        Some((start, Frame::decode(header, LONGEST).ok().filter(Frame::is_whole)))
    }

    /// The record that begins `at`, if all of it is in the window and valid.
    #[inline]
    fn held(&self, at: u64) -> Option<Found> {
        let (start, frame) = self.header(at)?;
        let frame = frame?;
        let payload = start + HEADER..start + HEADER + frame.length as usize;
        let end = payload.end + CHECK;
        let there = self.bytes[..self.length].get(payload.end..end)?;
        if check(self.log, &self.bytes[start..payload.end]) != *there {
            return None;
        }
        let payload = Some(payload).filter(|payload| payload.len() <= self.hold);
        Some(Found::Record { frame, payload, end: self.base + end as u64 })
    }

    /// [`Window::held`] did not find it in what was just read from `at`.
    #[cold]
    fn judge(&mut self, file: &File, at: u64) -> io::Result<Found> {
        let Some((_, frame)) = self.header(at) else { return Ok(Found::Unfinished) };
        let Some(frame) = frame else { return Ok(Found::Ruined) };
        let length = frame.length as usize;
        let end = at + (HEADER + length + CHECK) as u64;
        // Before memory is taken for what the header only claims.
        let size = file.metadata()?.len();
        if size < end {
            return Ok(Found::Unfinished);
        }
        let is_valid = if length <= self.hold {
            self.read(file, at, HEADER + length + CHECK)?;
            if let Some(found) = self.held(at) {
                return Ok(found);
            }
            false
        } else {
            is_valid(file, self.log, at, HEADER + length)?
        };
        if is_valid {
            return Ok(Found::Record { frame, payload: None, end });
        }
        let mut behind = [0; RECORD_MAGIC.len()];
        let length = read_at(file, &mut behind, end)?;
        let continues = behind[..length] == RECORD_MAGIC[..length];
        Ok(if continues { Found::Damaged { end } } else { Found::Ruined })
    }
}

/// Whether the check behind `length` bytes is theirs, however many they are.
fn is_valid(file: &File, log: u32, at: u64, length: usize) -> io::Result<bool> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; length.min(READ)];
    let mut done = 0;
    while done < length {
        let part = buffer.len().min(length - done);
        let read = read_at(file, &mut buffer[..part], at + done as u64)?;
        hasher.update(&buffer[..read]);
        done += read;
        if read < part {
            return Ok(false);
        }
    }
    let mut check = [0; CHECK];
    let read = read_at(file, &mut check, at + done as u64)?;
    Ok(read == CHECK && check == finish(hasher, log))
}

/// How often the bytes of a tail are checked at most, each of which may belong to several records that could be there.
const CHECKS: u64 = 16;

/// Whether what begins `at` and seems to be torn hides records before `size`, the end of the file: then its header is wrong, and
/// it is damage. Takes a time that grows with the tail's length only: if it holds more that could be records than anybody writes,
/// that counts as records.
pub(super) fn hides_records(file: &File, log: u32, at: u64, size: u64) -> io::Result<bool> {
    let mut left = CHECKS * size.saturating_sub(at);
    let mut base = at + 1;
    let mut buffer = vec![0; READ];
    loop {
        let read = read_at(file, &mut buffer, base)?;
        let headers = buffer[..read].windows(HEADER).enumerate().filter(|(_, header)| header.starts_with(RECORD_MAGIC));
        for (offset, header) in headers {
            let Some(frame) = header.first_chunk().and_then(|header| Frame::decode(header, LONGEST).ok()) else {
                continue;
            };
            let (at, length) = (base + offset as u64, HEADER + frame.length as usize);
            if !frame.is_whole() || size < at + (length + CHECK) as u64 {
                continue;
            }
            if left < length as u64 || is_valid(file, log, at, length)? {
                return Ok(true);
            }
            left -= length as u64;
        }
        if read < READ {
            return Ok(false);
        }
        base += (READ - HEADER + 1) as u64;
    }
}

/// Fills the buffer as far as the file goes.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// One write at a place, repeated only if a signal came before anything was written.
pub(super) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    loop {
        match file.write_at(bytes, at) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::frame::Kind;
    use super::*;
    use crate::sys::memfd;
    use proptest::prelude::*;

    const LOG: u32 = 77;

    fn frame(length: usize, sequence: u64) -> Frame {
        let length = length as u32;
        Frame { kind: Kind::Data, length, tag: 3, total: length, offset: 0, source: 9, sequence }
    }

    fn record(payload: &[u8], sequence: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        stage(&mut bytes, LOG, &frame(payload.len(), sequence), payload);
        bytes
    }

    /// A file of those bytes.
    fn file_of(bytes: &[u8]) -> File {
        let file = crate::sys::file::create_unnamed(&std::env::temp_dir(), 0o600).unwrap();
        assert_eq!(write_at(&file, bytes, 0).unwrap(), bytes.len());
        file
    }

    fn found_in(bytes: &[u8]) -> Found {
        Window::new(1 << 20, LOG).next(&file_of(bytes), 0).unwrap()
    }

    #[test]
    fn a_head_reads_back() {
        for lock in [record_lock::Kind::Flock, record_lock::Kind::Fcntl, record_lock::Kind::Ofd] {
            let head = Head { lock, id: 0x1234_5678 };
            let bytes = head.encode();
            assert_eq!(Head::decode(&bytes), Ok(head));
            for length in 0..HEAD {
                assert_eq!(Head::decode(&bytes[..length]), Err(NoHead::Unfinished));
            }
        }
        assert_eq!(Head::decode(b"#!/bin/sh\nexit 0\n"), Err(NoHead::Foreign));
        assert_eq!(Head::decode(b"ringlog\x02\0\0\0\0\0\0\0\0"), Err(NoHead::NewerVersion));
        assert_eq!(Head::decode(b"ringlog\x01\x03\0\0\0\0\0\0\0"), Err(NoHead::Foreign));
        let sealed = memfd::create("head", 4096, 0o600).unwrap();
        assert_eq!(Head::read(&sealed).unwrap(), Err(NoHead::Foreign), "zeros");
    }

    #[test]
    fn each_part_of_a_record_is_unfinished() {
        for length in [0, 1, 40, 200_000] {
            let whole = record(&vec![7; length], 1);
            for part in [0, 1, HEADER - 1, HEADER, HEADER + length / 2, whole.len() - 1] {
                assert_eq!(found_in(&whole[..part]), Found::Unfinished, "{part} of {}", whole.len());
            }
            assert!(matches!(found_in(&whole), Found::Record { end, .. } if end == whole.len() as u64));
        }
    }

    #[test]
    fn a_long_record_is_checked_without_being_held() {
        let mut whole = record(&vec![7; 200_000], 1);
        let next = |bytes: &[u8]| Window::new(1000, LOG).next(&file_of(bytes), 0).unwrap();
        assert!(matches!(next(&whole), Found::Record { payload: None, .. }));
        whole[100_000] ^= 1;
        assert_eq!(next(&whole), Found::Damaged { end: whole.len() as u64 });
    }

    #[test]
    fn damage_of_one_record_leaves_the_next_one() {
        let (mut first, second) = (record(b"first", 1), record(b"second", 2));
        first[HEADER] ^= 1;
        let end = first.len() as u64;
        for behind in [&second[..], &second[..1], &[]] {
            assert_eq!(found_in(&[&first, behind].concat()), Found::Damaged { end });
        }
        assert_eq!(found_in(&[&first[..], b"else"].concat()), Found::Ruined);
        first[0] ^= 1;
        assert_eq!(found_in(&[first, second].concat()), Found::Ruined);
        assert_eq!(found_in(&[0; 64]), Found::Ruined);
    }

    #[test]
    fn a_tail_hides_records_of_its_own_log_only() {
        let hides = |bytes: &[u8], log| hides_records(&file_of(bytes), log, 0, bytes.len() as u64).unwrap();
        let torn = record(&[7; 100_000], 1);
        let torn = &torn[..torn.len() - 1];
        assert!(!hides(torn, LOG) && !hides(&torn[..1], LOG) && !hides(&[], LOG));
        // Also where it lies across what is read at once.
        for before in [1, 40, 1000, READ - HEADER, READ - 1, READ, READ + 1, 2 * READ] {
            for payload in [&b""[..], b"hidden", &[9; 100_000]] {
                let tail = [&vec![b'R'; before], &record(payload, 2)[..], b"R\x01"].concat();
                assert!(hides(&tail, LOG), "{before}");
                assert!(!hides(&tail, LOG + 1), "{before}");
                assert!(!hides(&tail[..tail.len() - 3], LOG), "{before}: its last byte is missing");
            }
        }
    }

    #[test]
    fn a_tail_that_looks_like_many_records_is_judged_soon() {
        // Each header could be that of a record that reaches to the end.
        let count = 20_000;
        let headers = (0..count).rev().flat_map(|behind| frame(behind * HEADER, 0).encode());
        let tail: Vec<u8> = headers.chain([0; HEADER + CHECK]).collect();
        assert!(hides_records(&file_of(&tail), LOG, 0, tail.len() as u64).unwrap());
    }

    #[test]
    fn what_was_torn_is_read_again() {
        let (torn, whole) = (record(b"torn", 1), record(b"whole one", 2));
        let file = file_of(&torn[..torn.len() - 1]);
        let mut window = Window::new(100, LOG);
        assert_eq!(window.next(&file, 0).unwrap(), Found::Unfinished);
        file.set_len(0).unwrap();
        write_at(&file, &whole, 0).unwrap();
        let Found::Record { frame, payload: Some(payload), .. } = window.next(&file, 0).unwrap() else { panic!() };
        assert_eq!((frame.sequence, window.payload(&payload)), (2, &b"whole one"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            let start = if head { record(b"", 1)[..HEADER].to_vec() } else { Vec::new() };
            let bytes = [start, bytes].concat();
            let is_beyond = matches!(found_in(&bytes), Found::Record { end, .. } if end > bytes.len() as u64);
            prop_assert!(!is_beyond);
        }
    }
}
