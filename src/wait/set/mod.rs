//! Waiting for many things at once: endpoints, foreign descriptors and timers, in any number of threads.
//!
//! # Two ways to sleep
//! As long as all members are endpoints of rings, and there are at most 15, they are slept for by `futex_waitv`, on their epochs and on the
//! set's own word: a wake-up costs what it costs a blocking endpoint. The kernel would take 128 words, but looks at each whenever the set
//! sleeps. With the first member that has a descriptor, or one too many, or on a kernel without that call, the set turns to an epoll
//! instance with everybody's descriptor, and stays with it.
//!
//! # Why no wake-up is lost
//! Of the members it is argued in [`hold`](super::hold) and [`watch`](super::watch). What changes the set itself is done under its lock, or
//! is a waker's flag; then the set's own word moves on, and if anybody waits, all are woken who sleep on it (see there, too). With
//! descriptors, an event is set, and whoever takes it away has then seen the change; if it leaves while others wait, who may
//! not have, it sets the event again.
//!
//! A member's notifier wakes one thread that sleeps on it. That one looks at all members before it leaves, and tells of this one, unless it
//! has no room: then it wakes the others. Epoll does the same by itself.
//!
//! # Why nobody starves
//! A batch is of timers or of the others; if both have something, they take turns. Among the others each look goes on with the first that
//! had no room, and so does epoll, whose queue they go to the end of. Among timers the one that has been due for longest goes first.

mod events;
mod members;
mod timers;
mod waker;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::waitable::Waitable;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::epoll::{self, Epoll};
use crate::sys::{clock, descriptor, futex};
use members::{MOST, Members, What};
use timers::Timers;
use waker::Core;

pub use events::{Event, Events, Interest};
pub use waker::Waker;

/// Endpoints, foreign descriptors and timers, waited for all at once.
///
/// Each member has a token, which the caller chooses and is told when the member has something to do:
///
/// - A receiver is told as long as it has not been drained: call `try_recv` until it says [`Empty`](crate::RecvError::Empty).
/// - A sender is told when there may be room again after it was told [`Full`](crate::SendError::Full), once for each change.
/// - Both are told of peers that come, leave or die; ask `peer_event`.
/// - A descriptor is told as long as it is ready.
/// - A timer is told once each time that it is due.
///
/// Now and then something is told for nothing. Only members that can block belong here: what was made with [`Wait::Spin`](crate::Wait::Spin)
/// is refused.
///
/// All methods may be called from any thread, also while others wait: what they change takes effect at once. Several threads may wait;
/// then one thing may be told to more than one of them, but for timers. A member that always has something to do keeps no other from being
/// told, however little room there is in [`Events`]. An idle set wakes up ten times a second at most, to see whether peers have died, and
/// the more rarely the more members it has: among up to 5 that is noticed within 0.1 s, among 100 within 2 s.
///
/// An endpoint can be in one set, and leaves it when it is dropped. Up to 15 rings take no descriptors; a set that has more members, or
/// others, takes one for each. A set doesn't work in a forked child.
///
/// ```
/// use std::time::{Duration, Instant};
/// use ringway::{Address, Events, Options, WaitSet};
///
/// let (orders, news): (Address, Address) = ("anon:example-orders".parse()?, "anon:example-news".parse()?);
/// let mut receivers = [Options::new().receiver(&orders)?, Options::new().receiver(&news)?];
/// let mut sender = Options::new().sender(&news)?;
///
/// let set = WaitSet::new()?;
/// for (token, receiver) in receivers.iter_mut().enumerate() {
///     set.add(token, receiver)?;
/// }
/// const TICK: usize = 9;
/// set.add_timer(TICK, Instant::now() + Duration::from_millis(1), None)?;
/// sender.send(b"it rains")?;
///
/// let mut events = Events::with_capacity(8);
/// let (mut ticks, mut messages) = (0, 0);
/// while ticks == 0 || messages == 0 {
///     set.wait(&mut events)?;
///     for event in &events {
///         match event.token() {
///             TICK => ticks += 1,
///             // Drained, so that it is not told again.
///             token => while receivers[token].try_recv().is_ok() {
///                 messages += 1;
///             }
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WaitSet {
    core: Arc<Core>,
    state: Mutex<State>,
    /// Once the members are waited for by descriptors.
    epoll: OnceLock<Epoll>,
}

#[derive(Debug)]
struct State {
    members: Members,
    timers: Timers,
    /// The last batch was not of timers.
    is_timers_turn: bool,
}

