//! Open-file-description locks: the kernel's proof that whoever holds one is alive.
//!
//! Such a lock belongs to the open file description, so it is shared by a forked child and excludes another descriptor
//! that was opened separately, even in the same process.

use std::{fs::File, io};

use nix::fcntl::{FcntlArg, fcntl};

use super::uninterrupted;

fn one_byte(kind: libc::c_int, byte: u64) -> io::Result<libc::flock> {
    let start = libc::off_t::try_from(byte).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let mut lock = all_bytes(kind);
    (lock.l_start, lock.l_len) = (start, 1);
    Ok(lock)
}

fn all_bytes(kind: libc::c_int) -> libc::flock {
    // SAFETY: flock is plain integers, for which zero is a value: a length of 0 goes on for ever.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence) = (kind as _, libc::SEEK_SET as _);
    lock
}

/// Locks `byte` unless another description has it; says whether it did.
pub(crate) fn try_lock(file: &File, byte: u64) -> io::Result<bool> {
    set(file, one_byte(libc::F_WRLCK, byte)?)
}

fn set(file: &File, lock: libc::flock) -> io::Result<bool> {
    match uninterrupted(|| Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?)) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Locks `byte` together with others who share it, unless another description has it alone; says whether it did.
pub(crate) fn try_share(file: &File, byte: u64) -> io::Result<bool> {
    set(file, one_byte(libc::F_RDLCK, byte)?)
}

/// Locks every byte that the file has or could have, unless another description has any; says whether it did.
pub(crate) fn try_lock_all(file: &File) -> io::Result<bool> {
    set(file, all_bytes(libc::F_WRLCK))
}

/// Unlocks every byte.
pub(crate) fn unlock_all(file: &File) -> io::Result<()> {
    set(file, all_bytes(libc::F_UNLCK)).map(drop)
}

/// Unlocks every byte but one.
pub(crate) fn unlock_all_but(file: &File, byte: u64) -> io::Result<()> {
    let mut below = one_byte(libc::F_UNLCK, 0)?;
    below.l_len = one_byte(libc::F_UNLCK, byte)?.l_start;
    let mut above = one_byte(libc::F_UNLCK, byte + 1)?;
    above.l_len = 0;
    // A length of 0 would go on for ever.
    if below.l_len > 0 {
        set(file, below)?;
    }
    set(file, above).map(drop)
}

/// Locks `byte`, sleeping while another description has it.
pub(crate) fn lock(file: &File, byte: u64) -> io::Result<()> {
    let lock = one_byte(libc::F_WRLCK, byte)?;
    uninterrupted(|| Ok(fcntl(file, FcntlArg::F_OFD_SETLKW(&lock))?)).map(drop)
}

/// Unlocks `byte`.
pub(crate) fn unlock(file: &File, byte: u64) -> io::Result<()> {
    let lock = one_byte(libc::F_UNLCK, byte)?;
    uninterrupted(|| Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?)).map(drop)
}

/// Whether another description has `byte` locked; asking takes no lock and needs no write access.
pub(crate) fn is_locked(file: &File, byte: u64) -> io::Result<bool> {
    let mut lock = one_byte(libc::F_WRLCK, byte)?;
    uninterrupted(|| Ok(fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{child::Child, file, memfd};

    fn two_descriptions() -> (File, File) {
        let first = memfd::create("ofd", 4096, 0o600).unwrap();
        let second = file::reopen(&first, true).unwrap();
        (first, second)
    }

    #[test]
    fn two_descriptions_of_one_process_exclude_each_other() {
        let (a, b) = two_descriptions();
        assert!(!is_locked(&b, 7).unwrap());
        assert!(try_lock(&a, 7).unwrap());
        assert!(!try_lock(&b, 7).unwrap());
        assert!(try_lock(&b, 8).unwrap(), "the next byte is another lock");
        assert!(is_locked(&file::reopen(&a, false).unwrap(), 7).unwrap(), "seen through a read-only descriptor");
        unlock(&a, 7).unwrap();
        assert!(!is_locked(&b, 7).unwrap());
        lock(&b, 7).unwrap();
        assert!(is_locked(&a, 7).unwrap());
    }

    #[test]
    fn one_that_is_shared_is_locked_for_others() {
        let (a, b) = two_descriptions();
        assert!(try_share(&a, 7).unwrap() && try_share(&b, 7).unwrap());
        assert!(!try_lock(&a, 7).unwrap());
        unlock(&a, 7).unwrap();
        assert!(is_locked(&a, 7).unwrap() && !is_locked(&b, 7).unwrap());
        assert!(try_lock(&b, 7).unwrap() && !try_share(&a, 7).unwrap());
    }

    #[test]
    fn a_shared_byte_keeps_out_whoever_wants_all() {
        let (a, b) = two_descriptions();
        let third = file::reopen(&a, true).unwrap();
        assert!(try_share(&a, 0).unwrap() && try_share(&b, 0).unwrap());
        assert!(is_locked(&third, 0).unwrap() && !try_lock_all(&third).unwrap());
        unlock_all(&a).unwrap();
        assert!(!try_lock_all(&third).unwrap(), "b has it still");
        unlock_all(&b).unwrap();
        assert!(try_lock_all(&third).unwrap());
        assert!(!try_share(&a, 0).unwrap() && !try_lock(&b, 1 << 40).unwrap());
        unlock_all_but(&third, 5).unwrap();
        assert!(is_locked(&a, 5).unwrap() && !is_locked(&a, 4).unwrap() && !is_locked(&a, 6).unwrap());
        assert!(try_lock_all(&third).unwrap());
        unlock_all_but(&third, 0).unwrap();
        assert!(is_locked(&a, 0).unwrap() && !is_locked(&a, 1).unwrap());
    }

    #[test]
    fn death_frees_the_lock_even_of_an_unreaped_zombie() {
        let (mine, theirs) = two_descriptions();
        let mut child = Child::fork(|tell| {
            // A description of its own: `theirs` is shared with the parent, which would keep the lock alive.
            let own = file::reopen(&theirs, true).unwrap();
            lock(&own, 1).unwrap();
            tell.say(b'l');
            tell.sleep_until_killed()
        });
        child.expect(b'l');
        assert!(is_locked(&mine, 1).unwrap());
        child.kill_without_reaping();
        assert!(!is_locked(&mine, 1).unwrap());
        lock(&mine, 1).unwrap();
    }

    #[test]
    fn a_blocked_locker_gets_the_lock_of_the_dead() {
        let (mine, theirs) = two_descriptions();
        let mut holder = Child::fork(|tell| {
            let own = file::reopen(&theirs, true).unwrap();
            lock(&own, 1).unwrap();
            tell.say(b'l');
            tell.sleep_until_killed()
        });
        holder.expect(b'l');
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock(&mine, 1));
            holder.kill_without_reaping();
            waiter.join().unwrap().unwrap();
        });
        assert!(is_locked(&theirs, 1).unwrap());
    }

    #[test]
    fn a_forked_child_keeps_an_inherited_lock_alive() {
        // In a process of its own, lest another test's child inherits the description too.
        let mut process = Child::fork(|_| {
            let (mine, theirs) = two_descriptions();
            assert!(try_lock(&mine, 1).unwrap());
            let mut child = Child::fork(|tell| {
                tell.say(b'r');
                tell.sleep_until_killed()
            });
            child.expect(b'r');
            drop(mine);
            assert!(is_locked(&theirs, 1).unwrap());
            child.kill_without_reaping();
            assert!(!is_locked(&theirs, 1).unwrap());
        });
        process.expect_success();
    }
}
