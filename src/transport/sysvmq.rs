//! System V message queues: any number of senders, and one receiver of frames; any number of receivers without frames.
//!
//! With frames, a message's type is its tag plus 1, so that a receiver can select a tag out of order; or, with `type=` in the
//! address, that type, which is then the only one that is received. Hellos and goodbyes have types that no message has. Where all is
//! received, it is received in the queue's order, which keeps a goodbye behind the messages of its sender. Where some is selected,
//! a goodbye is taken last, and held back: until no message of any tag is left that was there before (with `type=`, of that type).
//! Nor is a sender that died given up before.
//!
//! Without frames, a message's type is its tag, or for tag 0 the address's type, or 1. The tag of what is received is its type.
//!
//! A queue doesn't show who uses it. So with frames a set of semaphores goes with it, of the same key and mode: who joins raises one,
//! and the kernel lowers it again for the dead. Whoever leaves takes both away if no message is left and nobody else is there, unless
//! somebody said `persist=yes` or the queue was there before: it raises a semaphore of its own, in one operation with the check that
//! the others are 0, and nobody joins while that is raised. Who found the queue before, and can't or could raise a semaphore, finds that the key leads elsewhere,
//! and begins anew. Without frames there may be semaphores of others under that key, so there is no set, and only the receiver that
//! made a queue takes it away.
//!
//! The kernel has no waiting with a deadline here, so that whoever waits tries again, after pauses of 50 µs that double to 10 ms.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::feed::{Buffer, Feed};
use super::frame::{HEADER, Identity, Kind};
use super::plan::{Pauses, Plan};
use super::port::Port;
use super::{Receiver, Sender};
use crate::channel::{Existence, Framing, PeerState, SendError};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Key;
use crate::sys::clock;
use crate::sys::sysv_msg::{self, KIND_LEN, Queue};
use crate::sys::sysv_sem::{self, Set};

/// Raised by the receiver.
const RECEIVER: u32 = 0;
/// Raised by each sender.
const SENDERS: u32 = 1;
/// Raised by who takes the queue away.
const REMOVER: u32 = 2;
/// 1 if the queue goes with the last one: not one that was there before the semaphores.
const TEMPORARY: u32 = 3;
const SEMAPHORES: u32 = 4;

/// The highest type of a message with frames; those above are for hellos and goodbyes.
const LAST: i64 = 1 << 32;
const HELLO: i64 = LAST + 1;
const GOODBYE: i64 = LAST + 2;

/// What frames need at least: the first one of each sender is that long.
const LEAST: usize = HEADER + Identity::BYTES;
/// What the kernel has unless told, where it doesn't say.
const LONGEST: u64 = 8192;
/// How long taking a queue away can take somebody else.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn sender(plan: &Plan, key: &Key, kind: Option<u32>) -> Result<Sender> {
    let framing = plan.piece_framing()?;
    let meeting = Meeting::join(plan, key.number()?, framing, SENDERS)?;
    let was_received = meeting.has_receiver();
    let port = QueuePort { meeting, kind, was_received, whole: Vec::new(), pauses: Pauses::new() };
    Ok(Sender::carried(plan.outward(port, framing)?))
}

pub(super) fn receiver(plan: &Plan, key: &Key, kind: Option<u32>) -> Result<Receiver> {
    let framing = plan.piece_framing()?;
    let meeting = Meeting::join(plan, key.number()?, framing, RECEIVER)?;
    let feed = QueueFeed { meeting, kind, selected: None, farewell: None, was_removed: false, pauses: Pauses::new() };
    Ok(Receiver::carried(plan.inward(Box::new(feed), framing, false)))
}

