//! What segments are called.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::sysv_shm;

/// The directory in which Linux keeps POSIX shared memory.
pub(super) const SHM_DIRECTORY: &str = "/dev/shm";

/// The name by which processes find a segment.
///
/// ```
/// use ringway::segment::{Key, Name};
/// assert_eq!(Name::Posix("orders".into()).to_string(), "shm:///orders");
/// assert_eq!(Name::SysV(Key::Raw(0x51)).to_string(), "sysv:?key=0x51");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// POSIX shared memory: 1 to 255 bytes without `/` and NUL, and neither `.` nor `..`.
    Posix(String),
    /// System V shared memory.
    SysV(Key),
    /// A file, which survives the end of all processes. It must be on a file system that can map shared files and has
    /// unnamed ones (`O_TMPFILE`), such as ext4, xfs, btrfs and tmpfs.
    File(PathBuf),
}

/// The key of a System V segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Derived, as `ftok` does, from an existing file and a number that tells apart several keys of one file.
    Path {
        /// The file. Only its identity counts: replacing it changes the key.
        path: PathBuf,
        /// The number.
        id: u8,
    },
    /// The key itself; not 0, which the kernel reserves for segments without a name.
    Raw(i32),
}

impl Name {
    /// Refuses what can't name a segment.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidInput, "use the name", self).advise(why));
        match self {
            Name::Posix(name) if name.is_empty() => refuse("it is empty"),
            Name::Posix(name) if name.len() > 255 => refuse("at most 255 bytes are allowed"),
            Name::Posix(name) if name.contains(['/', '\0']) => refuse("it may contain neither '/' nor NUL"),
            Name::Posix(name) if name == "." || name == ".." => refuse("it would be a directory"),
            Name::SysV(Key::Raw(0)) => refuse("key 0 is the kernel's word for \"without a name\""),
            Name::File(path) if path.file_name().is_none() => refuse("it is not the path of a file"),
            _ => Ok(()),
        }
    }

    /// Where the kernel keeps what has this name.
    pub(super) fn place(&self) -> Place<'_> {
        match self {
            Name::Posix(name) => Place::Path(Path::new(SHM_DIRECTORY).join(name)),
            Name::File(path) => Place::Path(path.clone()),
            Name::SysV(key) => Place::Key(key),
        }
    }
}

/// The two ways of finding a segment.
pub(super) enum Place<'a> {
    Path(PathBuf),
    Key(&'a Key),
}

impl Key {
    /// The number that the kernel knows it by.
    ///
    /// # Errors
    /// When the file that a key is derived from can't be found.
    pub fn number(&self) -> Result<i32> {
        match self {
            Key::Raw(key) => Ok(*key),
            Key::Path { path, id } => sysv_shm::ftok(path, *id).map_err(|e| {
                Error::os(e, "derive a System V key from", path.display())
                    .advise("the key is made from the identity of an existing file: create it first")
            }),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Posix(name) => write!(f, "shm:///{name}"),
            Name::SysV(key) => key.fmt(f),
            Name::File(path) if path.is_absolute() => write!(f, "file://{}", path.display()),
            Name::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Path { path, id } => write!(f, "sysv:{}?id={id}", path.display()),
            Key::Raw(key) => write!(f, "sysv:?key={key:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_people_write_them() {
        let path = PathBuf::from("/run/orders");
        assert_eq!(Name::File(path.clone()).to_string(), "file:///run/orders");
        assert_eq!(Name::File("data/orders".into()).to_string(), "file:data/orders");
        assert_eq!(Name::SysV(Key::Path { path, id: 7 }).to_string(), "sysv:/run/orders?id=7");
        assert_eq!(Name::SysV(Key::Raw(-1)).to_string(), "sysv:?key=0xffffffff");
    }

    #[test]
    fn unusable_names_are_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a\0", &"x".repeat(256)] {
            assert_eq!(Name::Posix(name.into()).check().unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        for name in ["a", "...", ".hidden", "grüße", &"x".repeat(255)] {
            Name::Posix(name.into()).check().unwrap();
        }
        for name in [Name::SysV(Key::Raw(0)), Name::File("".into()), Name::File("/".into()), Name::File("a/..".into())]
        {
            assert_eq!(name.check().unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }
}
