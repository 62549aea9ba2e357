//! What goes with a segment besides its memory: objects of the kernel's with names, on which its users sleep, one for each.
//!
//! Their names are made of the segment's random number, so that each segment has its own, and whoever has opened it finds them.
//! Each is made by its first user, and kept by its successors; all of them go when the segment's name is taken away. They are
//! shared with the very users whom the segment's mode lets use it.

use std::fs::{File, Metadata as FileMetadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::name::SHM_DIRECTORY;
use super::{Metadata, Segment, sysv};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file;
use crate::sys::named_semaphore::{self, NamedSemaphore};
use crate::sys::process::user_id;
use crate::sys::semaphore::RawSemaphore;
use crate::sys::sysv_sem::Set;

/// Where a segment says what objects it has: a `u32` each for their kind and count, and a `u64` for its random number.
pub(crate) const KIND_OFFSET: usize = 44;
pub(crate) const COUNT_OFFSET: usize = 52;
pub(crate) const ID_OFFSET: usize = 120;
/// No segment has more.
pub(crate) const MOST: u32 = 128;
/// How often to look for an object that others take away each time after it was made.
const ATTEMPTS: usize = 10;
/// How often to look again for a set whose maker has not marked it yet.
const MOST_YIELDS: usize = 10_000;

/// What the objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    NamedSemaphores = 3,
    /// One set of System V semaphores for all.
    SemaphoreSet = 4,
    Fifos = 6,
}

/// The objects of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) kind: ObjectKind,
    pub(crate) count: u32,
    pub(crate) id: u64,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Object {
    Semaphore(NamedSemaphore),
    OfSet(Set),
    /// Both ends, neither of which blocks.
    Fifo(File),
}

impl ObjectKind {
    fn from_code(code: u32) -> Option<Self> {
        [Self::NamedSemaphores, Self::SemaphoreSet, Self::Fifos].into_iter().find(|&kind| kind as u32 == code)
    }
}

impl Objects {
    /// Those that the memory of a segment says it has, whatever else is in it.
    pub(super) fn of(segment: &Segment) -> Option<Self> {
        // SAFETY: segments start at a page and have at least one; the copies are made for memory that others write.
        let [kind, count] = [KIND_OFFSET, COUNT_OFFSET]
            .map(|offset| unsafe { segment.as_ptr().add(offset).cast::<u32>().read_volatile() });
        // SAFETY: as above.
        let id = unsafe { segment.as_ptr().add(ID_OFFSET).cast::<u64>().read_volatile() };
        let kind = ObjectKind::from_code(kind)?;
        (1..=MOST).contains(&count).then_some(Self { kind, count, id })
    }

