//! Any sequence of operations by one thread, with deaths between any two accesses to a word, against a model that knows
//! nothing of words: queues of messages, and runs of them in somebody's hands.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use proptest::prelude::*;

use super::recovery::Backlog;
use super::word::{Head, Laps, Lease, Link, Note, Seal, State, before};
use super::*;
use crate::ring::Violation;

/// Positions and sequences are modulo this.
const END: u64 = 1 << 53;
const CHUNK: u32 = 8;
const CONSUMERS: u32 = 3;
const NO_POOLS: [Pool; MAX_POOLS] = [Pool { size: 0, count: 0 }; MAX_POOLS];

/// The words of a ring on the heap, and of each payload who wrote it.
struct Memory {
    lanes: Vec<Words>,
    used: Cell<u32>,
    requeues: AtomicU64,
    shape: Shape,
}

struct Words {
    head: AtomicU64,
    slots: Vec<Slot>,
    leases: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
    links: Vec<AtomicU64>,
    chunks: Vec<Cell<u32>>,
    pools: Vec<Vec<Cell<u32>>>,
}

struct Death;

/// The ring as one participant sees it.
#[derive(Clone)]
struct Heap {
    memory: Rc<Memory>,
    /// How many more words it may access before it dies.
    life: Rc<Cell<u32>>,
}

#[derive(Clone)]
struct HeapLane {
    heap: Heap,
    number: usize,
}

impl HeapLane {
    fn words(&self) -> &Words {
        self.heap.live();
        &self.heap.memory.lanes[self.number]
    }
}

impl Lane for HeapLane {
    fn head(&self) -> &AtomicU64 {
        &self.words().head
    }

    fn slot(&self, slot: u32) -> &Slot {
        &self.words().slots[slot as usize]
    }

    fn lease(&self, slot: u32) -> &AtomicU64 {
        &self.words().leases[slot as usize]
    }

    fn done(&self, slot: u32) -> &AtomicU64 {
        &self.words().done[slot as usize]
    }

    fn link(&self, slot: u32) -> &AtomicU64 {
        &self.words().links[slot as usize]
    }
}

impl Ring for Heap {
    type Lane = HeapLane;

    fn lanes_used(&self) -> u32 {
        self.memory.used.get()
    }

    fn lane(&self, lane: u32) -> HeapLane {
        HeapLane { heap: self.clone(), number: lane as usize }
    }

    fn requeues(&self) -> &AtomicU64 {
        self.live();
        &self.memory.requeues
    }
}

impl Heap {
    /// Lanes in which everything was given back before `position`.
    fn at(position: u64, lanes: u32, slots: u64, pools: &[Pool]) -> Self {
        let mut all = NO_POOLS;
        all[..pools.len()].copy_from_slice(pools);
        let longest = pools.last().map_or(CHUNK, |pool| pool.size);
        let shape = Shape { slots, chunk: CHUNK, pools: all, max_message: longest.into() };
        let memory = Memory {
            lanes: (0..lanes).map(|_| Words::at(position, &shape)).collect(),
            used: Cell::new(lanes),
            requeues: AtomicU64::new(0),
            shape,
        };
        Self { memory: Rc::new(memory), life: Rc::new(Cell::new(u32::MAX)) }
    }

    /// The same ring, as somebody else sees it.
    fn another(&self) -> Self {
        Self { memory: self.memory.clone(), life: Rc::new(Cell::new(u32::MAX)) }
    }

    fn live(&self) {
        match self.life.get() {
            u32::MAX => {}
            0 => resume_unwind(Box::new(Death)),
            left => self.life.set(left - 1),
        }
    }

    fn shape(&self) -> &Shape {
        &self.memory.shape
    }

    fn payload(&self, lane: u32, place: Place) -> &Cell<u32> {
        let words = &self.memory.lanes[lane as usize];
        match place {
            Place::Slot(slot) => &words.chunks[slot as usize],
            Place::Pool { pool, index } => &words.pools[pool as usize][index as usize],
        }
    }

    fn writer(&self, lane: u32) -> Writer<HeapLane> {
        Writer::resume(self.lane(lane), self.shape()).unwrap()
    }

    fn reader(&self, number: u32) -> Reader<Heap> {
        Reader::join(self.another(), self.shape(), number)
    }
}

