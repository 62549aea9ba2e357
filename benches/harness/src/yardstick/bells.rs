//! Bare ways to sleep and to be woken: one message in shared memory, and something to wait on of which each message takes one
//! turn. Without flow control: for round trips only, where each side knows that its last message was read before it
//! writes the next.

use std::{
    cell::UnsafeCell,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, write},
};

use crate::{
    link::{Link, Receiver, Sender},
    shared::{Shared, Zeroed},
};

/// Something to wait on. Each ring ends one wait, the one at hand or the next.
pub trait Bell: Sync {
    /// What it is rung by.
    type Ringer;
    /// What waits.
    type Sleeper;

    /// Gets ready to ring, in the process that will.
    fn ringer(&self) -> io::Result<Self::Ringer>;

    /// Gets ready to wait, in the process that will.
    fn sleeper(&self) -> io::Result<Self::Sleeper>;

    /// Ends a wait. What fails, panics.
    fn ring(ringer: &mut Self::Ringer);

    /// Waits. What fails, panics.
    fn sleep(sleeper: &mut Self::Sleeper);
}

/// A link of one message and a bell.
pub struct Belled<const N: usize, B> {
    slot: Arc<Shared<Slot<N>>>,
    bell: B,
}

#[repr(C, align(128))]
struct Slot<const N: usize> {
    /// The number of messages written so far.
    written: AtomicU32,
    message: UnsafeCell<MaybeUninit<[u8; N]>>,
}

// SAFETY: the sides take turns on the message, as the module says; `written` orders the turns.
unsafe impl<const N: usize> Sync for Slot<N> {}
// SAFETY: a zero count and any message are valid.
unsafe impl<const N: usize> Zeroed for Slot<N> {}

impl<const N: usize, B> Belled<N, B> {
    /// Maps the slot.
    pub fn new(bell: B) -> io::Result<Self> {
        Ok(Self { slot: Arc::new(Shared::new(1)?), bell })
    }
}

impl<const N: usize, B: Bell> Link<N> for Belled<N, B> {
    type Sender = BelledSender<N, B>;
    type Receiver = BelledReceiver<N, B>;

    fn sender(&self) -> io::Result<Self::Sender> {
        Ok(BelledSender { slot: self.slot.clone(), ringer: self.bell.ringer()?, count: 0 })
    }

    fn receiver(&self) -> io::Result<Self::Receiver> {
        Ok(BelledReceiver { slot: self.slot.clone(), sleeper: self.bell.sleeper()?, count: 0 })
    }
}

/// The writing end of [`Belled`].
pub struct BelledSender<const N: usize, B: Bell> {
    slot: Arc<Shared<Slot<N>>>,
    ringer: B::Ringer,
    count: u32,
}

impl<const N: usize, B: Bell> Sender<N> for BelledSender<N, B> {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let slot = &self.slot[0];
        // SAFETY: it is this side's turn: the answer to its last message has come, so that was read.
        write(unsafe { &mut *slot.message.get() });
        self.count = self.count.wrapping_add(1);
        // Release: pairs with the Acquire in `recv`, so that the message is seen with its number.
        slot.written.store(self.count, Release);
        B::ring(&mut self.ringer);
    }
}

/// The reading end of [`Belled`].
pub struct BelledReceiver<const N: usize, B: Bell> {
    slot: Arc<Shared<Slot<N>>>,
    sleeper: B::Sleeper,
    count: u32,
}

impl<const N: usize, B: Bell> Receiver<N> for BelledReceiver<N, B> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let slot = &self.slot[0];
        loop {
            B::sleep(&mut self.sleeper);
            // Acquire: pairs with the Release in `send`.
            if slot.written.load(Acquire) != self.count {
                break;
            }
        }
        self.count = self.count.wrapping_add(1);
        // SAFETY: the message was written before its number, and the other side writes no other before it has an answer.
        read(unsafe { (*slot.message.get()).assume_init_ref() });
    }
}

/// A POSIX semaphore without a name, in memory of its own.
#[derive(Clone)]
pub struct PosixSemaphore(Arc<Shared<Semaphore>>);

#[repr(transparent)]
struct Semaphore(UnsafeCell<libc::sem_t>);

// SAFETY: all access is by the C library's functions, which are meant for it.
unsafe impl Sync for Semaphore {}
// SAFETY: these are bytes, which `PosixSemaphore::new` makes a semaphore before they are used.
unsafe impl Zeroed for Semaphore {}

impl PosixSemaphore {
    /// Makes one that stands at 0.
    pub fn new() -> io::Result<Self> {
        let memory = Shared::<Semaphore>::new(1)?;
        // SAFETY: the memory is shared, and nobody else's yet.
        check(unsafe { libc::sem_init(memory[0].0.get(), 1, 0) })?;
        Ok(Self(Arc::new(memory)))
    }
}

impl Bell for PosixSemaphore {
    type Ringer = Self;
    type Sleeper = Self;

