//! Waits for the ring that `--timeout` bounds and Ctrl-C ends.

use std::time::{Duration, Instant};

use crate::{failure::Failure, signals};

/// A call that waits for the ring goes on when a signal comes. So none waits longer than this; the ring itself looks
/// after its peer more often.
const SLICE: Duration = Duration::from_millis(250);

/// A wait that began when this was made.
pub struct Waiting {
    timeout: Option<Duration>,
    since: Instant,
}

impl Waiting {
    /// A wait of at most `timeout`, or as long as it takes.
    pub fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, since: Instant::now() }
    }

    /// How long the next call may wait.
    pub fn slice(&self) -> Duration {
        self.timeout.map_or(SLICE, |timeout| SLICE.min(timeout.saturating_sub(self.since.elapsed())))
    }

    /// Whether the time is over, once a call has timed out.
    pub fn is_over(&self) -> Result<bool, Failure> {
        signals::check()?;
        Ok(self.timeout.is_some_and(|timeout| self.since.elapsed() >= timeout))
    }
}