impl WaitSet {
    /// An empty set.
    ///
    /// # Errors
    /// None at present.
    pub fn new() -> Result<Self> {
        let state = State { members: Members::new(), timers: Timers::default(), is_timers_turn: true };
        Ok(Self { core: Arc::new(Core::new()), state: Mutex::new(state), epoll: OnceLock::new() })
    }

    /// Adds an endpoint, which is told by that token from now on.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the set has that token already, if the endpoint is in a set, or was made with
    /// [`Wait::Spin`](crate::Wait::Spin), or in a forked child; [`NoSpace`](ErrorKind::NoSpace) without descriptors or kernel memory, where they
    /// are needed: if that happens while the set begins to use descriptors, waiting fails in the same way until there are some.
    pub fn add(&self, token: usize, endpoint: &mut impl Waitable) -> Result<()> {
        self.check()?;
        let watch = endpoint.watch()?;
        let mut state = self.vacant(token)?;
        let core: Weak<Core> = Arc::downgrade(&self.core);
        if !watch.set_waiter(Some(core)) {
            return Err(Error::new(ErrorKind::InvalidInput, "add to a wait set", "an endpoint")
                .advise("it is in a wait set already, remove it there first"));
        }
        let has_word = watch.word().is_some() && !watch.has_descriptor();
        let is_fit = has_word && state.members.len() < MOST;
        let added = self.enlist(&mut state, token, What::Endpoint(Arc::clone(&watch)), is_fit);
        if added.is_err() {
            watch.set_waiter(None);
        }
        added.map_err(|e| Error::os(e, "add to a wait set", "an endpoint"))
    }

    /// Adds a descriptor that is no endpoint's, which is told as long as it is ready. The set has a duplicate of its own: what it leads to
    /// stays open until it is [removed](Self::remove).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the set has that token already, if the descriptor can't be waited for, as that of a
    /// file, or in a forked child; [`NoSpace`](ErrorKind::NoSpace) without descriptors or kernel memory.
    pub fn add_descriptor(&self, token: usize, fd: impl AsFd, interest: Interest) -> Result<()> {
        let failed = |e: io::Error| match e.raw_os_error() {
            Some(libc::EPERM) => Error::new(ErrorKind::InvalidInput, "add to a wait set", "a descriptor")
                .advise("files and directories are always ready, so that there is nothing to wait for"),
            _ => Error::os(e, "add to a wait set", "a descriptor"),
        };
        let mut state = self.vacant(token)?;
        let fd = Arc::new(fd.as_fd().try_clone_to_owned().map_err(failed)?);
        self.enlist(&mut state, token, What::Descriptor(fd, interest), false).map_err(failed)
    }

    /// Adds a timer, which is told at `first` or later, and if `every` is given, again after each such period. One that was due
    /// several times is told once, and the periods are counted from `first` on, so that nothing shifts. Without `every` it leaves
    /// the set when it is told.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the set has that token already, or in a forked child.
    pub fn add_timer(&self, token: usize, first: Instant, every: Option<Duration>) -> Result<()> {
        self.vacant(token)?.timers.add(token, monotonic(first), every);
        self.core.notify();
        Ok(())
    }

    /// Removes the member of that token; says whether there was one. No wait that begins from now on tells of it.
    pub fn remove(&self, token: usize) -> bool {
        if !self.core.is_at_home() {
            return false;
        }
        let mut state = self.lock();
        let was_there = state.timers.remove(token) || state.members.remove(token, self.epoll.get());
        drop(state);
        // Whoever sleeps on its words lets go of them.
        self.core.notify();
        was_there
    }

