//! One who sends until it is killed or told to leave.

use crate::common::crowd::trusted;
use crate::common::{Random, Scratch, dawdle};
use crate::ledger::{Flag, Id, Ledger, Mark, NUMBERS, Order};
use crate::plan::Plan;
use ringway::mpmc::Producer;
use ringway::{Address, ErrorKind, Options, Sender};

/// The ways of sending. After a kill each tells something else of the messages that it may have been sending.
pub const WAYS: usize = 4;
/// A prefix of them was sent.
pub const MANY: usize = 1;

struct Stream<'a> {
    ledger: &'a Ledger,
    plan: &'a Plan,
    stream: usize,
    next: usize,
    random: Random,
}

pub fn produce(plan: &Plan, scratch: &Scratch, ledger: &Ledger, stream: usize, seed: u64) {
    let mut random = Random(seed);
    let way = random.below(WAYS as u64) as usize;
    let next = ledger.mark(stream, Mark::Begun);
    ledger.set_mark(stream, Mark::Way, way);
    let mut stream = Stream { ledger, plan, stream, next, random };
    if way <= MANY {
        let mut sender = join(|| plan.options(None).sender(&scratch.address));
        stream.begin();
        while stream.goes_on() {
            if way == MANY { stream.send_many(&mut sender) } else { stream.send(&mut sender) }
        }
    } else {
        let mut producer = join(|| join_trusted(plan.options(None), &scratch.address));
        stream.begin();
        while stream.goes_on() {
            if way == 2 { stream.publish_batch(&mut producer) } else { stream.commit(&mut producer) }
        }
    }
}

fn join_trusted(options: Options, address: &Address) -> ringway::Result<Producer> {
    trusted(options).mpmc_producer(address)
}

/// A chair is not free until its dead holder was recovered, and whoever does that may be stopped.
fn join<T>(attempt: impl Fn() -> ringway::Result<T>) -> T {
    loop {
        match attempt() {
            Ok(end) => return end,
            Err(error) if error.kind() == ErrorKind::NoSpace => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Stream<'_> {
    fn begin(&self) {
        self.ledger.set_flag(self.stream, Flag::Joined, true);
    }

    fn goes_on(&mut self) -> bool {
        if self.next + 32 > NUMBERS {
            // It has sent enough, and waits to be killed or sent away.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if self.random.below(64) == 0 {
            dawdle(self.random.below(20_000));
        }
        let leaves = self.ledger.is_ordered(Order::Finish) || self.ledger.flag(self.stream, Flag::Leave);
        if leaves {
            self.ledger.set_flag(self.stream, Flag::Leaving, true);
        }
        !leaves
    }

    /// The next messages, of which all that follow may have been sent.
    fn take(&mut self, count: usize) -> Vec<Id> {
        let end = (self.next + count).min(NUMBERS);
        self.ledger.set_mark(self.stream, Mark::Begun, end);
        (self.next..end).map(|number| Id { stream: self.stream, number }).collect()
    }

    /// They have been sent; where, if it is known.
    fn sent(&mut self, ids: &[Id], places: &[(u32, u64)]) {
        for (id, &(lane, sequence)) in ids.iter().zip(places) {
            self.ledger.note_place(*id, lane, sequence);
        }
        self.next += ids.len();
        self.ledger.set_mark(self.stream, Mark::Begun, self.next);
        self.ledger.set_mark(self.stream, Mark::Sent, self.next);
    }

    fn send(&mut self, sender: &mut Sender) {
        for id in self.take(1) {
            let sequence = sender.send((&self.plan.payload(id).to_vec(), id.tag())).unwrap();
            self.sent(&[id], &[(sender.lane(), sequence)]);
        }
    }

    fn send_many(&mut self, sender: &mut Sender) {
        let count = 1 + self.random.below(24) as usize;
        let ids = self.take(count);
        let messages: Vec<_> = ids.iter().map(|&id| (self.plan.payload(id).to_vec(), id.tag())).collect();
        assert_eq!(sender.send_many(messages.iter().map(|(bytes, tag)| (bytes, *tag))), Ok(ids.len()));
        self.sent(&ids, &[]);
    }

    /// As many as there is room for, all at once; and waits for room for one if there is none.
    fn publish_batch(&mut self, producer: &mut Producer) {
        let count = 1 + self.random.below(24) as usize;
        let ids = self.take(count);
        if ids.is_empty() {
            return;
        }
        let lane = producer.lane();
        let mut places = Vec::new();
        let mut batch = producer.batch();
        for &id in &ids {
            let payload = self.plan.payload(id);
            let grant =
                if places.is_empty() { batch.reserve(payload.len).ok() } else { batch.try_reserve(payload.len).ok() };
            let Some(mut grant) = grant else { break };
            payload.write(&mut grant);
            grant.set_tag(id.tag());
            places.push((lane, grant.commit(payload.len)));
        }
        if self.random.below(16) == 0 {
            // Never sent.
            drop(batch);
            self.ledger.set_mark(self.stream, Mark::Begun, self.next);
            return;
        }
        // A killed one has sent all of these, or none.
        self.ledger.set_mark(self.stream, Mark::Begun, self.next + places.len());
        assert!(batch.publish());
        self.sent(&ids[..places.len()], &places);
    }

    fn commit(&mut self, producer: &mut Producer) {
        for id in self.take(1) {
            let payload = self.plan.payload(id);
            if self.random.below(4) == 0 {
                producer.reserve(self.plan.longest).unwrap().fill(0xff);
            }
            let room = self.plan.longest.min(payload.len + self.random.below(99) as usize);
            let mut grant = producer.reserve(room).unwrap();
            payload.write(&mut grant);
            grant.set_tag(id.tag());
            let sequence = grant.commit(payload.len);
            self.sent(&[id], &[(producer.lane(), sequence)]);
        }
    }
}
