//! Where the sides of a crew meet, and where they leave word when they fail.

use std::{
    cell::UnsafeCell,
    fmt::Display,
    io::Write,
    sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
};

use rustix::{
    io::Errno,
    thread::futex::{Flags, wait, wake},
};

use crate::{canary::Lines, shared::Zeroed};

/// The memory a crew shares for its own purposes.
#[repr(C, align(128))]
pub(crate) struct Meeting {
    pub(crate) lines: Lines,
    begun: AtomicU32,
    arrived: AtomicU32,
    failed: AtomicU32,
    failure: UnsafeCell<[u8; 512]>,
}

// SAFETY: `failure` is written by the one side that sets `failed`, and read when all sides have ended.
unsafe impl Sync for Meeting {}
// SAFETY: zeroes are valid numbers and valid text.
unsafe impl Zeroed for Meeting {}

/// How a side waits for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It has a CPU of its own.
    Spin,
    /// Sides share CPUs: who waits must leave its CPU to those that don't.
    Sleep,
}

impl Meeting {
    /// Lets the sides begin: the parent has let go of its part of the state.
    pub(crate) fn begin(&self) {
        // Release: pairs with the Acquire in `await_beginning`.
        self.begun.store(1, Release);
    }

    pub(crate) fn await_beginning(&self) {
        while self.begun.load(Acquire) == 0 {
            std::thread::yield_now();
        }
    }

    /// Arrives, and waits until the arrivals since the beginning are `all`.
    pub(crate) fn meet(&self, all: u32, patience: Patience) {
        // AcqRel: what any side did before it arrived is seen by the others when they leave.
        let mut arrived = self.arrived.fetch_add(1, AcqRel) + 1;
        if patience == Patience::Sleep && arrived == all {
            wake(&self.arrived, Flags::empty(), i32::MAX as u32)
                .unwrap_or_else(|error| panic!("could not wake the other sides: {error}"));
        }
        let mut spins = 0u32;
        while arrived < all {
            match patience {
                Patience::Sleep => match wait(&self.arrived, Flags::empty(), arrived, None) {
                    Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => panic!("could not wait for the other sides: {error}"),
                },
                Patience::Spin => {
                    spins += 1;
                    if spins.is_multiple_of(1 << 12) {
                        std::thread::yield_now();
                    }
                }
            }
            arrived = self.arrived.load(Acquire);
        }
    }

    /// Leaves the reason for the parent; the first side to fail is the one to be heard.
    pub(crate) fn fail(&self, reason: &dyn Display) {
        if self.failed.fetch_or(1, AcqRel) == 0 {
            // SAFETY: nobody else got 0 above, so nobody else comes here, and nobody reads yet.
            let mut room = unsafe { &mut *self.failure.get() }.as_mut_slice();
            // What does not fit is cut off.
            let _ = write!(room, "{reason}");
        }
    }

    /// The reason a side left, once all have ended.
    pub(crate) fn failure(&self) -> Option<String> {
        // SAFETY: the sides have ended: nobody writes any more.
        let text = unsafe { &*self.failure.get() };
        let len = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        (self.failed.load(Acquire) != 0).then(|| String::from_utf8_lossy(&text[..len]).into_owned())
    }
}
