//! Several messages at once, on either side.

use crate::common::PATIENCE;
use crate::stage::{Gate, Stage, content, expect_closed, tag};
use ringway::SendError;

/// How many go at once, and how long they are.
fn batches(stage: &Stage) -> Vec<(u64, usize)> {
    match stage.transport.is_reliable {
        true if stage.transport.unit < 32 => vec![(1, 10), (100, 7), (0, 0), (10, 900)],
        true => vec![(1, 10), (2, 0), (31, 100), (64, 1), (65, 4000), (0, 0), (1000, 50), (5, 9000), (2000, 300)],
        // What fits into the smallest buffer.
        false => vec![(1, 10), (2, 0), (16, 1000), (0, 0), (16, 10)],
    }
}

/// Whatever was sent together arrives, taken in other portions.
pub fn in_and_out(stage: &Stage) {
    stage.between(
        |mut sender| {
            let mut number = 0;
            for (count, len) in batches(stage) {
                let batch: Vec<_> = (number..number + count).map(|n| (content(n, len), tag(n))).collect();
                assert_eq!(sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag))), Ok(count as usize));
                number += count;
                stage.await_arrival();
            }
        },
        |receiver| {
            let mut number = 0;
            for (count, len) in batches(stage) {
                let end = number + count;
                while number < end {
                    let max = (1 + number as usize % 40).min((end - number) as usize);
                    let received = receiver.recv_many(max, |bytes, delivery| {
                        crate::stage::check(bytes, delivery.tag, number, len);
                        assert_eq!((delivery.len, delivery.gap), (len, 0));
                        number += 1;
                    });
                    assert!((1..=max).contains(&received.unwrap()));
                }
                stage.confirm_arrival();
            }
            expect_closed(receiver);
        },
    );
}

/// What was not taken out of a batch comes with the next one.
pub fn one_dropped_early(stage: &Stage) {
    const COUNT: u64 = 12;
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        let batch: Vec<_> = (0..COUNT).map(|n| (content(n, 50), tag(n))).collect();
        sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag))).unwrap();
    });
    drop(receiver.recv_batch_timeout(5, PATIENCE).unwrap());
    let mut number = 0;
    while number < COUNT {
        let mut batch = receiver.recv_batch_timeout(9, PATIENCE).unwrap();
        for _ in 0..2 {
            if let Some((bytes, delivery)) = batch.next() {
                crate::stage::check(bytes, delivery.tag, number, 50);
                number += 1;
            }
        }
        drop(batch);
        if number < COUNT {
            expect_unconfirmed(&mut receiver, number);
            number += 1;
        }
    }
    expect_closed(&mut receiver);
    child.expect_success();
}

fn expect_unconfirmed(receiver: &mut ringway::Receiver, number: u64) {
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    crate::stage::check(&message, message.tag(), number, 50);
}

/// What stands before a message that can't be sent is sent, and nothing else.
pub fn one_that_ends_too_large(stage: &Stage) {
    let gate = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        let max = sender.max_message();
        let messages = [content(0, 10), content(1, 20), vec![0; max + 1], content(2, 30)];
        let tagged = messages.iter().zip(0..).map(|(bytes, number)| (bytes, tag(number)));
        let partial = sender.send_many(tagged).unwrap_err();
        assert_eq!((partial.sent, partial.error), (2, SendError::TooLarge { max }));
        gate.pass();
        stage.send(&mut sender, 2, 40);
    });
    for (number, len) in [(0, 10), (1, 20)] {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), number, len);
    }
    gate.open(1);
    stage.expect(&mut receiver, 2, 40);
    expect_closed(&mut receiver);
    child.expect_success();
}
