//! kill -9 at any moment: what was sent before arrives, nothing is torn, and whoever comes next goes on.

mod common;

use common::board::Board;
use common::faults::kill;
use common::payload::{self, Payload};
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Random, Scratch, alone, dawdle, runs};
use ringway::{ErrorKind, Options, PeerState, RecvError, Takeover, inspect};
use std::time::Duration;

const LONGEST: usize = 300;

/// What the senders have sent for certain: the number of the next message.
const SENT: usize = 0;

/// Sends messages from number `next` on, in a way of its own, until killed.
fn send_until_killed(scratch: &Scratch, next: u64, way: u64, board: &Board) {
    let mut number = next;
    let mut sent = |count| {
        number += count;
        board.set(SENT, number);
        number
    };
    let mut next = next;
    if way == 2 {
        // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
        let trusted = unsafe { Options::new().assume_trusted_peers() };
        let mut producer = trusted.producer(&scratch.address).unwrap();
        loop {
            producer.reserve(LONGEST).unwrap().fill(0xff);
            let payload = Payload::new(next, LONGEST);
            let mut grant = producer.reserve(LONGEST).unwrap();
            payload.write(&mut grant);
            grant.set_tag(payload.tag());
            grant.commit(payload.len);
            next = sent(1);
        }
    }
    let mut sender = scratch.sender();
    loop {
        let payloads = (next..).map(|number| Payload::new(number, LONGEST));
        if way == 0 {
            for payload in payloads {
                sender.send((&payload.to_vec(), payload.tag())).unwrap();
                sent(1);
            }
        } else {
            let batch: Vec<_> = payloads.take(9).map(|payload| (payload.to_vec(), payload.tag())).collect();
            let count = sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag))).unwrap();
            next = sent(count as u64);
        }
    }
}

#[test]
fn senders_killed_anywhere() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let (board, mut random) = (Board::new(), Random(1));
        let mut receiver = scratch.receiver();
        let mut next = 0;
        const KILLS: u64 = 240;
        for round in 0..KILLS {
            board.set(SENT, next);
            let child = Child::fork(|_| send_until_killed(&scratch, next, round % 3, &board));
            // In some rounds it is killed before it has sent anything, or while the ring is full.
            for _ in 0..random.below(4) * random.below(200) {
                let message = loop {
                    match receiver.recv_timeout(PATIENCE) {
                        // It has not joined yet.
                        Err(RecvError::Closed) => std::thread::yield_now(),
                        answer => break answer.unwrap(),
                    }
                };
                Payload::new(next, LONGEST).check(&message, message.tag());
                assert!(!message.is_redelivered());
                drop(message);
                next += 1;
            }
            dawdle(random.below(20_000));
            let had_joined = matches!(receiver.peer(), PeerState::Alive { .. });
            kill(child);
            loop {
                match receiver.try_recv() {
                    Ok(message) => Payload::new(next, LONGEST).check(&message, message.tag()),
                    Err(error) => {
                        break assert!(matches!(error, RecvError::Empty | RecvError::PeerDied | RecvError::Closed));
                    }
                }
                next += 1;
            }
            // A batch that fills the ring is published in parts.
            let certain = board.get(SENT);
            let most = certain + if round % 3 == 1 { 9 } else { 1 };
            assert!((certain..=most).contains(&next), "{next} arrived, {certain} were sent");
            if round % 40 == 0 && had_joined {
                // The kernel tells, if nobody takes over.
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
            }
            let mut successor = scratch.sender();
            let payload = Payload::new(next, LONGEST);
            successor.send((&payload.to_vec(), payload.tag())).unwrap();
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            payload.check(&message, message.tag());
            drop(message);
            next += 1;
            if round % 40 != 0 && had_joined {
                assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
            }
            assert!(matches!(receiver.try_recv().err(), Some(RecvError::Empty | RecvError::PeerDied)));
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "told once");
        }
        println!("{kind:?}: {KILLS} senders killed, {next} messages");
        if let Some(name) = scratch.name() {
            let report = inspect(name).unwrap();
            assert_eq!(report.producers[0].joined - report.producers[0].deaths, KILLS as u32, "each successor left");
        }
    }
}

/// What receivers were handed for certain, and what they gave back for certain: the numbers of the next messages.
const HANDED: usize = 1;
const DONE: usize = 2;

