//! How commands fail: one line on standard error, and the exit code that belongs to it.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use ringway::ErrorKind;

use crate::signals::Caught;

/// Why a command did not do what it was asked to. The codes are part of the interface: see `docs/cli.md`.
#[derive(Debug)]
pub enum Failure {
    /// Input or output went wrong, or messages could not be delivered.
    Io(String),
    /// It was not asked rightly, or what it was asked for isn't there or can't be had.
    Usage(String),
    /// The other side died.
    PeerDied(String),
    /// `--timeout` passed.
    Timeout(String),
    /// The ring holds what no correct peer writes.
    Poisoned(String),
    /// A signal ended it, and whoever sent it knows why.
    Signal(Caught),
}

impl Failure {
    /// A failure of the input or output called `what`; or the signal that interrupted it.
    pub fn of_io(what: &str, error: &io::Error) -> Self {
        match Caught::now() {
            Some(signal) if error.kind() == io::ErrorKind::Interrupted => Self::Signal(signal),
            _ => Self::Io(format!("could not {what}: {error}")),
        }
    }

    /// Tells the user, and the shell.
    pub fn report(self) -> ExitCode {
        let (code, message) = match self {
            Self::Io(message) => (1, message),
            Self::Usage(message) => (2, message),
            Self::PeerDied(message) => (3, message),
            Self::Timeout(message) => (4, message),
            Self::Poisoned(message) => (5, message),
            Self::Signal(signal) => return ExitCode::from(signal.exit_code()),
        };
        warn(message);
        ExitCode::from(code)
    }
}

impl From<ringway::Error> for Failure {
    fn from(error: ringway::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Poisoned => Self::Poisoned(message),
            ErrorKind::NoSpace | ErrorKind::Os => Self::Io(message),
            _ => Self::Usage(message),
        }
    }
}

/// Writes a line to standard error. If nobody reads that, there is nobody left to tell.
pub fn warn(message: impl Display) {
    let _ = writeln!(io::stderr(), "ringway: {message}");
}
