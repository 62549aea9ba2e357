//! Two sides that agree on the best way that both can go: `auto:`.
//!
//! What keeps one side from a way is real: limits, users, mounts, and a filter of system calls for the lack of memfds.

mod common;

use common::faults::{kill, unshare};
use common::{Child, PATIENCE, alone};
use ringway::transport::Chosen;
use ringway::{Address, ErrorKind, Options, Receiver, RecvError, SendError, Sender};
use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A name that no other test has. It vanishes by itself.
struct Place(String);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("ringway-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn address(&self, options: &str) -> Address {
        format!("auto:///{}?connect=30s{options}", self.0).parse().unwrap()
    }

    fn sender(&self, options: &str) -> ringway::Result<Sender> {
        Options::new().sender(&self.address(options))
    }

    fn receiver(&self, options: &str) -> ringway::Result<Receiver> {
        Options::new().receiver(&self.address(options))
    }

    /// The socket at which they meet.
    fn socket(&self) -> SocketAddr {
        SocketAddr::from_abstract_name(format!("ringway-auto/{}", self.0)).unwrap()
    }
}

fn send_all(sender: &mut Sender) {
    for number in 0..1000u32 {
        sender.send((&number.to_le_bytes(), number)).unwrap();
    }
    sender
        .send_many(
            (0..100u32)
                .map(|number| (vec![number as u8; number as usize], number))
                .collect::<Vec<_>>()
                .iter()
                .map(|(bytes, tag)| (&bytes[..], *tag)),
        )
        .unwrap();
    sender.send(&vec![7; 1 << 20]).unwrap();
}

fn receive_all(receiver: &mut Receiver) {
    for number in 0..1000u32 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&message[..], message.tag()), (&number.to_le_bytes()[..], number));
    }
    for number in 0..100u32 {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], vec![number as u8; number as usize]);
    }
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], vec![7; 1 << 20]);
}

/// What may befall one side.
#[derive(Clone, Copy, Default)]
struct Fault {
    /// Before it opens its end, and after that: only a receiver works on.
    before: Option<fn()>,
    after: Option<fn()>,
}

const NONE: Fault = Fault { before: None, after: None };

fn before(fault: fn()) -> Fault {
    Fault { before: Some(fault), after: None }
}

fn after(fault: fn()) -> Fault {
    Fault { before: None, after: Some(fault) }
}

/// Has a receiver and a sender agree, each in a process of its own; checks that both say the same, and that messages go.
fn agree(options: &str, receiver: Fault, sender: Fault) -> String {
    let place = Place::new();
    let run = |fault: Option<fn()>| fault.iter().for_each(|fault| fault());
    let mut receiving = Child::fork(|tell| {
        run(receiver.before);
        let mut end = place.receiver(options).unwrap();
        run(receiver.after);
        assert_eq!(end.try_recv().err(), Some(RecvError::Empty));
        assert_eq!(end.chosen(), None);
        tell.say(b'r');
        receive_all(&mut end);
        assert_eq!(end.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
        report(tell, end.chosen());
    });
    receiving.expect(b'r');
    let mut sending = Child::fork(|tell| {
        run(sender.before);
        let mut end = place.sender(options).unwrap();
        run(sender.after);
        send_all(&mut end);
        report(tell, end.chosen());
        drop(end);
    });
    let said = [&mut sending, &mut receiving].map(|child| {
        let said = hear(child);
        child.expect_success();
        said
    });
    assert_eq!(said[0], said[1]);
    assert_eq!(leftovers(&receiving), Vec::<String>::new());
    said[0].clone()
}

fn report(tell: &mut common::Tell, chosen: Option<&Chosen>) {
    let chosen = chosen.unwrap();
    assert!(chosen.to_string().contains(chosen.scheme) && chosen.to_string().contains(&chosen.why));
    format!("{} {}\0", chosen.scheme, chosen.why).bytes().for_each(|byte| tell.say(byte));
}

fn hear(child: &mut Child) -> String {
    let mut said = Vec::new();
    loop {
        match child.hear() {
            0 => return String::from_utf8(said).unwrap(),
            byte => said.push(byte),
        }
    }
}

/// Names that the receiver could have left behind.
fn leftovers(receiver: &Child) -> Vec<String> {
    let prefix = format!("ringway-auto-{}-", receiver.pid());
    let entries = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with(&prefix)).collect()
}

