//! Queues of many producers and many consumers that hand messages over by value, as links.
//!
//! None of them is asked to block, since each does that in its own way. Where one is full or empty, all try again after a
//! spin hint, and from the 64th time on after leaving the CPU to others: with more sides than cores, a side that keeps its
//! CPU until its time slice ends keeps the one it waits for from running, and every queue collapses.

use std::{hint::spin_loop, io, mem::MaybeUninit, sync::Mutex, thread};

use ringway_harness::{Link, Receiver, Sender};

/// A writing end.
pub trait Push<const N: usize> {
    /// Gives the message back if the queue is full.
    fn try_push(&mut self, message: [u8; N]) -> Result<(), [u8; N]>;
}

/// A reading end.
pub trait Pop<const N: usize> {
    /// Nothing if the queue is empty.
    fn try_pop(&mut self) -> Option<[u8; N]>;
}

/// Both ends of a queue, cloned for each side that takes one. In a mutex because not all of them are `Sync`.
pub struct Many<S, R>(Mutex<(S, R)>);

impl<S, R> Many<S, R> {
    pub(super) fn new(ends: (S, R)) -> Self {
        Self(Mutex::new(ends))
    }

    fn end<E>(&self, take: impl FnOnce(&(S, R)) -> E) -> io::Result<ByValue<E>> {
        self.0.lock().map(|ends| ByValue(take(&ends))).map_err(|_| io::Error::other("a side panicked"))
    }
}

impl<const N: usize, S: Push<N> + Clone + Send, R: Pop<N> + Clone + Send> Link<N> for Many<S, R> {
    type Sender = ByValue<S>;
    type Receiver = ByValue<R>;

    fn sender(&self) -> io::Result<ByValue<S>> {
        self.end(|(sender, _)| sender.clone())
    }

    fn receiver(&self) -> io::Result<ByValue<R>> {
        self.end(|(_, receiver)| receiver.clone())
    }
}

/// One side's end.
pub struct ByValue<E>(E);

impl<const N: usize, E: Push<N>> Sender<N> for ByValue<E> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut message = MaybeUninit::uninit();
        write(&mut message);
        // SAFETY: `write` writes all of it.
        let mut message = unsafe { message.assume_init() };
        let mut backoff = Backoff::default();
        while let Err(back) = self.0.try_push(message) {
            message = back;
            backoff.pause();
        }
    }
}

impl<const N: usize, E: Pop<N>> Receiver<N> for ByValue<E> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut backoff = Backoff::default();
        loop {
            if let Some(message) = self.0.try_pop() {
                return read(&message);
            }
            backoff.pause();
        }
    }
}

/// Spins for a while, then yields.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    #[inline(always)]
    pub(super) fn pause(&mut self) {
        if self.0 < 64 {
            self.0 += 1;
            spin_loop();
        } else {
            thread::yield_now();
        }
    }
}