    /// What ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.core))
    }

    /// Sleeps until a member has something to do, or a [`Waker`] is called, and says how many events there are. Those of
    /// before are gone. Signals don't end it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) in a forked child; otherwise what the kernel says.
    pub fn wait(&self, events: &mut Events) -> Result<usize> {
        self.wait_until(events, None)
    }

    /// As [`wait`](Self::wait), for that long at most: with no time, it only looks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); that the time is over is none.
    pub fn wait_timeout(&self, events: &mut Events, timeout: Duration) -> Result<usize> {
        self.wait_until(events, Some(clock::now().saturating_add(timeout)))
    }

    /// As [`wait`](Self::wait), until `deadline` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); that the time is over is none.
    pub fn wait_deadline(&self, events: &mut Events, deadline: Instant) -> Result<usize> {
        self.wait_until(events, Some(monotonic(deadline)))
    }

    fn wait_until(&self, events: &mut Events, deadline: Option<Duration>) -> Result<usize> {
        self.check()?;
        events.clear();
        self.core.control().enter();
        let mut has_settled = false;
        let outcome = loop {
            let round = self.round(events, deadline, &mut has_settled);
            match round {
                Ok(false) => {}
                Ok(true) => break Ok(events.len()),
                Err(e) => break Err(Error::os(e, "wait for", "the members of a wait set")),
            }
        };
        if self.core.control().leave() && (has_settled || events.is_full()) {
            self.core.notify();
        }
        outcome
    }

    /// Looks once, and sleeps once if there is nothing; says whether the wait is over.
    fn round(&self, events: &mut Events, deadline: Option<Duration>, has_settled: &mut bool) -> io::Result<bool> {
        // Before anything is looked at.
        let control = self.core.control().load();
        let is_woken = self.core.take_wake();
        let now = clock::now();
        let is_over = is_woken || deadline.is_some_and(|deadline| deadline <= now);
        let mut state = self.lock();
        let epoll = self.epoll.get();
        if state.members.next_probe().is_some_and(|next| next <= now) {
            state.members.probe(now, epoll);
        }
        if state.is_timers_turn && state.tell_timers(now, events) {
            return Ok(true);
        }
        let until = [deadline, state.timers.next(), state.members.next_probe()].into_iter().flatten().min();
        if let Some(epoll) = epoll {
            drop(state);
            let until = if is_over { Some(now) } else { until };
            match epoll.wait(&mut events.found, until) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            state = self.lock();
            if state.members.tell(events, epoll) {
                self.core.settle();
                *has_settled = true;
            }
            return Ok(state.are_told(events) || state.tell_timers(now, events) || is_over);
        }
        let look = state.members.look(events);
        if look.has_descriptor {
            self.turn_to_descriptors(&mut state)?;
        }
        if state.are_told(events) || state.tell_timers(now, events) || is_over {
            return Ok(true);
        }
        if look.has_descriptor {
            return Ok(false);
        }
        let members = state.members.snapshot();
        drop(state);
        let words = members::words(&members, &look.expected);
        match futex::wait_several([(self.core.control().word(), control)].into_iter().chain(words), until) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.turn_to_descriptors(&mut self.lock())?,
            // Whatever ended it, all are looked at now.
            answer => drop(answer?),
        }
        Ok(false)
    }

    /// Adds a member; one that is not `is_fit` can't be slept for by futex.
    fn enlist(&self, state: &mut State, token: usize, what: What, is_fit: bool) -> io::Result<()> {
        if !is_fit {
            self.turn_to_descriptors(state)?;
        }
        state.members.add(token, what, self.epoll.get())?;
        self.core.notify();
        Ok(())
    }

    /// From now on all members are slept for by their descriptors.
    fn turn_to_descriptors(&self, state: &mut State) -> io::Result<()> {
        if self.epoll.get().is_some() {
            return Ok(());
        }
        let (epoll, event) = (Epoll::new()?, descriptor::event()?);
        epoll.add(event.as_fd(), epoll::Interest::READ, Members::NO_KEY)?;
        state.members.enroll(&epoll)?;
        self.core.turn_to_descriptors(event, || drop(self.epoll.set(epoll)));
        Ok(())
    }

    /// The state, if no member has that token.
    fn vacant(&self, token: usize) -> Result<MutexGuard<'_, State>> {
        self.check()?;
        let mut state = self.lock();
        if state.timers.contains(token) || state.members.contains(token) {
            return Err(Error::new(ErrorKind::InvalidInput, "add to a wait set", format_args!("token {token}"))
                .advise("it has a member of that token already: remove that, or choose another token"));
        }
        // One whose endpoint is gone may still have it.
        state.members.remove(token, self.epoll.get());
        Ok(state)
    }

    fn check(&self) -> Result<()> {
        if self.core.is_at_home() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "use", "a wait set")
            .advise("it belongs to the process that this one was forked from; make a new one"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether members were told; then it is the timers' turn.
    fn are_told(&mut self, events: &Events) -> bool {
        self.is_timers_turn |= !events.is_empty();
        !events.is_empty()
    }

    /// Whether timers were told; then it is the others' turn.
    fn tell_timers(&mut self, now: Duration, events: &mut Events) -> bool {
        self.timers.tell(now, events);
        self.is_timers_turn &= events.is_empty();
        !events.is_empty()
    }
}

impl Drop for WaitSet {
    fn drop(&mut self) {
        // In a forked child the instance is the parent's, and somebody may have held the members' locks.
        if self.core.is_at_home() {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            state.members.clear(self.epoll.get());
        }
    }
}

/// A time on the clock that all processes have; not before it.
fn monotonic(time: Instant) -> Duration {
    let ahead = time.saturating_duration_since(Instant::now());
    clock::now().saturating_add(ahead)
}
