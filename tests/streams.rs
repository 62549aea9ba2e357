//! Messages between two processes: every one arrives once, whole and in order.

mod common;

use common::payload::Payload;
use common::{Child, KINDS, Kind, PATIENCE, Scratch, WAITS, alone, dawdle};
use ringway::spsc::{Consumer, Producer};
use ringway::{Address, Options, RecvError, SendError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Runs `send` in a child and `receive` here, each with the ring's address; the receiver's end exists first.
fn between(scratch: &Scratch, send: impl FnOnce(&Address), receive: impl FnOnce(ringway::Receiver)) {
    let receiver = scratch.receiver();
    let mut child = Child::fork(|_| send(&scratch.address));
    receive(receiver);
    child.expect_success();
}

fn send_all(address: &Address, count: u64, longest: usize) {
    let mut sender = Options::new().sender(address).unwrap();
    let mut buffer = vec![0; longest];
    for number in 0..count {
        let payload = Payload::new(number, longest);
        payload.write(&mut buffer);
        sender.send((&buffer[..payload.len], payload.tag())).unwrap();
    }
}

fn receive_all(mut receiver: ringway::Receiver, count: u64, longest: usize) {
    let mut last = None;
    for number in 0..count {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        Payload::new(number, longest).check(&message, message.tag());
        assert!(last < Some(message.sequence()) && !message.is_redelivered());
        last = Some(message.sequence());
    }
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
}

#[test]
fn two_million_small_messages() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=64KiB");
    between(&scratch, |to| send_all(to, 2_000_000, 300), |from| receive_all(from, 2_000_000, 300));
}

#[test]
fn each_kind_of_memory_with_each_way_to_wait() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            for capacity in ["4KiB", "1MiB"] {
                let scratch = Scratch::with(kind, &format!("capacity={capacity}&wait={wait}"));
                between(&scratch, |to| send_all(to, 60_000, 300), |from| receive_all(from, 60_000, 300));
            }
        }
    }
}

#[test]
fn every_length_in_the_smallest_ring() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    let max = scratch.receiver().max_message();
    assert_eq!(max, 2032);
    let lengths = || (0..=max).chain([0, 1, 7, 8, 9, max - 1, max].into_iter().cycle().take(7000));
    between(
        &scratch,
        |address| {
            let mut sender = Options::new().sender(address).unwrap();
            assert_eq!(sender.max_message(), max);
            for (number, len) in lengths().enumerate() {
                let payload = Payload::of_len(number as u64, len);
                sender.send((&payload.to_vec(), payload.tag())).unwrap();
                let too_large = Err(SendError::TooLarge { max });
                assert_eq!(sender.send(&vec![0; max + 1]), too_large);
                assert_eq!(sender.try_send(&vec![0; usize::from(u16::MAX)]), too_large);
                assert_eq!(sender.reserve(usize::MAX).err(), Some(SendError::TooLarge { max }));
            }
        },
        |mut receiver| {
            for (number, len) in lengths().enumerate() {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                Payload::of_len(number as u64, len).check(&message, message.tag());
            }
            assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
        },
    );
}

#[test]
fn the_longest_messages_of_large_rings() {
    let _alone = alone();
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=1MiB");
        let max = (1 << 19) - 16;
        let lengths = [max, max, 1, max - 1, 0, max, 8, max - 7, max];
        between(
            &scratch,
            |address| {
                let mut sender = Options::new().sender(address).unwrap();
                for (number, len) in lengths.into_iter().cycle().take(300).enumerate() {
                    let payload = Payload::of_len(number as u64, len);
                    sender.send((&payload.to_vec(), payload.tag())).unwrap();
                }
                assert_eq!(sender.send(&vec![0; max + 1]), Err(SendError::TooLarge { max }));
            },
            |mut receiver| {
                for (number, len) in lengths.into_iter().cycle().take(300).enumerate() {
                    let message = receiver.recv_timeout(PATIENCE).unwrap();
                    Payload::of_len(number as u64, len).check(&message, message.tag());
                }
            },
        );
    }
}

