//! Messages of rings of many: their sizes, tags and sequences, and how long each keeps its room.

mod common;

use common::crowd::put;
use common::faults::kill;
use common::payload::Payload;
use common::{Child, KINDS, Kind, NAMED, PATIENCE, Random, Scratch, WAITS, alone};
use ringway::mpmc::{Consumer, Producer, ReadGrant};
use ringway::{RecvError, SendError, recover};

/// Of the smallest lane.
const SLOTS: usize = 64;

fn send(producer: &mut Producer, payload: Payload) -> u64 {
    let mut grant = producer.reserve(payload.len).unwrap();
    payload.write(&mut grant);
    grant.set_tag(payload.tag());
    grant.commit(payload.len)
}

/// Messages until the lane is full; how many.
fn fill(producer: &mut Producer) -> usize {
    (0..).take_while(|_| producer.try_reserve(1).map(|grant| grant.commit(1)).is_ok()).count()
}

#[test]
fn every_length_that_fits_and_none_beyond() {
    let _alone = alone();
    for kind in KINDS {
        for max in [0, 1, 8, 63, 64, 65, 256, 257, 4096, 4097, 70_000] {
            let scratch = Scratch::many(kind, &format!("capacity=4KiB&producers=1&max_message={max}"));
            let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
            assert_eq!((sender.max_message(), receiver.max_message()), (max, max));
            let edges = [0, 1, 7, 8, 9, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097, max.saturating_sub(1), max];
            let lengths = edges.into_iter().filter(|&len| len <= max);
            for (number, len) in lengths.cycle().take(4 * SLOTS).enumerate() {
                let payload = Payload::of_len(number as u64, len);
                sender.send((&payload.to_vec(), payload.tag())).unwrap();
                payload_is_next(&mut receiver, payload);
                for len in [max + 1, max + 64, 1 << 30] {
                    assert_eq!(sender.reserve(len).err(), Some(SendError::TooLarge { max }));
                }
                assert_eq!(sender.try_send(&vec![0; max + 1]), Err(SendError::TooLarge { max }));
            }
            let partial = sender.send_many([&vec![0; max], &vec![0; max + 1], &vec![0; max]]).unwrap_err();
            assert_eq!((partial.sent, partial.error), (1, SendError::TooLarge { max }));
            assert_eq!(receiver.recv_into(&mut vec![0; max]).unwrap().len, max);
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        }
    }
}

fn payload_is_next(receiver: &mut ringway::Receiver, payload: Payload) {
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    payload.check(&message, message.tag());
}

#[test]
fn a_message_can_be_built_cut_and_given_up_in_place() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&producers=1&max_message=5000");
        let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
        assert_eq!(producer.reserve(5001).err(), Some(SendError::TooLarge { max: 5000 }));
        for number in 0..2000 {
            let payload = Payload::new(number, 5000);
            if number % 3 == 0 {
                let mut given_up = producer.reserve(5000 - number as usize).unwrap();
                given_up.fill(0xff);
                given_up.set_tag(1);
            }
            // Room in a larger class than is used in the end.
            let room = 5000.min(payload.len + number as usize % 300);
            let mut grant = producer.reserve(room).unwrap();
            assert_eq!(grant.len(), room);
            payload.write(&mut grant);
            grant.set_tag(payload.tag());
            assert_eq!(grant.commit(payload.len), number, "what is given up takes no number");
            let grant = consumer.recv().unwrap();
            payload.check(&grant, grant.tag());
            assert_eq!((grant.sequence(), grant.producer(), grant.deliveries()), (number, 0, 0));
        }
    }
}

#[test]
fn messages_can_be_given_back_in_any_order() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&producers=1&max_message=64");
        let (mut producer, consumer) = (scratch.producer(), scratch.consumer());
        let mut random = Random(1);
        let mut held: Vec<(u64, ReadGrant)> = Vec::new();
        let mut next = 0;
        for _ in 0..20_000 {
            // Nothing waits to be received, so that a slot is either held or free.
            match producer.try_reserve(64) {
                Ok(grant) => {
                    assert!(held.len() < SLOTS);
                    drop(grant);
                    assert_eq!(send(&mut producer, Payload::new(next, 64)), next);
                    held.push((next, consumer.try_recv().unwrap()));
                    next += 1;
                }
                Err(error) => assert_eq!((error, held.len()), (SendError::Full, SLOTS)),
            }
            while held.len() > random.below(SLOTS as u64 + 8) as usize {
                let (number, grant) = held.swap_remove(random.below(held.len() as u64) as usize);
                Payload::new(number, 64).check(&grant, grant.tag());
                assert_eq!((grant.sequence(), grant.gap()), (number, 0));
            }
        }
        assert!(next > 3 * SLOTS as u64, "{next}");
    }
}