/// Takes away the queue of that key, unless somebody uses it and it is not to be taken away nevertheless.
pub(super) fn remove(plan: &Plan, key: &Key, even_if_used: bool) -> Result<()> {
    let key = key.number()?;
    let queue = Queue::open(key).map_err(|e| plan.failed("open", e))?;
    // One of another size isn't the queue's.
    let is_own = |set: &Set| set.status().is_ok_and(|status| status.count == SEMAPHORES);
    let set = Set::find(key).ok().filter(is_own);
    let locked = set.filter(|_| !even_if_used);
    if let Some(set) = locked {
        let goes = set.try_enter(REMOVER, &[RECEIVER, SENDERS, REMOVER]).map_err(|e| plan.failed("lock", e))?;
        if !goes {
            let receiver = set.value(RECEIVER).is_ok_and(|count| count > 0).then(|| set.last_pid(RECEIVER).ok());
            let pid = receiver.flatten().or_else(|| set.last_pid(SENDERS).ok()).unwrap_or(0);
            return Err(Error::new(ErrorKind::RoleTaken { pid }, "remove", plan.address.target())
                .advise("a sender or receiver uses it"));
        }
    }
    queue.remove().map_err(|e| {
        // It stays, so that others may join again.
        let _ = locked.map(|set| set.free(REMOVER));
        plan.failed("remove", e)
    })?;
    set.map_or(Ok(()), Set::remove).map_err(|e| plan.failed("remove the semaphores of", e))
}

/// A queue that this endpoint uses, with its semaphores if there are to be any.
#[derive(Debug)]
struct Meeting {
    key: i32,
    queue: Queue,
    set: Option<Set>,
    /// The semaphore that this endpoint has raised.
    role: u32,
    /// The longest message that it takes.
    unit: usize,
    /// Without semaphores, whether the queue goes with this endpoint.
    is_owned: bool,
    has_left: bool,
}

impl Meeting {
    fn join(plan: &Plan, key: i32, framing: Framing, role: u32) -> Result<Self> {
        let deadline = clock::now().saturating_add(PATIENCE);
        let mut pauses = Pauses::new();
        // What this made is its own in later rounds, too, when somebody was still taking away the semaphores of an older queue.
        let mut made = None;
        loop {
            let Some((queue, is_new)) = open_or_create(plan, key)? else { continue };
            if is_new {
                made = Some(queue);
            }
            let is_made = made == Some(queue);
            let Some(unit) = check(plan, queue, is_made, framing)? else { continue };
            let set = match framing {
                Framing::Frames => match enter(plan, key, role)? {
                    Some(set) => Some(set),
                    None if pauses.pause(deadline) => continue,
                    None => return Err(plan.failed("lock", io::Error::from_raw_os_error(libc::EBUSY))),
                },
                _ => None,
            };
            if !Queue::open(key).is_ok_and(|there| there == queue) {
                let _ = set.map(|set| set.free(role));
                continue;
            }
            if let Some(set) = set.filter(|_| is_made || plan.persists()) {
                set.set_value(TEMPORARY, (!plan.persists()).into()).map_err(|e| plan.failed("mark", e))?;
            }
            let is_owned = is_made && role == RECEIVER && !plan.persists();
            return Ok(Self { key, queue, set, role, unit, is_owned, has_left: false });
        }
    }

    /// Whether anybody receives frames.
    fn has_receiver(&self) -> bool {
        self.set.is_some_and(|set| set.value(RECEIVER).is_ok_and(|count| count > 0))
    }

    /// Whether there is a message of that type, or with frames of any if it is `None`: without taking it.
    fn has_message(&self, kind: Option<u32>) -> io::Result<bool> {
        // A negative type is any up to that.
        let wanted = kind.map_or(-LAST, i64::from);
        loop {
            // Each has a header, for which there is no room here.
            match self.queue.receive(wanted, &mut [0; KIND_LEN]) {
                Err(e) if e.raw_os_error() == Some(libc::E2BIG) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
                // An empty one was no frame.
                Ok(_) => {}
            }
        }
    }

    /// Leaves, and says whether that took the queue away.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.has_left, true) {
            return false;
        }
        let Some(set) = self.set else {
            let is_empty = self.is_owned && self.queue.status().is_ok_and(|status| status.messages == 0);
            return is_empty && self.queue.remove().is_ok();
        };
        let _ = set.free(self.role);
        self.take_away(set).unwrap_or(false)
    }

    fn take_away(&self, set: Set) -> io::Result<bool> {
        if !set.try_enter(REMOVER, &[RECEIVER, SENDERS, REMOVER])? {
            return Ok(false);
        }
        let is_there = Queue::open(self.key).is_ok_and(|there| there == self.queue);
        let goes = is_there && set.value(TEMPORARY)? > 0 && !self.has_message(None)?;
        if !goes {
            set.free(REMOVER)?;
            return Ok(false);
        }
        // In this order: while the set is there, nobody joins.
        self.queue.remove()?;
        set.remove()?;
        Ok(true)
    }
}