#[test]
fn a_slow_reader_holds_the_writer_back_and_a_slow_writer_the_reader() {
    let _alone = alone();
    for wait in WAITS {
        for slow in ["reader", "writer"] {
            let scratch = Scratch::with(Kind::Shm, &format!("capacity=4KiB&wait={wait}"));
            between(
                &scratch,
                |address| {
                    let mut sender = Options::new().sender(address).unwrap();
                    for number in 0..20_000 {
                        let payload = Payload::new(number, 300);
                        sender.send((&payload.to_vec(), payload.tag())).unwrap();
                        dawdle(if slow == "writer" { number % 1500 } else { 0 });
                    }
                },
                |mut receiver| {
                    for number in 0..20_000 {
                        let message = receiver.recv_timeout(PATIENCE).unwrap();
                        dawdle(if slow == "reader" { number % 1500 } else { 0 });
                        Payload::new(number, 300).check(&message, message.tag());
                    }
                },
            );
        }
    }
}

#[test]
fn batches_of_copies() {
    let _alone = alone();
    const COUNT: u64 = 300_000;
    for kind in KINDS {
        let scratch = Scratch::with(kind, "capacity=16KiB");
        between(
            &scratch,
            |address| {
                let mut sender = Options::new().sender(address).unwrap();
                let mut number = 0;
                while number < COUNT {
                    // Now and then more than the ring holds.
                    let end = COUNT.min(number + number % 97 + if number % 1000 < 20 { 1000 } else { 0 } + 1);
                    let payloads = (number..end).map(|n| Payload::new(n, 100));
                    let batch: Vec<_> = payloads.map(|payload| (payload.to_vec(), payload.tag())).collect();
                    let sent = sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag)));
                    assert_eq!(sent.unwrap() as u64, end - number);
                    number = end;
                }
                let oversized = vec![0; sender.max_message() + 1];
                let partial = sender.send_many([&b"last"[..], &oversized, b"never"]).unwrap_err();
                assert_eq!((partial.sent, partial.error), (1, SendError::TooLarge { max: sender.max_message() }));
            },
            |mut receiver| {
                let mut number = 0;
                while number < COUNT {
                    let max = 1 + number as usize % 50;
                    let max = max.min((COUNT - number) as usize);
                    let received = receiver.recv_many(max, |bytes, delivery| {
                        let payload = Payload::new(number, 100);
                        payload.check(bytes, delivery.tag);
                        assert_eq!(delivery.len, payload.len);
                        number += 1;
                    });
                    assert!((1..=max).contains(&received.unwrap()));
                }
                assert_eq!(&receiver.recv().unwrap()[..], b"last");
                assert_eq!(receiver.recv_many(9, |_, _| {}), Err(RecvError::Closed));
            },
        );
    }
}

fn producer(address: &Address) -> Producer {
    // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
    unsafe { Options::new().assume_trusted_peers() }.producer(address).unwrap()
}

fn consumer(address: &Address) -> Consumer {
    // SAFETY: as above.
    unsafe { Options::new().assume_trusted_peers() }.consumer(address).unwrap()
}

/// Reserves more than it needs, commits less than it reserved, and often changes its mind.
fn produce(producer: &mut Producer, count: u64, longest: usize) {
    let mut number = 0;
    while number < count {
        let payload = Payload::new(number, longest);
        let room = payload.len + number as usize % 70;
        match number % 5 {
            0 => {
                let mut aborted = producer.reserve(room).unwrap();
                aborted.fill(0xff);
                aborted.set_tag(1);
            }
            1 => {
                let mut aborted = producer.batch();
                for _ in 0..number % 4 {
                    let mut grant = aborted.reserve(room).unwrap();
                    grant.fill(0xff);
                    // Waiting for room would publish those before.
                    drop(grant);
                }
            }
            _ => {}
        }
        if number % 3 == 0 {
            let mut batch = producer.batch();
            let end = count.min(number + 1 + number % 40);
            for number in number..end {
                let payload = Payload::new(number, longest);
                let mut grant = batch.reserve(payload.len + number as usize % 70).unwrap();
                payload.write(&mut grant);
                grant.set_tag(payload.tag());
                grant.commit(payload.len);
            }
            assert!(batch.publish());
            number = end;
        } else {
            let mut grant = producer.reserve(room).unwrap();
            assert_eq!(grant.len(), room);
            payload.write(&mut grant);
            grant.set_tag(payload.tag());
            grant.commit(payload.len);
            number += 1;
        }
    }
}

