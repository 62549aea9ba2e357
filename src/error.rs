//! Why a ring could not be set up: one error that says what was tried, on what, what the kernel answered and what to do.
//!
//! Errors of the hot path (`Full`, `Closed`, …) are small enums of their own, beside the operations that return them.

use std::{fmt, io};

/// The machine-readable part of an [`Error`]: match on this, show the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing exists under that name.
    NotFound,
    /// Something exists already and the caller asked for a new one.
    AlreadyExists,
    /// The kernel or the object's mode refuses access.
    PermissionDenied,
    /// What was found is not a ringway segment.
    NotARing,
    /// What was found is a ringway segment that its creator did not finish, or that was damaged.
    Damaged,
    /// The segment was written by a newer, incompatible version.
    NewerVersion,
    /// The segment exists with another geometry, ring kind or wait strategy than was asked for.
    Mismatch,
    /// The ring was found to hold what no correct peer writes, and is of no further use.
    Poisoned,
    /// The role is held by the living process `pid`.
    RoleTaken {
        /// The holder's process id, in its own pid namespace.
        pid: u32,
    },
    /// The role is recorded for the living process `pid`, which lost its proof of life (somebody closed the descriptor).
    Quarantined {
        /// The recorded process id.
        pid: u32,
    },
    /// Memory, file system or a kernel limit is exhausted.
    NoSpace,
    /// The caller's input (a name, a size, an option) can't be used.
    InvalidInput,
    /// This system lacks what the operation needs.
    Unsupported,
    /// Any other answer of the kernel; see [`Error::source`](std::error::Error::source).
    Os,
}

/// A set-up error. Its `Display` is a full sentence for a person.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    tried: String,
    object: String,
    source: Option<io::Error>,
    advice: String,
}

/// The result of set-up operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error about `object` while trying to `tried` ("create the segment"), without an answer from the kernel.
    pub(crate) fn new(kind: ErrorKind, tried: impl Into<String>, object: impl fmt::Display) -> Self {
        Self { kind, tried: tried.into(), object: object.to_string(), source: None, advice: String::new() }
    }

    /// An error that the kernel reported; its kind follows from the errno.
    pub(crate) fn os(source: io::Error, tried: impl Into<String>, object: impl fmt::Display) -> Self {
        let kind = match source.raw_os_error() {
            Some(libc::ENOENT | libc::EIDRM) => ErrorKind::NotFound,
            Some(libc::EEXIST) => ErrorKind::AlreadyExists,
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => ErrorKind::PermissionDenied,
            Some(libc::ENOSPC | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EFBIG | libc::EDQUOT) => {
                ErrorKind::NoSpace
            }
            Some(libc::EINVAL | libc::ENAMETOOLONG | libc::ENOTDIR | libc::EISDIR) => ErrorKind::InvalidInput,
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => ErrorKind::Unsupported,
            _ => ErrorKind::Os,
        };
        let advice = match source.raw_os_error() {
            Some(libc::EMFILE) => "this process has too many files open, see `ulimit -n`",
            Some(libc::ENFILE) => "too many files are open on this machine, see /proc/sys/fs/file-max",
            _ => "",
        };
        Self { source: Some(source), ..Self::new(kind, tried, object) }.advise(advice)
    }

    /// Adds what the reader can do about it.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// The segment was removed after it had been opened.
    pub(crate) fn removed(tried: impl Into<String>, object: impl fmt::Display) -> Self {
        Self::os(io::Error::from_raw_os_error(libc::EIDRM), tried, object)
            .advise("something keeps removing it as soon as it is there")
    }

    /// Whether somebody removed the segment after it had been opened; one that was never there is another matter.
    pub(crate) fn is_removed(&self) -> bool {
        self.source.as_ref().and_then(io::Error::raw_os_error) == Some(libc::EIDRM)
    }

    /// What went wrong, for `match`.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} {}", self.tried, self.object)?;
        match (&self.source, self.kind) {
            (Some(source), _) => write!(f, ": {source}")?,
            (None, ErrorKind::NotFound) => f.write_str(": nothing exists under that name")?,
            (None, ErrorKind::AlreadyExists) => f.write_str(": it exists already")?,
            (None, ErrorKind::PermissionDenied) => f.write_str(": permission denied")?,
            (None, ErrorKind::NotARing) => f.write_str(": it is not a ringway segment")?,
            (None, ErrorKind::Damaged) => f.write_str(": it is a damaged ringway segment")?,
            (None, ErrorKind::NewerVersion) => f.write_str(": it was made by a newer version of ringway")?,
            (None, ErrorKind::Mismatch) => f.write_str(": it exists with other properties")?,
            (None, ErrorKind::Poisoned) => f.write_str(": it is poisoned, it holds what no correct peer writes")?,
            (None, ErrorKind::RoleTaken { pid }) => write!(f, ": the role is held by process {pid}")?,
            (None, ErrorKind::Quarantined { pid }) => {
                write!(f, ": process {pid} is alive but its proof of life was closed under it")?;
            }
            (None, ErrorKind::NoSpace) => f.write_str(": no space left")?,
            (None, ErrorKind::InvalidInput) => f.write_str(": it can't be used as given")?,
            (None, ErrorKind::Unsupported) => f.write_str(": this system does not support it")?,
            (None, ErrorKind::Os) => {}
        }
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
