//! Shared memory as values: mapped while they live, unmapped when dropped, and never half-made.
//!
//! A [`Segment`] is a zeroed range of memory, every byte of it allocated, that other processes find by its [`Name`] once
//! it is initialised, or that is shared with threads and forked children ([`Segment::memfd`], [`Segment::heap`]).
//! Dropping a segment keeps its name: [`Segment::unlink`] or [`remove`] takes it away, and then the memory goes with its
//! last user.
//!
//! ```
//! use ringway::segment::{Name, Segment};
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! let name = Name::Posix(format!("example-{}", std::process::id()));
//! let created = Segment::create_new(&name, 8192, 0o600, 0, |start| {
//!     // SAFETY: inside of the segment, aligned, and nobody else can see it before this returns.
//!     unsafe { start.cast::<u32>().write(42) };
//! })?;
//! let opened = Segment::open(&name)?;
//! // SAFETY: inside of the segment, aligned, and only accessed atomically while others can see it.
//! let word = unsafe { AtomicU32::from_ptr(opened.as_ptr().cast().as_ptr()) };
//! assert_eq!(word.load(Ordering::Relaxed), 42);
//! created.unlink()?;
//! assert!(!opened.is_current()?);
//! # Ok::<(), ringway::error::Error>(())
//! ```

mod file;
mod heap;
mod list;
mod locks;
mod name;
mod objects;
mod sysv;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fmt, fs, io};

pub use list::list;
pub(crate) use locks::Locks;
pub use name::{Key, Name};
pub(crate) use objects::{COUNT_OFFSET, ID_OFFSET, KIND_OFFSET, MOST as MOST_OBJECTS, Object, ObjectKind, Objects};

use self::file::Mapped;
use self::locks::Holder;
use self::name::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::process::{group_id, user_id};
use crate::sys::{bell, descriptor};

/// Sizes are multiples of this.
const PAGE: usize = 4096;

/// Where each segment has a `u32` that is 0 until it is initialised and 1 from then on.
pub(crate) const READY_OFFSET: usize = 56;

/// How a segment's memory comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// POSIX shared memory.
    Posix,
    /// System V shared memory.
    SysV,
    /// A mapped file.
    File,
    /// An anonymous file in memory, shared with threads and forked children.
    Memfd,
    /// The heap of this process, shared with its threads.
    Heap,
}

/// What the kernel knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// Bytes.
    pub size: usize,
    /// Who may read and write it, as in `chmod`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A mapped range of shared memory.
#[derive(Debug)]
pub struct Segment {
    memory: Memory,
    origin: Origin,
    /// Descriptors on which its users sleep, one for each; of a segment without a name only.
    events: Vec<OwnedFd>,
}

#[derive(Debug)]
enum Memory {
    File(file::Mapped),
    SysV(sysv::Attached),
    Heap(heap::Block),
}

#[derive(Debug)]
enum Origin {
    Name(Name),
    Memfd(String),
    Heap,
}

impl Segment {
    /// Creates a segment of at least `size` bytes, which must not exist.
    ///
    /// `perm` says who may use it, as in `chmod`, exactly and whatever the umask: 0o600 unless you know better. `locks` is
    /// how many locks its participants need. `init` fills the memory; the segment can be opened only after that.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists), or why it can't be created: no space is an error now, not a signal when
    /// the memory is used.
    pub fn create_new(name: &Name, size: usize, perm: u32, locks: u32, init: impl FnOnce(NonNull<u8>)) -> Result<Self> {
        let exists = || Error::new(ErrorKind::AlreadyExists, "create", name);
        let size = check(name, size, perm)?;
        let memory = match name.place() {
            Place::Path(path) => {
                // Spares a large allocation; it is the naming that decides.
                if path.symlink_metadata().is_ok() {
                    return Err(exists());
                }
                let mapped = Mapped::prepare(name, &path, size, perm, init)?;
                if !mapped.give_name(name, &path)? {
                    return Err(exists());
                }
                Memory::File(mapped)
            }
            Place::Key(key) => match sysv::open_or_create(name, key, size, perm, locks, init)? {
                (attached, true) => Memory::SysV(attached),
                (_, false) => return Err(exists()),
            },
        };
        Ok(Self::named(memory, name))
    }

