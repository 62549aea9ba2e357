//! System V semaphores: as locks that the kernel undoes when their holder dies, and as bells to sleep on.

use std::{io, time::Duration};

use super::{check, clock, uninterrupted};

/// The argument of semctl, which the program has to declare.
#[repr(C)]
union Argument {
    value: libc::c_int,
    status: *mut libc::semid_ds,
}

/// A set of semaphores, each 0 when free and 1 when taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    id: libc::c_int,
}

/// What the kernel knows of a set.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) count: u32,
    pub(crate) mode: u32,
    /// The user who owns it, and the group.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether a call failed because the set was removed meanwhile.
pub(crate) fn was_removed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIDRM | libc::EINVAL))
}

impl Set {
    /// Finds the set of this key, without checking access to it.
    pub(crate) fn find(key: i32) -> io::Result<Self> {
        // SAFETY: a plain system call.
        Ok(Self { id: check(unsafe { libc::semget(key, 0, 0) })? })
    }

    /// Makes a set of `count` free semaphores, failing with `EEXIST` if the key is in use.
    pub(crate) fn create(key: i32, count: u32, perm: u32) -> io::Result<Self> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | perm as libc::c_int;
        let count = libc::c_int::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a plain system call. Linux documents that new semaphores are 0.
        Ok(Self { id: check(unsafe { libc::semget(key, count, flags) })? })
    }

    /// Removes the set at once; whoever waits on it gets `EIDRM`.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.control(0, libc::IPC_RMID, 0).map(drop)
    }

    fn read_status(self) -> io::Result<libc::semid_ds> {
        // SAFETY: semid_ds is plain integers, for which zero is a value.
        let mut status: libc::semid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: `status` is a valid place for the answer.
        check(unsafe { libc::semctl(self.id, 0, libc::IPC_STAT, Argument { status: &mut status }) })?;
        Ok(status)
    }

    pub(crate) fn status(self) -> io::Result<Status> {
        let status = self.read_status()?;
        let (count, mode) = (status.sem_nsems as u32, u32::from(status.sem_perm.mode) & 0o777);
        Ok(Status { count, mode, uid: status.sem_perm.uid, gid: status.sem_perm.gid })
    }

    /// Gives the set to a user and a group.
    pub(crate) fn give_to(self, uid: u32, gid: u32) -> io::Result<()> {
        let mut status = self.read_status()?;
        (status.sem_perm.uid, status.sem_perm.gid) = (uid, gid);
        // SAFETY: the status is valid for the call, which takes owner, group and mode of it.
        check(unsafe { libc::semctl(self.id, 0, libc::IPC_SET, Argument { status: &mut status }) }).map(drop)
    }

    pub(crate) fn value(self, index: u32) -> io::Result<i32> {
        self.control(index, libc::GETVAL, 0)
    }

    pub(crate) fn set_value(self, index: u32, value: i32) -> io::Result<()> {
        self.control(index, libc::SETVAL, value).map(drop)
    }

    /// The process that last took or freed a semaphore.
    pub(crate) fn last_pid(self, index: u32) -> io::Result<u32> {
        Ok(self.control(index, libc::GETPID, 0)? as u32)
    }

    /// Takes a semaphore if it is free, and says whether it did. The kernel frees it when this process dies.
    pub(crate) fn try_take(self, index: u32) -> io::Result<bool> {
        match uninterrupted(|| self.operate(&mut take(index, libc::IPC_NOWAIT)?, None)) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Takes a semaphore, sleeping until it is free or the monotonic `deadline` passes: `Ok(false)`.
    pub(crate) fn take(self, index: u32, deadline: Option<Duration>) -> io::Result<bool> {
        let attempt = || self.operate(&mut take(index, 0)?, deadline.map(|d| d.saturating_sub(clock::now())));
        match uninterrupted(attempt) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Rings a bell: whoever sleeps on it wakes, or else who goes to sleep on it next.
    pub(crate) fn ring(self, index: u32) -> io::Result<()> {
        self.set_value(index, 1)
    }

    /// Sleeps until a bell is rung, or was before, or the monotonic `deadline` passes: `Ok(false)`. A signal handler ends it with
    /// [`io::ErrorKind::Interrupted`].
    pub(crate) fn await_ring(self, index: u32, deadline: Duration) -> io::Result<bool> {
        let mut heard = [libc::sembuf { sem_num: number(index)?, sem_op: -1, sem_flg: 0 }];
        match self.operate(&mut heard, Some(deadline.saturating_sub(clock::now()))) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Frees a semaphore that this process took.
    pub(crate) fn free(self, index: u32) -> io::Result<()> {
        let flags = (libc::SEM_UNDO | libc::IPC_NOWAIT) as libc::c_short;
        uninterrupted(|| {
            self.operate(&mut [libc::sembuf { sem_num: number(index)?, sem_op: -1, sem_flg: flags }], None)
        })
    }

    /// Raises semaphore `index` by one if all of `free` are 0, and says whether it did. The kernel undoes it when this process
    /// dies; [`Set::free`] does, too.
    pub(crate) fn try_enter(self, index: u32, free: &[u32]) -> io::Result<bool> {
        let operation = |index, sem_op, flags: libc::c_int| {
            let sem_flg = (libc::IPC_NOWAIT | flags) as libc::c_short;
            Ok(libc::sembuf { sem_num: number(index)?, sem_op, sem_flg })
        };
        let checks = free.iter().map(|&index| operation(index, 0, 0));
        let mut operations: Vec<_> = checks.chain([operation(index, 1, libc::SEM_UNDO)]).collect::<io::Result<_>>()?;
        match uninterrupted(|| self.operate(&mut operations, None)) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn operate(self, operations: &mut [libc::sembuf], timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(clock::to_timespec);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the operations and the timeout are valid for the call. glibc has a wrapper that libc doesn't declare.
        let answer =
            unsafe { libc::syscall(libc::SYS_semtimedop, self.id, operations.as_mut_ptr(), operations.len(), timeout) };
        check(answer as libc::c_int).map(drop)
    }

    fn control(self, index: u32, command: libc::c_int, value: libc::c_int) -> io::Result<i32> {
        // SAFETY: a command that takes an integer, or nothing.
        check(unsafe { libc::semctl(self.id, number(index)?.into(), command, Argument { value }) })
    }
}

/// "When it is 0, make it 1", as one operation.
fn take(index: u32, flags: libc::c_int) -> io::Result<[libc::sembuf; 2]> {
    let sem_num = number(index)?;
    Ok([
        libc::sembuf { sem_num, sem_op: 0, sem_flg: flags as libc::c_short },
        libc::sembuf { sem_num, sem_op: 1, sem_flg: (flags | libc::SEM_UNDO) as libc::c_short },
    ])
}

fn number(index: u32) -> io::Result<libc::c_ushort> {
    libc::c_ushort::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;

    struct Temporary(Set);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = self.0.remove();
        }
    }

    fn temporary(count: u32) -> Temporary {
        Temporary(Set::create(libc::IPC_PRIVATE, count, 0o600).unwrap())
    }

    #[test]
    fn a_semaphore_is_taken_once() {
        let guard = temporary(2);
        let set = guard.0;
        let status = set.status().unwrap();
        assert_eq!((status.count, status.mode), (2, 0o600));
        assert!(set.try_take(1).unwrap());
        assert!(!set.try_take(1).unwrap(), "not even by the same process");
        assert!(!set.take(1, Some(clock::now())).unwrap());
        assert_eq!((set.value(1).unwrap(), set.value(0).unwrap()), (1, 0));
        assert_eq!(set.last_pid(1).unwrap(), std::process::id());
        set.free(1).unwrap();
        assert!(set.take(1, None).unwrap());
        assert_eq!(set.try_take(2).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }

    #[test]
    fn many_enter_until_somebody_wants_none_to_be_there() {
        let guard = temporary(2);
        let set = guard.0;
        assert!(set.try_enter(0, &[1]).unwrap() && set.try_enter(0, &[1]).unwrap());
        assert_eq!(set.value(0).unwrap(), 2);
        assert!(!set.try_enter(1, &[0, 1]).unwrap());
        set.free(0).unwrap();
        set.free(0).unwrap();
        let mut child = Child::fork(|tell| {
            assert!(set.try_enter(1, &[0, 1]).unwrap());
            tell.say(b'e');
            tell.sleep_until_killed()
        });
        child.expect(b'e');
        assert!(!set.try_enter(0, &[1]).unwrap());
        child.kill_without_reaping();
        assert!(set.try_enter(0, &[1]).unwrap());
    }

    #[test]
    fn death_frees_what_was_taken_even_of_an_unreaped_zombie() {
        let guard = temporary(1);
        let set = guard.0;
        let mut child = Child::fork(|tell| {
            assert!(set.try_take(0).unwrap());
            tell.say(b't');
            tell.sleep_until_killed()
        });
        child.expect(b't');
        assert!(!set.try_take(0).unwrap());
        child.kill_without_reaping();
        assert!(set.try_take(0).unwrap());
    }

    #[test]
    fn a_forked_child_does_not_hold_what_its_parent_took() {
        let guard = temporary(1);
        let set = guard.0;
        assert!(set.try_take(0).unwrap());
        Child::fork(|_| {}).expect_success();
        assert_eq!(set.value(0).unwrap(), 1, "the child's end freed nothing");
    }

    #[test]
    fn a_bell_wakes_a_sleeper_and_is_heard_once() {
        let guard = temporary(3);
        let set = guard.0;
        let soon = || clock::now() + Duration::from_millis(2);
        assert!(!set.await_ring(2, soon()).unwrap());
        set.ring(2).unwrap();
        set.ring(2).unwrap();
        assert!(set.await_ring(2, Duration::ZERO).unwrap(), "it was rung, however late it is");
        assert!(!set.await_ring(2, soon()).unwrap());
        let mut child = Child::fork(|tell| {
            tell.say(b'w');
            assert!(set.await_ring(2, clock::now() + Duration::from_secs(30)).unwrap());
            tell.say(b'h');
            assert!(was_removed(&set.await_ring(2, clock::now() + Duration::from_secs(30)).unwrap_err()));
        });
        child.expect(b'w');
        child.await_sleep();
        set.ring(2).unwrap();
        child.expect(b'h');
        set.remove().unwrap();
        child.expect_success();
        assert!(was_removed(&set.ring(2).unwrap_err()));
    }

    #[test]
    fn removal_ends_a_wait() {
        let guard = temporary(1);
        let set = guard.0;
        assert!(set.try_take(0).unwrap());
        let mut child = Child::fork(|tell| {
            tell.say(b'w');
            assert!(was_removed(&set.take(0, None).unwrap_err()));
        });
        child.expect(b'w');
        set.remove().unwrap();
        child.expect_success();
        assert!(was_removed(&set.value(0).unwrap_err()));
    }
}