/// Receives, in a way of its own, until killed, and checks the first messages against what the predecessor noted.
fn receive_until_killed(scratch: &Scratch, takeover: Takeover, way: u64, board: &Board) {
    let (handed, done) = (board.get(HANDED), board.get(DONE));
    let mut receiver = Options::new().takeover(takeover).keep_open(true).receiver(&scratch.address).unwrap();
    let mut next = None;
    let mut check = |bytes: &[u8], tag, redelivered| {
        let number = payload::number(bytes);
        Payload::of_len(number, bytes.len()).check(bytes, tag);
        match next {
            None if takeover == Takeover::Redeliver => {
                assert!((done..=handed).contains(&number), "{number} in {done}..={handed}")
            }
            None => assert!((handed..=handed + 1).contains(&number), "{number}, but {handed} is next"),
            Some(next) => assert_eq!(number, next),
        }
        if number != handed {
            assert_eq!(redelivered, number < handed, "{number} with {handed} handed out");
        }
        next = Some(number + 1);
        board.set(HANDED, handed.max(number + 1));
        number + 1
    };
    loop {
        if way == 0 {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let next = check(&message, message.tag(), message.is_redelivered());
            dawdle(next % 50);
            drop(message);
            board.set(DONE, next);
        } else {
            let mut next = 0;
            receiver.recv_many(7, |bytes, delivery| next = check(bytes, delivery.tag, delivery.redelivered)).unwrap();
            board.set(DONE, next);
        }
    }
}

#[test]
fn receivers_killed_anywhere() {
    let _alone = alone();
    for kind in KINDS {
        for takeover in [Takeover::Redeliver, Takeover::Drop] {
            let scratch = Scratch::with(kind, "capacity=4KiB");
            let (board, mut random) = (Board::new(), Random(2));
            let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
            let mut next = 0;
            let mut send = |sender: &mut ringway::Sender| {
                let payload = Payload::of_len(next, 8 + (payload::mix(next) % 100) as usize);
                let sent = sender.try_send((&payload.to_vec(), payload.tag())).is_ok();
                next += u64::from(sent);
                sent
            };
            for round in 0..160 {
                while send(&mut sender) {}
                let child = Child::fork(|_| receive_until_killed(&scratch, takeover, round % 2, &board));
                // From before it has joined, up to many laps later.
                let until = board.get(HANDED) + random.below(3) * random.below(1000);
                while board.get(HANDED) < until {
                    if !send(&mut sender) {
                        assert!(runs(&child), "it failed");
                    }
                }
                dawdle(random.below(20_000));
                kill(child);
            }
            println!("{kind:?}, {takeover:?}: 160 receivers killed, {} messages", board.get(DONE));
            assert!(board.get(DONE) > 1000);
        }
    }
}

#[test]
fn a_message_held_at_death_comes_again_or_not_as_told() {
    let _alone = alone();
    for kind in KINDS {
        for takeover in [Takeover::Redeliver, Takeover::Drop] {
            let scratch = Scratch::with(kind, "capacity=4KiB");
            let mut sender = scratch.sender();
            for number in 0..5u8 {
                sender.send(&[number]).unwrap();
            }
            let mut child = Child::fork(|tell| {
                let mut receiver = scratch.receiver();
                assert_eq!(&receiver.recv().unwrap()[..], [0]);
                receiver.recv_into(&mut [0]).unwrap();
                let _held = receiver.recv().unwrap();
                tell.say(b'h');
                tell.sleep_until_killed()
            });
            child.expect(b'h');
            kill(child);
            let mut receiver = Options::new().takeover(takeover).receiver(&scratch.address).unwrap();
            if takeover == Takeover::Redeliver {
                let again = receiver.recv().unwrap();
                assert_eq!((&again[..], again.is_redelivered()), (&[2][..], true));
            }
            for number in 3..5 {
                let message = receiver.recv().unwrap();
                assert_eq!((&message[..], message.is_redelivered()), (&[number][..], false));
            }
            drop(receiver);
            // One who left in good order leaves nothing to redeliver.
            let mut receiver = scratch.receiver();
            sender.send(&[5]).unwrap();
            let message = receiver.recv().unwrap();
            assert_eq!((&message[..], message.is_redelivered()), (&[5][..], false));
        }
    }
}

