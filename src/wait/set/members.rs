//! What a wait set waits for, but for timers.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use super::events::{Event, Events, Interest};
use crate::primitive::AtomicU32;
use crate::sys::epoll::{self, Epoll};
use crate::sys::futex;
use crate::wait::rounds::Rounds;
use crate::wait::watch::{Side, Watch};

/// How many are waited for by futexes. Each word costs some 0.4 us whenever the set sleeps, so that beyond this epoll is cheaper, which costs
/// the same for any number; and an idle set of a hundred must cost no more than one of one.
pub(super) const MOST: usize = 15;
// One word is the set's own.
const _: () = assert!(MOST < futex::MOST_WORDS);

/// What is waited for.
#[derive(Clone, Debug)]
pub(super) enum What {
    Endpoint(Arc<Watch>),
    Descriptor(Arc<OwnedFd>, Interest),
}

impl What {
    /// Has the kernel look after it, and tell of it with that key.
    fn enroll(&self, epoll: &Epoll, key: u64) -> io::Result<()> {
        match self {
            Self::Endpoint(watch) => {
                let interest = match watch.side() {
                    Side::Receiver => epoll::Interest::READ,
                    // It stays ready while it has nothing to wait for.
                    Side::Sender => epoll::Interest::READ.on_edge(),
                };
                epoll.add(watch.descriptor()?, interest, key)
            }
            Self::Descriptor(fd, Interest { readable: read, writable: write }) => {
                epoll.add(fd.as_fd(), epoll::Interest { read: *read, write: *write, edge: false }, key)
            }
        }
    }

    /// The set no longer waits for it.
    fn leave(&self, epoll: Option<&Epoll>) {
        // What can't be deleted isn't there.
        match self {
            Self::Endpoint(watch) => {
                watch.set_waiter(None);
                if let Some(epoll) = epoll
                    && let Ok(fd) = watch.descriptor()
                {
                    let _ = epoll.delete(fd);
                }
            }
            Self::Descriptor(fd, _) => {
                if let Some(epoll) = epoll {
                    let _ = epoll.delete(fd.as_fd());
                }
            }
        }
    }

    fn watch(&self) -> Option<&Watch> {
        match self {
            Self::Endpoint(watch) => Some(watch),
            Self::Descriptor(..) => None,
        }
    }

    fn is_gone(&self) -> bool {
        self.watch().is_some_and(Watch::is_closed)
    }
}

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// By which the kernel tells of it; no two of a set have ever the same.
    key: u64,
    token: usize,
    what: What,
}

/// Those who sleep on the members' words keep them by a copy of the list.
pub(super) type Snapshot = Arc<Vec<Source>>;

/// The members of one set.
#[derive(Debug)]
pub(super) struct Members {
    keys: HashMap<usize, u64>,
    /// Sorted by key.
    list: Snapshot,
    last_key: u64,
    endpoints: usize,
    /// Who is looked at first, so that all are told when there is no room for all.
    turn: usize,
    rounds: Rounds,
    next_probe: Duration,
}

/// What was found among the members that are waited for by futexes.
pub(super) struct Look {
    /// What to sleep on while nothing was found.
    pub(super) expected: [u32; MOST],
    /// Somebody has asked for the descriptor of one, so that it isn't woken by futex any more.
    pub(super) has_descriptor: bool,
}

impl Members {
    /// The key of what isn't a member.
    pub(super) const NO_KEY: u64 = 0;

    pub(super) fn new() -> Self {
        Self {
            keys: HashMap::new(),
            list: Arc::default(),
            last_key: Self::NO_KEY,
            endpoints: 0,
            turn: 0,
            rounds: Rounds::default(),
            next_probe: Duration::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.list)
    }

    /// Whether there is such a member, that hasn't gone.
    pub(super) fn contains(&self, token: usize) -> bool {
        self.keys.get(&token).and_then(|&key| self.position(key)).is_some_and(|at| !self.list[at].what.is_gone())
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.list.binary_search_by_key(&key, |source| source.key).ok()
    }

    /// Adds one, of a token that no other has.
    pub(super) fn add(&mut self, token: usize, what: What, epoll: Option<&Epoll>) -> io::Result<()> {
        let key = self.last_key + 1;
        if let Some(epoll) = epoll {
            what.enroll(epoll, key)?;
        }
        self.last_key = key;
        self.endpoints += usize::from(what.watch().is_some());
        self.keys.insert(token, key);
        Arc::make_mut(&mut self.list).push(Source { key, token, what });
        Ok(())
    }

