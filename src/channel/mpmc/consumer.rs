//! A consumer's end: receive, read in place, give back in any order.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::grants::{ReadBatch, ReadGrant};
use crate::channel::PeerState;
use crate::channel::endpoint::{Gone, deadline_at, deadline_in};
use crate::channel::outcome::{PeerEvent, RecvError};
use crate::error;
use crate::layout::MpmcView;
use crate::ring::Violation;
use crate::ring::mpmc::{Claim, LONGEST_RUN, Place, Reader, Received as Found};
use crate::wait::{Backoff, Look, Pollable, Watch, Watched};

/// One of those that read from a ring: each message goes to one of them. Dropping it gives back what it has not looked at, and
/// closes the ring for the producers if it was the last.
///
/// Several messages can be held at once, and given back in any order; each keeps only its own memory from being used again.
#[derive(Debug)]
pub struct Consumer {
    /// Borrowed only within calls, in which no code of the user's runs.
    state: RefCell<State>,
    /// The same as in the state.
    view: MpmcView,
}

#[derive(Debug)]
struct State {
    reader: Reader<MpmcView>,
    end: Endpoint,
    backoff: Backoff,
    /// Runs of several messages of which some are still here, each with the index of the first that was not handed out.
    open: Vec<(Claim, u32)>,
    /// A message on its way out.
    ready: Option<Item>,
    /// The lane of the last message, and the sequence of the next one there if none is missing.
    expected_here: (u32, u64),
    /// The same for all lanes as they were left; [`UNKNOWN`] before the first message.
    expected: Vec<u64>,
}

/// No sequence gets there.
const UNKNOWN: u64 = u64::MAX;

/// A message that was handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    claim: Claim,
    index: u32,
    length: u64,
    tag: u64,
    payload: NonNull<u8>,
    sequence: u64,
    gap: u64,
}

impl Item {
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> u32 {
        self.tag as u32
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn lane(&self) -> u32 {
        self.claim.lane()
    }

    pub(crate) fn gap(&self) -> u64 {
        self.gap
    }

    pub(crate) fn deliveries(&self) -> u32 {
        self.claim.deliveries()
    }

    /// To be read by a copy that expects races, unless peers are trusted.
    #[inline(always)]
    pub(crate) fn payload(&self) -> *const u8 {
        self.payload.as_ptr()
    }
}

// SAFETY: the pointer leads to memory that belongs to no thread.
unsafe impl Send for Item {}

impl Consumer {
    pub(super) fn new(reader: Reader<MpmcView>, end: Endpoint, backoff: Backoff) -> Self {
        let view = end.view;
        Self {
            state: RefCell::new(State {
                reader,
                end,
                backoff,
                open: Vec::new(),
                ready: None,
                expected_here: (0, UNKNOWN),
                expected: Vec::new(),
            }),
            view,
        }
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.view.shape().max_message as usize
    }

    /// The next message, if there is one now. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](RecvError::Empty), [`Closed`](RecvError::Closed), [`PeerDied`](RecvError::PeerDied),
    /// [`Fenced`](RecvError::Fenced) or [`Poisoned`](RecvError::Poisoned).
    #[inline(always)]
    pub fn try_recv(&self) -> Result<ReadGrant<'_>, RecvError> {
        Ok(ReadGrant { item: self.try_item()?, consumer: self })
    }