#[test]
fn a_sender_killed_with_a_grant_sends_nothing_of_it() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let mut receiver = scratch.receiver();
        let mut child = Child::fork(|tell| {
            // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
            let trusted = unsafe { Options::new().assume_trusted_peers() };
            let mut producer = trusted.producer(&scratch.address).unwrap();
            producer.reserve(8).unwrap().commit(8);
            let mut batch = producer.batch();
            for _ in 0..3 {
                let mut grant = batch.reserve(100).unwrap();
                grant.fill(1);
                grant.commit(100);
            }
            let mut grant = batch.reserve(100).unwrap();
            grant.fill(1);
            tell.say(b'g');
            tell.sleep_until_killed()
        });
        child.expect(b'g');
        kill(child);
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), 8);
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
        let mut sender = scratch.sender();
        sender.send(b"next").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"next");
    }
}

#[test]
fn joiners_and_leavers_killed_anywhere_never_wedge_a_role() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB&persist=no");
        let mut random = Random(3);
        for round in 0..250 {
            let mut child = Child::fork(|tell| {
                tell.say(b'r');
                loop {
                    match round % 3 {
                        0 => drop(scratch.sender()),
                        1 => drop(scratch.receiver()),
                        _ => drop((scratch.sender(), scratch.receiver())),
                    }
                }
            });
            child.expect(b'r');
            dawdle(random.below(15_000));
            kill(child);
            let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
            sender.send(b"through").unwrap();
            assert_eq!(&receiver.try_recv().unwrap()[..], b"through");
            assert!(matches!(Options::new().sender(&scratch.address).unwrap_err().kind(), ErrorKind::RoleTaken { .. }));
        }
        assert!(!scratch.exists(), "{kind:?}");
    }
}

#[test]
fn both_killed_at_once_leave_a_ring_that_works() {
    let _alone = alone();
    for kind in NAMED {
        let scratch = Scratch::with(kind, "capacity=4KiB");
        let (board, mut random) = (Board::new(), Random(4));
        let mut oldest = 0;
        for round in 0..100 {
            let next = board.get(SENT);
            let sender = Child::fork(|_| {
                let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
                for number in next.. {
                    let payload = Payload::of_len(number, 8 + (number % 90) as usize);
                    sender.send((&payload.to_vec(), payload.tag())).unwrap();
                    board.set(SENT, number + 1);
                }
            });
            let receiver = Child::fork(|_| {
                let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
                loop {
                    let message = receiver.recv().unwrap();
                    let number = payload::number(&message);
                    Payload::of_len(number, message.len()).check(&message, message.tag());
                    drop(message);
                    board.set(DONE, number + 1);
                }
            });
            // Every other time not before they work: else a slow machine would kill none but joiners.
            while round % 2 == 0 && board.get(SENT) == next {
                std::thread::yield_now();
            }
            dawdle(random.below(100_000));
            match round % 4 / 2 {
                0 => drop((kill(sender), kill(receiver))),
                _ => drop((kill(receiver), kill(sender))),
            }
            // The first that is left is the first not given back, or one whose giving back was not noted.
            let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
            let mut expected = None;
            while let Ok(message) = receiver.try_recv() {
                let number = payload::number(&message);
                Payload::of_len(number, message.len()).check(&message, message.tag());
                assert!(expected.map_or(number >= oldest, |expected| number == expected), "{number}, {expected:?}");
                expected = Some(number + 1);
            }
            let certain = board.get(SENT);
            if let Some(next) = expected {
                assert!((certain..=certain + 1).contains(&next), "{next} arrived, {certain} were sent");
                board.set(SENT, next);
            }
            oldest = board.get(SENT);
        }
        assert!(board.get(SENT) >= 50);
    }
}

#[test]
fn a_death_is_noticed_by_one_who_sleeps() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    let mut sender = scratch.sender();
    while sender.try_send(b"fill").is_ok() {}
    let mut child = Child::fork(|tell| {
        let _receiver = scratch.receiver();
        tell.say(b'r');
        tell.sleep_until_killed()
    });
    child.expect(b'r');
    kill(child);
    assert_eq!(sender.send(b"more").err(), Some(ringway::SendError::PeerDied));
    assert_eq!(sender.send_timeout(b"more", Duration::from_millis(150)), Err(ringway::SendError::Timeout), "told once");
}
