//! The bells of a ring: what each of its members sleeps on, by the ring's strategy, and whoever notifies it rings.
//!
//! A bell that is an object with a name is made by its own member before that sleeps for the first time, and opened by others when they
//! ring it first. It stays what it is as long as the ring has its name, whoever that member is, so that it is opened once.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::event::Sleep;
use super::manner::{How, Manner};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Geometry, Wait};
use crate::primitive::AtomicU32;
use crate::segment::{Object, Objects, Segment};
use crate::sys::descriptor::Ready;
use crate::sys::semaphore::RawSemaphore;
use crate::sys::sysv_sem::Set;
use crate::sys::{bell, descriptor, doorbell, futex, semaphore};

/// The bells of all members.
#[derive(Debug)]
pub(crate) struct Belfry {
    segment: Arc<Segment>,
    geometry: Geometry,
    /// Those that have names, as they are opened: one for each member, or none.
    opened: Box<[OnceLock<Object>]>,
}

/// What a member sleeps on, and is woken by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleeper {
    belfry: NonNull<Belfry>,
    member: u32,
    is_sleepless: bool,
}

// SAFETY: it leads to a belfry, which is Sync.
unsafe impl Send for Sleeper {}
// SAFETY: as above.
unsafe impl Sync for Sleeper {}

enum Bell<'a> {
    /// The member's epoch itself, as a futex.
    Epoch,
    Semaphore(*mut RawSemaphore),
    OfSet(Set),
    Descriptor(BorrowedFd<'a>),
}

impl Belfry {
    /// The bells of the ring in a segment, which has that geometry.
    ///
    /// Fails if it is none of those that can have them.
    ///
    /// # Safety
    /// The geometry must be the segment's, which its creator formatted.
    pub(crate) unsafe fn new(segment: Arc<Segment>, geometry: &Geometry) -> Result<Self> {
        let wait = geometry.wait;
        let is_named = segment.name().is_some();
        if !wait.goes_with(is_named) {
            return Err(unfit(wait, is_named, &*segment));
        }
        let (members, events) = (geometry.members(), segment.events().len());
        let wanted = if wait == Wait::Eventfd { members as usize } else { 0 };
        if events != wanted {
            return Err(Error::new(ErrorKind::Damaged, "wait in", &*segment)
                .advise(format!(
                "{events} eventfds came with it instead of {wanted}, one for each member that sleeps on one: this process may lack descriptors, see \
                 `ulimit -n`, or whoever made it is at fault"
            )));
        }
        let objects = geometry.objects().map_or(0, |objects| objects.count);
        let opened = (0..objects).map(|_| OnceLock::new()).collect();
        Ok(Self { segment, geometry: *geometry, opened })
    }

    /// Makes the bell of `member`, if it needs one. Not before it has joined, so that the bell goes with the ring whatever happens.
    pub(crate) fn hang(&self, member: u32) -> Result<()> {
        if let Some(objects) = self.geometry.objects() {
            let made = objects.open_or_create(member, &self.segment)?;
            // Whoever takes the name away looks for bells after that: it finds this one, or we find that the name is gone.
            if !self.segment.is_current()? {
                objects.remove();
            }
            // It was opened already if it rang itself.
            let _ = self.opened[member as usize].set(made);
        }
        Ok(())
    }

    /// What `member` sleeps on, and is woken by.
    ///
    /// # Safety
    /// The belfry must live as long as the sleeper is used.
    pub(crate) unsafe fn sleeper(&self, member: u32) -> Sleeper {
        Sleeper { belfry: NonNull::from(self), member, is_sleepless: self.geometry.wait == Wait::Spin }
    }

    /// The descriptor on which a member sleeps, once more, if it does that on one.
    pub(crate) fn descriptor(&self, member: u32) -> Result<Option<OwnedFd>> {
        let Some(Bell::Descriptor(fd)) = self.bell(member) else { return Ok(None) };
        let copy = fd.try_clone_to_owned();
        copy.map(Some).map_err(|e| Error::os(e, "duplicate the descriptor for waiting in", &*self.segment))
    }

