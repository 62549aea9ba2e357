//! System V segments: shared memory, and under the same key a set of semaphores.
//!
//! The kernel can't make such a segment appear whole, so that the set comes first and serialises creation and removal:
//!
//! | semaphores | meaning |
//! |---|---|
//! | `0..count` | the participants' locks |
//! | `count` | the state: 0 for a new set, else [`MAKING`] or [`MADE`], which also tells our sets from those of others |
//! | `count + 1` | the claim: taken while creating or removing, freed by the kernel if that process dies |
//!
//! Whoever has the claim and finds a segment that isn't ready in state `MAKING` knows that its creator is dead.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fmt, io};

use super::locks::Holder;
use super::name::{Key, Name};
use super::{Metadata, PAGE, READY_OFFSET, publish};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::clock;
use crate::sys::sysv_sem::{self, Set};
use crate::sys::sysv_shm::{self, Attachment};

const MAKING: i32 = 0x5261;
const MADE: i32 = 0x5262;

/// Longer than any creation takes; then it is an error that names the process that has the claim.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mapped segment and its set.
#[derive(Debug)]
pub(super) struct Attached {
    memory: Attachment,
    id: i32,
    /// Missing only where a segment is looked at read-only.
    semaphores: Option<Semaphores>,
}

#[derive(Clone, Copy, Debug)]
struct Semaphores {
    set: Set,
    count: u32,
}

/// The right to create or remove, until dropped.
struct Claim<'a> {
    name: &'a Name,
    semaphores: Semaphores,
    mode: u32,
}

enum Found {
    Nothing,
    Whole(Attached),
    /// Its creator is dead.
    Half {
        id: i32,
    },
}

/// Creates the segment, or attaches to it if it exists; says which.
pub(super) fn open_or_create(
    name: &Name,
    key: &Key,
    size: usize,
    perm: u32,
    count: u32,
    init: impl FnOnce(NonNull<u8>),
) -> Result<(Attached, bool)> {
    let key = key.number()?;
    // Each further round follows another process's removal.
    loop {
        let (set, is_new) = match Set::find(key) {
            Ok(set) => (set, false),
            Err(e) if is(&e, libc::ENOENT) => match Set::create(key, count.saturating_add(2), perm) {
                Ok(set) => (set, true),
                Err(e) if is(&e, libc::EEXIST) => continue,
                Err(e) => return Err(limits(e, "create the semaphores of", name)),
            },
            Err(e) => return Err(Error::os(e, "find the semaphores of", name)),
        };
        let Some(claim) = Claim::new(name, set, PATIENCE)? else { continue };
        let found = match claim.look(key) {
            Err(e) if e.is_removed() => continue,
            found => found,
        };
        let found = found.inspect_err(|_| {
            if is_new {
                let _ = set.remove();
            }
        });
        match found? {
            Found::Whole(attached) => return Ok((attached, false)),
            Found::Half { id } => sysv_shm::remove(id).map_err(|e| Error::os(e, "remove the unfinished", name))?,
            Found::Nothing => {}
        }
        if claim.semaphores.count == count && claim.mode == perm {
            return Ok((claim.make(key, size, perm, init)?, true));
        }
        // Left behind by a creator that died, and of another shape. A new set with our odd number of semaphores is taken for
        // ours, as it is above.
        if claim.semaphores.count != count {
            claim.check_ours()?;
        }
        set.remove().map_err(|e| Error::os(e, "remove the old semaphores of", name))?;
    }
}

/// Attaches to an existing segment.
pub(super) fn open(name: &Name, key: &Key) -> Result<Attached> {
    let key = key.number()?;
    loop {
        let id = sysv_shm::find(key).map_err(|e| Error::os(e, "open", name))?;
        let claim = match Set::find(key) {
            Ok(set) => Claim::new(name, set, PATIENCE)?,
            Err(e) if !is(&e, libc::ENOENT) => return Err(Error::os(e, "find the semaphores of", name)),
            Err(_) if sysv_shm::find(key).ok() == Some(id) => return Err(no_semaphores(name)),
            Err(_) => None,
        };
        let found = match claim.map(|claim| claim.look(key)).transpose() {
            Err(e) if e.is_removed() => continue,
            found => found?,
        };
        match found {
            Some(Found::Whole(attached)) => return Ok(attached),
            Some(Found::Half { .. }) => {
                return Err(
                    Error::new(ErrorKind::NotFound, "open", name).advise("its creator died before it was ready")
                );
            }
            // Removed while we looked: look again.
            Some(Found::Nothing) | None => {}
        }
    }
}

