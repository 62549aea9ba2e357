//! Any sequence of operations on a ring gives what a queue would give.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ringway::spsc::{Producer, WriteGrant};
use ringway::{Options, RecvError, SendError, spsc};
use std::collections::VecDeque;

#[derive(Arbitrary, Debug)]
enum Operation {
    /// Reserves, and commits a part, or nothing at all.
    Send(Write),
    /// Several of these, then published, or not.
    Batch { writes: Vec<Write>, publish: bool },
    /// Receives one.
    Receive,
    /// Receives up to so many; not all that it may are taken.
    ReceiveBatch { max: u8, take: u8 },
    /// Leaks what is received: it is given back with the next one.
    Leak,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Write {
    length: u16,
    /// Of the length, in 255ths; the rest is cut off.
    used: u8,
    tag: u32,
    fill: u8,
    commit: bool,
}

struct Message {
    bytes: Vec<u8>,
    tag: u32,
}

impl Write {
    fn length(self) -> usize {
        usize::from(self.length) % 2100
    }

    fn into_grant(self, mut grant: WriteGrant<'_>) -> Option<Message> {
        assert_eq!(grant.len(), self.length());
        // Words that look like headers, of which some are cut off.
        let word = (u64::from(self.tag) << 32 | u64::from(self.fill) << 2 | 1).to_le_bytes();
        grant.iter_mut().zip(word.into_iter().cycle()).for_each(|(byte, forged)| *byte = forged);
        grant.set_tag(self.tag);
        let used = self.length() * usize::from(self.used) / 255;
        let bytes = grant[..used].to_vec();
        self.commit.then(|| {
            grant.commit(used);
            Message { bytes, tag: self.tag }
        })
    }
}

/// Refuses only what is too long, or does not fit: with nothing in the ring everything does.
fn check_refusal(error: SendError, write: Write, producer: &Producer, empty: bool) {
    match error {
        SendError::TooLarge { max } => assert!(max == producer.max_message() && write.length() > max),
        SendError::Full => assert!(!empty),
        error => panic!("{error:?}"),
    }
}

fuzz_target!(|operations: Vec<Operation>| {
    let (mut producer, mut consumer) = spsc::channel(&Options::new().capacity(4096)).unwrap();
    let mut model: VecDeque<Message> = VecDeque::new();
    // Whether all that was received has been given back.
    let mut leaked = false;
    for operation in operations {
        match operation {
            Operation::Send(write) => match producer.try_reserve(write.length()) {
                Ok(grant) => model.extend(write.into_grant(grant)),
                Err(error) => check_refusal(error, write, &producer, model.is_empty() && !leaked),
            },
            Operation::Batch { writes, publish } => {
                let mut written = Vec::new();
                let mut refused = None;
                let mut batch = producer.batch();
                for write in writes {
                    match batch.try_reserve(write.length()) {
                        Ok(grant) => written.extend(write.into_grant(grant)),
                        Err(error) => refused = Some((error, write, model.is_empty() && written.is_empty() && !leaked)),
                    }
                }
                if publish {
                    assert_eq!(batch.publish(), !written.is_empty());
                    model.extend(written);
                } else {
                    drop(batch);
                }
                if let Some((error, write, empty)) = refused {
                    check_refusal(error, write, &producer, empty);
                }
            }
            Operation::Receive | Operation::Leak => match (consumer.try_recv(), model.pop_front()) {
                (Ok(grant), Some(message)) => {
                    assert!(grant[..] == message.bytes && grant.tag() == message.tag && !grant.is_redelivered());
                    leaked = matches!(operation, Operation::Leak);
                    if leaked {
                        std::mem::forget(grant);
                    }
                }
                (Err(RecvError::Empty), None) => {}
                (found, message) => panic!("{:?}, {}", found.map(|_| ()), message.is_some()),
            },
            Operation::ReceiveBatch { max, take } => match consumer.try_recv_batch(max.into()) {
                Ok(mut batch) => {
                    let there = model.len().min(max.into());
                    let mut count = 0;
                    for received in (&mut batch).into_iter().take(take.into()) {
                        let message = model.pop_front().expect("a message that nobody sent");
                        assert!(received[..] == message.bytes && received.tag() == message.tag);
                        count += 1;
                    }
                    assert_eq!(count, there.min(take.into()));
                    leaked &= count == 0;
                }
                Err(error) => assert!(error == RecvError::Empty && model.is_empty()),
            },
        }
    }
    drop(producer);
    for message in model {
        assert_eq!(consumer.recv().unwrap()[..], message.bytes);
    }
    assert_eq!(consumer.recv().err(), Some(RecvError::Closed));
});
