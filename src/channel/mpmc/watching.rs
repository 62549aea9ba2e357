//! A member that is waited for along with other things: arming itself, and what it says of its peers.

use std::sync::{Arc, Weak};

use super::endpoint::Endpoint;
use crate::channel::endpoint::{Heard, check_watchable};
use crate::channel::outcome::PeerEvent;
use crate::error::Result;
use crate::liveness::{Census, Crew, Role};
use crate::wait::crowd::Bells;
use crate::wait::{Deaths, Look, Manner, Side, Watch, Words};

/// What a member has that is waited for along with other things.
#[derive(Debug)]
pub(super) struct Watching {
    watch: Arc<Watch>,
    /// The epoch of the announcement on which it is held.
    armed: Option<u32>,
}

impl Watching {
    /// It has waited by itself.
    pub(super) fn resume(&self) {
        self.watch.resume();
    }

    /// Its member is gone.
    pub(super) fn close(self) {
        self.watch.close();
    }
}

/// What arming has led to.
#[derive(Debug)]
pub(super) struct Armed<T> {
    pub(super) found: Option<T>,
    /// Whether it was announced meanwhile, so that a wake-up may have been spent on it.
    pub(super) was_announced: bool,
}

impl Endpoint {
    /// What is shared with whoever waits for this member along with other things; from now on it arms itself.
    pub(super) fn watch(&mut self) -> Result<Arc<Watch>> {
        check_watchable(self.check(), self.sleeper.is_sleepless(), &self.segment)?;
        if let Some(watching) = &self.watching {
            return Ok(Arc::clone(&watching.watch));
        }
        let side = match self.role {
            Role::Producer => Side::Sender,
            Role::Consumer => Side::Receiver,
        };
        let (crowd, waiter, bells) = self.own_crowd();
        let epoch = crowd.watch(waiter, bells, Manner::FUTEX);
        // SAFETY: the words are of the segment, which keeps them mapped.
        let words = unsafe {
            Words::new(
                (bells.bell(waiter), bells.manner(waiter)),
                (self.id, self.member),
                self.bell()?,
                self.segment.clone(),
            )
        };
        let watch = Arc::new(Watch::of_ring(side, words, epoch, self.deaths()));
        self.watching = Some(Watching { watch: Arc::clone(&watch), armed: None });
        Ok(watch)
    }

    /// Looks for the others' deaths from any thread.
    fn deaths(&self) -> Deaths {
        let (segment, view, max_deliveries) = (Arc::clone(&self.segment), self.view, self.max_deliveries);
        let seat = self.seat.as_ref().map_or_else(Weak::new, Arc::downgrade);
        Box::new(move |thorough| {
            // It keeps what the view leads to.
            let _mapped = &segment;
            seat.upgrade().map_or(0, |seat| seat.unnoted_deaths(Crew::new(&view, max_deliveries), thorough))
        })
    }

    /// Whether it has announced itself for those who wait for it along with other things.
    #[inline(always)]
    pub(super) fn is_armed(&self) -> bool {
        self.watching.as_ref().is_some_and(|watching| watching.armed.is_some())
    }

    /// Before it is said that there is nothing: if somebody waits for this member along with other things, announces it, and looks once
    /// more.
    pub(super) fn arm<T>(&mut self, mut look: impl FnMut(&mut Self, Look) -> Option<T>) -> Armed<T> {
        let nothing = Armed { found: None, was_announced: false };
        let Some(Watching { watch, armed }) = &self.watching else { return nothing };
        let (watch, armed) = (Arc::clone(watch), *armed);
        watch.clear();
        let closely = if watch.take_suspicion() { Look::Peer } else { Look::Ring };
        if armed.is_some_and(|epoch| watch.is_still(epoch)) {
            // What comes now rings behind the clearing.
            let found = if closely == Look::Ring { None } else { look(self, closely) };
            if found.is_some() {
                self.disarm();
            }
            return Armed { was_announced: found.is_some(), found };
        }
        let (crowd, waiter, bells) = self.own_crowd();
        let epoch = crowd.announce(waiter, bells, watch.manner());
        let found = look(self, closely);
        if found.is_some() {
            self.retract(None);
        } else {
            // It may be chosen to be woken, and another one to whom a message was left may be stopped; and a producer misses releases, which
            // have no fence.
            watch.hold(epoch, true);
            if let Some(watching) = &mut self.watching {
                watching.armed = Some(epoch);
            }
        }
        Armed { found, was_announced: true }
    }

    /// It has found something while it was armed, or is going to wait by itself. A wake-up may have been spent on it.
    #[cold]
    pub(super) fn disarm(&mut self) {
        if let Some(epoch) = self.watching.as_mut().and_then(|watching| watching.armed.take()) {
            self.retract(Some(epoch));
        }
    }

    /// Ends an announcement; `armed` is the epoch on which it was held.
    fn retract(&mut self, armed: Option<u32>) {
        let (crowd, waiter, _) = self.own_crowd();
        let was_chosen = crowd.retract(waiter);
        let Some(watching) = &self.watching else { return };
        // Whoever chose it rings, or has rung and that wasn't cleared.
        if armed.is_some() && was_chosen { watching.watch.release_rung() } else { watching.watch.release() }
    }

    /// How it is to be woken when it waits by itself.
    pub(super) fn own_manner(&self) -> Manner {
        if self.watching.is_some() { Manner::STRATEGY.watched() } else { Manner::STRATEGY }
    }

    /// What has become of the others and was not told yet.
    pub(super) fn peer_event(&mut self) -> Option<PeerEvent> {
        self.check().ok()?;
        self.others_are_gone(Look::Peer);
        let now = heard(&self.others);
        self.heard.next(now)
    }
}

pub(super) fn heard(census: &Census) -> Heard {
    Heard { joined: census.joined, left: census.left(), died: census.deaths }
}
