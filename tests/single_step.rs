//! Killed after every single instruction: whatever the moment, what is left is whole, and the next one goes on.
//!
//! Here: a ring with one producer and one consumer, while messages are sent and received.

mod common;

use common::payload::Payload;
use common::trace::{Traced, kill_after_each};
use common::{Kind, PATIENCE, Scratch, alone};
use ringway::spsc::{Consumer, Producer};
use ringway::{Options, PeerState, RecvError, SendError, Takeover};

fn producer(scratch: &Scratch) -> Producer {
    // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
    unsafe { Options::new().assume_trusted_peers() }.producer(&scratch.address).unwrap()
}

fn consumer(scratch: &Scratch) -> Consumer {
    // SAFETY: as above.
    unsafe { Options::new().assume_trusted_peers() }.consumer(&scratch.address).unwrap()
}

/// A ring that has been full of what looks like headers, and whose next message comes `before_end` bytes before the end
/// of a lap.
fn used_ring(before_end: u64) -> (Scratch, ringway::Receiver) {
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB&persist=yes");
    let mut receiver = scratch.receiver();
    let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
    let forged = |words: usize| (((words as u64 * 32) << 2) | 1).to_le_bytes().repeat(words);
    let mut position = 0;
    let end = 3 * 4096 - before_end;
    while position < end {
        let words = 31.min((end - position) / 8 - 1);
        sender.send(&forged(words as usize)).unwrap();
        position = receiver.recv().unwrap().sequence() + 8 + words * 8;
    }
    drop(sender);
    (scratch, receiver)
}

fn message(number: u64) -> Payload {
    Payload::of_len(number, 40 + number as usize)
}

#[track_caller]
fn expect(receiver: &mut ringway::Receiver, number: u64) {
    let received = receiver.recv_timeout(PATIENCE).unwrap();
    message(number).check(&received, received.tag());
}

fn commit(mut grant: ringway::spsc::WriteGrant<'_>, payload: Payload) {
    payload.write(&mut grant);
    grant.set_tag(payload.tag());
    grant.commit(payload.len);
}

/// The receiver gets what was sent before, then all or nothing of what was being sent, and then a successor's messages.
fn check_after_sender(scratch: &Scratch, mut receiver: ringway::Receiver, in_flight: u64, finished: bool) -> bool {
    expect(&mut receiver, 0);
    let visible = match receiver.try_recv() {
        Ok(first) => {
            message(1).check(&first, first.tag());
            true
        }
        Err(error) => {
            assert_eq!(error, RecvError::Empty);
            false
        }
    };
    for number in (2..1 + in_flight).take_while(|_| visible) {
        expect(&mut receiver, number);
    }
    assert!(visible || !finished, "what was committed is gone");
    assert!(matches!(receiver.peer(), PeerState::Dead { .. }));
    let mut successor = scratch.sender();
    // More than two laps.
    for number in 100..200 {
        successor.send((&message(number).to_vec(), message(number).tag())).unwrap();
        expect(&mut receiver, number);
    }
    assert_eq!(receiver.try_recv().err(), Some(RecvError::PeerDied));
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "told once");
    drop(successor);
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
    visible
}

/// Kills a producer all through `operate`, which sends the messages from 1 on.
fn kill_producers(what: &str, before_end: u64, in_flight: u64, operate: impl Fn(&mut Producer)) {
    let mut published = Vec::new();
    kill_after_each(
        what,
        || {
            let (scratch, receiver) = used_ring(before_end);
            let prepare = || {
                let mut producer = producer(&scratch);
                commit(producer.reserve(40).unwrap(), message(0));
                producer
            };
            let child = Traced::start(prepare, &operate);
            ((scratch, receiver), child)
        },
        |(scratch, receiver), place| {
            published.push(check_after_sender(&scratch, receiver, in_flight, place.ended));
        },
    );
    // The first run is the one to the end.
    let published = &published[1..];
    assert!(published.is_sorted() && !published[0] && published[published.len() - 1], "one store publishes it all");
}

