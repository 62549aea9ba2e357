//! ringway's rings waited for in other ways than by receiving: links over links of [`Consumer`]s.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use ringway::{
    Address, Events, Options, Pollable, RecvError, WaitSet,
    spsc::{self, Consumer, Producer},
    transport,
};
use rustix::event::epoll;

use crate::{
    link::{Link, Receiver},
    ring::whole,
    yardstick::await_epoll,
};

/// Rings with a name, for the ways of sleeping that need one; they take away what a link left behind that failed.
pub struct NamedRings {
    options: Options,
    name: String,
    made: AtomicU32,
}

/// Two links are in use at once, there and back.
const LINKS: u32 = 2;

impl NamedRings {
    /// Rings with these options.
    pub fn new(options: &Options) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed, here and below: counters of one thread.
        let name = format!("ringway-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        Self { options: options.clone(), name, made: AtomicU32::new(0) }
    }

    /// The next link. Its name is that of the one before the last, which must be out of use.
    pub fn link(&self) -> io::Result<NamedRing> {
        let number = self.made.fetch_add(1, Relaxed) % LINKS;
        self.clear(number)?;
        Ok(NamedRing { address: self.address(number)?, options: self.options.clone() })
    }

    fn address(&self, number: u32) -> io::Result<Address> {
        format!("shm:///{}-{number}", self.name).parse().map_err(io::Error::other)
    }

    fn clear(&self, number: u32) -> io::Result<()> {
        match transport::remove(&self.address(number)?, true) {
            Err(error) if error.kind() != ringway::ErrorKind::NotFound => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for NamedRings {
    fn drop(&mut self) {
        for number in 0..LINKS {
            // What can't be removed was never made, but for a reason that the link told.
            let _ = self.clear(number);
        }
    }
}

/// A ring with a name, which the sides open by it, whoever comes first.
pub struct NamedRing {
    address: Address,
    options: Options,
}

impl<const N: usize> Link<N> for NamedRing {
    type Sender = Producer;
    type Receiver = Consumer;

    fn sender(&self) -> io::Result<Producer> {
        // SAFETY: the name is this program's own, and the sides use nothing but ringway's endpoints.
        unsafe { self.options.clone().assume_trusted_peers() }.producer(&self.address).map_err(io::Error::other)
    }

    fn receiver(&self) -> io::Result<Consumer> {
        // SAFETY: as above.
        unsafe { self.options.clone().assume_trusted_peers() }.consumer(&self.address).map_err(io::Error::other)
    }
}

/// The ring of another link, whose receiver waits for its descriptor in an epoll instance of its own.
pub struct Polled<L>(pub L);

impl<const N: usize, L: Link<N, Receiver = Consumer>> Link<N> for Polled<L> {
    type Sender = L::Sender;
    type Receiver = PolledConsumer;

    fn sender(&self) -> io::Result<L::Sender> {
        self.0.sender()
    }

    fn receiver(&self) -> io::Result<PolledConsumer> {
        let mut consumer = self.0.receiver()?;
        let pollable = consumer.pollable().map_err(io::Error::other)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &pollable, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(PolledConsumer { consumer, epoll, _pollable: pollable })
    }
}

/// The reading end of [`Polled`].
pub struct PolledConsumer {
    consumer: Consumer,
    epoll: OwnedFd,
    _pollable: Pollable,
}

impl<const N: usize> Receiver<N> for PolledConsumer {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        loop {
            match self.consumer.try_recv() {
                Ok(message) => return read(whole(&message)),
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
            await_epoll(&self.epoll);
        }
    }
}

/// The ring of another link, whose receiver has given out its descriptor and nevertheless receives as ever.
pub struct Watched<L>(pub L);

impl<const N: usize, L: Link<N, Receiver = Consumer>> Link<N> for Watched<L> {
    type Sender = L::Sender;
    type Receiver = WatchedConsumer;

    fn sender(&self) -> io::Result<L::Sender> {
        self.0.sender()
    }

    fn receiver(&self) -> io::Result<WatchedConsumer> {
        let mut consumer = self.0.receiver()?;
        let pollable = consumer.pollable().map_err(io::Error::other)?;
        Ok(WatchedConsumer { consumer, _pollable: pollable })
    }
}

/// The reading end of [`Watched`].
pub struct WatchedConsumer {
    consumer: Consumer,
    _pollable: Pollable,
}

impl<const N: usize> Receiver<N> for WatchedConsumer {
    #[inline(always)]
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        Receiver::<N>::recv(&mut self.consumer, read);
    }
}

/// The ring of another link, whose receiver waits for it in a wait set, along with others that nothing comes from.
pub struct Grouped<L> {
    /// The link.
    pub link: L,
    /// How many are in the set.
    pub members: usize,
}

impl<const N: usize, L: Link<N, Receiver = Consumer>> Link<N> for Grouped<L> {
    type Sender = L::Sender;
    type Receiver = GroupedConsumer;

    fn sender(&self) -> io::Result<L::Sender> {
        self.link.sender()
    }

    fn receiver(&self) -> io::Result<GroupedConsumer> {
        let set = WaitSet::new().map_err(io::Error::other)?;
        let mut consumer = self.link.receiver()?;
        set.add(0, &mut consumer).map_err(io::Error::other)?;
        let others = (1..self.members).map(|token| {
            let (producer, mut consumer) = spsc::channel(&Options::new().capacity(4 << 10))?;
            set.add(token, &mut consumer)?;
            Ok((producer, consumer))
        });
        let others = others.collect::<ringway::Result<_>>().map_err(io::Error::other)?;
        Ok(GroupedConsumer { set, events: Events::with_capacity(16), consumer, others })
    }
}

/// The reading end of [`Grouped`].
pub struct GroupedConsumer {
    set: WaitSet,
    events: Events,
    consumer: Consumer,
    others: Vec<(Producer, Consumer)>,
}

impl<const N: usize> Receiver<N> for GroupedConsumer {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        loop {
            match self.consumer.try_recv() {
                Ok(message) => return read(whole(&message)),
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
            self.set.wait(&mut self.events).unwrap_or_else(|error| panic!("{error}"));
            for token in self.events.iter().map(|event| event.token()).filter(|&token| token != 0) {
                let found = self.others[token - 1].1.try_recv().err();
                assert_eq!(found, Some(RecvError::Empty), "nobody sends there");
            }
        }
    }
}
