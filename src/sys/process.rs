//! Who a process is, beyond a number that is used again, and whether it still lives.

use std::os::unix::fs::MetadataExt;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::{clock, fork::PerProcess, uninterrupted};

/// What tells one process from all others that ever ran on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) boot_id: [u64; 2],
    /// The inode of its pid namespace.
    pub(crate) pid_namespace: u64,
    /// Its process id in that namespace.
    pub(crate) pid: u32,
    /// In clock ticks since boot, as seen from its own time namespace.
    pub(crate) start_time: u64,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs, and isn't on its way out.
    Alive,
    /// It is provably gone, all of its threads.
    Gone,
    /// Can't be told from here: it was of another boot, is in another namespace, or exiting just now.
    Unknown,
    /// Can't be told now: this process lacks descriptors or memory to ask.
    Unasked,
}

impl ProcessId {
    /// This process.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self {
            boot_id: clock::boot_id()?,
            pid_namespace: own_namespace()?,
            pid: std::process::id(),
            start_time: Stat::read("self")?.start_time,
        })
    }

    /// Whether that process still lives.
    ///
    /// Ask for its lock first and for its fate after: then "the lock is free, but it is alive" can't be a process caught
    /// while exiting.
    pub(crate) fn fate(&self) -> Fate {
        match clock::boot_id() {
            // Mostly a reboot; but a container may have been given a boot id of its own.
            Ok(boot_id) if boot_id != self.boot_id => return Fate::Unknown,
            Ok(_) if own_namespace().is_ok_and(|own| own == self.pid_namespace) && proc_is_of_own_namespace() => {}
            Err(e) if is_exhaustion(&e) => return Fate::Unasked,
            _ => return Fate::Unknown,
        }
        match Stat::read(&self.pid.to_string()) {
            // Whoever it was: a number has one owner.
            Ok(stat) if stat.is_dead => Fate::Gone,
            Ok(stat) if stat.start_time != self.start_time => match is_of_own_time_namespace(self.pid) {
                true => Fate::Gone,
                false => Fate::Unknown,
            },
            Ok(stat) if stat.is_exiting => Fate::Unknown,
            Ok(_) => Fate::Alive,
            // /proc may hide other users' processes (hidepid), so that the last word is kill's.
            Err(_) if no_such_process(self.pid) => Fate::Gone,
            Err(e) if is_exhaustion(&e) => Fate::Unasked,
            Err(_) => Fate::Unknown,
        }
    }
}

/// The effective user of this process.
pub(crate) fn user_id() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The effective group of this process.
pub(crate) fn group_id() -> u32 {
    nix::unistd::getegid().as_raw()
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// A process never leaves its pid namespace, but its children may be born into another.
fn own_namespace() -> io::Result<u64> {
    static KNOWN: PerProcess<1> = PerProcess::unknown();

    KNOWN.get(|| Ok([fs::metadata("/proc/self/ns/pid")?.ino()])).map(|[inode]| inode)
}

/// Each time namespace counts from a boot time of its own, so that one process has other start times in others.
fn is_of_own_time_namespace(pid: u32) -> bool {
    let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/time")).map(|m| m.ino()).map_err(|e| e.kind());
    // Where the kernel has no such namespaces, both are `NotFound`.
    namespace(&pid.to_string()) == namespace("self")
}

/// A /proc mounted for another pid namespace numbers processes differently.
fn proc_is_of_own_namespace() -> bool {
    fs::read_link("/proc/self").is_ok_and(|own| own == Path::new(&std::process::id().to_string()))
}

fn no_such_process(pid: u32) -> bool {
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid > 0 => {
            // SAFETY: signal 0 only asks.
            let answer = unsafe { libc::kill(pid, 0) };
            answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
        }
        _ => false,
    }
}

/// What /proc/PID/stat tells.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    start_time: u64,
    is_dead: bool,
    is_exiting: bool,
}

impl Stat {
    fn read(pid: &str) -> io::Result<Self> {
        // Bytes, because a process may call itself anything. At once, as idle waiters do this again and again; the kernel gives as much as
        // there is room for, and what is of interest is in the first half.
        let mut text = [0; 1024];
        let mut file = File::open(format!("/proc/{pid}/stat"))?;
        let len = uninterrupted(|| file.read(&mut text))?;
        Self::parse(&String::from_utf8_lossy(&text[..len]))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has another form"))
    }