#[track_caller]
fn expect(said: &str, scheme: &str, reasons: &[&str]) {
    assert!(said.starts_with(&format!("{scheme} ")), "{said}");
    reasons.iter().for_each(|reason| assert!(said.contains(reason), "{said}"));
    if reasons.is_empty() {
        assert_eq!(said.len(), scheme.len() + 1, "{said}");
    }
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a plain system call; the limit is valid for it.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

/// Leaves room for the connection's buffers, and not for [`LARGE`].
fn little_address_space() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    limit(libc::RLIMIT_AS, (size << 10) + (40 << 20));
}

const LARGE: &str = "&capacity=64MiB";

/// Leaves one descriptor: for the connection.
fn one_descriptor() {
    limit(libc::RLIMIT_NOFILE, 100);
    let mut open = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        open.push(file);
    }
    open.pop().unwrap();
    open.into_iter().for_each(std::mem::forget);
}

/// A kernel, or a container's filter, that has no memfds.
fn no_memfd() {
    let code = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The system call's number is the first word.
        code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_memfd_create as u32, 0, 1),
        code(libc::BPF_RET | libc::BPF_K, refuse, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain system calls; the program is valid for them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// A mount namespace of this process's own, in which it may mount.
fn own_mounts() {
    // SAFETY: they have no preconditions.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
}

fn mount_shm(flags: libc::c_ulong, options: &std::ffi::CStr) {
    own_mounts();
    let (kind, target) = (c"tmpfs".as_ptr(), c"/dev/shm".as_ptr());
    // SAFETY: the strings are valid for the call.
    let answer = unsafe { libc::mount(kind, target, kind, flags, options.as_ptr().cast()) };
    assert_eq!(answer, 0, "mount: {}", io::Error::last_os_error());
}

/// The closest to a container without /dev/shm that can be had without taking it from others.
fn no_shm() {
    mount_shm(libc::MS_RDONLY, c"");
}

fn small_shm() {
    mount_shm(0, c"size=64k");
}

fn read_only_root() {
    own_mounts();
    for target in [c"/", c"/dev/shm", c"/tmp"] {
        let (target, none) = (target.as_ptr(), std::ptr::null::<libc::c_char>());
        let bind = libc::MS_BIND | libc::MS_REC;
        // What is locked by the outer namespace must be repeated.
        // SAFETY: a statvfs is plain integers; the strings are valid for the calls.
        unsafe {
            let mut there: libc::statvfs = std::mem::zeroed();
            assert_eq!(libc::statvfs(target, &mut there), 0);
            let keep = there.f_flag
                & (libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC | libc::ST_NOATIME | libc::ST_RELATIME);
            let _ = libc::mount(target, target, none.cast(), bind, none.cast());
            let again = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | keep_flags(keep);
            let answer = libc::mount(none.cast(), target, none.cast(), again, none.cast());
            assert_eq!(answer, 0, "remount: {}", io::Error::last_os_error());
        }
    }
    assert!(fs::write("/dev/shm/ringway-auto-probe", "").is_err() && fs::write("/ringway-auto-probe", "").is_err());
}

fn keep_flags(flags: libc::c_ulong) -> libc::c_ulong {
    let pairs = [
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    pairs.iter().filter(|(has, _)| flags & has != 0).fold(0, |all, (_, flag)| all | flag)
}

/// Without the privileges of the one who tests.
fn become_nobody() {
    // SAFETY: plain system calls of a child with one thread, or whose threads follow.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setgid(65534), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
}

/// Another user, but of the group.
fn become_a_colleague() {
    // SAFETY: as above.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setuid(65534), 0);
    }
}

fn is_root() -> bool {
    // SAFETY: it has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn without_restrictions_it_is_a_memfd() {
    let _alone = alone();
    expect(&agree("", NONE, NONE), "memfd", &[]);
    expect(&agree("&capacity=8MiB&max_message=2MiB&wait=sem", NONE, NONE), "memfd", &[]);
}

#[test]
fn without_memfds_it_is_shared_memory() {
    let _alone = alone();
    expect(&agree("", before(no_memfd), NONE), "shm", &["the receiver can't use memfd", "Operation not permitted"]);
    // Only who makes it needs to be able to.
    expect(&agree("", NONE, before(no_memfd)), "memfd", &[]);
}

#[test]
fn a_side_without_address_space_gets_a_socket() {
    let _alone = alone();
    let reason = "Cannot allocate memory";
    expect(&agree(LARGE, after(little_address_space), NONE), "unix", &["the receiver can't use memfd", reason]);
    expect(&agree(LARGE, NONE, before(little_address_space)), "unix", &["the sender can't use memfd", reason]);
}

#[test]
fn a_side_without_descriptors_gets_a_socket() {
    let _alone = alone();
    let reason = "too many files open";
    expect(
        &agree("", after(one_descriptor), NONE),
        "unix",
        &["the receiver can't use memfd", "receiver can't use shm", reason],
    );
    expect(
        &agree("", NONE, before(one_descriptor)),
        "unix",
        &["the sender can't use memfd", "sender can't use shm", reason],
    );
}

#[test]
fn a_side_without_shared_memory_gets_a_memfd_or_else_a_socket() {
    fn nothing() {
        no_shm();
        no_memfd();
    }
    fn little() {
        small_shm();
        no_memfd();
    }
    let _alone = alone();
    expect(&agree("", before(no_shm), NONE), "memfd", &[]);
    expect(&agree("", NONE, before(no_shm)), "memfd", &[]);
    expect(&agree("", before(nothing), NONE), "unix", &["the receiver can't use shm", "Read-only file system"]);
    expect(&agree("", before(no_memfd), before(no_shm)), "unix", &["the sender can't use shm", "No such file"]);
    expect(&agree("", before(small_shm), NONE), "memfd", &[]);
    expect(&agree("", before(little), NONE), "unix", &["the receiver can't use shm", "No space left"]);
    expect(&agree("", before(no_memfd), before(small_shm)), "unix", &["the sender can't use shm", "No such file"]);
}

#[test]
fn a_read_only_system_is_enough() {
    let _alone = alone();
    expect(&agree("", before(read_only_root), NONE), "memfd", &[]);
    expect(&agree("", NONE, before(read_only_root)), "memfd", &[]);
}

#[test]
fn other_users_may_come_where_perm_lets_them() {
    let _alone = alone();
    if !is_root() {
        return;
    }
    for (receiver, sender) in [(NONE, before(become_nobody)), (before(become_nobody), NONE)] {
        expect(&agree("&perm=0666", receiver, sender), "memfd", &[]);
    }
    fn nobody_without_memfd() {
        become_nobody();
        no_memfd();
    }
    expect(&agree("&perm=0666", before(nobody_without_memfd), NONE), "shm", &["memfd"]);
    expect(&agree("&perm=0660", NONE, before(become_a_colleague)), "memfd", &[]);
}

#[test]
fn other_users_are_refused_otherwise() {
    let _alone = alone();
    if !is_root() {
        return;
    }
    for (options, theirs, ours) in [
        ("&perm=0600", NONE, before(become_nobody)),
        ("&perm=0600", before(become_nobody), NONE),
        ("&perm=0660", NONE, before(become_nobody)),
        ("", NONE, before(become_a_colleague)),
    ] {
        let place = Place::new();
        let mut receiving = Child::fork(|tell| {
            theirs.before.iter().for_each(|fault| fault());
            let mut receiver = place.receiver(options).unwrap();
            tell.say(b'r');
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"of the same");
        });
        receiving.expect(b'r');
        Child::fork(|_| {
            ours.before.iter().for_each(|fault| fault());
            let begun = Instant::now();
            let error = place.sender(options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("user") && error.to_string().contains("perm="), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(5), "it could only wait in vain");
        })
        .expect_success();
        // Nothing was agreed on with the one who was refused.
        Child::fork(|_| {
            theirs.before.iter().for_each(|fault| fault());
            place.sender(options).unwrap().send(b"of the same").unwrap();
        })
        .expect_success();
        receiving.expect_success();
    }
}

