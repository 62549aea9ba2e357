//! Descriptors of rings: readable when there is something to do, with level and with edge triggering, whoever comes, leaves or dies.

mod common;

use common::sleep::lost_wake_ups;
use common::{Child, Gate, Kind, PATIENCE, Scratch, alone};
use ringway::{Address, ErrorKind, Options, PeerEvent, Pollable, Receiver, RecvError, SendError, Sender};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Every kind of ring with every way to sleep.
fn of_each_ring() -> impl Iterator<Item = (Kind, String)> {
    Kind::of_each_way().flat_map(|(kind, wait)| {
        ["spsc", "mpmc&producers=2"].map(|ring| (kind, format!("capacity=4KiB&ring={ring}&wait={wait}")))
    })
}

fn poll(pollable: &Pollable, milliseconds: i32) -> bool {
    let mut fd = libc::pollfd { fd: pollable.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&mut fd, 1, milliseconds) };
    assert!(ready >= 0, "{}", std::io::Error::last_os_error());
    ready > 0
}

fn is_readable(pollable: &Pollable) -> bool {
    poll(pollable, 0)
}

#[track_caller]
fn await_readable(pollable: &Pollable) {
    assert!(poll(pollable, PATIENCE.as_millis() as i32), "nothing happened");
}

/// Takes everything, until the descriptor shows that there is nothing. It may be readable for nothing now and then, but not again and again.
#[track_caller]
fn drain(receiver: &mut Receiver, pollable: &Pollable) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..5 {
        loop {
            match receiver.try_recv() {
                Ok(message) => all.push(message.to_vec()),
                Err(RecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if !is_readable(pollable) {
            return all;
        }
    }
    panic!("it stays readable, though there is nothing");
}

/// Sends until there is no room, and the descriptor shows it.
#[track_caller]
fn fill(sender: &mut Sender, pollable: &Pollable) -> u32 {
    let mut sent = 0;
    for _ in 0..5 {
        loop {
            match sender.try_send(b"fill") {
                Ok(_) => sent += 1,
                Err(SendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if !is_readable(pollable) {
            return sent;
        }
    }
    panic!("it stays readable, though there is no room");
}

fn readable_at_the_end(receiver: &mut Receiver, pollable: &Pollable, end: RecvError) {
    loop {
        await_readable(pollable);
        match receiver.try_recv() {
            Err(RecvError::Empty) => {}
            outcome => return assert_eq!(outcome.err(), Some(end)),
        }
    }
}

#[test]
fn a_receiver_is_readable_until_it_is_drained() {
    let _alone = alone();
    for (kind, options) in of_each_ring() {
        let scratch = Scratch::with(kind, &options);
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        sender.send(b"before").unwrap();
        let pollable = receiver.pollable().unwrap();
        assert!(is_readable(&pollable), "{options}: there is something");
        assert_eq!(drain(&mut receiver, &pollable), [b"before"], "{options}");
        for round in 0..3 {
            for message in [b"one", b"two", b"tre"] {
                sender.send(message).unwrap();
                assert!(is_readable(&pollable), "{options} {round}");
            }
            assert_eq!(&receiver.recv().unwrap()[..], b"one");
            assert!(is_readable(&pollable), "{options} {round}: two are left");
            assert_eq!(&receiver.try_recv().unwrap()[..], b"two");
            assert!(is_readable(&pollable), "{options} {round}: one is left");
            assert_eq!(drain(&mut receiver, &pollable), [b"tre"], "{options} {round}");
        }
    }
}

#[test]
fn a_batch_and_a_sleep_in_between_leave_it_readable_or_armed() {
    let _alone = alone();
    for (kind, options) in of_each_ring() {
        let scratch = Scratch::with(kind, &options);
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        let pollable = receiver.pollable().unwrap();
        drain(&mut receiver, &pollable);
        sender.send_many([b"1", b"2", b"3", b"4"]).unwrap();
        assert!(is_readable(&pollable), "{options}");
        let mut batch = receiver.recv_batch(2).unwrap();
        assert!(batch.next().is_some() && batch.next().is_some());
        drop(batch);
        assert!(is_readable(&pollable), "{options}: two are left");
        assert_eq!(drain(&mut receiver, &pollable).len(), 2, "{options}");
        // Whoever sleeps by itself gives up its announcement.
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)).err(), Some(RecvError::Timeout));
        sender.send(b"5").unwrap();
        assert!(is_readable(&pollable), "{options}");
        assert_eq!(drain(&mut receiver, &pollable), [b"5"], "{options}");
    }
}

#[test]
fn one_that_has_slept_by_itself_stays_readable() {
    let _alone = alone();
    for (kind, options) in of_each_ring() {
        let scratch = Scratch::with(kind, &options);
        let mut sender = scratch.sender();
        let mut child = Child::fork(|tell| {
            let mut receiver = Options::new().spin(Duration::ZERO).receiver(&scratch.address).unwrap();
            let pollable = receiver.pollable().unwrap();
            drain(&mut receiver, &pollable);
            tell.say(b'r');
            // What it sleeps on may be the very descriptor.
            assert_eq!(&receiver.recv().unwrap()[..], b"1", "{options}");
            assert!(is_readable(&pollable), "{options}: two are left");
            assert_eq!(drain(&mut receiver, &pollable).len(), 2, "{options}");
        });
        child.expect(b'r');
        child.await_sleep();
        sender.send_many([b"1", b"2", b"3"]).unwrap();
        child.expect_success();
    }
}

#[test]
fn a_sender_is_readable_when_there_is_room_again() {
    let _alone = alone();
    for (kind, options) in of_each_ring() {
        let scratch = Scratch::with(kind, &options);
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        let pollable = sender.pollable().unwrap();
        for round in 0..3 {
            let sent = fill(&mut sender, &pollable);
            assert!(sent > 0, "{options} {round}");
            // The last release may be missed, but not all of them.
            while receiver.try_recv().is_ok() {}
            await_readable(&pollable);
            assert!(sender.try_send(b"more").is_ok(), "{options} {round}");
        }
    }
}

#[test]
fn peers_that_come_leave_and_die_are_told() {
    let _alone = alone();
    for (kind, options) in of_each_ring().filter(|(kind, _)| *kind != Kind::Anon) {
        let scratch = Scratch::with(kind, &options);
        let mut receiver = scratch.receiver();
        let pollable = receiver.pollable().unwrap();
        assert_eq!(receiver.peer_event(), None);
        drain(&mut receiver, &pollable);
        let expect = |receiver: &mut Receiver, event: PeerEvent| loop {
            await_readable(&pollable);
            match receiver.peer_event() {
                Some(told) => break assert_eq!(told, event, "{options}"),
                None => drain(receiver, &pollable),
            };
        };
        let gate = Gate::new();
        let mut leaves = Child::fork(|_| {
            let mut sender = scratch.sender();
            gate.pass();
            sender.send(b"bye").unwrap();
        });
        expect(&mut receiver, PeerEvent::Joined);
        gate.open(1);
        await_readable(&pollable);
        assert_eq!(&receiver.recv().unwrap()[..], b"bye");
        readable_at_the_end(&mut receiver, &pollable, RecvError::Closed);
        assert!(is_readable(&pollable), "{options}: an end stays one");
        assert_eq!(receiver.peer_event(), Some(PeerEvent::Left), "{options}");
        assert_eq!(receiver.peer_event(), None, "{options}");
        leaves.expect_success();

        let mut dies = Child::fork(|tell| {
            let mut sender = scratch.sender();
            sender.send(b"last words").unwrap();
            tell.say(b's');
            gate.pass();
        });
        dies.expect(b's');
        assert_eq!(receiver.peer_event(), Some(PeerEvent::Joined), "{options}");
        assert_eq!(drain(&mut receiver, &pollable), [b"last words"], "{options}");
        dies.signal(libc::SIGKILL);
        dies.wait();
        // Nobody rings: the kernel is asked.
        readable_at_the_end(&mut receiver, &pollable, RecvError::PeerDied);
        assert_eq!(receiver.peer_event(), Some(PeerEvent::Died), "{options}");
        assert_eq!(receiver.peer_event(), None, "{options}");
    }
}

#[test]
fn a_sender_hears_of_its_receivers_death_and_of_a_successor() {
    let _alone = alone();
    for (kind, options) in of_each_ring().filter(|(kind, _)| *kind != Kind::Anon) {
        let scratch = Scratch::with(kind, &options);
        let mut sender = scratch.sender();
        let pollable = sender.pollable().unwrap();
        let gate = Gate::new();
        let receives = || {
            Child::fork(|tell| {
                let _receiver = scratch.receiver();
                tell.say(b'r');
                gate.pass();
            })
        };
        let mut first = receives();
        first.expect(b'r');
        await_readable(&pollable);
        assert_eq!(sender.peer_event(), Some(PeerEvent::Joined), "{options}");
        let filled = loop {
            match sender.try_send(b"fill") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(filled, SendError::Full, "{options}");
        first.signal(libc::SIGKILL);
        first.wait();
        loop {
            await_readable(&pollable);
            match sender.try_send(b"fill") {
                Err(SendError::Full) => {}
                outcome => break assert_eq!(outcome, Err(SendError::PeerDied), "{options}"),
            }
        }
        assert_eq!(sender.peer_event(), Some(PeerEvent::Died), "{options}");
        // It has nothing to wait for but news.
        let mut second = receives();
        second.expect(b'r');
        let joined = loop {
            await_readable(&pollable);
            match sender.peer_event() {
                Some(event) => break event,
                None => assert!(matches!(sender.try_send(b"fill"), Ok(_) | Err(SendError::Full))),
            }
        };
        assert_eq!(joined, PeerEvent::Joined, "{options}");
        gate.open(1);
        second.expect_success();
    }
}

#[test]
fn a_ring_whose_members_never_sleep_is_refused() {
    for ring in ["spsc", "mpmc"] {
        let scratch = Scratch::with(Kind::Shm, &format!("capacity=4KiB&ring={ring}&wait=spin"));
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        for error in [sender.pollable().unwrap_err(), receiver.pollable().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("wait=spin"), "{error}");
        }
    }
}

#[test]
fn a_descriptor_outlives_its_endpoint_and_stays_readable() {
    let _alone = alone();
    for (kind, options) in of_each_ring() {
        let scratch = Scratch::with(kind, &options);
        let (mut receiver, _sender) = (scratch.receiver(), scratch.sender());
        let pollable = receiver.pollable().unwrap();
        let again = receiver.pollable().unwrap();
        assert_eq!(pollable.as_raw_fd(), again.as_raw_fd());
        drain(&mut receiver, &pollable);
        drop(receiver);
        assert!(is_readable(&pollable), "{options}");
        // A successor has one of its own.
        let mut successor = scratch.receiver();
        let own = successor.pollable().unwrap();
        drain(&mut successor, &own);
    }
}

/// An epoll instance with one descriptor, and what to be told of.
struct Epoll(OwnedFd);

impl Epoll {
    fn of(pollable: &Pollable, events: i32) -> Self {
        // SAFETY: a plain system call, whose answer is a new descriptor.
        let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        let fd = pollable.as_fd().as_raw_fd();
        // SAFETY: both descriptors and the event are valid.
        assert_eq!(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }, 0);
        Self(epoll)
    }

    /// Waits without a limit: a lost wake-up shows.
    fn wait(&self) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: there is room for one event.
        while unsafe { libc::epoll_wait(self.0.as_raw_fd(), &mut event, 1, -1) } < 1 {}
    }
}

