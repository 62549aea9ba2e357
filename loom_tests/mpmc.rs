//! The ring of many producers and many consumers under the interleavings and the outcomes of its orderings that loom knows.
//!
//! Lanes of two or four slots. Beside each slot's own chunk, and beside each chunk of a pool, lies a cell that stands for the
//! same bytes as payload, in which loom sees any access that is not ordered by the protocol. The handles share the memory
//! through an `Arc` that loom does not know, which orders nothing.
//!
//! Loom knows no crashes: a dead participant is one that stops for ever, between two calls or before a given access to a
//! word. What then follows in the same thread, or behind a join, comes behind the lock that the kernel frees on death.

#![cfg(ringway_loom)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use ringway::ring::mpmc::{Claim, MAX_POOLS, Place, Policy, Pool, Reader, Received, Shape, Slot, Writer, recover};

const CHUNK: u32 = 8;
const POOLED: u64 = 16;

/// Consumers by their numbers; the first one is dead in many models.
const X: u32 = 0;
const A: u32 = 1;
const B: u32 = 2;

/// A word, and how often it was looked up. Loom's search does not go back to where another thread accessed a word if the
/// own thread has accessed it since, so it would leave out what a load before a store hides. Counters that every access
/// increments it does keep apart. They are relaxed, and order nothing.
struct Seen<T> {
    word: T,
    count: AtomicU64,
}

impl<T> Seen<T> {
    fn new(word: T) -> Self {
        Self { word, count: AtomicU64::new(0) }
    }

    fn get(&self) -> &T {
        self.count.fetch_add(1, Ordering::Relaxed);
        &self.word
    }
}

struct Words {
    head: Seen<AtomicU64>,
    slots: Vec<Seen<Slot>>,
    leases: Vec<Seen<AtomicU64>>,
    done: Vec<AtomicU64>,
    links: Vec<AtomicU64>,
    chunks: Vec<UnsafeCell<u32>>,
    pool: Vec<UnsafeCell<u32>>,
}

struct Memory {
    lanes: Vec<Words>,
    requeues: Seen<AtomicU64>,
    shape: Shape,
}

// SAFETY: the cells are what loom watches; it panics on any access that is not ordered.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// How many more words may be accessed before the holder stops for ever.
type Fuse = Arc<AtomicU32>;

struct Death;

#[derive(Clone)]
struct Ring {
    memory: Arc<Memory>,
    fuse: Option<Fuse>,
}

#[derive(Clone)]
struct Lane {
    ring: Ring,
    number: usize,
}

impl Lane {
    fn words(&self) -> &Words {
        &self.ring.memory.lanes[self.number]
    }
}

impl ringway::ring::mpmc::Lane for Lane {
    fn head(&self) -> &AtomicU64 {
        self.ring.burn();
        self.words().head.get()
    }

    fn slot(&self, slot: u32) -> &Slot {
        self.ring.burn();
        self.words().slots[slot as usize].get()
    }

    fn lease(&self, slot: u32) -> &AtomicU64 {
        self.ring.burn();
        self.words().leases[slot as usize].get()
    }

    fn done(&self, slot: u32) -> &AtomicU64 {
        self.ring.burn();
        &self.words().done[slot as usize]
    }

    fn link(&self, slot: u32) -> &AtomicU64 {
        self.ring.burn();
        &self.words().links[slot as usize]
    }
}

impl ringway::ring::mpmc::Ring for Ring {
    type Lane = Lane;

    fn lanes_used(&self) -> u32 {
        self.memory.lanes.len() as u32
    }

    fn lane(&self, lane: u32) -> Lane {
        Lane { ring: self.clone(), number: lane as usize }
    }

    fn requeues(&self) -> &AtomicU64 {
        self.burn();
        self.memory.requeues.get()
    }
}

