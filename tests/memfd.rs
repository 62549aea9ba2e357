//! Rings that are handed over at a Unix socket: `memfd:`.

mod common;

use common::faults::kill;
use common::{Child, PATIENCE, alone};
use ringway::{Address, ErrorKind, Options, PeerState, Receiver, RecvError, SendError, Sender};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A path that no other test has, cleared at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ringway-test-{}-memfd-{number}", std::process::id())))
    }

    fn address(&self, options: &str) -> Address {
        let separator = if options.is_empty() { "" } else { "?" };
        format!("memfd://{}{separator}{options}", self.0.display()).parse().unwrap()
    }

    fn lock(&self) -> PathBuf {
        format!("{}.lock", self.0.display()).into()
    }

    fn sender(&self, options: &str) -> ringway::Result<Sender> {
        Options::new().sender(&self.address(options))
    }

    fn receiver(&self, options: &str) -> ringway::Result<Receiver> {
        Options::new().receiver(&self.address(options))
    }

    fn is_clean(&self) -> bool {
        !self.0.exists() && !self.lock().exists()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.lock());
    }
}

fn send_all(sender: &mut Sender) {
    for number in 0..1000u32 {
        sender.send((&number.to_le_bytes(), number)).unwrap();
    }
    sender.send(&vec![7; 1 << 20]).unwrap();
}

fn receive_all(receiver: &mut Receiver) {
    for number in 0..1000u32 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&message[..], message.tag()), (&number.to_le_bytes()[..], number));
    }
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], vec![7; 1 << 20]);
}

/// A seqpacket socket; the standard library has none.
fn socket(path: &Path, listens: bool) -> OwnedFd {
    // SAFETY: a sockaddr_un is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    let path = CString::new(path.to_str().unwrap()).unwrap();
    for (place, byte) in address.sun_path.iter_mut().zip(path.as_bytes()) {
        *place = *byte as _;
    }
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: plain system calls; the address is valid for them, and the descriptor new.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        let answer = match listens {
            true => libc::bind(socket, (&raw const address).cast(), length) | libc::listen(socket, 8),
            false => libc::connect(socket, (&raw const address).cast(), length),
        };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(socket)
    }
}

#[test]
fn a_ring_is_handed_over_and_nothing_is_left() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("capacity=4MiB").unwrap();
    let mut child = Child::fork(|_| send_all(&mut place.sender("").unwrap()));
    receive_all(&mut receiver);
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
    child.expect_success();
    // A successor gets the same ring.
    let mut child = Child::fork(|_| {
        place.sender("").unwrap().send(b"successor").unwrap();
    });
    child.expect_success();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"successor");
    assert_eq!(receiver.chosen(), None);
    drop(receiver);
    assert!(place.is_clean());
}

#[test]
fn the_sender_may_come_first_and_waits_only_so_long() {
    let _alone = alone();
    let place = Place::new();
    let error = place.sender("connect=50ms").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("50ms"), "{error}");
    let mut child = Child::fork(|tell| {
        tell.say(b's');
        send_all(&mut place.sender("connect=60s").unwrap());
    });
    child.expect(b's');
    receive_all(&mut place.receiver("").unwrap());
    child.expect_success();
}