    /// Says whether there was such a member.
    pub(super) fn remove(&mut self, token: usize, epoll: Option<&Epoll>) -> bool {
        let Some(at) = self.keys.remove(&token).and_then(|key| self.position(key)) else { return false };
        let removed = Arc::make_mut(&mut self.list).remove(at);
        self.endpoints -= usize::from(removed.what.watch().is_some());
        removed.what.leave(epoll);
        !removed.what.is_gone()
    }

    /// Removes those whose endpoint is gone.
    pub(super) fn purge(&mut self, epoll: Option<&Epoll>) {
        let gone: Vec<usize> = self.list.iter().filter(|source| source.what.is_gone()).map(|gone| gone.token).collect();
        for token in gone {
            self.remove(token, epoll);
        }
    }

    /// Removes all.
    pub(super) fn clear(&mut self, epoll: Option<&Epoll>) {
        self.keys.clear();
        for source in mem::take(&mut self.list).iter() {
            source.what.leave(epoll);
        }
    }

    /// From now on the kernel looks after all of them.
    pub(super) fn enroll(&self, epoll: &Epoll) -> io::Result<()> {
        self.list.iter().try_for_each(|source| source.what.enroll(epoll, source.key))
    }

    /// When to [probe](Self::probe) next.
    pub(super) fn next_probe(&self) -> Option<Duration> {
        (self.endpoints > 0).then_some(self.next_probe)
    }

    /// Looks, a few members at a time, for what nobody rings for.
    pub(super) fn probe(&mut self, now: Duration, epoll: Option<&Epoll>) {
        if epoll.is_some() {
            self.list.iter().filter_map(|source| source.what.watch()).for_each(Watch::ring_if_missed);
            // What has gone without becoming ready.
            self.purge(epoll);
        }
        self.next_probe = now + Rounds::interval(self.endpoints);
        self.rounds.probe(self.list.iter().filter_map(|source| source.what.watch()));
    }

    /// Looks at all of them, which are endpoints of rings, and tells those that are ready as far as there is room.
    pub(super) fn look(&mut self, events: &mut Events) -> Look {
        let mut look = Look { expected: [0; MOST], has_descriptor: false };
        let mut has_gone = false;
        let count = self.list.len();
        for at in (0..count).map(|step| (self.turn + step) % count) {
            let Source { token, what: What::Endpoint(watch), .. } = &self.list[at] else { continue };
            look.has_descriptor |= watch.has_descriptor();
            match watch.expected() {
                _ if watch.is_closed() => has_gone = true,
                Some(expected) => look.expected[at] = expected,
                None if events.is_full() => {
                    self.turn = at;
                    break;
                }
                None => tell(*token, watch, &mut events.list),
            }
        }
        if has_gone {
            self.purge(None);
            // The others have moved up.
            if events.is_empty() {
                return self.look(events);
            }
        }
        look
    }

    /// Tells what the kernel has found; says whether something else than a member was among it.
    pub(super) fn tell(&mut self, Events { found, list, .. }: &mut Events, epoll: &Epoll) -> bool {
        let (mut has_other, mut has_gone) = (false, false);
        for epoll::Event { data, is_readable: readable, is_writable: writable } in found.iter() {
            has_other |= data == Self::NO_KEY;
            // What was removed meanwhile is told no more.
            let Some(Source { token, what, .. }) = self.position(data).map(|at| &self.list[at]) else { continue };
            match what {
                What::Endpoint(watch) if watch.is_closed() => has_gone = true,
                What::Endpoint(watch) => tell(*token, watch, list),
                What::Descriptor(..) => list.push(Event::of_descriptor(*token, Interest { readable, writable })),
            }
        }
        if has_gone {
            self.purge(Some(epoll));
        }
        has_other
    }
}

/// Tells of an endpoint, unless all is told already.
fn tell(token: usize, watch: &Watch, list: &mut Vec<Event>) {
    let event = match watch.side() {
        Side::Receiver => Event::of_receiver(token),
        Side::Sender => Event::of_sender(token),
    };
    if watch.report() {
        list.push(event);
    }
}

/// The words of `members`, which are endpoints of rings, with the values beside which to sleep on them.
pub(super) fn words<'a>(members: &'a Snapshot, expected: &[u32; MOST]) -> impl Iterator<Item = (&'a AtomicU32, u32)> {
    members.iter().zip(expected).filter_map(|(source, &expected)| Some((source.what.watch()?.word()?, expected)))
}
