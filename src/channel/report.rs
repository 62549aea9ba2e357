//! Looking at a ring without taking part in it.

use std::time::{Duration, SystemTime};

use super::attach::open;
use crate::error::Result;
use crate::layout::{Form, MpmcLayout, MpmcView, Ring, Side, SpscLayout, View, Wait};
use crate::liveness::{Chair, Crew, Role, Status, status};
use crate::primitive::Ordering;
use crate::ring::mpmc::backlog;
use crate::ring::spsc::{Words, walk};
use crate::segment::{Kind, Locks, Metadata, Name, Segment};

/// What a ring looked like at one moment; if it is in use, the figures may be of slightly different moments.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// How its memory came about.
    pub kind: Kind,
    /// Size, mode and owner of the segment.
    pub segment: Metadata,
    /// When it was created.
    pub created: SystemTime,
    /// Its algorithm.
    pub ring: Ring,
    /// Bytes of the ring.
    pub capacity: u64,
    /// The longest message, in bytes.
    pub max_message: u64,
    /// How its sides wait.
    pub wait: Wait,
    /// Whether it outlives its last user.
    pub persist: bool,
    /// Whether it holds what no correct peer writes.
    pub poisoned: bool,
    /// Messages published and not handed out, or with one consumer, not given back.
    pub depth: u64,
    /// Bytes in those messages.
    pub depth_bytes: u64,
    /// How far a ring with one producer and one consumer is.
    pub positions: Option<Positions>,
    /// What there is in a ring of many.
    pub lanes: Option<Lanes>,
    /// The producer, or those of a ring of many that were ever there: by their lanes.
    pub producers: Vec<Peer>,
    /// The consumer, or those of a ring of many: by their numbers.
    pub consumers: Vec<Peer>,
}

/// How far a ring with one producer and one consumer is, in bytes since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Positions {
    /// Behind the last message that was given back.
    pub released: u64,
    /// Behind the last message that was handed out.
    pub taken: u64,
    /// Behind the last message that was published. `None` if the ring changed too quickly to follow, or is damaged.
    pub published: Option<u64>,
}

/// What there is in a ring of many producers and consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lanes {
    /// How many producers it has room for.
    pub most_producers: u32,
    /// How often a message is delivered at most.
    pub max_deliveries: u32,
    /// Batches, most of them of one message, that consumers hold, or held when they died.
    pub leased: u64,
    /// Batches that were put back after a consumer's death, and wait to be delivered again.
    pub requeued: u64,
    /// How many messages were put back since the ring was made.
    pub redelivered: u64,
    /// How many messages of dead consumers were dropped since the ring was made.
    pub dropped: u64,
}

/// The holder of a role.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// What has become of it.
    pub state: PeerState,
    /// How often the role was taken.
    pub joined: u32,
    /// How many holders have died, as far as successors noticed.
    pub deaths: u32,
    /// Whether it sleeps, waiting for the other side.
    pub waiting: bool,
}

/// What has become of the holder of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// Nobody has held the role yet.
    Absent,
    /// The process `pid` holds it.
    Alive {
        /// In its own pid namespace.
        pid: u32,
    },
    /// The process `pid` held it and died.
    Dead {
        /// In its own pid namespace.
        pid: u32,
    },
    /// The process `pid` holds it and is alive, but its proof of life was closed under it.
    Quarantined {
        /// In its own pid namespace.
        pid: u32,
    },
    /// The last holder left in good order.
    Left,
    /// The kernel won't tell.
    Unknown,
}

impl PeerState {
    /// Of many, one that is alive, or else one that is not known to be gone, or one that died.
    pub(crate) fn of_many(states: Vec<Self>) -> Self {
        let weight = |state: &Self| match state {
            Self::Alive { .. } => 0,
            Self::Quarantined { .. } | Self::Unknown => 1,
            Self::Dead { .. } => 2,
            Self::Left | Self::Absent => 3,
        };
        states.into_iter().min_by_key(weight).unwrap_or(Self::Absent)
    }
}

impl From<Option<Status>> for PeerState {
    fn from(status: Option<Status>) -> Self {
        match status {
            Some(Status::Vacant) => Self::Absent,
            Some(Status::Alive { pid }) => Self::Alive { pid },
            Some(Status::Dead { pid }) => Self::Dead { pid },
            Some(Status::Quarantined { pid }) => Self::Quarantined { pid },
            Some(Status::Left) => Self::Left,
            None => Self::Unknown,
        }
    }
}

