//! The kinds of rings.

use std::{error, fmt, str::FromStr};

/// The algorithm of a ring. Chosen when the ring is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ring {
    /// One producer, one consumer. The default.
    #[default]
    Spsc,
    /// Many producers, many consumers: each message goes to one consumer, and order holds per producer.
    Mpmc,
}

impl Ring {
    /// Each with its name in addresses and its number in segments.
    const ALL: [(Self, &str, u32); 2] = [(Self::Spsc, "spsc", 1), (Self::Mpmc, "mpmc", 2)];

    pub(super) fn code(self) -> u32 {
        self.entry().2
    }

    pub(super) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().find(|entry| entry.2 == code).map(|entry| entry.0)
    }

    fn entry(self) -> (Self, &'static str, u32) {
        Self::ALL[self as usize]
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.entry().1)
    }
}

impl FromStr for Ring {
    type Err = ParseRingError;

    fn from_str(given: &str) -> Result<Self, ParseRingError> {
        let known = Self::ALL.iter().find(|entry| entry.1 == given);
        known.map(|entry| entry.0).ok_or_else(|| ParseRingError { given: given.to_owned() })
    }
}

/// The text names no kind of ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseRingError {
    given: String,
}

impl fmt::Display for ParseRingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a kind of ring; allowed are spsc and mpmc", self.given)
    }
}

impl error::Error for ParseRingError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back() {
        for ring in [Ring::Spsc, Ring::Mpmc] {
            assert_eq!(ring.to_string().parse(), Ok(ring));
            assert_eq!(Ring::from_code(ring.code()), Some(ring));
        }
        assert_eq!(Ring::from_code(0), None);
        assert!("Spsc".parse::<Ring>().unwrap_err().to_string().contains("spsc and mpmc"));
    }
}
