//! Segments of each kind, used, raced for and killed by real processes.

#[allow(dead_code, reason = "each uses its own part")]
#[path = "../src/sys/child.rs"]
mod child;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use child::Child;
use ringway::error::{ErrorKind, Result};
use ringway::segment::{Key, Kind, Name, Segment, list, remove};

const LOCKS: u32 = 3;
/// Where the tests write what they recognise a segment by.
const TOKEN: usize = 128;
const SIZE: usize = 3 * 4096;

/// A name that no other test has, removed at the end.
struct Temporary(Name);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove(&self.0);
        if let Name::File(path) = &self.0 {
            // What a failed test put there instead of a segment.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn temporary(kind: Kind) -> Temporary {
    named(kind, number())
}

fn named(kind: Kind, number: u32) -> Temporary {
    let pid = std::process::id();
    Temporary(match kind {
        Kind::Posix => Name::Posix(format!("ringway-test-{pid}-{number}")),
        Kind::File => Name::File(std::env::temp_dir().join(format!("ringway-test-{pid}-{number}"))),
        _ => Name::SysV(Key::Raw(sysv_key(pid, number))),
    })
}

/// Keys carry the pid too: 22 bits of it, as Linux has at most.
fn sysv_key(pid: u32, number: u32) -> i32 {
    assert!(number < 256, "keys have room for 8 bits");
    (0x4000_0000 | number << 22 | pid) as i32
}

const NAMED: [Kind; 3] = [Kind::Posix, Kind::File, Kind::SysV];

fn word(segment: &Segment, offset: usize) -> &AtomicU64 {
    assert!(offset + 8 <= segment.len());
    // SAFETY: inside of the segment, aligned, and accessed atomically by all.
    unsafe { AtomicU64::from_ptr(segment.as_ptr().add(offset).cast().as_ptr()) }
}

/// Writes `token` at the start and at the end, so that half-made segments would show.
fn fill(token: u64) -> impl FnOnce(NonNull<u8>) {
    move |start| {
        // SAFETY: within SIZE, aligned, and nobody else sees the memory yet.
        unsafe {
            assert_eq!(start.add(TOKEN).cast::<u64>().read(), 0, "new segments are zeroed");
            start.add(TOKEN).cast::<u64>().write(token);
            start.add(SIZE - 8).cast::<u64>().write(token);
        }
    }
}

/// What a whole segment was filled with.
fn token(segment: &Segment) -> u64 {
    assert_eq!(segment.len(), SIZE);
    assert_eq!(word(segment, 56).load(Ordering::Acquire) as u32, 1, "ready");
    let token = word(segment, TOKEN).load(Ordering::Relaxed);
    assert_ne!(token, 0);
    assert_eq!(token, word(segment, SIZE - 8).load(Ordering::Relaxed));
    token
}

fn create(name: &Name, value: u64) -> Result<Segment> {
    Segment::create_new(name, SIZE - 100, 0o600, LOCKS, fill(value))
}

fn open_or_create(name: &Name, value: u64) -> Result<(Segment, bool)> {
    Segment::open_or_create(name, SIZE - 100, 0o600, LOCKS, fill(value))
}

fn kind_of<T>(answer: Result<T>) -> ErrorKind {
    answer.err().expect("an error").kind()
}

fn has_semaphores(name: &Name) -> bool {
    let Name::SysV(key) = name else { return false };
    sysv_keys("sem").contains(&key.number().unwrap())
}

