//! The first page: what kind of ring this is and where its parts lie. Written once, before anybody else can see it.

use std::ptr::NonNull;

use super::{MpmcLayout, PAGE, Ring, SEMAPHORE, SpscLayout, Wait};
use crate::ring::mpmc::{MAX_CONSUMERS, MAX_PRODUCERS};
use crate::segment::{COUNT_OFFSET, ID_OFFSET, KIND_OFFSET, MOST_OBJECTS, Objects, READY_OFFSET};
use crate::sys::copy::copy_racing;

const MAGIC: [u8; 8] = *b"RINGWAY\0";
const VERSION: u32 = 1;
const PERSIST: u32 = 1;

/// What a reader must understand to use a segment.
pub(crate) struct Features;

impl Features {
    /// Waiting takes glibc semaphores, whose layout is glibc's own: in the segment, or with names.
    const GLIBC_SEMAPHORE: u64 = 1;
    const KNOWN: u64 = Self::GLIBC_SEMAPHORE;

    /// What a wait strategy takes.
    fn of(wait: Wait) -> u64 {
        match wait {
            Wait::Semaphore | Wait::NamedSemaphore => Self::GLIBC_SEMAPHORE,
            _ => 0,
        }
    }
}

/// The header's bytes, little-endian.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Header {
    magic: [u8; 8],
    version: u32,
    header_bytes: u32,
    incompatible: u64,
    compatible: u64,
    total: u64,
    ring: u32,
    wait: u32,
    flags: u32,
    /// How many named objects may go with it, on which its members sleep.
    objects: u32,
    /// Set last, by the segment layer.
    ready: u32,
    reserved_60: u32,
    pub(super) capacity: u64,
    pub(super) max_message: u64,
    /// Where the parts lie. What they are depends on the ring.
    pub(super) parts: [u64; 4],
    /// Nanoseconds since the Unix epoch.
    created: u64,
    /// A random number of this ring's; 0 of those made before there was one.
    id: u64,
    /// Only of a ring with lanes; else its bytes are not the header's.
    pub(super) lanes: LanesHeader,
}

/// What only the header of a ring with lanes has.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct LanesHeader {
    pub(super) lanes: u32,
    pub(super) consumers: u32,
    pub(super) max_deliveries: u32,
    pub(super) chunk: u32,
    pub(super) slots: u64,
    pub(super) lane_bytes: u64,
    pub(super) pools: [[u32; 2]; 6],
    pub(super) reserved_80: [u64; 6],
}

const HEADER_BYTES: u64 = std::mem::offset_of!(Header, lanes) as u64;
const LANES_HEADER_BYTES: u64 = size_of::<Header>() as u64;

static_assertions::const_assert_eq!(HEADER_BYTES, 128);
static_assertions::const_assert_eq!(LANES_HEADER_BYTES, 256);
static_assertions::const_assert!(LANES_HEADER_BYTES <= PAGE);
static_assertions::const_assert!(MAX_PRODUCERS + MAX_CONSUMERS <= MOST_OBJECTS);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, ready), READY_OFFSET);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, wait), KIND_OFFSET);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, objects), COUNT_OFFSET);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, id), ID_OFFSET);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, total), 32);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, capacity), 64);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, parts), 80);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, created), 112);
static_assertions::const_assert_eq!(std::mem::offset_of!(LanesHeader, slots), 16);
static_assertions::const_assert_eq!(std::mem::offset_of!(LanesHeader, pools), 32);
#[cfg(not(target_endian = "little"))]
compile_error!("the segment format is little-endian, and the ring's words are used in place");

/// A checked, private copy of what a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) wait: Wait,
    /// Whether the ring outlives its last user.
    pub(crate) persist: bool,
    /// Nanoseconds since the Unix epoch.
    pub(crate) created: u64,
    /// A random number of this ring's; 0 of those made before there was one.
    pub(crate) id: u64,
    pub(crate) form: Form,
}

/// The parts of the segment, by the kind of its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Spsc(SpscLayout),
    Mpmc(MpmcLayout),
}

/// Why bytes are not a ring that this version can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The magic is missing.
    Foreign,
    /// A later version, a ring kind or a feature that this one doesn't know.
    Newer,
    /// The creator has not finished, or never will.
    NotReady,
    /// The header contradicts itself or the segment's size.
    Damaged(&'static str),
}

impl Geometry {
    /// The geometry of a new ring, with a random number of its own.
    pub(crate) fn new(form: Form, wait: Wait, persist: bool, id: u64) -> Self {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Self { wait, persist, created, id, form }
    }

    /// How many members it can have, each of whom sleeps by itself.
    pub(crate) fn members(&self) -> u32 {
        match &self.form {
            Form::Spsc(_) => 2,
            Form::Mpmc(layout) => layout.members(),
        }
    }

    /// Where the semaphore of a member lies, on which it sleeps with `wait=sem`: in bytes from the start.
    pub(crate) fn semaphore(&self, member: u32) -> u64 {
        assert!(member < self.members());
        let first = match &self.form {
            Form::Spsc(layout) => layout.semaphores,
            Form::Mpmc(layout) => layout.semaphores,
        };
        first + u64::from(member) * SEMAPHORE
    }