    /// Opens an existing segment.
    ///
    /// It may be removed at any time: once you have taken the lock that removers take, ask [`is_current`](Self::is_current).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied), or
    /// [`NotARing`](ErrorKind::NotARing) for what can't be a segment; its content isn't looked at.
    pub fn open(name: &Name) -> Result<Self> {
        name.check()?;
        let memory = match name.place() {
            Place::Path(path) => Memory::File(Mapped::open(name, &path, true)?),
            Place::Key(key) => Memory::SysV(sysv::open(name, key)?),
        };
        Ok(Self::named(memory, name))
    }

    /// Opens an existing segment only to look at it: writing to its memory is a fault.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(name: &Name) -> Result<Self> {
        name.check()?;
        let memory = match name.place() {
            Place::Path(path) => Memory::File(Mapped::open(name, &path, false)?),
            Place::Key(key) => Memory::SysV(sysv::open_read_only(name, key)?),
        };
        Ok(Self::named(memory, name))
    }

    /// Opens the segment, or creates it as [`create_new`](Self::create_new) does; says whether it created it.
    /// Of several that race, one creates and the others open what it made. `init` runs at most once, in some races for
    /// a segment that is thrown away.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create_new`](Self::create_new), but neither `NotFound` nor `AlreadyExists`.
    pub fn open_or_create(
        name: &Name,
        size: usize,
        perm: u32,
        locks: u32,
        init: impl FnOnce(NonNull<u8>),
    ) -> Result<(Self, bool)> {
        let size = check(name, size, perm)?;
        let (memory, created) = match name.place() {
            Place::Path(path) => {
                let (mapped, created) =
                    Self::open_or_name(name, &path, || Mapped::prepare(name, &path, size, perm, init))?;
                (Memory::File(mapped), created)
            }
            Place::Key(key) => {
                let (attached, created) = sysv::open_or_create(name, key, size, perm, locks, init)?;
                (Memory::SysV(attached), created)
            }
        };
        Ok((Self::named(memory, name), created))
    }

    /// Each further round follows another process's success: it gave the name to its segment, or took it away.
    fn open_or_name(name: &Name, path: &Path, prepare: impl FnOnce() -> Result<Mapped>) -> Result<(Mapped, bool)> {
        let not_there = match Mapped::open(name, path, true) {
            Ok(mapped) => return Ok((mapped, false)),
            Err(e) => e,
        };
        if not_there.kind() != ErrorKind::NotFound {
            return Err(not_there);
        }
        let mine = prepare()?;
        loop {
            if mine.give_name(name, path)? {
                return Ok((mine, true));
            }
            match Mapped::open(name, path, true) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                answer => return Ok((answer?, false)),
            }
        }
    }

    /// Makes a segment without a name, for threads and for children that are forked while it lives. Its size is sealed:
    /// nobody can truncate it. `label` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// Why it can't be created.
    pub fn memfd(label: &str, size: usize, perm: u32, init: impl FnOnce(NonNull<u8>)) -> Result<Self> {
        let origin = Origin::Memfd(label.to_owned());
        let size = whole_pages(size, &origin)?;
        check_perm(perm, &origin)?;
        Ok(Self::unnamed(Memory::File(Mapped::memfd(label, size, perm, init)?), origin))
    }

    /// Maps a segment that another process handed over as [its descriptors](Self::descriptors). Unless it `may_shrink`, the first must be
    /// of a memfd whose size is sealed; who lets it shrink trusts those who have it not to, as with a segment that has a name.
    pub(crate) fn received(label: &str, descriptors: Vec<OwnedFd>, may_shrink: bool) -> Result<Self> {
        let origin = Origin::Memfd(label.to_owned());
        let mut descriptors = descriptors.into_iter();
        let none = || Error::new(ErrorKind::NotARing, "use", &origin).advise("no descriptor came");
        let file = descriptors.next().ok_or_else(none)?.into();
        let events: Vec<OwnedFd> = descriptors.collect();
        if let Some(other) = events.iter().position(|event| !bell::is_eventfd(event.as_fd())) {
            return Err(Error::new(ErrorKind::NotARing, "use", &origin)
                .advise(format!("descriptor {} of those that came with it is no eventfd", other + 1)));
        }
        let memory = Memory::File(Mapped::received(file, may_shrink, &origin)?);
        Ok(Self { events, ..Self::unnamed(memory, origin) })
    }

    /// The descriptors by which it can be handed over, of one that is a file: that, and its eventfds.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let memory = match &self.memory {
            Memory::File(mapped) => Some(mapped.file().as_fd()),
            Memory::SysV(_) | Memory::Heap(_) => None,
        };
        memory.into_iter().chain(self.events.iter().map(AsFd::as_fd)).collect()
    }

    /// Makes a segment for the threads of this process.
    ///
    /// # Errors
    /// Why it can't be created.
    ///
    /// ```
    /// let segment = ringway::segment::Segment::heap(1000, |_| {})?;
    /// assert_eq!(segment.len(), 4096, "whole pages");
    /// # Ok::<(), ringway::error::Error>(())
    /// ```
    pub fn heap(size: usize, init: impl FnOnce(NonNull<u8>)) -> Result<Self> {
        let size = whole_pages(size, &Origin::Heap)?;
        Ok(Self::unnamed(Memory::Heap(heap::Block::new(size, init)?), Origin::Heap))
    }

    fn unnamed(memory: Memory, origin: Origin) -> Self {
        Self { memory, origin, events: Vec::new() }
    }

    /// Gives it eventfds to go with it, one for each of `count` users. Only a segment without a name can have them: by a name nobody would
    /// get them.
    pub(crate) fn with_events(mut self, count: u32) -> Result<Self> {
        if self.name().is_some() {
            return Err(Error::new(ErrorKind::InvalidInput, "make eventfds for", &self)
                .advise("they can be handed over only with a segment that has no name"));
        }
        let events: io::Result<_> = (0..count).map(|_| descriptor::event()).collect();
        self.events = events.map_err(|e| Error::os(e, format!("make {count} eventfds for"), &self))?;
        Ok(self)
    }

    /// The eventfds that go with it.
    pub(crate) fn events(&self) -> &[OwnedFd] {
        &self.events
    }

    fn named(memory: Memory, name: &Name) -> Self {
        let name = match name {
            // So that it leads to the same place after a change of directory.
            Name::File(path) => Name::File(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            name => name.clone(),
        };
        Self::unnamed(memory, Origin::Name(name))
    }

    /// Where the memory starts: at a page. It stays there while the segment lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::File(mapped) => mapped.as_ptr(),
            Memory::SysV(attached) => attached.as_ptr(),
            Memory::Heap(block) => block.as_ptr(),
        }
    }

    /// How many bytes it has, at least 4096.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::File(mapped) => mapped.len(),
            Memory::SysV(attached) => attached.len(),
            Memory::Heap(block) => block.len(),
        }
    }

    /// How its memory came about.
    pub fn kind(&self) -> Kind {
        match &self.origin {
            Origin::Name(Name::Posix(_)) => Kind::Posix,
            Origin::Name(Name::SysV(_)) => Kind::SysV,
            Origin::Name(Name::File(_)) => Kind::File,
            Origin::Memfd(_) => Kind::Memfd,
            Origin::Heap => Kind::Heap,
        }
    }

    /// The name by which it was created or opened, if it has one; a relative path made absolute.
    pub fn name(&self) -> Option<&Name> {
        match &self.origin {
            Origin::Name(name) => Some(name),
            Origin::Memfd(_) | Origin::Heap => None,
        }
    }

    /// Whether its name, if it has one, still leads to this very segment.
    ///
    /// # Errors
    /// When the kernel won't tell.
    pub fn is_current(&self) -> Result<bool> {
        let answer = match (&self.memory, self.name().map(Name::place)) {
            (Memory::File(mapped), Some(Place::Path(path))) => mapped.is_at(&path),
            (Memory::SysV(attached), _) => attached.is_current(),
            _ => Ok(true),
        };
        answer.map_err(|e| Error::os(e, "look for the name of", self))
    }

    /// Removes the name, if it still leads here, and the named objects on which its users sleep. Those who have the segment open keep it.
    ///
    /// Two processes that remove and create at once can remove each other's: take a lock of the segment first.
    ///
    /// It never waits: while another process opens or removes a System V segment, that is an error, and the name stays.
    ///
    /// # Errors
    /// Why it can't be removed.
    pub fn unlink(&self) -> Result<()> {
        match (&self.memory, &self.origin) {
            (Memory::SysV(attached), Origin::Name(name)) => attached.unlink(name),
            (Memory::File(_), Origin::Name(name)) if self.is_current()? => remove_memory(name),
            _ => Ok(()),
        }?;
        // Also if somebody else has removed it, who may have known nothing of them.
        if self.name().is_some()
            && let Some(objects) = Objects::of(self)
        {
            objects.remove();
        }
        Ok(())
    }

    /// Its size, mode and owner.
    ///
    /// # Errors
    /// When the kernel won't tell.
    pub fn metadata(&self) -> Result<Metadata> {
        let metadata = match &self.memory {
            Memory::File(mapped) => mapped.metadata(),
            Memory::SysV(attached) => attached.metadata(),
            Memory::Heap(block) => Ok(Metadata { size: block.len(), mode: 0o600, uid: user_id(), gid: group_id() }),
        };
        metadata.map_err(|e| Error::os(e, "read the properties of", self))
    }

    /// A handle of its own on the segment's locks.
    pub(crate) fn locks(&self) -> Result<Locks> {
        let holder = match &self.memory {
            Memory::File(mapped) => {
                mapped.lock_holder().map_err(|e| Error::os(e, "open a descriptor for the locks of", self))?
            }
            Memory::SysV(attached) => attached.lock_holder(self)?,
            Memory::Heap(block) => Holder::Table(Arc::clone(&block.locks)),
        };
        Ok(Locks::new(holder, self.to_string()))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Name(name) => name.fmt(f),
            Origin::Memfd(label) => write!(f, "the memfd {label:?}"),
            Origin::Heap => f.write_str("a heap segment"),
        }
    }
}

