//! In which order an endpoint is looked at, and its descriptor waited for.
//!
//! 1. What the runtime knows of the descriptor is forgotten.
//! 2. The endpoint is tried. Before it says that there is nothing it clears its descriptor, announces itself and looks once more
//!    ([`Watch`](crate::wait::Pollable)).
//! 3. If there was nothing, the runtime is asked: if the descriptor became readable since 1, again from 1; else the waker is registered.
//!
//! # Why no wake-up is lost
//! Whatever comes is either seen by 2, or comes after the announcement; then the descriptor is rung after it was cleared, so after 1. So it has to be shown
//! that a ring after 1 is known in 3, or wakes the waker that is registered there.
//!
//! - *tokio* registers descriptors edge-triggered, and keeps "readable" until told otherwise. The ring makes the kernel report a new edge: each
//!   ring does, whether the descriptor was readable before or not. The report sets "readable" and then wakes the
//!   registered waker. 1 clears what was set before 1 only: the clearing names the report that it read, and fails if there was another one since. So
//!   "readable" is set by the ring's report, which 3 finds; or it comes after 3 looked, and finds the waker, for which tokio's own lock stands.
//!   A report that 1 clears was made by a ring before 1, so what it rang for was there before 2 tried.
//! - *async-io* registers descriptors level-triggered and for one report. When 3 asks the kernel for one, and the descriptor is readable, or becomes
//!   so, the waker is woken; a ring after 2's clearing leaves it readable, since nobody but 2 clears it. While a report is asked for and has not come, it is not
//!   asked for anew: the old one serves. That a report has come is known by its tick, which is what 1 forgets.
//!
//! Forgetting comes before trying, since the other order costs one more round, with its system calls, after each wake: the runtime would say "readable" about
//! what was received already.

use std::io;
use std::task::{Context, Poll};

use super::readiness::Readiness;

/// How often an endpoint is tried in a poll: one that is rung at this rate must not starve the other tasks.
const ROUNDS: u32 = 4;

/// How many operations may succeed without a wait, before the task lets others go first.
const CREDIT: u32 = 128;

/// An endpoint's registration with a runtime.
#[derive(Debug)]
pub(super) struct Poller<R> {
    readiness: R,
    credit: u32,
}

impl<R: Readiness> Poller<R> {
    pub(super) fn new(readiness: R) -> Self {
        Self { readiness, credit: CREDIT }
    }

    /// Tries until it has an outcome, which is none while there is nothing, or there is something to wait for.
    #[inline]
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Poll<io::Result<T>> {
        if self.credit == 0 {
            return self.yield_now(cx);
        }
        for _ in 0..ROUNDS {
            self.readiness.forget(cx);
            if let Some(outcome) = attempt() {
                self.credit -= 1;
                return Poll::Ready(Ok(outcome));
            }
            match self.readiness.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.credit = CREDIT;
                    return Poll::Pending;
                }
            }
        }
        self.yield_now(cx)
    }

    /// For an attempt that clears nothing: `clear` is called whenever the descriptor was readable, before it is tried again.
    pub(super) fn poll_clearing<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Option<T>,
        mut clear: impl FnMut(&Context<'_>),
    ) -> Poll<io::Result<T>> {
        for _ in 0..ROUNDS {
            if let Some(outcome) = attempt() {
                return Poll::Ready(Ok(outcome));
            }
            match self.readiness.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            self.readiness.forget(cx);
            clear(cx);
        }
        self.yield_now(cx)
    }

    #[cold]
    fn yield_now<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.credit = CREDIT;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What a runtime says, as an error of the endpoint.
pub(super) fn errno(error: &io::Error) -> i32 {
    // A runtime that is shutting down has no number to say.
    error.raw_os_error().unwrap_or(libc::ECANCELED)
}