    /// The object with that number, made if it isn't there.
    pub(crate) fn open_or_create(&self, number: u32, segment: &Segment) -> Result<Object> {
        let failed = |e| Error::os(e, format!("make {} for", self.describe(number)), segment);
        let owner = segment.metadata()?;
        let (mut attempts, mut yields) = (0, 0);
        while attempts < ATTEMPTS {
            match self.create(number, &owner) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map_err(|e| self.explain(e, number, segment)),
            }
            match self.open_of(number, &owner) {
                Ok(Some(object)) => return Ok(object),
                Ok(None) => return Err(self.taken(number, segment)),
                // Taken away meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => attempts += 1,
                // Its maker is between two calls, or was killed there.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && yields < MOST_YIELDS => {
                    yields += 1;
                    std::thread::yield_now();
                }
                Err(e) => return Err(failed(e)),
            }
        }
        Err(failed(io::ErrorKind::NotFound.into()).advise("something keeps removing it as soon as it is there"))
    }

    /// The object with that number that another user of the segment has made.
    pub(crate) fn open(&self, number: u32, segment: &Segment) -> Option<Object> {
        self.open_of(number, &segment.metadata().ok()?).ok()?
    }

    fn create(&self, number: u32, owner: &Metadata) -> io::Result<Object> {
        let path = self.path(number);
        match self.kind {
            ObjectKind::NamedSemaphores => {
                let semaphore = NamedSemaphore::create(&self.name(number))?;
                share(&file::open(&path, true)?, owner)?;
                Ok(Object::Semaphore(semaphore))
            }
            ObjectKind::Fifos => {
                file::make_fifo(&path, 0o600)?;
                let fifo = file::open(&path, true)?;
                share(&fifo, owner)?;
                Ok(Object::Fifo(fifo))
            }
            ObjectKind::SemaphoreSet => {
                let set = Set::create(self.key(), self.count + 1, owner.mode)?;
                set.set_value(self.count, self.mark())?;
                let status = set.status()?;
                if (status.uid, status.gid) != (owner.uid, owner.gid) {
                    // As in `share`.
                    let _ = set.give_to(owner.uid, owner.gid).or_else(|_| set.give_to(status.uid, owner.gid));
                }
                Ok(Object::OfSet(set))
            }
        }
    }

    /// None if it is something else, or a stranger's.
    fn open_of(&self, number: u32, owner: &Metadata) -> io::Result<Option<Object>> {
        if self.kind == ObjectKind::SemaphoreSet {
            let set = Set::find(self.key())?;
            let status = set.status()?;
            if !may_own(owner, status.uid, status.gid) {
                return Ok(None);
            }
            return match self.mark_of(set) {
                Some(0) => Err(io::ErrorKind::WouldBlock.into()),
                mark => Ok((mark == Some(self.mark())).then_some(Object::OfSet(set))),
            };
        }
        let file = file::open(&self.path(number), true)?;
        let metadata = file.metadata()?;
        if !self.is_right(&metadata) || !may_own(owner, metadata.uid(), metadata.gid()) {
            return Ok(None);
        }
        if metadata.uid() == user_id() && metadata.mode() & 0o777 != owner.mode {
            // Whoever made it was killed before that.
            share(&file, owner)?;
        }
        Ok(Some(match self.kind {
            ObjectKind::NamedSemaphores => Object::Semaphore(NamedSemaphore::open(&self.name(number))?),
            _ => Object::Fifo(file),
        }))
    }

    fn is_right(&self, metadata: &FileMetadata) -> bool {
        match self.kind {
            ObjectKind::Fifos => metadata.file_type().is_fifo(),
            _ => metadata.is_file() && metadata.len() >= size_of::<RawSemaphore>() as u64,
        }
    }

    /// Takes away all that are there and may be taken away; there is nobody to tell of the rest. Those who have them keep them, but of a
    /// set.
    pub(crate) fn remove(&self) {
        match self.kind {
            ObjectKind::SemaphoreSet => {
                let is_ours = |set: &Set| self.mark_of(*set) == Some(self.mark());
                let _ = Set::find(self.key()).ok().filter(is_ours).map(Set::remove);
            }
            ObjectKind::NamedSemaphores => (0..self.count).for_each(|number| {
                let _ = named_semaphore::unlink(&self.name(number));
            }),
            ObjectKind::Fifos => (0..self.count).for_each(|number| {
                let _ = std::fs::remove_file(self.path(number));
            }),
        }
    }

    fn name(&self, number: u32) -> String {
        format!("ringway.{:016x}.{number}", self.id)
    }

    fn path(&self, number: u32) -> PathBuf {
        match self.kind {
            ObjectKind::NamedSemaphores => named_semaphore::path(&self.name(number)),
            _ => Path::new(SHM_DIRECTORY).join(self.name(number)),
        }
    }

    fn key(&self) -> i32 {
        match (self.id ^ self.id >> 32) as i32 {
            // The kernel's word for "without a key".
            0 => 1,
            key => key,
        }
    }

    /// The value of one semaphore more than there are users: a segment that names the key of a stranger's set must lead nobody to use
    /// or remove that.
    fn mark(&self) -> i32 {
        /// The greatest value of a semaphore.
        const MOST: u64 = 32767;
        1 + ((self.id >> 16) % (MOST - 1)) as i32
    }

    /// That of a set; none if it is another kind of set, or can't be read.
    fn mark_of(&self, set: Set) -> Option<i32> {
        let has_it = set.status().is_ok_and(|status| status.count == self.count + 1);
        if has_it { set.value(self.count).ok() } else { None }
    }

    fn describe(&self, number: u32) -> String {
        match self.kind {
            ObjectKind::NamedSemaphores => format!("the semaphore /{}", self.name(number)),
            ObjectKind::Fifos => format!("the FIFO {}", self.path(number).display()),
            ObjectKind::SemaphoreSet => format!("the set of semaphores of key {:#x}", self.key()),
        }
    }

    fn explain(&self, error: io::Error, number: u32, segment: &Segment) -> Error {
        let tried = format!("make {} for", self.describe(number));
        match (self.kind, error.raw_os_error()) {
            (ObjectKind::SemaphoreSet, _) => sysv::limits(error, &tried, segment),
            (_, Some(libc::ENOSPC)) => {
                Error::os(error, tried, segment).advise(format!("`df -hi {SHM_DIRECTORY}` shows how much is free"))
            }
            (_, Some(libc::ENOENT)) => Error::os(error, tried, segment)
                .advise(format!("{SHM_DIRECTORY} is missing: mount a tmpfs there, or wait in another way")),
            _ => Error::os(error, tried, segment),
        }
    }

    fn taken(&self, number: u32, segment: &Segment) -> Error {
        Error::new(ErrorKind::AlreadyExists, format!("make {} for", self.describe(number)), segment)
            .advise("something else has that name, or a stranger: remove that, or make the ring anew")
    }
}

