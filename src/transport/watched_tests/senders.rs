//! What a sender has to show.

use super::*;

fn room_is_shown(place: &mut Place) {
    let mut receiver = place.receiver();
    let mut sender = place.sender();
    let fd = sender.outward().watch().unwrap().unwrap();
    let has_room = || descriptor::is_ready(fd.as_fd(), Ready::Read).unwrap();
    assert!(has_room());
    let edges = Epoll::new().unwrap();
    edges.add(fd.as_fd(), Interest::READ.on_edge(), 0).unwrap();
    // What is on its way to the receiver may still make room.
    let mut sent = 0;
    loop {
        match sender.try_send(&[7; 1000]) {
            Ok(_) => sent += 1,
            Err(SendError::Full) if !has_room() => break,
            Err(SendError::Full) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    edges.wait(&mut Events::with_capacity(1), Some(Duration::ZERO)).unwrap();
    assert!(sender.outward().try_flush().map_or_else(|e| e == SendError::Full, |()| true));
    let mut received = 0;
    while received < sent {
        match receiver.try_recv() {
            Ok(message) => {
                assert_eq!(message[..], [7; 1000]);
                received += 1;
            }
            Err(RecvError::Empty) => {
                // The end of a message that was begun may have to be handed over first.
                let wait = |fd: &OwnedFd| descriptor::wait_one(fd.as_fd(), Ready::Read, Some(clock::now() + PATIENCE));
                assert!(wait(&fd).unwrap(), "there is room");
                match sender.outward().try_flush() {
                    Ok(()) | Err(SendError::Full) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    let deadline = Some(clock::now() + PATIENCE);
    assert_eq!(edges.wait(&mut Events::with_capacity(1), deadline).unwrap(), 1, "room is an edge");
    assert!(descriptor::wait_one(fd.as_fd(), Ready::Read, deadline).unwrap());
    sender.send(b"more").unwrap();
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(&message[..], b"more");
}

#[test]
fn room_shows_after_full() {
    for_each(|case| case.is_ever_full, |mut place| room_is_shown(&mut place));
}

#[test]
fn a_receiver_that_is_gone_shows_or_is_found_by_looking() {
    for_each(
        |case| case.is_ever_full,
        |mut place| {
            let mut receiver = place.receiver();
            let mut sender = place.sender();
            let fd = sender.outward().watch().unwrap().unwrap();
            while sender.try_send(&[7; 1000]).is_ok() || descriptor::is_ready(fd.as_fd(), Ready::Read).unwrap() {}
            if place.case.sender_must_look {
                // It is to know that there was one.
                sender.outward().suspect();
                assert_eq!(sender.try_send(b"x"), Err(SendError::Full));
            } else {
                receiver.inward();
            }
            drop(receiver);
            if place.case.sender_must_look {
                sender.outward().suspect();
                assert_eq!(sender.try_send(b"x"), Err(SendError::Closed));
                return;
            }
            let deadline = Some(clock::now() + PATIENCE);
            assert!(descriptor::wait_one(fd.as_fd(), Ready::Read, deadline).unwrap());
            let error = loop {
                match sender.try_send(&[7; 1000]) {
                    Ok(_) | Err(SendError::Full) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, SendError::Closed | SendError::PeerDied), "{error:?}");
        },
    );
}

#[test]
fn of_a_large_message_no_part_is_lost_and_none_shows_for_nothing() {
    let is_whole =
        |case: &Case| case.is_ever_full && !case.address.contains("framing") && !case.address.contains("mq:");
    for_each(is_whole, |mut place| {
        let mut watched = Watched::new(place.receiver());
        let mut sender = place.sender();
        let fd = sender.outward().watch().unwrap().unwrap();
        let large: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 7) as u8).collect();
        assert_eq!(sender.try_send(&large), Ok(0));
        let message = loop {
            match watched.take() {
                Ok(message) => break message,
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error:?}"),
            }
            match sender.outward().try_flush() {
                Err(SendError::Full) => {
                    // Until one of them can go on.
                    let both = [(fd.as_fd(), Ready::Read), (watched.fd.as_fd(), Ready::Read)];
                    assert!(descriptor::wait(both, Some(clock::now() + PATIENCE)).unwrap());
                }
                Ok(()) => watched.expect_readable(),
                Err(error) => panic!("{error:?}"),
            }
        };
        assert!(message == large);
        assert_eq!(sender.outward().try_flush(), Ok(()));
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable());
    });
}

#[test]
fn a_receiver_that_is_gone_becomes_readable_whether_it_shows_or_not() {
    for_each(
        |case| case.is_ever_full,
        |mut place| {
            let receiver = place.receiver();
            let mut sender = place.sender();
            let pollable = sender.pollable().unwrap();
            let has_room = || descriptor::is_ready(pollable.as_fd(), Ready::Read).unwrap();
            while sender.try_send(&[7; 1000]).is_ok() || has_room() {}
            if place.case.sender_must_look {
                // It is to know that there was one: so it looks once while it is full.
                sender.outward().suspect();
                assert_eq!(sender.try_send(&[7; 1000]), Err(SendError::Full));
            }
            drop(receiver);
            let end = loop {
                let deadline = Some(clock::now() + PATIENCE);
                assert!(descriptor::wait_one(pollable.as_fd(), Ready::Read, deadline).unwrap());
                match sender.try_send(&[7; 1000]) {
                    Ok(_) | Err(SendError::Full) => {}
                    Err(end) => break end,
                }
            };
            assert!(matches!(end, SendError::Closed | SendError::PeerDied), "{end:?}");
        },
    );
}
