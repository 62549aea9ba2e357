//! Looking at a ring without taking part in it.

use std::time::{Duration, SystemTime};

use super::attach::open;
use crate::error::Result;
use crate::layout::{Side, View, Wait};
use crate::liveness::{Role, Status, status};
use crate::primitive::Ordering;
use crate::ring::spsc::{Words, walk};
use crate::segment::{Kind, Metadata, Name, Segment};

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
    /// Behind the last message that was given back, in bytes since the ring began.
    pub released: u64,
    /// Behind the last message that was handed out.
    pub taken: u64,
    /// Behind the last message that was published. `None` if the ring changed too quickly to follow, or is damaged.
    pub published: Option<u64>,
    /// Messages published and not given back.
    pub depth: u64,
    /// Bytes in those messages.
    pub depth_bytes: u64,
    /// The producer.
    pub producer: Peer,
    /// The consumer.
    pub consumer: Peer,
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
    // SAFETY: the geometry is the segment's, which outlives the view; of it only loads are made.
    let view = unsafe { View::new(segment.as_ptr(), &geometry) };
    let locks = segment.locks()?;
    let peer = |role, side: &Side| {
        let seen = status(&view, role, &locks).ok();
        let tenure = seen.map(|(tenure, _)| tenure);
        Peer {
            state: seen.map(|(_, status)| status).into(),
            joined: tenure.map_or(0, |t| t.generation()),
            deaths: tenure.map_or(0, |t| t.deaths()),
            // Relaxed, here and below: figures for people.
            waiting: side.waiter.0.load(Ordering::Relaxed) != 0,
        }
    };
    let poisoned = |side: &Side| side.poisoned.0.load(Ordering::Relaxed) != 0;
    let cursor = view.cursor();
    let (released, taken) = (cursor.released.load(Ordering::Acquire), cursor.taken.load(Ordering::Relaxed));
    let (mut depth, mut depth_bytes) = (0, 0);
    let published = walk(&view, geometry.bounds, released, |length| {
        depth += 1;
        depth_bytes += length;
    })
    .ok();
    Ok(Report {
        kind: segment.kind(),
        segment: segment.metadata()?,
        created: SystemTime::UNIX_EPOCH + Duration::from_nanos(geometry.created),
        capacity: geometry.bounds.capacity,
        max_message: geometry.bounds.max_message,
        wait: geometry.wait,
        persist: geometry.persist,
        poisoned: poisoned(view.producer()) || poisoned(view.consumer()),
        released,
        taken: taken.max(released),
        published,
        depth,
        depth_bytes,
        producer: peer(Role::Producer, view.producer()),
        consumer: peer(Role::Consumer, view.consumer()),
    })
}
