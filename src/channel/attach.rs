//! From a place to an endpoint: create or open the segment, check its layout, take the role, take up the ring.

use std::ptr::NonNull;
use std::sync::Arc;

use super::endpoint::Behaviour;
use super::options::{Existence, Options, Profile, Takeover};
use super::{mpmc, spsc};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Form, Geometry, MpmcLayout, Rejected, Ring, SpscLayout, View, Wait};
use crate::liveness::{Role, join, locks_of};
use crate::primitive::Ordering;
use crate::ring::Violation;
use crate::ring::spsc::{Reader, Resume, Writer};
use crate::segment::{Name, Segment};
use crate::sys::process::ProcessId;
use crate::sys::{random, semaphore};
use crate::units::ByteSize;
use crate::wait::{Backoff, Belfry, unfit};

/// How often to open a segment that others remove each time after it was opened.
const ATTEMPTS: usize = 1000;
/// The longest pause of a consumer that keeps catching up, in spin hints.
pub(super) const LONGEST_PAUSE: u32 = 128;
/// How many lanes a ring of many producers has unless told.
const LANES: u32 = 8;
/// How often a message is delivered at most unless told.
const DELIVERIES: u32 = 8;

/// Where a ring is or shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// Under a name that other processes can open.
    Named(&'a Name),
    /// In a segment that is there already.
    Made(&'a Arc<Segment>),
}

/// A place at a mapped ring.
#[derive(Debug)]
pub(crate) enum Attachment {
    Spsc(Pair),
    Mpmc(mpmc::Attachment),
}

/// A role in a ring with two.
#[derive(Debug)]
pub(crate) struct Pair {
    end: spsc::Endpoint,
    view: View,
    backoff: Backoff,
    takeover: Takeover,
}

/// Makes a segment with `create`, formatted as `options` say.
pub(crate) fn make(
    options: &Options,
    what: &dyn std::fmt::Display,
    create: impl FnOnce(usize, &dyn Fn(NonNull<u8>)) -> Result<Segment>,
) -> Result<Segment> {
    let geometry = wanted(options, false, what)?;
    if !geometry.wait.goes_with(false) {
        return Err(unfit(geometry.wait, false, what));
    }
    let segment = create(geometry.total() as usize, &|base| format(base, &geometry))?;
    if geometry.wait == Wait::Eventfd { segment.with_events(geometry.members()) } else { Ok(segment) }
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
    match &geometry.form {
        Form::Spsc(layout) => Ok(Attachment::Spsc(pair(segment, (&geometry, layout), options, role, me)?)),
        Form::Mpmc(layout) => Ok(Attachment::Mpmc(mpmc::join(segment, (&geometry, layout), options, role, me)?)),
    }
}

fn pair(
    segment: Arc<Segment>,
    (geometry, layout): (&Geometry, &SpscLayout),
    options: &Options,
    role: Role,
    me: &ProcessId,
) -> Result<Pair> {
    // SAFETY: the layout is that of the segment, which the endpoint holds as long as the view.
    let view = unsafe { View::new(segment.as_ptr(), layout) };
    refuse_poisoned(&view, &segment)?;
    // SAFETY: as above.
    let belfry = Arc::new(unsafe { Belfry::new(Arc::clone(&segment), geometry) }?);
    let seat = join(&segment, &view, role, me, geometry.persist)?;
    let behaviour = Behaviour { spin: options.spin, keep_open: options.keep_open };
    let ring = (layout.bounds, geometry.persist, geometry.id);
    // SAFETY: the view is of this segment and geometry.
    let end = unsafe { spsc::Endpoint::new(segment, view, ring, Arc::clone(&belfry), role, seat, behaviour) };
    belfry.hang(role as u32)?;
    end.tell_peer();
    let longest = match options.profile {
        Profile::Throughput => LONGEST_PAUSE,
        Profile::Latency => 1,
    };
    Ok(Pair { end, view, backoff: Backoff::new(longest), takeover: options.takeover })
}

impl Attachment {
    /// The kind of the ring.
    pub(crate) fn ring(&self) -> Ring {
        match self {
            Self::Spsc(_) => Ring::Spsc,
            Self::Mpmc(_) => Ring::Mpmc,
        }
    }

    pub(crate) fn into_spsc_producer(self) -> Result<spsc::Producer> {
        match self {
            Self::Spsc(pair) => pair.into_producer(),
            Self::Mpmc(attachment) => Err(other_kind(attachment.segment(), Ring::Mpmc)),
        }
    }

    pub(crate) fn into_spsc_consumer(self) -> Result<spsc::Consumer> {
        match self {
            Self::Spsc(pair) => pair.into_consumer(),
            Self::Mpmc(attachment) => Err(other_kind(attachment.segment(), Ring::Mpmc)),
        }
    }

    pub(crate) fn into_mpmc_producer(self) -> Result<mpmc::Producer> {
        match self {
            Self::Spsc(pair) => Err(other_kind(pair.end.segment(), Ring::Spsc)),
            Self::Mpmc(attachment) => attachment.into_producer(),
        }
    }

    pub(crate) fn into_mpmc_consumer(self) -> Result<mpmc::Consumer> {
        match self {
            Self::Spsc(pair) => Err(other_kind(pair.end.segment(), Ring::Spsc)),
            Self::Mpmc(attachment) => Ok(attachment.into_consumer()),
        }
    }
}

impl Pair {
    pub(crate) fn into_producer(self) -> Result<spsc::Producer> {
        match Writer::resume(self.view, self.end.bounds) {
            Ok(writer) => Ok(spsc::Producer::new(writer, self.end, self.backoff)),
            Err(Violation) => Err(self.damaged()),
        }
    }

    pub(crate) fn into_consumer(self) -> Result<spsc::Consumer> {
        let from = match self.takeover {
            Takeover::Redeliver => Resume::Released,
            Takeover::Drop => Resume::Taken,
        };
        match Reader::resume(self.view, self.end.bounds, from) {
            Ok(reader) => Ok(spsc::Consumer::new(reader, self.end, self.backoff)),
            Err(Violation) => Err(self.damaged()),
        }
    }

    fn damaged(mut self) -> Error {
        self.end.poison();
        damaged(self.end.segment())
    }
}

/// What was found in it contradicts itself.
pub(super) fn damaged(segment: &Segment) -> Error {
    Error::new(ErrorKind::Poisoned, "take up the ring in", segment)
        .advise("its positions and messages contradict each other; remove it")
}

fn other_kind(segment: &Segment, ring: Ring) -> Error {
    Error::new(ErrorKind::Mismatch, "attach to", segment)
        .advise(format!("it was made with ring={ring}, which has endpoints of its own; use those, or remove it first"))
}

fn enter(name: &Name, options: &Options) -> Result<Segment> {
    if options.existence == Existence::Open {
        return Segment::open(name);
    }
    let geometry = match wanted(options, matches!(name, Name::File(_)), name) {
        Ok(geometry) => geometry,
        // What can't be made may be there, of a kind that wasn't said.
        Err(e) if options.existence == Existence::OpenOrCreate => return Segment::open(name).map_err(|_| e),
        Err(e) => return Err(e),
    };
    if !geometry.wait.goes_with(true) {
        return Err(unfit(geometry.wait, true, name));
    }
    let (bytes, perm) = (geometry.total() as usize, options.perm.unwrap_or(0o600));
    let locks = locks_of(&geometry.form);
    let init = |base| format(base, &geometry);
    if options.existence == Existence::CreateNew {
        return Segment::create_new(name, bytes, perm, locks, init);
    }
    Ok(Segment::open_or_create(name, bytes, perm, locks, init)?.0)
}

/// What a ring is to be like that these options create.
fn wanted(options: &Options, persist: bool, what: &dyn std::fmt::Display) -> Result<Geometry> {
    let capacity = options.capacity.unwrap_or(match options.profile {
        Profile::Throughput => 4 << 20,
        Profile::Latency => 64 << 10,
    });
    let invalid = |tried: String| Error::new(ErrorKind::InvalidInput, tried, what);
    let form = match options.ring.unwrap_or_default() {
        Ring::Spsc => {
            for (option, key) in [(options.producers, "producers"), (options.max_deliveries, "max_deliveries")] {
                if option.is_some() {
                    let tried = "make a ring with one producer and one consumer in".to_owned();
                    return Err(invalid(tried).advise(format!("{key} goes with ring=mpmc; say that, or leave it out")));
                }
            }
            SpscLayout::new(capacity, options.max_message).map(Form::Spsc)
        }
        Ring::Mpmc => {
            let lanes = options.producers.unwrap_or(LANES);
            let deliveries = options.max_deliveries.unwrap_or(DELIVERIES);
            MpmcLayout::new(capacity, options.max_message, lanes, deliveries).map(Form::Mpmc)
        }
    };
    let (wait, persist) = (options.wait.unwrap_or_default(), options.persist.unwrap_or(persist));
    match form {
        Some(form) => {
            let id = random::number().map_err(|e| Error::os(e, "draw a random number for", what))?;
            Ok(Geometry::new(form, wait, persist, id))
        }
        None => {
            let message =
                options.max_message.map_or(String::new(), |max| format!(" for messages of {}", ByteSize(max)));
            Err(invalid(format!("make a ring of {}{message} in", ByteSize(capacity))).advise(
                match options.ring.unwrap_or_default() {
                    Ring::Spsc => "a ring has at most 2GiB, and a message at most half of that, less 16 bytes",
                    Ring::Mpmc => {
                        "a ring has at most 32GiB, and a message less than 1GiB; there are 1 to 64 producers, and a message \
                         is delivered 1 to 15 times"
                    }
                },
            ))
        }
    }
}

fn format(base: NonNull<u8>, geometry: &Geometry) {
    // SAFETY: called by the segment layer, with zeroed memory of this size that nobody else sees yet.
    unsafe { geometry.write(base) };
    if geometry.wait != Wait::Semaphore {
        return;
    }
    for member in 0..geometry.members() {
        let offset = geometry.semaphore(member) as usize;
        // SAFETY: mapped, aligned and nobody's yet. It can only fail for a value above the maximum; this one is 0.
        let _ = unsafe { semaphore::init(base.byte_add(offset).cast().as_ptr()) };
    }
}

/// The geometry of a segment that somebody made, if it is one that these options allow.
fn check(segment: &Segment, options: &Options) -> Result<Geometry> {
    let geometry = open(segment)?;
    let mismatch = |what: String| Err(Error::new(ErrorKind::Mismatch, "attach to", segment).advise(what));
    if let Some(ring) = options.ring
        && geometry.ring() != ring
    {
        let has = geometry.ring();
        return mismatch(format!("it was made with ring={has}, not ring={ring}; leave it out, or remove it first"));
    }
    let lanes = match &geometry.form {
        Form::Spsc(_) => None,
        Form::Mpmc(layout) => Some((layout.lanes, layout.max_deliveries)),
    };
    for (what, has, wanted) in [
        ("capacity", geometry.capacity(), options.capacity),
        ("longest message", geometry.max_message(), options.max_message),
    ] {
        if let Some(wanted) = wanted
            && has < wanted
        {
            let (has, wanted) = (ByteSize(has), ByteSize(wanted));
            return mismatch(format!("its {what} is {has}, and {wanted} are wanted; say less, or remove it first"));
        }
    }
    if let Some(wanted) = options.producers
        && lanes.map_or(1, |(lanes, _)| lanes) < wanted
    {
        let has = lanes.map_or(1, |(lanes, _)| lanes);
        return mismatch(format!(
            "it has room for {has} producers, and {wanted} are wanted; say less, or remove it first"
        ));
    }
    if let (Some((_, has)), Some(wanted)) = (lanes, options.max_deliveries)
        && has != wanted
    {
        return mismatch(format!(
            "it was made with max_deliveries={has}, not {wanted}; leave it out, or remove it first"
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
        return Err(self::poisoned(segment));
    }
    Ok(())
}

/// Somebody has found what no correct peer writes.
pub(super) fn poisoned(segment: &Segment) -> Error {
    Error::new(ErrorKind::Poisoned, "attach to", segment).advise("remove it, and find who wrote to it")
}
