//! Rings of many: who may join, how many can, what a ring must be like, and when it goes.

mod common;

use common::crowd::{put, trusted};
use common::faults::kill;
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Scratch, alone};
use ringway::{Error, ErrorKind, Options, PeerState, RecvError, Ring, Wait, mpmc};
use std::sync::atomic::{AtomicBool, Ordering};

const SMALL: &str = "capacity=4KiB&max_message=64&producers=3";
const MOST_CONSUMERS: usize = 64;

#[test]
fn a_ring_has_as_many_producers_as_lanes() {
    let _alone = alone();
    for kind in KINDS {
        for lanes in [1, 2, 64] {
            let scratch = Scratch::many(kind, &format!("capacity=4KiB&max_message=64&producers={lanes}"));
            let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
            let mut producers: Vec<_> = (0..lanes).map(|_| scratch.sender()).collect();
            for (lane, producer) in (0..).zip(&mut producers) {
                assert_eq!(producer.lane(), lane);
                producer.send(b"x").unwrap();
            }
            let full = || {
                let error = Options::new().sender(&scratch.address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NoSpace);
                let said = format!("all of its {lanes} lanes are taken: end a producer, or make the ring with more");
                assert!(error.to_string().contains(&said), "{error}");
            };
            full();
            Child::fork(|_| full()).expect_success();
            let mut lanes_seen: Vec<u32> = (0..lanes).map(|_| receiver.recv().unwrap().producer()).collect();
            lanes_seen.sort_unstable();
            assert_eq!(lanes_seen, Vec::from_iter(0..lanes));

            // One that leaves makes room, and so does one that dies.
            let left = producers.remove(lanes as usize / 2);
            let lane = left.lane();
            drop(left);
            let mut child = Child::fork(|tell| {
                let mut sender = scratch.sender();
                assert_eq!((sender.lane(), sender.send(b"x").unwrap()), (lane, 1));
                tell.say(b's');
                tell.sleep_until_killed()
            });
            child.expect(b's');
            full();
            kill(child);
            let mut sender = scratch.sender();
            assert_eq!((sender.lane(), sender.send(b"x").unwrap()), (lane, 2), "the sequence goes on");
        }
    }
}

#[test]
fn a_ring_has_up_to_64_consumers() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&max_message=64&producers=1");
        let mut sender = scratch.sender();
        let mut receivers: Vec<_> = (0..MOST_CONSUMERS).map(|_| scratch.receiver()).collect();
        let full = || {
            let error = Options::new().receiver(&scratch.address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert!(error.to_string().contains("64 consumers, and takes no more: end one"), "{error}");
        };
        full();
        // Each has a number of its own: what one holds, no other gives back.
        for round in 0..3 {
            for receiver in &mut receivers {
                sender.send(&[round]).unwrap();
                assert_eq!(receiver.try_recv().unwrap()[..], [round]);
                assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            }
        }
        drop(receivers.remove(17));
        let mut child = Child::fork(|tell| {
            let mut receiver = scratch.receiver();
            tell.say(b'r');
            let _held = receiver.recv().unwrap();
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        sender.send(b"held").unwrap();
        child.expect(b'h');
        full();
        kill(child);
        let mut receiver = scratch.receiver();
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&message[..], message.is_redelivered()), (&b"held"[..], true));
        drop(message);
        full();
    }
}

#[test]
fn several_endpoints_of_one_process_are_members_of_their_own() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut first, mut second) = (scratch.producer(), scratch.producer());
        let (one, other) = (scratch.consumer(), scratch.consumer());
        let pid = std::process::id();
        assert_eq!(one.peers(), [PeerState::Alive { pid }; 2]);
        put(&mut first, b"1");
        put(&mut second, b"2");
        let held = one.recv().unwrap();
        // The end of one is not the end of another, whatever they share.
        drop(other);
        drop(second);
        assert_eq!(one.peers(), [PeerState::Alive { pid }]);
        assert_eq!(first.peers(), [PeerState::Alive { pid }]);
        Child::fork(|_| {
            let mut receiver = scratch.receiver();
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), 1);
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "nobody died");
        })
        .expect_success();
        assert_eq!(held.len(), 1);
        drop(held);
        put(&mut first, b"3");
        assert_eq!(&one.recv().unwrap()[..], b"3");
    }
}