/// The ways, each with what makes the receiver go it.
const WAYS: [(&str, Fault, &str); 3] = [
    ("memfd", NONE, ""),
    ("shm", Fault { before: Some(no_memfd), after: None }, ""),
    ("unix", Fault { before: None, after: Some(little_address_space) }, LARGE),
];

#[test]
fn deaths_are_noticed_and_successors_join() {
    let _alone = alone();
    for (scheme, fault, options) in WAYS {
        let place = Place::new();
        let mut receiving = Child::fork(|tell| {
            fault.before.iter().for_each(|fault| fault());
            let mut end = place.receiver(options).unwrap();
            fault.after.iter().for_each(|fault| fault());
            tell.say(b'r');
            assert_eq!(&end.recv_timeout(PATIENCE).unwrap()[..], b"first");
            assert_eq!(end.chosen().unwrap().scheme, scheme);
            tell.say(b'1');
            assert_eq!(end.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
            tell.say(b'd');
            loop {
                match end.recv_timeout(PATIENCE) {
                    Ok(message) => break assert_eq!(&message[..], b"second"),
                    Err(error) => assert_eq!(error, RecvError::Closed),
                }
            }
            tell.say(b'2');
            tell.sleep_until_killed()
        });
        receiving.expect(b'r');
        let mut first = Child::fork(|tell| {
            let mut end = place.sender(options).unwrap();
            end.send(b"first").unwrap();
            tell.say(b'f');
            tell.sleep_until_killed()
        });
        first.expect(b'f');
        receiving.expect(b'1');
        // One at a time.
        let refused = place.sender(options).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::RoleTaken { pid: first.pid() }, "{scheme}: {refused}");
        let second = place.receiver(options).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::RoleTaken { pid: receiving.pid() }, "{scheme}: {second}");
        kill(first);
        receiving.expect(b'd');
        let mut sender = place.sender(options).unwrap();
        assert_eq!(sender.chosen().unwrap().scheme, scheme);
        sender.send(b"second").unwrap();
        receiving.expect(b'2');
        assert_eq!(leftovers(&receiving), Vec::<String>::new());
        kill(receiving);
        let payload = vec![0; 1 << 20];
        let error = loop {
            match sender.send_timeout(&payload, PATIENCE) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error, SendError::PeerDied, "{scheme}");
        drop(sender);
        // The name is free again.
        drop(place.receiver(options).unwrap());
        drop(place.receiver(options).unwrap());
    }
}