fn sysv_keys(table: &str) -> Vec<i32> {
    let table = fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap();
    table.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_life_under_each_kind_of_name() {
    for kind in NAMED {
        let guard = temporary(kind);
        let name = &guard.0;
        assert_eq!(kind_of(Segment::open(name)), ErrorKind::NotFound);
        assert_eq!(kind_of(Segment::open_read_only(name)), ErrorKind::NotFound);
        assert_eq!(kind_of(remove(name)), ErrorKind::NotFound);

        let first = create(name, 1).unwrap();
        assert_eq!((first.kind(), first.name(), first.len()), (kind, Some(name), SIZE));
        assert_eq!(first.to_string(), name.to_string());
        assert_eq!(first.as_ptr().addr().get() % 4096, 0);
        assert_eq!(kind_of(create(name, 2)), ErrorKind::AlreadyExists);

        let second = Segment::open(name).unwrap();
        assert_eq!(token(&second), 1);
        word(&second, 256).store(99, Ordering::Relaxed);
        assert_eq!(word(&first, 256).load(Ordering::Relaxed), 99);
        let (third, created) = open_or_create(name, 3).unwrap();
        assert!(!created && token(&third) == 1 && third.is_current().unwrap());

        let metadata = first.metadata().unwrap();
        // SAFETY: geteuid has no preconditions.
        let uid = unsafe { libc::geteuid() };
        assert_eq!((metadata.size, metadata.mode, metadata.uid), (SIZE, 0o600, uid));
        if kind != Kind::File {
            let listed = list().unwrap().into_iter().find(|(listed, _)| listed == name);
            assert_eq!(listed.expect("listed").1, metadata);
        }

        second.unlink().unwrap();
        assert!(!first.is_current().unwrap() && !third.is_current().unwrap());
        assert_eq!(kind_of(Segment::open(name)), ErrorKind::NotFound);
        assert!(!has_semaphores(name));
        assert_eq!(token(&third), 1, "those who have it keep it");

        let (next, created) = open_or_create(name, 4).unwrap();
        assert!(created);
        first.unlink().unwrap();
        assert!(next.is_current().unwrap(), "the old segment doesn't remove its successor");
        drop((first, second, third, next));
        assert_eq!(token(&Segment::open(name).unwrap()), 4, "it outlives its users");
        remove(name).unwrap();
        assert_eq!(kind_of(Segment::open(name)), ErrorKind::NotFound);
        assert!(!has_semaphores(name));
    }
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    let mut child = Child::fork(|_| {
        // SAFETY: only this child's umask.
        unsafe { libc::umask(0o077) };
        for kind in NAMED {
            let guard = temporary(kind);
            let segment = Segment::create_new(&guard.0, 1, 0o664, 1, |_| {}).unwrap();
            assert_eq!(segment.metadata().unwrap().mode, 0o664);
        }
        assert_eq!(Segment::memfd("mode", 1, 0o660, |_| {}).unwrap().metadata().unwrap().mode, 0o660);
    });
    child.expect_success();
    let guard = temporary(Kind::Posix);
    for perm in [0o400, 0, 0o700, 0o4600] {
        assert_eq!(kind_of(Segment::create_new(&guard.0, 1, perm, 1, |_| {})), ErrorKind::InvalidInput);
    }
}

#[test]
fn others_are_refused_by_the_mode() {
    for kind in NAMED {
        let guard = temporary(kind);
        let _segment = create(&guard.0, 1).unwrap();
        let mut child = Child::fork(|_| {
            // SAFETY: only this child's user.
            assert_eq!(unsafe { libc::setuid(65534) }, 0, "needs root: {}", io::Error::last_os_error());
            for answer in [Segment::open(&guard.0), Segment::open_read_only(&guard.0), create(&guard.0, 2)] {
                let kind = kind_of(answer);
                assert!(matches!(kind, ErrorKind::PermissionDenied | ErrorKind::AlreadyExists), "{kind:?}");
            }
            assert!(remove(&guard.0).is_err());
        });
        child.expect_success();
        assert_eq!(token(&Segment::open(&guard.0).unwrap()), 1);
    }
}

#[test]
fn what_is_opened_read_only_can_not_be_written() {
    for kind in NAMED {
        let guard = temporary(kind);
        create(&guard.0, 7).unwrap();
        let segment = Segment::open_read_only(&guard.0).unwrap();
        assert_eq!(token(&segment), 7);
        let status = Child::fork(|_| word(&segment, TOKEN).store(8, Ordering::Relaxed)).reap();
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
    }
}

#[test]
fn segments_without_a_name() {
    let memfd = Segment::memfd("test", SIZE, 0o600, fill(5)).unwrap();
    let heap = Segment::heap(SIZE, fill(6)).unwrap();
    assert_eq!((memfd.kind(), heap.kind()), (Kind::Memfd, Kind::Heap));
    for segment in [&memfd, &heap] {
        assert!(segment.name().is_none() && segment.is_current().unwrap());
        assert_eq!((segment.metadata().unwrap().size, segment.metadata().unwrap().mode), (SIZE, 0o600));
        segment.unlink().unwrap();
    }
    Child::fork(|_| word(&memfd, 256).store(token(&memfd), Ordering::Relaxed)).expect_success();
    assert_eq!(word(&memfd, 256).load(Ordering::Relaxed), 5, "shared with a forked child");
    std::thread::scope(|scope| {
        scope.spawn(|| word(&heap, 256).store(token(&heap), Ordering::Relaxed));
    });
    assert_eq!(word(&heap, 256).load(Ordering::Relaxed), 6, "shared with a thread");
}

#[test]
fn what_can_not_be_a_segment_is_refused() {
    let guard = temporary(Kind::File);
    let Name::File(path) = &guard.0 else { unreachable!() };
    let refused = |made: &str| {
        assert_eq!(kind_of(Segment::open(&guard.0)), ErrorKind::NotARing, "{made}");
        assert_eq!(kind_of(Segment::open_read_only(&guard.0)), ErrorKind::NotARing, "{made}");
        assert_eq!(kind_of(open_or_create(&guard.0, 1)), ErrorKind::NotARing, "{made}");
        assert_eq!(kind_of(create(&guard.0, 1)), ErrorKind::AlreadyExists, "{made}");
    };
    fs::write(path, [1; 4095]).unwrap();
    refused("a small file");
    remove(&guard.0).unwrap();
    fs::create_dir(path).unwrap();
    refused("a directory");
    assert_eq!(kind_of(remove(&guard.0)), ErrorKind::NotARing);
    fs::remove_dir(path).unwrap();
    symlink("/nonexistent", path).unwrap();
    refused("a symbolic link");
    fs::remove_file(path).unwrap();
    let fifo = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    refused("a FIFO");
    fs::remove_file(path).unwrap();
}

/// System V objects made without ringway, removed at the end.
struct Foreign {
    memory: Option<i32>,
    semaphores: Option<i32>,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: plain system calls.
        unsafe {
            self.memory.map(|id| libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()));
            self.semaphores.map(|id| libc::semctl(id, 0, libc::IPC_RMID));
        }
    }
}

