//! What can come of sending and receiving.

use std::{error, fmt, io};

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// There is no room until the receiver takes something. Only operations that don't block say so.
    Full,
    /// The message can never fit.
    TooLarge {
        /// The longest message, in bytes.
        max: usize,
    },
    /// The time ran out while there was no room.
    Timeout,
    /// The consumer has left since this producer joined. At rings, sending works again if another one joins; where the kernel
    /// carries messages, the sender has to be opened anew.
    Closed,
    /// The consumer died. At rings this is said once for each death, and sending goes on working for a successor; where the kernel
    /// carries messages, the sender has to be opened anew.
    PeerDied,
    /// This endpoint belongs to the process that this one was forked from.
    Fenced,
    /// The ring holds what no correct peer writes; it is of no further use.
    Poisoned,
    /// The transport can't carry this message as it is: with [`Framing::Lines`](crate::Framing::Lines) one that has a newline in
    /// it, with [`Framing::None`](crate::Framing::None) an empty one where that means the end, or a tag that can't be the
    /// mechanism's own type or priority.
    Unfit,
    /// The kernel refused it for another reason.
    Os {
        /// The error's number.
        errno: i32,
    },
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
    /// The producer died, and all that it sent has been received. Said once for each death, or for several at once; receiving goes on working for
    /// a successor.
    PeerDied,
    /// This endpoint belongs to the process that this one was forked from.
    Fenced,
    /// The ring holds what no correct peer writes; it is of no further use.
    Poisoned,
    /// Something came that isn't framed as it should be, or too long. It was dropped, together with the connection it came from,
    /// if it came from one; receiving goes on.
    Malformed,
    /// The kernel refused it for another reason.
    Os {
        /// The error's number.
        errno: i32,
    },
}

const FENCED: &str = "the endpoint belongs to the process that this one was forked from; join the ring anew";
const POISONED: &str = "the ring is poisoned: it holds what no correct peer writes; remove it";

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("there is no room"),
            Self::TooLarge { max } => write!(f, "the message is too large: at most {max} bytes"),
            Self::Timeout => f.write_str("timed out while there was no room"),
            Self::Closed => f.write_str("the consumer has left"),
            Self::PeerDied => f.write_str("the consumer died"),
            Self::Fenced => f.write_str(FENCED),
            Self::Poisoned => f.write_str(POISONED),
            Self::Unfit => f.write_str("the transport can't carry this message as it is"),
            Self::Os { errno } => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no message"),
            Self::Timeout => f.write_str("timed out while there was no message"),
            Self::BufferTooSmall { needed } => write!(f, "the next message needs a buffer of {needed} bytes"),
            Self::Closed => f.write_str("the producer has left, and everything it sent was received"),
            Self::PeerDied => f.write_str("the producer died, and everything it sent was received"),
            Self::Fenced => f.write_str(FENCED),
            Self::Poisoned => f.write_str(POISONED),
            Self::Malformed => {
                f.write_str("something came that isn't framed as it should be, or too long; it was dropped")
            }
            Self::Os { errno } => io::Error::from_raw_os_error(*errno).fmt(f),
        }
    }
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerEvent {
    /// It is there.
    Joined,
    /// It has left in good order.
    Left,
    /// It has died.
    Died,
}

impl error::Error for SendError {}
impl error::Error for RecvError {}