impl Ring {
    /// Fresh lanes, each with a pool of so many chunks.
    fn new(lanes: usize, slots: u64, pooled: u32) -> Self {
        let mut pools = [Pool::default(); MAX_POOLS];
        pools[0] = Pool { size: if pooled == 0 { 0 } else { POOLED as u32 }, count: pooled };
        let zeroes = || (0..slots).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let cells = |count: u64| (0..count).map(|_| UnsafeCell::new(0)).collect::<Vec<_>>();
        let words = || Words {
            head: Seen::new(AtomicU64::new(0)),
            slots: (0..slots).map(|_| Seen::new(Slot { seal: AtomicU64::new(0), note: AtomicU64::new(0) })).collect(),
            leases: zeroes().into_iter().map(Seen::new).collect(),
            done: zeroes(),
            links: zeroes(),
            chunks: cells(slots),
            pool: cells(pooled.into()),
        };
        let memory = Memory {
            lanes: (0..lanes).map(|_| words()).collect(),
            requeues: Seen::new(AtomicU64::new(0)),
            shape: Shape { slots, chunk: CHUNK, pools, max_message: POOLED },
        };
        Self { memory: Arc::new(memory), fuse: None }
    }

    fn burn(&self) {
        let Some(fuse) = &self.fuse else { return };
        match fuse.load(Ordering::Relaxed) {
            0 => resume_unwind(Box::new(Death)),
            left => fuse.store(left - 1, Ordering::Relaxed),
        }
    }

    /// The same ring for somebody who stops for ever before the access to a word that follows so many others.
    fn until(&self, accesses: u32) -> Self {
        Self { memory: self.memory.clone(), fuse: Some(Arc::new(AtomicU32::new(accesses))) }
    }

    fn writer(&self, lane: u32) -> Writer<Lane> {
        use ringway::ring::mpmc::Ring;
        Writer::resume(self.lane(lane), &self.memory.shape).unwrap()
    }

    /// A consumer that has not looked at anything yet.
    fn joiner(&self, number: u32) -> Receiver {
        Receiver { ring: self.clone(), reader: Reader::join(self.clone(), &self.memory.shape, number) }
    }

    /// A consumer that knows that nothing was put back. The ring must be empty.
    fn receiver(&self, number: u32) -> Receiver {
        let mut receiver = self.joiner(number);
        assert_eq!(receiver.claim(1), None);
        receiver
    }

    fn recover(&self, number: u32) {
        recover(self, &self.memory.shape, number, Policy { drop: false, max_deliveries: 15 });
    }

    fn drop_all_of(&self, number: u32) {
        recover(self, &self.memory.shape, number, Policy { drop: true, max_deliveries: 15 });
    }

    fn cell(&self, lane: u32, place: Place) -> &UnsafeCell<u32> {
        let words = &self.memory.lanes[lane as usize];
        match place {
            Place::Slot(slot) => &words.chunks[slot as usize],
            Place::Pool { index, .. } => &words.pool[index as usize],
        }
    }
}

/// Runs what may burn a fuse; `None` if it did.
fn until_death<T>(life: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(life)).map_err(|cause| assert!(cause.is::<Death>(), "{cause:?}")).ok()
}

/// Checks a model under every interleaving with so many preemptions, or under all.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicU32::new(0));
    let counter = executions.clone();
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = preemptions;
    explorer.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// Checks a model for every number of accesses after which somebody can die in it; it says whether somebody did.
fn for_every_death(preemptions: Option<usize>, death: impl Fn(u32) -> bool + Copy + Send + Sync + 'static) {
    let died = Arc::new(AtomicBool::new(true));
    let mut accesses = 0;
    while died.swap(false, Ordering::Relaxed) {
        let died = died.clone();
        explore(preemptions, move || {
            if death(accesses) {
                died.store(true, Ordering::Relaxed);
            }
        });
        accesses += 1;
    }
    assert!(accesses > 1);
}

/// A producer, at work.
struct Sender {
    ring: Ring,
    writer: Writer<Lane>,
    lane: u32,
}

impl Sender {
    fn new(ring: &Ring, lane: u32) -> Self {
        Self { ring: ring.clone(), writer: ring.writer(lane), lane }
    }