#[test]
fn system_v_objects_of_other_programs_are_left_alone() {
    let guard = temporary(Kind::SysV);
    let Name::SysV(Key::Raw(key)) = guard.0 else { unreachable!() };
    let case = |what: &str, has_memory: bool, semaphores: Option<(i32, i32)>| {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
        // SAFETY: plain system calls.
        let foreign = unsafe {
            Foreign {
                memory: has_memory.then(|| libc::shmget(key, SIZE, flags)),
                semaphores: semaphores.map(|(count, value)| {
                    let id = libc::semget(key, count, flags);
                    assert_eq!(libc::semctl(id, 0, libc::SETVAL, value), 0);
                    id
                }),
            }
        };
        assert_eq!(kind_of(open_or_create(&guard.0, 1)), ErrorKind::NotARing, "{what}");
        assert_eq!(kind_of(create(&guard.0, 1)), ErrorKind::NotARing, "{what}");
        let opened = if has_memory { ErrorKind::NotARing } else { ErrorKind::NotFound };
        assert_eq!(kind_of(Segment::open(&guard.0)), opened, "{what}");
        assert_eq!(sysv_keys("shm").contains(&key), has_memory, "{what}");
        assert_eq!(sysv_keys("sem").contains(&key), semaphores.is_some(), "{what}");
        drop(foreign);
    };
    case("memory", true, None);
    case("one semaphore", false, Some((1, 0)));
    case("semaphores in use", false, Some((2, 1)));
    case("new semaphores of another number", false, Some((2, 0)));
    case("memory and semaphores", true, Some((2, 0)));
    assert!(open_or_create(&guard.0, 1).unwrap().1, "and nothing stays in the way");
}

