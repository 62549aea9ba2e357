//! A ring with one producer and one consumer, and messages that tell their number.

use crate::common::payload::{Payload, number};
use crate::common::{Kind, Scratch};
use ringway::spsc::{Consumer, Producer};
use ringway::{Options, Receiver, RecvError, SendError, Sender};
use std::time::Duration;

pub fn ring() -> Scratch {
    ring_with("futex")
}

/// With that strategy of waiting.
pub fn ring_with(wait: &str) -> Scratch {
    // What payloads are cut from is made once: not by a child whose steps are counted.
    message(0).to_vec();
    match wait {
        "eventfd" => Scratch::with(Kind::Anon, "capacity=4KiB&wait=eventfd"),
        _ => Scratch::with(Kind::Shm, &format!("capacity=4KiB&persist=yes&wait={wait}")),
    }
}

/// Of one that sleeps without further ado.
pub fn sleepy() -> Options {
    Options::new().spin(Duration::ZERO)
}

pub fn producer(scratch: &Scratch) -> Producer {
    // SAFETY: only this test's processes have the ring, and they use nothing but ringway's endpoints.
    unsafe { sleepy().keep_open(true).assume_trusted_peers() }.producer(&scratch.address).unwrap()
}

pub fn consumer(scratch: &Scratch) -> Consumer {
    // SAFETY: as above.
    unsafe { sleepy().keep_open(true).assume_trusted_peers() }.consumer(&scratch.address).unwrap()
}

/// Bytes of a message, of which with its header there are a power of two: so there is room for one wherever one was.
const LENGTH: usize = 56;
/// How many there is room for: the end of the last one needs some, too.
pub const ROOM: u64 = 4096 / 64 - 1;

pub fn message(number: u64) -> Payload {
    Payload::of_len(number, LENGTH)
}

pub fn commit(producer: &mut Producer, number: u64) {
    let payload = message(number);
    let mut grant = producer.reserve(payload.len).unwrap();
    payload.write(&mut grant);
    grant.set_tag(payload.tag());
    grant.commit(payload.len);
}

/// Sends until the ring is full, and returns the number of the next message.
pub fn fill(producer: &mut Producer, first: u64) -> u64 {
    let mut next = first;
    while producer.try_reserve(LENGTH).is_ok() {
        commit(producer, next);
        next += 1;
    }
    next
}

pub fn receive(consumer: &mut Consumer) -> u64 {
    let message = consumer.recv().unwrap();
    let number = number(&message);
    self::message(number).check(&message, message.tag());
    number
}

pub fn send(sender: &mut Sender, number: u64) -> Result<(), SendError> {
    sender.try_send((&message(number).to_vec(), message(number).tag())).map(drop)
}

/// The next message, which must be this one, or one of these.
#[track_caller]
pub fn expect(receiver: &mut Receiver, among: std::ops::RangeInclusive<u64>) -> (u64, bool) {
    let received = receiver.try_recv().unwrap();
    let number = number(&received);
    message(number).check(&received, received.tag());
    assert!(among.contains(&number), "{number} instead of {among:?}");
    (number, received.is_redelivered())
}

/// New ones in both roles, if these are free, pass more than two laps; the next message is number `next`.
pub fn check_ring_works(scratch: &Scratch, next: u64) {
    let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
    let mut sender = scratch.sender();
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    for round in 0..3 {
        let first = next + 1000 * round;
        (first..first + ROOM).for_each(|number| send(&mut sender, number).unwrap());
        assert_eq!(send(&mut sender, 0), Err(SendError::Full));
        (first..first + ROOM).for_each(|number| assert_eq!(expect(&mut receiver, number..=number), (number, false)));
    }
}