/// Lets all use it who may use the segment, whatever the umask was.
fn share(file: &File, owner: &Metadata) -> io::Result<()> {
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != (owner.uid, owner.gid) {
        // Root can, and whoever was let in as a member of the group can give it to that. Whoever was let in as anybody can't, and needn't.
        let _ = file::give_to(file, Some(owner.uid), owner.gid).or_else(|_| file::give_to(file, None, owner.gid));
    }
    file::set_mode(file, owner.mode)
}

/// Whether an object of that user's and group's can be one of the segment's users'.
fn may_own(owner: &Metadata, uid: u32, gid: u32) -> bool {
    let is_shared = owner.mode & 0o006 == 0o006 || (owner.mode & 0o060 == 0o060 && gid == owner.gid);
    [owner.uid, user_id(), 0].contains(&uid) || is_shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Name, remove};
    use crate::sys::random;
    use std::os::unix::fs::symlink;
    use std::ptr::NonNull;

    const KINDS: [ObjectKind; 3] = [ObjectKind::NamedSemaphores, ObjectKind::SemaphoreSet, ObjectKind::Fifos];

    struct Scratch {
        segment: Segment,
        objects: Objects,
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            self.objects.remove();
            let _ = self.segment.name().map(remove);
        }
    }

    fn scratch(kind: ObjectKind, perm: u32) -> Scratch {
        let objects = Objects { kind, count: 3, id: random::number().unwrap() };
        let init = |start: NonNull<u8>| {
            // SAFETY: fresh memory of at least a page.
            unsafe {
                start.add(KIND_OFFSET).cast::<u32>().write(kind as u32);
                start.add(COUNT_OFFSET).cast::<u32>().write(3);
                start.add(ID_OFFSET).cast::<u64>().write(objects.id);
            }
        };
        let name = Name::Posix(format!("ringway-objects-{}-{:x}", std::process::id(), objects.id));
        let segment = Segment::create_new(&name, 4096, perm, 0, init).unwrap();
        assert_eq!(Objects::of(&segment), Some(objects));
        Scratch { segment, objects }
    }

    fn is_there(Scratch { segment, objects }: &Scratch, number: u32) -> bool {
        objects.open(number, segment).is_some()
    }

    #[test]
    fn they_are_made_once_and_go_with_the_name() {
        for kind in KINDS {
            for by_unlink in [true, false] {
                let scratch = scratch(kind, 0o600);
                let Scratch { segment, objects } = &scratch;
                assert!(!is_there(&scratch, 2));
                let _made = objects.open_or_create(2, segment).unwrap();
                let _again = objects.open_or_create(2, segment).unwrap();
                assert!(is_there(&scratch, 2) && is_there(&scratch, 1) == (kind == ObjectKind::SemaphoreSet));
                match (by_unlink, segment.name()) {
                    (false, Some(name)) => remove(name).unwrap(),
                    _ => segment.unlink().unwrap(),
                }
                assert!(!is_there(&scratch, 2));
                // As a user may who joined while somebody else removed it, and then leaves as the last.
                let _late = objects.open_or_create(2, segment).unwrap();
                segment.unlink().unwrap();
                assert!(!is_there(&scratch, 2));
            }
        }
    }

    #[test]
    fn they_have_the_mode_of_the_segment() {
        for kind in [ObjectKind::NamedSemaphores, ObjectKind::Fifos] {
            for perm in [0o600, 0o660, 0o666] {
                let scratch = scratch(kind, perm);
                let Scratch { segment, objects } = &scratch;
                let mode = || objects.path(0).metadata().unwrap().mode() & 0o777;
                drop(objects.open_or_create(0, segment).unwrap());
                assert_eq!(mode(), perm);
                // As if its maker had been killed.
                file::set_path_mode(&objects.path(0), 0o600).unwrap();
                drop(objects.open_or_create(0, segment).unwrap());
                assert_eq!(mode(), perm);
            }
        }
        let scratch = scratch(ObjectKind::SemaphoreSet, 0o660);
        let Ok(Object::OfSet(set)) = scratch.objects.open_or_create(0, &scratch.segment) else { panic!() };
        assert_eq!(set.status().unwrap().mode, 0o660);
    }

    #[test]
    fn what_else_has_the_name_is_left_alone() {
        let refused = |scratch: &Scratch| {
            let error = scratch.objects.open_or_create(1, &scratch.segment).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(!is_there(scratch, 1));
        };
        for kind in [ObjectKind::NamedSemaphores, ObjectKind::Fifos] {
            let scratch = scratch(kind, 0o600);
            let path = scratch.objects.path(1);
            File::create(&path).unwrap();
            refused(&scratch);
            std::fs::remove_file(&path).unwrap();
            symlink("/dev/null", &path).unwrap();
            assert!(scratch.objects.open_or_create(1, &scratch.segment).is_err() && !is_there(&scratch, 1));
            std::fs::remove_file(&path).unwrap();
            if kind == ObjectKind::NamedSemaphores {
                file::make_fifo(&path, 0o600).unwrap();
                refused(&scratch);
                std::fs::remove_file(&path).unwrap();
            }
        }
        let scratch = scratch(ObjectKind::SemaphoreSet, 0o600);
        let other = Set::create(scratch.objects.key(), 2, 0o600).unwrap();
        refused(&scratch);
        scratch.objects.remove();
        assert!(other.status().is_ok());
        other.remove().unwrap();
    }

    #[test]
    fn whose_they_may_be_follows_from_the_segments_mode() {
        let [me, root, friend, stranger] = [user_id(), 0, 70001, 70002];
        let segment = |mode| Metadata { size: 4096, mode, uid: friend, gid: 80000 };
        for (mode, uid, gid, expected) in [
            (0o600, me, 1, true),
            (0o600, root, 1, true),
            (0o600, friend, 1, true),
            (0o600, stranger, 80000, false),
            (0o660, stranger, 80000, true),
            (0o660, stranger, 1, false),
            (0o640, stranger, 80000, false),
            (0o666, stranger, 1, true),
        ] {
            assert_eq!(may_own(&segment(mode), uid, gid), expected, "{mode:o} {uid} {gid}");
        }
    }

    #[test]
    fn an_id_makes_any_key_but_the_one_that_means_none() {
        let key = |id| Objects { kind: ObjectKind::SemaphoreSet, count: 1, id }.key();
        assert_eq!([key(0), key(0x1_0000_0001), key(0xffff_fffe_0000_0001)], [1, 1, -1]);
    }
}
