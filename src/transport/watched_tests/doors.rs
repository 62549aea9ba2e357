//! Connections, and those who would be one.

use super::*;

#[test]
fn connections_come_and_go() {
    let has_door = |case: &Case| {
        (case.address.starts_with("unix") || case.address.starts_with("tcp")) && !case.address.contains("dgram")
    };
    for_each(has_door, |mut place| {
        let is_plain = place.case.address.contains("lines");
        let mut watched = Watched::new(place.receiver());
        let mut senders: Vec<Sender> = (0..10).map(|_| place.sender()).collect();
        for sender in &mut senders {
            sender.send(b"hello").unwrap();
            assert_eq!(watched.await_message(), b"hello");
        }
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable());
        // Whoever has the connections, too, keeps them from being closed.
        let child = Child::fork(|tell| tell.sleep_until_killed());
        for _ in 0..9 {
            watched.forget_edges();
            drop(senders.remove(senders.len() / 2));
            watched.expect_edge();
            // One after the other: connection, and then an end that isn't told while others are there.
            while watched.is_readable() {
                assert_eq!(watched.drain(), [[0; 0]; 0]);
            }
            senders.last_mut().unwrap().send(b"there").unwrap();
            assert_eq!(watched.await_message(), b"there");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable());
        }
        senders.clear();
        assert_eq!(watched.await_end(), RecvError::Closed);
        drop(child);
        let mut successor = place.sender();
        successor.send(b"hello").unwrap();
        if is_plain {
            // An end is told as long as nobody has said anything since.
            while watched.take().is_err() {}
        } else {
            while watched.take() == Err(RecvError::Closed) {}
        }
    });
}

#[test]
fn a_thousand_idle_connections_show_the_one_that_is_not() {
    let is_stream = |case: &Case| case.address == "unix://{dir}/socket";
    for_each(is_stream, |mut place| {
        let mut watched = Watched::new(place.receiver());
        let mut senders = Vec::new();
        // As many as are let in.
        for _ in 0..1024 {
            senders.push(place.sender());
            assert_eq!(watched.drain(), [[0; 0]; 0]);
        }
        assert!(!watched.is_readable());
        for at in [0, 500, 1023] {
            senders[at].send(b"here").unwrap();
            assert_eq!(watched.await_message(), b"here");
            assert_eq!(watched.drain(), [[0; 0]; 0]);
            assert!(!watched.is_readable());
        }
        // One more has to wait, and doesn't show until somebody leaves.
        let mut late = place.sender();
        late.send(b"late").unwrap();
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable() && !watched.receiver.inward().must_look());
        senders[7].send(b"farewell").unwrap();
        drop(senders.remove(7));
        assert_eq!(watched.await_message(), b"farewell");
        assert_eq!(watched.await_message(), b"late");
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable());
    });
}

#[test]
fn a_door_that_is_shut_for_want_of_descriptors_is_tried_again() {
    let is_stream = |case: &Case| case.address == "unix://{dir}/socket";
    for_each(is_stream, |mut place| {
        let mut watched = Watched::new(place.receiver());
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        let (hear, mut tell) = io::pipe().unwrap();
        let mut child = Child::fork(|say| {
            let mut sender = place.sender();
            sender.send(b"let me in").unwrap();
            say.say(b's');
            (&hear).read_exact(&mut [0]).unwrap();
        });
        child.expect(b's');
        watched.expect_readable();
        let spare = io::pipe().unwrap();
        let next = io::pipe().unwrap().0.as_raw_fd();
        descriptor::limit_count(next as u64).unwrap();
        assert_eq!(watched.take(), Err(RecvError::Os { errno: libc::EMFILE }));
        assert!(watched.is_readable(), "there may be more behind an error");
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable() && watched.receiver.inward().must_look());
        drop((hear, spare));
        let opens = clock::now() + SLICE;
        descriptor::wait([], Some(opens)).unwrap();
        watched.receiver.inward().suspect();
        assert_eq!(watched.take(), Ok(b"let me in".to_vec()));
        assert_eq!(watched.drain(), [[0; 0]; 0]);
        assert!(!watched.is_readable() && !watched.receiver.inward().must_look());
        tell.write_all(b"x").unwrap();
        assert_eq!(watched.await_end(), RecvError::Closed);
        child.expect_success();
    });
}
