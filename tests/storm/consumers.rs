//! One who receives until it is killed or told to leave, and notes each message before and after.

use crate::common::crowd::trusted;
use crate::common::{Random, Scratch, dawdle};
use crate::ledger::{Flag, HANDS, Id, Ledger, Order, PRODUCERS, State};
use crate::plan::{LANES, Plan};
use ringway::mpmc::{Consumer, ReadGrant};
use ringway::{Receiver, RecvError};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);
/// Messages that one holds at the same time, of those that it has one by one.
const HELD: usize = 8;

/// What a consumer notes of what it receives.
pub struct Books<'a> {
    pub ledger: &'a Ledger,
    pub plan: &'a Plan,
    pub consumer: usize,
    pub generation: u32,
    /// The last sequence of each lane that came for the first time.
    pub last: [Option<u64>; LANES as usize],
}

/// What comes with a message.
pub struct Came<'a> {
    pub bytes: &'a [u8],
    pub tag: u32,
    pub lane: u32,
    pub sequence: u64,
    /// How often it was delivered before; at least.
    pub deliveries: u32,
    pub is_exact: bool,
}

impl<'a> From<&'a ReadGrant<'_>> for Came<'a> {
    fn from(grant: &'a ReadGrant<'_>) -> Self {
        Self {
            bytes: grant,
            tag: grant.tag(),
            lane: grant.producer(),
            sequence: grant.sequence(),
            deliveries: grant.deliveries(),
            is_exact: true,
        }
    }
}

impl<'a> From<(&'a [u8], ringway::transport::Delivery)> for Came<'a> {
    fn from((bytes, delivery): (&'a [u8], ringway::transport::Delivery)) -> Self {
        Self {
            bytes,
            tag: delivery.tag,
            lane: delivery.producer,
            sequence: delivery.sequence,
            deliveries: delivery.redelivered.into(),
            is_exact: false,
        }
    }
}

impl Books<'_> {
    /// Notes that a message was handed out, and checks that it may be; says in which hand it is.
    pub fn take(&mut self, came: Came) -> usize {
        let id = Id::of_tag(came.tag);
        let payload = self.plan.payload(id);
        payload.check(came.bytes, payload.tag());
        let old = self.ledger.state(id);
        let deliveries = if came.is_exact || old.handed == 0 || came.deliveries == 0 {
            came.deliveries
        } else {
            u32::from(old.deliveries) + 1
        };
        let what =
            || format!("{id:?} in lane {} at {} after {deliveries} deliveries, {old:?}", came.lane, came.sequence);
        assert_eq!(old.done, 0, "it comes again after it was given back: {}", what());
        assert!(!old.to_drop, "it comes again after one had it that drops: {}", what());
        assert!(old.handed == 0 || deliveries > old.deliveries.into(), "it comes again unmarked: {}", what());
        assert!(old.handed == 0 || self.ledger.is_killed(old.holder), "its holder lives: {}", what());
        assert!(deliveries < self.plan.max_deliveries, "it comes too often: {}", what());
        self.ledger.note_place(id, came.lane, came.sequence);
        let last = &mut self.last[came.lane as usize];
        if deliveries == 0 {
            assert!(!self.plan.tidy || *last < Some(came.sequence), "out of order behind {last:?}: {}", what());
            *last = (*last).max(Some(came.sequence));
        }
        let new = State {
            handed: old.handed + 1,
            to_drop: self.plan.drops(self.consumer),
            deliveries: deliveries as u8,
            holder: self.generation,
            done: 0,
        };
        self.ledger.change(id, old, new);
        let free = (0..HANDS).find(|&hand| self.ledger.hand(self.consumer, hand).is_none()).expect("a free hand");
        self.ledger.set_hand(self.consumer, free, Some((id, false)));
        free
    }

    /// Gives back what is in these hands.
    pub fn give_back(&self, hands: &[usize], release: impl FnOnce()) {
        let hand = |hand: usize| self.ledger.hand(self.consumer, hand).unwrap().0;
        for &at in hands {
            self.ledger.set_hand(self.consumer, at, Some((hand(at), true)));
        }
        release();
        for &at in hands {
            let id = hand(at);
            let old = self.ledger.state(id);
            assert_eq!((old.done, old.holder), (0, self.generation), "{id:?} was not ours: {old:?}");
            self.ledger.change(id, old, State { done: 1, ..old });
            self.ledger.set_hand(self.consumer, at, None);
        }
        self.ledger.note_progress(hands.len());
    }
}

