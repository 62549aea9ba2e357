//! What producer and consumer have in common: a seat in a mapped ring, a peer to watch, and a way to wait.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::watching::{Watching, heard};
use crate::channel::endpoint::{Behaviour, Gone, Heard, Owner, Stuck, Unusable};
use crate::error::Result;
use crate::layout::{Side, View};
use crate::liveness::{Role, Seat, State, Status, Tenure};
use crate::primitive::{AtomicU32, Ordering};
use crate::ring::spsc::Bounds;
use crate::segment::Segment;
use crate::wait::event::{Announced, Event};
use crate::wait::{Backoff, Belfry, Budget, Look, Manner, Patience, Sleeper, Station};

/// One side's attachment to a ring.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) view: View,
    pub(super) role: Role,
    own: NonNull<Side>,
    peer: NonNull<Side>,
    owner: Owner,
    /// On what this side sleeps, and on what it wakes its peer.
    pub(super) own_sleeper: Sleeper,
    peer_sleeper: Sleeper,
    pub(crate) bounds: Bounds,
    spin: Budget,
    keep_open: bool,
    persist: bool,
    /// The ring's number and this member's, which its doorbells are named after.
    pub(super) doorbell: (u64, u32),
    /// Of a producer: the consumer that had left before it joined, and so didn't leave it.
    left_before: Option<Tenure>,
    /// How many of the peer's deaths the user knows of.
    told_deaths: u32,
    /// The peer's deaths, as far as known here: at least what its record says.
    pub(super) known_deaths: u32,
    /// What the user was told of the peer's coming and going.
    pub(super) heard: Heard,
    stuck: Stuck,
    pub(super) watching: Option<Watching>,
    pub(super) seat: Option<Arc<Seat>>,
    pub(super) belfry: Arc<Belfry>,
    pub(super) segment: Arc<Segment>,
}

// SAFETY: the pointers in it lead to memory that belongs to no thread; everything else is Send.
unsafe impl Send for Endpoint {}

impl Endpoint {
    /// # Safety
    /// `view` must be of `segment`, whose geometry has these bounds.
    pub(crate) unsafe fn new(
        segment: Arc<Segment>,
        view: View,
        (bounds, persist, id): (Bounds, bool, u64),
        belfry: Arc<Belfry>,
        role: Role,
        seat: Seat,
        behaviour: Behaviour,
    ) -> Self {
        let peer = Tenure::load(role.peer().participant(&view));
        let told_deaths = peer.deaths();
        // SAFETY: the belfry is held as long as they are.
        let sleeper = |role: Role| unsafe { belfry.sleeper(role as u32) };
        let mut heard = heard(&view, role.peer(), told_deaths);
        // That it is there is news.
        heard.joined = heard.left + heard.died;
        Self {
            role,
            own: NonNull::from(side(&view, role)),
            peer: NonNull::from(side(&view, role.peer())),
            owner: Owner::this(),
            own_sleeper: sleeper(role),
            peer_sleeper: sleeper(role.peer()),
            bounds,
            spin: Budget::new(behaviour.spin),
            keep_open: behaviour.keep_open,
            persist,
            doorbell: (id, role as u32),
            left_before: (role == Role::Producer && peer.state() == State::Left).then_some(peer),
            told_deaths,
            known_deaths: told_deaths,
            heard,
            stuck: Stuck::new(),
            watching: None,
            seat: Some(Arc::new(seat)),
            view,
            belfry,
            segment,
        }
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Whether this endpoint may be used, in this process.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), Unusable> {
        self.owner.check()
    }

    /// Latches that the ring holds what no correct peer writes, and tells the peer.
    #[cold]
    pub(crate) fn poison(&mut self) {
        // Relaxed: a flag that guards no other memory.
        self.own().poisoned.0.store(1, Ordering::Relaxed);
        if self.check().is_ok() {
            self.tell_peer();
            self.owner.poison();
        }
    }

    #[inline(always)]
    fn own(&self) -> &Side {
        // SAFETY: a side of the view, mapped as long as the segment is held.
        unsafe { self.own.as_ref() }
    }

    #[inline(always)]
    fn peer(&self) -> &Side {
        // SAFETY: as above.
        unsafe { self.peer.as_ref() }
    }

    /// Waits until `look` finds something, or `None` until the `deadline`.
    pub(crate) fn wait<T>(
        &mut self,
        deadline: Option<Duration>,
        backoff: &Backoff,
        mut look: impl FnMut(&mut Self, Look) -> Option<T>,
    ) -> Option<T> {
        self.disarm();
        let mut bed = Bed { event: self.own_event(), manner: self.own_manner(), announced: None };
        let mut spin = self.spin;
        let patience = Patience { spin: &mut spin, deadline };
        let found = self.own_sleeper.wait(&mut bed, patience, backoff, |what| look(self, what));
        self.spin = spin;
        if let Some(watching) = &self.watching {
            watching.resume();
        }
        found
    }

