//! Several messages at once in rings of many: published together, claimed together, given back in parts.

mod common;

use common::crowd::{put, trusted};
use common::faults::kill;
use common::payload::Payload;
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Random, Scratch, alone};
use ringway::mpmc::{Consumer, Producer};
use ringway::{Options, RecvError, SendError, Takeover, recover};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SMALL: &str = "capacity=4KiB&producers=1&max_message=64";
const SLOTS: usize = 64;
/// The most messages that are claimed at once.
const MOST: usize = 16;

/// Publishes messages of one byte together: `numbers`.
fn publish(producer: &mut Producer, numbers: std::ops::Range<u8>) {
    let mut batch = producer.batch();
    for number in numbers {
        let mut grant = batch.reserve(1).unwrap();
        grant[0] = number;
        grant.commit(1);
    }
    assert!(batch.publish());
}

/// Up to `max` messages at once, of which `take` are looked at; they must begin with `first`.
fn expect_batch(consumer: &mut Consumer, max: usize, take: usize, first: u8) -> usize {
    let mut batch = consumer.try_recv_batch(max).unwrap();
    let mut count = 0;
    for (message, number) in (&mut batch).into_iter().take(take).zip(first..) {
        assert_eq!(message[..], [number]);
        count += 1;
    }
    count
}

#[track_caller]
fn expect(consumer: &Consumer, number: u8) {
    assert_eq!(consumer.try_recv().unwrap()[..], [number]);
}

#[test]
fn a_batch_becomes_visible_at_once_or_never() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=32KiB&producers=1&max_message=600");
        let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
        let (mut random, mut next) = (Random(1), 0);
        for round in 0..600 {
            let size = random.below(24);
            let mut batch = producer.batch();
            for number in next..next + size {
                // Some are long, so that they lie in a pool, which has room for a few.
                let longest = if number % 4 == 0 { 600 } else { 250 };
                let payload = Payload::new(number, longest);
                let mut grant = match batch.try_reserve(payload.len) {
                    Ok(grant) => grant,
                    Err(error) => panic!("{error} with {size}"),
                };
                payload.write(&mut grant);
                grant.set_tag(payload.tag());
                assert_eq!(grant.commit(payload.len), number);
                if number % 3 == 0 {
                    drop(batch.try_reserve(100).unwrap());
                }
                assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty), "not yet");
            }
            if round % 3 == 0 {
                drop(batch);
                assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty), "never");
                continue;
            }
            assert_eq!(batch.publish(), size > 0);
            for number in next..next + size {
                let grant = consumer.try_recv().unwrap();
                let longest = if number % 4 == 0 { 600 } else { 250 };
                Payload::new(number, longest).check(&grant, grant.tag());
                assert_eq!(grant.sequence(), number);
            }
            next += size;
        }
    }
}

#[test]
fn a_batch_larger_than_the_lane_is_refused_or_published_in_parts() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
        let mut batch = producer.batch();
        for _ in 0..SLOTS {
            batch.try_reserve(1).unwrap().commit(1);
        }
        assert_eq!(batch.try_reserve(1).err(), Some(SendError::Full));
        drop(batch);
        assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
        drop((producer, consumer));

        let keep = scratch.receiver();
        let mut child = Child::fork(|_| {
            let texts: Vec<[u8; 2]> = (0..1000u16).map(u16::to_le_bytes).collect();
            assert_eq!(scratch.sender().send_many(&texts), Ok(1000));
        });
        let mut receiver = keep;
        for number in 0..1000u16 {
            let message = loop {
                match receiver.recv_timeout(PATIENCE) {
                    // It has not joined yet.
                    Err(RecvError::Closed) => std::thread::yield_now(),
                    answer => break answer.unwrap(),
                }
            };
            assert_eq!(message[..], number.to_le_bytes());
        }
        child.expect_success();
    }
}

#[test]
fn at_most_so_many_are_received_as_were_asked_for() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, mut consumer) = (scratch.producer(), scratch.consumer());
        for max in [0, 1, 2, 15, 16, 17, 1000] {
            let expected = max.clamp(1, MOST);
            publish(&mut producer, 0..40);
            let mut first = 0;
            while first < 40 {
                let count = expect_batch(&mut consumer, max, SLOTS, first);
                assert_eq!(count, expected.min(40 - usize::from(first)));
                first += count as u8;
            }
            assert!(matches!(consumer.try_recv_batch(max).err(), Some(RecvError::Empty)));
        }
    }
}

#[test]
fn what_is_left_of_a_batch_comes_next() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, mut consumer, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
        let mut random = Random(2);
        for _ in 0..300 {
            publish(&mut producer, 0..40);
            let mut next = 0;
            while next < 40 {
                let (max, take) = (1 + random.below(20) as usize, random.below(12) as usize);
                if random.below(3) == 0 {
                    expect(&consumer, next);
                    next += 1;
                } else {
                    let count = expect_batch(&mut consumer, max, take, next);
                    assert!(count <= max && count <= take, "{count} of {max} and {take}");
                    next += count as u8;
                }
            }
            assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
            if let Some(lanes) = scratch.lanes() {
                assert_eq!((lanes.leased, lanes.requeued), (0, 0));
            }
        }
        // What it has claimed nobody else gets, and it keeps no more than its slots.
        publish(&mut producer, 0..20);
        expect_batch(&mut consumer, MOST, 1, 0);
        expect(&other, 16);
        expect(&consumer, 1);
    }
}