#[test]
fn a_held_message_keeps_its_own_slot_and_no_other() {
    let _alone = alone();
    const LAPS: u64 = 40;
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&producers=1&max_message=64");
        let (mut producer, holder, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
        let (mut next, mut held) = (0, Vec::new());
        for lap in 0..LAPS {
            // One more with each lap.
            held.push((next, holder_takes(&mut producer, &holder, &mut next)));
            for _ in 0..SLOTS {
                send(&mut producer, Payload::new(next, 64));
                let grant = other.try_recv().unwrap();
                Payload::new(next, 64).check(&grant, grant.tag());
                assert_eq!(grant.sequence(), next);
                next += 1;
            }
            assert_eq!(fill(&mut producer), SLOTS - held.len(), "lap {lap}");
            for _ in 0..SLOTS - held.len() {
                other.try_recv().unwrap();
                next += 1;
            }
        }
        for (number, grant) in held {
            Payload::new(number, 64).check(&grant, grant.tag());
        }
        assert_eq!(fill(&mut producer), SLOTS);
    }
}

fn holder_takes<'a>(producer: &mut Producer, holder: &'a Consumer, next: &mut u64) -> ReadGrant<'a> {
    send(producer, Payload::new(*next, 64));
    *next += 1;
    holder.try_recv().unwrap()
}

#[test]
fn a_held_batch_keeps_its_slots_and_no_others() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&producers=1&max_message=64");
        let (mut producer, mut holder, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
        let mut next = 0;
        for round in 0..30 {
            // At another place in the lane each time.
            for _ in 0..round {
                send(&mut producer, Payload::new(next, 64));
                other.try_recv().unwrap();
                next += 1;
            }
            for number in next..next + 16 {
                send(&mut producer, Payload::new(number, 64));
            }
            let mut batch = holder.try_recv_batch(16).unwrap();
            let first = next;
            next += 16;
            for number in next..next + 10 * SLOTS as u64 {
                send(&mut producer, Payload::new(number, 64));
                let grant = other.try_recv().unwrap();
                Payload::new(number, 64).check(&grant, grant.tag());
            }
            next += 10 * SLOTS as u64;
            assert_eq!(fill(&mut producer), SLOTS - 16);
            let mut count = 0;
            for (number, message) in (first..).zip(&mut batch) {
                Payload::new(number, 64).check(&message, message.tag());
                count += 1;
            }
            assert_eq!(count, 16);
            drop(batch);
            for _ in 0..SLOTS - 16 {
                other.try_recv().unwrap();
                next += 1;
            }
            assert_eq!(other.try_recv().err(), Some(RecvError::Empty));
        }
    }
}

#[test]
fn a_held_chunk_of_a_pool_is_not_used_again() {
    let _alone = alone();
    // Chunks of 256 bytes for the slots, and four of 4096 bytes and of 5056 for each lane.
    const LONG: usize = 4000;
    for kind in KINDS {
        let scratch = Scratch::many(kind, "capacity=4KiB&producers=1&max_message=5000");
        let (mut producer, holder, other) = (scratch.producer(), scratch.consumer(), scratch.consumer());
        let mut held = Vec::new();
        let mut number = 0;
        let mut pass = |producer: &mut Producer, len| {
            let payload = Payload::of_len(number, len);
            number += 1;
            send(producer, payload);
            payload
        };
        for chunks in 1..=4 {
            let payload = pass(&mut producer, LONG);
            held.push((payload, holder.try_recv().unwrap()));
            // Those of other classes, and what is left of this one, go on.
            let lengths = [0, 256, 5000, LONG];
            for len in lengths.into_iter().filter(|&len| chunks < 4 || len != LONG).cycle().take(5 * SLOTS) {
                let payload = pass(&mut producer, len);
                let grant = other.try_recv().unwrap();
                payload.check(&grant, grant.tag());
            }
        }
        assert_eq!(producer.try_reserve(LONG).err(), Some(SendError::Full));
        let (payload, grant) = held.remove(2);
        payload.check(&grant, grant.tag());
        drop(grant);
        assert_eq!(producer.try_reserve(LONG).unwrap().len(), LONG);
        // A successor finds out which are held.
        drop(producer);
        let mut producer = scratch.producer();
        for _ in 0..SLOTS {
            let payload = pass(&mut producer, LONG);
            let grant = other.try_recv().unwrap();
            payload.check(&grant, grant.tag());
        }
        for (payload, grant) in held {
            payload.check(&grant, grant.tag());
        }
    }
}