fn consume(consumer: &mut Consumer, count: u64, longest: usize) {
    let mut number = 0;
    let mut last = None;
    while number < count {
        if number % 7 < 3 {
            let mut batch = consumer.recv_batch(1 + number as usize % 20).unwrap();
            for received in &mut batch {
                Payload::new(number, longest).check(&received, received.tag());
                assert!(last < Some(received.sequence()) && !received.is_redelivered());
                last = Some(received.sequence());
                number += 1;
            }
        } else {
            let grant = consumer.recv_timeout(PATIENCE).unwrap();
            Payload::new(number, longest).check(&grant, grant.tag());
            assert!(last < Some(grant.sequence()) && !grant.is_redelivered());
            last = Some(grant.sequence());
            number += 1;
        }
    }
    assert_eq!(consumer.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
}

#[test]
fn grants_shrunk_aborted_and_batched_in_place() {
    let _alone = alone();
    for kind in KINDS {
        for wait in WAITS {
            let scratch = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let mut consumer = consumer(&scratch.address);
            let mut child = Child::fork(|_| produce(&mut producer(&scratch.address), 60_000, 200));
            consume(&mut consumer, 60_000, 200);
            child.expect_success();
        }
    }
}

/// Each word of a payload looks like a header: of every plausible length, of pads, of whatever was there before.
fn forge(number: u64, buffer: &mut [u8]) {
    let (words, rest) = buffer.as_chunks_mut::<8>();
    for (at, word) in words.iter_mut().enumerate() {
        let length = (number + at as u64) % 280;
        let pad = u64::from((number + at as u64).is_multiple_of(5)) << 1;
        *word = (u64::from(Payload::of_len(number, 0).tag()) << 32 | length << 2 | pad | 1).to_le_bytes();
    }
    rest.fill(0xff);
}

#[test]
fn payloads_that_look_like_headers() {
    let _alone = alone();
    const COUNT: u64 = 1_000_000;
    let forged = |number: u64| Payload::new(number, 270).len;
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    let mut consumer = consumer(&scratch.address);
    let mut child = Child::fork(|_| {
        let mut producer = producer(&scratch.address);
        for number in 0..COUNT {
            if number % 3 == 0 {
                forge(number ^ 1, &mut producer.reserve(270).unwrap());
            }
            let len = forged(number);
            let mut grant = producer.reserve(270).unwrap();
            forge(number, &mut grant);
            // What is cut off stays behind in the ring.
            forge(number, &mut grant[..len]);
            grant.set_tag(number as u32);
            grant.commit(len);
        }
    });
    let mut expected = [0; 270];
    for number in 0..COUNT {
        let grant = consumer.recv_timeout(PATIENCE).unwrap();
        let expected = &mut expected[..forged(number)];
        forge(number, expected);
        assert!(&grant[..] == expected && grant.tag() == number as u32, "message {number}");
    }
    assert_eq!(consumer.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
    child.expect_success();
}

#[test]
fn a_consumer_that_polls_misses_nothing() {
    let _alone = alone();
    for wait in WAITS {
        let scratch = Scratch::with(Kind::Shm, &format!("capacity=4KiB&wait={wait}"));
        between(
            &scratch,
            |address| {
                let mut sender = Options::new().sender(address).unwrap();
                for number in 0..50_000 {
                    let payload = Payload::new(number, 300);
                    let bytes = payload.to_vec();
                    while let Err(error) = sender.try_send((&bytes, payload.tag())) {
                        assert_eq!(error, SendError::Full);
                    }
                }
            },
            |mut receiver| {
                let mut buffer = [0; 300];
                for number in 0..50_000 {
                    let payload = Payload::new(number, 300);
                    if number % 2 == 0 {
                        loop {
                            match receiver.try_recv() {
                                Ok(message) => break payload.check(&message, message.tag()),
                                Err(error) => assert_eq!(error, RecvError::Empty),
                            }
                        }
                    } else {
                        if payload.len > 0 {
                            let short = receiver.recv_into(&mut buffer[..payload.len - 1]);
                            assert_eq!(short, Err(RecvError::BufferTooSmall { needed: payload.len }));
                        }
                        let delivery = receiver.recv_into(&mut buffer).unwrap();
                        payload.check(&buffer[..delivery.len], delivery.tag);
                        assert!(!delivery.redelivered);
                    }
                }
            },
        );
    }
}

#[test]
fn waiting_ends_at_the_deadline() {
    let _alone = alone();
    let short = Duration::from_millis(3);
    for wait in WAITS {
        for kind in KINDS {
            let scratch = Scratch::with(kind, &format!("capacity=4KiB&wait={wait}"));
            let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
            let start = Instant::now();
            assert_eq!(receiver.recv_timeout(short).err(), Some(RecvError::Timeout));
            assert!(start.elapsed() >= short);
            let deadline = Instant::now() + short;
            assert_eq!(receiver.recv_deadline(deadline).err(), Some(RecvError::Timeout));
            assert!(Instant::now() >= deadline);
            assert_eq!(receiver.recv_deadline(start).err(), Some(RecvError::Timeout), "in the past");
            assert_eq!(receiver.recv_timeout(Duration::ZERO).err(), Some(RecvError::Timeout));
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));

            while sender.try_send(b"fill").is_ok() {}
            let start = Instant::now();
            assert_eq!(sender.send_timeout(b"more", short), Err(SendError::Timeout));
            assert!(start.elapsed() >= short);
            assert_eq!(sender.send_deadline(b"more", start), Err(SendError::Timeout));
            assert_eq!(sender.send_timeout(b"more", Duration::ZERO), Err(SendError::Timeout));
            assert_eq!(sender.try_send(b"more"), Err(SendError::Full));
            assert_eq!(&receiver.recv_timeout(Duration::ZERO).unwrap()[..], b"fill", "what is there needs no time");
            sender.send_timeout(b"more", Duration::ZERO).unwrap();
            assert_eq!(sender.send_timeout(b"more", short), Err(SendError::Timeout));
            // The longest timeout there is means for ever.
            assert_eq!(&receiver.recv_timeout(Duration::MAX).unwrap()[..], b"fill");
        }
    }
}