    /// Sends a message unless the lane is full, and returns its sequence.
    fn try_send(&mut self, length: u64, value: u32) -> Option<u64> {
        let reservation = self.writer.reserve(length).unwrap()?;
        self.fill(reservation.place(), value);
        Some(self.writer.commit(reservation, length, value))
    }

    fn send(&mut self, length: u64, value: u32) -> u64 {
        loop {
            match self.try_send(length, value) {
                Some(sequence) => return sequence,
                None => thread::yield_now(),
            }
        }
    }

    /// Adds to the batch.
    fn add(&mut self, length: u64, value: u32) {
        let reservation = self.writer.reserve(length).unwrap().expect("the lane has room");
        self.fill(reservation.place(), value);
        self.writer.commit_in_batch(reservation, length, value);
    }

    fn fill(&self, place: Place, value: u32) {
        // SAFETY: loom checks that nobody else accesses it now.
        self.ring.cell(self.lane, place).with_mut(|cell| unsafe { *cell = value });
    }
}

/// A consumer, at work.
struct Receiver {
    ring: Ring,
    reader: Reader<Ring>,
}

impl Receiver {
    fn claim(&mut self, max: u32) -> Option<Claim> {
        self.reader.claim(max)
    }

    /// The messages of a claim that were not given back, after a look at their payload.
    fn read(&self, claim: &Claim) -> Vec<Received> {
        let mut messages = Vec::new();
        for index in (0..claim.run()).filter(|&index| !claim.is_released(index)) {
            let message = self.reader.message(claim, index).unwrap();
            // SAFETY: loom checks that nobody writes it now.
            let value = self.ring.cell(message.lane, message.place).with(|cell| unsafe { *cell });
            assert_eq!(value, message.tag, "somebody else's payload");
            messages.push(message);
        }
        messages
    }

    /// Receives and gives back up to `max` messages if there are some.
    fn receive(&mut self, max: u32) -> Vec<Received> {
        let Some(claim) = self.claim(max) else { return Vec::new() };
        let messages = self.read(&claim);
        self.reader.release(&claim);
        messages
    }

    /// Receives until there is nothing.
    fn drain(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            match self.receive(1) {
                messages if messages.is_empty() => return all,
                messages => all.extend(messages),
            }
        }
    }
}

fn tags(messages: &[Received]) -> Vec<u32> {
    messages.iter().map(|message| message.tag).collect()
}

fn sorted(mut messages: Vec<u32>) -> Vec<u32> {
    messages.sort_unstable();
    messages
}

fn is_ascending(messages: &[u32]) -> bool {
    messages.is_sorted_by(|a, b| a < b)
}

/// A producer sends so many messages, a consumer claims up to `max` at once.
fn stream(preemptions: usize, slots: u64, messages: u32, max: u32, length: u64, pooled: u32) {
    explore(Some(preemptions), move || {
        let ring = Ring::new(1, slots, pooled);
        let (mut sender, mut reader) = (Sender::new(&ring, 0), ring.receiver(A));
        let producer = thread::spawn(move || {
            for value in 0..messages {
                assert_eq!(sender.send(length, value), value.into());
            }
        });
        let mut received = 0;
        while received < messages {
            let some = reader.receive(max);
            if some.is_empty() {
                thread::yield_now();
            }
            for message in some {
                assert_eq!((message.tag, message.sequence, message.length), (received, received.into(), length));
                received += 1;
            }
        }
        producer.join().unwrap();
        assert!(reader.receive(max).is_empty());
    });
}

#[test]
fn messages_arrive_whole_and_in_order() {
    stream(4, 4, 3, 1, 8, 0);
    stream(4, 4, 3, 16, 8, 0);
}

#[test]
fn a_full_lane_is_not_overwritten() {
    // The third message lies where the first was, or beyond it.
    stream(3, 2, 3, 1, 8, 0);
    stream(3, 2, 3, 16, 8, 0);
}

#[test]
fn a_pools_chunk_is_used_again_when_its_message_was_given_back() {
    stream(4, 2, 2, 1, POOLED, 1);
}

