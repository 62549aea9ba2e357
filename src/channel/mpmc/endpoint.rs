//! What producers and consumers have in common: a chair at a mapped ring, the others to watch, and a way to wait.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::watching::{Watching, heard};
use crate::channel::PeerState;
use crate::channel::endpoint::{Behaviour, Gone, Heard, Owner, Stuck, Unusable};
use crate::error::Result;
use crate::layout::{Geometry, MpmcLayout, MpmcView};
use crate::liveness::{Census, Crew, Membership, Role};
use crate::primitive::{AtomicU32, Ordering};
use crate::ring::mpmc::{MAX_CONSUMERS, Ring};
use crate::segment::Segment;
use crate::wait::crowd::{Bells, Crowd};
use crate::wait::event::Sleep;
use crate::wait::{Backoff, Belfry, Budget, Look, Manner, Patience, Sleeper, Station};

/// One member's attachment to a ring.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) view: MpmcView,
    pub(super) role: Role,
    owner: Owner,
    /// What it sleeps on.
    pub(super) sleeper: Sleeper,
    /// The ring's number.
    pub(super) id: u64,
    spin: Budget,
    keep_open: bool,
    persist: bool,
    pub(super) max_deliveries: u32,
    /// The count of changes of who is there, when the census was taken.
    roster: u32,
    /// Who holds the chairs of the other role.
    pub(super) others: Census,
    /// What the user knows of the others.
    told: Census,
    /// What the user was told of their coming and going.
    pub(super) heard: Heard,
    stuck: Stuck,
    pub(super) watching: Option<Watching>,
    pub(super) seat: Option<Arc<Membership>>,
    pub(super) member: u32,
    pub(super) belfry: Arc<Belfry>,
    pub(super) segment: Arc<Segment>,
}

impl Endpoint {
    /// # Safety
    /// `view` must be of `segment`, which has this geometry and layout.
    pub(super) unsafe fn new(
        segment: Arc<Segment>,
        view: MpmcView,
        (geometry, layout): (&Geometry, &MpmcLayout),
        belfry: Arc<Belfry>,
        role: Role,
        seat: Membership,
        behaviour: Behaviour,
    ) -> Self {
        // Acquire: pairs with the change; what is read of the chairs is at least as new.
        let roster = view.commons().roster.0.load(Ordering::Acquire);
        let others = Crew::new(&view, layout.max_deliveries).census(role.peer());
        let mut told = others;
        if role == Role::Consumer {
            // Producers who came and went before are news: what they sent may still be here. If all of them died, so is that.
            told.joined = told.deaths;
            if others.present == 0 && others.left() == 0 {
                told.deaths = 0;
                told.joined = 0;
            }
            told.present = 0;
        }
        let mut heard = heard(&others);
        // That some are there is news.
        heard.joined = heard.left + heard.died;
        Self {
            view,
            role,
            owner: Owner::this(),
            // SAFETY: the belfry is held as long as the sleeper.
            sleeper: unsafe { belfry.sleeper(seat.member()) },
            id: geometry.id,
            spin: Budget::new(behaviour.spin),
            keep_open: behaviour.keep_open,
            persist: geometry.persist,
            max_deliveries: layout.max_deliveries,
            roster,
            others,
            told,
            heard,
            stuck: Stuck::new(),
            watching: None,
            member: seat.member(),
            seat: Some(Arc::new(seat)),
            belfry,
            segment,
        }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Whether this endpoint may be used, in this process.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), Unusable> {
        self.owner.check()
    }