#[test]
fn all_endpoints_of_a_dead_process_are_dead() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, survivor) = (scratch.producer(), scratch.consumer());
        (0..6).for_each(|number| _ = put(&mut producer, &[number]));
        let mut child = Child::fork(|tell| {
            let mut lanes = [scratch.producer(), scratch.producer()];
            lanes.iter_mut().for_each(|lane| _ = put(lane, b"dying"));
            let consumers = [scratch.consumer(), scratch.consumer(), scratch.consumer()];
            let _held: Vec<_> = consumers.iter().map(|consumer| consumer.recv().unwrap()).collect();
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        child.expect(b'h');
        kill(child);
        let recovery = ringway::recover(scratch.name().unwrap()).unwrap();
        assert_eq!((recovery.deaths, recovery.redelivered, recovery.dropped), (5, 3, 0));
        let (mut again, mut first) = (0, 0);
        while let Ok(message) = survivor.try_recv() {
            *if message.is_redelivered() { &mut again } else { &mut first } += 1;
        }
        assert_eq!((again, first), (3, 5), "{kind:?}");
        let report = scratch.report().unwrap();
        let deaths = |peers: &[ringway::Peer]| peers.iter().map(|peer| peer.deaths).collect::<Vec<_>>();
        assert_eq!((deaths(&report.producers), deaths(&report.consumers)), (vec![0, 1, 1], vec![0, 1, 1, 1]));
    }
}

#[test]
fn threads_that_come_and_go_lose_nothing() {
    let _alone = alone();
    let ring = mpmc::channel(&Options::new().producers(3).capacity(1 << 14).max_message(64).keep_open(true)).unwrap();
    let (received, done) = (std::sync::Mutex::new(vec![0; 3000]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut consumers = Vec::new();
        for _ in 0..2 {
            consumers.push(scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let consumer = ring.consumer().unwrap();
                    for _ in 0..20 {
                        let Ok(message) = consumer.try_recv() else { continue };
                        received.lock().unwrap()[usize::from(u16::from_le_bytes(message[..].try_into().unwrap()))] += 1;
                    }
                }
            }));
        }
        let producers = [0, 1000, 2000].map(|first| {
            let ring = &ring;
            scope.spawn(move || {
                for number in (first..first + 1000u16).step_by(10) {
                    let mut producer = ring.producer().unwrap();
                    (number..number + 10).for_each(|number| _ = put(&mut producer, &number.to_le_bytes()));
                }
            })
        });
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        while received.lock().unwrap().iter().sum::<i32>() < 3000 && consumers.iter().all(|c| !c.is_finished()) {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(received.lock().unwrap().iter().all(|&count| count == 1));
}

fn refused<T>(answer: ringway::Result<T>, kind: ErrorKind, remedy: &str) -> Error {
    let error = answer.err().expect("it was let in");
    assert!(error.kind() == kind && error.to_string().contains(remedy), "{error}");
    error
}

#[test]
fn a_ring_that_is_not_as_wanted_is_refused_with_a_remedy() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=64KiB&max_message=300&producers=3&max_deliveries=4&wait=futex");
        let _keep = scratch.receiver();
        // The address without its options.
        let place = scratch.address.target().to_string().parse().unwrap();
        let refuse = |options: Options, remedy| {
            let error = refused(options.clone().sender(&place), ErrorKind::Mismatch, remedy);
            assert!(error.to_string().contains("remove it first"), "{error}");
            refused(options.receiver(&place), ErrorKind::Mismatch, remedy);
        };
        let many = || Options::new().ring(Ring::Mpmc);
        refuse(Options::new().ring(Ring::Spsc), "it was made with ring=mpmc, not ring=spsc; leave it out");
        refuse(many().capacity(1 << 20), "its capacity is ");
        refuse(many().max_message(321), "its longest message is ");
        refuse(many().producers(4), "it has room for 3 producers, and 4 are wanted; say less");
        refuse(many().max_deliveries(5), "it was made with max_deliveries=4, not 5; leave it out");
        refuse(many().max_deliveries(3), "it was made with max_deliveries=4, not 3; leave it out");
        refuse(many().wait(Wait::Semaphore), "it was made with wait=futex, not wait=sem; leave it out");
        let error = refused(trusted(Options::new()).producer(&place), ErrorKind::Mismatch, "ring=spsc");
        assert!(error.to_string().contains("ring=mpmc"), "{error}");
        // Less is fine, and so is not to say.
        for options in [many(), many().capacity(4096).max_message(200).producers(2).max_deliveries(4), Options::new()] {
            options.clone().existing().sender(&place).unwrap().send(b"x").unwrap();
            drop(options.sender(&place).unwrap());
        }
        if let Some(report) = scratch.report() {
            let joined: u32 = report.producers.iter().map(|peer| peer.joined).sum();
            assert_eq!((joined, report.depth), (6, 3), "those who were refused have not joined");
        }
    }
}