/// Two consumers, which claim up to so many messages at once, and three messages.
fn compete(first: u32, second: u32) {
    explore(Some(4), move || {
        let ring = Ring::new(1, 4, 0);
        let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        for value in [1, 2, 3] {
            sender.send(8, value);
        }
        let other = thread::spawn(move || {
            let mut messages = a.receive(first);
            messages.extend(a.receive(first));
            tags(&messages)
        });
        let mut messages = b.receive(second);
        messages.extend(b.receive(second));
        let others = other.join().unwrap();
        messages.extend(b.drain());
        let messages = tags(&messages);
        assert!(is_ascending(&messages) && is_ascending(&others), "{messages:?} {others:?}");
        assert_eq!(sorted([messages, others].concat()), [1, 2, 3]);
    });
}

#[test]
fn each_message_goes_to_one_consumer() {
    compete(1, 1);
    compete(1, 16);
    compete(2, 2);
}

#[test]
fn whoever_comes_second_sees_what_the_first_one_saw() {
    // Of a batch, only the first seal is released by the producer: the second consumer knows the other from the head.
    explore(Some(3), || {
        let ring = Ring::new(1, 2, 0);
        let mut a = ring.receiver(A);
        let mut sender = Sender::new(&ring, 0);
        let producer = thread::spawn(move || {
            sender.add(8, 1);
            sender.add(8, 2);
            assert!(sender.writer.publish());
        });
        let other = thread::spawn(move || tags(&a.receive(1)));
        let mut b = ring.joiner(B);
        let mut messages = tags(&b.receive(1));
        producer.join().unwrap();
        messages.extend(other.join().unwrap());
        messages.extend(tags(&b.drain()));
        assert_eq!(sorted(messages), [1, 2]);
    });
}

#[test]
fn a_slot_is_written_again_only_after_its_release() {
    // Whole, and message by message in both orders.
    for order in [[0, 0], [0, 1], [1, 0]] {
        explore(None, move || {
            let ring = Ring::new(1, 2, 0);
            let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
            let mut sender = Sender::new(&ring, 0);
            sender.send(8, 1);
            sender.send(8, 2);
            let mut claim = a.claim(16).unwrap();
            let other = thread::spawn(move || {
                assert_eq!(tags(&a.read(&claim)), [1, 2]);
                if order == [0, 0] {
                    a.reader.release(&claim);
                } else {
                    assert!(!a.reader.release_one(&mut claim, order[0]));
                    assert!(a.reader.release_one(&mut claim, order[1]));
                }
            });
            let sent = sender.try_send(8, 3);
            other.join().unwrap();
            if sent.is_none() {
                sender.try_send(8, 3).unwrap();
            }
            assert_eq!(tags(&b.drain()), [3]);
        });
    }
}

#[test]
fn the_producer_records_what_only_the_head_tells_of() {
    for releases in [false, true] {
        explore(None, move || {
            let ring = Ring::new(1, 2, 0);
            let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
            let mut sender = Sender::new(&ring, 0);
            sender.send(8, 1);
            sender.send(8, 2);
            let other = thread::spawn(move || {
                let claim = a.claim(16).unwrap();
                assert_eq!(tags(&a.read(&claim)), [1, 2]);
                if releases {
                    a.reader.release(&claim);
                }
                (a, claim)
            });
            let mut sent = sender.try_send(8, 3);
            let (mut a, claim) = other.join().unwrap();
            if !releases {
                assert_eq!((sent, sender.try_send(8, 3)), (None, None), "all is held");
                assert_eq!(tags(&a.read(&claim)), [1, 2]);
                a.reader.release(&claim);
            }
            sent = sent.or_else(|| sender.try_send(8, 3));
            assert_eq!(sent, Some(2));
            assert_eq!(tags(&b.drain()), [3]);
        });
    }
}

