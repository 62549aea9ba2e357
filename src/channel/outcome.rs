//! What can come of sending and receiving.

use std::{error, fmt};

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The ring has no room until the consumer gives some back. Only operations that don't block say so.
    Full,
    /// The message can never fit.
    TooLarge {
        /// The longest message of this ring, in bytes.
        max: usize,
    },
    /// The time ran out while the ring was full.
    Timeout,
    /// The consumer has left since this producer joined. If another one joins, sending works again.
    Closed,
    /// The consumer died. Said once for each death; sending goes on working for a successor.
    PeerDied,
    /// This endpoint belongs to the process that this one was forked from.
    Fenced,
    /// The ring holds what no correct peer writes; it is of no further use.
    Poisoned,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// There is no message now. Only operations that don't block say so.
    Empty,
    /// The time ran out while there was no message.
    Timeout,
    /// The message is longer than the buffer; it stays the next one.
    BufferTooSmall {
        /// Its length, in bytes.
        needed: usize,
    },
    /// The producer has left, and all that it sent has been received. If another one joins, receiving works again.
    Closed,
    /// The producer died, and all that it sent has been received. Said once for each death; receiving goes on working for
    /// a successor.
    PeerDied,
    /// This endpoint belongs to the process that this one was forked from.
    Fenced,
    /// The ring holds what no correct peer writes; it is of no further use.
    Poisoned,
}

const FENCED: &str = "the endpoint belongs to the process that this one was forked from; join the ring anew";
const POISONED: &str = "the ring is poisoned: it holds what no correct peer writes; remove it";

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::TooLarge { max } => write!(f, "the message is too large: this ring takes at most {max} bytes"),
            Self::Timeout => f.write_str("timed out while the ring was full"),
            Self::Closed => f.write_str("the consumer has left"),
            Self::PeerDied => f.write_str("the consumer died"),
            Self::Fenced => f.write_str(FENCED),
            Self::Poisoned => f.write_str(POISONED),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the ring is empty"),
            Self::Timeout => f.write_str("timed out while the ring was empty"),
            Self::BufferTooSmall { needed } => write!(f, "the next message needs a buffer of {needed} bytes"),
            Self::Closed => f.write_str("the producer has left, and everything it sent was received"),
            Self::PeerDied => f.write_str("the producer died, and everything it sent was received"),
            Self::Fenced => f.write_str(FENCED),
            Self::Poisoned => f.write_str(POISONED),
        }
    }
}

impl error::Error for SendError {}
impl error::Error for RecvError {}