impl Metadata {
    fn of_file(metadata: &fs::Metadata) -> Self {
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        Self { size, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// Removes the segment of that name, in whatever state it is, and its semaphores and the objects on which its users sleep, if it has
/// some. Those who have it open keep it.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound), or why it can't be removed.
pub fn remove(name: &Name) -> Result<()> {
    let objects = Segment::open_read_only(name).ok().and_then(|segment| Objects::of(&segment));
    remove_memory(name)?;
    if let Some(objects) = objects {
        objects.remove();
    }
    Ok(())
}

fn remove_memory(name: &Name) -> Result<()> {
    name.check()?;
    match name.place() {
        Place::Path(path) => file::remove(name, &path),
        Place::Key(key) => sysv::remove(name, key),
    }
}

/// Initialises memory that nobody else sees yet, and declares it ready.
fn publish(start: NonNull<u8>, init: impl FnOnce(NonNull<u8>)) {
    init(start);
    // SAFETY: a segment starts at a page and has at least one.
    let ready = unsafe { AtomicU32::from_ptr(start.add(READY_OFFSET).cast().as_ptr()) };
    // Release: pairs with the Acquire loads of those who open it.
    ready.store(1, Ordering::Release);
}

fn check(name: &Name, size: usize, perm: u32) -> Result<usize> {
    name.check()?;
    check_perm(perm, name)?;
    whole_pages(size, name)
}

fn check_perm(perm: u32, object: impl fmt::Display) -> Result<()> {
    match perm {
        _ if perm & !0o666 != 0 => Err("only read and write permissions mean something"),
        _ if perm & 0o600 != 0o600 => Err("the owner needs to read and write it"),
        _ => Ok(()),
    }
    .map_err(|why| Error::new(ErrorKind::InvalidInput, format!("use the mode {perm:04o} for"), object).advise(why))
}

fn whole_pages(size: usize, object: impl fmt::Display) -> Result<usize> {
    let rounded = size.max(1).checked_next_multiple_of(PAGE).filter(|&size| isize::try_from(size).is_ok());
    rounded.ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("use the size {size} for"), object)
            .advise("it is beyond what a process can address")
    })
}
