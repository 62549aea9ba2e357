//! One side is faster than the other: nothing is lost, nobody waits longer than told.

use crate::common::PATIENCE;
use crate::stage::{Gate, Stage, await_sleep, content, expect_closed, tag};
use ringway::{RecvError, SendError, Sender};
use std::time::{Duration, Instant};

/// Of every second message, more than some mechanisms take at once.
fn length(number: u64) -> usize {
    if number.is_multiple_of(2) { 1000 } else { 5000 }
}

const PAUSE: Duration = Duration::from_millis(30);

/// Sends until there is no room; how many.
fn fill(sender: &mut Sender, length: impl Fn(u64) -> usize) -> u64 {
    for number in 0..200_000 {
        match sender.try_send((&content(number, length(number)), tag(number))) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, SendError::Full);
                return number;
            }
        }
    }
    panic!("there is always room");
}

/// The receiver begins when there is no room left; everything comes nevertheless.
pub fn a_slow_reader(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        let first = fill(&mut sender, length);
        tell.say(b'f');
        for number in first..first + 2000 {
            sender.send((&content(number, length(number)), tag(number))).unwrap();
        }
        sender.send((&first.to_le_bytes(), 0)).unwrap();
    });
    child.expect(b'f');
    await_sleep(child.pid());
    let mut number = 0;
    loop {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        if message.len() == size_of::<u64>() {
            assert_eq!(message[..], (number - 2000u64).to_le_bytes());
            break;
        }
        crate::stage::check(&message, message.tag(), number, length(number));
        number += 1;
    }
    expect_closed(&mut receiver);
    child.expect_success();
}

/// A message that finds no room in time is not sent, neither then nor later.
pub fn a_sender_that_runs_out_of_time(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        // Short ones, so that of the last one no part is still to follow.
        let mut next = fill(&mut sender, |_| 1000);
        let mut refused = 0;
        // The kernel may make room by itself now and then: what is sent then counts.
        while refused < 4 {
            let len = length(refused);
            let start = Instant::now();
            match sender.send_timeout((&content(next, len), tag(next)), PAUSE) {
                Ok(_) => next += 1,
                Err(error) => {
                    assert_eq!(error, SendError::Timeout);
                    assert!(start.elapsed() >= PAUSE);
                    refused += 1;
                }
            }
            match sender.send_deadline((&content(next, len), tag(next)), start) {
                Ok(_) => next += 1,
                Err(error) => assert_eq!(error, SendError::Timeout),
            }
        }
        tell.say(b'f');
        for _ in 0..100 {
            sender.send_timeout((&content(next, length(next)), tag(next)), PATIENCE).unwrap();
            next += 1;
        }
        sender.send(&next.to_le_bytes()).unwrap();
    });
    child.expect(b'f');
    let mut number = 0;
    loop {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        if message.len() == size_of::<u64>() {
            assert_eq!(message[..], u64::to_le_bytes(number));
            break;
        }
        crate::stage::check(&message, message.tag(), number, message.len());
        number += 1;
    }
    expect_closed(&mut receiver);
    child.expect_success();
}

/// A receiver waits as long as told, and not at all if told so.
pub fn a_receiver_that_runs_out_of_time(stage: &Stage) {
    let gate = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        stage.send(&mut sender, 0, 5);
        tell.say(b's');
        gate.pass();
        stage.send(&mut sender, 1, 5);
    });
    let check_silence = |receiver: &mut ringway::Receiver| {
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        let start = Instant::now();
        assert_eq!(receiver.recv_timeout(PAUSE).err(), Some(RecvError::Timeout));
        assert!(start.elapsed() >= PAUSE);
        assert_eq!(receiver.recv_deadline(start).err(), Some(RecvError::Timeout));
        assert_eq!(receiver.recv_timeout(Duration::ZERO).err(), Some(RecvError::Timeout));
        assert_eq!(receiver.recv_batch_timeout(9, PAUSE).err(), Some(RecvError::Timeout));
    };
    stage.expect(&mut receiver, 0, 5);
    child.expect(b's');
    check_silence(&mut receiver);
    // Longer than a look at the peer takes.
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(8 * PAUSE).err(), Some(RecvError::Timeout));
    assert!(start.elapsed() >= 8 * PAUSE);
    gate.open(1);
    stage.expect(&mut receiver, 1, 5);
    expect_closed(&mut receiver);
    child.expect_success();
}

/// What doesn't fit is lost, and every loss is counted once.
pub fn losses(stage: &Stage) {
    const LENGTH: usize = 1000;
    const COUNT: u64 = 20_000;
    let gate = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        for number in 0..COUNT {
            sender.send((&content(number, LENGTH), tag(number))).unwrap();
        }
        tell.say(b's');
        gate.pass();
        sender.send((&content(COUNT, LENGTH), tag(COUNT))).unwrap();
    });
    child.expect(b's');
    let (mut received, mut lost) = (0, 0);
    let mut take = |message: ringway::transport::Message<'_>| {
        received += 1;
        lost += message.gap();
        let number = received + lost - 1;
        crate::stage::check(&message, message.tag(), number, LENGTH);
        number
    };
    loop {
        match receiver.try_recv() {
            Ok(message) => take(message),
            Err(error) => {
                assert_eq!(error, RecvError::Empty);
                break;
            }
        };
    }
    gate.open(1);
    assert_eq!(take(receiver.recv_timeout(PATIENCE).unwrap()), COUNT);
    assert!(received > 1 && lost > 0, "{received} received, {lost} lost");
    expect_closed(&mut receiver);
    child.expect_success();
}
