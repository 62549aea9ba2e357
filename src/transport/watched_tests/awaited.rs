//! Receivers that are watched before it is agreed what they receive from.

use super::*;

#[test]
fn what_is_decided_later_shows_in_the_same_descriptor() {
    for without_memory in [false, true] {
        alone(|| {
            let name = format!("ringway-watched-auto-{}", std::process::id());
            let address: Address = format!("auto:///{name}?capacity=64MiB").parse().unwrap();
            let mut receiver = Options::new().receiver(&address).unwrap();
            let pollable = receiver.pollable().unwrap();
            let is_readable = || descriptor::is_ready(pollable.as_fd(), Ready::Read).unwrap();
            let expect_readable = || {
                let deadline = Some(clock::now() + PATIENCE);
                assert!(descriptor::wait_one(pollable.as_fd(), Ready::Read, deadline).unwrap());
            };
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            assert!(!is_readable(), "nothing is decided");
            let (hear, mut tell) = io::pipe().unwrap();
            let mut child = Child::fork(|tell| {
                if without_memory {
                    // Then there is no ring, and the connection is used.
                    tell.limit_memory(20 << 20);
                }
                let mut sender = Options::new().sender(&address).unwrap();
                for message in [b"one", b"two"] {
                    sender.send(message).unwrap();
                    (&hear).read_exact(&mut [0]).unwrap();
                }
            });
            for message in [b"one", b"two"] {
                let received = loop {
                    expect_readable();
                    match receiver.try_recv() {
                        Ok(message) => break message.to_vec(),
                        Err(RecvError::Empty) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                };
                assert_eq!(received, message);
                assert_eq!(receiver.chosen().unwrap().scheme, if without_memory { "unix" } else { "memfd" });
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
                // A ring's sender may ring late, when what it rings for was received already.
                let deadline = clock::now() + PATIENCE;
                while is_readable() {
                    assert!(!without_memory && clock::now() < deadline, "it was drained");
                    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
                }
                assert_eq!(receiver.pollable().unwrap().as_raw_fd(), pollable.as_raw_fd());
                tell.write_all(b"x").unwrap();
            }
            let end = loop {
                expect_readable();
                match receiver.try_recv() {
                    Err(RecvError::Empty) => {}
                    Err(end) => break end,
                    Ok(message) => panic!("{message:?}"),
                }
            };
            assert_eq!(end, RecvError::Closed);
            child.expect_success();
        });
    }
}
