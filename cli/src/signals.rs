//! Ctrl-C and its like: a handler notes them, and what was blocked returns and ends in good order.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::alarm,
};

use crate::failure::Failure;

/// 0, or the first signal that came.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// A signal that asks this process to end.
#[derive(Clone, Copy, Debug)]
pub struct Caught(c_int);

impl Caught {
    /// The signal that came, if one did.
    pub fn now() -> Option<Self> {
        // Relaxed, here and below: it guards no other memory.
        Some(CAUGHT.load(Ordering::Relaxed)).filter(|&signal| signal != 0).map(Self)
    }

    /// As shells have it: 130 for Ctrl-C.
    pub fn exit_code(self) -> u8 {
        (128 + self.0) as u8
    }
}

/// Ends the command if a signal came.
pub fn check() -> Result<(), Failure> {
    Caught::now().map_or(Ok(()), |signal| Err(Failure::Signal(signal)))
}

/// From now on the first Ctrl-C, hang-up or request to terminate interrupts system calls and is noted; a second one kills.
/// A hang-up that the parent chose to ignore stays ignored, as `nohup` wants.
pub fn catch() -> Result<(), Failure> {
    for (signal, flags) in [
        (Signal::SIGINT, SaFlags::SA_RESETHAND),
        (Signal::SIGTERM, SaFlags::SA_RESETHAND),
        (Signal::SIGHUP, SaFlags::SA_RESETHAND),
        (Signal::SIGALRM, SaFlags::empty()),
    ] {
        let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
        let set = |action: &SigAction| {
            // SAFETY: the handler makes no call that isn't async-signal-safe, and leaves errno alone.
            unsafe { sigaction(signal, action) }
        };
        let caught = set(&action).and_then(|before| match before.handler() {
            SigHandler::SigIgn if signal == Signal::SIGHUP => set(&before).map(drop),
            _ => Ok(()),
        });
        caught.map_err(|errno| Failure::Io(format!("could not catch {signal}: {errno}")))?;
    }
    Ok(())
}

extern "C" fn note(signal: c_int) {
    if signal != Signal::SIGALRM as c_int {
        let _ = CAUGHT.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
    }
    // A system call that was about to begin isn't interrupted, and blocks: so interrupt again until we are gone.
    alarm::set(1);
}