    fn parse(text: &str) -> Option<Self> {
        /// The kernel's flag of a thread that has begun to exit.
        const PF_EXITING: u64 = 4;

        // The name, in parentheses, may hold spaces and parentheses itself. Fields are numbered from 1 in proc(5); the
        // first one behind the name is number 3.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ended = matches!(*fields.first()?, "Z" | "X");
        Some(Self {
            start_time: number(22)?,
            // A zombie alone is no proof: the first thread may exit before the others.
            is_dead: ended && number(20)? <= 1,
            is_exiting: ended || number(9)? & PF_EXITING != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::Child;
    use std::os::unix::process::CommandExt;

    fn process_id(pid: u32) -> ProcessId {
        let start_time = Stat::read(&pid.to_string()).unwrap().start_time;
        ProcessId { pid, start_time, ..ProcessId::current().unwrap() }
    }

    #[test]
    fn the_name_of_a_process_may_look_like_its_fields() {
        let rest = "S 1 2 3 4 5 4194304 7 8 9 10 11 12 13 14 15 16 1 18 777 20";
        for name in ["cat", "a b", ") Z 1", "((", "\u{fffd})"] {
            let stat = Stat::parse(&format!("12 ({name}) {rest}")).unwrap();
            assert_eq!(stat, Stat { start_time: 777, is_dead: false, is_exiting: false });
        }
        assert_eq!(Stat::parse("12 (cat) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn i_am_alive_and_my_variations_are_not() {
        let me = ProcessId::current().unwrap();
        assert_eq!(me.fate(), Fate::Alive);
        assert_eq!(ProcessId { start_time: me.start_time + 1, ..me }.fate(), Fate::Gone, "the number was used again");
        assert_eq!(ProcessId { boot_id: [7; 2], ..me }.fate(), Fate::Unknown, "before a reboot, or not");
        assert_eq!(ProcessId { pid_namespace: 1, ..me }.fate(), Fate::Unknown);
        assert_eq!(ProcessId { pid: 0, ..me }.fate(), Fate::Unknown);
        assert_eq!(ProcessId { pid: u32::MAX, ..me }.fate(), Fate::Unknown);
    }

    #[test]
    fn a_child_lives_until_killed_and_a_stopped_one_lives() {
        let mut child = Child::fork(|tell| tell.sleep_until_killed());
        let id = process_id(child.pid());
        assert_eq!(id.fate(), Fate::Alive);
        child.signal(libc::SIGSTOP);
        assert_eq!(id.fate(), Fate::Alive);
        child.kill_without_reaping();
        assert_eq!(id.fate(), Fate::Gone, "a zombie without other threads");
        child.reap();
        assert_eq!(id.fate(), Fate::Gone);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_not_gone() {
        let mut child = Child::fork(|tell| {
            tell.say(b'1');
            std::thread::scope(|scope| {
                let first = std::process::id();
                scope.spawn(move || {
                    while !Stat::read(&first.to_string()).unwrap().is_exiting {
                        std::thread::yield_now();
                    }
                    tell.say(b'2');
                    tell.sleep_until_killed()
                });
                // SAFETY: ends the first thread only, on purpose without unwinding; the scope keeps its stack.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            });
        });
        child.expect(b'1');
        let id = process_id(child.pid());
        child.expect(b'2');
        assert_eq!(id.fate(), Fate::Unknown);
        child.kill_without_reaping();
        assert_eq!(id.fate(), Fate::Gone);
    }

    #[test]
    fn a_process_in_another_pid_namespace_can_not_be_judged() {
        let me = ProcessId::current().unwrap();
        let mut child = Child::fork(|_| {
            // SAFETY: only children of this child enter the namespace.
            let answer = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) };
            assert_eq!(answer, 0, "this test needs namespaces: {}", io::Error::last_os_error());
            let mut inner = Child::fork(|_| {
                // Its /proc is still the outer namespace's.
                assert_eq!(std::process::id(), 1);
                assert_eq!(me.fate(), Fate::Unknown);
                assert_eq!(ProcessId::current().unwrap().fate(), Fate::Unknown);
            });
            inner.expect_success();
        });
        child.expect_success();
    }

    #[test]
    fn exec_keeps_the_identity() {
        let mut command = std::process::Command::new("sleep").arg("60").arg0("x) Z 1 1").spawn().unwrap();
        let id = process_id(command.id());
        assert_eq!(id.fate(), Fate::Alive);
        command.kill().unwrap();
        command.wait().unwrap();
        assert_eq!(id.fate(), Fate::Gone);
    }
}
