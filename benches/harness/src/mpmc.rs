//! ringway's rings of many producers and consumers, in place, as links.

use std::{io, mem::MaybeUninit, sync::Mutex};

use ringway::{
    Address, Options,
    mpmc::{Consumer, Producer},
};

use crate::{
    link::{Link, Receiver, Sender},
    ring::{room, unused_address, whole},
};

/// A ring in memory that all sides share, be they forked or threads.
pub struct MpmcRing {
    address: Address,
    options: Options,
    /// Keeps the memory until the sides have it; it receives nothing. In a mutex only because endpoints are not `Sync`:
    /// nobody locks it.
    _holder: Mutex<Consumer>,
}

impl MpmcRing {
    /// Makes a ring with these options, for as many producers.
    pub fn new(options: &Options, producers: u32) -> io::Result<Self> {
        let options = options.clone().ring(ringway::Ring::Mpmc).producers(producers);
        let address = unused_address()?;
        let holder = consumer(&options, &address)?;
        Ok(Self { address, options, _holder: Mutex::new(holder) })
    }
}

fn consumer(options: &Options, address: &Address) -> io::Result<Consumer> {
    // SAFETY: the ring has no name outside; only the sides have it, and they use nothing but ringway's endpoints.
    unsafe { options.clone().assume_trusted_peers() }.mpmc_consumer(address).map_err(io::Error::other)
}

impl<const N: usize> Link<N> for MpmcRing {
    type Sender = Producer;
    type Receiver = Consumer;

    fn sender(&self) -> io::Result<Producer> {
        // SAFETY: as in `consumer`.
        unsafe { self.options.clone().assume_trusted_peers() }.mpmc_producer(&self.address).map_err(io::Error::other)
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