#[test]
fn a_paused_consumers_messages_are_passed_over() {
    explore(Some(4), || {
        let ring = Ring::new(1, 4, 0);
        let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        for value in [1, 2, 3] {
            sender.send(8, value);
        }
        // Stops for ever with one or two messages, recorded by the other consumer or by the producer.
        let paused = thread::spawn(move || {
            let claim = a.claim(2)?;
            let messages = tags(&a.read(&claim));
            Some((a, claim, messages))
        });
        let mut received = tags(&b.receive(1));
        let mut sent = 3;
        while sent < 7 && sender.try_send(8, sent + 1).is_some() {
            sent += 1;
        }
        received.extend(tags(&b.receive(16)));
        let mut held = Vec::new();
        if let Some((a, claim, messages)) = paused.join().unwrap() {
            assert_eq!(tags(&a.read(&claim)), messages, "untouched");
            held = messages;
            ring.recover(A);
            let again = b.receive(1);
            assert!(again.iter().all(|message| message.deliveries == 1));
            assert_eq!(tags(&again), held);
        }
        received.extend(tags(&b.drain()));
        assert!(is_ascending(&received));
        assert_eq!(sorted([received, held].concat()), (1..=sent).collect::<Vec<_>>());
    });
}

#[test]
fn recovery_finds_a_claim_while_others_record_it() {
    // The dead consumer's claim is told by the head alone when the other one claims, or already recorded.
    for next_to_claim in [0, 1] {
        explore(Some(4), move || {
            let ring = Ring::new(1, 4, 0);
            let (mut x, mut b) = (ring.receiver(X), ring.receiver(B));
            let mut sender = Sender::new(&ring, 0);
            for value in [1, 2, 3] {
                sender.send(8, value);
            }
            let claim = x.claim(1).unwrap();
            assert_eq!(tags(&x.read(&claim)), [1]);
            let mut received = Vec::new();
            if next_to_claim == 1 {
                received.extend(b.receive(1));
            }
            let recoverer = {
                let ring = ring.clone();
                thread::spawn(move || ring.recover(X))
            };
            received.extend(b.receive(1));
            recoverer.join().unwrap();
            received.extend(b.drain());
            assert_eq!(sorted(tags(&received)), [1, 2, 3]);
            assert!(received.iter().all(|message| message.deliveries == u32::from(message.tag == 1)));
        });
    }
}

