//! kanal: its bounded channel.

use kanal::{Receiver, Sender};

use super::many::{Many, Pop, Push};

/// The channel.
pub type Kanal<const N: usize> = Many<Sender<[u8; N]>, Receiver<[u8; N]>>;

/// A channel of `bytes` bytes.
pub fn kanal<const N: usize>(bytes: usize) -> Kanal<N> {
    Many::new(kanal::bounded(bytes / N))
}

impl<const N: usize> Push<N> for Sender<[u8; N]> {
    #[inline(always)]
    fn try_push(&mut self, message: [u8; N]) -> Result<(), [u8; N]> {
        // The message is there still: arrays of bytes are copied.
        if self.try_send(message).unwrap_or_else(|error| panic!("{error}")) { Ok(()) } else { Err(message) }
    }
}

impl<const N: usize> Pop<N> for Receiver<[u8; N]> {
    #[inline(always)]
    fn try_pop(&mut self) -> Option<[u8; N]> {
        self.try_recv().unwrap_or_else(|error| panic!("{error}"))
    }
}