/// The queue, and whether it was made; none if it came or went just now.
fn open_or_create(plan: &Plan, key: i32) -> Result<Option<(Queue, bool)>> {
    if plan.existence() != Existence::CreateNew {
        match Queue::open(key) {
            Ok(queue) => return Ok(Some((queue, false))),
            Err(e) if e.kind() == io::ErrorKind::NotFound && plan.existence() == Existence::OpenOrCreate => {}
            Err(e) => return Err(plan.failed("open", e)),
        }
    }
    match Queue::create_new(key, plan.perm()) {
        Ok(queue) => Ok(Some((queue, true))),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && plan.existence() == Existence::OpenOrCreate => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
            let most = sysv_msg::limits().2.unwrap_or_default();
            Err(plan.failed("create", e).advise(format!(
                "there are as many queues as /proc/sys/kernel/msgmni allows, {most}: remove some with `ipcrm`, or raise it with \
                 `sysctl kernel.msgmni`"
            )))
        }
        Err(e) => Err(plan.failed("create", e)),
    }
}

/// Makes the queue as wanted, or refuses it; how long a message may be. None if it went just now.
fn check(plan: &Plan, queue: Queue, is_made: bool, framing: Framing) -> Result<Option<usize>> {
    let outcome = fit(plan, queue, framing);
    if outcome.is_err() && is_made {
        let _ = queue.remove();
    }
    outcome
}

fn fit(plan: &Plan, queue: Queue, framing: Framing) -> Result<Option<usize>> {
    let status = match queue.status() {
        Err(e) if sysv_msg::was_removed(&e) => return Ok(None),
        status => status.map_err(|e| plan.failed("look at", e))?,
    };
    plan.check_owner(status.uid)?;
    let (longest, most_bytes, _) = sysv_msg::limits();
    let longest = longest.unwrap_or(LONGEST);
    let least = match framing {
        Framing::None => plan.max_message().unwrap_or(0),
        _ => LEAST,
    } as u64;
    if least > longest {
        return Err(plan.refuse(
            ErrorKind::InvalidInput,
            format!(
                "messages of {least} bytes are more than /proc/sys/kernel/msgmax allows, {longest}: ask for a smaller \
                 max_message, or raise it with `sysctl kernel.msgmax={least}`"
            ),
        ));
    }
    let wanted = plan.capacity().map_or(0, |bytes| bytes as u64).max(least);
    if wanted > status.most_bytes {
        match queue.set_most_bytes(wanted) {
            Err(e) if sysv_msg::was_removed(&e) => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                let most = most_bytes.unwrap_or_default();
                return Err(plan.failed(&format!("make room for {wanted} bytes in"), e).advise(format!(
                    "without privileges, and without owning it, a queue holds at most what it does, {} bytes, and at most \
                     what /proc/sys/kernel/msgmnb allows, {most}: ask for less capacity, or raise it with `sysctl \
                     kernel.msgmnb={wanted}`",
                    status.most_bytes
                )));
            }
            outcome => outcome.map_err(|e| plan.failed("make room in", e))?,
        }
    }
    Ok(Some(longest.min(status.most_bytes.max(wanted)) as usize))
}

