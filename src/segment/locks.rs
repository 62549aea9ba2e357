//! Locks that the kernel frees when their holder dies: a participant's proof of life.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::sys::{fork, ofd, sysv_sem};

/// One party's hold on the numbered locks of a segment.
///
/// Handles exclude each other even within a process. Dropping one frees what it holds, unless in a forked child: there the
/// copy is inert, since the locks are still the parent's.
#[derive(Debug)]
pub(crate) struct Locks {
    holder: Holder,
    /// Those that this handle has: another thread only asks about others'.
    held: Mutex<BTreeSet<u32>>,
    generation: u32,
    segment: String,
}

/// Who keeps the locks.
#[derive(Debug)]
pub(super) enum Holder {
    /// The kernel, on bytes of a file opened for this handle alone.
    File(File),
    /// The kernel, as semaphores that it undoes at death.
    SysV { set: sysv_sem::Set, count: u32 },
    /// This process, for a segment that no other can see.
    Table(Arc<Table>),
}

impl Locks {
    pub(super) fn new(holder: Holder, segment: String) -> Self {
        Self { holder, held: Mutex::default(), generation: fork::enter(), segment }
    }

    /// Takes lock `index` if it is free, and says whether this handle has it now.
    pub(crate) fn try_acquire(&self, index: u32) -> Result<bool> {
        if self.held().contains(&index) {
            return Ok(true);
        }
        let taken = self.holder.try_take(index).map_err(|e| self.error(e, "take", index))?;
        if taken {
            self.held().insert(index);
        }
        Ok(taken)
    }

    /// Takes lock `index`, sleeping while another handle has it.
    ///
    /// Fails with [`NotFound`](crate::error::ErrorKind::NotFound) when a System V segment is removed meanwhile.
    pub(crate) fn acquire(&self, index: u32) -> Result<()> {
        if self.held().contains(&index) {
            return Ok(());
        }
        self.holder.take(index).map_err(|e| self.error(e, "take", index))?;
        self.held().insert(index);
        Ok(())
    }

    /// Frees lock `index` if this handle has it.
    pub(crate) fn release(&self, index: u32) {
        let had = self.held().remove(&index);
        if had && fork::is_current(self.generation) {
            // It fails only if the locks are gone altogether.
            let _ = self.holder.free(index);
        }
    }

    /// Whether another handle, in any process, has lock `index`. The answer for one's own lock is of no use.
    pub(crate) fn is_held(&self, index: u32) -> Result<bool> {
        self.holder.is_taken(index).map_err(|e| self.error(e, "look at", index))
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, source: io::Error, tried: &str, index: u32) -> Error {
        // The set's id is no longer valid, whichever way the kernel says so.
        let removed = matches!(self.holder, Holder::SysV { .. }) && sysv_sem::was_removed(&source);
        let source = if removed { io::Error::from_raw_os_error(libc::EIDRM) } else { source };
        let read_only = source.raw_os_error() == Some(libc::EBADF);
        let error = Error::os(source, format!("{tried} lock {index} of"), &self.segment);
        if read_only { error.advise("it was opened read-only") } else { error }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        // Closing a description isn't enough: a forked child may still have it.
        let held = std::mem::take(&mut *self.held());
        for index in held.iter().copied().filter(|_| fork::is_current(self.generation)) {
            // It fails only if the locks are gone altogether.
            let _ = self.holder.free(index);
        }
    }
}

impl Holder {
    fn try_take(&self, index: u32) -> io::Result<bool> {
        match self {
            Self::File(file) => ofd::try_lock(file, index.into()),
            Self::SysV { set, count } => set.try_take(within(index, *count)?),
            Self::Table(table) => Ok(table.held().insert(index)),
        }
    }

    fn take(&self, index: u32) -> io::Result<()> {
        match self {
            Self::File(file) => ofd::lock(file, index.into()),
            Self::SysV { set, count } => set.take(within(index, *count)?, None).map(drop),
            Self::Table(table) => {
                let free = table.freed.wait_while(table.held(), |held| held.contains(&index));
                free.unwrap_or_else(PoisonError::into_inner).insert(index);
                Ok(())
            }
        }
    }