    /// None if it isn't there, or can't be opened now.
    fn bell(&self, member: u32) -> Option<Bell<'_>> {
        Some(match self.geometry.wait {
            Wait::Spin | Wait::Futex => Bell::Epoch,
            Wait::Semaphore => {
                let offset = self.geometry.semaphore(member) as usize;
                // SAFETY: within the segment, as its checked geometry says.
                Bell::Semaphore(unsafe { self.segment.as_ptr().byte_add(offset) }.cast().as_ptr())
            }
            Wait::Eventfd => Bell::Descriptor(self.segment.events().get(member as usize)?.as_fd()),
            Wait::NamedSemaphore | Wait::SystemVSemaphore | Wait::Fifo => {
                match self.object(self.geometry.objects()?, member)? {
                    Object::Semaphore(semaphore) => Bell::Semaphore(semaphore.as_ptr()),
                    Object::OfSet(set) => Bell::OfSet(*set),
                    Object::Fifo(fifo) => Bell::Descriptor(File::as_fd(fifo)),
                }
            }
        })
    }

    fn object(&self, objects: Objects, member: u32) -> Option<&Object> {
        let place = self.opened.get(member as usize)?;
        if let Some(object) = place.get() {
            return Some(object);
        }
        let opened = objects.open(member, &self.segment)?;
        Some(place.get_or_init(|| opened))
    }
}

/// A ring of that kind can't wait so.
pub(crate) fn unfit(wait: Wait, is_named: bool, what: impl std::fmt::Display) -> Error {
    let (kind, names) = (if is_named { "with" } else { "without" }, Wait::names(is_named));
    Error::new(ErrorKind::InvalidInput, format!("use wait={wait} in"), what)
        .advise(format!("a ring {kind} a name can wait by {names}"))
}

impl Sleep for Sleeper {
    fn wake(self, epoch: &AtomicU32, manner: Manner) {
        // There is nobody to tell of an error, here and in `ring`, and the waiter's slice makes up for it.
        match manner.how() {
            How::Strategy => self.ring(epoch),
            How::Futex => {
                let _ = futex::wake(epoch, 1);
            }
            How::Doorbell => {
                let (ring, member) = (self.belfry().geometry.id, self.member);
                doorbell::ring(doorbell::Name { ring, member, number: manner.number() });
            }
        }
    }
}

impl Sleeper {
    /// That of another member.
    pub(crate) fn of(self, member: u32) -> Self {
        Self { member, ..self }
    }

    /// Whether waiters never sleep, and need not be woken.
    #[inline(always)]
    pub(crate) fn is_sleepless(self) -> bool {
        self.is_sleepless
    }

    fn belfry(&self) -> &Belfry {
        // SAFETY: it lives, by the promise to `sleeper`.
        unsafe { self.belfry.as_ref() }
    }

    fn ring(self, epoch: &AtomicU32) {
        let rung = match self.belfry().bell(self.member) {
            // If it isn't there: as in `sleep`.
            Some(Bell::Epoch) | None => futex::wake(epoch, 1).map(drop),
            // SAFETY: its creator has initialised it; it is mapped as long as the belfry.
            Some(Bell::Semaphore(semaphore)) => unsafe { semaphore::post(semaphore) },
            Some(Bell::OfSet(set)) => set.ring(self.member),
            Some(Bell::Descriptor(fd)) => {
                bell::ring(fd);
                Ok(())
            }
        };
        if rung.is_err() {
            let _ = futex::wake(epoch, 1);
        }
    }

    /// Sleeps until woken, or until `deadline`, or a little, for no reason. Not if the epoch isn't the `expected` one any longer.
    pub(super) fn sleep(self, epoch: &AtomicU32, expected: u32, deadline: Duration) {
        // A signal and a spurious wake are answered by the caller's next look.
        let slept = match self.belfry().bell(self.member) {
            // SAFETY: as in `ring`.
            Some(Bell::Semaphore(semaphore)) => unsafe { semaphore::wait(semaphore, deadline) },
            Some(Bell::OfSet(set)) => set.await_ring(self.member, deadline),
            Some(Bell::Descriptor(fd)) => descriptor::wait_one(fd, Ready::Read, Some(deadline)).inspect(|&rung| {
                if rung {
                    bell::clear(fd);
                }
            }),
            Some(Bell::Epoch) | None => futex::wait(epoch, expected, Some(deadline)).map(|_| false),
        };
        if slept.is_err_and(|e| e.kind() != std::io::ErrorKind::Interrupted) {
            // The set was taken away, for all: who rings finds the same. Any other error must not have the caller look without end.
            let _ = futex::wait(epoch, expected, Some(deadline));
        }
    }

