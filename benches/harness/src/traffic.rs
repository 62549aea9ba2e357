//! The loops of those who send and of those who receive.

use std::ops::Range;

use crate::{
    link::{Receiver, Sender},
    payload,
};

/// Sends the messages of these sequence numbers, as many as full batches hold, and tells `add` the sum of each.
#[inline(always)]
pub(crate) fn send<const N: usize>(
    sender: &mut impl Sender<N>,
    sequences: Range<u64>,
    batch: usize,
    mut add: impl FnMut(u64),
) {
    if batch == 1 {
        sequences.for_each(|i| sender.send(|message| add(payload::write(message, i))));
        return;
    }
    let mut i = sequences.start;
    while i < sequences.end {
        sender.send_batch(batch, |message| {
            add(payload::write(message, i));
            i += 1;
        });
    }
}

/// Receives exactly `count` messages and tells `add` the sum of each.
#[inline(always)]
pub(crate) fn receive<const N: usize>(
    receiver: &mut impl Receiver<N>,
    count: u64,
    batch: usize,
    mut add: impl FnMut(u64),
) {
    if batch == 1 {
        (0..count).for_each(|_| receiver.recv(|message| add(payload::read(message))));
        return;
    }
    let mut left = count;
    while left > 0 {
        let max = left.min(batch as u64) as usize;
        left -= receiver.recv_batch(max, |message| add(payload::read(message))) as u64;
    }
}
