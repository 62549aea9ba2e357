//! Links that drop what they have no room for, kept from it: the sender stays close enough to the receiver.

use std::{
    hint::spin_loop,
    io,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
};

use crate::{
    link::{Link, Receiver, Sender},
    shared::Shared,
};

/// How far the sender may be ahead, in bytes as the kernel counts them: less than the usual buffer of a socket.
const WINDOW: usize = 100 << 10;
/// Looks at the receiver's count before the CPU is left to others.
const LOOKS: u32 = 64;

/// A link with a window. The receiver's count goes through shared memory, which costs both sides next to nothing.
pub struct Windowed<L> {
    link: L,
    received: Arc<Shared<AtomicU32>>,
}

impl<L> Windowed<L> {
    /// Gives `link` a window.
    pub fn new(link: L) -> io::Result<Self> {
        Ok(Self { link, received: Arc::new(Shared::new(1)?) })
    }
}

/// How many messages may be under way.
const fn window(size: usize) -> usize {
    let messages = WINDOW / (2 * size + 1024);
    if messages == 0 { 1 } else { messages }
}

impl<const N: usize, L: Link<N>> Link<N> for Windowed<L> {
    type Sender = WindowedSender<L::Sender>;
    type Receiver = WindowedReceiver<L::Receiver>;

    fn sender(&self) -> io::Result<Self::Sender> {
        Ok(WindowedSender { sender: self.link.sender()?, received: self.received.clone(), sent: 0 })
    }

    fn receiver(&self) -> io::Result<Self::Receiver> {
        Ok(WindowedReceiver { receiver: self.link.receiver()?, received: self.received.clone(), count: 0 })
    }
}

/// The writing end of [`Windowed`].
pub struct WindowedSender<S> {
    sender: S,
    received: Arc<Shared<AtomicU32>>,
    sent: u32,
}

impl<S> WindowedSender<S> {
    /// Waits until `count` more are within the window.
    fn make_room(&mut self, count: usize, window: usize) {
        self.sent = self.sent.wrapping_add(count as u32);
        let mut looks = 0u32;
        // Acquire: pairs with the Release in `WindowedReceiver::tell`.
        while self.sent.wrapping_sub(self.received[0].load(Acquire)) as usize > window {
            looks += 1;
            if looks.is_multiple_of(LOOKS) {
                std::thread::yield_now();
            }
            spin_loop();
        }
    }
}

impl<const N: usize, S: Sender<N>> Sender<N> for WindowedSender<S> {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        self.make_room(1, window(N));
        self.sender.send(write);
    }

    fn send_batch(&mut self, count: usize, mut write: impl FnMut(&mut MaybeUninit<[u8; N]>)) {
        let mut left = count;
        while left > 0 {
            let part = left.min(window(N));
            self.make_room(part, window(N));
            self.sender.send_batch(part, &mut write);
            left -= part;
        }
    }
}

/// The reading end of [`Windowed`].
pub struct WindowedReceiver<R> {
    receiver: R,
    received: Arc<Shared<AtomicU32>>,
    count: u32,
}

impl<R> WindowedReceiver<R> {
    fn tell(&mut self, count: usize) {
        self.count = self.count.wrapping_add(count as u32);
        // Release: pairs with the Acquire in `WindowedSender::make_room`.
        self.received[0].store(self.count, Release);
    }
}

impl<const N: usize, R: Receiver<N>> Receiver<N> for WindowedReceiver<R> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        self.receiver.recv(read);
        self.tell(1);
    }

    fn recv_batch(&mut self, max: usize, read: impl FnMut(&[u8; N])) -> usize {
        let count = self.receiver.recv_batch(max, read);
        self.tell(count);
        count
    }
}
