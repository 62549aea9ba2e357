//! What can be measured: a way to carry messages of `N` bytes from one side to the other.

use std::{io, mem::MaybeUninit};

/// The message sizes that programs over this crate offer; see [`with_size!`](crate::with_size).
pub const SIZES: [usize; 6] = [8, 64, 256, 1 << 10, 4 << 10, 64 << 10];

/// Evaluates an expression with `N` as a constant, for a size known at run time. Sizes outside [`SIZES`] panic.
#[macro_export]
macro_rules! with_size {
    ($size:expr, $n:ident => $body:expr) => {
        $crate::with_size!(@each $size, $n => $body; 8 64 256 1024 4096 65536)
    };
    (@each $size:expr, $n:ident => $body:expr; $($value:literal)*) => {
        match $size {
            $($value => { const $n: usize = $value; $body })*
            other => panic!("messages of {other} bytes are not offered, only of {:?}", $crate::SIZES),
        }
    };
}

/// A way to carry messages of `N` bytes. The link is made before the sides part; each side then takes its end once. Links
/// for one sender and one receiver refuse a second one or must not be asked; [`many`](crate::many) needs the others.
///
/// Message sizes are constants so that everything measured is compiled for them, as a user's own fixed-size messages
/// would be. The ends block or spin, as their kind does; what fails, panics, and the pair reports the text as its error.
pub trait Link<const N: usize>: Sync {
    /// The writing end.
    type Sender: Sender<N>;
    /// The reading end.
    type Receiver: Receiver<N>;

    /// Takes the writing end, in the process and thread that will use it.
    fn sender(&self) -> io::Result<Self::Sender>;

    /// Takes the reading end, in the process and thread that will use it.
    fn receiver(&self) -> io::Result<Self::Receiver>;
}

/// The writing end of a [`Link`].
pub trait Sender<const N: usize> {
    /// Sends one message, which `write` builds where it is to lie.
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>));

    /// Sends `count` messages that become visible together, as far as the link can do that.
    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        for _ in 0..count {
            self.send(&mut write);
        }
    }
}

/// The reading end of a [`Link`].
pub trait Receiver<const N: usize> {
    /// Receives one message, which `read` looks at where it lies.
    fn recv(&mut self, read: impl FnOnce(&[u8; N]));

    /// Receives at least one message and at most `max`, and tells how many.
    fn recv_batch(&mut self, max: usize, mut read: impl FnMut(&[u8; N])) -> usize {
        debug_assert!(max > 0);
        self.recv(&mut read);
        1
    }
}
