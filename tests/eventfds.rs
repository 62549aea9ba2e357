//! Rings whose members sleep on eventfds: handed over with the memory, all of them and nothing else; and shared by threads.

mod common;

use common::sleep::assert_wakes;
use common::{Child, PATIENCE, alone};
use ringway::{Address, ErrorKind, Options, Receiver, Wait, mpmc, spsc, transport};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where two meet; taken away at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringway-eventfds-{}-{name}", std::process::id())))
    }

    fn address(&self) -> Address {
        format!("memfd://{}?wait=eventfd&connect=60s", self.0.display()).parse().unwrap()
    }

    fn receiver(&self) -> Receiver {
        sleepy().receiver(&self.address()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = transport::remove(&self.address(), true);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Sleeps at once.
fn sleepy() -> Options {
    Options::new().spin(Duration::ZERO).keep_open(true)
}

/// A seqpacket socket with a path, which a stream's type can hold as well.
fn socket(place: &Place, listens: bool) -> UnixStream {
    // SAFETY: a sockaddr_un is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    for (place, byte) in address.sun_path.iter_mut().zip(place.0.to_str().unwrap().bytes()) {
        *place = byte as _;
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
        UnixStream::from_raw_fd(socket)
    }
}

const MOST: usize = 8;
const SPACE: usize = 64;

/// A message header for the one part, and space for descriptors.
fn header(part: *mut libc::iovec, space: &mut [u64; SPACE]) -> libc::msghdr {
    // SAFETY: a msghdr is plain integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (part, 1);
    (header.msg_control, header.msg_controllen) = (space.as_mut_ptr().cast(), size_of_val(space));
    header
}

/// The letter and the descriptors that the receiver hands to whoever connects.
fn take(place: &Place) -> (Vec<u8>, Vec<OwnedFd>) {
    let link = socket(place, false);
    let (mut letter, mut space) = (vec![0; 512], [0; SPACE]);
    let mut part = IoSliceMut::new(&mut letter);
    let mut header = header((&raw mut part).cast(), &mut space);
    // SAFETY: the header leads to valid memory; what came in it is read as the kernel has written it.
    let descriptors = unsafe {
        assert_eq!(libc::recvmsg(link.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC), 512);
        let first = libc::CMSG_FIRSTHDR(&header);
        let count = ((*first).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
        let numbers = std::slice::from_raw_parts(libc::CMSG_DATA(first).cast::<RawFd>(), count);
        numbers.iter().map(|&number| OwnedFd::from_raw_fd(number)).collect()
    };
    (letter, descriptors)
}

/// Hands them to whoever connects next.
fn give(listener: &UnixStream, letter: &[u8], descriptors: &[RawFd]) {
    let mut space = [0; SPACE];
    let mut part = IoSlice::new(letter);
    let mut header = header((&raw mut part).cast(), &mut space);
    assert!(descriptors.len() <= MOST);
    // SAFETY: the header leads to valid memory with room for so many.
    unsafe {
        let link = libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut());
        let bytes = size_of_val(descriptors) as u32;
        header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
        let first = libc::CMSG_FIRSTHDR(&header);
        ((*first).cmsg_level, (*first).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*first).cmsg_len = libc::CMSG_LEN(bytes) as usize;
        std::ptr::copy_nonoverlapping(descriptors.as_ptr(), libc::CMSG_DATA(first).cast(), descriptors.len());
        assert_eq!(libc::sendmsg(link, &header, 0), 512);
        libc::close(link);
    }
}

#[test]
fn a_ring_comes_with_all_its_eventfds_or_is_refused() {
    let _alone = alone();
    let (honest, other) = (Place::new("honest"), Place::new("other"));
    let mut receiver = honest.receiver();
    let (letter, came) = take(&honest);
    let [memory, producer, consumer]: [RawFd; 3] =
        came.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>().try_into().expect("the memory and two eventfds");
    let listener = socket(&other, true);
    let (pipe, _writer) = std::io::pipe().unwrap();
    for (descriptors, kind, text) in [
        (&[memory][..], ErrorKind::Damaged, "0 eventfds came with it instead of 2"),
        (&[memory, producer], ErrorKind::Damaged, "1 eventfds came with it instead of 2"),
        (&[memory, producer, consumer, consumer], ErrorKind::Damaged, "3 eventfds came with it instead of 2"),
        (
            &[memory, producer, pipe.as_raw_fd()],
            ErrorKind::NotARing,
            "descriptor 2 of those that came with it is no eventfd",
        ),
        (&[memory, memory, consumer], ErrorKind::NotARing, "descriptor 1 of those that came with it is no eventfd"),
        (&[producer, memory, consumer], ErrorKind::NotARing, ""),
    ] {
        let error = std::thread::scope(|scope| {
            let gives = scope.spawn(|| give(&listener, &letter, descriptors));
            let error = Options::new().sender(&other.address()).unwrap_err();
            gives.join().unwrap();
            error
        });
        assert!(error.kind() == kind && error.to_string().contains(text), "{error}");
    }
    // The very same things, as they were meant.
    let mut sender = std::thread::scope(|scope| {
        let gives = scope.spawn(|| give(&listener, &letter, &[memory, producer, consumer]));
        let sender = Options::new().sender(&other.address()).unwrap();
        gives.join().unwrap();
        sender
    });
    sender.send(b"x").unwrap();
    assert_eq!(&receiver.recv().unwrap()[..], b"x");
}

#[test]
fn one_who_has_them_block_and_fills_them_keeps_nobody() {
    let _alone = alone();
    let place = Place::new("hostile");
    let mut receiver = place.receiver();
    let (_, came) = take(&place);
    for event in &came[1..] {
        let full = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: plain system calls; the bytes are valid for them.
        unsafe {
            assert_eq!(libc::fcntl(event.as_raw_fd(), libc::F_SETFL, 0), 0);
            assert_eq!(libc::write(event.as_raw_fd(), full.as_ptr().cast(), full.len()), 8);
        }
    }
    let mut child = Child::fork(|tell| {
        let mut sender = sleepy().sender(&place.address()).unwrap();
        for _ in 0..20 {
            tell.say(b'a');
            sender.send(b"x").unwrap();
        }
        tell.say(b's');
        tell.sleep_until_killed();
    });
    for _ in 0..20 {
        child.expect(b'a');
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"x");
    }
    child.expect(b's');
    let begun = Instant::now();
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn sleepers_in_two_processes_wake_each_other() {
    let _alone = alone();
    let place = Place::new("pair");
    let mut child = Child::fork(|tell| {
        let mut receiver = place.receiver();
        tell.say(b'r');
        loop {
            receiver.recv_timeout(PATIENCE).unwrap();
            tell.say(b'm');
        }
    });
    child.expect(b'r');
    let mut sender = sleepy().sender(&place.address()).unwrap();
    for _ in 0..100 {
        assert_wakes(&child, || _ = sender.send(b"x").unwrap());
        child.expect(b'm');
    }
}

#[test]
fn threads_share_them_too() {
    let _alone = alone();
    const ROUNDS: u64 = 5_000;
    let options = sleepy().wait(Wait::Eventfd);
    let (there, back) = (spsc::channel(&options).unwrap(), mpmc::channel(&options).unwrap());
    let (mut ping, mut echo) = (there.0, there.1);
    let (mut answer, heard) = (back.producer().unwrap(), back.consumer().unwrap());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                let message = echo.recv().unwrap();
                let mut grant = answer.reserve(8).unwrap();
                grant.copy_from_slice(&message);
                grant.commit(8);
            }
        });
        for round in 0..ROUNDS {
            let mut grant = ping.reserve(8).unwrap();
            grant.copy_from_slice(&round.to_ne_bytes());
            grant.commit(8);
            assert_eq!(heard.recv().unwrap()[..], round.to_ne_bytes());
        }
    });
    // If each took a slice, it would be more than eight minutes.
    assert!(begun.elapsed() < PATIENCE);
}