#[test]
fn its_size_is_sealed_and_its_modes_are_exact() {
    let _alone = alone();
    let place = Place::new();
    let receiver = place.receiver("perm=0640").unwrap();
    assert_eq!(fs::metadata(&place.0).unwrap().permissions().mode() & 0o7777, 0o640);
    let _sender = place.sender("perm=0640").unwrap();
    let ring = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:ringway")));
    let file = File::options().read(true).write(true).open(ring.unwrap()).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    for length in [0, 4096, 1 << 30] {
        assert_eq!(file.set_len(length).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    drop(receiver);
}

#[test]
fn there_is_one_receiver_and_one_sender_and_a_living_one_is_never_robbed() {
    let _alone = alone();
    let place = Place::new();
    let pid = std::process::id();
    let mut receiver = place.receiver("").unwrap();
    let mut sender = place.sender("").unwrap();
    Child::fork(|_| {
        assert_eq!(place.receiver("").unwrap_err().kind(), ErrorKind::RoleTaken { pid });
        assert_eq!(place.sender("").unwrap_err().kind(), ErrorKind::RoleTaken { pid });
        assert_eq!(place.receiver("ring=mpmc").unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(place.sender("capacity=64MiB").unwrap_err().kind(), ErrorKind::Mismatch);
    })
    .expect_success();
    sender.send(b"still").unwrap();
    assert_eq!(&receiver.recv().unwrap()[..], b"still");
}

#[test]
fn a_dead_receivers_path_is_taken_over() {
    let _alone = alone();
    let place = Place::new();
    let mut child = Child::fork(|tell| {
        let _receiver = place.receiver("").unwrap();
        tell.say(b'r');
        tell.sleep_until_killed()
    });
    child.expect(b'r');
    let mut orphan = place.sender("").unwrap();
    assert_eq!(orphan.peer(), PeerState::Alive { pid: child.pid() });
    kill(child);
    assert!(place.0.exists() && place.lock().exists());
    let mut receiver = place.receiver("").unwrap();
    let mut sender = place.sender("").unwrap();
    send_all(&mut sender);
    receive_all(&mut receiver);
    let payload = vec![0; 1 << 20];
    let error = loop {
        match orphan.send_timeout(&payload, PATIENCE) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::PeerDied);
    drop((sender, receiver));
    assert!(place.is_clean());
}

#[test]
fn a_dead_sender_is_noticed() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("").unwrap();
    let mut child = Child::fork(|tell| {
        let mut sender = place.sender("").unwrap();
        sender.send(b"last").unwrap();
        tell.say(b's');
        tell.sleep_until_killed()
    });
    child.expect(b's');
    kill(child);
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"last");
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
}

#[test]
fn what_others_have_at_the_path_is_left_alone() {
    let _alone = alone();
    let place = Place::new();
    let listener = UnixListener::bind(&place.0).unwrap();
    assert_eq!(place.receiver("").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(place.0.exists() && !place.lock().exists());
    drop(listener);
    fs::remove_file(&place.0).unwrap();
    fs::write(&place.0, "text").unwrap();
    assert_eq!(place.receiver("").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&place.0).unwrap(), b"text");
}

#[test]
fn many_senders_and_receivers_share_a_ring_of_many() {
    const EACH: u64 = 2000;
    let _alone = alone();
    let place = Place::new();
    let mut first = place.receiver("ring=mpmc&capacity=1MiB").unwrap();
    // Each adds up what it got.
    let receive = |receiver: &mut Receiver| {
        let (mut count, mut sum) = (0u64, 0u64);
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(message) => {
                    count += 1;
                    sum += u64::from_le_bytes(message[..].try_into().unwrap());
                }
                Err(RecvError::Closed) => return (count, sum),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let board = std::env::temp_dir().join(format!("ringway-test-{}-board", std::process::id()));
    let mut receivers = [0, 1].map(|number| {
        let (place, board) = (&place, board.with_extension(number.to_string()));
        let mut child = Child::fork(move |tell| {
            let mut receiver = place.receiver("ring=mpmc").unwrap();
            tell.say(b'r');
            let (count, sum) = receive(&mut receiver);
            fs::write(board, format!("{count} {sum}")).unwrap();
        });
        child.expect(b'r');
        child
    });
    let mut senders = [0, 1, 2].map(|_| {
        let mut child = Child::fork(|tell| {
            let mut sender = place.sender("").unwrap();
            tell.say(b's');
            await_go(&place.0);
            for number in 0..EACH {
                sender.send(&number.to_le_bytes()).unwrap();
            }
        });
        child.expect(b's');
        child
    });
    // Not before all are there, since those who find it closed leave.
    fs::write(go(&place.0), "").unwrap();
    let (mut count, mut sum) = receive(&mut first);
    senders.iter_mut().for_each(Child::expect_success);
    for (number, child) in receivers.iter_mut().enumerate() {
        child.expect_success();
        let board = board.with_extension(number.to_string());
        let text = fs::read_to_string(&board).unwrap();
        fs::remove_file(board).unwrap();
        let (c, s) = text.split_once(' ').unwrap();
        count += c.parse::<u64>().unwrap();
        sum += s.parse::<u64>().unwrap();
    }
    fs::remove_file(go(&place.0)).unwrap();
    assert_eq!((count, sum), (3 * EACH, 3 * EACH * (EACH - 1) / 2));
    drop(first);
    assert!(place.is_clean());
}

fn go(path: &Path) -> PathBuf {
    format!("{}.go", path.display()).into()
}

fn await_go(path: &Path) {
    while !go(path).exists() {
        std::thread::yield_now();
    }
}

#[test]
fn clients_that_say_nothing_or_nonsense_keep_nobody_waiting() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = place.receiver("").unwrap();
    let clients: Vec<OwnedFd> = (0..300).map(|_| socket(&place.0, false)).collect();
    for client in &clients[..150] {
        let garbage = [0xa5u8; 4000];
        // SAFETY: the bytes are valid for the call; it may fail, since they are hung up on.
        unsafe { libc::send(client.as_raw_fd(), garbage.as_ptr().cast(), garbage.len(), libc::MSG_NOSIGNAL) };
    }
    let begun = Instant::now();
    let mut sender = place.sender("").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    send_all(&mut sender);
    receive_all(&mut receiver);
}

#[test]
fn a_listener_that_says_nothing_or_nonsense_is_given_up_on() {
    let _alone = alone();
    let place = Place::new();
    let listener = socket(&place.0, true);
    let error = place.sender("connect=100ms").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
    let thread = std::thread::spawn(move || {
        // The first is the one that has given up.
        for _ in 0..2 {
            // SAFETY: plain system calls; the bytes are valid for them.
            unsafe {
                let client = libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut());
                let garbage = [0x5au8; 512];
                libc::send(client, garbage.as_ptr().cast(), garbage.len(), libc::MSG_NOSIGNAL);
                libc::close(client);
            }
        }
    });
    let error = place.sender("connect=60s").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    thread.join().unwrap();
}

