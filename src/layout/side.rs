//! One page for each side: all that a side writes besides messages, so that its peer may map it read-only.

use crate::primitive::{AtomicU32, AtomicU64};
use crate::ring::spsc::Cursor;

/// Who holds a role. Written by the holder alone, who also holds the membership lock while joining.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Participant {
    /// Generation, deaths and state in one word, so that they change together.
    pub(crate) tenure: AtomicU64,
    /// The index of the lock that proves the holder alive.
    pub(crate) lock: AtomicU32,
    /// In its own pid namespace.
    pub(crate) pid: AtomicU32,
    /// The inode of that namespace.
    pub(crate) pid_namespace: AtomicU64,
    /// In clock ticks since boot.
    pub(crate) start_time: AtomicU64,
    /// The kernel's random number of this boot, as two words.
    pub(crate) boot_id: [AtomicU64; 2],
    /// Of a consumer among many: not 0 if messages that it held when it died are to be dropped.
    pub(crate) drops: AtomicU32,
}

/// The page of one side.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) participant: Participant,
    /// The consumer's positions; unused on the producer's side.
    pub(crate) cursor: Cursor,
    /// The event on which the other side sleeps: this side notifies.
    pub(crate) epoch: Line<AtomicU32>,
    /// This side's own sleep.
    pub(crate) sleep: Line<Sleep>,
    /// Not 0 once this side has seen what no correct peer writes.
    pub(crate) poisoned: Line<AtomicU32>,
}

/// What a sleeper says to those who wake it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Sleep {
    /// Its announcement.
    pub(crate) waiter: AtomicU32,
    /// How it wants to be woken.
    pub(crate) manner: AtomicU32,
}

/// A word on two cache lines of its own, since some processors fetch lines in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

static_assertions::const_assert_eq!(size_of::<Side>(), super::PAGE as usize);
static_assertions::const_assert_eq!(size_of::<Participant>(), 128);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, lock), 8);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, pid), 12);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, pid_namespace), 16);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, start_time), 24);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, boot_id), 32);
static_assertions::const_assert_eq!(std::mem::offset_of!(Participant, drops), 48);
static_assertions::const_assert_eq!(std::mem::offset_of!(Side, cursor), 128);
static_assertions::const_assert_eq!(std::mem::offset_of!(Cursor, taken), 0);
static_assertions::const_assert_eq!(std::mem::offset_of!(Cursor, released), 8);
static_assertions::const_assert_eq!(std::mem::offset_of!(Side, epoch), 256);
static_assertions::const_assert_eq!(std::mem::offset_of!(Side, sleep), 384);
static_assertions::const_assert_eq!(std::mem::offset_of!(Sleep, manner), 4);
static_assertions::const_assert_eq!(std::mem::offset_of!(Side, poisoned), 512);