#[test]
fn errors_say_what_to_do() {
    let key = Name::SysV(Key::Path { path: "/nonexistent/file".into(), id: 1 });
    let message = open_or_create(&key, 1).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/file") && message.contains("create it first"), "{message}");

    let file = Name::File("/nonexistent/directory/file".into());
    let message = open_or_create(&file, 1).unwrap_err().to_string();
    assert!(message.contains("create the directory /nonexistent/directory first"), "{message}");

    let error = create(&Name::File("/proc/file".into()), 1).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("O_TMPFILE"), "{error}");

    for kind in NAMED {
        let guard = temporary(kind);
        for size in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let error = Segment::create_new(&guard.0, size, 0o600, 1, |_| {}).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NoSpace), "{error}");
            assert_eq!(kind_of(Segment::open(&guard.0)), ErrorKind::NotFound);
            assert!(!has_semaphores(&guard.0));
        }
    }
    assert_eq!(kind_of(Segment::heap(isize::MAX as usize, |_| {})), ErrorKind::InvalidInput);
    assert_eq!(kind_of(Segment::heap(1 << 60, |_| {})), ErrorKind::NoSpace);
    assert_eq!(kind_of(Segment::create_new(&temporary(Kind::SysV).0, 1, 0o600, 1 << 20, |_| {})), ErrorKind::NoSpace);
}

#[test]
fn too_many_open_files_are_an_error_with_advice() {
    let mut child = Child::fork(|_| {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: only this child's limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let named = [Kind::Posix, Kind::File].map(|kind| create(&temporary(kind).0, 1));
        for answer in named.into_iter().chain([Segment::memfd("full", SIZE, 0o600, |_| {})]) {
            let error = answer.unwrap_err();
            assert!(error.kind() == ErrorKind::NoSpace && error.to_string().contains("ulimit -n"), "{error}");
        }
    });
    child.expect_success();
}

#[test]
fn a_full_file_system_is_an_error_at_creation() {
    let directory = std::env::temp_dir().join(format!("ringway-test-{}-full", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let result = std::panic::catch_unwind(|| {
        let mut child = Child::fork(|_| {
            mount_small_tmpfs(&directory);
            let name = Name::File(directory.join("ring"));
            let error = Segment::create_new(&name, 4 << 20, 0o600, 1, |_| {}).unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert!(message.contains("4194304 bytes") && message.contains("df -h"), "{message}");
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
            let segment = Segment::create_new(&name, 512 << 10, 0o600, 1, |_| {}).unwrap();
            let other = Name::File(directory.join("other"));
            assert_eq!(kind_of(Segment::create_new(&other, 768 << 10, 0o600, 1, |_| {})), ErrorKind::NoSpace);
            // Every byte of the first is there, though the file system is full now.
            let _ = fs::write(directory.join("filler"), vec![1; 1 << 20]);
            for offset in (0..segment.len()).step_by(8) {
                word(&segment, offset).store(1, Ordering::Relaxed);
            }
        });
        child.expect_success();
    });
    fs::remove_dir(&directory).unwrap();
    result.unwrap();
}

/// In a mount namespace of this process's own, which ends with it.
fn mount_small_tmpfs(directory: &std::path::Path) {
    let failed = || format!("this test needs mount namespaces: {}", io::Error::last_os_error());
    // SAFETY: plain system calls on C strings; the process has one thread.
    unsafe {
        let uid = libc::geteuid();
        if uid == 0 {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "{}", failed());
        } else {
            assert_eq!(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS), 0, "{}", failed());
            fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        }
        let none = std::ptr::null();
        assert_eq!(
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()),
            0,
            "{}",
            failed()
        );
        let target = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
        let (tmpfs, options) = (c"tmpfs".as_ptr(), c"size=1m".as_ptr().cast());
        assert_eq!(libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options), 0, "{}", failed());
    }
}