#[test]
fn a_producer_between_reserve_and_commit() {
    let _alone = alone();
    let one = |producer: &mut Producer| commit(producer.reserve(60).unwrap(), message(1));
    kill_producers("reserve, write, commit", 1024, 1, one);
    // 48 bytes for the first message, 32 for a pad.
    kill_producers("the same behind a pad", 48 + 32, 1, one);
    kill_producers("the same at the very end of a lap", 48 + 56, 1, one);
    kill_producers("an abort, and then a batch of two across a lap's end", 48 + 64, 2, |producer| {
        producer.reserve(100).unwrap().fill(0xff);
        let mut batch = producer.batch();
        for number in 1..3 {
            commit(batch.reserve(60).unwrap(), message(number));
        }
        assert!(batch.publish());
    });
}

#[test]
fn a_sender_that_copies() {
    let _alone = alone();
    let mut published = Vec::new();
    kill_after_each(
        "send",
        || {
            let (scratch, receiver) = used_ring(48 + 32);
            let prepare = || {
                let mut sender = scratch.sender();
                sender.send((&message(0).to_vec(), message(0).tag())).unwrap();
                (sender, message(1).to_vec())
            };
            let child = Traced::start(prepare, |(sender, bytes)| {
                sender.send((&*bytes, message(1).tag())).unwrap();
            });
            ((scratch, receiver), child)
        },
        |(scratch, receiver), place| published.push(check_after_sender(&scratch, receiver, 1, place.ended)),
    );
    assert!(published[1..].is_sorted() && !published[1]);
}

/// What a successor gets first of the messages 1 to 3, of which a killed consumer was about to receive number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum First {
    Untouched,
    Again,
    Gone,
}

fn kill_consumers(takeover: Takeover) {
    let mut found = Vec::new();
    kill_after_each(
        &format!("recv, read, release; {takeover:?}"),
        || {
            let (scratch, receiver) = used_ring(48 + 32);
            drop(receiver);
            let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
            for number in 0..4 {
                sender.send((&message(number).to_vec(), message(number).tag())).unwrap();
            }
            let prepare = || {
                let mut consumer = consumer(&scratch);
                assert_eq!(consumer.recv().unwrap().len(), message(0).len);
                consumer
            };
            let child = Traced::start(prepare, |consumer| {
                std::hint::black_box(consumer.recv().unwrap()[0]);
            });
            ((scratch, sender), child)
        },
        |(scratch, mut sender), place| {
            let mut receiver = Options::new().takeover(takeover).keep_open(true).receiver(&scratch.address).unwrap();
            let first = {
                let first = receiver.try_recv().unwrap();
                let second = usize::from(first.len() != message(1).len);
                message(1 + second as u64).check(&first, first.tag());
                match (second, first.is_redelivered()) {
                    (0, false) => First::Untouched,
                    (0, true) => First::Again,
                    (_, redelivered) => {
                        assert!(!redelivered);
                        First::Gone
                    }
                }
            };
            if first != First::Gone {
                expect(&mut receiver, 2);
            }
            assert!(!place.ended || first == First::Gone);
            found.push(first);
            expect(&mut receiver, 3);
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            // All of the room came back.
            let mut sent = 0;
            while sender.try_send(&[0; 48 - 8]).is_ok() {
                sent += 1;
            }
            assert!((4096 / 48 - 1..=4096 / 48).contains(&sent), "room for {sent}");
            assert_eq!(sender.try_send(&[0; 48 - 8]), Err(SendError::Full));
            for _ in 0..sent {
                assert_eq!(receiver.try_recv().unwrap().len(), 40);
            }
        },
    );
    assert_eq!(found.remove(0), First::Gone, "the run to the end");
    assert!(found.is_sorted() && found[0] == First::Untouched);
    assert_eq!(found.contains(&First::Again), takeover == Takeover::Redeliver);
}

#[test]
fn a_consumer_between_recv_and_release() {
    let _alone = alone();
    kill_consumers(Takeover::Redeliver);
    kill_consumers(Takeover::Drop);
}
