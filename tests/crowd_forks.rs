//! Rings of many across `fork`: a child can use nothing of its parent's, harms nothing by dropping it, and joins in its own right.

mod common;

use common::crowd::{put, trusted};
use common::{Child, KINDS, Kind, PATIENCE, Scratch, alone};
use ringway::{Options, PeerState, RecvError, SendError};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SMALL: &str = "capacity=4KiB&max_message=64&producers=2";
const SHORT: Duration = Duration::from_millis(2);

/// Passes a message through, to show that all is well.
fn pass(producer: &mut ringway::mpmc::Producer, consumer: &ringway::mpmc::Consumer) {
    put(producer, b"pass");
    let message = consumer.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&message[..], message.gap(), message.deliveries()), (&b"pass"[..], 0, 0));
}

#[test]
fn a_child_can_not_use_its_parents_ends() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let ends = RefCell::new(Some((scratch.sender(), scratch.receiver())));
        let with_ends = |work: &dyn Fn(&mut ringway::Sender, &mut ringway::Receiver)| {
            let mut ends = ends.borrow_mut();
            let (sender, receiver) = ends.as_mut().unwrap();
            work(sender, receiver);
        };
        with_ends(&|sender, _| {
            sender.send(b"parent's").unwrap();
        });
        Child::fork(|_| {
            with_ends(&|sender, receiver| {
                for _ in 0..2 {
                    assert_eq!(sender.send(b"x"), Err(SendError::Fenced));
                    assert_eq!(sender.try_send(b"x"), Err(SendError::Fenced));
                    assert_eq!(sender.send_timeout(b"x", SHORT), Err(SendError::Fenced));
                    assert_eq!(sender.send_many([b"x"]).unwrap_err().error, SendError::Fenced);
                    assert_eq!(sender.reserve(1).err(), Some(SendError::Fenced));
                    assert_eq!(receiver.recv().err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.try_recv().err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.recv_timeout(SHORT).err(), Some(RecvError::Fenced));
                    assert_eq!(receiver.recv_into(&mut [0; 99]), Err(RecvError::Fenced));
                    assert_eq!(receiver.recv_many(1, |_, _| {}), Err(RecvError::Fenced));
                }
            });
            // In its own right it joins like anybody else.
            if kind != Kind::Anon {
                let mut own = scratch.sender();
                assert_eq!(own.lane(), 1);
                ends.borrow_mut().take();
                assert_eq!(&scratch.receiver().recv().unwrap()[..], b"parent's");
                own.send(b"child's").unwrap();
            }
        })
        .expect_success();
        with_ends(&|sender, receiver| {
            let pid = std::process::id();
            assert_eq!((sender.peer(), receiver.peer()), (PeerState::Alive { pid }, PeerState::Alive { pid }));
            let text = if kind == Kind::Anon { &b"parent's"[..] } else { b"child's" };
            assert_eq!(&receiver.recv().unwrap()[..], text);
            sender.send(b"still").unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], b"still");
        });
        if let Some(report) = scratch.report() {
            assert!(report.producers.iter().chain(&report.consumers).all(|peer| peer.deaths == 0));
        }
    }
}

/// What a child does with what its parent holds: uses it up, drops it, or dies with it.
const DEEDS: [u8; 3] = [b'u', b'd', b'k'];

#[test]
fn room_for_a_message_stays_the_parents() {
    let _alone = alone();
    for kind in KINDS {
        for deed in DEEDS {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
            pass(&mut producer, &consumer);
            let mut grant = producer.reserve(8).unwrap();
            grant.copy_from_slice(b"parent's");
            grant.set_tag(7);
            let grant = RefCell::new(Some(grant));
            let mut child = Child::fork(|tell| match deed {
                b'u' => assert_eq!(grant.take().unwrap().commit(3), 0),
                b'd' => drop(grant.take()),
                _ => tell.sleep_until_killed(),
            });
            if deed != b'k' {
                child.expect_success();
            }
            drop(child);
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty), "{kind:?}: the child sent");
            assert_eq!(grant.take().unwrap().commit(8), 1);
            let message = consumer.recv_timeout(PATIENCE).unwrap();
            assert_eq!((&message[..], message.tag()), (&b"parent's"[..], 7));
            drop(message);
            pass(&mut producer, &consumer);
        }
    }
}

#[test]
fn an_unpublished_batch_stays_the_parents() {
    let _alone = alone();
    for kind in KINDS {
        for deed in DEEDS {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
            pass(&mut producer, &consumer);
            let mut batch = producer.batch();
            for text in [b"one", b"two"] {
                let mut grant = batch.reserve(3).unwrap();
                grant.copy_from_slice(text);
                grant.commit(3);
            }
            let batch = RefCell::new(Some(batch));
            let mut child = Child::fork(|tell| {
                if deed == b'k' {
                    tell.sleep_until_killed();
                }
                let mut batch = batch.take().unwrap();
                assert_eq!(batch.try_reserve(1).err(), Some(SendError::Fenced));
                assert_eq!(batch.reserve(1).err(), Some(SendError::Fenced));
                assert!(deed == b'd' || !batch.publish());
            });
            if deed != b'k' {
                child.expect_success();
            }
            drop(child);
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty), "{kind:?}: the child sent");
            assert!(batch.take().unwrap().publish());
            drop(batch);
            assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"one");
            assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"two");
            pass(&mut producer, &consumer);
        }
    }
}

