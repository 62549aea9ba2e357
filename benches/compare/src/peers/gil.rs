//! gil: its SPSC queue in place and by value, and its MPMC queue, which has the shortest round trip.

use std::{hint::spin_loop, io, mem::MaybeUninit, num::NonZero};

use gil::{mpmc, spsc};
use ringway_harness::{Link, Receiver, Sender};

use super::{
    Ends,
    many::{Many, Pop, Push},
};

/// SPSC in place: parts of the queue's own buffer, as many items as a batch has messages.
pub struct GilInPlace<const N: usize>(Ends<spsc::Sender<[u8; N]>, spsc::Receiver<[u8; N]>>);

/// SPSC by value.
pub struct GilValue<const N: usize>(Ends<spsc::Sender<[u8; N]>, spsc::Receiver<[u8; N]>>);

/// MPMC by value.
pub type GilMpmc<const N: usize> = Many<mpmc::Sender<[u8; N]>, mpmc::Receiver<[u8; N]>>;

/// An MPMC queue of `bytes` bytes.
pub fn gil_mpmc<const N: usize>(bytes: usize) -> io::Result<GilMpmc<N>> {
    Ok(Many::new(mpmc::channel(items::<N>(bytes)?)))
}

fn items<const N: usize>(bytes: usize) -> io::Result<NonZero<usize>> {
    NonZero::new(bytes / N).ok_or_else(|| io::Error::other("the ring is smaller than a message"))
}

macro_rules! link {
    ($link:ident, $end:ident) => {
        impl<const N: usize> $link<N> {
            /// A ring of `bytes` bytes.
            pub fn new(bytes: usize) -> io::Result<Self> {
                Ok(Self(Ends::new(spsc::channel(items::<N>(bytes)?))))
            }
        }

        impl<const N: usize> Link<N> for $link<N> {
            type Sender = $end<spsc::Sender<[u8; N]>>;
            type Receiver = $end<spsc::Receiver<[u8; N]>>;

            fn sender(&self) -> io::Result<Self::Sender> {
                self.0.sender().map($end)
            }

            fn receiver(&self) -> io::Result<Self::Receiver> {
                self.0.receiver().map($end)
            }
        }
    };
}
link!(GilInPlace, InPlace);
link!(GilValue, Value);

/// An end used in place.
pub struct InPlace<E>(E);

impl<const N: usize> Sender<N> for InPlace<spsc::Sender<[u8; N]>> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        loop {
            if let Some(item) = self.0.write_buffer().first_mut() {
                write(item);
                // SAFETY: the one item was written.
                unsafe { self.0.commit(1) };
                return;
            }
            spin_loop();
        }
    }

    #[inline(always)]
    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        let mut left = count;
        while left > 0 {
            // What is free may end at the end of the buffer.
            let buffer = self.0.write_buffer();
            let part = buffer.len().min(left);
            buffer[..part].iter_mut().for_each(&mut write);
            if part > 0 {
                // SAFETY: these items were written.
                unsafe { self.0.commit(part) };
                left -= part;
            } else {
                spin_loop();
            }
        }
    }
}

impl<const N: usize> Receiver<N> for InPlace<spsc::Receiver<[u8; N]>> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut read = Some(read);
        self.recv_batch(1, |message: &[u8; N]| {
            if let Some(read) = read.take() {
                read(message);
            }
        });
    }

    #[inline(always)]
    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        loop {
            let mut guard = self.0.read_guard();
            let count = guard.len().min(max);
            if count > 0 {
                guard.as_slice()[..count].iter().for_each(&mut read);
                guard.advance(count);
                return count;
            }
            drop(guard);
            spin_loop();
        }
    }
}

/// An end used by value.
pub struct Value<E>(E);

impl<const N: usize> Sender<N> for Value<spsc::Sender<[u8; N]>> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut message = MaybeUninit::uninit();
        write(&mut message);
        // SAFETY: `write` writes all of it.
        let mut message = unsafe { message.assume_init() };
        while let Err(back) = self.0.try_send(message) {
            message = back;
            spin_loop();
        }
    }
}

impl<const N: usize> Receiver<N> for Value<spsc::Receiver<[u8; N]>> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        loop {
            if let Some(message) = self.0.try_recv() {
                return read(&message);
            }
            spin_loop();
        }
    }
}

impl<const N: usize> Push<N> for mpmc::Sender<[u8; N]> {
    #[inline(always)]
    fn try_push(&mut self, message: [u8; N]) -> Result<(), [u8; N]> {
        self.try_send(message)
    }
}

impl<const N: usize> Pop<N> for mpmc::Receiver<[u8; N]> {
    #[inline(always)]
    fn try_pop(&mut self) -> Option<[u8; N]> {
        self.try_recv()
    }
}