/// Waits in epoll for each message, and for room; nothing else wakes it.
fn play(address: (&Address, &Address), rounds: u32, events: i32, serves: bool) {
    let options = Options::new().keep_open(true);
    let mut sender = options.sender(address.0).unwrap();
    let mut receiver = options.receiver(address.1).unwrap();
    let pollable = receiver.pollable().unwrap();
    let epoll = Epoll::of(&pollable, events);
    let mut expected = 0;
    if serves {
        sender.send(&0u32.to_le_bytes()).unwrap();
    }
    while expected < rounds {
        epoll.wait();
        loop {
            match receiver.try_recv() {
                Ok(message) => assert_eq!(message[..], expected.to_le_bytes()),
                Err(RecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
            expected += 1;
            let next = if serves { expected } else { expected - 1 };
            if next < rounds {
                sender.try_send(&next.to_le_bytes()).unwrap();
            }
        }
    }
}

#[test]
fn a_ping_pong_in_epoll_loses_no_wake_up() {
    let _alone = alone();
    const ROUNDS: u32 = 20_000;
    for (kind, options) in of_each_ring() {
        for events in [libc::EPOLLIN, libc::EPOLLIN | libc::EPOLLET] {
            let persist = if kind == Kind::Anon { "" } else { "&persist=yes" };
            let [there, back] = [(); 2].map(|()| Scratch::with(kind, &format!("{options}{persist}")));
            // Children find anonymous rings only while somebody has them.
            let (held, gate) = ((there.sender(), back.sender()), Gate::new());
            let mut one = Child::fork(|_| {
                gate.pass();
                play((&there.address, &back.address), ROUNDS, events, true);
            });
            let mut other = Child::fork(|_| {
                gate.pass();
                play((&back.address, &there.address), ROUNDS, events, false);
            });
            drop(held);
            gate.open(2);
            let lost = lost_wake_ups(&[&one, &other]);
            one.expect_success();
            other.expect_success();
            assert_eq!(lost, 0, "{options} {events}");
        }
    }
}

#[test]
fn an_endpoint_with_many_descriptors_around_it_starts_one_thread() {
    let _alone = alone();
    let mut child = Child::fork(|_| {
        let scratches: Vec<Scratch> = (0..50).map(|_| Scratch::with(Kind::Shm, "capacity=4KiB")).collect();
        let mut receivers: Vec<Receiver> = scratches.iter().map(Scratch::receiver).collect();
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let pollables: Vec<Pollable> = receivers.iter_mut().map(|receiver| receiver.pollable().unwrap()).collect();
        assert_eq!(threads(), before + 1);
        drop((pollables, receivers));
        // It goes when there is nothing to look after.
        while threads() > before {
            std::thread::yield_now();
        }
    });
    child.expect_success();
}

#[test]
fn a_forked_child_can_do_nothing_with_it_but_watch_its_own() {
    let _alone = alone();
    let (scratch, other) = (Scratch::with(Kind::Shm, "capacity=4KiB"), Scratch::with(Kind::Shm, "capacity=4KiB"));
    let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
    let pollable = receiver.pollable().unwrap();
    drain(&mut receiver, &pollable);
    let mut child = Child::fork(|_| {
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Fenced));
        assert_eq!(receiver.pollable().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(receiver.peer_event(), None);
        let mut own = other.receiver();
        let pollable = own.pollable().unwrap();
        drain(&mut own, &pollable);
        other.sender().send(b"own").unwrap();
        await_readable(&pollable);
        assert_eq!(&own.recv().unwrap()[..], b"own");
    });
    child.expect_success();
    assert!(!is_readable(&pollable));
    sender.send(b"for the parent").unwrap();
    assert!(is_readable(&pollable));
    assert_eq!(drain(&mut receiver, &pollable), [b"for the parent"]);
}
