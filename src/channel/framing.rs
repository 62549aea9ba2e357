//! How messages are told apart on what isn't a ring.

use std::{error, fmt, str::FromStr};

/// How messages are told apart on transports other than rings; both ends must agree.
///
/// ```
/// use ringway::Framing;
/// assert_eq!("lines".parse(), Ok(Framing::Lines));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// Each piece carries a header (`docs/framing.md`): messages of any length, tags, sequences, and the difference between
    /// a sender that has left and one that died. Both ends are ringway. The default.
    #[default]
    Frames,
    /// A message is what the mechanism takes at once: for queues, datagrams and seqpacket sockets whose other end knows nothing of
    /// ringway.
    None,
    /// A message is a line and ends with a newline, which isn't part of it: for pipes, terminals and stream sockets whose
    /// other end knows nothing of ringway.
    Lines,
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Frames => "frames",
            Self::None => "none",
            Self::Lines => "lines",
        })
    }
}

/// The text is no framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFramingError {
    given: String,
}

impl fmt::Display for ParseFramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no framing; allowed are frames, none and lines", self.given)
    }
}

impl error::Error for ParseFramingError {}

impl FromStr for Framing {
    type Err = ParseFramingError;

    fn from_str(given: &str) -> Result<Self, ParseFramingError> {
        match given {
            "frames" => Ok(Self::Frames),
            "none" => Ok(Self::None),
            "lines" => Ok(Self::Lines),
            _ => Err(ParseFramingError { given: given.to_owned() }),
        }
    }
}
