//! The first page: what kind of ring this is and where its parts lie. Written once, before anybody else can see it.

use std::ptr::NonNull;

use super::{PAGE, Wait};
use crate::ring::spsc::Bounds;
use crate::ring::{MAX_CAPACITY, MIN_CAPACITY, largest_message};
use crate::segment::READY_OFFSET;
use crate::sys::copy::copy_racing;

const MAGIC: [u8; 8] = *b"RINGWAY\0";
const VERSION: u32 = 1;
const RING_SPSC: u32 = 1;
const PERSIST: u32 = 1;
/// Offsets of format 1, in bytes. Readers take them from the header, so that later versions can move them.
const PRODUCER: u64 = PAGE;
const CONSUMER: u64 = 2 * PAGE;
const SEMAPHORES: u64 = 3 * PAGE;
const DATA: u64 = 4 * PAGE;

/// What a reader must understand to use a segment.
pub(crate) struct Features;

impl Features {
    /// The segment holds glibc semaphores, whose layout is glibc's own.
    pub(crate) const GLIBC_SEMAPHORE: u64 = 1;
    const KNOWN: u64 = Self::GLIBC_SEMAPHORE;
}

/// The header's bytes, little-endian.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    magic: [u8; 8],
    version: u32,
    header_bytes: u32,
    incompatible: u64,
    compatible: u64,
    total: u64,
    ring: u32,
    wait: u32,
    flags: u32,
    reserved_52: u32,
    /// Set last, by the segment layer.
    ready: u32,
    reserved_60: u32,
    capacity: u64,
    max_message: u64,
    producer: u64,
    consumer: u64,
    semaphores: u64,
    data: u64,
    /// Nanoseconds since the Unix epoch.
    created: u64,
    reserved_120: u64,
}

const HEADER_BYTES: u64 = size_of::<Header>() as u64;

static_assertions::const_assert_eq!(HEADER_BYTES, 128);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, ready), READY_OFFSET);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, total), 32);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, capacity), 64);
static_assertions::const_assert_eq!(std::mem::offset_of!(Header, data), 104);
#[cfg(not(target_endian = "little"))]
compile_error!("the segment format is little-endian, and the ring's words are used in place");