#[test]
fn messages_of_a_batch_that_are_held_one_by_one_keep_the_batch_s_slots() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, mut consumer) = (scratch.producer(), scratch.consumer());
        publish(&mut producer, 0..5);
        expect_batch(&mut consumer, MOST, 1, 0);
        let mut held: Vec<_> = (1..5).map(|_| consumer.try_recv().unwrap()).collect();
        let mut free = 0;
        while producer.try_reserve(1).map(|grant| grant.commit(1)).is_ok() {
            free += 1;
        }
        assert_eq!(free, SLOTS - 5, "together they were claimed");
        for index in [2, 0, 1] {
            let grant = held.remove(index);
            assert!((1..5).contains(&grant[0]));
            drop(grant);
            if !held.is_empty() {
                (0..free).for_each(|_| drop(consumer.try_recv().unwrap()));
                (0..free).for_each(|_| _ = put(&mut producer, b"x"));
                assert_eq!(producer.try_reserve(1).err(), Some(SendError::Full));
            }
        }
        drop(held);
        (0..free).for_each(|_| drop(consumer.try_recv().unwrap()));
        (0..SLOTS).for_each(|_| _ = put(&mut producer, b"x"));
    }
}

#[test]
fn a_message_too_long_for_the_buffer_stays_the_next_one() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=32KiB&producers=1&max_message=600");
        let (mut sender, mut receiver, mut other) = (scratch.sender(), scratch.receiver(), scratch.receiver());
        let long = |number| Payload::of_len(number, 300 + number as usize);
        for round in 0..3 {
            for number in 0..6 {
                sender.send((&long(number).to_vec(), long(number).tag())).unwrap();
            }
            // In some rounds it is one of a batch, and other messages were missed before it.
            if round > 0 {
                drop(other.recv().unwrap());
            }
            let mut next = u64::from(round > 0);
            if round > 1 {
                next += receiver.recv_batch(4).unwrap().next().map_or(0, |_| 1);
            }
            for number in next..6 {
                let (payload, mut buffer) = (long(number), [0; 600]);
                for _ in 0..3 {
                    let short = receiver.recv_into(&mut buffer[..payload.len - 1]);
                    assert_eq!(short, Err(RecvError::BufferTooSmall { needed: payload.len }));
                }
                let delivery = receiver.recv_into(&mut buffer).unwrap();
                payload.check(&buffer[..delivery.len], delivery.tag);
                let missed = u64::from(round == 1 && number == 1);
                assert_eq!((delivery.gap, delivery.redelivered), (missed, false), "message {number} of round {round}");
            }
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        }
        // One who leaves has not been handed it.
        sender.send(&[1; 600]).unwrap();
        assert!(receiver.recv_into(&mut [0; 9]).is_err());
        drop(receiver);
        let message = other.recv_timeout(PATIENCE).unwrap();
        assert_eq!((message.len(), message.is_redelivered()), (600, false));
    }
}

#[test]
fn a_handler_that_panics_has_not_handled_its_message() {
    let _alone = alone();
    let quietly = |work: &mut dyn FnMut()| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        std::panic::set_hook(hook);
    };
    for kind in KINDS {
        let scratch = Scratch::many(kind, SMALL);
        let (mut sender, mut receiver, mut other) = (scratch.sender(), scratch.receiver(), scratch.receiver());
        assert_eq!(sender.send_many((0..20u8).map(|number| [number]).collect::<Vec<_>>().iter()), Ok(20));
        let mut handled = Vec::new();
        for bad in [3, 3, 9] {
            quietly(&mut || {
                let _ = receiver.recv_many(MOST, |bytes, delivery| {
                    assert!(!delivery.redelivered);
                    assert_ne!(bytes, [bad]);
                    handled.push(bytes[0]);
                });
            });
        }
        assert_eq!(handled, Vec::from_iter(0..9));
        assert_eq!(receiver.recv().unwrap()[..], [9]);
        assert_eq!(receiver.recv_many(2, |bytes, _| handled.push(bytes[0])), Ok(2));
        assert_eq!(handled[9..], [10, 11]);
        // What it has claimed and not handled goes to others when it leaves, as if nobody had had it.
        assert_eq!(other.recv().unwrap()[..], [16]);
        drop(receiver);
        let mut rest = Vec::new();
        while let Ok(message) = other.try_recv() {
            assert!(!message.is_redelivered());
            rest.push(message[0]);
        }
        rest.sort_unstable();
        assert_eq!(rest, [12, 13, 14, 15, 17, 18, 19]);
        if let Some(lanes) = scratch.lanes() {
            assert_eq!((lanes.leased, lanes.requeued, lanes.redelivered, lanes.dropped), (0, 0, 0, 0));
        }
    }
}

