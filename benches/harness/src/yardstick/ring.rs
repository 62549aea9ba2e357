//! The bare streaming loop: slots of one message each, an index for each side on a line of its own, published once per
//! batch, and nothing else. What a ring of these bytes can carry at most, when the sides spin.

use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    io,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Acquire, Ordering::Release},
    },
};

use crate::{
    link::{Link, Receiver, Sender},
    shared::{Shared, Zeroed},
};

/// A ring of messages, and no more than that.
pub struct BareRing<const N: usize> {
    indices: Arc<Shared<Index>>,
    slots: Arc<Shared<Slot<N>>>,
}

/// How many messages one side has finished, since the beginning.
#[repr(C, align(128))]
struct Index(AtomicU64);

// SAFETY: zero is a valid integer, and access is atomic.
unsafe impl Zeroed for Index {}

#[repr(C, align(8))]
struct Slot<const N: usize>(UnsafeCell<MaybeUninit<[u8; N]>>);

// SAFETY: a slot is the sender's until it has published its index, then the receiver's until it has.
unsafe impl<const N: usize> Sync for Slot<N> {}
// SAFETY: any bytes are a valid message.
unsafe impl<const N: usize> Zeroed for Slot<N> {}

impl<const N: usize> BareRing<N> {
    /// Maps a ring of `bytes` bytes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let len = bytes / N;
        assert!(len.is_power_of_two(), "a ring of {bytes} bytes holds no power of two messages of {N} bytes");
        Ok(Self { indices: Arc::new(Shared::new(2)?), slots: Arc::new(Shared::new(len)?) })
    }

    fn end(&self) -> BareEnd<N> {
        let (indices, slots) = (self.indices.clone(), self.slots.clone());
        BareEnd { mask: slots.len() as u64 - 1, indices, slots, mine: 0, theirs: 0 }
    }
}

impl<const N: usize> Link<N> for BareRing<N> {
    type Sender = BareEnd<N>;
    type Receiver = BareEnd<N>;

    fn sender(&self) -> io::Result<BareEnd<N>> {
        Ok(self.end())
    }

    fn receiver(&self) -> io::Result<BareEnd<N>> {
        Ok(self.end())
    }
}

/// Either end of a [`BareRing`].
pub struct BareEnd<const N: usize> {
    indices: Arc<Shared<Index>>,
    slots: Arc<Shared<Slot<N>>>,
    mask: u64,
    mine: u64,
    /// The other side's index when last looked at.
    theirs: u64,
}

impl<const N: usize> BareEnd<N> {
    #[inline(always)]
    fn slot(&self, position: u64) -> *mut MaybeUninit<[u8; N]> {
        self.slots[(position & self.mask) as usize].0.get()
    }
}

const SENT: usize = 0;
const RECEIVED: usize = 1;

impl<const N: usize> Sender<N> for BareEnd<N> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut write = Some(write);
        self.send_batch(1, |message| {
            if let Some(write) = write.take() {
                write(message)
            }
        });
    }

    #[inline(always)]
    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        let end = self.mine + count as u64;
        while end - self.theirs > self.mask + 1 {
            // Acquire: pairs with the Release in `recv_batch`: the slots were read before they are written again.
            let theirs = self.indices[RECEIVED].0.load(Acquire);
            if theirs == self.theirs {
                spin_loop();
            }
            self.theirs = theirs;
        }
        for position in self.mine..end {
            // SAFETY: the receiver is done with this slot, and gets it again by the index below.
            write(unsafe { &mut *self.slot(position) });
        }
        self.mine = end;
        // Release: pairs with the Acquire in `recv_batch`.
        self.indices[SENT].0.store(end, Release);
    }
}

impl<const N: usize> Receiver<N> for BareEnd<N> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut read = Some(read);
        self.recv_batch(1, |message| {
            if let Some(read) = read.take() {
                read(message)
            }
        });
    }

    #[inline(always)]
    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        while self.theirs == self.mine {
            // Acquire: pairs with the Release in `send_batch`: the messages are there.
            self.theirs = self.indices[SENT].0.load(Acquire);
            if self.theirs == self.mine {
                spin_loop();
            }
        }
        let count = (self.theirs - self.mine).min(max as u64);
        for position in self.mine..self.mine + count {
            // SAFETY: the sender has written this slot and gets it again by the index below.
            read(unsafe { (*self.slot(position)).assume_init_ref() });
        }
        self.mine += count;
        // Release: pairs with the Acquire in `send_batch`.
        self.indices[RECEIVED].0.store(self.mine, Release);
        count as usize
    }
}
