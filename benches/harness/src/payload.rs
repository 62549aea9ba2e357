//! Messages that are written in full, read in full, and can't be mistaken for one another.

use std::{mem::MaybeUninit, ptr};

/// Writes message number `sequence` in place and returns the sum of its words.
#[inline(always)]
pub fn write<const N: usize>(message: &mut MaybeUninit<[u8; N]>, sequence: u64) -> u64 {
    const { assert!(N.is_multiple_of(8)) };
    let first = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = message.as_mut_ptr().cast::<u64>();
    let words = (N / 8) as u64;
    for i in 0..words {
        // SAFETY: i < N / 8, so the word lies within the message, and the store needs no alignment.
        unsafe { start.add(i as usize).write_unaligned(first.wrapping_add(i)) };
    }
    words.wrapping_mul(first).wrapping_add(words * (words - 1) / 2)
}

/// Reads every byte of a message and returns the sum of its words.
#[inline(always)]
pub fn read<const N: usize>(message: &[u8; N]) -> u64 {
    let start = ptr::from_ref(message).cast::<u64>();
    // SAFETY: i < N / 8, so the word lies within the message, and the load needs no alignment.
    (0..N / 8).fold(0, |sum, i| u64::wrapping_add(sum, unsafe { start.add(i).read_unaligned() }))
}

/// What a side has sent or received, folded so that order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Adds the sum of the next message.
    #[inline(always)]
    pub fn add(&mut self, sum: u64) {
        self.0 = self.0.rotate_left(5).wrapping_add(sum);
    }
}

/// What several sides have sent or received, folded so that order does not count, but which words were in one message does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(u64);

impl Tally {
    #[inline(always)]
    pub(crate) fn add(&mut self, sum: u64) {
        // Not linear: else halves that two messages have swapped would cancel out.
        self.0 = self.0.wrapping_add((sum ^ (sum >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93));
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64) -> ([u8; 64], u64) {
        let mut message = MaybeUninit::uninit();
        let sum = write(&mut message, sequence);
        // SAFETY: `write` has written all of it.
        (unsafe { message.assume_init() }, sum)
    }

    #[test]
    fn the_reader_finds_the_writers_sum() {
        for sequence in [0, 1, 7, u64::MAX] {
            let (message, sum) = message(sequence);
            assert_eq!(read(&message), sum);
        }
    }

    #[test]
    fn every_byte_counts() {
        let (message, sum) = message(3);
        for i in 0..64 {
            let mut damaged = message;
            damaged[i] ^= 1;
            assert_ne!(read(&damaged), sum, "byte {i}");
        }
    }

    #[test]
    fn order_counts() {
        let fold = |order: [u64; 3]| {
            let mut digest = Digest::default();
            order.into_iter().for_each(|sequence| digest.add(message(sequence).1));
            digest
        };
        assert_ne!(fold([1, 2, 3]), fold([1, 3, 2]));
    }

    fn tally(sums: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::default();
        sums.into_iter().for_each(|sum| tally.add(sum));
        tally
    }

    #[test]
    fn order_and_sides_do_not_count_in_a_tally() {
        let [a, b, c] = [1, 2, 3].map(|sequence| message(sequence).1);
        assert_eq!(tally([a, b, c]), tally([c, a]).join(tally([b])));
        assert_ne!(tally([a, b, c]), tally([a, b]));
        assert_ne!(tally([a, b, c]), tally([a, b, b]));
        assert_ne!(tally([a, b]), tally([a, b, b]));
    }

    #[test]
    fn mixed_messages_count_in_a_tally() {
        let ((a, of_a), (b, of_b)) = (message(1), message(2));
        let mix = |first: [u8; 64], mut second: [u8; 64]| {
            second[..32].copy_from_slice(&first[..32]);
            read(&second)
        };
        assert_ne!(tally([of_a, of_b]), tally([mix(a, b), mix(b, a)]));
    }
}