/// A checked, private copy of what a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) bounds: Bounds,
    pub(crate) wait: Wait,
    /// Whether the ring outlives its last user.
    pub(crate) persist: bool,
    /// Nanoseconds since the Unix epoch.
    pub(crate) created: u64,
    pub(super) producer: u64,
    pub(super) consumer: u64,
    pub(super) semaphores: u64,
    pub(super) data: u64,
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
    /// The geometry of a new ring of at least `capacity` bytes for messages of at least `max_message` bytes, if sizes
    /// allow it. Without `max_message` it is the largest that fits.
    pub(crate) fn new(capacity: u64, max_message: Option<u64>, wait: Wait, persist: bool) -> Option<Self> {
        let message = max_message.unwrap_or(0);
        let least = capacity.max(MIN_CAPACITY).max(message.checked_add(16)?.checked_mul(2)?);
        let capacity = least.checked_next_power_of_two().filter(|&c| c <= MAX_CAPACITY)?;
        let max_message = max_message.unwrap_or(largest_message(capacity));
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let bounds = Bounds { capacity, max_message };
        Some(Self {
            bounds,
            wait,
            persist,
            created,
            producer: PRODUCER,
            consumer: CONSUMER,
            semaphores: SEMAPHORES,
            data: DATA,
        })
    }

    /// Bytes of the whole segment.
    pub(crate) fn total(&self) -> u64 {
        self.data + self.bounds.capacity
    }

    /// Writes the header.
    ///
    /// # Safety
    /// `base` must point to [`total`](Self::total) writable bytes, 8-aligned and zeroed, that nobody else uses yet.
    pub(crate) unsafe fn write(&self, base: NonNull<u8>) {
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            header_bytes: HEADER_BYTES as u32,
            incompatible: if self.wait == Wait::Semaphore { Features::GLIBC_SEMAPHORE } else { 0 },
            compatible: 0,
            total: self.total(),
            ring: RING_SPSC,
            wait: self.wait.code(),
            flags: if self.persist { PERSIST } else { 0 },
            reserved_52: 0,
            ready: 0,
            reserved_60: 0,
            capacity: self.bounds.capacity,
            max_message: self.bounds.max_message,
            producer: self.producer,
            consumer: self.consumer,
            semaphores: self.semaphores,
            data: self.data,
            created: self.created,
            reserved_120: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { base.cast::<Header>().write(header) };
    }

    /// Reads and checks the header of a segment of `len` bytes.
    ///
    /// # Safety
    /// `base` must point to `len` mapped bytes; others may be writing them.
    pub(crate) unsafe fn read(base: NonNull<u8>, len: usize) -> Result<Self, Rejected> {
        if (len as u64) < HEADER_BYTES {
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
        if header.version != VERSION || header.incompatible & !Features::KNOWN != 0 || header.ring != RING_SPSC {
            return Err(Rejected::Newer);
        }
        if header.ready != 1 {
            return Err(Rejected::NotReady);
        }
        let Some(wait) = Wait::from_code(header.wait) else { return Err(Rejected::Newer) };
        if (wait == Wait::Semaphore) != (header.incompatible & Features::GLIBC_SEMAPHORE != 0) {
            return Err(Rejected::Damaged("the wait strategy and the features disagree"));
        }
        let capacity = header.capacity;
        if !capacity.is_power_of_two() || !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
            return Err(Rejected::Damaged("the capacity is no power of two within bounds"));
        }
        if header.max_message > largest_message(capacity) {
            return Err(Rejected::Damaged("the largest message does not fit into the ring"));
        }
        let mut parts =
            [(header.producer, PAGE), (header.consumer, PAGE), (header.semaphores, PAGE), (header.data, capacity)];
        parts.sort_unstable();
        let mut free = u64::from(header.header_bytes).max(HEADER_BYTES);
        for (offset, bytes) in parts {
            if offset < free || !offset.is_multiple_of(PAGE) {
                return Err(Rejected::Damaged("its parts overlap or are misaligned"));
            }
            free = offset.checked_add(bytes).ok_or(Rejected::Damaged("its parts overlap or are misaligned"))?;
        }
        if free > header.total || header.total > len {
            return Err(Rejected::Damaged("it is shorter than its header says"));
        }
        Ok(Self {
            bounds: Bounds { capacity, max_message: header.max_message },
            wait,
            persist: header.flags & PERSIST != 0,
            created: header.created,
            producer: header.producer,
            consumer: header.consumer,
            semaphores: header.semaphores,
            data: header.data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (Header, Geometry) {
        let geometry = Geometry::new(4096, Some(100), Wait::Semaphore, true).unwrap();
        let mut page = Box::new([0u64; 16]);
        // SAFETY: only the header's 128 bytes are written.
        unsafe { geometry.write(NonNull::from(&mut *page).cast()) };
        // SAFETY: it was just written there.
        let mut header = unsafe { page.as_ptr().cast::<Header>().read() };
        header.ready = 1;
        (header, geometry)
    }

    #[test]
    fn what_is_written_reads_back() {
        let (header, geometry) = written();
        assert_eq!(Geometry::check(&header, geometry.total()), Ok(geometry));
        assert_eq!(geometry.bounds, Bounds { capacity: 4096, max_message: 100 });
    }

    #[test]
    fn sizes_grow_to_what_fits() {
        let size = |capacity, max| Geometry::new(capacity, max, Wait::Spin, false).map(|g| g.bounds);
        assert_eq!(size(0, None), Some(Bounds { capacity: 4096, max_message: 2032 }));
        assert_eq!(size(4097, None), Some(Bounds { capacity: 8192, max_message: 4080 }));
        assert_eq!(size(0, Some(2033)), Some(Bounds { capacity: 8192, max_message: 2033 }));
        assert_eq!(size(MAX_CAPACITY, None).map(|b| b.capacity), Some(MAX_CAPACITY));
        assert_eq!(size(MAX_CAPACITY + 1, None), None);
        assert_eq!(size(u64::MAX, None), None);
        assert_eq!(size(0, Some(u64::MAX)), None);
    }

    #[test]
    fn each_damage_is_told() {
        let (good, geometry) = written();
        let total = geometry.total();
        let reject = |change: &dyn Fn(&mut Header)| {
            let mut header = good;
            change(&mut header);
            Geometry::check(&header, total).unwrap_err()
        };
        assert_eq!(reject(&|h| h.magic[0] ^= 1), Rejected::Foreign);
        assert_eq!(reject(&|h| h.version = 2), Rejected::Newer);
        assert_eq!(reject(&|h| h.incompatible |= 1 << 40), Rejected::Newer);
        assert_eq!(reject(&|h| h.ring = 9), Rejected::Newer);
        assert_eq!(reject(&|h| h.wait = 9), Rejected::Newer);
        assert_eq!(reject(&|h| h.ready = 0), Rejected::NotReady);
        let damaged = |change: &dyn Fn(&mut Header)| matches!(reject(change), Rejected::Damaged(_));
        assert!(damaged(&|h| h.incompatible = 0));
        assert!(damaged(&|h| h.capacity = 4095));
        assert!(damaged(&|h| h.capacity = 2048));
        assert!(damaged(&|h| h.capacity = 1 << 40));
        assert!(damaged(&|h| h.capacity = 8192));
        assert!(damaged(&|h| h.max_message = 4096));
        assert!(damaged(&|h| h.consumer = h.producer));
        assert!(damaged(&|h| h.producer = 0));
        assert!(damaged(&|h| h.data += 8));
        assert!(damaged(&|h| h.data = u64::MAX - 4095));
        assert!(damaged(&|h| h.total += 1));
        assert_eq!(Geometry::check(&good, total - 1), Err(Rejected::Damaged("it is shorter than its header says")));
    }
}
