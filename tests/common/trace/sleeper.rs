//! A living process that sleeps while others are killed.

use super::{Place, is_full_run};
use crate::common::Child;
use std::cell::Cell;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Far more than a slice, which is a tenth of a second, and far less than for ever.
const SOON: Duration = Duration::from_secs(10);

/// A living process that waits, once it is told to, and says what came of it.
pub struct Sleeper {
    child: Child,
    go: PipeWriter,
    answer: PipeReader,
}

impl Sleeper {
    /// It joins with `prepare`, waits in `wait`, and says the number that this returns.
    pub fn new<T>(prepare: impl FnOnce() -> T, wait: impl FnOnce(T) -> u8) -> Self {
        let ((mut told, go), (answer, mut say)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let mut child = Child::fork(move |tell| {
            let prepared = prepare();
            tell.say(b'r');
            told.read_exact(&mut [0]).unwrap();
            tell.say(b'w');
            say.write_all(&[wait(prepared)]).unwrap();
        });
        child.expect(b'r');
        Self { child, go, answer }
    }

    /// Whether there is the time to see when it wakes, which may take it a slice: `one_in` so many times.
    pub fn is_awaited(place: Place, one_in: u64) -> bool {
        is_full_run() || place.steps.is_multiple_of(one_in)
    }

    /// Lets it begin.
    pub fn go(&mut self) {
        self.go.write_all(&[0]).unwrap();
    }

    /// The same, and waits until it sleeps; or has found something after all.
    pub fn lie_down(&mut self) {
        self.go();
        // Else it may still be seen asleep where it was told to begin.
        self.child.expect(b'w');
        let stat = format!("/proc/{}/stat", self.child.pid());
        let rests = |stat: String| stat.contains(") S ") || stat.contains(") Z ");
        while !rests(std::fs::read_to_string(&stat).unwrap()) {
            std::thread::yield_now();
        }
    }

    /// What it says, soon after `since`; then it ends.
    #[track_caller]
    pub fn wake_up(self, since: Instant, longest: &Cell<Duration>) -> u8 {
        let mut poll = libc::pollfd { fd: self.answer.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid place.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, SOON.as_millis() as libc::c_int) }, 1, "it sleeps on");
        longest.set(longest.get().max(since.elapsed()));
        self.end()
    }

    /// What it says when it is over; then it ends, and leaves what it has not forgotten.
    pub fn end(mut self) -> u8 {
        let mut answer = [0];
        self.answer.read_exact(&mut answer).expect("it ended without a word");
        self.child.expect_success();
        answer[0]
    }
}
