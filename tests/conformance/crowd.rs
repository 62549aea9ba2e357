//! Several senders at once.

use crate::common::PATIENCE;
use crate::stage::{Gate, Stage, content, expect_closed, tag};
use ringway::RecvError;
use std::collections::HashMap;

const SENDERS: usize = 4;

/// How many messages each sends.
const EACH: u64 = 150;

fn length(stage: &Stage, number: u64) -> usize {
    let longest = stage.transport.longest_of_many;
    match number % 5 {
        0 => longest - number as usize % 7,
        1 => stage.transport.unit.min(longest),
        _ => 9 + (number * 7919) as usize % (longest / 4),
    }
}

/// Whole, in the order of each, and known apart.
pub fn several_senders(stage: &Stage) {
    let begin = Gate::new();
    let paces: [Gate; SENDERS] = std::array::from_fn(|_| Gate::new());
    let number_of = |at: usize, index: u64| (at as u64) << 32 | index;
    let (mut children, mut receiver) = stage.with_children(SENDERS, |at, tell| {
        let mut sender = stage.sender();
        tell.say(b'o');
        begin.pass();
        for index in 0..EACH {
            let mut bytes = content(number_of(at, index), length(stage, index));
            bytes[..8].copy_from_slice(&number_of(at, index).to_le_bytes());
            sender.send((&bytes, tag(index))).unwrap();
            if !stage.transport.is_reliable {
                paces[at].pass();
            }
        }
    });
    children.iter_mut().for_each(|child| child.expect(b'o'));
    begin.open(SENDERS);
    let mut next = [0; SENDERS];
    let mut producers = HashMap::new();
    let mut sequences = HashMap::new();
    for _ in 0..SENDERS as u64 * EACH {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        let number = u64::from_le_bytes(message[..8].try_into().unwrap());
        let (at, index) = ((number >> 32) as usize, number & u64::from(u32::MAX));
        assert_eq!(index, next[at], "of sender {at}");
        next[at] += 1;
        let expected = content(number, length(stage, index));
        assert!(message.len() == expected.len() && message[8..] == expected[8..], "the content of {index} of {at}");
        assert_eq!((message.tag(), message.gap()), (tag(index), 0));
        assert_eq!(*producers.entry(message.producer()).or_insert(at), at, "two senders with one number");
        let before = sequences.insert(at, message.sequence());
        assert!(before.is_none_or(|before| before + 1 == message.sequence()));
        if !stage.transport.is_reliable {
            paces[at].open(1);
        }
    }
    assert_eq!(producers.len(), SENDERS);
    expect_closed(&mut receiver);
    children.iter_mut().for_each(crate::common::Child::expect_success);
}

/// One of them is killed, again and again, in the midst of a message: the others' messages are whole.
pub fn several_senders_of_which_one_is_killed(stage: &Stage) {
    let (mut children, mut receiver) = stage.with_children(3, |at, tell| {
        let mut sender = stage.sender();
        tell.say(b'o');
        for index in 0.. {
            let len = length(stage, index % 50);
            sender.send((&content(index, len), at as u32)).unwrap();
            if at != 0 && index == EACH {
                return;
            }
        }
    });
    children.iter_mut().for_each(|child| child.expect(b'o'));
    let mut next = [0; 3];
    let mut is_dead = false;
    while !is_dead || next[1..] != [EACH + 1; 2] {
        match receiver.recv_timeout(PATIENCE) {
            Ok(message) => {
                let at = message.tag() as usize;
                let index: u64 = next[at];
                assert!(message[..] == content(index, length(stage, index % 50)), "message {index} of sender {at}");
                next[at] += 1;
                drop(message);
                if at == 0 && index == 30 {
                    children[0].kill_without_reaping();
                }
            }
            Err(error) => {
                assert_eq!((error, is_dead), (RecvError::PeerDied, false));
                is_dead = true;
            }
        }
    }
    let after = receiver.try_recv().err();
    assert!(matches!(after, Some(RecvError::Empty | RecvError::Closed)), "{after:?}");
}
