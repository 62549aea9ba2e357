//! From a place to an endpoint: create or open the segment, check its layout, take the role, take up the ring.

use std::ptr::NonNull;
use std::sync::Arc;

use super::consumer::Consumer;
use super::endpoint::{Behaviour, Endpoint};
use super::options::{Existence, Options, Profile, Takeover};
use super::producer::Producer;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Geometry, Rejected, View, Wait};
use crate::liveness::{LOCKS, Role, join};
use crate::primitive::Ordering;
use crate::ring::spsc::{Reader, Resume, Violation, Writer};
use crate::segment::{Name, Segment};
use crate::sys::process::ProcessId;
use crate::sys::semaphore;
use crate::units::ByteSize;
use crate::wait::Backoff;

/// How often to open a segment that others remove each time after it was opened.
const ATTEMPTS: usize = 1000;
/// The longest pause of a consumer that keeps catching up, in spin hints.
const LONGEST_PAUSE: u32 = 128;

/// Where a ring is or shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// Under a name that other processes can open.
    Named(&'a Name),
    /// In a segment that is there already.
    Made(&'a Arc<Segment>),
}

/// A role in a mapped ring.
#[derive(Debug)]
pub(crate) struct Attachment {
    end: Endpoint,
    view: View,
    backoff: Backoff,
    takeover: Takeover,
}

/// Makes a ring for the threads of this process, and both of its ends.
///
/// Safe, because no other process can see it. Capacity, longest message, wait strategy, profile and spin of the options
/// apply.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if the sizes can't be; [`NoSpace`](ErrorKind::NoSpace).
pub fn channel(options: &Options) -> Result<(Producer, Consumer)> {
    let segment = Arc::new(make(options, &"a heap ring", |bytes, init| Segment::heap(bytes, init))?);
    let producer = attach(Place::Made(&segment), options, Role::Producer)?.into_producer()?;
    let consumer = attach(Place::Made(&segment), options, Role::Consumer)?.into_consumer()?;
    Ok((producer, consumer))
}

/// Makes a segment with `create`, formatted as `options` say.
pub(crate) fn make(
    options: &Options,
    what: &dyn std::fmt::Display,
    create: impl FnOnce(usize, &dyn Fn(NonNull<u8>)) -> Result<Segment>,
) -> Result<Segment> {
    let geometry = wanted(options, false, what)?;
    create(geometry.total() as usize, &|base| format(base, &geometry))
}

/// Attaches to the ring at `place`, which is created if it has to be and may be.
pub(crate) fn attach(place: Place, options: &Options, role: Role) -> Result<Attachment> {
    // Before anything is created, since it may fail.
    let me = ProcessId::current().map_err(|e| {
        Error::os(e, "identify this process in", "/proc").advise("ringway needs /proc to tell the living from the dead")
    })?;
    let mut more = 1..ATTEMPTS;
    loop {
        match attempt(place, options, role, &me) {
            // Each further round follows a removal by somebody else.
            Err(e) if e.is_removed() && more.next().is_some() => {}
            answer => return answer,
        }
    }
}

fn attempt(place: Place, options: &Options, role: Role, me: &ProcessId) -> Result<Attachment> {
    let segment = match place {
        Place::Made(segment) => Arc::clone(segment),
        Place::Named(name) => Arc::new(enter(name, options)?),
    };
    let geometry = check(&segment, options)?;
    // SAFETY: the geometry is that of the segment, which the endpoint holds as long as the view.
    let view = unsafe { View::new(segment.as_ptr(), &geometry) };
    refuse_poisoned(&view, &segment)?;
    let seat = join(&segment, &view, role, me, geometry.persist)?;
    let behaviour = Behaviour { spin: options.spin, keep_open: options.keep_open };
    let ring = (geometry.bounds, geometry.wait, geometry.persist);
    // SAFETY: the view is of this segment and geometry.
    let end = unsafe { Endpoint::new(segment, view, ring, role, seat, behaviour) };
    let longest = match options.profile {
        Profile::Throughput => LONGEST_PAUSE,
        Profile::Latency => 1,
    };
    Ok(Attachment { end, view, backoff: Backoff::new(longest), takeover: options.takeover })
}

impl Attachment {
    pub(crate) fn into_producer(self) -> Result<Producer> {
        match Writer::resume(self.view, self.end.bounds) {
            Ok(writer) => Ok(Producer::new(writer, self.end, self.backoff)),
            Err(Violation) => Err(self.damaged()),
        }
    }

    pub(crate) fn into_consumer(self) -> Result<Consumer> {
        let from = match self.takeover {
            Takeover::Redeliver => Resume::Released,
            Takeover::Drop => Resume::Taken,
        };
        match Reader::resume(self.view, self.end.bounds, from) {
            Ok(reader) => Ok(Consumer::new(reader, self.end, self.backoff)),
            Err(Violation) => Err(self.damaged()),
        }
    }

    fn damaged(mut self) -> Error {
        self.end.poison();
        Error::new(ErrorKind::Poisoned, "take up the ring in", self.end.segment())
            .advise("its positions and messages contradict each other; remove it")
    }
}

fn enter(name: &Name, options: &Options) -> Result<Segment> {
    if options.existence == Existence::Open {
        return Segment::open(name);
    }
    let geometry = wanted(options, matches!(name, Name::File(_)), name)?;
    let (bytes, perm) = (geometry.total() as usize, options.perm.unwrap_or(0o600));
    let init = |base| format(base, &geometry);
    if options.existence == Existence::CreateNew {
        return Segment::create_new(name, bytes, perm, LOCKS, init);
    }
    Ok(Segment::open_or_create(name, bytes, perm, LOCKS, init)?.0)
}

/// What a ring is to be like that these options create.
fn wanted(options: &Options, persist: bool, what: &dyn std::fmt::Display) -> Result<Geometry> {
    let capacity = options.capacity.unwrap_or(match options.profile {
        Profile::Throughput => 4 << 20,
        Profile::Latency => 64 << 10,
    });
    let wait = options.wait.unwrap_or_default();
    Geometry::new(capacity, options.max_message, wait, options.persist.unwrap_or(persist)).ok_or_else(|| {
        let message = options.max_message.map_or(String::new(), |max| format!(" for messages of {}", ByteSize(max)));
        Error::new(ErrorKind::InvalidInput, format!("make a ring of {}{message} in", ByteSize(capacity)), what)
            .advise("a ring has at most 2GiB, and a message at most half of that, less 16 bytes")
    })
}

fn format(base: NonNull<u8>, geometry: &Geometry) {
    // SAFETY: called by the segment layer, with zeroed memory of this size that nobody else sees yet.
    unsafe { geometry.write(base) };
    if geometry.wait == Wait::Semaphore {
        // SAFETY: the memory has the geometry's size.
        let view = unsafe { View::new(base, geometry) };
        for role in [Role::Producer, Role::Consumer] {
            // SAFETY: mapped, aligned and nobody's yet. It can only fail for a value above the maximum; this one is 0.
            let _ = unsafe { semaphore::init(view.semaphore(role as usize)) };
        }
    }
}

/// The geometry of a segment that somebody made, if it is one that these options allow.
fn check(segment: &Segment, options: &Options) -> Result<Geometry> {
    let geometry = open(segment)?;
    let mismatch = |what: String| Err(Error::new(ErrorKind::Mismatch, "attach to", segment).advise(what));
    if let Some(capacity) = options.capacity
        && geometry.bounds.capacity < capacity
    {
        let (has, wanted) = (ByteSize(geometry.bounds.capacity), ByteSize(capacity));
        return mismatch(format!("its capacity is {has}, and {wanted} are wanted; say less, or remove it first"));
    }
    if let Some(max) = options.max_message
        && geometry.bounds.max_message < max
    {
        let (has, wanted) = (ByteSize(geometry.bounds.max_message), ByteSize(max));
        return mismatch(format!(
            "its longest message is {has}, and {wanted} are wanted; say less, or remove it first"
        ));
    }
    if let Some(wait) = options.wait
        && geometry.wait != wait
    {
        return mismatch(format!(
            "it was made with wait={}, not wait={wait}; leave it out, or remove it first",
            geometry.wait
        ));
    }
    Ok(geometry)
}

/// The checked geometry of a segment.
pub(crate) fn open(segment: &Segment) -> Result<Geometry> {
    // SAFETY: the segment is mapped in that length.
    unsafe { Geometry::read(segment.as_ptr(), segment.len()) }.map_err(|rejected| {
        let error = |kind| Error::new(kind, "use the ring in", segment);
        match rejected {
            Rejected::Foreign => error(ErrorKind::NotARing),
            Rejected::Newer => error(ErrorKind::NewerVersion).advise("use the version that made it, or remove it"),
            Rejected::NotReady => error(ErrorKind::Damaged).advise("its creator did not finish it; remove it"),
            Rejected::Damaged(why) => error(ErrorKind::Damaged).advise(format!("{why}; remove it")),
        }
    })
}

fn refuse_poisoned(view: &View, segment: &Segment) -> Result<()> {
    // Relaxed: flags that guard no other memory.
    let poisoned = |side: &crate::layout::Side| side.poisoned.0.load(Ordering::Relaxed) != 0;
    if poisoned(view.producer()) || poisoned(view.consumer()) {
        return Err(Error::new(ErrorKind::Poisoned, "attach to", segment).advise("remove it, and find who wrote to it"));
    }
    Ok(())
}
