//! Shared memory as RAII values.

use std::path::PathBuf;

/// What a segment is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// POSIX shared memory.
    Posix(String),
    /// System V shared memory.
    SysV(Key),
    /// A mapped file.
    File(PathBuf),
}

/// What a System V segment is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Derived by `ftok` from an existing file and a project id.
    Path {
        /// The file.
        path: PathBuf,
        /// The project id.
        id: u8,
    },
    /// The key itself.
    Raw(i32),
}