    /// The next message; waits for it as long as it takes.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), but not `Empty`.
    #[inline(always)]
    pub fn recv(&self) -> Result<ReadGrant<'_>, RecvError> {
        Ok(ReadGrant { item: self.item(None)?, consumer: self })
    }

    /// [`recv`](Self::recv) for at most `timeout`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ReadGrant<'_>, RecvError> {
        Ok(ReadGrant { item: self.item(Some(deadline_in(timeout)))?, consumer: self })
    }

    /// [`recv`](Self::recv) until `deadline`.
    ///
    /// # Errors
    /// Also [`Timeout`](RecvError::Timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<ReadGrant<'_>, RecvError> {
        Ok(ReadGrant { item: self.item(Some(deadline_at(deadline)))?, consumer: self })
    }

    /// Up to `max` messages that are there now, and at most 16, to be given back all at once. Never blocks.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    #[inline]
    pub fn try_recv_batch(&mut self, max: usize) -> Result<ReadBatch<'_>, RecvError> {
        let part = self.state.get_mut().try_part(most(max))?;
        Ok(ReadBatch { consumer: self, part })
    }

    /// Waits for a message, then yields up to `max` that are there, and at most 16.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn recv_batch(&mut self, max: usize) -> Result<ReadBatch<'_>, RecvError> {
        let part = self.state.get_mut().part(most(max), None)?;
        Ok(ReadBatch { consumer: self, part })
    }

    /// The producers, as the kernel knows them: costs system calls.
    pub fn peers(&self) -> Vec<PeerState> {
        self.state.borrow().end.peers()
    }

    /// What has become of producers and was not told here yet, one thing at a time; the first is that they are there. Never blocks, but
    /// costs system calls. Independent of what receiving tells.
    pub fn peer_event(&mut self) -> Option<PeerEvent> {
        self.state.get_mut().end.peer_event()
    }

    /// A descriptor that is readable when there may be something to receive, or something to tell of producers.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the ring was made with [`Wait::Spin`](crate::Wait::Spin);
    /// [`NoSpace`](crate::ErrorKind::NoSpace) without descriptors or threads.
    pub fn pollable(&mut self) -> error::Result<Pollable> {
        Pollable::new(self.watch()?)
    }

    #[inline(always)]
    pub(crate) fn try_item(&self) -> Result<Item, RecvError> {
        let mut state = self.state.borrow_mut();
        match state.next() {
            Some(item) => Ok(item),
            None => {
                state.try_any()?;
                state.ready.take().ok_or(RecvError::Empty)
            }
        }
    }

    #[inline(always)]
    pub(crate) fn item(&self, deadline: Option<Duration>) -> Result<Item, RecvError> {
        let mut state = self.state.borrow_mut();
        match state.next() {
            Some(item) => Ok(item),
            None => {
                state.any(deadline)?;
                state.ready.take().ok_or(RecvError::Empty)
            }
        }
    }

    /// Waits for messages and claims up to `max` of them: to be taken with [`batch_item`](Self::batch_item), and closed.
    #[inline]
    pub(crate) fn batch(&self, max: usize, deadline: Option<Duration>) -> Result<Part, RecvError> {
        self.state.borrow_mut().part(most(max), deadline)
    }

    /// A message of a batch; none in a forked child, which then is told why when it begins another.
    #[inline(always)]
    pub(crate) fn batch_item(&self, part: &mut Part) -> Option<Result<Item, RecvError>> {
        let mut state = self.state.borrow_mut();
        state.end.check().ok()?;
        let index = part.claim.first_held(part.next);
        if index >= part.end {
            return None;
        }
        part.next = index + 1;
        Some(state.item(part.claim, index))
    }

    /// Ends a batch: gives back the messages that were handed out, and keeps the others for the next calls.
    #[inline(always)]
    pub(crate) fn close_batch(&self, part: Part) {
        self.state.borrow_mut().close_batch(part);
    }

    /// Gives back a message; not in a forked child, whose parent is still reading it.
    #[inline(always)]
    pub(crate) fn release(&self, item: &Item) {
        self.state.borrow_mut().release(item);
    }

    /// Takes back that a message was handed out: it will be the next one.
    pub(crate) fn untake(&self, item: &Item) {
        self.state.borrow_mut().untake(item);
    }
}

fn most(max: usize) -> u32 {
    max.clamp(1, LONGEST_RUN as usize) as u32
}