/// Raises the semaphore of a role. None while somebody takes the queue away.
fn enter(plan: &Plan, key: i32, role: u32) -> Result<Option<Set>> {
    let failed = |e| plan.failed("use the semaphores of", e);
    let set = match Set::find(key) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match Set::create(key, SEMAPHORES, plan.perm()) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                return Err(failed(e).advise(
                    "there are as many semaphores as the kernel allows, see /proc/sys/kernel/sem: remove some with `ipcrm`",
                ));
            }
            set => set.map_err(failed)?,
        },
        set => set.map_err(failed)?,
    };
    match set.status() {
        Ok(status) if status.count == SEMAPHORES => plan.check_owner(status.uid)?,
        Ok(_) => {
            return Err(plan.refuse(
                ErrorKind::Mismatch,
                "the semaphores of that key are another program's; choose another key, or framing=none, which needs none",
            ));
        }
        Err(e) if sysv_sem::was_removed(&e) => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let is_in = match role {
        RECEIVER => set.try_enter(RECEIVER, &[RECEIVER, REMOVER]),
        _ => set.try_enter(SENDERS, &[REMOVER]),
    };
    match is_in {
        Ok(true) => Ok(Some(set)),
        // Who takes it away does so only while nobody has the role.
        Ok(false) if role == RECEIVER && set.value(RECEIVER).is_ok_and(|count| count > 0) => {
            let pid = set.last_pid(RECEIVER).unwrap_or(0);
            Err(Error::new(ErrorKind::RoleTaken { pid }, "receive at", plan.address.target()))
        }
        Ok(false) => Ok(None),
        Err(e) if sysv_sem::was_removed(&e) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// The sender's end.
#[derive(Debug)]
struct QueuePort {
    meeting: Meeting,
    kind: Option<u32>,
    /// Whether a receiver was seen since this sender joined.
    was_received: bool,
    /// Where the type and the parts of a piece are put together.
    whole: Vec<u8>,
    pauses: Pauses,
}

impl QueuePort {
    fn kind_of(&self, start: &[u8], tag: u32) -> i64 {
        if self.meeting.set.is_none() {
            return match tag {
                0 => self.kind.unwrap_or(1).into(),
                tag => tag.into(),
            };
        }
        match Kind::of(start) {
            Some(Kind::Hello) => HELLO,
            Some(Kind::Goodbye) => GOODBYE,
            _ => self.kind.map_or(i64::from(tag) + 1, i64::from),
        }
    }
}

impl Port for QueuePort {
    fn unit(&self) -> usize {
        self.meeting.unit
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], tag: u32) -> io::Result<usize> {
        let kind = self.kind_of(parts.first().map_or(&[], |part| part), tag);
        self.whole.clear();
        self.whole.extend_from_slice(&kind.to_ne_bytes());
        parts.iter().for_each(|part| self.whole.extend_from_slice(part));
        self.meeting.queue.send(&self.whole)?;
        self.pauses.reset();
        Ok(self.whole.len() - KIND_LEN)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn must_look(&self) -> bool {
        true
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        self.pauses.pause(deadline);
        Ok(())
    }

    fn end(&mut self) -> Option<SendError> {
        let is_received = self.meeting.has_receiver();
        self.was_received |= is_received;
        (self.was_received && !is_received).then_some(SendError::Closed)
    }

    fn explain(&mut self, error: &io::Error) -> SendError {
        // Of a queue that was removed there is nobody to receive.
        if sysv_msg::was_removed(error) { SendError::Closed } else { super::port::explain(error) }
    }

    fn peer(&self) -> PeerState {
        let Some(set) = self.meeting.set else { return PeerState::Unknown };
        match (self.meeting.has_receiver(), set.last_pid(RECEIVER)) {
            (true, Ok(pid)) if pid != 0 => PeerState::Alive { pid },
            (true, _) => PeerState::Unknown,
            (false, _) if self.was_received => PeerState::Left,
            _ => PeerState::Absent,
        }
    }

    fn has_tags(&self) -> bool {
        true
    }

    fn is_fit(&self, _length: usize, tag: u32) -> bool {
        i32::try_from(tag).is_ok()
    }

    fn retire(&mut self) -> bool {
        self.meeting.leave()
    }

    fn close(&mut self) {
        self.meeting.leave();
    }
}

/// The receiver's end.
#[derive(Debug)]
struct QueueFeed {
    meeting: Meeting,
    /// The only type that is received, of the address.
    kind: Option<u32>,
    selected: Option<u32>,
    /// A goodbye that is held back.
    farewell: Option<Vec<u8>>,
    was_removed: bool,
    pauses: Pauses,
}

impl QueueFeed {
    /// Takes the first message of a type, as [`Queue::receive`].
    fn take(&mut self, buffer: &mut Buffer, kind: i64) -> io::Result<bool> {
        let mut room = buffer.room(KIND_LEN + self.meeting.unit);
        let length = match self.meeting.queue.receive(kind, room) {
            Err(e) if e.raw_os_error() == Some(libc::E2BIG) => {
                // The limit was higher where it was sent.
                self.meeting.unit = self.meeting.queue.status()?.bytes as usize;
                room = buffer.room(KIND_LEN + self.meeting.unit);
                self.meeting.queue.receive(kind, room)?
            }
            length => length?,
        };
        self.pauses.reset();
        let kind = room.first_chunk().map_or(0, |kind| i64::from_ne_bytes(*kind));
        let tag = match self.meeting.set {
            // The header has it.
            Some(_) => 0,
            None => u32::try_from(kind).map_err(|_| io::ErrorKind::InvalidData)?,
        };
        buffer.skip(KIND_LEN);
        buffer.filled_piece(length, tag, length);
        Ok(true)
    }

    /// With frames, of the selected type: hellos when there is no message, and goodbyes when they can be told.
    fn take_selected(&mut self, buffer: &mut Buffer, kind: i64) -> io::Result<bool> {
        let is_nothing = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        for kind in [kind, HELLO] {
            match self.take(buffer, kind) {
                Err(e) if is_nothing(&e) => {}
                taken => return taken,
            }
        }
        if self.farewell.is_none() {
            let mut goodbye = vec![0; KIND_LEN + LEAST];
            let length = match self.meeting.queue.receive(GOODBYE, &mut goodbye) {
                // None is that long. It is taken all the same, lest it stays for ever.
                Err(e) if e.raw_os_error() == Some(libc::E2BIG) => {
                    goodbye.resize(KIND_LEN + self.meeting.queue.status()?.bytes as usize, 0);
                    self.meeting.queue.receive(GOODBYE, &mut goodbye)?;
                    return Err(io::ErrorKind::InvalidData.into());
                }
                length => length?,
            };
            self.farewell = Some(goodbye[KIND_LEN..KIND_LEN + length].to_vec());
        }
        // What its sender sent before it is there by now, if it wasn't before.
        match self.take(buffer, kind) {
            Err(e) if is_nothing(&e) => {}
            taken => return taken,
        }
        if self.has_unselected() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.tell_farewell(buffer)
    }

    fn tell_farewell(&mut self, buffer: &mut Buffer) -> io::Result<bool> {
        let goodbye = self.farewell.take().ok_or(io::ErrorKind::WouldBlock)?;
        buffer.room(goodbye.len())[..goodbye.len()].copy_from_slice(&goodbye);
        buffer.filled_piece(goodbye.len(), 0, goodbye.len());
        Ok(true)
    }
}

impl Feed for QueueFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        let filled = match (self.meeting.set, self.kind, self.selected) {
            (Some(_), Some(kind), _) => self.take_selected(buffer, kind.into()),
            (Some(_), None, Some(tag)) => self.take_selected(buffer, i64::from(tag) + 1),
            (_, kind, tag) => match self.take(buffer, tag.or(kind).unwrap_or(0).into()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.tell_farewell(buffer),
                filled => filled,
            },
        };
        match filled {
            Err(e) if sysv_msg::was_removed(&e) => {
                self.was_removed = true;
                Ok(false)
            }
            filled => filled,
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        self.pauses.pause(deadline);
        Ok(())
    }

    fn select(&mut self, tag: Option<u32>) -> bool {
        // With frames, one type has all tags; without, no message has tag 0.
        let can = match self.meeting.set {
            Some(_) => self.kind.is_none(),
            None => tag != Some(0),
        };
        if can {
            self.selected = tag;
        }
        can
    }

    fn has_unselected(&mut self) -> bool {
        // Of another type than the address's, everything is for somebody else.
        let is_selecting = self.meeting.set.is_some() && self.kind.is_none() && self.selected.is_some();
        is_selecting && self.meeting.has_message(None).unwrap_or(false)
    }

    fn is_over(&self) -> bool {
        self.was_removed
    }

    fn close(&mut self) {
        self.meeting.leave();
    }
}
