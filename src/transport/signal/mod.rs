//! Queued real-time signals that carry the messages in their values: any number of senders, and one receiver, a process that has
//! to be there first.
//!
//! The kernel queues each real-time signal that is sent with a value of 64 bits, and hands them out in the order in which they were
//! sent; with each it says which process sent it. So the signals of one sender are a stream of words, which nothing reorders and
//! of which nothing is lost: when too many are pending the kernel refuses the next one instead.
//!
//! # Words
//!
//! A message is a header and its bytes, eight to a word, the first in the lowest bits; the last word is filled up with zeros.
//!
//! | bits of a header | |
//! |---|---|
//! | 60 to 63 | 1 a message, 2 hello, 3 goodbye; others never |
//! | 32 to 59 | bytes that follow, 0 to 2^28 - 1 |
//! | 0 to 31 | the message's tag; of a hello 0x52575331; of a goodbye 0 |
//!
//! A sender begins with a hello, 40 bytes that say who it is, as a hello of `docs/framing.md` does, and ends with a goodbye without
//! bytes. Its messages are counted by the receiver, from 0. There is one sender per process, since two would share a stream. One
//! that was dropped in the middle of a message, because there was no room for too long, leaves the rest to the next one in its
//! process.
//!
//! What comes from a process that has not said hello, because it greeted an earlier receiver or isn't ringway at all, is malformed,
//! which is said once, and dropped up to its hello. In the middle of a message a hello is looked for in one case only: when its pid
//! belongs to another process than the one that had said hello, which is dead. Otherwise messages could forge one.
//!
//! The pid is what the sender says; but only processes of the same user and privileged ones may send signals.
//!
//! # Nobody is killed
//!
//! A real-time signal that a process neither blocks nor catches kills it. The receiver opens only when all threads of its process
//! block the signal, and never unblocks it, so that signals that come late kill nobody. The sender looks into `/proc`, when it opens
//! and every 100 ms, whether each thread of the target blocks the signal or the process catches it, and that it isn't ignored.
//! Both hold the target by a descriptor (pidfd): no other process can get its pid and the signals meant for it.
//!
//! # Waiting
//!
//! The kernel wakes nobody when there is room again: a sender that waits tries again after 50 µs, and then after pauses that double
//! up to 10 ms. It finds out about the death of the receiver's process within 100 ms, what it sends meanwhile is lost like all that
//! was pending; but not about a receiver that was dropped in a process that
//! lives on: then its signals stay pending, and there is no room from then on.

mod inlet;
mod outlet;
mod peer;
mod roles;
mod target;
mod word;

use std::{io, process};

use self::inlet::SignalInlet;
use self::outlet::SignalOutlet;
use self::roles::{Claim, Role};
use self::target::{Readiness, Target};
use self::word::LONGEST;
use super::plan::{Pauses, Plan};
use super::{Receiver, Sender};
use crate::channel::SendError;
use crate::error::{ErrorKind, Result};
use crate::sys::{clock, signal};
use crate::wait::SLICE;

/// The longest message unless told, in bytes.
const DEFAULT_LONGEST: usize = 64 << 10;

pub(super) fn sender(plan: &Plan, pid: Option<u32>, number: u8) -> Result<Sender> {
    let (signal, max) = check(plan, number)?;
    let pid = pid.unwrap_or_else(process::id);
    let claim = claim(plan, Role::Sender { pid }, signal)?;
    let nobody = || plan.refuse(ErrorKind::NotFound, format!("there is no process {pid}"));
    let target = Target::open(pid, signal).map_err(|e| match e.raw_os_error() {
        Some(libc::ESRCH) => nobody(),
        _ => {
            plan.failed("find the process of", e).advise("the pid must be that of a process, not of one of its threads")
        }
    })?;
    if target.is_elsewhere() {
        let advice = "the process is in another pid namespace, where it could not tell its senders apart";
        return Err(plan.refuse(ErrorKind::Unsupported, advice));
    }
    let mut last = Readiness::Unsure;
    let ready = plan.connect(|| {
        last = target.readiness()?;
        Err(io::Error::from_raw_os_error(match last {
            Readiness::Ready => return Ok(()),
            Readiness::Dead => libc::ESRCH,
            Readiness::Unsure | Readiness::Unprepared { .. } | Readiness::Ignored => libc::ECONNREFUSED,
        }))
    });
    ready.map_err(|error| match (error.kind(), last) {
        (_, Readiness::Dead) => nobody(),
        (ErrorKind::PermissionDenied, _) => error
            .advise(format!("only who may see its threads in /proc/{pid}/task can tell that the signal won't kill it")),
        (_, last) => {
            plan.refuse(ErrorKind::NotFound, format!("start the receiver first: {}", last.explain(pid, signal)))
        }
    })?;
    let mut outlet = SignalOutlet::new(target, claim, max, plan.identity()?);
    match outlet.greet() {
        Ok(()) | Err(SendError::Full) => Ok(Sender::carried(plan.outlet(Box::new(outlet)))),
        Err(SendError::Os { errno }) => {
            let error = plan.failed("send to", io::Error::from_raw_os_error(errno));
            Err(match errno {
                libc::EPERM => error.advise("signals go to processes of the same user only, or need CAP_KILL"),
                _ => error,
            })
        }
        Err(_) => Err(nobody()),
    }
}

