//! The wait strategy, as both sides of a ring agree on it through the layout.

use std::{error, fmt, str::FromStr};

use crate::segment::ObjectKind;

/// How the two sides of a ring wait for each other. Chosen when the ring is created; both sides follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Never sleep: the lowest latency, a whole core for each waiter, and no cost to the side that publishes.
    Spin,
    /// Spin briefly, then sleep on a futex. The default.
    #[default]
    Futex,
    /// Spin briefly, then sleep on a POSIX semaphore in the segment, which has glibc's layout. Whatever a peer writes into it costs no
    /// more than sleep or looks for nothing.
    Semaphore,
    /// Spin briefly, then sleep on a POSIX semaphore with a name, `/ringway.ID.MEMBER`. Only of rings that have a name themselves.
    NamedSemaphore,
    /// Spin briefly, then sleep on a System V semaphore, of a set that all share. Only of rings that have a name.
    SystemVSemaphore,
    /// Spin briefly, then sleep in `poll` on an eventfd. Only of rings without a name: those of one process and its children, and those
    /// that are handed over as a memfd, and the eventfds with them.
    Eventfd,
    /// Spin briefly, then sleep in `poll` on a FIFO, `/dev/shm/ringway.ID.MEMBER`. Only of rings that have a name.
    Fifo,
}

impl Wait {
    /// Each with its name in addresses and its number in segments.
    const ALL: [(Self, &str, u32); 7] = [
        (Self::Spin, "spin", 0),
        (Self::Futex, "futex", 1),
        (Self::Semaphore, "sem", 2),
        (Self::NamedSemaphore, "named-sem", ObjectKind::NamedSemaphores as u32),
        (Self::SystemVSemaphore, "sysv-sem", ObjectKind::SemaphoreSet as u32),
        (Self::Eventfd, "eventfd", 5),
        (Self::Fifo, "fifo", ObjectKind::Fifos as u32),
    ];

    /// What named objects a ring has on which its members sleep; none of the other strategies.
    pub(crate) fn objects(self) -> Option<ObjectKind> {
        match self {
            Self::NamedSemaphore => Some(ObjectKind::NamedSemaphores),
            Self::SystemVSemaphore => Some(ObjectKind::SemaphoreSet),
            Self::Fifo => Some(ObjectKind::Fifos),
            Self::Spin | Self::Futex | Self::Semaphore | Self::Eventfd => None,
        }
    }

    /// Whether a ring can use it that has a name, or has none.
    pub(crate) fn goes_with(self, is_named: bool) -> bool {
        match self {
            Self::Spin | Self::Futex | Self::Semaphore => true,
            Self::NamedSemaphore | Self::SystemVSemaphore | Self::Fifo => is_named,
            Self::Eventfd => !is_named,
        }
    }

    /// The names of those that such a ring can use.
    pub(crate) fn names(is_named: bool) -> String {
        let fitting = Self::ALL.iter().filter(|entry| entry.0.goes_with(is_named));
        fitting.map(|entry| entry.1).collect::<Vec<_>>().join(", ")
    }

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

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.entry().1)
    }
}

impl FromStr for Wait {
    type Err = ParseWaitError;

    fn from_str(given: &str) -> Result<Self, ParseWaitError> {
        let known = Self::ALL.iter().find(|entry| entry.1 == given);
        known.map(|entry| entry.0).ok_or_else(|| ParseWaitError { given: given.to_owned() })
    }
}

/// The text names no way to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseWaitError {
    given: String,
}

impl fmt::Display for ParseWaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Wait::ALL.map(|entry| entry.1).join(", ");
        write!(f, "{:?} is not a way to wait; allowed are {names}", self.given)
    }
}

impl error::Error for ParseWaitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back() {
        for (wait, name, code) in Wait::ALL {
            assert_eq!((name.parse(), Wait::from_code(code)), (Ok(wait), Some(wait)));
            assert_eq!((wait.to_string().as_str(), wait.code()), (name, code));
        }
        assert_eq!(Wait::from_code(7), None);
        assert!("poll".parse::<Wait>().is_err());
    }
}