/// Looks at the ring of that name. Read-only: it joins nothing and changes nothing.
///
/// # Errors
/// [`NotFound`](crate::error::ErrorKind::NotFound), [`PermissionDenied`](crate::error::ErrorKind::PermissionDenied),
/// [`NotARing`](crate::error::ErrorKind::NotARing), [`Damaged`](crate::error::ErrorKind::Damaged) or
/// [`NewerVersion`](crate::error::ErrorKind::NewerVersion).
pub fn inspect(name: &Name) -> Result<Report> {
    let segment = Segment::open_read_only(name)?;
    let geometry = open(&segment)?;
    let locks = segment.locks()?;
    let mut report = Report {
        kind: segment.kind(),
        segment: segment.metadata()?,
        created: SystemTime::UNIX_EPOCH + Duration::from_nanos(geometry.created),
        ring: geometry.ring(),
        capacity: geometry.capacity(),
        max_message: geometry.max_message(),
        wait: geometry.wait,
        persist: geometry.persist,
        poisoned: false,
        depth: 0,
        depth_bytes: 0,
        positions: None,
        lanes: None,
        producers: Vec::new(),
        consumers: Vec::new(),
    };
    match &geometry.form {
        Form::Spsc(layout) => report.look_at_pair(&segment, layout, &locks),
        Form::Mpmc(layout) => report.look_at_lanes(&segment, layout, &locks),
    }
    Ok(report)
}

// Relaxed loads, below: figures for people.
impl Report {
    fn look_at_pair(&mut self, segment: &Segment, layout: &SpscLayout, locks: &Locks) {
        // SAFETY: the layout is the segment's, which outlives the view; of it only loads are made.
        let view = unsafe { View::new(segment.as_ptr(), layout) };
        let holder = |role: Role, side: &Side| {
            vec![peer(&role.chair(&view), locks, side.sleep.0.waiter.load(Ordering::Relaxed) != 0)]
        };
        self.producers = holder(Role::Producer, view.producer());
        self.consumers = holder(Role::Consumer, view.consumer());
        let poisoned = |side: &Side| side.poisoned.0.load(Ordering::Relaxed) != 0;
        self.poisoned = poisoned(view.producer()) || poisoned(view.consumer());
        let cursor = view.cursor();
        let (released, taken) = (cursor.released.load(Ordering::Acquire), cursor.taken.load(Ordering::Relaxed));
        let published = walk(&view, layout.bounds, released, |length| {
            self.depth += 1;
            self.depth_bytes += length;
        });
        self.positions = Some(Positions { released, taken: taken.max(released), published: published.ok() });
    }

    fn look_at_lanes(&mut self, segment: &Segment, layout: &MpmcLayout, locks: &Locks) {
        // SAFETY: as above.
        let view = unsafe { MpmcView::new(segment.as_ptr(), layout) };
        let crew = Crew::new(&view, layout.max_deliveries);
        let commons = view.commons();
        let waiters = commons.waiters.0.load(Ordering::Relaxed);
        let ever_there = |role: Role, waits: &dyn Fn(u32) -> bool| {
            let members = (0..).zip(crew.members(role));
            let peers = members.map(|(number, member)| peer(&crew.chair(member), locks, waits(number)));
            // Without those behind the last one that was ever there.
            let mut peers: Vec<Peer> = peers.collect();
            peers.truncate(peers.iter().rposition(|peer| peer.joined > 0).map_or(0, |last| last + 1));
            peers
        };
        self.producers =
            ever_there(Role::Producer, &|lane| view.member(lane).bell.0.waiting.load(Ordering::Relaxed) != 0);
        self.consumers = ever_there(Role::Consumer, &|consumer| waiters & 1 << consumer != 0);
        self.poisoned = commons.poisoned.0.load(Ordering::Relaxed) != 0;
        let backlog = backlog(&view, view.shape());
        self.depth = backlog.unclaimed;
        self.depth_bytes = backlog.bytes;
        let [redelivered, dropped] = &commons.recovered.0;
        self.lanes = Some(Lanes {
            most_producers: layout.lanes,
            max_deliveries: layout.max_deliveries,
            leased: backlog.leased,
            requeued: backlog.requeued,
            redelivered: redelivered.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
        });
    }
}

fn peer(chair: &Chair<'_>, locks: &Locks, waiting: bool) -> Peer {
    let seen = status(chair, locks).ok();
    let tenure = seen.map(|(tenure, _)| tenure);
    Peer {
        state: seen.map(|(_, status)| status).into(),
        joined: tenure.map_or(0, |t| t.generation()),
        deaths: tenure.map_or(0, |t| t.deaths()),
        waiting,
    }
}