#[test]
fn each_kind_of_ring_has_endpoints_of_its_own() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=64KiB");
        let _keep = scratch.receiver();
        let remedy = "ring=mpmc, which has endpoints of its own; use those, or remove it first";
        refused(trusted(Options::new()).producer(&scratch.address), ErrorKind::Mismatch, remedy);
        refused(trusted(Options::new()).consumer(&scratch.address), ErrorKind::Mismatch, remedy);
        let pair = Scratch::with(kind, "ring=spsc&capacity=64KiB");
        let _keep = pair.receiver();
        let remedy = "ring=spsc, which has endpoints of its own; use those, or remove it first";
        refused(trusted(Options::new()).mpmc_producer(&pair.address), ErrorKind::Mismatch, remedy);
        // Nor is one made that nobody can use.
        let fresh = Scratch::many(kind, "capacity=64KiB");
        refused(trusted(Options::new()).producer(&fresh.address), ErrorKind::Mismatch, "");
        assert!(kind == Kind::Anon || kind == Kind::File || !fresh.exists());
    }
    for options in [Options::new().producers(2), Options::new().max_deliveries(2)] {
        let address = "anon:pair".parse().unwrap();
        refused(options.clone().ring(Ring::Spsc).sender(&address), ErrorKind::InvalidInput, "goes with ring=mpmc");
    }
    for options in [Options::new().producers(0), Options::new().producers(65), Options::new().max_deliveries(16)] {
        let remedy = "there are 1 to 64 producers, and a message is delivered 1 to 15 times";
        let address = "anon:many".parse().unwrap();
        refused(options.ring(Ring::Mpmc).sender(&address), ErrorKind::InvalidInput, remedy);
    }
}

#[test]
fn a_ring_goes_with_its_last_member_once_everything_was_received() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, &format!("{SMALL}&persist=no"));
        drop((scratch.receiver(), scratch.receiver()));
        assert!(!scratch.exists(), "nobody needs it, and nothing is in it");

        let (mut first, second) = (scratch.sender(), scratch.sender());
        first.send(b"1").unwrap();
        drop(first);
        drop(second);
        assert!(scratch.exists(), "a message was not received");
        let (mut one, other) = (scratch.receiver(), scratch.receiver());
        let message = one.recv().unwrap();
        drop(other);
        assert!(scratch.exists());
        drop(message);
        drop(one);
        assert!(!scratch.exists(), "{kind:?}: closed and drained");

        // What the last consumer held when it died keeps it, until it is received again.
        let keep = scratch.sender();
        let mut child = Child::fork(|tell| {
            let mut receiver = scratch.receiver();
            tell.say(b'r');
            let _held = receiver.recv().unwrap();
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        child.expect(b'r');
        let mut sender = keep;
        sender.send(b"2").unwrap();
        child.expect(b'h');
        kill(child);
        drop(sender);
        assert!(scratch.exists());
        let mut receiver = scratch.receiver();
        assert!(receiver.recv().unwrap().is_redelivered());
        assert_eq!(receiver.recv().err(), Some(RecvError::Closed));
        drop(receiver);
        assert!(!scratch.exists(), "{kind:?}");
    }
}

#[test]
fn a_persistent_ring_stays() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::many(kind, &format!("{SMALL}&persist=yes"));
        for round in 0..3 {
            let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
            assert_eq!(sender.send(&[round]).unwrap(), round.into());
            assert_eq!(receiver.recv().unwrap()[..], [round]);
            drop((sender, receiver));
            assert!(scratch.exists());
        }
        let report = scratch.report().unwrap();
        let peer = |peer: &ringway::Peer| (peer.state, peer.joined, peer.deaths);
        assert_eq!(report.producers.iter().map(peer).collect::<Vec<_>>(), [(PeerState::Left, 3, 0)]);
        assert_eq!(report.consumers.iter().map(peer).collect::<Vec<_>>(), [(PeerState::Left, 3, 0)]);
        assert_eq!((report.depth, report.ring, report.persist), (0, Ring::Mpmc, true));
    }
}

#[test]
fn members_that_come_and_go_leave_nothing() {
    let _alone = alone();
    const EACH: u64 = 300;
    for kind in NAMED {
        let scratch = Scratch::many(kind, &format!("{SMALL}&persist=no"));
        let board = common::board::Board::new();
        let keep_open = || Options::new().keep_open(true);
        let mut senders = [0, 1].map(|_| {
            Child::fork(|_| {
                for _ in 0..EACH {
                    let mut sender = keep_open().sender(&scratch.address).unwrap();
                    sender.send_timeout(b"x", PATIENCE).unwrap();
                }
            })
        });
        let mut receivers = [0, 1].map(|_| {
            Child::fork(|_| {
                while board.get(0) < 2 * EACH {
                    let mut receiver = keep_open().receiver(&scratch.address).unwrap();
                    while let Ok(message) = receiver.try_recv() {
                        assert!(!message.is_redelivered());
                        board.word(0).fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        senders.iter_mut().chain(&mut receivers).for_each(Child::expect_success);
        assert_eq!(board.get(0), 2 * EACH);
        assert!(!scratch.exists(), "{kind:?}");
    }
}