/// Attaches read-only.
pub(super) fn open_read_only(name: &Name, key: &Key) -> Result<Attached> {
    let key = key.number()?;
    let id = sysv_shm::find(key).map_err(|e| Error::os(e, "open", name))?;
    let memory = attach(name, id, false)?;
    let semaphores = Set::find(key).ok().and_then(|set| {
        let count = set.status().ok()?.count.checked_sub(2)?;
        Some(Semaphores { set, count })
    });
    let attached = Attached { memory, id, semaphores };
    // Nothing else tells an unfinished segment of ours from those of others.
    if let Some(Semaphores { set, count }) = semaphores
        && !attached.is_ready()
        && set.value(count).is_ok_and(|state| state == MAKING)
    {
        return Err(Error::new(ErrorKind::NotFound, "open", name).advise("its creator has not finished it, or died"));
    }
    Ok(attached)
}

/// Removes the segment and its set, whatever their state.
pub(super) fn remove(name: &Name, key: &Key) -> Result<()> {
    let key = key.number()?;
    let remove_memory = |found: io::Result<i32>| match found.and_then(sysv_shm::remove) {
        Ok(()) => Ok(true),
        Err(e) if is(&e, libc::ENOENT) || sysv_sem::was_removed(&e) => Ok(false),
        Err(e) => Err(Error::os(e, "remove", name)),
    };
    // Looked for before the set: without a set this one has no creator at work, while a later one may.
    let early = sysv_shm::find(key);
    let (had_memory, had_set) = match Set::find(key) {
        Ok(set) => match Claim::new(name, set, PATIENCE)? {
            Some(claim) => (remove_memory(sysv_shm::find(key))?, claim.remove_set()?),
            None => (false, true),
        },
        Err(_) => (remove_memory(early)?, false),
    };
    if had_memory || had_set { Ok(()) } else { Err(Error::new(ErrorKind::NotFound, "remove", name)) }
}

impl Attached {
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.memory.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether the key still leads here. The kernel takes it off a removed segment but keeps the id while we are attached.
    pub(super) fn is_current(&self) -> io::Result<bool> {
        Ok(!sysv_shm::status(self.id)?.removed)
    }

    /// Never waits: if another process has the claim, that is an error, and the name stays.
    pub(super) fn unlink(&self, name: &Name) -> Result<()> {
        let claim = match self.semaphores {
            Some(semaphores) => Claim::new(name, semaphores.set, Duration::ZERO)?,
            None => None,
        };
        if self.is_current().map_err(|e| Error::os(e, "remove", name))? {
            sysv_shm::remove(self.id).map_err(|e| Error::os(e, "remove", name))?;
            claim.map(|claim| claim.remove_set()).transpose()?;
        }
        Ok(())
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        let status = sysv_shm::status(self.id)?;
        Ok(Metadata { size: status.size, mode: status.mode, uid: status.uid, gid: status.gid })
    }

    pub(super) fn lock_holder(&self, segment: impl fmt::Display) -> Result<Holder> {
        let semaphores = self.semaphores.ok_or_else(|| no_semaphores(segment))?;
        Ok(Holder::SysV { set: semaphores.set, count: semaphores.count })
    }

    fn is_ready(&self) -> bool {
        // SAFETY: attached segments have at least a page, and start at one.
        let ready = unsafe { AtomicU32::from_ptr(self.as_ptr().add(READY_OFFSET).cast().as_ptr()) };
        // Acquire: pairs with the Release store in `publish`.
        ready.load(Ordering::Acquire) != 0
    }
}

impl<'a> Claim<'a> {
    /// Waits up to `patience` for the claim on `set`; none if the set was removed meanwhile.
    fn new(name: &'a Name, set: Set, patience: Duration) -> Result<Option<Self>> {
        let claim = (|| {
            let status = set.status()?;
            let Some(count) = status.count.checked_sub(2) else { return Ok(Err(foreign(name))) };
            if ![0, MAKING, MADE].contains(&set.value(count)?) {
                return Ok(Err(foreign(name)));
            }
            if set.take(count + 1, Some(clock::now() + patience))? {
                return Ok(Ok(Self { name, semaphores: Semaphores { set, count }, mode: status.mode }));
            }
            let pid = set.last_pid(count + 1)?;
            Ok(Err(Error::new(ErrorKind::Os, "claim", name)
                .advise(format!("process {pid} is creating, opening or removing it: if it hangs, resume or kill it"))))
        })();
        match claim {
            Ok(claim) => claim.map(Some),
            Err(e) if sysv_sem::was_removed(&e) => Ok(None),
            Err(e) => Err(Error::os(e, "use the semaphores of", name)),
        }
    }

