//! Queued signals, eight bytes in each: between processes, not threads, and one link between two at a time.

use std::{
    io,
    mem::MaybeUninit,
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};

use crate::{
    link::{Link, Receiver, Sender},
    shared::Shared,
};

const WORD: usize = 8;

/// Signals to whoever receives.
pub struct Signals {
    number: libc::c_int,
    /// The receiver, once it is prepared.
    pid: Arc<Shared<AtomicU32>>,
}

impl Signals {
    /// Signal `SIGRTMIN` + `number`.
    pub fn new(number: u8) -> io::Result<Self> {
        Ok(Self { number: libc::SIGRTMIN() + libc::c_int::from(number), pid: Arc::new(Shared::new(1)?) })
    }
}

impl<const N: usize> Link<N> for Signals {
    type Sender = SignalSender;
    type Receiver = SignalReceiver;

    fn sender(&self) -> io::Result<SignalSender> {
        loop {
            // Acquire: pairs with the Release in `receiver`: the signal doesn't kill.
            match self.pid[0].load(Acquire) {
                0 => thread::yield_now(),
                pid => return Ok(SignalSender { pid: pid as libc::pid_t, number: self.number }),
            }
        }
    }

    fn receiver(&self) -> io::Result<SignalReceiver> {
        // SAFETY: an empty set can be added to, and this thread's mask takes it.
        let set = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, self.number);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut());
            set
        };
        // Release: pairs with the Acquire in `sender`.
        self.pid[0].store(std::process::id(), Release);
        Ok(SignalReceiver { set })
    }
}

/// The sending end of [`Signals`].
pub struct SignalSender {
    pid: libc::pid_t,
    number: libc::c_int,
}

impl<const N: usize> Sender<N> for SignalSender {
    fn send(&mut self, write: impl FnOnce(&mut MaybeUninit<[u8; N]>)) {
        let mut message = MaybeUninit::new([0; N]);
        write(&mut message);
        // SAFETY: it was bytes before `write`, which writes all of them.
        for word in unsafe { message.assume_init_ref() }.as_chunks::<WORD>().0 {
            let value = libc::sigval { sival_ptr: usize::from_ne_bytes(*word) as *mut _ };
            // SAFETY: the value is never taken for a pointer.
            while unsafe { libc::sigqueue(self.pid, self.number, value) } != 0 {
                match io::Error::last_os_error() {
                    // As many are pending as may be.
                    error if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                    error => panic!("could not send to the other side: {error}"),
                }
            }
        }
    }
}

/// The receiving end of [`Signals`].
pub struct SignalReceiver {
    set: libc::sigset_t,
}

impl<const N: usize> Receiver<N> for SignalReceiver {
    fn recv(&mut self, read: impl FnOnce(&[u8; N])) {
        let mut message = [0; N];
        for word in message.as_chunks_mut::<WORD>().0 {
            // SAFETY: zeroes are a valid value, the set is one, and of a queued signal the value is there.
            *word = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                while libc::sigwaitinfo(&self.set, &mut info) < 0 {
                    let error = io::Error::last_os_error();
                    assert_eq!(
                        error.kind(),
                        io::ErrorKind::Interrupted,
                        "could not receive from the other side: {error}"
                    );
                }
                info.si_value().sival_ptr as usize
            }
            .to_ne_bytes();
        }
        read(&message);
    }
}
