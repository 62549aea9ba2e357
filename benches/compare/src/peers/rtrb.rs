//! rtrb: messages built and read in place by chunks, or pushed and popped by value.

use std::{hint::spin_loop, io, mem::MaybeUninit};

use ringway_harness::{Link, Receiver, Sender};
use rtrb::{Consumer, Producer, RingBuffer, chunks::ChunkError};

use super::Ends;

/// In place: chunks of as many items as a batch has messages.
pub struct RtrbInPlace<const N: usize>(Ends<Producer<[u8; N]>, Consumer<[u8; N]>>);

/// By value: one push and one pop per message.
pub struct RtrbValue<const N: usize>(Ends<Producer<[u8; N]>, Consumer<[u8; N]>>);

impl<const N: usize> RtrbInPlace<N> {
    /// A ring of `bytes` bytes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        Ok(Self(Ends::new(RingBuffer::new(bytes / N))))
    }
}

impl<const N: usize> RtrbValue<N> {
    /// A ring of `bytes` bytes.
    pub fn new(bytes: usize) -> io::Result<Self> {
        Ok(Self(Ends::new(RingBuffer::new(bytes / N))))
    }
}

impl<const N: usize> Link<N> for RtrbInPlace<N> {
    type Sender = InPlace<Producer<[u8; N]>>;
    type Receiver = InPlace<Consumer<[u8; N]>>;

    fn sender(&self) -> io::Result<Self::Sender> {
        self.0.sender().map(InPlace)
    }

    fn receiver(&self) -> io::Result<Self::Receiver> {
        self.0.receiver().map(InPlace)
    }
}

impl<const N: usize> Link<N> for RtrbValue<N> {
    type Sender = Value<Producer<[u8; N]>>;
    type Receiver = Value<Consumer<[u8; N]>>;

    fn sender(&self) -> io::Result<Self::Sender> {
        self.0.sender().map(Value)
    }

    fn receiver(&self) -> io::Result<Self::Receiver> {
        self.0.receiver().map(Value)
    }
}

/// An end used in place.
pub struct InPlace<E>(E);

impl<const N: usize> Sender<N> for InPlace<Producer<[u8; N]>> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        loop {
            if let Ok(mut chunk) = self.0.write_chunk_uninit(1) {
                write(&mut chunk.as_mut_slices().0[0]);
                // SAFETY: the one item was written.
                unsafe { chunk.commit_all() };
                return;
            }
            spin_loop();
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        loop {
            if let Ok(mut chunk) = self.0.write_chunk_uninit(count) {
                let (first, second) = chunk.as_mut_slices();
                first.iter_mut().for_each(&mut write);
                second.iter_mut().for_each(&mut write);
                // SAFETY: all items were written.
                unsafe { chunk.commit_all() };
                return;
            }
            spin_loop();
        }
    }
}

impl<const N: usize> Receiver<N> for InPlace<Consumer<[u8; N]>> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        loop {
            if let Ok(chunk) = self.0.read_chunk(1) {
                read(&chunk.as_slices().0[0]);
                chunk.commit_all();
                return;
            }
            spin_loop();
        }
    }

    #[inline(always)]
    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        loop {
            // A whole batch if it is there, else what is.
            let count = match self.0.read_chunk(max) {
                Ok(_) => max,
                Err(ChunkError::TooFewSlots(count)) => count,
            };
            if count > 0
                && let Ok(chunk) = self.0.read_chunk(count)
            {
                let (first, second) = chunk.as_slices();
                first.iter().for_each(&mut read);
                second.iter().for_each(&mut read);
                chunk.commit_all();
                return count;
            }
            spin_loop();
        }
    }
}

/// An end used by value.
pub struct Value<E>(E);

impl<const N: usize> Sender<N> for Value<Producer<[u8; N]>> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut message = MaybeUninit::uninit();
        write(&mut message);
        // SAFETY: `write` writes all of it.
        let mut message = unsafe { message.assume_init() };
        while let Err(rtrb::PushError::Full(back)) = self.0.push(message) {
            message = back;
            spin_loop();
        }
    }
}

impl<const N: usize> Receiver<N> for Value<Consumer<[u8; N]>> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        loop {
            if let Ok(message) = self.0.pop() {
                return read(&message);
            }
            spin_loop();
        }
    }
}