pub(super) fn receiver(plan: &Plan, pid: Option<u32>, number: u8) -> Result<Receiver> {
    let (signal, max) = check(plan, number)?;
    let own = process::id();
    if pid.is_some_and(|pid| pid != own) {
        let advice = format!("a process receives its own signals only: say signal://self, or its pid {own}");
        return Err(plan.refuse(ErrorKind::InvalidInput, advice));
    }
    let claim = claim(plan, Role::Receiver, signal)?;
    if signal::pending_limit().map_err(|e| plan.failed("look at the limit of", e))? == Some(0) {
        let advice = "RLIMIT_SIGPENDING is 0, so that no signal can ever be queued: see `ulimit -i`";
        return Err(plan.refuse(ErrorKind::NoSpace, advice));
    }
    block_everywhere(plan, signal)?;
    let fd = signal::signal_fd(signal).map_err(|e| plan.failed("open a descriptor of", e))?;
    Ok(Receiver::carried(plan.inlet(Box::new(SignalInlet::new(fd, claim, max)))))
}

/// The signal, and the longest message.
fn check(plan: &Plan, number: u8) -> Result<(i32, usize)> {
    if plan.options().framing.is_some() {
        return Err(plan.refuse(ErrorKind::InvalidInput, "signals have a framing of their own; say none"));
    }
    let max = plan.max_message().unwrap_or(DEFAULT_LONGEST);
    if max > LONGEST {
        let advice = format!("max_message is at most {LONGEST} bytes here");
        return Err(plan.refuse(ErrorKind::InvalidInput, advice));
    }
    let signal = signal::rtmin() + i32::from(number);
    if signal > signal::rtmax() {
        let advice = format!("the last real-time signal is RTMIN+{}", signal::rtmax() - signal::rtmin());
        return Err(plan.refuse(ErrorKind::InvalidInput, advice));
    }
    Ok((signal, max))
}

fn claim(plan: &Plan, role: Role, signal: i32) -> Result<Claim> {
    match Claim::take(role, signal) {
        Ok(Some(claim)) => Ok(claim),
        Ok(None) => {
            let kind = ErrorKind::RoleTaken { pid: process::id() };
            Err(plan.refuse(
                kind,
                "there is one of it in a process for each signal: drop the other one, or choose another signal",
            ))
        }
        Err(e) => {
            Err(plan.failed("take the role at", e).advise("another thread was about to when this process was forked"))
        }
    }
}

/// Makes sure that the signal kills nobody: all threads block it, or the only one does from now on.
fn block_everywhere(plan: &Plan, signal: i32) -> Result<()> {
    let own = Target::open(process::id(), signal).map_err(|e| plan.failed("look at the process of", e))?;
    let deadline = clock::now().saturating_add(SLICE);
    let mut pauses = Pauses::new();
    let threads = loop {
        match own.masks() {
            Ok(masks) if !masks.iter().any(|masks| masks.are_passing()) => break masks,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(plan.failed("look at the threads of", e)),
            _ if !pauses.pause(deadline) => {
                let advice =
                    "the threads of this process can't be told, as new ones keep coming: open it before they start";
                return Err(plan.refuse(ErrorKind::InvalidInput, advice));
            }
            _ => {}
        }
    };
    let bit = 1 << (signal - 1);
    if threads.iter().any(|masks| masks.caught & bit != 0) {
        let advice = format!("this process has a handler for signal {signal} already: choose another one with sig=");
        return Err(plan.refuse(ErrorKind::InvalidInput, advice));
    }
    if threads.iter().any(|masks| masks.ignored & bit != 0) {
        let advice = format!("this process ignores signal {signal}, so that nothing would come: restore SIG_DFL first");
        return Err(plan.refuse(ErrorKind::InvalidInput, advice));
    }
    if let [_only] = threads[..] {
        return signal::block(signal).map(drop).map_err(|e| plan.failed("block the signal of", e));
    }
    let open: Vec<String> =
        threads.iter().filter(|masks| masks.blocked & bit == 0).map(|masks| masks.thread.to_string()).collect();
    if open.is_empty() {
        return Ok(());
    }
    Err(plan.refuse(
        ErrorKind::InvalidInput,
        format!(
            "signal {signal} would kill this process, because threads {} don't block it: block it in main before other threads \
             are started, which then inherit that (pthread_sigmask with SIG_BLOCK; opening the receiver there does it, too)",
            open.join(", ")
        ),
    ))
}