    /// What is under the key.
    fn look(&self, key: i32) -> Result<Found> {
        let id = match sysv_shm::find(key) {
            Ok(id) => id,
            Err(e) if is(&e, libc::ENOENT) => return Ok(Found::Nothing),
            Err(e) => return Err(Error::os(e, "open", self.name)),
        };
        let state = self.state()?;
        if state == 0 {
            return Err(no_semaphores(self.name));
        }
        let attached = Attached { memory: attach(self.name, id, true)?, id, semaphores: Some(self.semaphores) };
        match attached.is_ready() {
            true => Ok(Found::Whole(attached)),
            false if state == MAKING => Ok(Found::Half { id }),
            false => Err(Error::new(ErrorKind::NotARing, "open", self.name)),
        }
    }

    fn make(&self, key: i32, size: usize, perm: u32, init: impl FnOnce(NonNull<u8>)) -> Result<Attached> {
        let made = self.set_state(MAKING).and_then(|()| {
            let id = sysv_shm::create(key, size, perm)
                .map_err(|e| limits(e, &format!("allocate {size} bytes for"), self.name))?;
            self.fill(id, init).inspect_err(|_| {
                let _ = sysv_shm::remove(id);
            })
        });
        made.inspect_err(|_| {
            let _ = self.remove_set();
        })
    }

    fn fill(&self, id: i32, init: impl FnOnce(NonNull<u8>)) -> Result<Attached> {
        let memory = attach(self.name, id, true)?;
        memory.populate().map_err(|e| limits(e, &format!("allocate {} bytes for", memory.len()), self.name))?;
        publish(memory.as_ptr(), init);
        self.set_state(MADE)?;
        Ok(Attached { memory, id, semaphores: Some(self.semaphores) })
    }

    fn state(&self) -> Result<i32> {
        self.semaphores.set.value(self.semaphores.count).map_err(|e| Error::os(e, "read the state of", self.name))
    }

    fn set_state(&self, state: i32) -> Result<()> {
        let set = self.semaphores.set.set_value(self.semaphores.count, state);
        set.map_err(|e| Error::os(e, "set the state of", self.name))
    }

    /// Refuses a set that shows no sign of ringway; one in which a creation was begun does.
    fn check_ours(&self) -> Result<()> {
        if self.state()? == 0 { Err(foreign(self.name)) } else { Ok(()) }
    }

    /// Removes the set, and with it this claim; true if it was still there.
    fn remove_set(&self) -> Result<bool> {
        match self.semaphores.set.remove() {
            Ok(()) => Ok(true),
            Err(e) if sysv_sem::was_removed(&e) => Ok(false),
            Err(e) => Err(Error::os(e, "remove the semaphores of", self.name)),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // It fails only if the set is gone.
        let _ = self.semaphores.set.free(self.semaphores.count + 1);
    }
}

fn attach(name: &Name, id: i32, writable: bool) -> Result<Attachment> {
    let memory = Attachment::new(id, writable).map_err(|e| Error::os(e, "attach to", name))?;
    match memory.len() {
        PAGE.. => Ok(memory),
        len => Err(Error::new(ErrorKind::NotARing, "open", name)
            .advise(format!("it has {len} bytes, and the smallest segment has {PAGE}"))),
    }
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

/// A limit of the kernel's with its value; of semaphores: in a set, in all, in one operation, and sets in all.
fn limit(file: &str) -> String {
    let value = std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
    format!("{file}={}", value.split_whitespace().collect::<Vec<_>>().join(" "))
}

pub(super) fn limits(source: io::Error, tried: &str, name: impl fmt::Display) -> Error {
    match source.raw_os_error() {
        // The kernel's word for "larger than shmmax" and "more semaphores than semmsl".
        Some(libc::EINVAL) => Error::new(ErrorKind::NoSpace, tried, name),
        _ => Error::os(source, tried, name),
    }
    .advise(format!(
        "the limits are {} (see /proc/sys/kernel/{{shmmax,shmall,shmmni,sem}}): `ipcs -u` shows what is in use, \
         `sysctl kernel.shmmax=NUMBER` and the like raise one",
        ["shmmax", "shmall", "shmmni", "sem"].map(limit).join(", ")
    ))
}

fn foreign(name: &Name) -> Error {
    Error::new(ErrorKind::NotARing, "use the semaphores of", name)
        .advise("the semaphore set of that key belongs to another program: choose another key, or see `ipcs -s`")
}

fn no_semaphores(name: impl fmt::Display) -> Error {
    Error::new(ErrorKind::NotARing, "open", name).advise(
        "the shared memory of that key has no semaphore set of ringway: it belongs to another program, \
         or somebody removed the set (see `ipcs`)",
    )
}