    fn ringer(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn sleeper(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn ring(ringer: &mut Self) {
        // SAFETY: it is initialised, and mapped.
        expect(check(unsafe { libc::sem_post(ringer.0[0].0.get()) }));
    }

    fn sleep(sleeper: &mut Self) {
        // SAFETY: as above.
        expect(uninterrupted(|| check(unsafe { libc::sem_wait(sleeper.0[0].0.get()) })));
    }
}

/// A System V semaphore of a set of two, which go with the last of these in the process that made them.
#[derive(Clone)]
pub struct SystemVSemaphore {
    set: Arc<Set>,
    number: u16,
}

struct Set {
    id: libc::c_int,
    owner: u32,
    next: AtomicU32,
}

impl Drop for Set {
    fn drop(&mut self) {
        if std::process::id() == self.owner {
            // SAFETY: a plain system call; the set is this process's own.
            unsafe { libc::semctl(self.id, 0, libc::IPC_RMID) };
        }
    }
}

impl SystemVSemaphore {
    /// Makes the set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call.
        let id = check(unsafe { libc::semget(libc::IPC_PRIVATE, 2, 0o600) })?;
        Ok(Self { set: Arc::new(Set { id, owner: std::process::id(), next: AtomicU32::new(0) }), number: 0 })
    }

    /// The other one of the set, at 0.
    pub fn another(&self) -> io::Result<Self> {
        // Relaxed: a counter of one thread.
        let number = (self.set.next.fetch_add(1, Relaxed) % 2) as u16;
        // SAFETY: a plain system call.
        check(unsafe { libc::semctl(self.set.id, number.into(), libc::SETVAL, 0) })?;
        Ok(Self { set: self.set.clone(), number })
    }

    fn change(&self, by: i16) -> io::Result<()> {
        let mut change = libc::sembuf { sem_num: self.number, sem_op: by, sem_flg: 0 };
        // SAFETY: one change, valid for the call.
        check(unsafe { libc::semop(self.set.id, &mut change, 1) }).map(drop)
    }
}

impl Bell for SystemVSemaphore {
    type Ringer = Self;
    type Sleeper = Self;

    fn ringer(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn sleeper(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn ring(ringer: &mut Self) {
        expect(ringer.change(1));
    }

    fn sleep(sleeper: &mut Self) {
        expect(uninterrupted(|| sleeper.change(-1)));
    }
}

/// Two ends of something with descriptors: what is written to one ends a read from the other.
#[derive(Clone)]
pub struct Descriptors {
    reader: Arc<OwnedFd>,
    writer: Arc<OwnedFd>,
}

impl Descriptors {
    /// An eventfd.
    pub fn eventfd() -> io::Result<Self> {
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { reader: event.clone(), writer: event })
    }

    /// A pipe, which is what a FIFO is once it is open.
    pub fn pipe() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader: Arc::new(reader.into()), writer: Arc::new(writer.into()) })
    }

    /// A pair of connected Unix datagram sockets.
    pub fn datagrams() -> io::Result<Self> {
        let (reader, writer) = UnixDatagram::pair()?;
        Ok(Self { reader: Arc::new(reader.into()), writer: Arc::new(writer.into()) })
    }

    /// The same, waited for in an epoll instance.
    pub fn polled(self) -> io::Result<Polled> {
        fcntl_setfl(&self.reader, fcntl_getfl(&self.reader)? | OFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &self.reader, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Polled { descriptors: self, epoll: Arc::new(epoll) })
    }

    fn ring(&self) {
        expect(uninterrupted(|| Ok(write(&self.writer, &1u64.to_ne_bytes())?)));
    }
}

impl Bell for Descriptors {
    type Ringer = Self;
    type Sleeper = Self;

    fn ringer(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn sleeper(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn ring(ringer: &mut Self) {
        Self::ring(ringer);
    }

    fn sleep(sleeper: &mut Self) {
        expect(uninterrupted(|| Ok(read(&sleeper.reader, &mut [0; 8])?)));
    }
}

/// [`Descriptors`] in an epoll instance: `epoll_wait`, then `read`.
#[derive(Clone)]
pub struct Polled {
    descriptors: Descriptors,
    epoll: Arc<OwnedFd>,
}

impl Bell for Polled {
    type Ringer = Descriptors;
    type Sleeper = Self;

    fn ringer(&self) -> io::Result<Descriptors> {
        Ok(self.descriptors.clone())
    }

    fn sleeper(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn ring(ringer: &mut Descriptors) {
        ringer.ring();
    }

    fn sleep(sleeper: &mut Self) {
        await_epoll(&sleeper.epoll);
        expect(uninterrupted(|| Ok(read(&sleeper.descriptors.reader, &mut [0; 8])?)));
    }
}

/// Waits until something in the instance is ready. What fails, panics.
pub fn await_epoll(epoll: &impl AsFd) {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: there is room for one event.
    let wait = || check(unsafe { libc::epoll_wait(epoll.as_fd().as_raw_fd(), &mut event, 1, -1) });
    expect(uninterrupted(wait));
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            answer => return answer,
        }
    }
}

fn expect<T>(result: io::Result<T>) {
    if let Err(error) = result {
        panic!("could not ring or be rung: {error}");
    }
}