#[test]
fn a_leaver_s_unread_messages_go_to_others_unmarked_whatever_its_policy() {
    let _alone = alone();
    for kind in KINDS {
        for takeover in [Takeover::Redeliver, Takeover::Drop] {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, other) = (scratch.producer(), scratch.consumer());
            let mut leaver = trusted(Options::new().takeover(takeover)).mpmc_consumer(&scratch.address).unwrap();
            publish(&mut producer, 0..20);
            expect_batch(&mut leaver, MOST, 5, 0);
            expect(&leaver, 5);
            drop(leaver);
            for number in (6..16).chain(16..20) {
                let grant = other.try_recv().unwrap();
                assert_eq!((&grant[..], grant.deliveries()), (&[number][..], 0));
                assert_eq!(grant.sequence(), number.into());
            }
            assert_eq!(other.try_recv().err(), Some(RecvError::Empty));
            for number in 20..SLOTS as u64 + 20 {
                assert_eq!(put(&mut producer, b"x"), number);
                assert_eq!(other.try_recv().unwrap().gap(), 0, "nothing is missing");
            }
        }
    }
}

#[test]
fn what_a_dead_one_had_given_back_does_not_come_again() {
    let _alone = alone();
    for kind in NAMED {
        // Which of a batch of five it gives back, before it dies.
        for pattern in 0..32u8 {
            let scratch = Scratch::many(kind, SMALL);
            let (mut producer, survivor) = (scratch.producer(), scratch.consumer());
            publish(&mut producer, 0..6);
            expect(&survivor, 0);
            let mut victim = Child::fork(|tell| {
                let mut consumer = scratch.consumer();
                // It is looked at in place, message by message, out of order.
                assert_eq!(expect_batch(&mut consumer, 5, 0, 1), 0);
                let mut grants: Vec<_> = (0..5).map(|_| consumer.try_recv().unwrap()).collect();
                grants.retain(|grant| pattern & 1 << (grant[0] - 1) == 0);
                tell.say(b'h');
                tell.sleep_until_killed()
            });
            victim.expect(b'h');
            kill(victim);
            let recovery = recover(scratch.name().unwrap()).unwrap();
            let kept: Vec<u8> = (1..6).filter(|number| pattern & 1 << (number - 1) == 0).collect();
            assert_eq!((recovery.deaths, recovery.redelivered), (1, kept.len() as u64));
            // Singly and held together, or as batches.
            let mut survivor = survivor;
            if pattern.count_ones() % 2 == 0 {
                let grants: Vec<_> = kept.iter().map(|_| survivor.try_recv().unwrap()).collect();
                assert!(grants.iter().all(|grant| grant.deliveries() == 1));
                assert_eq!(grants.iter().map(|grant| grant[0]).collect::<Vec<_>>(), kept);
                assert_eq!(survivor.try_recv().err(), Some(RecvError::Empty), "{pattern:05b}");
            } else {
                let mut again = Vec::new();
                while let Ok(mut batch) = survivor.try_recv_batch(2) {
                    let before = again.len();
                    again.extend((&mut batch).into_iter().map(|message| message[0]));
                    assert!((1..=2).contains(&(again.len() - before)), "{pattern:05b}");
                }
                assert_eq!(again, kept, "{pattern:05b}");
            }
            for _ in 0..3 * SLOTS {
                put(&mut producer, b"x");
                assert_eq!(survivor.try_recv().unwrap()[..], *b"x", "{pattern:05b}");
            }
            assert_eq!(scratch.lanes().unwrap().leased, 0);
        }
    }
}

#[test]
fn a_recovery_counts_what_was_not_given_back() {
    let _alone = alone();
    for (takeover, kind) in [(Takeover::Redeliver, Kind::Shm), (Takeover::Drop, Kind::SysV)] {
        let scratch = Scratch::many(kind, SMALL);
        let (mut producer, survivor) = (scratch.producer(), scratch.consumer());
        publish(&mut producer, 0..40);
        let mut victim = Child::fork(|tell| {
            let mut consumer = trusted(Options::new().takeover(takeover)).mpmc_consumer(&scratch.address).unwrap();
            expect_batch(&mut consumer, MOST, 3, 0);
            expect(&consumer, 3);
            let _held = [consumer.try_recv().unwrap(), consumer.try_recv().unwrap()];
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        victim.expect(b'h');
        kill(victim);
        let recovery = recover(scratch.name().unwrap()).unwrap();
        let counts = (recovery.deaths, recovery.redelivered, recovery.dropped);
        let lanes = scratch.lanes().unwrap();
        assert_eq!((lanes.redelivered, lanes.dropped), (recovery.redelivered, recovery.dropped));
        if takeover == Takeover::Redeliver {
            assert_eq!(counts, (1, 12, 0));
            (4..16).for_each(|number| expect(&survivor, number));
        } else {
            assert_eq!(counts, (1, 0, 12));
        }
        (16..40).for_each(|number| expect(&survivor, number));
        assert_eq!(survivor.try_recv().err(), Some(RecvError::Empty));
    }
}
