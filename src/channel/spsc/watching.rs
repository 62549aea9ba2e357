//! An endpoint that is waited for along with others: arming itself, and what it says of its peer.

use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::channel::endpoint::{Heard, check_watchable};
use crate::channel::outcome::PeerEvent;
use crate::error::Result;
use crate::layout::View;
use crate::liveness::{Role, State, Tenure};
use crate::wait::event::Announced;
use crate::wait::{Deaths, Look, Manner, Side, Watch, Words};

/// What an endpoint has that is waited for along with others.
#[derive(Debug)]
pub(super) struct Watching {
    watch: Arc<Watch>,
    /// The announcement on which it is held.
    armed: Option<Announced>,
}

impl Watching {
    /// It has waited by itself.
    pub(super) fn resume(&self) {
        self.watch.resume();
    }

    /// Its endpoint is gone.
    pub(super) fn close(self) {
        self.watch.close();
    }
}

impl Endpoint {
    /// What is shared with whoever waits for this endpoint along with others; from now on it arms itself.
    pub(crate) fn watch(&mut self, side: Side) -> Result<Arc<Watch>> {
        check_watchable(self.check(), self.own_sleeper.is_sleepless(), &self.segment)?;
        if let Some(watching) = &self.watching {
            return Ok(Arc::clone(&watching.watch));
        }
        let event = self.own_event();
        let epoch = event.watch(Manner::FUTEX);
        // SAFETY: the words are of the segment, which keeps them mapped.
        let words =
            unsafe { Words::new((event.epoch, event.manner), self.doorbell, self.bell()?, self.segment.clone()) };
        let watch = Arc::new(Watch::of_ring(side, words, epoch, self.deaths()));
        self.watching = Some(Watching { watch: Arc::clone(&watch), armed: None });
        Ok(watch)
    }

    /// Looks for the peer's death from any thread.
    fn deaths(&self) -> Deaths {
        let (segment, view) = (Arc::clone(&self.segment), self.view);
        let seat = self.seat.as_ref().map_or_else(std::sync::Weak::new, Arc::downgrade);
        Box::new(move |thorough| {
            // It keeps what the view leads to.
            let _mapped = &segment;
            seat.upgrade().map_or(0, |seat| seat.unnoted_death(&view, thorough))
        })
    }

    /// Before it is said that there is nothing: if somebody waits for this endpoint along with others, announces it, and looks once
    /// more.
    #[inline]
    pub(crate) fn arm<T>(&mut self, look: impl FnMut(&mut Self, Look) -> Option<T>) -> Option<T> {
        if self.watching.is_none() { None } else { self.arm_watched(look) }
    }

    #[cold]
    fn arm_watched<T>(&mut self, mut look: impl FnMut(&mut Self, Look) -> Option<T>) -> Option<T> {
        let Watching { watch, armed } = self.watching.as_ref()?;
        let (watch, still_armed) = (Arc::clone(watch), armed.as_ref().map(Announced::epoch));
        watch.clear();
        let closely = if watch.take_suspicion() { Look::Peer } else { Look::Ring };
        if still_armed.is_some_and(|epoch| watch.is_still(epoch)) {
            // What comes now rings behind the clearing.
            let found = if closely == Look::Ring { None } else { look(self, closely) };
            if found.is_some() {
                // It is to be looked at again, but what has rung was cleared.
                self.disarm();
            }
            return found;
        }
        let announced = self.own_event().announce(watch.manner());
        let found = look(self, closely);
        if found.is_some() {
            self.own_event().retract(announced);
            watch.release();
            return found;
        }
        // A consumer's releases have no fence, so that a producer may miss one.
        watch.hold(announced.epoch(), watch.side() == Side::Sender);
        if let Some(watching) = &mut self.watching {
            watching.armed = Some(announced);
        }
        None
    }

    /// Before it waits by itself.
    pub(super) fn disarm(&mut self) {
        let Some(Watching { watch, armed }) = &mut self.watching else { return };
        let Some(announced) = armed.take() else { return };
        let watch = Arc::clone(watch);
        self.own_event().retract(announced);
        watch.release();
    }

    /// How it is to be woken when it waits by itself.
    pub(super) fn own_manner(&self) -> Manner {
        if self.watching.is_some() { Manner::STRATEGY.watched() } else { Manner::STRATEGY }
    }

    /// What has become of the peer and was not told yet.
    pub(crate) fn peer_event(&mut self) -> Option<PeerEvent> {
        self.check().ok()?;
        self.peer_is_gone(Look::Peer);
        let now = heard(&self.view, self.role.peer(), self.known_deaths);
        self.heard.next(now)
    }
}

/// How many have held that role, given it up, and died with it: at least so many.
pub(super) fn heard(view: &View, role: Role, known_deaths: u32) -> Heard {
    let tenure = Tenure::load(role.participant(view));
    let died = known_deaths.max(tenure.deaths());
    let is_there = tenure.state() == State::Present && died == tenure.deaths();
    let (joined, died) = (u64::from(tenure.generation()), u64::from(died));
    Heard { joined, left: joined.saturating_sub(died + u64::from(is_there)), died }
}
