//! Files that appear under their name only when they are whole.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::{io, path::Path};

use super::descriptor::Ready;
use super::uninterrupted;

/// Has opening fail for a symbolic link.
pub(crate) const NO_FOLLOW: i32 = libc::O_NOFOLLOW;
/// Has opening not wait for the other end of a FIFO.
pub(crate) const NO_WAIT: i32 = libc::O_NONBLOCK;

/// What a file is, whatever it is called: its device and inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file in `directory` that has no name yet, and vanishes unless it is given one.
pub(crate) fn create_unnamed(directory: &Path, perm: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).mode(perm).custom_flags(libc::O_TMPFILE).open(directory)?;
    set_mode(&file, perm)?;
    Ok(file)
}

/// Opens what `path` itself names: neither following a symbolic link nor waiting for the other end of a FIFO.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Makes a FIFO, failing with `EEXIST` if the name is taken; the umask applies.
pub(crate) fn make_fifo(path: &Path, mode: u32) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(mode))?)
}

/// Opens one end of a FIFO without waiting for the other: `ENXIO` when writing while nobody reads.
pub(crate) fn open_fifo(path: &Path, ready: Ready) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(ready == Ready::Read).write(ready == Ready::Write);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Sets the mode of what has this name exactly, whatever the umask.
pub(crate) fn set_path_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A descriptor of the same file with an open file description of its own, as locks need.
pub(crate) fn reopen(file: &File, writable: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(writable).open(magic_link(file))
}

/// Gives an unnamed file its name, failing with `EEXIST` if the name is taken.
pub(crate) fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    Ok(nix::unistd::linkat(AT_FDCWD, magic_link(file).as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

fn magic_link(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Gives the file to a group, and to a user if one is said.
pub(crate) fn give_to(file: &File, uid: Option<u32>, gid: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(file, uid, Some(gid))
}

/// Sets the mode exactly, whatever the umask.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}

/// Sets the file's length to `len` with every byte of it allocated, so that running out of space is an error here and
/// not a SIGBUS later.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    const STEP: u64 = 16 << 20;
    let range = |start: u64, len: u64| -> io::Result<()> {
        let too_big = |_| io::Error::from_raw_os_error(libc::EFBIG);
        let (start, len) = (start.try_into().map_err(too_big)?, len.try_into().map_err(too_big)?);
        Ok(nix::fcntl::posix_fallocate(file, start, len)?)
    };
    // All at once, since tmpfs then refuses what can't fit before it takes any memory.
    match range(0, len) {
        // A signal makes it start over, and a frequent timer could keep it from ever ending: go on in steps.
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            (0..len).step_by(STEP as usize).try_for_each(|start| uninterrupted(|| range(start, STEP.min(len - start))))
        }
        answer => answer,
    }
}
