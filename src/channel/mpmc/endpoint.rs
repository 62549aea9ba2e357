//! What producers and consumers have in common: a chair at a mapped ring, the others to watch, and a way to wait.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::PeerState;
use crate::channel::endpoint::{Behaviour, Gone, Owner, Stuck, Unusable};
use crate::layout::{Geometry, MpmcLayout, MpmcView, Wait};
use crate::liveness::{Census, Crew, Membership, Role};
use crate::primitive::{AtomicU32, Ordering};
use crate::ring::mpmc::Ring;
use crate::segment::Segment;
use crate::wait::crowd::{Bells, Crowd};
use crate::wait::event::Sleep;
use crate::wait::{Backoff, Look, Patience, Sleeper, Station};

/// One member's attachment to a ring.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) view: MpmcView,
    role: Role,
    owner: Owner,
    wait: Wait,
    spin: Duration,
    keep_open: bool,
    persist: bool,
    max_deliveries: u32,
    /// The count of changes of who is there, when the census was taken.
    roster: u32,
    /// Who holds the chairs of the other role.
    others: Census,
    /// What the user knows of the others.
    told: Census,
    stuck: Stuck,
    seat: Option<Membership>,
    member: u32,
    segment: Arc<Segment>,
}

impl Endpoint {
    /// # Safety
    /// `view` must be of `segment`, which has this geometry and layout.
    pub(super) unsafe fn new(
        segment: Arc<Segment>,
        view: MpmcView,
        (geometry, layout): (&Geometry, &MpmcLayout),
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
        Self {
            view,
            role,
            owner: Owner::this(),
            wait: geometry.wait,
            spin: behaviour.spin,
            keep_open: behaviour.keep_open,
            persist: geometry.persist,
            max_deliveries: layout.max_deliveries,
            roster,
            others,
            told,
            stuck: Stuck::new(),
            member: seat.member(),
            seat: Some(seat),
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
            wake_everybody(&self.view, self.wait);
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
        let view = self.view;
        let lanes = view.lanes();
        let (waiters, first) = match self.role {
            Role::Producer => (&view.member(self.member).bell.0.waiting, self.member),
            Role::Consumer => (&view.commons().waiters.0, lanes),
        };
        let mut bed = Bed {
            crowd: Crowd { waiters },
            waiter: self.member - first,
            bells: Members { view: &view, first, wait: self.wait },
            announced: false,
        };
        let patience = Patience { spin: self.spin, deadline };
        let found = sleeper(&view, self.wait, self.member).wait(&mut bed, patience, backoff, |what| look(self, what));
        (found, bed.announced)
    }

    /// Tells a sleeping consumer, if there is one, of what was published.
    #[inline(always)]
    pub(super) fn wake_consumer(&self) {
        if self.wait != Wait::Spin {
            consumers(&self.view).notify(Members::consumers(&self.view, self.wait));
        }
    }

    /// Tells the producer of a lane, if it sleeps, that there is room. Without a fence: what was given back just now may be seen
    /// only by the next call.
    #[inline(always)]
    pub(super) fn wake_producer_soon(&self, lane: u32) {
        if self.wait != Wait::Spin {
            let crowd = Crowd { waiters: &self.view.member(lane).bell.0.waiting };
            crowd.notify_fenced(Members { view: &self.view, first: lane, wait: self.wait });
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
        if look == Look::Peer {
            self.recover();
        }
        self.refresh();
        let gone = !self.keep_open && self.others.present == 0 && (self.have_left() || self.have_died());
        if gone && look != Look::Peer && self.role == Role::Consumer {
            // The dead of one's own role may hold messages, and a consumer that is told of the end won't wait for them.
            self.recover();
        }
        gone
    }

    fn recover(&mut self) {
        let Some(seat) = &self.seat else { return };
        // An error of a probe means only that nothing is known; the next slice asks again.
        if let Ok(recovery) = seat.recover_others(Self::crew(&self.view, self.max_deliveries))
            && recovery.deaths > 0
        {
            wake_everybody(&self.view, self.wait);
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
        wake_everybody(&self.view, self.wait);
        seat.vacate(crew, &self.segment, self.persist);
    }
}

fn sleeper(view: &MpmcView, wait: Wait, member: u32) -> Sleeper {
    // SAFETY: with `wait=sem` the creator of the segment initialised them all; it is mapped as long as the view is used.
    unsafe { Sleeper::new(wait, view.semaphore(member)) }
}

/// The crowd of all consumers.
fn consumers(view: &MpmcView) -> Crowd<'_> {
    Crowd { waiters: &view.commons().waiters.0 }
}

/// Wakes all who sleep: somebody came, went or died, or messages were put back.
pub(crate) fn wake_everybody(view: &MpmcView, wait: Wait) {
    if wait == Wait::Spin {
        return;
    }
    consumers(view).notify_all(Members::consumers(view, wait));
    for lane in 0..view.lanes_used() {
        let crowd = Crowd { waiters: &view.member(lane).bell.0.waiting };
        crowd.notify_all(Members { view, first: lane, wait });
    }
}

/// The bells of some members: of all consumers, or of one producer.
#[derive(Clone, Copy)]
struct Members<'a> {
    view: &'a MpmcView,
    first: u32,
    wait: Wait,
}

impl<'a> Members<'a> {
    fn consumers(view: &'a MpmcView, wait: Wait) -> Self {
        Self { view, first: view.lanes(), wait }
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

    fn wake(&self, waiter: u32) {
        sleeper(self.view, self.wait, self.member(waiter)).wake(self.bell(waiter));
    }
}

/// Where a member sleeps.
struct Bed<'a> {
    crowd: Crowd<'a>,
    waiter: u32,
    bells: Members<'a>,
    announced: bool,
}

impl Station for Bed<'_> {
    fn word(&self) -> &AtomicU32 {
        self.bells.bell(self.waiter)
    }

    fn announce(&mut self) -> u32 {
        self.announced = true;
        self.crowd.announce(self.waiter, self.bells)
    }

    fn retract(&mut self) {
        self.crowd.retract(self.waiter);
    }
}

/// Initialises all semaphores of a new segment.
///
/// # Safety
/// `base` must be the start of a new segment with this layout, that nobody else uses yet.
pub(crate) unsafe fn format(base: NonNull<u8>, layout: &MpmcLayout) {
    // SAFETY: the caller's promise.
    let view = unsafe { MpmcView::new(base, layout) };
    for role in [Role::Producer, Role::Consumer] {
        for member in Crew::new(&view, layout.max_deliveries).members(role) {
            // SAFETY: mapped, aligned and nobody's yet. It can only fail for a value above the maximum; this one is 0.
            let _ = unsafe { crate::sys::semaphore::init(view.semaphore(member)) };
        }
    }
}