    fn crew(view: &MpmcView, max_deliveries: u32) -> Crew<'_> {
        Crew::new(view, max_deliveries)
    }

    /// Latches that the ring holds what no correct peer writes, and tells the others.
    #[cold]
    pub(super) fn poison(&mut self) {
        // Relaxed: a flag that guards no other memory.
        self.view.commons().poisoned.0.store(1, Ordering::Relaxed);
        if self.check().is_ok() {
            wake_everybody(&self.view, self.sleeper);
            self.owner.poison();
        }
    }

    /// Waits until `look` finds something, or `None` until the `deadline`. Says as well whether it announced that it would
    /// sleep, so that a wake-up may have been spent on it.
    pub(super) fn wait<T>(
        &mut self,
        deadline: Option<Duration>,
        backoff: &Backoff,
        mut look: impl FnMut(&mut Self, Look) -> Option<T>,
    ) -> (Option<T>, bool) {
        self.disarm();
        let (view, manner) = (self.view, self.own_manner());
        let (crowd, waiter, bells) = own_crowd(&view, self.role, self.member, self.sleeper);
        let mut bed = Bed { crowd, waiter, bells, manner, announced: false };
        let mut spin = self.spin;
        let patience = Patience { spin: &mut spin, deadline };
        let found = self.sleeper.wait(&mut bed, patience, backoff, |what| look(self, what));
        self.spin = spin;
        let announced = bed.announced;
        if let Some(watching) = &self.watching {
            watching.resume();
        }
        (found, announced)
    }

    /// A descriptor of its own of what it sleeps on by the ring's strategy, if that is a descriptor.
    pub(super) fn bell(&self) -> Result<Option<OwnedFd>> {
        self.belfry.descriptor(self.member)
    }

    /// The crowd in which this member sleeps, its number there, and the bells of all.
    pub(super) fn own_crowd(&self) -> (Crowd<'_>, u32, Members<'_>) {
        own_crowd(&self.view, self.role, self.member, self.sleeper)
    }

    /// Tells a sleeping consumer, if there is one, of what was published.
    #[inline(always)]
    pub(super) fn wake_consumer(&self) {
        if !self.sleeper.is_sleepless() {
            consumers(&self.view).notify(Members::consumers(&self.view, self.sleeper));
        }
    }

    /// Tells the producer of a lane, if it sleeps, that there is room. Without a fence: what was given back just now may be seen
    /// only by the next call.
    #[inline(always)]
    pub(super) fn wake_producer_soon(&self, lane: u32) {
        if !self.sleeper.is_sleepless() {
            let crowd = Crowd { waiters: &self.view.member(lane).bell.0.waiting };
            crowd.notify_fenced(Members { view: &self.view, first: lane, sleeper: self.sleeper });
        }
    }

    /// [`wake_producer_soon`](Self::wake_producer_soon) for all lanes.
    pub(super) fn wake_producers_soon(&self) {
        for lane in 0..self.view.lanes_used() {
            self.wake_producer_soon(lane);
        }
    }

    /// Whether the others have all left in good order, and the user wants to know. Acquires all that they did.
    #[inline(always)]
    pub(super) fn others_have_left(&mut self) -> bool {
        // Relaxed: a change that is seen late is seen by the next call; who it concerns is acquired with the census.
        if self.view.commons().roster.0.load(Ordering::Relaxed) != self.roster {
            self.refresh();
        }
        // Seldom true, so that the order matters.
        self.others.present == 0 && !self.keep_open && self.have_left() && !self.have_died()
    }

    #[cold]
    fn refresh(&mut self) {
        // Acquire: as in `new`.
        self.roster = self.view.commons().roster.0.load(Ordering::Acquire);
        self.others = Self::crew(&self.view, self.max_deliveries).census(self.role.peer());
    }

    fn have_left(&self) -> bool {
        self.others.left() > self.told.left()
    }

    fn have_died(&self) -> bool {
        self.others.deaths > self.told.deaths
    }

    /// Whether the others are gone, and the user has not been told or is to be told again. Acquires all that they did. Recovers
    /// the dead, if the look is for them, and before consumers are told of the end.
    pub(super) fn others_are_gone(&mut self, look: Look) -> bool {
        // Relaxed: as it is stored.
        if self.view.commons().poisoned.0.load(Ordering::Relaxed) != 0 {
            self.poison();
            return true;
        }
        if look >= Look::Lock {
            self.recover(look == Look::Peer);
        }
        self.refresh();
        let gone = !self.keep_open && self.others.present == 0 && (self.have_left() || self.have_died());
        if gone && look != Look::Peer && self.role == Role::Consumer {
            // The dead of one's own role may hold messages, and a consumer that is told of the end won't wait for them.
            self.recover(true);
        }
        gone
    }

    /// Unless it is to be `thorough`, those whose locks are held count as alive.
    fn recover(&mut self, thorough: bool) {
        let Some(seat) = &self.seat else { return };
        // An error of a probe means only that nothing is known; the next slice asks again.
        if let Ok(recovery) = seat.recover_others(Self::crew(&self.view, self.max_deliveries), thorough)
            && recovery.deaths > 0
        {
            wake_everybody(&self.view, self.sleeper);
        }
    }

    /// How their end came, to be told to the user now; deaths are told once. That others have left is told behind that.
    pub(super) fn tell(&mut self) -> Result<Gone, Unusable> {
        self.check()?;
        if self.have_died() {
            let deaths = self.others.deaths;
            self.told = Census { present: 0, joined: self.told.left() + deaths, deaths };
            return Ok(Gone::Died);
        }
        Ok(Gone::Left)
    }

    /// What an operation that doesn't block should look at, when the ring is stuck at `position`.
    pub(super) fn look_when_stuck(&mut self, position: u64) -> Look {
        self.stuck.look(position)
    }

    /// The living and the dead who hold the chairs of the other role.
    pub(super) fn peers(&self) -> Vec<PeerState> {
        let crew = Self::crew(&self.view, self.max_deliveries);
        let status = |member| PeerState::from(self.seat.as_ref().and_then(|seat| seat.status_of(crew, member).ok()));
        let states = crew.members(self.role.peer()).map(status);
        states.filter(|state| !matches!(state, PeerState::Absent | PeerState::Left)).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // In a forked child the seat is the parent's: its locks know that themselves.
        let Some(seat) = self.seat.take() else { return };
        if self.check() == Err(Unusable::Fenced) {
            return;
        }
        let crew = Self::crew(&self.view, self.max_deliveries);
        seat.leave(crew);
        wake_everybody(&self.view, self.sleeper);
        if let Some(watching) = self.watching.take() {
            watching.close();
        }
        seat.vacate(crew, &self.segment, self.persist);
    }
}

