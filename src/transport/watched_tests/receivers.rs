//! What a receiver has to show.

use super::*;
use crate::transport::frame::{Frame, Kind};

#[test]
fn levels_and_edges_show_what_there_is() {
    for_each(
        |_| true,
        |mut place| {
            let case = place.case;
            let mut watched = Watched::new(place.receiver());
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable(), "it is empty");
            let mut sender = place.sender();
            sender.send(b"first").unwrap();
            watched.expect_edge();
            assert_eq!(watched.await_message(), b"first");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable(), "it was drained");
            watched.forget_edges();

            sender.send(b"alone").unwrap();
            watched.expect_edge();
            assert_eq!(watched.await_message(), b"alone");
            assert_eq!(watched.is_readable(), !case.is_consumed, "one that came alone leaves nothing to show");
            assert_eq!(watched.drain(), [[0; 0]; 0]);

            let three = [&b"one"[..], b"two", b"three"];
            sender.send_many(three).unwrap();
            watched.expect_edge();
            assert_eq!(watched.await_message(), b"one");
            // The others are there by now, or will be.
            watched.expect_readable();
            assert_eq!(watched.await_message(), b"two");
            watched.expect_readable();
            assert_eq!(watched.await_message(), b"three");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable(), "it was drained");

            // Several in one call of the kernel, of which one is taken; and one that blocks for it.
            sender.send_many(three).unwrap();
            watched.expect_readable();
            assert_eq!(watched.receiver.recv_many(1, |bytes, _| assert_eq!(bytes, b"one")), Ok(1));
            watched.expect_readable();
            assert_eq!(&watched.receiver.recv_timeout(PATIENCE).unwrap()[..], b"two");
            watched.expect_readable();
            assert_eq!(watched.receiver.recv_into(&mut [0; 1]), Err(RecvError::BufferTooSmall { needed: 5 }));
            assert!(watched.is_readable(), "it was put back");
            assert_eq!(watched.receiver.recv_into(&mut [0; 5]).unwrap().len, 5);
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable(), "it was drained");
            watched.forget_edges();
            sender.send(b"again").unwrap();
            watched.expect_edge();
            assert_eq!(watched.await_message(), b"again");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert_eq!(watched.receiver.inward().must_look(), case.must_look);
            assert_eq!(sender.outward().must_look(), case.sender_must_look);
            assert_eq!(sender.outward().watch().unwrap().is_some(), case.sender_is_pollable);
        },
    );
}

#[test]
fn a_sender_that_leaves_shows() {
    // Of the others, the last one is followed by somebody else who doesn't say where it begins.
    let tells = |case: &Case| !case.address.contains("dgram&framing=none");
    for_each(tells, |mut place| {
        let mut watched = Watched::new(place.receiver());
        let mut sender = place.sender();
        sender.send(b"last").unwrap();
        assert_eq!(watched.await_message(), b"last");
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable());
        // Who keeps what its connection is read from.
        let mut sender = Some(sender);
        let mut child = Child::fork(|tell| {
            drop(sender.take());
            tell.say(b'd');
            tell.sleep_until_killed();
        });
        child.expect(b'd');
        watched.forget_edges();
        drop(sender);
        watched.expect_edge();
        assert_eq!(watched.await_end(), RecvError::Closed);
        assert!(watched.is_readable(), "an end stays one");
        if place.case.address.starts_with("pipe:") || place.case.address.starts_with("fd:") {
            return;
        }
        let mut successor = place.sender();
        successor.send(b"next").unwrap();
        let next = loop {
            watched.expect_readable();
            match watched.take() {
                Ok(message) => break message,
                Err(RecvError::Closed | RecvError::Empty) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(next, b"next");
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable());
        successor.send(b"more").unwrap();
        assert_eq!(watched.await_message(), b"more");
    });
}

#[test]
fn what_came_while_it_was_blocked_shows_afterwards() {
    for_each(
        |_| true,
        |mut place| {
            let mut watched = Watched::new(place.receiver());
            let process = std::process::id();
            let mut child = Child::fork(|_| {
                let mut sender = place.sender();
                let stat = format!("/proc/{process}/stat");
                while !fs::read_to_string(&stat).unwrap().contains(") S ") {
                    std::thread::yield_now();
                }
                sender.send_many([&b"one"[..], b"two", b"three"]).unwrap();
                // To be reaped by a parent that has received it all.
            });
            assert_eq!(&watched.receiver.recv_timeout(PATIENCE).unwrap()[..], b"one");
            assert_eq!(watched.await_message(), b"two");
            assert_eq!(watched.await_message(), b"three");
            child.expect_success();
        },
    );
}

#[test]
fn an_end_that_nobody_wants_to_know_shows_nothing() {
    let tells = |case: &Case| !case.address.starts_with("pipe:");
    for_each(tells, |mut place| {
        let mut watched = Watched::new(place.receiver_with(&Options::new().keep_open(true)));
        let mut sender = place.sender();
        sender.send(b"last").unwrap();
        assert_eq!(watched.await_message(), b"last");
        drop(sender);
        // Twice, as what is told first may not be the last of it.
        assert_eq!((watched.drain(), watched.drain()), (vec![], vec![]));
        // A connection's end may be under way.
        while watched.is_readable() {
            assert_eq!(watched.drain(), [[0; 0]; 0]);
        }
    });
}