#[test]
fn a_forked_copy_takes_nothing_away() {
    let _alone = alone();
    let place = Place::new();
    let mut receiver = Some(place.receiver("").unwrap());
    Child::fork(|_| {
        let mut copy = receiver.take().unwrap();
        assert_eq!(copy.try_recv().err(), Some(RecvError::Fenced));
    })
    .expect_success();
    assert!(place.0.exists() && place.lock().exists());
    let mut sender = place.sender("").unwrap();
    sender.send(b"here").unwrap();
    assert_eq!(&receiver.as_mut().unwrap().recv().unwrap()[..], b"here");
    // And keeps nobody: a child that lives on has the socket, but doesn't answer.
    let child = Child::fork(|tell| tell.sleep_until_killed());
    drop((sender, receiver));
    assert!(place.is_clean());
    let (mut receiver, mut sender) = (place.receiver("").unwrap(), place.sender("").unwrap());
    send_all(&mut sender);
    receive_all(&mut receiver);
    drop(child);
}

#[test]
fn what_can_not_be_is_refused() {
    let _alone = alone();
    let place = Place::new();
    for (result, kind) in [
        (Options::new().create_new().sender(&place.address("")).err(), ErrorKind::InvalidInput),
        (Options::new().persist(true).receiver(&place.address("")).err(), ErrorKind::InvalidInput),
        (Options::new().framing(ringway::Framing::Lines).receiver(&place.address("")).err(), ErrorKind::InvalidInput),
        (Options::new().existing().receiver(&place.address("connect=20ms")).err(), ErrorKind::NotFound),
        (place.receiver("capacity=100GiB").err(), ErrorKind::InvalidInput),
    ] {
        assert_eq!(result.unwrap().kind(), kind);
        assert!(place.is_clean());
    }
    let long = format!("memfd:///tmp/{}", "x".repeat(120)).parse().unwrap();
    let error = Options::new().receiver(&long).unwrap_err();
    assert!(error.to_string().contains("107 bytes"), "{error}");
}