    fn free(&self, index: u32) -> io::Result<()> {
        match self {
            Self::File(file) => ofd::unlock(file, index.into()),
            Self::SysV { set, .. } => set.free(index),
            Self::Table(table) => {
                table.held().remove(&index);
                table.freed.notify_all();
                Ok(())
            }
        }
    }

    fn is_taken(&self, index: u32) -> io::Result<bool> {
        match self {
            Self::File(file) => ofd::is_locked(file, index.into()),
            Self::SysV { set, count } => Ok(set.value(within(index, *count)?)? != 0),
            Self::Table(table) => Ok(table.held().contains(&index)),
        }
    }
}

/// The semaphores behind `count` aren't for participants.
fn within(index: u32, count: u32) -> io::Result<u32> {
    if index < count { Ok(index) } else { Err(io::Error::from_raw_os_error(libc::EFBIG)) }
}

/// The locks of a segment that lives in one process.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: Mutex<BTreeSet<u32>>,
    freed: Condvar,
}

impl Table {
    fn held(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Nothing panics while it is locked, and a set is whole after each call.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::ErrorKind;
    use crate::segment::{Key, Name, Segment, remove};
    use crate::sys::child::Child;

    struct Named(Name);

    impl Drop for Named {
        fn drop(&mut self) {
            let _ = remove(&self.0);
        }
    }

    /// Names that carry the pid and `number`, which no two tests share.
    fn names(number: i32) -> [Named; 2] {
        let pid = std::process::id();
        let key = 0x2000_0000 | number << 22 | pid as i32;
        [Named(Name::Posix(format!("ringway-locks-{pid}-{number}"))), Named(Name::SysV(Key::Raw(key)))]
    }

    fn create(name: &Name) -> Segment {
        Segment::create_new(name, 4096, 0o600, 4, |_| {}).unwrap()
    }

    /// Runs `test` with a segment of each kind.
    fn with_each(number: i32, test: impl Fn(&Segment)) {
        for named in names(number) {
            test(&create(&named.0));
        }
        test(&Segment::memfd("locks", 4096, 0o600, |_| {}).unwrap());
        test(&Segment::heap(4096, |_| {}).unwrap());
    }

    #[test]
    fn two_handles_of_one_process_exclude_each_other() {
        with_each(1, |segment| {
            let (a, b) = (segment.locks().unwrap(), segment.locks().unwrap());
            assert!(!b.is_held(3).unwrap());
            assert!(a.try_acquire(3).unwrap());
            assert!(a.try_acquire(3).unwrap(), "it has it already");
            a.acquire(3).unwrap();
            assert!(b.is_held(3).unwrap() && !b.try_acquire(3).unwrap());
            assert!(b.try_acquire(2).unwrap(), "another lock");
            b.release(3);
            assert!(b.is_held(3).unwrap(), "only the holder frees it");
            a.release(3);
            assert!(!b.is_held(3).unwrap() && b.try_acquire(3).unwrap());
            drop(b);
            assert!(!a.is_held(3).unwrap() && !a.is_held(2).unwrap());
        });
    }

    #[test]
    fn a_sleeper_gets_the_lock_when_it_is_freed() {
        with_each(2, |segment| {
            let holder = segment.locks().unwrap();
            holder.acquire(0).unwrap();
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| segment.locks().unwrap().acquire(0));
                holder.release(0);
                sleeper.join().unwrap().unwrap();
            });
            assert!(!holder.is_held(0).unwrap());
        });
    }

    #[test]
    fn death_frees_all() {
        for named in names(3) {
            let segment = create(&named.0);
            let mine = segment.locks().unwrap();
            let mut child = Child::fork(|tell| {
                let theirs = segment.locks().unwrap();
                theirs.acquire(0).unwrap();
                theirs.acquire(2).unwrap();
                tell.say(b'l');
                tell.sleep_until_killed()
            });
            child.expect(b'l');
            assert_eq!([0, 1, 2].map(|i| mine.is_held(i).unwrap()), [true, false, true]);
            assert!(!mine.try_acquire(0).unwrap());
            child.kill_without_reaping();
            assert_eq!([0, 1, 2].map(|i| mine.is_held(i).unwrap()), [false; 3]);
            assert!(mine.try_acquire(0).unwrap());
        }
    }

    #[test]
    fn a_forked_copy_is_inert_and_does_not_keep_locks_alive() {
        with_each(4, |segment| {
            let (mine, other) = (segment.locks().unwrap(), segment.locks().unwrap());
            mine.acquire(1).unwrap();
            let holder = std::cell::RefCell::new(Some(mine));
            let mut child = Child::fork(|tell| {
                let copy = holder.take().unwrap();
                copy.release(1);
                drop(copy);
                tell.say(b'd');
                tell.sleep_until_killed()
            });
            child.expect(b'd');
            assert!(other.is_held(1).unwrap(), "the child's drop freed the parent's lock");
            drop(child);
            let mut child = Child::fork(|tell| {
                tell.say(b'k');
                tell.sleep_until_killed()
            });
            child.expect(b'k');
            holder.take();
            assert!(!other.is_held(1).unwrap(), "dropped here, though the child has the description");
        });
    }

    #[test]
    fn those_who_only_look_can_see_locks_but_not_take_them() {
        let [posix, sysv] = names(5);
        for named in [&posix, &sysv] {
            let mine = create(&named.0).locks().unwrap();
            mine.acquire(1).unwrap();
            let reader = Segment::open_read_only(&named.0).unwrap().locks().unwrap();
            assert!(reader.is_held(1).unwrap() && !reader.is_held(2).unwrap());
        }
        let reader = Segment::open_read_only(&posix.0).unwrap().locks().unwrap();
        let error = reader.try_acquire(2).unwrap_err().to_string();
        assert!(error.contains("opened read-only"), "{error}");
    }

    #[test]
    fn the_semaphores_behind_the_locks_are_out_of_reach() {
        let [_, sysv] = names(6);
        let locks = create(&sysv.0).locks().unwrap();
        for index in [4, 5, 6, u32::MAX] {
            assert!(
                locks.try_acquire(index).is_err() && locks.acquire(index).is_err() && locks.is_held(index).is_err()
            );
        }
    }

    #[test]
    fn removal_of_a_system_v_segment_wakes_those_who_wait() {
        let [_, sysv] = names(7);
        let segment = create(&sysv.0);
        let mine = segment.locks().unwrap();
        mine.acquire(0).unwrap();
        let mut waiter = Child::fork(|tell| {
            let locks = segment.locks().unwrap();
            tell.say(b'w');
            assert_eq!(locks.acquire(0).unwrap_err().kind(), ErrorKind::NotFound);
        });
        waiter.expect(b'w');
        segment.unlink().unwrap();
        waiter.expect_success();
        assert_eq!(mine.try_acquire(1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// How members join and leave: whoever holds lock 0 of the segment that the name leads to is alone.
    #[test]
    fn a_lock_of_the_current_segment_excludes_all_others_through_removals() {
        for named in names(8) {
            let board = Segment::memfd("board", 4096, 0o600, |_| {}).unwrap();
            // SAFETY: inside of a mapping that outlives the children, and only accessed atomically.
            let [inside, left] = [0, 64].map(|o| unsafe { AtomicU32::from_ptr(board.as_ptr().as_ptr().add(o).cast()) });
            let mut members = [0, 1, 2].map(|member| {
                let name = &named.0;
                Child::fork(move |_| {
                    for round in 0..300 {
                        let (segment, locks) = join(name);
                        assert_eq!(inside.swap(1, Ordering::SeqCst), 0, "two at once");
                        std::thread::yield_now();
                        assert_eq!(inside.swap(0, Ordering::SeqCst), 1);
                        if round % 3 == member {
                            // Not if another member is just opening it.
                            left.fetch_add(segment.unlink().is_ok().into(), Ordering::SeqCst);
                        }
                        locks.release(0);
                    }
                })
            });
            members.iter_mut().for_each(Child::expect_success);
            assert!(left.load(Ordering::SeqCst) > 0);
        }
    }

    fn join(name: &Name) -> (Segment, Locks) {
        loop {
            let (segment, _) = Segment::open_or_create(name, 4096, 0o600, 4, |_| {}).unwrap();
            let locks = segment.locks().unwrap();
            match locks.acquire(0) {
                Ok(()) if segment.is_current().unwrap() => return (segment, locks),
                Ok(()) => {}
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
            }
        }
    }
}
