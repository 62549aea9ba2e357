//! The bare futex: one message in shared memory and a word to sleep on. It has no flow control: for round trips only,
//! where each side knows that its last message was read before it writes the next.

use std::{
    cell::UnsafeCell,
    io,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Acquire, Ordering::Release},
    },
};

use rustix::{
    io::Errno,
    thread::futex::{Flags, wait, wake},
};

use crate::{
    link::{Link, Receiver, Sender},
    shared::{Shared, Zeroed},
};

/// A link of one message and one futex word.
pub struct Futex<const N: usize>(Arc<Shared<Slot<N>>>);

#[repr(C, align(128))]
struct Slot<const N: usize> {
    /// The number of messages written so far.
    written: AtomicU32,
    message: UnsafeCell<MaybeUninit<[u8; N]>>,
}

// SAFETY: the sides take turns on the message, as the module says; `written` orders the turns.
unsafe impl<const N: usize> Sync for Slot<N> {}
// SAFETY: a zero count and any message are valid.
unsafe impl<const N: usize> Zeroed for Slot<N> {}

impl<const N: usize> Futex<N> {
    /// Maps the slot.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared::new(1)?)))
    }
}

impl<const N: usize> Link<N> for Futex<N> {
    type Sender = FutexEnd<N>;
    type Receiver = FutexEnd<N>;

    fn sender(&self) -> io::Result<FutexEnd<N>> {
        Ok(FutexEnd { slot: self.0.clone(), count: 0 })
    }

    fn receiver(&self) -> io::Result<FutexEnd<N>> {
        self.sender()
    }
}

/// Either end of a [`Futex`].
pub struct FutexEnd<const N: usize> {
    slot: Arc<Shared<Slot<N>>>,
    count: u32,
}

impl<const N: usize> Sender<N> for FutexEnd<N> {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let slot = &self.slot[0];
        // SAFETY: it is this side's turn: the answer to its last message has come, so that was read.
        write(unsafe { &mut *slot.message.get() });
        self.count = self.count.wrapping_add(1);
        // Release: pairs with the Acquire in `recv`, so that the message is seen with its number.
        slot.written.store(self.count, Release);
        wake(&slot.written, Flags::empty(), 1).unwrap_or_else(|error| panic!("could not wake the other side: {error}"));
    }
}

impl<const N: usize> Receiver<N> for FutexEnd<N> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let slot = &self.slot[0];
        // Acquire: pairs with the Release in `send`.
        while slot.written.load(Acquire) == self.count {
            match wait(&slot.written, Flags::empty(), self.count, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => panic!("could not wait for the other side: {error}"),
            }
        }
        self.count = self.count.wrapping_add(1);
        // SAFETY: the message was written before its number, and the other side writes no other before it has an answer.
        read(unsafe { (*slot.message.get()).assume_init_ref() });
    }
}