/// What a batch hands out of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    claim: Claim,
    /// The first message that was not handed out.
    next: u32,
    /// Behind the last one that may be.
    end: u32,
}

impl Part {
    #[inline(always)]
    fn new(claim: Claim, next: u32, max: u32) -> Self {
        if claim.run() <= max { Self { claim, next, end: claim.run() } } else { Self::cut(claim, next, max) }
    }

    #[cold]
    fn cut(claim: Claim, next: u32, max: u32) -> Self {
        let mut held = (next..claim.run()).filter(|&index| !claim.is_released(index));
        Self { claim, next, end: held.nth(max as usize - 1).map_or(claim.run(), |last| last + 1) }
    }

    /// Takes back that the last message was handed out.
    pub(crate) fn untake(&mut self) {
        self.next -= 1;
    }
}

impl State {
    /// The next message, if it comes from the lane of the last one.
    ///
    /// What this returns stays in registers. That is why the ways around it leave theirs in `ready`: the compiler would make
    /// both in one place in memory, and copy it from there faster than it was written.
    #[inline(always)]
    fn next(&mut self) -> Option<Item> {
        if self.end.check().is_err() || !self.open.is_empty() || self.end.is_armed() {
            return None;
        }
        let claim = self.reader.claim_here(1)?;
        match self.reader.message(&claim, 0) {
            Ok(found) => Some(self.usual(claim, 0, found)),
            // To be told by the closer look.
            Err(Violation) => {
                self.end.poison();
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn try_any(&mut self) -> Result<(), RecvError> {
        let (claim, index) = self.try_claim(1)?;
        self.ready = Some(self.hand_out(claim, index)?);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn any(&mut self, deadline: Option<Duration>) -> Result<(), RecvError> {
        let (claim, index) = self.claim(1, deadline)?;
        self.ready = Some(self.hand_out(claim, index)?);
        Ok(())
    }

    fn try_claim(&mut self, max: u32) -> Result<(Claim, u32), RecvError> {
        self.end.check()?;
        match self.find(max) {
            Some(found) => {
                self.found();
                Ok(found)
            }
            None => self.look_closer(max),
        }
    }

    #[inline]
    fn claim(&mut self, max: u32, deadline: Option<Duration>) -> Result<(Claim, u32), RecvError> {
        self.end.check()?;
        match self.find(max) {
            Some(found) => {
                self.found();
                Ok(found)
            }
            None => self.wait_for(max, deadline),
        }
    }

    #[inline]
    fn try_part(&mut self, max: u32) -> Result<Part, RecvError> {
        let (claim, next) = self.try_claim(max)?;
        self.close(&claim);
        Ok(Part::new(claim, next, max))
    }

    #[inline]
    fn part(&mut self, max: u32, deadline: Option<Duration>) -> Result<Part, RecvError> {
        let (claim, next) = self.claim(max, deadline)?;
        self.close(&claim);
        Ok(Part::new(claim, next, max))
    }

    /// It has found something. Whoever is armed and chosen for a message may have found another one: the next one is told then.
    #[inline(always)]
    fn found(&mut self) {
        if self.end.is_armed() {
            self.end.disarm();
            self.pass_on();
        }
    }

    /// A wake-up may have been spent on this consumer for another message than the one it found.
    #[cold]
    fn pass_on(&mut self) {
        if self.reader.has_more() {
            self.end.wake_consumer();
        }
    }

    /// Messages that are here already, or in the ring; with the index of the first that was not handed out.
    #[inline(always)]
    fn find(&mut self, max: u32) -> Option<(Claim, u32)> {
        if !self.open.is_empty()
            && let Some(found) = self.find_open()
        {
            return Some(found);
        }
        self.reader.claim(max).map(|claim| (claim, 0))
    }

    /// An open run of which something is left, that was not handed out nor given back by a dead owner.
    #[cold]
    fn find_open(&self) -> Option<(Claim, u32)> {
        self.open.iter().copied().find(|(claim, next)| claim.first_held(*next) < claim.run())
    }

    /// A run is no longer open: it is handed out as a whole, or by a batch, which opens it again at its end.
    #[inline(always)]
    fn close(&mut self, claim: &Claim) {
        if !self.open.is_empty() {
            self.open.retain(|(open, _)| !open.is_same_run(claim));
        }
    }

    fn hand_out(&mut self, claim: Claim, index: u32) -> Result<Item, RecvError> {
        if claim.run() == 1 {
            self.close(&claim);
            return self.item(claim, index);
        }
        self.hand_out_one(claim, index)
    }

    /// Hands out the next message of a run of several.
    #[cold]
    fn hand_out_one(&mut self, claim: Claim, index: u32) -> Result<Item, RecvError> {
        let index = claim.first_held(index);
        match self.open.iter_mut().find(|(open, _)| open.is_same_run(&claim)) {
            Some((_, next)) => *next = index + 1,
            None => self.open.push((claim, index + 1)),
        }
        self.item(claim, index)
    }

    #[inline(always)]
    fn item(&mut self, claim: Claim, index: u32) -> Result<Item, RecvError> {
        match self.reader.message(&claim, index) {
            Ok(found) => Ok(self.usual(claim, index, found)),
            Err(Violation) => {
                self.end.poison();
                Err(RecvError::Poisoned)
            }
        }
    }

    #[inline(always)]
    fn usual(&mut self, claim: Claim, index: u32, found: Found) -> Item {
        let gap = self.note(&found);
        let payload = match found.place {
            Place::Slot(slot) => self.reader.lane_of(&claim).chunk(slot),
            place => self.end.view.payload(found.lane, place),
        };
        let Found { length, tag, sequence, .. } = found;
        Item { claim, index, length, tag: tag.into(), payload, sequence, gap }
    }

    /// How many messages of its lane are missing before this one.
    #[inline(always)]
    fn note(&mut self, found: &Found) -> u64 {
        let (lane, expected) = &mut self.expected_here;
        if *lane == found.lane && *expected == found.sequence {
            *expected += 1;
            return 0;
        }
        self.note_a_gap(found.lane, found.sequence, found.deliveries)
    }

    #[cold]
    fn note_a_gap(&mut self, lane: u32, sequence: u64, deliveries: u32) -> u64 {
        if deliveries > 0 {
            return 0;
        }
        let (last_lane, expected) = std::mem::replace(&mut self.expected_here, (lane, sequence.wrapping_add(1)));
        let most = lane.max(last_lane) as usize;
        if most >= self.expected.len() {
            self.expected.resize(most + 1, UNKNOWN);
        }
        self.expected[last_lane as usize] = expected;
        match std::mem::replace(&mut self.expected[lane as usize], UNKNOWN) {
            UNKNOWN => 0,
            // Put back by one who left.
            expected if expected > sequence => {
                self.expected_here.1 = expected;
                0
            }
            expected => sequence - expected,
        }
    }

    #[inline(always)]
    fn release(&mut self, item: &Item) {
        if self.end.check().is_err() {
            return;
        }
        if item.claim.run() == 1 {
            self.reader.release(&item.claim);
        } else {
            self.release_of_run(item.claim, item.index);
        }
        // A producer that falls asleep just now may be missed: whatever this side does next makes up for it, and the
        // producer's slice if it does nothing.
        self.end.wake_producer_soon(item.lane());
    }

    /// Gives back one message of a run of several.
    #[cold]
    fn release_of_run(&mut self, claim: Claim, index: u32) {
        if let Some(at) = self.open.iter().position(|(open, _)| open.is_same_run(&claim))
            && self.reader.release_one(&mut self.open[at].0, index)
        {
            self.open.swap_remove(at);
        }
    }

    fn untake(&mut self, item: &Item) {
        if item.gap() > 0 {
            self.expected_here.1 = item.sequence() - item.gap();
        }
        match self.open.iter_mut().find(|(open, _)| open.is_same_run(&item.claim)) {
            Some((_, next)) => *next = (*next).min(item.index),
            None => self.open.push((item.claim, item.index)),
        }
    }

    fn close_batch(&mut self, part: Part) {
        if self.end.check().is_err() {
            return;
        }
        let Part { claim, next, .. } = part;
        if claim.first_held(next) >= claim.run() {
            self.reader.release(&claim);
        } else {
            self.open_again(claim, next);
        }
        self.end.wake_producer_soon(claim.lane());
    }

    /// Gives back the messages of a run before `next`, and keeps the others.
    #[cold]
    fn open_again(&mut self, mut claim: Claim, next: u32) {
        for index in 0..next {
            if !claim.is_released(index) {
                self.reader.release_one(&mut claim, index);
            }
        }
        self.open.push((claim, next));
    }

    /// Why there is no message, unless there is one after all.
    #[cold]
    fn look_closer(&mut self, max: u32) -> Result<(Claim, u32), RecvError> {
        let look = self.end.look_when_stuck(self.reader.position());
        let Self { reader, end, .. } = self;
        if let Some(found) = look_for(reader, end, max, look) {
            if found.is_ok() {
                self.found();
            }
            return found;
        }
        let armed = end.arm(|end, look| look_for(reader, end, max, look));
        if armed.was_announced && matches!(armed.found, Some(Ok(_))) {
            self.pass_on();
        }
        armed.found.unwrap_or(Err(RecvError::Empty))
    }

    #[cold]
    fn wait_for(&mut self, max: u32, deadline: Option<Duration>) -> Result<(Claim, u32), RecvError> {
        let Self { reader, end, backoff, .. } = self;
        backoff.caught_up(reader.position(), 1);
        let (found, announced) = end.wait(deadline, backoff, |end, look| look_for(reader, end, max, look));
        if announced && matches!(found, Some(Ok(_))) {
            self.pass_on();
        }
        match found {
            Some(found) => found,
            // Waits that are all shorter than a slice must find out about the others, too.
            None => self.look_closer(max).map_err(|error| match error {
                RecvError::Empty => RecvError::Timeout,
                error => error,
            }),
        }
    }
}

impl Watched for Consumer {
    fn watch(&mut self) -> error::Result<Arc<Watch>> {
        self.state.get_mut().end.watch()
    }
}

#[inline(always)]
fn look_for(
    reader: &mut Reader<MpmcView>,
    end: &mut Endpoint,
    max: u32,
    look: Look,
) -> Option<Result<(Claim, u32), RecvError>> {
    match reader.claim(max) {
        Some(claim) => Some(Ok((claim, 0))),
        None if look == Look::Quick => None,
        None => look_closely(reader, end, max, look),
    }
}

#[cold]
fn look_closely(
    reader: &mut Reader<MpmcView>,
    end: &mut Endpoint,
    max: u32,
    look: Look,
) -> Option<Result<(Claim, u32), RecvError>> {
    let gone = end.others_are_gone(look);
    // Those who are gone may have published before, and what the dead held may have been put back just now.
    if (gone || look >= Look::Lock)
        && end.check().is_ok()
        && let Some(claim) = reader.claim(max)
    {
        return Some(Ok((claim, 0)));
    }
    if !gone {
        end.wake_producers_soon();
        return None;
    }
    Some(Err(match end.tell() {
        Ok(Gone::Left) => RecvError::Closed,
        Ok(Gone::Died) => RecvError::PeerDied,
        Err(unusable) => unusable.into(),
    }))
}

impl Drop for State {
    fn drop(&mut self) {
        if self.end.check().is_err() {
            return;
        }
        for (claim, next) in &self.open {
            // What was handed out and never given back, leaving takes back as from the dead.
            if (0..*next).all(|index| claim.is_released(index)) {
                self.reader.put_back(claim);
            }
        }
    }
}