#[test]
fn what_is_put_back_is_delivered_once() {
    explore(Some(3), || {
        let ring = Ring::new(1, 2, 0);
        let (mut x, mut a, mut b) = (ring.receiver(X), ring.receiver(A), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        sender.send(8, 1);
        sender.send(8, 2);
        x.claim(2).unwrap();
        let recoverer = {
            let ring = ring.clone();
            thread::spawn(move || ring.recover(X))
        };
        let other = thread::spawn(move || tags(&a.receive(1)));
        let mut received = tags(&b.receive(1));
        recoverer.join().unwrap();
        received.extend(other.join().unwrap());
        received.extend(tags(&b.drain()));
        assert_eq!(received, [1, 2]);
        assert_eq!(sender.try_send(8, 3), Some(2));
    });
}

#[test]
fn empty_is_not_said_of_what_was_put_back() {
    // By a recovery, or by a consumer that lives; and found by one that has just joined, or one that has looked before.
    for (dead, joins) in [(true, true), (true, false), (false, true), (false, false)] {
        explore(None, move || {
            let ring = Ring::new(1, 2, 0);
            let (mut x, mut b) = (ring.receiver(X), if joins { ring.joiner(B) } else { ring.receiver(B) });
            let mut sender = Sender::new(&ring, 0);
            sender.send(8, 1);
            let claim = x.claim(1).unwrap();
            let other = {
                let ring = ring.clone();
                thread::spawn(move || if dead { ring.recover(X) } else { x.reader.put_back(&claim) })
            };
            let mut received = b.receive(1);
            other.join().unwrap();
            received.extend(b.drain());
            assert_eq!(tags(&received), [1]);
            assert_eq!(received[0].deliveries, dead.into());
        });
    }
}

#[test]
fn a_recoverer_killed_anywhere_is_followed_by_another() {
    for_every_death(Some(3), |accesses| {
        let ring = Ring::new(1, 2, 0);
        let (mut x, mut b) = (ring.receiver(X), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        sender.send(8, 1);
        sender.send(8, 2);
        x.claim(1).unwrap();
        let recoverers = {
            let ring = ring.clone();
            thread::spawn(move || {
                let died = until_death(|| ring.until(accesses).recover(X)).is_none();
                ring.recover(X);
                died
            })
        };
        let mut received = tags(&b.receive(1));
        let died = recoverers.join().unwrap();
        received.extend(tags(&b.drain()));
        assert_eq!(sorted(received), [1, 2]);
        died
    });
}

#[test]
fn what_a_dead_consumer_gave_back_is_not_delivered_again() {
    explore(None, || {
        let ring = Ring::new(1, 2, 0);
        let (mut x, mut b) = (ring.receiver(X), ring.joiner(B));
        let mut sender = Sender::new(&ring, 0);
        sender.send(8, 1);
        sender.send(8, 2);
        let mut claim = x.claim(2).unwrap();
        let other = {
            let ring = ring.clone();
            thread::spawn(move || {
                assert!(!x.reader.release_one(&mut claim, 0));
                ring.recover(X);
            })
        };
        let mut received = tags(&b.receive(1));
        other.join().unwrap();
        received.extend(tags(&b.drain()));
        assert_eq!(received, [2]);
        assert!(sender.try_send(8, 3).is_some() && sender.try_send(8, 4).is_some());
    });
}

#[test]
fn what_a_dead_consumer_read_is_written_again_only_after_its_recovery() {
    explore(None, || {
        let ring = Ring::new(1, 2, 0);
        let (mut x, mut b) = (ring.receiver(X), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        sender.send(8, 1);
        sender.send(8, 2);
        let other = {
            let ring = ring.clone();
            thread::spawn(move || {
                let claim = x.claim(2).unwrap();
                assert_eq!(tags(&x.read(&claim)), [1, 2]);
                ring.drop_all_of(X);
            })
        };
        let sent = sender.try_send(8, 3);
        other.join().unwrap();
        assert_eq!(sent.or_else(|| sender.try_send(8, 3)), Some(2));
        assert_eq!(tags(&b.drain()), [3]);
    });
}

#[test]
fn payload_is_handed_on_with_what_is_put_back() {
    // A joiner finds it before it hears of it, and knows of the payload only through the lease.
    explore(Some(4), || {
        let ring = Ring::new(1, 2, 0);
        let (mut x, mut b) = (ring.receiver(X), ring.joiner(B));
        let mut sender = Sender::new(&ring, 0);
        let other = {
            let ring = ring.clone();
            thread::spawn(move || {
                sender.send(8, 1);
                // Stops for ever with it, unless the other one was quicker.
                x.claim(1);
                ring.recover(X);
            })
        };
        let mut received = tags(&b.receive(1));
        other.join().unwrap();
        received.extend(tags(&b.drain()));
        assert_eq!(received, [1]);
    });
}

/// A producer dies anywhere in a message or in a batch, then its successor sends a message; a consumer is at work.
fn succession(slots: u64, held: u32) {
    for_every_death(Some(3), move |accesses| {
        let ring = Ring::new(1, slots, 0);
        let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        // Some of the lap before is held, the rest given back.
        for value in 0..slots as u32 {
            sender.send(8, 10 + value);
        }
        let held = (held > 0).then(|| a.claim(held).unwrap());
        b.drain();
        drop(sender);
        let producers = {
            let ring = ring.clone();
            thread::spawn(move || {
                let ring_of_first = ring.clone();
                let died = until_death(move || {
                    let mut first = Sender::new(&ring_of_first.until(accesses), 0);
                    first.ring = ring_of_first;
                    for value in [1, 2] {
                        first.add(8, value);
                    }
                    first.writer.publish();
                });
                // The next one dies before it has sent anything.
                drop(Sender::new(&ring, 0));
                let mut second = Sender::new(&ring, 0);
                let sequence = second.try_send(8, 3);
                (second, died.is_none(), sequence)
            })
        };
        let mut received = b.receive(16);
        let (mut second, died, sent) = producers.join().unwrap();
        received.extend(b.drain());
        if sent.is_none() {
            second.try_send(8, 3).unwrap();
            received.extend(b.drain());
        }
        assert!(matches!(tags(&received)[..], [1, 2, 3] | [3]), "{received:?}");
        let sequences = received.iter().map(|message| message.sequence);
        assert!(sequences.eq(slots..slots + received.len() as u64), "{received:?}");
        if let Some(held) = held {
            assert_eq!(a.read(&held)[0].tag, 10);
        }
        died
    });
}

#[test]
fn a_successor_goes_on_where_a_dead_producer_stopped() {
    succession(4, 0);
    // A batch as long as the lap.
    succession(2, 0);
    // A batch behind slots to be passed over, and one that ends where the last published message is.
    succession(4, 1);
    succession(4, 2);
}

#[test]
fn a_successor_finds_the_chunks_in_use_while_others_claim() {
    explore(Some(3), || {
        let ring = Ring::new(1, 4, 3);
        let (mut a, mut b) = (ring.receiver(A), ring.receiver(B));
        let mut sender = Sender::new(&ring, 0);
        for value in [1, 2, 3] {
            sender.send(POOLED, value);
        }
        let held = a.claim(1).unwrap();
        drop(sender);
        let successor = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut sender = Sender::new(&ring, 0);
                let sent = sender.try_send(POOLED, 4);
                (sender, sent)
            })
        };
        let first = b.claim(1).unwrap();
        let second = b.claim(1).unwrap();
        b.reader.release(&first);
        let (mut sender, sent) = successor.join().unwrap();
        if sent.is_none() {
            assert_eq!(sender.try_send(POOLED, 4), Some(3));
        }
        assert_eq!(sender.try_send(POOLED, 5), None, "three chunks are in use");
        assert_eq!((tags(&a.read(&held)), tags(&b.read(&second))), (vec![1], vec![3]));
        assert_eq!(tags(&b.receive(1)), [4]);
    });
}