#[test]
fn messages_iterate_until_the_sender_leaves() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    between(
        &scratch,
        |to| send_all(to, 10_000, 300),
        |mut receiver| {
            let mut count = 0;
            for (number, message) in receiver.messages().enumerate() {
                assert_eq!(message.unwrap(), Payload::new(number as u64, 300).to_vec());
                count += 1;
            }
            assert_eq!(count, 10_000);
        },
    );
}

#[test]
fn a_panic_of_the_users_loses_nothing_and_holds_nothing_back() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB");
    let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
    let quietly = |work: &mut dyn FnMut()| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
        std::panic::set_hook(hook);
    };
    quietly(&mut || {
        let mut source = [&[0], &[1]].into_iter();
        let _ = sender.send_many(std::iter::from_fn(|| Some(source.next().expect("the user's mistake"))));
    });
    sender.send(&[2]).unwrap();
    // What was sent before the panic counts as sent.
    for number in 0..3 {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], [number]);
    }

    assert_eq!(sender.send_many([[0], [1], [2], [3]].iter()), Ok(4));
    let mut handled = Vec::new();
    quietly(&mut || {
        let _ = receiver.recv_many(9, |bytes, _| {
            assert_ne!(bytes, [2]);
            handled.push(bytes[0]);
        });
    });
    assert_eq!(handled, [0, 1]);
    for number in 2..4 {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], [number], "what was not handled comes again");
    }
}
