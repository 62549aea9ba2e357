//! Headers as words, and bytes as words.

use crate::transport::frame::Identity;

/// The longest message that a header can announce, in bytes.
pub(super) const LONGEST: usize = (1 << 28) - 1;
/// Words of a hello: its header and an identity.
pub(super) const HELLO: usize = 1 + Identity::BYTES / 8;

/// The tag of a hello.
const MAGIC: u32 = u32::from_be_bytes(*b"RWS1");

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Message { length: u32, tag: u32 },
    Hello,
    Goodbye,
}

impl Header {
    pub(super) fn encode(self) -> u64 {
        let (kind, length, tag) = match self {
            Self::Message { length, tag } => (1, length, tag),
            Self::Hello => (2, Identity::BYTES as u32, MAGIC),
            Self::Goodbye => (3, 0, 0),
        };
        kind << 60 | u64::from(length) << 32 | u64::from(tag)
    }

    /// None if no header is like that.
    pub(super) fn decode(word: u64) -> Option<Self> {
        let length = (word >> 32) as u32 & LONGEST as u32;
        let header = match word >> 60 {
            1 => Self::Message { length, tag: word as u32 },
            2 => Self::Hello,
            3 => Self::Goodbye,
            _ => return None,
        };
        (header.encode() == word).then_some(header)
    }
}

/// Adds bytes, eight to a word.
pub(super) fn push(words: &mut Vec<u64>, bytes: &[u8]) {
    let (chunks, rest) = bytes.as_chunks();
    words.extend(chunks.iter().map(|&chunk| u64::from_le_bytes(chunk)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_word_is_refused_or_reads_back(word: u64) {
            if let Some(header) = Header::decode(word) {
                prop_assert_eq!(header.encode(), word);
            }
        }

        #[test]
        fn any_message_is_announced(length in 0..=LONGEST as u32, tag: u32) {
            let header = Header::Message { length, tag };
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
        }
    }

    #[test]
    fn headers_are_as_specified() {
        assert_eq!(Header::Message { length: 0x123_4567, tag: 0x89ab_cdef }.encode(), 0x1123_4567_89ab_cdef);
        assert_eq!(Header::Hello.encode(), 0x2000_0028_5257_5331);
        assert_eq!(Header::Goodbye.encode(), 0x3000_0000_0000_0000);
        for word in [0, 0x2000_0028_0000_0000, 0x2000_0029_5257_5331, 0x3000_0000_0000_0001, 0x4000_0000_0000_0000] {
            assert_eq!(Header::decode(word), None, "{word:#x}");
        }
    }

    #[test]
    fn bytes_fill_words() {
        let mut words = Vec::new();
        push(&mut words, b"");
        assert_eq!(words, []);
        push(&mut words, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(words, [0x0807_0605_0403_0201, 9]);
    }
}