#[test]
fn a_message_held_stays_the_parents() {
    let _alone = alone();
    for kind in KINDS {
        for deed in DEEDS {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, consumer, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
            pass(&mut producer, &consumer);
            put(&mut producer, b"held");
            let held = RefCell::new(Some(consumer.recv().unwrap()));
            let mut child = Child::fork(|tell| match deed {
                b'k' => tell.sleep_until_killed(),
                _ => drop(held.take()),
            });
            if deed != b'k' {
                child.expect_success();
            }
            drop(child);
            assert!(scratch.lanes().is_none_or(|lanes| lanes.leased == 1), "{kind:?}: the child gave it back");
            // Not even a look for the dead takes it.
            drop(scratch.consumer());
            for _ in 0..3 * 64 {
                put(&mut producer, b"pass");
                assert_eq!(&other.recv_timeout(PATIENCE).unwrap()[..], b"pass");
            }
            assert_eq!(&held.take().unwrap()[..], b"held");
            assert!(scratch.lanes().is_none_or(|lanes| lanes.leased == 0));
        }
    }
}

#[test]
fn a_received_batch_stays_the_parents() {
    let _alone = alone();
    for kind in KINDS {
        for deed in DEEDS {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, mut consumer, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
            for text in [b"1", b"2", b"3"] {
                put(&mut producer, text);
            }
            {
                let batch = RefCell::new(Some(consumer.try_recv_batch(16).unwrap()));
                assert_eq!(batch.borrow_mut().as_mut().unwrap().into_iter().next().unwrap()[..], *b"1");
                let mut child = Child::fork(|tell| {
                    if deed == b'k' {
                        tell.sleep_until_killed();
                    }
                    let mut batch = batch.take().unwrap();
                    assert!(batch.into_iter().next().is_none(), "it is the parent's");
                });
                if deed != b'k' {
                    child.expect_success();
                }
                drop(child);
                assert_eq!(other.try_recv().err(), Some(RecvError::Empty), "{kind:?}");
                assert_eq!(batch.borrow_mut().as_mut().unwrap().into_iter().next().unwrap()[..], *b"2");
                Child::fork(|_| drop(batch.take())).expect_success();
            }
            // What is left of it, too: a child that ends gives nothing to others.
            let consumer = RefCell::new(Some(consumer));
            Child::fork(|_| drop(consumer.take())).expect_success();
            assert_eq!(other.try_recv().err(), Some(RecvError::Empty), "{kind:?}");
            let consumer = consumer.take().unwrap();
            assert_eq!(consumer.recv_timeout(PATIENCE).unwrap()[..], *b"3");
            assert!(scratch.lanes().is_none_or(|lanes| lanes.leased == 0));
        }
    }
}

#[test]
fn a_panicking_child_in_a_handler_takes_nothing() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
        assert_eq!(sender.send_many([b"1", b"2", b"3"]), Ok(3));
        let mut seen = Vec::new();
        receiver
            .recv_many(16, |bytes, _| {
                // A child of the middle of it all, that unwinds nothing and drops nothing.
                Child::fork(|_| assert_eq!(bytes.len(), 1)).expect_success();
                seen.push(bytes[0]);
            })
            .unwrap();
        assert_eq!(seen, b"123");
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    }
}

#[test]
fn a_parent_that_leaves_hands_its_lane_to_its_child() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&max_message=64&producers=1");
        let consumer = trusted(Options::new().keep_open(true)).mpmc_consumer(&scratch.address).unwrap();
        let mut producer = scratch.producer();
        put(&mut producer, b"parent's");
        let mut child = Child::fork(|tell| {
            // It has the parent's descriptors until it drops what it inherited; the parent's leaving is what counts.
            let mut own = loop {
                match trusted(Options::new()).mpmc_producer(&scratch.address) {
                    Ok(own) => break own,
                    Err(error) => assert_eq!(error.kind(), ringway::ErrorKind::NoSpace),
                }
            };
            assert_eq!((own.lane(), put(&mut own, b"child's")), (0, 1));
            tell.say(b's');
        });
        drop(producer);
        child.expect(b's');
        child.expect_success();
        assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"parent's");
        assert_eq!(&consumer.recv_timeout(PATIENCE).unwrap()[..], b"child's");
    }
}

#[test]
fn a_child_joins_whatever_other_threads_of_its_parent_are_making() {
    let _alone = alone();
    let (scratch, other) = (Scratch::many(Kind::Anon, SMALL), Scratch::with(Kind::Anon, "capacity=1MiB"));
    let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(other.receiver());
            }
        });
        let passed = (0..300).all(|_| {
            let child = Child::fork(|_| {
                scratch.sender().send(b"child's").unwrap();
            });
            let passed = receiver.recv_timeout(PATIENCE).is_ok();
            drop(child);
            passed
        });
        done.store(true, Ordering::Relaxed);
        assert!(passed, "a child could not join");
    });
}
