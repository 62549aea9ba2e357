//! Segments that are files: POSIX shared memory, mapped files and memfds.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Mutex;

use memmap2::{MmapOptions, MmapRaw};

use super::locks::Holder;
use super::name::{Name, SHM_DIRECTORY};
use super::{Metadata, PAGE, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::{self, Identity};
use crate::sys::memfd;

/// A file and its mapping. The descriptor outlives the creation so that locks can open the file anew.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapRaw,
    file: File,
    /// For the first who wants locks: whoever has given a file its name must not lack the descriptor to use it.
    /// That one takes it at once: parent and child must not both find it here after a fork.
    for_locks: Mutex<Option<File>>,
    identity: Identity,
    writable: bool,
}

impl Mapped {
    /// A finished segment that lacks nothing but its name.
    pub(super) fn prepare(
        name: &Name,
        path: &Path,
        size: usize,
        perm: u32,
        init: impl FnOnce(NonNull<u8>),
    ) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let file = file::create_unnamed(directory, perm).map_err(|e| cannot_create(e, name, directory))?;
        file::allocate(&file, size as u64).map_err(|e| cannot_allocate(e, name, size, directory))?;
        let for_locks = file::reopen(&file, true).map_err(|e| Error::os(e, "open a second descriptor of", name))?;
        let mut mapped = Self::map(file, size, true).map_err(|e| Error::os(e, "map", name))?;
        mapped.for_locks = Mutex::new(Some(for_locks));
        publish(mapped.as_ptr(), init);
        Ok(mapped)
    }

    /// Gives it its name; false if that is taken.
    pub(super) fn give_name(&self, name: &Name, path: &Path) -> Result<bool> {
        match file::give_name(&self.file, path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::os(e, "give a name to", name)),
        }
    }

    pub(super) fn open(name: &Name, path: &Path, writable: bool) -> Result<Self> {
        let file = file::open(path, writable).map_err(|e| cannot_open(e, name, path))?;
        let metadata = file.metadata().map_err(|e| Error::os(e, "open", name))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::NotARing, "open", name).advise("it is not a regular file"));
        }
        match usize::try_from(metadata.len()) {
            Ok(size) if size >= PAGE => Self::map(file, size, writable).map_err(|e| Error::os(e, "map", name)),
            _ => Err(Error::new(ErrorKind::NotARing, "open", name)
                .advise(format!("it has {} bytes, and the smallest segment has {PAGE}", metadata.len()))),
        }
    }

    pub(super) fn memfd(label: &str, size: usize, perm: u32, init: impl FnOnce(NonNull<u8>)) -> Result<Self> {
        let object = || format!("memfd:{label}");
        let file = memfd::create(label, size as u64, perm)
            .map_err(|e| Error::os(e, format!("allocate {size} bytes for"), object()))?;
        let mapped = Self::map(file, size, true).map_err(|e| Error::os(e, "map", object()))?;
        publish(mapped.as_ptr(), init);
        Ok(mapped)
    }

    /// What another process handed over: a memfd whose size is sealed, or, if `may_shrink`, any file in memory.
    pub(super) fn received(file: File, may_shrink: bool, object: &dyn std::fmt::Display) -> Result<Self> {
        let refuse = |why: String| Err(Error::new(ErrorKind::NotARing, "use", object).advise(why));
        if !may_shrink && !memfd::is_sealed(&file) {
            return refuse(
                "it is no memfd whose size is sealed, so that it could be truncated under those who use it".into(),
            );
        }
        let metadata = file.metadata().map_err(|e| Error::os(e, "look at", object))?;
        if !metadata.is_file() {
            return refuse("it is not a regular file".into());
        }
        match usize::try_from(metadata.len()) {
            Ok(size) if size >= PAGE && size.is_multiple_of(PAGE) && metadata.blocks() >= metadata.len() / 512 => {
                Self::map(file, size, true).map_err(|e| Error::os(e, format!("map {size} bytes of"), object))
            }
            _ => refuse(format!("its {} bytes are no whole pages, or not all of them are allocated", metadata.len())),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn map(file: File, size: usize, writable: bool) -> io::Result<Self> {
        let identity = Identity::from(&file.metadata()?);
        let mut options = MmapOptions::new();
        options.len(size);
        let map = if writable { options.map_raw(&file)? } else { options.map_raw_read_only(&file)? };
        Ok(Self { map, file, for_locks: Mutex::default(), identity, writable })
    }

    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        // A mapping never starts at address 0.
        NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling())
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether `path` leads to this file.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Identity::from(&metadata) == self.identity),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        let metadata = self.file.metadata()?;
        Ok(Metadata::of_file(&metadata))
    }

    pub(super) fn lock_holder(&self) -> io::Result<Holder> {
        // If it is locked, that one takes it; or did in our parent when it forked, and then waiting would have no end.
        let prepared = self.for_locks.try_lock().ok().and_then(|mut prepared| prepared.take());
        Ok(Holder::File(prepared.map_or_else(|| file::reopen(&self.file, self.writable), Ok)?))
    }
}

