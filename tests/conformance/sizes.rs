//! What arrives is what was sent: messages of all sizes, in order.

use crate::common::PATIENCE;
use crate::stage::{Note, Stage, await_sleep, content, expect_closed, tag};
use ringway::error::ErrorKind;
use ringway::{Options, Receiver, RecvError, SendError, Sender};

/// Bytes of a frame's header.
const HEADER: usize = 32;

fn boundaries(stage: &Stage, max: usize) -> Vec<usize> {
    let unit = stage.transport.unit;
    let around = |edge: usize| [edge.saturating_sub(1), edge, edge + 1];
    let edges = [around(unit), around(unit.saturating_sub(HEADER)), around(2 * unit.saturating_sub(HEADER))];
    [0, 1].into_iter().chain(edges.into_iter().flatten()).chain([3, 0]).filter(|&len| len <= max).collect()
}

/// Sends messages of those lengths, which follow from the longest; `between` comes after each.
fn pass(stage: &Stage, lengths: impl Fn(usize) -> Vec<usize>, between: impl Fn(&mut Sender)) {
    let note = Note::new();
    stage.between(
        |mut sender| {
            let max = sender.max_message();
            note.tell(max);
            for (number, len) in (0..).zip(lengths(max)) {
                stage.send(&mut sender, number, len);
                between(&mut sender);
            }
        },
        |receiver| {
            for (number, len) in (0..).zip(lengths(note.hear())) {
                stage.expect(receiver, number, len);
            }
            expect_closed(receiver);
        },
    );
}

/// The mechanism's unit, and what is a little shorter or longer; and what is too long.
pub fn each_boundary(stage: &Stage) {
    pass(
        stage,
        |max| boundaries(stage, max),
        |sender| {
            let max = sender.max_message();
            let (beyond, too_large) = (vec![0; max + 1], SendError::TooLarge { max });
            assert_eq!(sender.try_send(&beyond), Err(too_large));
            assert_eq!(sender.send(&beyond), Err(too_large));
            assert_eq!(sender.send_timeout(&beyond, PATIENCE), Err(too_large));
            assert_eq!(sender.reserve(max + 1).err(), Some(too_large));
        },
    );
}

/// 1 MiB and the longest message, with short ones between them.
pub fn the_largest(stage: &Stage) {
    let lengths = |max: usize| {
        let largest = max.min(stage.transport.largest);
        vec![1, largest.min(1 << 20), 1, largest, 0, largest]
    };
    pass(stage, lengths, |_| {});
}

fn small(number: u64) -> usize {
    (number * 7 % 61) as usize
}

/// In their order, each with a number higher than the last.
pub fn many_small_ones(stage: &Stage) {
    let count = stage.transport.many;
    stage.between(
        |mut sender| {
            for number in 0..count {
                stage.send(&mut sender, number, small(number));
            }
        },
        |receiver| {
            let mut last = None;
            for number in 0..count {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                crate::stage::check(&message, message.tag(), number, small(number));
                assert!(last < Some(message.sequence()) && message.gap() == 0);
                last = Some(message.sequence());
                drop(message);
                stage.confirm_arrival();
            }
            expect_closed(receiver);
        },
    );
}

/// Every tag is the user's.
pub fn tags(stage: &Stage) {
    const TAGS: [u32; 8] = [0, 1, 7, 0xffff, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    stage.between(
        |mut sender| {
            for (length, tag) in (0..).zip(TAGS) {
                sender.send((&content(0, length), tag)).unwrap();
                stage.await_arrival();
            }
        },
        |receiver| {
            for (length, tag) in (0..).zip(TAGS) {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                assert_eq!((message.tag(), &message[..]), (tag, &content(0, length)[..]));
                drop(message);
                stage.confirm_arrival();
            }
        },
    );
}

/// A message that is longer than the buffer stays the next one.
pub fn a_buffer_that_is_too_small(stage: &Stage) {
    let lengths = [1, 100, stage.transport.unit + 1, 10];
    stage.between(
        |mut sender| {
            for (number, len) in (0..).zip(lengths) {
                stage.send(&mut sender, number, len);
            }
        },
        |receiver: &mut Receiver| {
            for (number, len) in (0..).zip(lengths) {
                let mut buffer = vec![0; len + 1];
                for short in [0, len - 1] {
                    let refused = receiver.recv_into(&mut buffer[..short]);
                    assert_eq!(refused, Err(RecvError::BufferTooSmall { needed: len }));
                }
                if number % 2 == 0 {
                    let delivery = receiver.recv_into(&mut buffer).unwrap();
                    assert_eq!(delivery.len, len);
                    crate::stage::check(&buffer[..len], delivery.tag, number, len);
                    stage.confirm_arrival();
                } else {
                    stage.expect(receiver, number, len);
                }
            }
            expect_closed(receiver);
        },
    );
}

/// Room is reserved, less is used, or nothing.
pub fn reserve_and_commit(stage: &Stage) {
    stage.between(
        |mut sender| {
            for number in 0..20 {
                let mut given_up = sender.reserve(200).unwrap();
                given_up.fill(0xff);
                given_up.set_tag(1);
                drop(given_up);
                let bytes = content(number, number as usize * 10);
                let mut grant = sender.reserve(bytes.len() + 9).unwrap();
                assert_eq!(grant.len(), bytes.len() + 9);
                grant[..bytes.len()].copy_from_slice(&bytes);
                grant.set_tag(tag(number));
                grant.commit(bytes.len()).unwrap();
                stage.await_arrival();
            }
            let mut grant = sender.reserve(5).unwrap();
            grant.copy_from_slice(&content(20, 5));
            grant.set_tag(tag(20));
            grant.commit(usize::MAX).unwrap();
            stage.await_arrival();
        },
        |receiver| {
            for number in 0..20 {
                stage.expect(receiver, number, number as usize * 10);
            }
            stage.expect(receiver, 20, 5);
            expect_closed(receiver);
        },
    );
}

/// Each message is sent to a receiver that sleeps.
pub fn a_slow_writer(stage: &Stage) {
    let parent = std::process::id();
    stage.between(
        |mut sender| {
            for number in 0..50 {
                await_sleep(parent);
                stage.send(&mut sender, number, number as usize);
            }
            await_sleep(parent);
        },
        |receiver| {
            for number in 0..50 {
                stage.expect(receiver, number, number as usize);
            }
            expect_closed(receiver);
        },
    );
}

/// What the address says of itself beforehand.
pub fn its_capabilities(stage: &Stage) {
    let transport = stage.transport;
    let capabilities = stage.nominal_address().capabilities();
    assert!(capabilities.ordered && capabilities.tells_death);
    assert_eq!(capabilities.reliable, transport.is_reliable);
    assert_eq!(capabilities.consumers, transport.consumers);
    if let Some(producers) = transport.producers {
        assert_eq!(capabilities.producers, producers);
    }
    assert!(!capabilities.survives_restart || transport.keeps_messages || transport.persists);
    // SAFETY: nothing is sent or received.
    let lending = unsafe { Options::new().assume_trusted_peers() };
    let refused = lending.consumer(&stage.nominal_address()).err().map(|error| error.kind());
    assert_eq!(refused != Some(ErrorKind::Unsupported), capabilities.zero_copy, "{refused:?}");
    let (mut child, mut receiver) = stage.with_child(|_| {
        let sender = stage.sender();
        assert!(sender.max_message() as u64 <= capabilities.max_message);
    });
    assert!(receiver.max_message() as u64 <= capabilities.max_message);
    assert_eq!(receiver.select(Some(1)), capabilities.select_by_tag);
    child.expect_success();
}