#[test]
fn a_successor_that_left_in_order_has_successors() {
    let _alone = alone();
    for (_, fault, options) in WAYS {
        let place = Place::new();
        let mut receiving = Child::fork(|tell| {
            fault.before.iter().for_each(|fault| fault());
            let mut end = place.receiver(options).unwrap();
            fault.after.iter().for_each(|fault| fault());
            tell.say(b'r');
            for round in 0..20u8 {
                loop {
                    match end.recv_timeout(PATIENCE) {
                        Ok(message) => break assert_eq!(message[..], [round]),
                        Err(error) => assert_eq!(error, RecvError::Closed),
                    }
                }
            }
        });
        receiving.expect(b'r');
        // They don't wait for the receiver to take notice.
        for round in 0..20u8 {
            place.sender(options).unwrap().send(&[round]).unwrap();
        }
        receiving.expect_success();
    }
}

#[test]
fn a_successor_that_can_not_use_it_is_told_so() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver(LARGE).unwrap();
    drop(place.sender(LARGE).unwrap());
    Child::fork(|_| {
        little_address_space();
        let error = place.sender(LARGE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains("settled on memfd"), "{error}");
    })
    .expect_success();
    place.sender("").unwrap().send(b"this one can").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"this one can");
}

#[test]
fn contradictions_are_errors_and_no_reason_for_less() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("&capacity=64KiB").unwrap();
    for options in ["&capacity=1MiB", "&max_message=1MiB", "&wait=spin"] {
        let error = place.sender(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{options}: {error}");
    }
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    assert_eq!(receiver.chosen(), None);
    place.sender("").unwrap().send(b"fits").unwrap();
    assert_eq!(&receiver.recv().unwrap()[..], b"fits");
    assert_eq!(receiver.chosen().unwrap().scheme, "memfd");
    let refused = |result: ringway::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    let other = Place::new();
    refused(other.receiver("&capacity=100GiB").map(drop));
    refused(Options::new().create_new().sender(&other.address("")).map(drop));
    refused(Options::new().ring(ringway::Ring::Mpmc).receiver(&other.address("")).map(drop));
    refused(Options::new().producers(2).sender(&other.address("")).map(drop));
    let long = format!("auto:///{}", "x".repeat(95)).parse().unwrap();
    let error = Options::new().receiver(&long).unwrap_err().to_string();
    assert!(error.contains("leaves 94"), "{error}");
}