    /// A descriptor of its own of what it sleeps on by the ring's strategy, if that is a descriptor.
    pub(super) fn bell(&self) -> Result<Option<OwnedFd>> {
        self.belfry.descriptor(self.role as u32)
    }

    /// The event on which this side sleeps.
    #[inline(always)]
    pub(super) fn own_event<'a>(&self) -> Event<'a> {
        // SAFETY: as in `own`; no caller keeps the references longer than the endpoint, which holds the segment.
        let (own, peer) = unsafe { (self.own.as_ref(), self.peer.as_ref()) };
        Event { epoch: &peer.epoch.0, waiter: &own.sleep.0.waiter, manner: &own.sleep.0.manner }
    }

    /// The event on which the peer sleeps.
    #[inline(always)]
    fn event_of_peer(&self) -> Event<'_> {
        let sleep = &self.peer().sleep.0;
        Event { epoch: &self.own().epoch.0, waiter: &sleep.waiter, manner: &sleep.manner }
    }

    /// Tells the peer that this side came or left, or that nothing is right any more.
    pub(crate) fn tell_peer(&self) {
        if !self.peer_sleeper.is_sleepless() {
            self.event_of_peer().tell(self.peer_sleeper);
        }
    }

    /// Tells the peer, if it sleeps, of what this side has published.
    #[inline(always)]
    pub(crate) fn wake_peer(&self) {
        if !self.peer_sleeper.is_sleepless() {
            self.event_of_peer().notify(self.peer_sleeper);
        }
    }

    /// [`wake_peer`](Self::wake_peer) without a fence: what was published just now may be seen only by the next call.
    #[inline(always)]
    pub(crate) fn wake_peer_soon(&self) {
        if !self.peer_sleeper.is_sleepless() {
            self.event_of_peer().notify_fenced(self.peer_sleeper);
        }
    }

    /// Whether the peer left in good order, and the user wants to know. Acquires all that it did.
    #[inline(always)]
    pub(crate) fn peer_has_left(&self) -> bool {
        self.is_left(Tenure::load(&self.peer().participant)) && !self.keep_open
    }

    #[inline(always)]
    fn is_left(&self, peer: Tenure) -> bool {
        peer.state() == State::Left && self.left_before != Some(peer)
    }

    /// Whether something ended at the peer's side that the user has not been told of. Acquires all that it did before.
    pub(crate) fn peer_is_gone(&mut self, look: Look) -> bool {
        if self.peer().poisoned.0.load(Ordering::Relaxed) != 0 {
            self.poison();
            return true;
        }
        let mut tenure = Tenure::load(&self.peer().participant);
        let mut deaths = tenure.deaths();
        // An error of the probe means only that nothing is known; the next slice asks again.
        if let Some(seat) = &self.seat
            && (look == Look::Peer || look == Look::Lock && seat.unnoted_death(&self.view, false) != 0)
            && let Ok((seen, status)) = seat.peer(&self.view)
        {
            tenure = seen;
            deaths = seen.deaths() + u32::from(matches!(status, Status::Dead { .. }));
        }
        self.known_deaths = self.known_deaths.max(deaths);
        !self.keep_open && (self.known_deaths > self.told_deaths || self.is_left(tenure))
    }

    /// How it ended, to be told to the user now; a death is told once.
    pub(crate) fn tell(&mut self) -> Result<Gone, Unusable> {
        self.check()?;
        if self.known_deaths > self.told_deaths {
            self.told_deaths = self.known_deaths;
            return Ok(Gone::Died);
        }
        Ok(Gone::Left)
    }

    /// What an operation that doesn't block should look at, when the ring is stuck at `position`.
    pub(crate) fn look_when_stuck(&mut self, position: u64) -> Look {
        self.stuck.look(position)
    }

    /// The process that holds the other role.
    pub(crate) fn peer_status(&self) -> Option<Status> {
        Some(self.seat.as_ref()?.peer(&self.view).ok()?.1)
    }
}

/// Where one side sleeps.
struct Bed<'a> {
    event: Event<'a>,
    manner: Manner,
    announced: Option<Announced>,
}

impl Station for Bed<'_> {
    fn word(&self) -> &AtomicU32 {
        self.event.epoch
    }

    fn announce(&mut self) -> u32 {
        self.announced.insert(self.event.announce(self.manner)).epoch()
    }

    fn retract(&mut self) {
        if let Some(announced) = self.announced.take() {
            self.event.retract(announced);
        }
    }
}

fn side(view: &View, role: Role) -> &Side {
    match role {
        Role::Producer => view.producer(),
        Role::Consumer => view.consumer(),
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // In a forked child the seat is the parent's: its locks know that themselves.
        let Some(seat) = self.seat.take() else { return };
        if self.check() == Err(Unusable::Fenced) {
            return;
        }
        seat.leave(&self.view);
        self.tell_peer();
        if let Some(watching) = self.watching.take() {
            watching.close();
        }
        seat.vacate(&self.segment, &self.view, self.persist);
    }
}
