//! What an address and options come to, for a mechanism that carries messages itself.

use std::io;
use std::time::Duration;

use super::address::Address;
use super::feed::{Door, Feed};
use super::frame::{Identity, LONGEST};
use super::inbox::Inbox;
use super::inlet::{Inlet, Inward};
use super::outbox::{DEFAULT_LONGEST, Outbox};
use super::outlet::{Outlet, Outward};
use super::port::Port;
use crate::channel::{Existence, Framing, Options, Profile};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::clock;
use crate::sys::process::{ProcessId, user_id};
use crate::wait::Spin;

/// How long a sender tries to reach a receiver unless told.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Who may use what is created, unless told.
const PERM: u32 = 0o600;
/// The pauses of whoever must try again and can't be woken.
const PAUSES: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(10)];

/// An address and what options and address say together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) address: &'a Address,
    options: &'a Options,
}

impl<'a> Plan<'a> {
    /// `options` are merged with what the address says.
    pub(super) fn new(address: &'a Address, options: &'a Options) -> Result<Self> {
        let plan = Self { address, options };
        for (is_asked, what) in [
            (options.ring.is_some(), "ring"),
            (options.producers.is_some(), "producers"),
            (options.max_deliveries.is_some(), "max_deliveries"),
            (options.wait.is_some(), "wait"),
        ] {
            if is_asked {
                return Err(plan.refuse(ErrorKind::InvalidInput, format!("it has no ring, and so no {what}")));
            }
        }
        if options.max_message.is_some_and(|max| max > LONGEST as u64) {
            return Err(plan.refuse(ErrorKind::InvalidInput, format!("max_message is at most {LONGEST} bytes here")));
        }
        Ok(plan)
    }

    pub(super) fn framing(&self) -> Framing {
        self.options.framing.unwrap_or_default()
    }

    /// The framing, which must not be the one that the mechanism can't do.
    pub(super) fn framing_but(&self, other: Framing, why: &str) -> Result<Framing> {
        match self.framing() {
            framing if framing == other => {
                Err(self.refuse(ErrorKind::InvalidInput, format!("framing={framing} isn't for it: {why}")))
            }
            framing => Ok(framing),
        }
    }

    /// Of a mechanism that carries bytes: frames or lines.
    pub(super) fn stream_framing(&self) -> Result<Framing> {
        self.framing_but(Framing::None, "it carries a stream of bytes; use framing=frames or framing=lines")
    }

    /// Of a mechanism that carries single messages: frames or none.
    pub(super) fn piece_framing(&self) -> Result<Framing> {
        self.framing_but(Framing::Lines, "it carries single messages; use framing=frames or framing=none")
    }

    pub(super) fn max_message(&self) -> Option<usize> {
        self.options.max_message.map(|max| max as usize)
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        self.options.capacity.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    pub(super) fn perm(&self) -> u32 {
        self.options.perm.unwrap_or(PERM)
    }

    pub(super) fn persists(&self) -> bool {
        self.options.persist.unwrap_or(false)
    }

    pub(super) fn existence(&self) -> Existence {
        self.options.existence
    }

    pub(super) fn keeps_open(&self) -> bool {
        self.options.keep_open
    }

    pub(super) fn options(&self) -> &'a Options {
        self.options
    }

    /// An error about this address, without an answer from the kernel.
    pub(super) fn refuse(&self, kind: ErrorKind, advice: impl Into<String>) -> Error {
        Error::new(kind, "open", self.address.target()).advise(advice)
    }

    /// An error that the kernel reported.
    pub(super) fn failed(&self, tried: &str, error: io::Error) -> Error {
        Error::os(error, tried, self.address.target())
    }

    /// Refuses what belongs to somebody else, unless it is meant to be shared with other users.
    pub(super) fn check_owner(&self, owner: u32) -> Result<()> {
        let is_shared = self.perm() & 0o077 != 0;
        if is_shared || [user_id(), 0].contains(&owner) {
            return Ok(());
        }
        Err(self.refuse(
            ErrorKind::PermissionDenied,
            format!(
                "it belongs to user {owner}, who could have put it there to listen; say perm= with the bits of group or \
                 others if it is meant to be shared"
            ),
        ))
    }

    /// Who this process is, for receivers that can make use of it.
    pub(super) fn identity(&self) -> Result<Identity> {
        ProcessId::current().map(Identity).map_err(|e| {
            Error::os(e, "identify this process in", "/proc")
                .advise("ringway needs /proc to tell the living from the dead")
        })
    }

    /// How long a sender tries to reach a receiver.
    pub(super) fn patience(&self) -> Duration {
        self.options.connect.unwrap_or(CONNECT)
    }

    /// Tries until it succeeds, as long as a sender may try to reach a receiver: `attempt` says whether an error may pass.
    pub(super) fn connect<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> Result<T> {
        let patience = self.patience();
        let deadline = clock::now().saturating_add(patience);
        let mut pauses = Pauses::new();
        loop {
            match attempt() {
                Ok(connected) => return Ok(connected),
                Err(e) if is_nobody_there(&e) => {
                    if !pauses.pause(deadline) {
                        let patience = crate::units::format_duration(patience);
                        return Err(Error::os(e, "connect to", self.address.target()).advise(format!(
                            "no receiver was there within {patience}: start one, or wait longer with connect="
                        )));
                    }
                }
                Err(e) => return Err(self.failed("connect to", e)),
            }
        }
    }

    /// The sending end by `port`.
    pub(super) fn outward<P: Port + 'static>(&self, port: P, framing: Framing) -> Result<Outward> {
        let hello = Some(self.identity()?);
        Ok(self.outlet(Box::new(Outbox::new(port, framing, self.max_message(), hello))))
    }

    pub(super) fn outlet(&self, outlet: Box<dyn Outlet>) -> Outward {
        Outward::new(outlet, self.keeps_open(), self.options.spin)
    }

    /// The receiving end by a single feed.
    pub(super) fn inward(&self, feed: Box<dyn Feed>, framing: Framing, is_lossy: bool) -> Inward {
        let max = self.max_message().unwrap_or(DEFAULT_LONGEST);
        self.inlet(Box::new(Inbox::new(Some(feed), None, framing, max, is_lossy)))
    }

    /// The receiving end of connections.
    pub(super) fn inward_by(&self, door: Box<dyn Door>, framing: Framing) -> Inward {
        let max = self.max_message().unwrap_or(DEFAULT_LONGEST);
        self.inlet(Box::new(Inbox::new(None, Some(door), framing, max, false)))
    }

    pub(super) fn inlet(&self, inlet: Box<dyn Inlet>) -> Inward {
        Inward::new(inlet, self.keeps_open(), Spin::new(self.options.spin, self.options.profile == Profile::Latency))
    }
}

/// Whether a receiver may come, and the same attempt succeed.
pub(super) fn is_nobody_there(error: &io::Error) -> bool {
    let passing = [libc::ENOENT, libc::ECONNREFUSED, libc::ENXIO, libc::EAGAIN, libc::EINPROGRESS];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

/// Pauses that double from 50 µs to 10 ms, for waits that nothing can end.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: PAUSES[0] }
    }

    /// Sleeps for the next pause, but not beyond the monotonic `deadline`: false if that has come.
    pub(super) fn pause(&mut self, deadline: Duration) -> bool {
        let left = deadline.saturating_sub(clock::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.next.min(left));
        self.next = (2 * self.next).min(PAUSES[1]);
        true
    }

    /// There was something to do: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.next = PAUSES[0];
    }
}
