//! ringway's own rings, in place, as links.

use std::{
    io,
    mem::MaybeUninit,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ringway::{
    Address, Options,
    spsc::{Consumer, Producer},
};

use crate::link::{Link, Receiver, Sender};

/// A ring with one producer and one consumer, in memory that forked sides share: between processes, not threads.
pub struct Ring {
    address: Address,
    options: Options,
    /// Keeps the memory until the sides have it; its role is free again when `Pair::run` has dropped this link. In a mutex
    /// only because endpoints are not `Sync`: nobody locks it.
    _holder: Mutex<Consumer>,
}

impl Ring {
    /// Makes a ring with these options.
    pub fn new(options: &Options) -> io::Result<Self> {
        let address = unused_address()?;
        let holder = consumer(options, &address)?;
        Ok(Self { address, options: options.clone(), _holder: Mutex::new(holder) })
    }
}

/// An address that no other link of this process has.
pub(crate) fn unused_address() -> io::Result<Address> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("anon:bench-{}", NEXT.fetch_add(1, Relaxed)).parse().map_err(io::Error::other)
}

fn consumer(options: &Options, address: &Address) -> io::Result<Consumer> {
    // SAFETY: the ring has no name outside; only the two sides have it, and they use nothing but ringway's endpoints.
    unsafe { options.clone().assume_trusted_peers() }.consumer(address).map_err(io::Error::other)
}

impl<const N: usize> Link<N> for Ring {
    type Sender = Producer;
    type Receiver = Consumer;

    fn sender(&self) -> io::Result<Producer> {
        // SAFETY: as in `consumer`.
        unsafe { self.options.clone().assume_trusted_peers() }.producer(&self.address).map_err(io::Error::other)
    }

    fn receiver(&self) -> io::Result<Consumer> {
        consumer(&self.options, &self.address)
    }
}

impl<const N: usize> Sender<N> for Producer {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut grant = self.reserve(N).unwrap_or_else(|error| panic!("{error}"));
        write(room(&mut grant));
        grant.commit(N);
    }

    #[inline(always)]
    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        let mut batch = self.batch();
        for _ in 0..count {
            let mut grant = batch.reserve(N).unwrap_or_else(|error| panic!("{error}"));
            write(room(&mut grant));
            grant.commit(N);
        }
        batch.publish();
    }
}

impl<const N: usize> Receiver<N> for Consumer {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        read(whole(&Consumer::recv(self).unwrap_or_else(|error| panic!("{error}"))));
    }

    #[inline(always)]
    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        let mut batch = Consumer::recv_batch(self, max).unwrap_or_else(|error| panic!("{error}"));
        let messages = (&mut batch).into_iter();
        messages.fold(0, |count, message| {
            read(whole(&message));
            count + 1
        })
    }
}

/// Where a message is to be built.
#[inline(always)]
pub(crate) fn room<const N: usize>(bytes: &mut [u8]) -> &mut MaybeUninit<[u8; N]> {
    assert_eq!(bytes.len(), N);
    // SAFETY: these are N bytes, borrowed for as long; what is written through it are bytes, and none can be invalid.
    unsafe { &mut *bytes.as_mut_ptr().cast() }
}

/// A message as it was sent.
#[inline(always)]
pub(crate) fn whole<const N: usize>(message: &[u8]) -> &[u8; N] {
    message.try_into().unwrap_or_else(|_| panic!("a message of {N} bytes arrived as one of {}", message.len()))
}