#[test]
fn sequences_count_the_messages_of_a_lane_and_gaps_those_of_others() {
    let _alone = alone();
    for wait in WAITS {
        let scratch = Scratch::many(Kind::Shm, &format!("capacity=4KiB&producers=2&max_message=64&wait={wait}"));
        let (mut first, mut second) = (scratch.producer(), scratch.producer());
        assert_eq!((first.lane(), second.lane()), (0, 1));
        let (one, other) = (scratch.consumer(), scratch.consumer());
        for number in 0..500 {
            assert_eq!((put(&mut first, b"1"), put(&mut second, b"2")), (number, number));
            for _ in 0..2 {
                let grant = one.recv().unwrap();
                let text = if grant.producer() == 0 { b"1" } else { b"2" };
                assert_eq!((&grant[..], grant.sequence(), grant.gap()), (&text[..], number, 0));
            }
        }
        // A successor of the second one counts on.
        drop(second);
        assert_eq!(put(&mut scratch.producer(), b"2"), 500);
        assert_eq!(one.recv().unwrap().sequence(), 500);

        for _ in 0..10 {
            put(&mut first, b"1");
        }
        assert_eq!((one.recv().unwrap().gap(), other.recv().unwrap().gap()), (0, 0));
        assert_eq!((one.recv().unwrap().gap(), one.recv().unwrap().gap()), (1, 0));
        assert_eq!((other.recv().unwrap().gap(), other.recv().unwrap().gap()), (2, 0));
    }
}

#[test]
fn a_message_that_kills_whoever_gets_it_is_dropped_and_leaves_a_gap() {
    let _alone = alone();
    for kind in NAMED {
        for max in [1, 2, 3, 15] {
            let options = format!("capacity=4KiB&producers=1&max_message=64&max_deliveries={max}");
            let scratch = Scratch::many(kind, &options);
            let (mut producer, survivor) = (scratch.producer(), scratch.consumer());
            for text in [b"before", b"poison", b"behind"] {
                put(&mut producer, text);
            }
            assert_eq!(&survivor.recv().unwrap()[..], b"before");
            for delivery in 0..max {
                let mut victim = Child::fork(|tell| {
                    let consumer = scratch.consumer();
                    let grant = consumer.recv().unwrap();
                    assert_eq!((&grant[..], grant.deliveries()), (&b"poison"[..], delivery));
                    assert_eq!((grant.is_redelivered(), grant.gap()), (delivery > 0, 0));
                    tell.say(b'p');
                    tell.sleep_until_killed()
                });
                victim.expect(b'p');
                kill(victim);
                let recovery = recover(scratch.name().unwrap()).unwrap();
                let last = delivery + 1 == max;
                assert_eq!((recovery.deaths, recovery.dropped, recovery.redelivered), (1, last.into(), (!last).into()));
            }
            let lanes = scratch.lanes().unwrap();
            assert_eq!((lanes.redelivered, lanes.dropped), (u64::from(max) - 1, 1));
            assert_eq!((lanes.leased, lanes.requeued), (0, 0));
            let grant = survivor.recv().unwrap();
            assert_eq!((&grant[..], grant.sequence(), grant.gap(), grant.deliveries()), (&b"behind"[..], 2, 1, 0));
            drop(grant);
            assert_eq!(fill(&mut producer), SLOTS, "its slot is free again");
        }
    }
}
