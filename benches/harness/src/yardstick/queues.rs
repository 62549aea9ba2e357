//! The kernel's message queues, by one raw system call for each message.

use std::{
    ffi::c_long,
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::{
    link::{Link, Receiver, Sender},
    ring::{room, whole},
};

/// As many as the kernel lets everybody have.
const MESSAGES: c_long = 10;
/// The usual size.
const MESSAGE_SIZE: c_long = 8192;

/// A POSIX message queue, whose name is gone already; for messages of at most 8 KiB.
pub struct PosixQueue(OwnedFd);

impl PosixQueue {
    /// Makes a queue.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("/ringway-bench-raw-{}-{}\0", process::id(), NEXT.fetch_add(1, Relaxed));
        let name = name.as_ptr().cast();
        // SAFETY: zeroes are valid attributes.
        let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
        attributes.mq_maxmsg = MESSAGES;
        attributes.mq_msgsize = MESSAGE_SIZE;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the name ends with a zero, and the attributes are valid.
        let queue = unsafe { libc::mq_open(name, flags, 0o600, &attributes) };
        if queue < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; the queue was made just now, and on Linux it is a descriptor.
        unsafe {
            libc::mq_unlink(name);
            Ok(Self(OwnedFd::from_raw_fd(queue)))
        }
    }
}

impl<const N: usize> Link<N> for PosixQueue {
    type Sender = PosixEnd;
    type Receiver = PosixEnd;

    fn sender(&self) -> io::Result<PosixEnd> {
        Ok(PosixEnd { queue: self.0.try_clone()?, buffer: Vec::new() })
    }

    fn receiver(&self) -> io::Result<PosixEnd> {
        Link::<N>::sender(self)
    }
}

/// Either end of a [`PosixQueue`].
pub struct PosixEnd {
    queue: OwnedFd,
    buffer: Vec<u8>,
}

impl<const N: usize> Sender<N> for PosixEnd {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        self.buffer.resize(N, 0);
        write(room(&mut self.buffer));
        // SAFETY: the bytes are valid for the call.
        if unsafe { libc::mq_send(self.queue.as_raw_fd(), self.buffer.as_ptr().cast(), N, 0) } != 0 {
            panic!("could not send to the other side: {}", io::Error::last_os_error());
        }
    }
}

impl<const N: usize> Receiver<N> for PosixEnd {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        self.buffer.resize(MESSAGE_SIZE as usize, 0);
        let (start, len) = (self.buffer.as_mut_ptr().cast(), self.buffer.len());
        // SAFETY: the buffer is valid for the call.
        match unsafe { libc::mq_receive(self.queue.as_raw_fd(), start, len, std::ptr::null_mut()) } {
            ..0 => panic!("could not receive from the other side: {}", io::Error::last_os_error()),
            length => read(whole(&self.buffer[..length as usize])),
        }
    }
}

/// A type of message in a System V message queue. The queue goes with the last of these in the process that made it.
#[derive(Clone)]
pub struct SysVQueue {
    queue: Arc<Queue>,
    kind: c_long,
}

struct Queue(libc::c_int);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: a plain system call; the queue is this process's own.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl SysVQueue {
    /// Makes a queue.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call.
        match unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) } {
            ..0 => Err(io::Error::last_os_error()),
            queue => Ok(Self { queue: Arc::new(Queue(queue)), kind: 1 }),
        }
    }

    /// Another type of message in the same queue.
    pub fn another(&self, kind: u32) -> Self {
        Self { queue: self.queue.clone(), kind: kind.into() }
    }
}

impl<const N: usize> Link<N> for SysVQueue {
    type Sender = SysVEnd<N>;
    type Receiver = SysVEnd<N>;

    fn sender(&self) -> io::Result<SysVEnd<N>> {
        Ok(SysVEnd { queue: self.queue.0, message: Box::new(Envelope { kind: self.kind, bytes: [0; N] }) })
    }

    fn receiver(&self) -> io::Result<SysVEnd<N>> {
        self.sender()
    }
}

/// Either end of a [`SysVQueue`].
pub struct SysVEnd<const N: usize> {
    queue: libc::c_int,
    message: Box<Envelope<N>>,
}

#[repr(C)]
struct Envelope<const N: usize> {
    kind: c_long,
    bytes: [u8; N],
}

impl<const N: usize> Sender<N> for SysVEnd<N> {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        write(room(&mut self.message.bytes));
        // SAFETY: the message begins with its type and has as many bytes.
        if unsafe { libc::msgsnd(self.queue, (&raw const *self.message).cast(), N, 0) } != 0 {
            panic!("could not send to the other side: {}", io::Error::last_os_error());
        }
    }
}

impl<const N: usize> Receiver<N> for SysVEnd<N> {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let kind = self.message.kind;
        // SAFETY: there is room for the type and as many bytes.
        match unsafe { libc::msgrcv(self.queue, (&raw mut *self.message).cast(), N, kind, 0) } {
            ..0 => panic!("could not receive from the other side: {}", io::Error::last_os_error()),
            length => read(whole(&self.message.bytes[..length as usize])),
        }
    }
}