fn own_crowd(view: &MpmcView, role: Role, member: u32, sleeper: Sleeper) -> (Crowd<'_>, u32, Members<'_>) {
    let (waiters, first) = match role {
        Role::Producer => (&view.member(member).bell.0.waiting, member),
        Role::Consumer => (&view.commons().waiters.0, view.lanes()),
    };
    (Crowd { waiters }, member - first, Members { view, first, sleeper })
}

/// The crowd of all consumers.
fn consumers(view: &MpmcView) -> Crowd<'_> {
    Crowd { waiters: &view.commons().waiters.0 }
}

/// Tells all who sleep or are watched: somebody came, went or died, or messages were put back.
pub(crate) fn wake_everybody(view: &MpmcView, sleeper: Sleeper) {
    if sleeper.is_sleepless() {
        return;
    }
    consumers(view).tell(0..MAX_CONSUMERS, Members::consumers(view, sleeper));
    for lane in 0..view.lanes_used() {
        let crowd = Crowd { waiters: &view.member(lane).bell.0.waiting };
        crowd.tell(0..1, Members { view, first: lane, sleeper });
    }
}

/// The bells of some members: of all consumers, or of one producer.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    view: &'a MpmcView,
    first: u32,
    sleeper: Sleeper,
}

impl<'a> Members<'a> {
    fn consumers(view: &'a MpmcView, sleeper: Sleeper) -> Self {
        Self { view, first: view.lanes(), sleeper }
    }

    /// There is one producer to a lane, whatever a bit behind it says that no correct peer sets.
    fn member(&self, waiter: u32) -> u32 {
        if self.first < self.view.lanes() { self.first } else { self.first + waiter }
    }
}

impl Bells for Members<'_> {
    fn bell(&self, waiter: u32) -> &AtomicU32 {
        &self.view.member(self.member(waiter)).bell.0.epoch
    }

    fn manner(&self, waiter: u32) -> &AtomicU32 {
        &self.view.member(self.member(waiter)).bell.0.manner
    }

    fn wake(&self, waiter: u32, manner: Manner) {
        self.sleeper.of(self.member(waiter)).wake(self.bell(waiter), manner);
    }
}

/// Where a member sleeps.
struct Bed<'a> {
    crowd: Crowd<'a>,
    waiter: u32,
    bells: Members<'a>,
    manner: Manner,
    announced: bool,
}

impl Station for Bed<'_> {
    fn word(&self) -> &AtomicU32 {
        self.bells.bell(self.waiter)
    }

    fn announce(&mut self) -> u32 {
        self.announced = true;
        self.crowd.announce(self.waiter, self.bells, self.manner)
    }

    fn retract(&mut self) {
        self.crowd.retract(self.waiter);
    }
}