#[test]
fn who_says_nothing_or_nonsense_is_given_up_on() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("").unwrap();
    let silent = UnixStream::connect_addr(&place.socket()).unwrap();
    let nonsense = UnixStream::connect_addr(&place.socket()).unwrap();
    io::Write::write_all(&mut &nonsense, &[0x5a; 4096]).unwrap();
    let mut sender = place.sender("").unwrap();
    send_all(&mut sender);
    receive_all(&mut receiver);
    drop((silent, nonsense));

    let place = Place::new();
    let listener = UnixListener::bind_addr(&place.socket()).unwrap();
    let address = format!("auto:///{}?connect=100ms", place.0).parse().unwrap();
    let error = Options::new().sender(&address).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("did not answer"), "{error}");
    drop(listener);
    let error = Options::new().sender(&address).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("no receiver"), "{error}");
}

#[test]
fn a_receiver_that_leaves_waits_for_nobody() {
    let _alone = alone();
    let place = Place::new();
    let receiver = place.receiver("").unwrap();
    let silent = UnixStream::connect_addr(&place.socket()).unwrap();
    // It is being dealt with as soon as it is offered something.
    io::Read::read_exact(&mut &silent, &mut [0; 512]).unwrap();
    let begun = Instant::now();
    drop(receiver);
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Both come at once: the sender meets the next receiver.
    let mut child = Child::fork(|_| send_all(&mut place.sender("").unwrap()));
    receive_all(&mut place.receiver("").unwrap());
    child.expect_success();
}

#[test]
fn waiting_for_the_first_sender_ends_in_time() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("").unwrap();
    let timeout = Duration::from_millis(30);
    let begun = Instant::now();
    assert_eq!(receiver.recv_timeout(timeout).err(), Some(RecvError::Timeout));
    assert!(begun.elapsed() >= timeout);
    assert_eq!(receiver.recv_batch_timeout(4, timeout).err(), Some(RecvError::Timeout));
    Child::fork(|_| {
        let copy: *const Receiver = &receiver;
        // SAFETY: a copy that is forgotten, in a process that the original belongs to no longer.
        let mut copy = std::mem::ManuallyDrop::new(unsafe { copy.read() });
        assert_eq!(copy.recv().err(), Some(RecvError::Fenced));
    })
    .expect_success();
    let mut child = Child::fork(|_| {
        place.sender("").unwrap().send(b"now").unwrap();
    });
    let mut buffer = [0; 8];
    assert_eq!(receiver.recv_into(&mut buffer).unwrap().len, 3);
    child.expect_success();
}

#[test]
fn both_sides_log_what_was_chosen() {
    struct Logger(std::sync::Mutex<Vec<String>>);
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.target() == "ringway::auto" && record.level() == log::Level::Info {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    static LOGGER: Logger = Logger(std::sync::Mutex::new(Vec::new()));

    let _alone = alone();
    Child::fork(|_| {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let place = Place::new();
        let mut receiver = place.receiver("").unwrap();
        let mut sender = place.sender("").unwrap();
        sender.send(b"x").unwrap();
        receiver.recv().unwrap();
        // Waits for its thread, which logs after it has decided.
        drop(receiver);
        let mut events = LOGGER.0.lock().unwrap().clone();
        events.sort();
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[0].contains("receiver") && events[1].contains("sender"), "{events:?}");
        assert!(events.iter().all(|event| event.contains(&place.0) && event.contains("memfd")), "{events:?}");
    })
    .expect_success();
}