impl Words {
    fn at(position: u64, shape: &Shape) -> Self {
        let laps = shape.laps();
        let zeroes = || (0..shape.slots).map(|_| AtomicU64::new(0)).collect();
        let cells = |count: u64| (0..count).map(|_| Cell::new(0)).collect::<Vec<_>>();
        let words = Self {
            head: AtomicU64::new(Head::new(position, 0, 0).0),
            slots: (0..shape.slots).map(|_| Slot { seal: AtomicU64::new(0), note: AtomicU64::new(0) }).collect(),
            leases: zeroes(),
            done: zeroes(),
            links: zeroes(),
            chunks: cells(shape.slots),
            pools: shape.pools.iter().map(|pool| cells(pool.count.into())).collect(),
        };
        for count in 1..=shape.slots {
            let last = before(position, count);
            let slot = laps.slot(last) as usize;
            let lease = Lease::leased(laps.lap(last), 0, 0, 1).released();
            words.leases[slot].store(lease.0, Ordering::Relaxed);
            if position != 0 {
                words.slots[slot].seal.store(Seal::message(laps.lap(last), last as u32), Ordering::Relaxed);
            }
        }
        words
    }
}

/// Runs what may end in the death of the ring's user; `None` if it did.
fn until_death<T>(life: &Cell<u32>, accesses: u32, work: impl FnOnce() -> T) -> Option<T> {
    life.set(accesses);
    let result = catch_unwind(AssertUnwindSafe(work));
    life.set(u32::MAX);
    match result {
        Ok(value) => Some(value),
        Err(cause) if cause.is::<Death>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// A message that was committed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Message {
    /// What no other message has: its tag and its payload.
    value: u32,
    sequence: u64,
    place: Place,
    length: u64,
}

/// Messages in somebody's hands.
#[derive(Clone, Debug)]
struct Run {
    lane: usize,
    /// Positions in the model don't wrap.
    first: u64,
    messages: Vec<Message>,
    /// Nobody, if it was put back.
    owner: Option<u32>,
    deliveries: u32,
    released: u32,
}

impl Run {
    fn covers(&self, position: u64, slots: u64) -> bool {
        (0..self.messages.len() as u64).any(|member| (self.first + member) % slots == position % slots)
    }

    fn left(&self) -> impl Iterator<Item = u32> {
        (0..self.messages.len() as u32).filter(|index| self.released & 1 << index == 0)
    }
}

/// A lane as its messages tell it.
#[derive(Debug)]
struct Queue {
    head: u64,
    tail: u64,
    /// Published and not claimed, by position.
    unclaimed: BTreeMap<u64, Message>,
    /// The sequence of the next message that will be published.
    sequence: u64,
    batch: Vec<(u64, Message)>,
}

impl Queue {
    /// Where the next message goes, and what its sequence is.
    fn next(&self) -> (u64, u64) {
        match self.batch.last() {
            Some((position, message)) => (position + 1, message.sequence + 1),
            None => (self.tail, self.sequence),
        }
    }

    fn publish(&mut self) {
        (self.tail, self.sequence) = self.next();
        self.unclaimed.extend(self.batch.drain(..));
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Room is asked for and not used.
    Reserve {
        lane: usize,
        length: u64,
    },
    /// A message that goes on its own.
    Send {
        lane: usize,
        length: u64,
    },
    Add {
        lane: usize,
        length: u64,
    },
    Publish {
        lane: usize,
    },
    Abandon {
        lane: usize,
    },
    /// The end of a producer between two operations.
    Succeed {
        lane: usize,
    },
    Claim {
        consumer: u32,
        max: u32,
    },
    Release {
        consumer: u32,
        which: usize,
    },
    ReleaseOne {
        consumer: u32,
        which: usize,
        index: u32,
    },
    PutBack {
        consumer: u32,
        which: usize,
    },
    /// The end of a consumer between two operations.
    Kill {
        consumer: u32,
    },
    Recover {
        consumer: u32,
        drops: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let lane = || 0..2usize;
    let consumer = || 0..CONSUMERS;
    let length = || prop_oneof![3 => 0..=8u64, 2 => 9..=16u64, 1 => 17..=24u64];
    prop_oneof![
        1 => (lane(), length()).prop_map(|(lane, length)| Reserve { lane, length }),
        8 => (lane(), length()).prop_map(|(lane, length)| Send { lane, length }),
        6 => (lane(), length()).prop_map(|(lane, length)| Add { lane, length }),
        2 => lane().prop_map(|lane| Publish { lane }),
        1 => lane().prop_map(|lane| Abandon { lane }),
        1 => lane().prop_map(|lane| Succeed { lane }),
        9 => (consumer(), prop_oneof![Just(1), 2..20u32]).prop_map(|(consumer, max)| Claim { consumer, max }),
        6 => (consumer(), 0..4usize).prop_map(|(consumer, which)| Release { consumer, which }),
        3 => (consumer(), 0..4usize, 0..8u32).prop_map(|(consumer, which, index)| ReleaseOne { consumer, which, index }),
        1 => (consumer(), 0..4usize).prop_map(|(consumer, which)| PutBack { consumer, which }),
        1 => consumer().prop_map(|consumer| Kill { consumer }),
        2 => (consumer(), prop::bool::weighted(0.2)).prop_map(|(consumer, drops)| Recover { consumer, drops }),
    ]
}

/// An operation, and after how many accesses to a word whoever does it dies: hardly ever.
fn mortal() -> impl Strategy<Value = (Operation, u32)> {
    (operation(), prop_oneof![9 => Just(u32::MAX), 1 => 0..24u32])
}

/// A claim, of which run it is.
struct Held {
    claim: Claim,
    lane: usize,
    first: u64,
}

struct Producer {
    life: Rc<Cell<u32>>,
    writer: Writer<HeapLane>,
}

struct Consumer {
    life: Rc<Cell<u32>>,
    reader: Reader<Heap>,
    held: Vec<Held>,
}

struct World {
    heap: Heap,
    queues: Vec<Queue>,
    runs: Vec<Run>,
    /// What was given back after its slot was passed over, and at which position of which lane that was.
    passed_over: Vec<(usize, u64, Place)>,
    /// Whether the consumers can know of all that was put back.
    told: bool,
    max_deliveries: u32,
    values: u32,
    /// None where none has been yet.
    producers: Vec<Option<Producer>>,
    /// None is dead.
    consumers: Vec<Option<Consumer>>,
}

impl World {
    fn new(origin: u64, slots: u64, pools: &[Pool], max_deliveries: u32) -> Self {
        let heap = Heap::at(origin, 2, slots, pools);
        let queue =
            || Queue { head: origin, tail: origin, unclaimed: BTreeMap::new(), sequence: origin, batch: Vec::new() };
        let mut world = Self {
            queues: vec![queue(), queue()],
            runs: Vec::new(),
            passed_over: Vec::new(),
            told: true,
            max_deliveries,
            values: 0,
            producers: vec![None, None],
            consumers: (0..CONSUMERS).map(|_| None).collect(),
            heap,
        };
        for number in 0..CONSUMERS {
            world.join(number);
        }
        world
    }

    fn join(&mut self, number: u32) {
        let heap = self.heap.another();
        let reader = Reader::join(heap.clone(), heap.shape(), number);
        self.consumers[number as usize] = Some(Consumer { life: heap.life, reader, held: Vec::new() });
    }

    fn slots(&self) -> u64 {
        self.heap.shape().slots
    }

    fn laps(&self) -> Laps {
        self.heap.shape().laps()
    }

    fn lease(&self, run: &Run) -> Lease {
        let slot = self.laps().slot(run.first % END);
        Lease(self.heap.memory.lanes[run.lane].leases[slot as usize].load(Ordering::Relaxed))
    }

    /// Whether the run's lease is its own, and not that of a lap before.
    fn is_recorded(&self, run: &Run) -> bool {
        self.lease(run).lap() == self.laps().lap(run.first % END)
    }

    fn run(&mut self, (operation, accesses): (Operation, u32)) {
        use Operation::*;
        match operation {
            Reserve { lane, length } | Send { lane, length } | Add { lane, length } => {
                self.produce(lane, length, operation, accesses);
            }
            Publish { lane } => {
                let published = self.with_writer(lane, accesses, |writer| writer.publish());
                // Dead, it has published nothing.
                if let Some(published) = published {
                    assert_eq!(published, !self.queues[lane].batch.is_empty());
                    self.queues[lane].publish();
                }
            }
            Abandon { lane } => {
                self.with_writer(lane, accesses, |writer| writer.abandon());
                self.queues[lane].batch.clear();
                let end = self.queues[lane].tail;
                self.passed_over.retain(|(of, position, _)| (*of, *position) < (lane, end) || *of > lane);
            }
            Succeed { lane } => self.succeed(lane, accesses),
            Claim { consumer, max } => self.claim(consumer, max, accesses),
            Release { consumer, which } => self.release(consumer, which, accesses),
            ReleaseOne { consumer, which, index } => self.release_one(consumer, which, index, accesses),
            PutBack { consumer, which } => self.put_back(consumer, which, accesses),
            Kill { consumer } => self.consumers[consumer as usize] = None,
            Recover { consumer, drops } => self.recover(consumer, drops, accesses),
        }
        self.check();
    }

    /// A new producer takes the lane up; the first one dies after so many accesses.
    fn succeed(&mut self, lane: usize, accesses: u32) {
        self.queues[lane].batch.clear();
        self.passed_over.retain(|(of, ..)| *of != lane);
        self.producers[lane] = [accesses, u32::MAX].into_iter().find_map(|accesses| {
            let heap = self.heap.another();
            let writer = until_death(&heap.life, accesses, || heap.writer(lane as u32))?;
            Some(Producer { life: heap.life, writer })
        });
    }

    /// What the producer does; dead, it has a successor, and its batch is gone.
    fn with_writer<T>(
        &mut self,
        lane: usize,
        accesses: u32,
        work: impl FnOnce(&mut Writer<HeapLane>) -> T,
    ) -> Option<T> {
        if self.producers[lane].is_none() {
            self.succeed(lane, u32::MAX);
        }
        let Producer { life, writer } = self.producers[lane].as_mut().unwrap();
        let done = until_death(life, accesses, || work(writer));
        if done.is_none() {
            self.succeed(lane, accesses);
        }
        done
    }

    /// The position and the pool that the next message must get; `None` if there is no room.
    fn room(&self, lane: usize, length: u64) -> Option<(u64, Option<u32>)> {
        let queue = &self.queues[lane];
        let is_pinned =
            |position: u64| self.runs.iter().any(|run| run.lane == lane && run.covers(position, self.slots()));
        let position = (queue.next().0..queue.head + self.slots()).find(|&position| !is_pinned(position))?;
        if length <= CHUNK.into() {
            return Some((position, None));
        }
        let pools = &self.heap.shape().pools;
        let number = pools.iter().position(|pool| u64::from(pool.size) >= length).unwrap();
        let is_of_it = |place: &Place| matches!(place, Place::Pool { pool, .. } if *pool == number as u32);
        // A producer finds a chunk again only where consumers have passed.
        let is_hidden = |of: usize, position: u64| of == lane && queue.head <= position && position < queue.next().0;
        let hidden = self.passed_over.iter().filter(|(of, position, _)| is_hidden(*of, *position));
        let used = self.places(lane).chain(hidden.map(|(.., place)| *place)).filter(is_of_it).count();
        (used < pools[number].count as usize).then_some((position, Some(number as u32)))
    }

    /// Where all messages of a lane lie that are still of use.
    fn places(&self, lane: usize) -> impl Iterator<Item = Place> {
        self.messages(lane).map(|message| message.place)
    }

    fn messages(&self, lane: usize) -> impl Iterator<Item = &Message> {
        let queue = &self.queues[lane];
        let waiting = queue.unclaimed.values().chain(queue.batch.iter().map(|(_, message)| message));
        waiting.chain(self.runs.iter().filter(move |run| run.lane == lane).flat_map(|run| &run.messages))
    }

    fn produce(&mut self, lane: usize, length: u64, operation: Operation, accesses: u32) {
        let length = length.min(self.heap.shape().max_message);
        let reserved = self.with_writer(lane, accesses, |writer| writer.reserve(length).unwrap());
        let Some(reservation) = reserved else { return };
        let room = self.room(lane, length);
        let (Some(reservation), Some((position, pool))) = (reservation, room) else {
            return assert_eq!(reservation.is_some(), room.is_some(), "full or not: {room:?}");
        };
        let place = reservation.place();
        match (pool, place) {
            (None, Place::Slot(slot)) => assert_eq!(u64::from(slot), position % self.slots()),
            (Some(expected), Place::Pool { pool, .. }) => assert_eq!(pool, expected),
            _ => panic!("{place:?} instead of pool {pool:?}"),
        }
        assert!(self.places(lane).all(|used| used != place), "{place:?} is in use");
        if matches!(operation, Operation::Reserve { .. }) {
            return;
        }
        self.values += 1;
        let (value, sequence) = (self.values, self.queues[lane].next().1);
        let message = Message { value, sequence, place, length: length - u64::from(value) % (length + 1) };
        self.heap.payload(lane as u32, place).set(value);
        // Nothing may overtake a batch.
        let is_added = matches!(operation, Operation::Add { .. }) || !self.queues[lane].batch.is_empty();
        let committed = self.with_writer(lane, accesses, |writer| match is_added {
            true => writer.commit_in_batch(reservation, message.length, value),
            false => writer.commit(reservation, message.length, value),
        });
        if let Some(committed) = committed {
            assert_eq!(committed, sequence % END);
            self.queues[lane].batch.push((position, message));
            if !is_added {
                self.queues[lane].publish();
            }
        }
    }

    /// Takes the run at the head of a lane.
    fn take(&mut self, lane: usize, owner: u32, max: u32) {
        let slots = self.slots();
        let queue = &mut self.queues[lane];
        let &first = queue.unclaimed.keys().next().expect("a message to claim");
        let most = u64::from(max.clamp(1, LONGEST_RUN)).min(slots);
        let run = (first..first + most).map_while(|position| queue.unclaimed.remove(&position));
        let messages: Vec<_> = run.collect();
        queue.head = first + messages.len() as u64;
        self.runs.push(Run { lane, first, messages, owner: Some(owner), deliveries: 0, released: 0 });
    }

    fn claim(&mut self, number: u32, max: u32, accesses: u32) {
        let Some(consumer) = self.consumers[number as usize].as_mut() else { return };
        let Some(claimed) = until_death(&consumer.life, accesses, || consumer.reader.claim(max)) else {
            return self.die_claiming(number, max);
        };
        let Some(claim) = claimed else {
            assert!(self.queues.iter().all(|queue| queue.unclaimed.is_empty()), "not empty");
            return assert!(!self.told || self.runs.iter().all(|run| run.owner.is_some()), "what was put back is left");
        };
        let (lane, sequence) = (claim.lane() as usize, consumer.reader.message(&claim, 0).unwrap().sequence);
        let is_it = |run: &&mut Run| run.lane == lane && run.messages[0].sequence % END == sequence;
        let first = if let Some(run) = self.runs.iter_mut().find(is_it) {
            assert_eq!(run.owner.replace(number), None, "somebody else's");
            run.first
        } else {
            let is_put_back = |run: &Run| run.owner.is_none();
            assert!(!self.told || !self.runs.iter().any(is_put_back), "what was put back comes first");
            self.take(lane, number, max);
            self.runs.last().unwrap().first
        };
        self.consumers[number as usize].as_mut().unwrap().held.push(Held { claim, lane, first });
    }

    /// Finds out what a consumer has that died in a claim.
    fn die_claiming(&mut self, number: u32, max: u32) {
        self.consumers[number as usize] = None;
        for lane in 0..self.queues.len() {
            let head = Head(self.heap.memory.lanes[lane].head.load(Ordering::Relaxed));
            if head.position() != self.queues[lane].head % END {
                self.take(lane, number, max);
                assert_eq!((head.owner(), head.run() as usize), (number, self.runs.last().unwrap().messages.len()));
            }
        }
        for index in 0..self.runs.len() {
            let (run, lease) = (&self.runs[index], self.lease(&self.runs[index]));
            if run.owner.is_none() && lease.state() == State::Leased {
                assert_eq!(lease.owner(), number);
                self.runs[index].owner = Some(number);
            }
        }
    }

    /// A living consumer with one of its claims, and the index of the run.
    fn pick(&mut self, number: u32, which: usize) -> Option<(&mut Consumer, usize, usize)> {
        let consumer = self.consumers[number as usize].as_mut()?;
        let which = which.checked_rem(consumer.held.len())?;
        let held = &consumer.held[which];
        let is_it = |run: &Run| (run.lane, run.first) == (held.lane, held.first);
        let index = self.runs.iter().position(is_it).unwrap();
        Some((consumer, which, index))
    }

    fn release(&mut self, number: u32, which: usize, accesses: u32) {
        let Some((consumer, which, index)) = self.pick(number, which) else { return };
        let claim = consumer.held.swap_remove(which).claim;
        match until_death(&consumer.life, accesses, || consumer.reader.release(&claim)) {
            Some(()) => self.give_back(index),
            None => self.consumers[number as usize] = None,
        }
    }

    fn release_one(&mut self, number: u32, which: usize, message: u32, accesses: u32) {
        let Some((consumer, which, index)) = self.pick(number, which) else { return };
        let claim = &mut consumer.held[which].claim;
        let message = message % claim.run();
        if claim.is_released(message) {
            return;
        }
        let Some(last) = until_death(&consumer.life, accesses, || consumer.reader.release_one(claim, message)) else {
            self.consumers[number as usize] = None;
            return;
        };
        if last {
            consumer.held.swap_remove(which);
        }
        let run = &mut self.runs[index];
        run.released |= 1 << message;
        assert_eq!(last, run.left().next().is_none());
        if last {
            self.give_back(index);
        }
    }

    fn put_back(&mut self, number: u32, which: usize, accesses: u32) {
        let Some((consumer, which, index)) = self.pick(number, which) else { return };
        let claim = consumer.held.swap_remove(which).claim;
        let lives = until_death(&consumer.life, accesses, || consumer.reader.put_back(&claim)).is_some();
        if !lives {
            self.consumers[number as usize] = None;
        }
        if lives || self.lease(&self.runs[index]).state() == State::Requeued {
            self.runs[index].owner = None;
            self.told = lives;
        }
    }

    fn recover(&mut self, number: u32, drops: bool, accesses: u32) {
        if self.consumers[number as usize].is_some() {
            return;
        }
        let policy = Policy { drop: drops, max_deliveries: self.max_deliveries };
        let heap = self.heap.another();
        let recovered = until_death(&heap.life, accesses, || recover(&heap, heap.shape(), number, policy));
        let mut expected = Recovered::default();
        for index in (0..self.runs.len()).rev() {
            let run = &self.runs[index];
            let lease = self.lease(run);
            // A recoverer that died may have left some undone.
            let is_done = recovered.is_some() || self.is_recorded(run) && lease.state() != State::Leased;
            if run.owner != Some(number) || !is_done {
                continue;
            }
            let left = run.left().count() as u64;
            if drops || run.deliveries + 1 >= self.max_deliveries {
                assert_eq!(lease.state(), State::Released);
                expected.dropped += left;
                self.give_back(index);
            } else {
                assert_eq!(lease.state(), State::Requeued);
                expected.requeued += left;
                self.told = false;
                self.runs[index].owner = None;
                self.runs[index].deliveries += 1;
            }
        }
        let Some(recovered) = recovered else { return };
        expected.news = self.runs.iter().any(|run| run.owner.is_none());
        assert_eq!(recovered, expected);
        self.told = true;
        self.join(number);
    }

    /// The run's slots may be written again.
    fn give_back(&mut self, index: usize) {
        let run = self.runs.swap_remove(index);
        let queue = &self.queues[run.lane];
        for (slot, message) in (run.first..).zip(&run.messages) {
            let laps = (slot..queue.next().0).step_by(self.slots() as usize).skip(1);
            self.passed_over.extend(laps.map(|position| (run.lane, position, message.place)));
        }
    }

    /// What can be seen from outside is what the model says.
    fn check(&self) {
        let mut expected = Backlog::default();
        for (lane, queue) in self.queues.iter().enumerate() {
            expected.unclaimed += queue.unclaimed.len() as u64;
            expected.bytes += queue.unclaimed.values().map(|message| message.length).sum::<u64>();
            for message in self.messages(lane) {
                let payload = self.heap.payload(lane as u32, message.place).get();
                assert_eq!(payload, message.value, "{message:?} was overwritten");
            }
            if let Some(Producer { writer, .. }) = &self.producers[lane] {
                assert_eq!(writer.position(), queue.next().0 % END);
            }
        }
        expected.leased = self.runs.iter().filter(|run| run.owner.is_some()).count() as u64;
        expected.requeued = self.runs.len() as u64 - expected.leased;
        assert_eq!(backlog(&self.heap, self.heap.shape()), expected);
        assert_eq!(is_drained(&self.heap, self.heap.shape()), expected.unclaimed == 0 && self.runs.is_empty());
        for consumer in self.consumers.iter().flatten() {
            for held in &consumer.held {
                self.check_claim(&consumer.reader, held);
            }
        }
    }

    /// The messages of a claim are those of the run.
    fn check_claim(&self, reader: &Reader<Heap>, Held { claim, lane, first }: &Held) {
        let run = self.runs.iter().find(|run| (run.lane, run.first) == (*lane, *first)).unwrap();
        assert_eq!((claim.run() as usize, claim.deliveries()), (run.messages.len(), run.deliveries));
        for (index, message) in (0..).zip(&run.messages) {
            assert_eq!(claim.is_released(index), run.released & 1 << index != 0);
            let expected = Received {
                lane: *lane as u32,
                place: message.place,
                length: message.length,
                tag: message.value,
                sequence: message.sequence % END,
                deliveries: run.deliveries,
            };
            assert_eq!(reader.message(claim, index), Ok(expected));
        }
    }

    /// Everything is received, and then the lanes hold as much as ever.
    fn finish(mut self) {
        for lane in 0..self.queues.len() {
            self.run((Operation::Publish { lane }, u32::MAX));
        }
        for consumer in 0..CONSUMERS {
            self.run((Operation::Kill { consumer }, u32::MAX));
            self.run((Operation::Recover { consumer, drops: false }, u32::MAX));
        }
        while self.runs.len() + self.queues.iter().map(|queue| queue.unclaimed.len()).sum::<usize>() > 0 {
            self.run((Operation::Claim { consumer: 1, max: 2 }, u32::MAX));
            self.run((Operation::Release { consumer: 1, which: 0 }, u32::MAX));
        }
        for lane in 0..self.queues.len() {
            for length in [24, 16, 8].map(|length| self.heap.shape().max_message.min(length)) {
                while self.room(lane, length).is_some() {
                    self.run((Operation::Send { lane, length }, u32::MAX));
                }
                self.run((Operation::Send { lane, length }, u32::MAX));
            }
            assert_eq!(self.queues[lane].unclaimed.len() as u64, self.slots());
        }
    }
}

/// Where the words of small lanes begin anew: tags of seals, sequences, laps, and positions.
fn origin(slots: u64) -> impl Strategy<Value = u64> {
    let wraps = [1 << 25, 1 << 32, slots << 25, slots << 48, END];
    let near = (prop::sample::select(wraps.to_vec()), 0..3 * slots);
    prop_oneof![1 => Just(0), 2 => near.prop_map(move |(wrap, before)| (wrap - before) % END)]
}

fn world(slots: u64, pools: &'static [Pool]) -> impl Strategy<Value = (u64, u64, &'static [Pool], u32)> {
    (origin(slots), 1..4u32).prop_map(move |(origin, deliveries)| (origin, slots, pools, 1 << deliveries >> 1))
}

const POOLS: &[Pool] = &[Pool { size: 16, count: 2 }, Pool { size: 24, count: 3 }];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_operations_do_what_the_model_says(
        (origin, slots, pools, max_deliveries) in prop_oneof![world(4, POOLS), world(8, POOLS), world(4, &[]), world(32, POOLS)],
        operations in prop::collection::vec(mortal(), 1..120),
    ) {
        let mut world = World::new(origin, slots, pools, max_deliveries);
        for operation in operations {
            world.run(operation);
        }
        world.finish();
    }
}

fn send(writer: &mut Writer<HeapLane>, tag: u32) {
    let reservation = writer.reserve(1).unwrap().expect("room");
    writer.commit(reservation, 1, tag);
}

fn receive(reader: &mut Reader<Heap>) -> Option<(u32, u32)> {
    let claim = reader.claim(1)?;
    reader.release(&claim);
    let message = reader.message(&claim, 0).unwrap();
    Some((message.lane, message.tag))
}

#[test]
fn heads_that_look_alike_are_not_confused() {
    let heap = Heap::at(0, 2, 4, &[]);
    let (mut first, mut second) = (heap.writer(0), heap.writer(1));
    let mut reader = heap.reader(0);
    send(&mut first, 1);
    assert_eq!(receive(&mut reader), Some((0, 1)));
    for tag in 2..6 {
        send(&mut second, tag);
    }
    // As in the other lane, it is the first message of all. This one is kept.
    let held = reader.claim(1).unwrap();
    for tag in 3..6 {
        assert_eq!(receive(&mut reader), Some((1, tag)));
    }
    for tag in 6..10 {
        send(&mut second, tag);
        assert_eq!(receive(&mut reader), Some((1, tag)));
        assert_eq!(reader.message(&held, 0).unwrap().tag, 2);
    }
}

#[test]
fn a_busy_lane_leaves_others_their_turn() {
    let heap = Heap::at(0, 2, 8, &[]);
    let (mut busy, mut other) = (heap.writer(0), heap.writer(1));
    let mut readers = [heap.reader(0), heap.reader(2)];
    send(&mut busy, 0);
    send(&mut other, 0);
    // Each finds that the other was quicker.
    let mut turns = (0..1000).map(|turn| {
        send(&mut busy, turn);
        receive(&mut readers[turn as usize % 2]).unwrap()
    });
    assert!(turns.any(|(lane, _)| lane == 1));
}

#[test]
fn a_lane_is_found_when_it_is_used() {
    let heap = Heap::at(0, 2, 4, &[]);
    heap.memory.used.set(0);
    let mut reader = heap.reader(1);
    assert_eq!((receive(&mut reader), reader.has_more()), (None, false));
    for lane in 0..2 {
        heap.memory.used.set(lane + 1);
        send(&mut heap.writer(lane), 7);
        assert_eq!((receive(&mut reader), receive(&mut reader)), (Some((lane, 7)), None));
    }
}

#[test]
fn there_is_more_as_long_as_something_can_be_claimed() {
    let heap = Heap::at(0, 2, 4, &[]);
    let mut reader = heap.reader(0);
    assert_eq!(receive(&mut reader), None);
    assert!(!reader.has_more());
    send(&mut heap.writer(1), 1);
    assert!(reader.has_more());
    let claim = reader.claim(1).unwrap();
    assert!(!reader.has_more());
    reader.put_back(&claim);
    assert!(reader.has_more());
    assert_eq!((receive(&mut reader), receive(&mut reader)), (Some((1, 1)), None));
    assert!(!reader.has_more());
}

#[test]
fn words_that_no_producer_writes_are_a_violation() {
    const POOL: Pool = Pool { size: 16, count: 2 };
    let heap = Heap::at(0, 1, 4, &[POOL]);
    let words = &heap.memory.lanes[0];
    let mut writer = heap.writer(0);
    for tag in [1, 2] {
        let reservation = writer.reserve(16).unwrap().unwrap();
        writer.commit(reservation, 16, tag);
    }
    let mut reader = heap.reader(0);
    let claim = reader.claim(1).unwrap();
    let good = words.links[0].load(Ordering::Relaxed);
    for bad in [Link::new(0, 2), Link::new(1, 0), Link::new(6, 0), Link(u64::MAX)] {
        words.links[0].store(bad.0, Ordering::Relaxed);
        assert_eq!(reader.message(&claim, 0), Err(Violation), "{bad:?}");
        assert!(Writer::resume(heap.lane(0), heap.shape()).is_err(), "{bad:?}");
    }
    // One chunk of two messages.
    words.links[0].store(words.links[1].load(Ordering::Relaxed), Ordering::Relaxed);
    assert!(Writer::resume(heap.lane(0), heap.shape()).is_err());
    words.links[0].store(good, Ordering::Relaxed);
    for bad in [Note::new(17, true, 0), Note::new(9, false, 0), Note::new(MAX_LENGTH, true, 0)] {
        words.slots[0].note.store(bad.0, Ordering::Relaxed);
        assert_eq!(reader.message(&claim, 0), Err(Violation), "{bad:?}");
    }
    assert!(writer.reserve(17).is_err(), "longer than any chunk");
}