#[test]
fn two_that_open_at_once_end_in_the_same_segment() {
    for kind in NAMED {
        for round in 1..=100 {
            let guard = temporary_round(kind, round);
            let board = Segment::memfd("board", 4096, 0o600, |_| {}).unwrap();
            let mut racers = [1u64, 2].map(|racer| {
                let (board, name) = (&board, &guard.0);
                Child::fork(move |_| {
                    // The start is as close together as two processes get.
                    word(board, 0).fetch_add(1, Ordering::AcqRel);
                    while word(board, 0).load(Ordering::Acquire) < 2 {
                        std::thread::yield_now();
                    }
                    let (segment, created) = open_or_create(name, racer << 32 | round).unwrap();
                    assert!(segment.is_current().unwrap());
                    word(board, 8 * racer as usize).store(token(&segment), Ordering::Relaxed);
                    word(board, 64).fetch_add(created.into(), Ordering::Relaxed);
                })
            });
            racers.iter_mut().for_each(Child::expect_success);
            let [first, second] = [8, 16].map(|offset| word(&board, offset).load(Ordering::Relaxed));
            assert_eq!(first, second);
            assert_eq!(word(&board, 64).load(Ordering::Relaxed), 1, "exactly one created it");
        }
    }
}

/// Rounds follow each other, so they share a name.
fn temporary_round(kind: Kind, round: u64) -> Temporary {
    static FIRST: [AtomicU32; 3] = [const { AtomicU32::new(u32::MAX) }; 3];
    let first = &FIRST[NAMED.iter().position(|&k| k == kind).unwrap()];
    if round == 1 {
        first.store(number(), Ordering::Relaxed);
    }
    named(kind, first.load(Ordering::Relaxed))
}

#[test]
fn removal_races_with_opening() {
    for kind in NAMED {
        let guard = temporary(kind);
        let name = &guard.0;
        let board = Segment::memfd("board", 4096, 0o600, |_| {}).unwrap();
        let stop = word(&board, 0);
        let mut remover = Child::fork(|_| {
            while stop.load(Ordering::Acquire) < 2 {
                match remove(name) {
                    Ok(()) => _ = word(&board, 8).fetch_add(1, Ordering::Relaxed),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
                }
            }
        });
        let mut openers = [1u64, 2].map(|opener| {
            Child::fork(move |_| {
                for round in 1..=500 {
                    let (segment, created) = open_or_create(name, opener << 32 | round).unwrap();
                    let found = token(&segment);
                    assert!(!created || found == opener << 32 | round);
                    match Segment::open(name) {
                        Ok(segment) => _ = token(&segment),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
                    }
                }
                stop.fetch_add(1, Ordering::AcqRel);
            })
        });
        openers.iter_mut().for_each(Child::expect_success);
        remover.expect_success();
        assert!(word(&board, 8).load(Ordering::Relaxed) > 0, "nothing was removed");
        let (a, _) = open_or_create(name, 1).unwrap();
        let (b, created) = open_or_create(name, 2).unwrap();
        assert!(!created && token(&a) == token(&b));
    }
}