    /// Forgets wakes that came too late for earlier waits, where that takes no system call: each would end a sleep for nothing.
    pub(super) fn settle(self) {
        if let Some(Bell::Semaphore(semaphore)) = self.belfry().bell(self.member) {
            // Each wait is notified at most once, so there are few; the bound is against a peer that keeps posting.
            for _ in 0..16 {
                // SAFETY: as in `ring`.
                if !unsafe { semaphore::try_wait(semaphore) } {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Form, PAGE, SpscLayout};
    use crate::segment::{Key, Name, remove};
    use crate::sys::child::Child;
    use crate::sys::clock;

    struct Named(Name);

    impl Drop for Named {
        fn drop(&mut self) {
            let _ = remove(&self.0);
        }
    }

    /// Names that carry the pid and `number`, which no two tests share.
    fn names(number: i32) -> [Named; 2] {
        let pid = std::process::id();
        let key = 0x3000_0000 | number << 22 | pid as i32;
        [Named(Name::Posix(format!("ringway-belfry-{pid}-{number}"))), Named(Name::SysV(Key::Raw(key)))]
    }

    fn geometry(wait: Wait) -> Geometry {
        let id = crate::sys::random::number().unwrap();
        Geometry::new(Form::Spsc(SpscLayout::new(4096, None).unwrap()), wait, false, id)
    }

    fn format(base: NonNull<u8>, geometry: &Geometry) {
        // SAFETY: fresh memory of that size.
        unsafe {
            geometry.write(base);
            for member in 0..geometry.members() {
                semaphore::init(base.byte_add(geometry.semaphore(member) as usize).cast().as_ptr()).unwrap();
            }
        }
    }

    fn named(name: &Name, wait: Wait) -> (Arc<Segment>, Geometry) {
        let geometry = geometry(wait);
        let create = |base| format(base, &geometry);
        (Arc::new(Segment::create_new(name, geometry.total() as usize, 0o600, 17, create).unwrap()), geometry)
    }

    fn unnamed(wait: Wait) -> (Arc<Segment>, Geometry) {
        let geometry = geometry(wait);
        let create = |base| format(base, &geometry);
        let segment = Segment::memfd("belfry", geometry.total() as usize, 0o600, create).unwrap();
        let segment = if wait == Wait::Eventfd { segment.with_events(geometry.members()).unwrap() } else { segment };
        (Arc::new(segment), geometry)
    }

    fn belfry(segment: &Arc<Segment>, geometry: &Geometry) -> Belfry {
        // SAFETY: it was formatted so.
        unsafe { Belfry::new(Arc::clone(segment), geometry) }.unwrap()
    }

    /// A word of the segment that nothing else uses here.
    fn epoch(segment: &Segment) -> &AtomicU32 {
        // SAFETY: within the segment, aligned, mapped as long as it.
        unsafe { segment.as_ptr().add(PAGE as usize).cast::<AtomicU32>().as_ref() }
    }

    fn long() -> Duration {
        clock::now() + Duration::from_secs(30)
    }

    /// Another process sleeps until it is rung for, several times.
    fn ring_a_sleeper(segment: &Arc<Segment>, geometry: &Geometry) {
        let epoch = epoch(segment);
        let mut child = Child::fork(|tell| {
            let belfry = belfry(segment, geometry);
            belfry.hang(1).unwrap();
            // SAFETY: the belfry lives.
            let sleeper = unsafe { belfry.sleeper(1) };
            for _ in 0..3 {
                tell.say(b's');
                sleeper.sleep(epoch, 0, long());
            }
            tell.say(b'e');
            tell.sleep_until_killed()
        });
        let ours = belfry(segment, geometry);
        // SAFETY: the belfry lives.
        let ringer = unsafe { ours.sleeper(0) }.of(1);
        for _ in 0..3 {
            child.expect(b's');
            child.await_sleep();
            ringer.wake(epoch, Manner::STRATEGY);
        }
        child.expect(b'e');
    }

    const NAMED: [Wait; 5] = [Wait::Futex, Wait::Semaphore, Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo];

    #[test]
    fn whoever_sleeps_by_any_strategy_is_rung_by_another_process() {
        for wait in NAMED {
            for name in names(1) {
                let (segment, geometry) = named(&name.0, wait);
                ring_a_sleeper(&segment, &geometry);
            }
        }
        for wait in [Wait::Futex, Wait::Semaphore, Wait::Eventfd] {
            let (segment, geometry) = unnamed(wait);
            ring_a_sleeper(&segment, &geometry);
        }
    }

    #[test]
    fn a_ring_that_comes_before_the_sleep_ends_it_and_sleep_ends_in_time() {
        let [name, _] = names(2);
        for wait in NAMED.into_iter().skip(1) {
            let (segment, geometry) = named(&name.0, wait);
            let belfry = belfry(&segment, &geometry);
            belfry.hang(0).unwrap();
            // SAFETY: the belfry lives.
            let sleeper = unsafe { belfry.sleeper(0) };
            for _ in 0..3 {
                sleeper.wake(epoch(&segment), Manner::STRATEGY);
                sleeper.sleep(epoch(&segment), 0, long());
                let deadline = clock::now() + Duration::from_millis(5);
                sleeper.sleep(epoch(&segment), 0, deadline);
                assert!(clock::now() >= deadline, "{wait}");
            }
            segment.unlink().unwrap();
        }
    }

    #[test]
    fn strategies_are_refused_where_they_cannot_be() {
        let [name, _] = names(3);
        let refused = |segment: &Arc<Segment>, wait, others: &str| {
            // SAFETY: it isn't used.
            let error = unsafe { Belfry::new(Arc::clone(segment), &geometry(wait)) }.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(others), "{error}");
        };
        let (segment, _) = named(&name.0, Wait::Futex);
        refused(&segment, Wait::Eventfd, "with a name can wait by spin, futex, sem, named-sem, sysv-sem, fifo");
        let (segment, geometry) = unnamed(Wait::Eventfd);
        for wait in [Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo] {
            refused(&segment, wait, "without a name can wait by spin, futex, sem, eventfd");
        }
        let without = Segment::memfd("belfry", geometry.total() as usize, 0o600, |base| format(base, &geometry));
        // SAFETY: it isn't used.
        let error = unsafe { Belfry::new(Arc::new(without.unwrap()), &geometry) }.unwrap_err();
        assert!(error.to_string().contains("0 eventfds came with it instead of 2"), "{error}");
    }

    #[test]
    fn a_bell_made_after_the_ring_was_removed_is_not_left_behind() {
        for wait in [Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo] {
            for name in names(5) {
                let (segment, geometry) = named(&name.0, wait);
                let (late, other) = (belfry(&segment, &geometry), belfry(&segment, &geometry));
                remove(&name.0).unwrap();
                late.hang(0).unwrap();
                assert!(geometry.objects().unwrap().open(0, &segment).is_none(), "{wait}");
                // It still ends its sleeps in time, and is rung by whoever finds nothing else to ring.
                let epoch = epoch(&segment);
                // SAFETY: both belfries live.
                let (sleeper, ringer) = unsafe { (late.sleeper(0), other.sleeper(0)) };
                ringer.wake(epoch, Manner::STRATEGY);
                sleeper.sleep(epoch, 0, clock::now() + Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn once_the_set_is_gone_members_still_find_each_other() {
        let [name, _] = names(4);
        let (segment, geometry) = named(&name.0, Wait::SystemVSemaphore);
        let epoch = epoch(&segment);
        let mut child = Child::fork(|tell| {
            let belfry = belfry(&segment, &geometry);
            belfry.hang(1).unwrap();
            tell.say(b's');
            // SAFETY: the belfry lives.
            let sleeper = unsafe { belfry.sleeper(1) };
            sleeper.sleep(epoch, 0, long());
            // Nor does an error that stays make it look without end.
            let deadline = clock::now() + Duration::from_millis(5);
            sleeper.sleep(epoch, 1, deadline);
            assert!(clock::now() >= deadline);
        });
        let ours = belfry(&segment, &geometry);
        child.expect(b's');
        child.await_sleep();
        remove(&name.0).unwrap();
        // As those do who notify: the sleeper may not have come back to sleep yet.
        epoch.store(1, crate::primitive::Ordering::Release);
        // SAFETY: the belfry lives.
        unsafe { ours.sleeper(1) }.wake(epoch, Manner::STRATEGY);
        child.expect_success();
    }
}
