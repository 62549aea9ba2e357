//! The header word of a record, and the arithmetic of its extent.
//!
//! ```text
//! 63            32 31             2   1     0
//! [  user tag     |  length: 30   | pad | valid ]
//! ```
//! A word whose bit 0 is clear is no record. A pad fills the end of a lap; its other bits are zero.

/// Bytes of a header word, and the alignment of every record.
pub(super) const HEADER: u64 = 8;
/// The smallest ring, in bytes.
pub const MIN_CAPACITY: u64 = 4096;
/// The largest ring, in bytes: lengths have 30 bits.
pub const MAX_CAPACITY: u64 = 1 << 31;
/// The largest length that a header can hold, in bytes.
const MAX_LENGTH: u64 = (1 << 30) - 1;

const VALID: u64 = 1;
const PAD: u64 = 2;
const LENGTH_SHIFT: u32 = 2;
const TAG_SHIFT: u32 = 32;

/// The largest message of a ring of `capacity` bytes. Even behind the largest pad it fits into the empty ring, together
/// with the word that ends it.
pub const fn largest_message(capacity: u64) -> u64 {
    capacity / 2 - 2 * HEADER
}

/// From a record's header to the next one, in bytes.
pub(super) const fn stride(length: u64) -> u64 {
    HEADER + ((length + 7) & !7)
}

/// A header word, read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header(u64);

impl Header {
    /// Ends what has been published: never valid.
    pub(super) const END: u64 = 0;
    /// Fills the rest of a lap.
    pub(super) const PADDING: u64 = VALID | PAD;

    pub(super) const fn message(length: u64, tag: u32) -> u64 {
        (tag as u64) << TAG_SHIFT | length << LENGTH_SHIFT | VALID
    }

    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// All but the tag.
    pub(super) const fn low(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    pub(super) const fn is_pad(self) -> bool {
        self.0 & PAD != 0
    }

    pub(super) const fn length(self) -> u64 {
        (self.0 as u32 >> LENGTH_SHIFT) as u64
    }

    pub(super) const fn tag(self) -> u32 {
        (self.0 >> TAG_SHIFT) as u32
    }
}

static_assertions::const_assert!(largest_message(MAX_CAPACITY) <= MAX_LENGTH);
static_assertions::const_assert!(MAX_LENGTH << LENGTH_SHIFT < 1 << TAG_SHIFT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_holds_its_extremes() {
        for (length, tag) in [(0, 0), (1, 1), (MAX_LENGTH, u32::MAX)] {
            let header = Header::from_word(Header::message(length, tag));
            assert!(header.is_valid() && !header.is_pad());
            assert_eq!((header.length(), header.tag()), (length, tag));
        }
        assert!(!Header::from_word(Header::END).is_valid());
        assert!(Header::from_word(Header::PADDING).is_pad());
    }

    #[test]
    fn the_largest_message_fits_behind_the_largest_pad() {
        for capacity in [MIN_CAPACITY, 65536, MAX_CAPACITY] {
            let stride = stride(largest_message(capacity));
            let largest_pad = stride - HEADER;
            assert!(largest_pad + stride + HEADER <= capacity);
        }
    }
}