pub fn consume(plan: &Plan, scratch: &Scratch, ledger: &Ledger, consumer: usize, generation: u32, seed: u64) {
    let mut books = Books { ledger, plan, consumer, generation, last: [None; LANES as usize] };
    let mut random = Random(seed);
    let options = plan.options(Some(consumer));
    // What comes by copy doesn't tell how often it was delivered.
    let way = random.below(if plan.exact { 2 } else { 4 });
    let note = |flag| ledger.set_flag(PRODUCERS + consumer, flag, true);
    if way < 2 {
        let mut end = trusted(options).mpmc_consumer(&scratch.address).unwrap();
        note(Flag::Joined);
        if way == 0 {
            books.hold_several(&end, &mut random);
        } else {
            books.receive_batches(&mut end, &mut random);
        }
        note(Flag::Leaving);
    } else {
        let mut end = options.receiver(&scratch.address).unwrap();
        note(Flag::Joined);
        books.receive_copies(&mut end, &mut random, way == 2);
        note(Flag::Leaving);
    }
}

impl Books<'_> {
    /// Whether it stays, after it found something or nothing.
    fn stays(&self, found: bool, random: &mut Random) -> bool {
        if random.below(64) == 0 {
            dawdle(random.below(20_000));
        }
        let drained = !found && self.ledger.is_ordered(Order::Drain);
        !drained && !self.ledger.flag(PRODUCERS + self.consumer, Flag::Leave)
    }

    fn hold_several(&mut self, end: &Consumer, random: &mut Random) {
        let mut held: Vec<(usize, ReadGrant)> = Vec::new();
        loop {
            let found = found(end.recv_timeout(SHORT)).map(|grant| {
                let hand = self.take(Came::from(&grant));
                held.push((hand, grant));
            });
            let most = if found.is_none() { 0 } else { random.below(HELD as u64) as usize };
            while held.len() > most {
                let (hand, grant) = held.swap_remove(random.below(held.len() as u64) as usize);
                self.give_back(&[hand], || drop(grant));
            }
            if !self.stays(found.is_some(), random) {
                held.drain(..).for_each(|(hand, grant)| self.give_back(&[hand], || drop(grant)));
                return;
            }
        }
    }

    fn receive_batches(&mut self, end: &mut Consumer, random: &mut Random) {
        loop {
            // What is left of a batch comes one by one, or as the next one.
            let mut seen = false;
            if random.below(4) == 0 {
                if let Some(grant) = found(end.recv_timeout(SHORT)) {
                    seen = true;
                    let hand = self.take(Came::from(&grant));
                    self.give_back(&[hand], || drop(grant));
                }
            } else if let Some(mut batch) = found(end.try_recv_batch(1 + random.below(20) as usize)) {
                seen = true;
                let most = if self.plan.tidy { usize::MAX } else { random.below(20) as usize };
                let mut hands = Vec::new();
                for message in (&mut batch).into_iter().take(most) {
                    hands.push(self.take(Came {
                        bytes: &message,
                        tag: message.tag(),
                        lane: message.producer(),
                        sequence: message.sequence(),
                        deliveries: message.deliveries(),
                        is_exact: true,
                    }));
                }
                self.give_back(&hands, || drop(batch));
            } else if let Some(grant) = found(end.recv_timeout(SHORT)) {
                seen = true;
                let hand = self.take(Came::from(&grant));
                self.give_back(&[hand], || drop(grant));
            }
            if !self.stays(seen, random) {
                return;
            }
        }
    }

    fn receive_copies(&mut self, end: &mut Receiver, random: &mut Random, singly: bool) {
        loop {
            let mut seen = false;
            if singly {
                if let Some(message) = found(end.recv_timeout(SHORT)) {
                    seen = true;
                    let hand = self.take(Came::from((&message[..], message.delivery())));
                    self.give_back(&[hand], || drop(message));
                }
            } else if let Some(mut batch) = found(end.recv_batch_timeout(1 + random.below(20) as usize, SHORT)) {
                seen = true;
                let most = if self.plan.tidy { usize::MAX } else { random.below(20) as usize };
                let mut hands = Vec::new();
                while hands.len() < most
                    && let Some(message) = batch.next()
                {
                    hands.push(self.take(Came::from(message)));
                }
                self.give_back(&hands, || drop(batch));
            }
            if !self.stays(seen, random) {
                return;
            }
        }
    }
}

fn found<T>(answer: Result<T, RecvError>) -> Option<T> {
    match answer {
        Ok(found) => Some(found),
        Err(RecvError::Timeout | RecvError::Empty) => None,
        Err(error) => panic!("{error}"),
    }
}
