//! Payloads that follow from a number: whoever knows the number knows length, tag and every byte.

use std::sync::OnceLock;

/// SplitMix64's finaliser.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Random bytes from which payloads are cut, at a place and of a length that follow from their number.
fn pool() -> &'static [u8] {
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| (0..1 << 17).flat_map(|i| mix(i).to_le_bytes()).collect())
}

/// The payload of message `number`: its number, as far as there is room, and then random bytes.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    number: u64,
    pub len: usize,
}

impl Payload {
    /// With a length from 0 to `longest` that follows from the number; the extremes come often.
    pub fn new(number: u64, longest: usize) -> Self {
        let hash = mix(number);
        let edges = [0, 1, 7, 8, 9, longest.saturating_sub(1), longest, longest];
        let len = match hash % 8 {
            0 => edges[(hash >> 8) as usize % edges.len()].min(longest),
            _ => (hash >> 8) as usize % (longest + 1),
        };
        Self { number, len }
    }

    /// With that length.
    pub fn of_len(number: u64, len: usize) -> Self {
        Self { number, len }
    }

    pub fn tag(self) -> u32 {
        (mix(!self.number) >> 16) as u32
    }

    fn body(self) -> &'static [u8] {
        let pool = pool();
        &pool[mix(self.number ^ 0x5555) as usize % (pool.len() - self.len)..][..self.len]
    }

    /// Writes it into the first bytes of `buffer`.
    pub fn write(self, buffer: &mut [u8]) {
        buffer[..self.len].copy_from_slice(self.body());
        let head = self.len.min(8);
        buffer[..head].copy_from_slice(&self.number.to_le_bytes()[..head]);
    }

    pub fn to_vec(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.write(&mut bytes);
        bytes
    }

    /// Panics unless `bytes` and `tag` are this payload's.
    #[track_caller]
    pub fn check(self, bytes: &[u8], tag: u32) {
        let head = self.len.min(8);
        let same = bytes.len() == self.len
            && bytes[..head] == self.number.to_le_bytes()[..head]
            && bytes[head..] == self.body()[head..];
        if !same {
            let text = bytes.get(..8).map(|n| u64::from_le_bytes(n.try_into().unwrap()));
            panic!(
                "message {} of {} bytes came as {} bytes, beginning with {text:?}",
                self.number,
                self.len,
                bytes.len()
            );
        }
        assert_eq!(tag, self.tag(), "the tag of message {}", self.number);
    }
}

/// The number at the start of a payload of at least 8 bytes.
pub fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
