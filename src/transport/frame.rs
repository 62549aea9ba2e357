//! The header in front of each piece of a message, where the kernel carries it: `docs/framing.md` specifies it.

/// Bytes of a header.
pub(super) const HEADER: usize = 32;
/// The longest message that can be framed, in bytes.
pub(super) const LONGEST: usize = 1 << 30;

const MAGIC: u8 = b'R';
const VERSION: u8 = 1;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message or a part of one.
    Data,
    /// The first frame of a sender. It carries who it is, if the receiver can make use of that.
    Hello,
    /// The last frame of a sender that leaves in good order; or of a receiver, where it can talk back.
    Goodbye,
}

impl Kind {
    /// Of a frame, by its beginning.
    #[inline]
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        match *frame.first_chunk()? {
            [MAGIC, VERSION, 0, 0] => Some(Self::Data),
            [MAGIC, VERSION, 1, 0] => Some(Self::Hello),
            [MAGIC, VERSION, 2, 0] => Some(Self::Goodbye),
            _ => None,
        }
    }

    /// Whether a header may begin with these bytes, which are too few for one.
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        let is_kind = |&kind: &u8| kind <= 2;
        let wanted = [bytes.first() == Some(&MAGIC), bytes.get(1).is_none_or(|&byte| byte == VERSION)];
        wanted == [true; 2] && bytes.get(2).is_none_or(is_kind) && bytes.get(3).is_none_or(|&byte| byte == 0)
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Bytes that follow the header.
    pub(super) length: u32,
    pub(super) tag: u32,
    /// Bytes of the whole message.
    pub(super) total: u32,
    /// Where in the message these bytes belong.
    pub(super) offset: u32,
    /// A number that the sender drew.
    pub(super) source: u32,
    /// How many messages the sender sent before this one.
    pub(super) sequence: u64,
}

/// What came isn't framed as specified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Frame {
    /// A frame that belongs to no message.
    pub(super) fn control(kind: Kind, source: u32, sequence: u64, length: usize) -> Self {
        let length = length as u32;
        Self { kind, length, tag: 0, total: length, offset: 0, source, sequence }
    }

    #[inline]
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::Hello => 1,
            Kind::Goodbye => 2,
        };
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&[MAGIC, VERSION, kind, 0]);
        let words = [self.length, self.tag, self.total, self.offset, self.source];
        for (place, word) in bytes[4..24].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[24..].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    /// Reads a header; `max` bounds what a message may have.
    #[inline]
    pub(super) fn decode(bytes: &[u8; HEADER], max: usize) -> Result<Self, Malformed> {
        let kind = Kind::of(bytes).ok_or(Malformed)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let sequence = u64::from(word(24)) | u64::from(word(28)) << 32;
        let [length, tag, total, offset, source] = [word(4), word(8), word(12), word(16), word(20)];
        let frame = Self { kind, length, tag, total, offset, source, sequence };
        let is_inside = offset.checked_add(length).is_some_and(|end| end <= total);
        // A part without bytes would let a message never end.
        let has_bytes = length > 0 || total == 0;
        let is_sound = match kind {
            Kind::Data => is_inside && has_bytes && total as usize <= max,
            Kind::Hello => offset == 0 && length == total && [0, Identity::BYTES].contains(&(length as usize)),
            Kind::Goodbye => offset == 0 && length == 0 && total == 0,
        };
        if is_sound { Ok(frame) } else { Err(Malformed) }
    }

    /// Whether it carries a whole message.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.length == self.total
    }
}

pub(super) use identity::Identity;

mod identity {
    use crate::sys::process::ProcessId;

    /// Who a sender is, as a hello carries it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Identity(pub(crate) ProcessId);

    impl Identity {
        pub(crate) const BYTES: usize = 40;

        pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
            let Self(process) = self;
            let [low, high] = process.boot_id;
            let words = [low, high, process.pid_namespace, process.pid.into(), process.start_time];
            let mut bytes = [0; Self::BYTES];
            for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            bytes
        }

        /// `None` if the sender doesn't say.
        pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
            let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
            let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            let mut next = || words.next();
            let boot_id = [next()?, next()?];
            let (pid_namespace, pid, start_time) = (next()?, u32::try_from(next()?).ok()?, next()?);
            Some(Self(ProcessId { boot_id, pid_namespace, pid, start_time }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::ProcessId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_was_written(bytes in any::<[u8; HEADER]>(), head in any::<bool>()) {
            let mut bytes = bytes;
            if head {
                let start = [MAGIC, VERSION, bytes[2] % 3, 0];
                bytes[..4].copy_from_slice(&start);
            }
            if let Ok(frame) = Frame::decode(&bytes, LONGEST) {
                prop_assert_eq!(frame.encode(), bytes);
                prop_assert!(frame.offset + frame.length <= frame.total && frame.total as usize <= LONGEST);
            }
        }

        #[test]
        fn what_was_written_is_read(total in 0..=LONGEST as u32, at in any::<u32>(), rest in any::<(u32, u32, u64)>()) {
            let offset = at.checked_rem(total).unwrap_or(0);
            let frame = Frame { kind: Kind::Data, length: total - offset, tag: rest.0, total, offset, source: rest.1, sequence: rest.2 };
            prop_assert_eq!(Frame::decode(&frame.encode(), LONGEST), Ok(frame));
            prop_assert_eq!(Frame::decode(&frame.encode(), (total as usize).saturating_sub(1)).is_ok(), total == 0);
        }
    }

    #[test]
    fn parts_that_cannot_be_are_refused() {
        let sound = Frame { kind: Kind::Data, length: 10, tag: 0, total: 30, offset: 20, source: 1, sequence: 2 };
        assert_eq!(Frame::decode(&sound.encode(), 30), Ok(sound));
        for wrong in [
            Frame { offset: 21, ..sound },
            Frame { offset: u32::MAX, ..sound },
            Frame { length: 0, ..sound },
            Frame { kind: Kind::Hello, ..sound },
            Frame { kind: Kind::Hello, length: 41, total: 41, offset: 0, ..sound },
            Frame { kind: Kind::Goodbye, length: 1, total: 1, offset: 0, ..sound },
        ] {
            assert_eq!(Frame::decode(&wrong.encode(), LONGEST), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn an_identity_reads_back() {
        let identity = Identity(ProcessId::current().unwrap());
        assert_eq!(Identity::decode(&identity.encode()), Some(identity));
        assert_eq!(Identity::decode(b"short"), None);
    }
}