/// Runs `work` in a child and kills it at its `step`th stop, before or after a system call; false if it ended first.
fn killed_at(step: u32, work: impl FnOnce()) -> bool {
    let trace = |request: libc::c_uint, pid: libc::pid_t| {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: requests without arguments.
        assert_eq!(unsafe { libc::ptrace(request, pid, none, none) }, 0, "{}", io::Error::last_os_error());
    };
    let mut child = Child::fork(|_| {
        trace(libc::PTRACE_TRACEME, 0);
        // SAFETY: lets the parent take hold.
        unsafe { libc::raise(libc::SIGSTOP) };
        work();
    });
    for _ in 0..step {
        if !libc::WIFSTOPPED(child.wait()) {
            return false;
        }
        trace(libc::PTRACE_SYSCALL, child.pid() as i32);
    }
    if !libc::WIFSTOPPED(child.wait()) {
        return false;
    }
    child.signal(libc::SIGKILL);
    child.reap();
    true
}

#[test]
fn a_creator_killed_at_any_system_call_leaves_nothing_half_made() {
    for kind in NAMED {
        let mut took_over = 0;
        let mut steps = 0;
        loop {
            let guard = named(kind, 200);
            let name = &guard.0;
            if !killed_at(steps, || drop(create(name, 1).unwrap())) {
                break;
            }
            steps += 1;
            match Segment::open(name) {
                Ok(segment) => assert_eq!(token(&segment), 1),
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
            }
            let (segment, created) = open_or_create(name, 2).unwrap();
            assert_eq!(token(&segment), if created { 2 } else { 1 });
            took_over += u32::from(created);
            remove(name).unwrap();
            assert!(!has_semaphores(name) && kind_of(Segment::open(name)) == ErrorKind::NotFound);
        }
        assert!(steps > 20 && took_over > 10 && took_over < steps, "{kind:?}: {took_over} of {steps}");
    }
}

#[test]
fn a_remover_killed_at_any_system_call_can_be_followed() {
    for kind in NAMED {
        let mut steps = 0;
        loop {
            let guard = named(kind, 201);
            let name = &guard.0;
            create(name, 1).unwrap();
            if !killed_at(steps, || remove(name).unwrap()) {
                break;
            }
            steps += 1;
            // Of another shape, so that what is left of the first has to go.
            let (segment, created) = Segment::open_or_create(name, SIZE, 0o660, LOCKS + 1, fill(2)).unwrap();
            assert_eq!(token(&segment), if created { 2 } else { 1 });
            segment.unlink().unwrap();
            assert!(!has_semaphores(name) && kind_of(Segment::open(name)) == ErrorKind::NotFound);
        }
        assert!(steps > 3, "{kind:?}: {steps}");
    }
}

#[test]
fn an_opener_waits_for_a_creator_at_work() {
    let guard = temporary(Kind::SysV);
    let name = &guard.0;
    let (mut wait, go) = io::pipe().unwrap();
    let mut creator = Child::fork(|tell| {
        let segment = Segment::create_new(name, SIZE, 0o600, LOCKS, |start| {
            tell.say(b'i');
            io::Read::read_exact(&mut wait, &mut [0]).unwrap();
            fill(1)(start);
        });
        assert_eq!(token(&segment.unwrap()), 1);
    });
    creator.expect(b'i');
    let mut openers = [true, false].map(|may_create| {
        Child::fork(move |tell| {
            tell.say(b'o');
            let segment = if may_create { open_or_create(name, 2).map(|(s, _)| s) } else { Segment::open(name) };
            assert_eq!(token(&segment.unwrap()), 1);
        })
    });
    openers.iter_mut().for_each(|opener| opener.expect(b'o'));
    openers.iter().for_each(Child::await_sleep);
    io::Write::write_all(&mut &go, b"g").unwrap();
    creator.expect_success();
    openers.iter_mut().for_each(Child::expect_success);
}

#[test]
fn a_creator_that_is_stopped_is_named_not_robbed() {
    let guard = temporary(Kind::SysV);
    let name = &guard.0;
    let mut creator = Child::fork(|tell| {
        let _ = Segment::create_new(name, SIZE, 0o600, LOCKS, |_| {
            tell.say(b'i');
            tell.sleep_until_killed()
        });
    });
    creator.expect(b'i');
    let error = Segment::open(name).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", creator.pid())), "{error}");
    creator.kill_without_reaping();
    assert!(open_or_create(name, 2).unwrap().1);
}