/// Takes the name off a file, whatever is in it.
pub(super) fn remove(name: &Name, path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|e| cannot_open(e, name, path))?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::NotARing, "remove", name).advise("it is not a regular file"));
    }
    fs::remove_file(path).map_err(|e| Error::os(e, "remove", name))
}

fn cannot_create(source: io::Error, name: &Name, directory: &Path) -> Error {
    match (source.raw_os_error(), name) {
        // EISDIR is what kernels say that don't know O_TMPFILE at all.
        (Some(libc::EOPNOTSUPP | libc::EISDIR), _) => Error::new(ErrorKind::Unsupported, "create", name).advise(format!(
            "the file system of {} has no unnamed files (O_TMPFILE), without which a crash could leave half a segment: \
             use another directory, or shm:",
            directory.display()
        )),
        (Some(libc::ENOENT), Name::Posix(_)) => no_shm(name),
        (Some(libc::ENOENT), _) => {
            Error::os(source, "create", name).advise(format!("create the directory {} first", directory.display()))
        }
        _ => Error::os(source, "create", name),
    }
}

fn cannot_allocate(source: io::Error, name: &Name, size: usize, directory: &Path) -> Error {
    Error::os(source, format!("allocate {size} bytes for"), name)
        .advise(format!("`df -h {}` shows how much is free", directory.display()))
}

fn cannot_open(source: io::Error, name: &Name, path: &Path) -> Error {
    match source.raw_os_error() {
        Some(libc::ELOOP) => Error::new(ErrorKind::NotARing, "open", name)
            .advise("it is a symbolic link: name the file that it leads to"),
        Some(libc::EISDIR) => Error::new(ErrorKind::NotARing, "open", name).advise("it is a directory"),
        Some(libc::ENOENT) if matches!(name, Name::Posix(_)) && !Path::new(SHM_DIRECTORY).is_dir() => no_shm(name),
        Some(libc::EACCES) => match fs::symlink_metadata(path) {
            Ok(metadata) => Error::os(source, "open", name).advise(format!(
                "it belongs to user {} and has mode {:04o}",
                metadata.uid(),
                metadata.mode() & 0o7777
            )),
            Err(_) => Error::os(source, "open", name),
        },
        _ => Error::os(source, "open", name),
    }
}

fn no_shm(name: &Name) -> Error {
    Error::new(ErrorKind::Unsupported, "use", name)
        .advise(format!("{SHM_DIRECTORY} is missing: mount a tmpfs there, or use a file: or sysv: address"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::segment::Segment;

    fn duplicate(segment: &Segment) -> OwnedFd {
        segment.descriptors()[0].try_clone_to_owned().unwrap()
    }

    #[test]
    fn what_was_handed_over_is_the_same_memory_with_locks_of_its_own() {
        let made = Segment::memfd("made", 8192, 0o600, |_| {}).unwrap();
        let received = Segment::received("received", vec![duplicate(&made)], false).unwrap();
        assert_eq!(received.len(), 8192);
        // SAFETY: both are mapped, and nobody else has them.
        unsafe {
            made.as_ptr().add(100).write(7);
            assert_eq!(received.as_ptr().add(100).read(), 7);
        }
        let (mine, theirs) = (made.locks().unwrap(), received.locks().unwrap());
        assert!(mine.try_acquire(1).unwrap() && theirs.is_held(1).unwrap() && !theirs.try_acquire(1).unwrap());
    }

    #[test]
    fn what_could_be_truncated_or_is_not_all_there_is_refused() {
        let refused = |file: File, may_shrink| {
            let error = Segment::received("bad", vec![file.into()], may_shrink).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotARing, "{error}");
        };
        let shared = || {
            let file = file::create_unnamed(Path::new(SHM_DIRECTORY), 0o600).unwrap();
            file::allocate(&file, 8192).unwrap();
            file
        };
        refused(shared(), false);
        assert_eq!(Segment::received("good", vec![shared().into()], true).unwrap().len(), 8192);
        for length in [0, 4095, 8191, 16384] {
            let file = shared();
            file.set_len(length).unwrap();
            refused(file, true);
        }
        let (reader, _writer) = io::pipe().unwrap();
        refused(OwnedFd::from(reader).into(), true);
        refused(File::open("/dev/shm").unwrap(), true);
    }
}