#[test]
fn an_abandoned_batch_leaves_nothing() {
    for (slots, succeeded) in [(2, false), (2, true), (4, false), (4, true)] {
        explore(None, move || {
            let ring = Ring::new(1, slots, 0);
            let mut b = ring.receiver(B);
            let mut sender = Sender::new(&ring, 0);
            sender.send(8, 1);
            b.drain();
            let ring_of_successor = ring.clone();
            let producer = thread::spawn(move || {
                sender.add(8, 1);
                sender.add(8, 2);
                sender.writer.abandon();
                // By itself, or by a successor.
                if succeeded {
                    sender = Sender::new(&ring_of_successor, 0);
                }
                sender.send(8, 3);
            });
            let mut received = b.receive(16);
            producer.join().unwrap();
            received.extend(b.drain());
            assert_eq!(tags(&received), [3]);
            assert_eq!(received[0].sequence, 1);
        });
    }
}

#[test]
fn a_consumer_takes_from_all_lanes() {
    explore(Some(3), || {
        let ring = Ring::new(2, 2, 0);
        let mut b = ring.receiver(B);
        let producers = [0, 1].map(|lane| {
            let mut sender = Sender::new(&ring, lane);
            thread::spawn(move || {
                sender.send(8, 2 * lane);
                sender.send(8, 2 * lane + 1);
            })
        });
        let mut received = Vec::new();
        for _ in 0..2 {
            received.extend(b.receive(1));
        }
        for producer in producers {
            producer.join().unwrap();
        }
        received.extend(b.drain());
        assert_eq!(received.len(), 4);
        for lane in [0, 1] {
            let of_lane = received.iter().filter(|message| message.lane == lane);
            assert!(of_lane.map(|message| message.tag).eq([2 * lane, 2 * lane + 1]));
        }
    });
}