    /// The named objects on which they sleep.
    pub(crate) fn objects(&self) -> Option<Objects> {
        let kind = self.wait.objects()?;
        Some(Objects { kind, count: self.members(), id: self.id })
    }

    /// The kind of the ring.
    pub(crate) fn ring(&self) -> Ring {
        match self.form {
            Form::Spsc(_) => Ring::Spsc,
            Form::Mpmc(_) => Ring::Mpmc,
        }
    }

    /// Bytes that messages can fill.
    pub(crate) fn capacity(&self) -> u64 {
        match &self.form {
            Form::Spsc(layout) => layout.bounds.capacity,
            Form::Mpmc(layout) => layout.capacity(),
        }
    }

    /// The longest message, in bytes.
    pub(crate) fn max_message(&self) -> u64 {
        match &self.form {
            Form::Spsc(layout) => layout.bounds.max_message,
            Form::Mpmc(layout) => layout.shape.max_message,
        }
    }

    /// Bytes of the whole segment.
    pub(crate) fn total(&self) -> u64 {
        match &self.form {
            Form::Spsc(layout) => layout.end(),
            Form::Mpmc(layout) => layout.end(),
        }
    }

    /// Writes the header.
    ///
    /// # Safety
    /// `base` must point to [`total`](Self::total) writable bytes, 8-aligned and zeroed, that nobody else uses yet.
    pub(crate) unsafe fn write(&self, base: NonNull<u8>) {
        let (parts, lanes, header_bytes) = match &self.form {
            Form::Spsc(layout) => (layout.parts(), None, HEADER_BYTES),
            Form::Mpmc(layout) => (layout.parts(), Some(layout.header()), LANES_HEADER_BYTES),
        };
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            header_bytes: header_bytes as u32,
            incompatible: Features::of(self.wait),
            compatible: 0,
            total: self.total(),
            ring: self.ring().code(),
            wait: self.wait.code(),
            flags: if self.persist { PERSIST } else { 0 },
            objects: self.objects().map_or(0, |objects| objects.count),
            ready: 0,
            reserved_60: 0,
            capacity: self.capacity(),
            max_message: self.max_message(),
            parts,
            created: self.created,
            id: self.id,
            lanes: lanes.unwrap_or_default(),
        };
        // SAFETY: the caller's promise; behind the header of a ring without lanes these bytes stay zero.
        unsafe { base.cast::<Header>().write(header) };
    }

    /// Reads and checks the header of a segment of `len` bytes.
    ///
    /// # Safety
    /// `base` must point to `len` mapped bytes; others may be writing them.
    pub(crate) unsafe fn read(base: NonNull<u8>, len: usize) -> Result<Self, Rejected> {
        if (len as u64) < LANES_HEADER_BYTES {
            return Err(Rejected::Foreign);
        }
        let mut header = std::mem::MaybeUninit::<Header>::uninit();
        // SAFETY: both ranges have the header's size; the copy is made for memory that others write. Any bytes are a
        // Header.
        let header = unsafe {
            copy_racing(header.as_mut_ptr().cast(), base.as_ptr(), size_of::<Header>());
            header.assume_init()
        };
        Self::check(&header, len as u64)
    }

    fn check(header: &Header, len: u64) -> Result<Self, Rejected> {
        if header.magic != MAGIC {
            return Err(Rejected::Foreign);
        }
        if header.version != VERSION || header.incompatible & !Features::KNOWN != 0 {
            return Err(Rejected::Newer);
        }
        let Some(ring) = Ring::from_code(header.ring) else { return Err(Rejected::Newer) };
        if header.ready != 1 {
            return Err(Rejected::NotReady);
        }
        let Some(wait) = Wait::from_code(header.wait) else { return Err(Rejected::Newer) };
        if Features::of(wait) != header.incompatible {
            return Err(Rejected::Damaged("the wait strategy and the features disagree"));
        }
        let (form, sizes, least) = match ring {
            Ring::Spsc => {
                let layout = SpscLayout::check(header)?;
                (Form::Spsc(layout), layout.sizes(), HEADER_BYTES)
            }
            Ring::Mpmc => {
                let layout = MpmcLayout::check(header)?;
                (Form::Mpmc(layout), layout.sizes(), LANES_HEADER_BYTES)
            }
        };
        let mut parts: [(u64, u64); 4] = std::array::from_fn(|part| (header.parts[part], sizes[part]));
        parts.sort_unstable();
        let mut free = u64::from(header.header_bytes).max(least);
        for (offset, bytes) in parts {
            if offset < free || !offset.is_multiple_of(PAGE) {
                return Err(Rejected::Damaged("its parts overlap or are misaligned"));
            }
            free = offset.checked_add(bytes).ok_or(Rejected::Damaged("its parts overlap or are misaligned"))?;
        }
        if free > header.total || header.total > len {
            return Err(Rejected::Damaged("it is shorter than its header says"));
        }
        let persist = header.flags & PERSIST != 0;
        let geometry = Self { wait, persist, created: header.created, id: header.id, form };
        if geometry.objects().map_or(0, |objects| objects.count) != header.objects {
            return Err(Rejected::Damaged("the wait strategy and the number of objects for it disagree"));
        }
        Ok(geometry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form) -> (Header, Geometry) {
        let geometry = Geometry::new(form, Wait::NamedSemaphore, true, 7);
        let mut page = Box::new([0u64; 32]);
        // SAFETY: only the header's 256 bytes are written.
        unsafe { geometry.write(NonNull::from(&mut *page).cast()) };
        // SAFETY: it was just written there.
        let mut header = unsafe { page.as_ptr().cast::<Header>().read() };
        header.ready = 1;
        (header, geometry)
    }

    fn pair() -> Form {
        Form::Spsc(SpscLayout::new(4096, Some(100)).unwrap())
    }

    fn lanes() -> Form {
        Form::Mpmc(MpmcLayout::new(1 << 20, Some(10_000), 3, 5).unwrap())
    }

    #[test]
    fn what_is_written_reads_back() {
        for form in [pair(), lanes()] {
            let (header, geometry) = written(form);
            assert_eq!(Geometry::check(&header, geometry.total()), Ok(geometry));
            assert_eq!(geometry.form, form);
        }
    }

    fn reject(form: Form, change: &dyn Fn(&mut Header)) -> Rejected {
        let (mut header, geometry) = written(form);
        change(&mut header);
        Geometry::check(&header, geometry.total()).unwrap_err()
    }

    #[test]
    fn each_damage_is_told() {
        for form in [pair(), lanes()] {
            let reject = |change: &dyn Fn(&mut Header)| reject(form, change);
            assert_eq!(reject(&|h| h.magic[0] ^= 1), Rejected::Foreign);
            assert_eq!(reject(&|h| h.version = 2), Rejected::Newer);
            assert_eq!(reject(&|h| h.incompatible |= 1 << 40), Rejected::Newer);
            assert_eq!(reject(&|h| h.ring = 9), Rejected::Newer);
            assert_eq!(reject(&|h| h.wait = 9), Rejected::Newer);
            assert_eq!(reject(&|h| h.ready = 0), Rejected::NotReady);
            let damaged = |change: &dyn Fn(&mut Header)| matches!(reject(change), Rejected::Damaged(_));
            assert!(damaged(&|h| h.incompatible = 0));
            assert!(damaged(&|h| h.objects += 1));
            assert!(damaged(&|h| h.capacity += 1));
            assert!(damaged(&|h| h.max_message = 1 << 40));
            assert!(damaged(&|h| h.parts[1] = h.parts[0]));
            assert!(damaged(&|h| h.parts[0] = 0));
            assert!(damaged(&|h| h.parts[3] += 8));
            assert!(damaged(&|h| h.parts[3] = u64::MAX - 4095));
            assert!(damaged(&|h| h.total += 1));
            let (good, geometry) = written(form);
            let short = Geometry::check(&good, geometry.total() - 1);
            assert_eq!(short, Err(Rejected::Damaged("it is shorter than its header says")));
        }
    }

    #[test]
    fn each_damage_of_a_pair_is_told() {
        let damaged = |change: &dyn Fn(&mut Header)| matches!(reject(pair(), change), Rejected::Damaged(_));
        assert!(damaged(&|h| h.capacity = 2048));
        assert!(damaged(&|h| h.capacity = 1 << 40));
        assert!(damaged(&|h| h.capacity = 8192));
        assert!(damaged(&|h| h.max_message = 4096));
    }

    #[test]
    fn each_damage_of_lanes_is_told() {
        let damaged = |change: &dyn Fn(&mut Header)| matches!(reject(lanes(), change), Rejected::Damaged(_));
        assert!(damaged(&|h| h.lanes.lanes = 0));
        assert!(damaged(&|h| h.lanes.lanes = 65));
        assert!(damaged(&|h| h.lanes.consumers = 63));
        assert!(damaged(&|h| h.lanes.max_deliveries = 0));
        assert!(damaged(&|h| h.lanes.max_deliveries = 16));
        assert!(damaged(&|h| h.lanes.chunk = 0));
        assert!(damaged(&|h| h.lanes.chunk += 8));
        assert!(damaged(&|h| h.lanes.slots += 1));
        assert!(damaged(&|h| h.lanes.slots = 1 << 60));
        assert!(damaged(&|h| h.lanes.lane_bytes += 4096));
        assert!(damaged(&|h| h.lanes.pools[0][0] = 64));
        assert!(damaged(&|h| h.lanes.pools[0] = [0, 0]));
        assert!(damaged(&|h| h.lanes.pools[1][1] = 0));
        assert!(damaged(&|h| h.lanes.pools[0][1] = u32::MAX));
        assert!(damaged(&|h| h.max_message += 64));
    }
}