#[test]
fn a_new_set_whose_creator_died_is_replaced() {
    let guard = temporary(Kind::SysV);
    let Name::SysV(Key::Raw(key)) = guard.0 else { unreachable!() };
    // SAFETY: a plain system call.
    let set = unsafe { libc::semget(key, LOCKS as i32 + 2, libc::IPC_CREAT | libc::IPC_EXCL | 0o660) };
    let _removed_even_on_failure = Foreign { memory: None, semaphores: Some(set) };
    let segment = create(&guard.0, 1).unwrap();
    assert_eq!(segment.metadata().unwrap().mode, 0o600);
    segment.unlink().unwrap();
    assert!(!has_semaphores(&guard.0));
}

#[test]
fn a_leaver_does_not_wait_for_the_claim() {
    let guard = temporary(Kind::SysV);
    let name = &guard.0;
    let Name::SysV(Key::Raw(key)) = *name else { unreachable!() };
    let segment = create(name, 1).unwrap();
    let mut opener = Child::fork(|tell| {
        let mut take = libc::sembuf { sem_num: LOCKS as u16 + 1, sem_op: 1, sem_flg: libc::SEM_UNDO as i16 };
        // SAFETY: plain system calls.
        assert_eq!(unsafe { libc::semop(libc::semget(key, 0, 0), &mut take, 1) }, 0);
        tell.say(b't');
        tell.sleep_until_killed()
    });
    opener.expect(b't');
    let error = segment.unlink().unwrap_err().to_string();
    assert!(error.contains(&format!("process {} is creating, opening or removing it", opener.pid())), "{error}");
    assert!(segment.is_current().unwrap());
    opener.kill_without_reaping();
    segment.unlink().unwrap();
    assert!(!has_semaphores(name));
}

#[test]
fn a_mapped_file_keeps_its_content() {
    let guard = temporary(Kind::File);
    let Name::File(path) = &guard.0 else { unreachable!() };
    create(&guard.0, 3).unwrap();
    let mut bytes = [0; 8];
    fs::File::open(path).unwrap().read_exact_at(&mut bytes, TOKEN as u64).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 3);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    // A copy is a segment too, but another one.
    let copy = Temporary(Name::File(PathBuf::from(format!("{}-copy", path.display()))));
    let Name::File(copied) = &copy.0 else { unreachable!() };
    fs::copy(path, copied).unwrap();
    let original = Segment::open(&guard.0).unwrap();
    fs::rename(copied, path).unwrap();
    assert!(!original.is_current().unwrap());
    assert_eq!(token(&Segment::open(&guard.0).unwrap()), 3);
}

/// Runs all the other tests in a process of their own, and looks for what carries its pid.
#[test]
fn nothing_is_left_behind() {
    if std::env::var_os("RINGWAY_TEST_INNER").is_some() {
        return;
    }
    let mut run = std::process::Command::new(std::env::current_exe().unwrap());
    run.env("RINGWAY_TEST_INNER", "1").args(["-q", "--skip", "a_creator_that_is_stopped"]);
    let run = run.stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = run.id();
    assert!(run.wait_with_output().unwrap().status.success());
    for directory in ["/dev/shm".into(), std::env::temp_dir()] {
        for entry in fs::read_dir(&directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap_or_default();
            assert!(!name.contains(&format!("ringway-test-{pid}-")), "{name} in {}", directory.display());
        }
    }
    for table in ["shm", "sem"] {
        let keys = sysv_keys(table);
        let left: Vec<_> = (0..256).filter(|&number| keys.contains(&sysv_key(pid, number))).collect();
        assert!(left.is_empty(), "{table}: {left:?}");
    }
}
