//! Rings of many producers and many consumers: every message reaches one consumer, whole, and in order per producer.

mod common;

use common::board::Board;
use common::payload::Payload;
use common::{Child, KINDS, Kind, PATIENCE, Scratch, WAITS, alone, runs};
use ringway::{Options, RecvError, Ring, Wait, mpmc};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Beyond what a slot's own chunk holds.
const LONGEST: usize = 600;

/// Tags tell which message it is, since one may have no byte.
fn tag(sender: u64, number: u64) -> u32 {
    (sender << 24 | number) as u32
}

fn payload(tag: u32) -> Payload {
    Payload::new(tag.into(), LONGEST)
}

fn send(scratch: &Scratch, sender: u64, count: u64) {
    let mut tx = scratch.sender();
    let mut first = None;
    for number in 0..count {
        let tag = tag(sender, number);
        let sequence = tx.send((&payload(tag).to_vec(), tag)).unwrap();
        // Of a lane that another one has left, it goes on.
        assert_eq!(sequence, *first.get_or_insert(sequence) + number);
    }
}

/// Receives until all senders have left, and notes on the board which messages came.
fn receive(scratch: &Scratch, count: u64, board: &Board, joined: impl FnOnce()) {
    let mut rx = scratch.receiver();
    joined();
    let (mut last, mut expected) = ([None; 4], [None; 4]);
    loop {
        match rx.recv_timeout(PATIENCE) {
            Ok(message) => {
                let (sender, number) = ((message.tag() >> 24) as usize, u64::from(message.tag() & 0xff_ffff));
                let payload = payload(message.tag());
                payload.check(&message, payload.tag());
                assert!(last[sender] < Some(number), "{number} of {sender} after {:?}", last[sender]);
                last[sender] = Some(number);
                let (sequence, expected) = (message.sequence(), &mut expected[message.producer() as usize]);
                let others_got = sequence - expected.unwrap_or(sequence);
                assert_eq!((message.gap(), message.is_redelivered()), (others_got, false));
                *expected = Some(sequence + 1);
                let arrivals = board.word(sender * count as usize + number as usize);
                assert_eq!(arrivals.fetch_add(1, Ordering::Relaxed), 0, "{number} of {sender} came twice");
            }
            Err(error) => break assert_eq!(error, RecvError::Closed),
        }
    }
}

fn exchange(kind: Kind, wait: Wait, senders: u64, receivers: u64) {
    let count = if wait == Wait::Spin { 2_000 } else { 6_000 };
    let options = format!("capacity=64KiB&max_message={LONGEST}&producers={}&wait={wait}", senders + 1);
    let scratch = Scratch::many(kind, &options);
    let board = Board::of((senders * count) as usize);
    // Keeps the ring open until all have sent.
    let keep = scratch.sender();
    let mut rxs: Vec<Child> =
        (0..receivers).map(|_| Child::fork(|tell| receive(&scratch, count, &board, || tell.say(b'j')))).collect();
    let mut txs: Vec<Child> = (0..senders).map(|sender| Child::fork(|_| send(&scratch, sender, count))).collect();
    // One that came when all have left would find the ring gone, and make another.
    rxs.iter_mut().for_each(|rx| rx.expect(b'j'));
    txs.iter_mut().for_each(Child::expect_success);
    drop(keep);
    rxs.iter_mut().for_each(Child::expect_success);
    assert!((0..board.len()).all(|message| board.get(message) == 1), "{kind:?} {wait}: not all came");
    if scratch.name().is_some() {
        assert_eq!(scratch.exists(), kind == Kind::File, "the last one has left");
    }
}

#[test]
fn many_to_one() {
    let _alone = alone();
    KINDS.into_iter().for_each(|kind| WAITS.into_iter().for_each(|wait| exchange(kind, wait, 3, 1)));
}

#[test]
fn one_to_many() {
    let _alone = alone();
    KINDS.into_iter().for_each(|kind| WAITS.into_iter().for_each(|wait| exchange(kind, wait, 1, 3)));
}

#[test]
fn many_to_many() {
    let _alone = alone();
    KINDS.into_iter().for_each(|kind| WAITS.into_iter().for_each(|wait| exchange(kind, wait, 3, 3)));
}

#[test]
fn threads_share_a_ring() {
    let _alone = alone();
    for wait in WAITS {
        let options = Options::new().ring(Ring::Mpmc).producers(2).capacity(1 << 14).max_message(64).wait(wait);
        let ring = mpmc::channel(&options).unwrap();
        let seen = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut producer = ring.producer().unwrap();
                scope.spawn(move || {
                    for number in 0..10_000u64 {
                        let mut grant = producer.reserve(8).unwrap();
                        grant.copy_from_slice(&number.to_le_bytes());
                        grant.commit(8);
                    }
                });
            }
            for _ in 0..2 {
                let (consumer, seen) = (ring.consumer().unwrap(), &seen);
                scope.spawn(move || {
                    loop {
                        match consumer.recv() {
                            Ok(message) => {
                                let number = u64::from_le_bytes(message[..].try_into().unwrap());
                                assert!(seen.lock().unwrap().insert((message.producer(), number)));
                            }
                            Err(error) => break assert_eq!(error, RecvError::Closed),
                        }
                    }
                });
            }
        });
        assert_eq!(seen.lock().unwrap().len(), 20_000);
    }
}

#[test]
fn some_come_late_and_leave_early() {
    let _alone = alone();
    const EACH: u64 = 500;
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=16KiB&max_message=64&producers=3");
        let board = Board::of(16 * EACH as usize);
        let _keep = scratch.sender();
        let mut receivers: Vec<Child> = (0..3)
            .map(|_| {
                Child::fork(|_| {
                    // Each stays for a few messages, and comes back.
                    loop {
                        let mut rx = scratch.receiver();
                        for _ in 0..70 {
                            match rx.recv_timeout(PATIENCE) {
                                Ok(message) if message.is_empty() => return,
                                Ok(message) => {
                                    let arrivals = board.word(message.tag() as usize);
                                    assert_eq!(arrivals.fetch_add(1, Ordering::Relaxed), 0);
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for pair in 0..8 {
            let mut senders = [0, 1].map(|sender| {
                let first = (2 * pair + sender) * EACH;
                Child::fork(|_| {
                    // All receivers may be away at once.
                    let mut tx = Options::new().keep_open(true).sender(&scratch.address).unwrap();
                    for number in first..first + EACH {
                        tx.send((b"x", number as u32)).unwrap();
                    }
                })
            });
            senders.iter_mut().for_each(Child::expect_success);
        }
        while (0..board.len()).any(|message| board.get(message) == 0) {
            assert!(receivers.iter().all(runs), "{kind:?}: one failed");
            std::thread::yield_now();
        }
        // Whoever gets one goes.
        assert_eq!(scratch.sender().send_many([b""; 3]), Ok(3));
        receivers.iter_mut().for_each(Child::expect_success);
    }
}
