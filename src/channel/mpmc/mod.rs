//! Zero-copy access to a ring with many producers and many consumers.
//!
//! Messages are built and read in place. [`channel`] makes a ring for the threads of this process, which hands out as many
//! endpoints as it has room for; those of a ring that other processes share come from
//! [`Options::assume_trusted_peers`](crate::Options::assume_trusted_peers).
//!
//! Each producer has a lane of its own. Messages of one producer are handed out in order; between producers there is none.
//! Whoever holds a message, or room for one, and stops or dies, keeps nobody else from anything: of a dead consumer's
//! messages others get what it had not given back, marked as redelivered.
//!
//! ```
//! use ringway::{Options, mpmc};
//!
//! let ring = mpmc::channel(&Options::new().producers(2))?;
//! let (mut first, mut second) = (ring.producer()?, ring.producer()?);
//! let consumer = ring.consumer()?;
//! for producer in [&mut first, &mut second] {
//!     let mut grant = producer.try_reserve(100)?;
//!     grant[..5].copy_from_slice(b"hello");
//!     grant.set_tag(7);
//!     grant.commit(5);
//! }
//!
//! let (one, other) = (consumer.try_recv()?, consumer.try_recv()?);
//! assert_eq!((&one[..], one.tag(), one.sequence()), (&b"hello"[..], 7, 0));
//! assert_ne!(one.producer(), other.producer());
//! drop(one); // in any order
//! drop(other);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod consumer;
mod endpoint;
mod grants;
mod producer;
mod watching;

use std::sync::Arc;

pub use consumer::Consumer;
pub use grants::{Iter, ReadBatch, ReadGrant, Received};
pub use producer::{Producer, WriteBatch, WriteGrant};

pub(crate) use consumer::{Item, Part};
pub(super) use endpoint::wake_everybody;

use self::endpoint::Endpoint;
use super::attach::{LONGEST_PAUSE, Place, attach, damaged, make, poisoned};
use super::endpoint::Behaviour;
use super::options::{Options, Profile, Takeover};
use crate::error::Result;
use crate::layout::{Geometry, MpmcLayout, MpmcView, Ring};
use crate::liveness::{Crew, Role};
use crate::primitive::Ordering;
use crate::ring::mpmc::{Reader, Ring as _, Writer};
use crate::segment::Segment;
use crate::sys::process::ProcessId;
use crate::wait::{Backoff, Belfry};

/// A ring for the threads of this process; see [`channel`].
#[derive(Clone, Debug)]
pub struct Local {
    segment: Arc<Segment>,
    options: Options,
}

/// Makes a ring for the threads of this process.
///
/// Safe, because no other process can see it. Capacity, longest message, most producers and deliveries, wait strategy, profile
/// and spin of the options apply.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the sizes can't be; [`NoSpace`](crate::ErrorKind::NoSpace).
pub fn channel(options: &Options) -> Result<Local> {
    let options = options.clone().ring(Ring::Mpmc);
    let segment = Arc::new(make(&options, &"a heap ring", |bytes, init| Segment::heap(bytes, init))?);
    Ok(Local { segment, options })
}

impl Local {
    /// Another producer.
    ///
    /// # Errors
    /// [`NoSpace`](crate::ErrorKind::NoSpace) if there are as many as the ring has lanes.
    pub fn producer(&self) -> Result<Producer> {
        attach(Place::Made(&self.segment), &self.options, Role::Producer)?.into_mpmc_producer()
    }

    /// Another consumer.
    ///
    /// # Errors
    /// [`NoSpace`](crate::ErrorKind::NoSpace) if there are as many as a ring can have.
    pub fn consumer(&self) -> Result<Consumer> {
        attach(Place::Made(&self.segment), &self.options, Role::Consumer)?.into_mpmc_consumer()
    }
}

/// A chair at a mapped ring.
#[derive(Debug)]
pub(crate) struct Attachment {
    end: Endpoint,
    backoff: Backoff,
    number: u32,
}

/// Joins the ring in a segment whose geometry was checked.
pub(super) fn join(
    segment: Arc<Segment>,
    (geometry, layout): (&Geometry, &MpmcLayout),
    options: &Options,
    role: Role,
    me: &ProcessId,
) -> Result<Attachment> {
    // SAFETY: the layout is that of the segment, which the endpoint holds as long as the view.
    let view = unsafe { MpmcView::new(segment.as_ptr(), layout) };
    // Relaxed: a flag that guards no other memory.
    if view.commons().poisoned.0.load(Ordering::Relaxed) != 0 {
        return Err(poisoned(&segment));
    }
    let crew = Crew::new(&view, layout.max_deliveries);
    // SAFETY: the geometry is the segment's.
    let belfry = Arc::new(unsafe { Belfry::new(Arc::clone(&segment), geometry) }?);
    let seat = crew.join(&segment, role, me, geometry.persist, options.takeover == Takeover::Drop)?;
    let member = seat.member();
    let number = member - crew.members(role).start;
    // Joining may have recovered the dead.
    // SAFETY: the belfry lives.
    wake_everybody(&view, unsafe { belfry.sleeper(member) });
    let behaviour = Behaviour { spin: options.spin, keep_open: options.keep_open };
    // SAFETY: the view is of this segment and layout.
    let end = unsafe { Endpoint::new(segment, view, (geometry, layout), Arc::clone(&belfry), role, seat, behaviour) };
    belfry.hang(member)?;
    let longest = match options.profile {
        Profile::Throughput => LONGEST_PAUSE,
        Profile::Latency => 1,
    };
    Ok(Attachment { end, backoff: Backoff::new(longest), number })
}

impl Attachment {
    pub(super) fn segment(&self) -> &Segment {
        self.end.segment()
    }

    pub(super) fn into_producer(mut self) -> Result<Producer> {
        let lane = self.end.view.lane(self.number);
        match Writer::resume(lane, self.end.view.shape()) {
            Ok(writer) => Ok(Producer::new(writer, self.end, self.backoff, self.number)),
            Err(crate::ring::Violation) => {
                self.end.poison();
                Err(damaged(self.segment()))
            }
        }
    }

    pub(super) fn into_consumer(self) -> Consumer {
        let reader = Reader::join(self.end.view, self.end.view.shape(), self.number);
        Consumer::new(reader, self.end, self.backoff)
    }
}
