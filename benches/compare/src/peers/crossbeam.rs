//! crossbeam: its bounded queue, which never blocks, and its bounded channel.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::many::{Many, Pop, Push};

/// One end of the queue: all are alike.
type Queue<const N: usize> = Arc<crossbeam_queue::ArrayQueue<[u8; N]>>;

/// The queue.
pub type ArrayQueue<const N: usize> = Many<Queue<N>, Queue<N>>;

/// The channel.
pub type Channel<const N: usize> = Many<Sender<[u8; N]>, Receiver<[u8; N]>>;

/// A queue of `bytes` bytes.
pub fn array_queue<const N: usize>(bytes: usize) -> ArrayQueue<N> {
    let queue = Arc::new(crossbeam_queue::ArrayQueue::new(bytes / N));
    Many::new((queue.clone(), queue))
}

/// A channel of `bytes` bytes.
pub fn channel<const N: usize>(bytes: usize) -> Channel<N> {
    Many::new(crossbeam_channel::bounded(bytes / N))
}

impl<const N: usize> Push<N> for Queue<N> {
    #[inline(always)]
    fn try_push(&mut self, message: [u8; N]) -> Result<(), [u8; N]> {
        self.push(message)
    }
}

impl<const N: usize> Pop<N> for Queue<N> {
    #[inline(always)]
    fn try_pop(&mut self) -> Option<[u8; N]> {
        self.pop()
    }
}

impl<const N: usize> Push<N> for Sender<[u8; N]> {
    #[inline(always)]
    fn try_push(&mut self, message: [u8; N]) -> Result<(), [u8; N]> {
        self.try_send(message).map_err(TrySendError::into_inner)
    }
}

impl<const N: usize> Pop<N> for Receiver<[u8; N]> {
    #[inline(always)]
    fn try_pop(&mut self) -> Option<[u8; N]> {
        self.try_recv().ok()
    }
}