#[test]
fn a_killed_sender_shows_or_is_found_by_looking() {
    for_each(
        |case| case.death != Unknown,
        |mut place| {
            let mut watched = Watched::new(place.receiver());
            let mut child = Child::fork(|tell| {
                let mut sender = place.sender();
                sender.send(b"last words").unwrap();
                tell.say(b's');
                tell.sleep_until_killed();
            });
            // Theirs alone.
            (place.pipe.0, place.sockets.0) = (None, None);
            child.expect(b's');
            assert_eq!(watched.await_message(), b"last words");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable());
            child.kill_without_reaping();
            child.reap();
            if place.case.death == Looked {
                assert!(!watched.is_readable() && watched.receiver.inward().must_look());
                watched.receiver.inward().suspect();
                assert_eq!(watched.take(), Err(RecvError::PeerDied));
                assert!(watched.is_readable(), "there may be more");
            } else {
                watched.expect_readable();
                assert_eq!(watched.await_end(), RecvError::PeerDied);
            }
            while let Err(RecvError::PeerDied) = watched.take() {}
            let keeps = watched.take() == Err(RecvError::Closed);
            assert_eq!(watched.is_readable(), keeps);
            assert!(keeps || !watched.receiver.inward().must_look() || place.case.address.starts_with("log:"));
        },
    );
}

#[test]
fn a_forked_child_changes_nothing() {
    for_each(
        |_| true,
        |mut place| {
            let mut watched = Watched::new(place.receiver());
            let mut sender = place.sender();
            sender.send(b"first").unwrap();
            assert_eq!(watched.await_message(), b"first");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            sender.send_many([&b"one"[..], b"two"]).unwrap();
            assert_eq!(watched.await_message(), b"one");
            let fd = Arc::clone(&watched.fd);
            let mut both = Some((watched, sender));
            let mut child = Child::fork(|_| {
                let (mut watched, mut sender) = both.take().unwrap();
                assert_eq!(watched.take(), Err(RecvError::Fenced));
                assert_eq!(watched.receiver.inward().watch().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
                assert_eq!(sender.outward().watch().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
                drop((watched, sender));
            });
            child.expect_success();
            let (mut watched, mut sender) = both.unwrap();
            assert!(descriptor::wait_one(fd.as_fd(), Ready::Read, Some(clock::now() + PATIENCE)).unwrap());
            assert_eq!(watched.await_message(), b"two");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable());
            sender.send(b"three").unwrap();
            assert_eq!(watched.await_message(), b"three");
        },
    );
}

#[test]
fn what_was_put_off_shows() {
    let (one, other) = socket::pair(socket::Type::SEQPACKET);
    let address: Address = format!("fd://{}", other.as_raw_fd()).parse().unwrap();
    let mut watched = Watched::new(Options::new().receiver(&address).unwrap());
    assert_eq!(watched.drain(), [[0; 0]; 0]);
    watched.forget_edges();
    let send = |bytes: &[u8]| descriptor::write(one.as_fd(), &[io::IoSlice::new(bytes)], descriptor::Sink::Socket);
    // So many frames that are none, that the receiver says meanwhile that there is nothing.
    for _ in 0..100 {
        send(&Frame::control(Kind::Hello, 1, 0, 0).encode()).unwrap();
    }
    let mut message = Frame { total: 1, length: 1, ..Frame::control(Kind::Data, 1, 0, 0) }.encode().to_vec();
    message.push(b'x');
    send(&message).unwrap();
    watched.expect_edge();
    watched.forget_edges();
    assert_eq!(watched.take(), Err(RecvError::Empty));
    watched.expect_edge();
    assert!(watched.is_readable());
    assert_eq!(watched.take(), Ok(b"x".to_vec()));
    assert_eq!(watched.drain(), [[0; 0]; 0]);
    assert!(!watched.is_readable());
}

#[test]
fn a_killed_sender_becomes_readable_whether_it_shows_or_not() {
    for_each(
        |case| case.death != Unknown,
        |mut place| {
            let mut receiver = place.receiver();
            let pollable = receiver.pollable().unwrap();
            let mut child = Child::fork(|tell| {
                let mut sender = place.sender();
                sender.send(b"last words").unwrap();
                tell.say(b's');
                tell.sleep_until_killed();
            });
            (place.pipe.0, place.sockets.0) = (None, None);
            child.expect(b's');
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"last words");
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            assert!(!descriptor::is_ready(pollable.as_fd(), Ready::Read).unwrap());
            child.kill_without_reaping();
            child.reap();
            let mut rounds = 0;
            let end = loop {
                let deadline = Some(clock::now() + PATIENCE);
                assert!(descriptor::wait_one(pollable.as_fd(), Ready::Read, deadline).unwrap());
                match receiver.try_recv() {
                    Err(RecvError::Empty) => rounds += 1,
                    Err(end) => break end,
                    Ok(message) => panic!("{message:?}"),
                }
            };
            assert_eq!(end, RecvError::PeerDied);
            assert!(rounds < 10, "{rounds} times for nothing");
        },
    );
}
