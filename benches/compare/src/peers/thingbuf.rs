//! thingbuf: its queue, with messages built and read in place.

use std::{io, mem::MaybeUninit, ptr, sync::Arc};

use ringway_harness::{Link, Receiver, Sender};
use thingbuf::{ThingBuf, recycling::Recycle};

use super::many::Backoff;

/// The queue, and each end of it.
#[derive(Clone)]
pub struct Thing<const N: usize>(Arc<ThingBuf<[u8; N], AsItIs>>);

impl<const N: usize> Thing<N> {
    /// A queue of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(ThingBuf::with_recycle(bytes / N, AsItIs)))
    }
}

/// Leaves messages in their slots: the next one is written over them.
pub struct AsItIs;

impl<const N: usize> Recycle<[u8; N]> for AsItIs {
    fn new_element(&self) -> [u8; N] {
        [0; N]
    }

    fn recycle(&self, _: &mut [u8; N]) {}
}

impl<const N: usize> Link<N> for Thing<N> {
    type Sender = Self;
    type Receiver = Self;

    fn sender(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn receiver(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl<const N: usize> Sender<N> for Thing<N> {
    #[inline(always)]
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut backoff = Backoff::default();
        loop {
            if let Ok(mut slot) = self.0.push_ref() {
                // SAFETY: the slot is borrowed exclusively; what is written through it are bytes, and none can be invalid.
                return write(unsafe { &mut *ptr::from_mut(&mut *slot).cast() });
            }
            backoff.pause();
        }
    }
}

impl<const N: usize> Receiver<N> for Thing<N> {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut backoff = Backoff::default();
        loop {
            if let Some(slot) = self.0.pop_ref() {
                return read(&slot);
            }
            backoff.pause();
        }
    }
}
