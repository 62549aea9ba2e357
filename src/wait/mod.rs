//! How an endpoint waits for its peer.

use std::{error, fmt, str::FromStr};

/// What a blocked endpoint does until its peer makes progress; all peers of a ring use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Never sleep: the lowest latency, a whole core, and no cost to the side that publishes.
    Spin,
    /// Spin briefly, then sleep on a futex.
    Futex,
    /// Sleep on a POSIX semaphore in the segment.
    Semaphore,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Futex => "futex",
            Self::Semaphore => "sem",
        })
    }
}

impl FromStr for Wait {
    type Err = ParseWaitError;

    fn from_str(given: &str) -> Result<Self, ParseWaitError> {
        match given {
            "spin" => Ok(Self::Spin),
            "futex" => Ok(Self::Futex),
            "sem" => Ok(Self::Semaphore),
            _ => Err(ParseWaitError { given: given.to_owned() }),
        }
    }
}

/// The text names no way to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseWaitError {
    given: String,
}

impl fmt::Display for ParseWaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a way to wait; allowed are spin, futex and sem", self.given)
    }
}

impl error::Error for ParseWaitError {}
