//! A ring of many with members that nobody touches, and an account of all that goes through it.

use crate::common::crowd::trusted;
use crate::common::payload::{Payload, mix, number};
use crate::common::ringcheck::{Found, check, check_idle};
use crate::common::{Kind, Scratch};
use ringway::mpmc::{Consumer, Producer, ReadGrant, WriteGrant};
use ringway::{Options, PeerState, RecvError, Report, SendError, Takeover, inspect, recover};
use std::collections::BTreeMap;

/// Slots of a lane: the least that there are.
pub const SLOTS: u64 = 64;
/// Chunks of a lane for messages that don't fit into a slot.
pub const CHUNKS: u64 = 4;
const LONG: usize = 1000;

/// Which message it is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    author: u64,
    pub lane: u32,
    pub sequence: u64,
    long: bool,
}

impl Message {
    fn payload(self) -> Payload {
        let number = self.author << 56 | u64::from(self.long) << 55 | u64::from(self.lane) << 48 | self.sequence;
        let length = if self.long { 300 + mix(number) % 700 } else { 8 + mix(number) % 49 };
        Payload::of_len(number, length as usize)
    }

    /// Reads it from its payload, which it checks.
    #[track_caller]
    pub fn read(bytes: &[u8], tag: u32) -> Self {
        let number = number(bytes);
        let message = Self {
            author: number >> 56,
            lane: (number >> 48) as u32 & 0x7f,
            sequence: number & ((1 << 48) - 1),
            long: number >> 55 & 1 != 0,
        };
        message.payload().check(bytes, tag);
        message
    }
}

/// A producer that numbers what it sends.
pub struct Author {
    pub producer: Producer,
    author: u64,
    pub next: u64,
}

impl Author {
    /// Takes the first free lane, whose next message is number `next`.
    pub fn join(scratch: &Scratch, author: u64, next: u64) -> Self {
        let producer = trusted(sleepy()).mpmc_producer(&scratch.address).unwrap();
        Self { producer, author, next }
    }

    /// The next message's payload; `ahead` for one further on.
    pub fn payload(&self, ahead: u64, long: bool) -> Payload {
        let (author, lane) = (self.author, self.producer.lane());
        Message { author, lane, sequence: self.next + ahead, long }.payload()
    }

    pub fn try_send(&mut self, long: bool) -> Result<(), SendError> {
        let payload = self.payload(0, long);
        let sequence = commit(self.producer.try_reserve(payload.len)?, payload);
        assert_eq!(sequence, self.next);
        self.next += 1;
        Ok(())
    }

    pub fn send(&mut self) {
        self.try_send(false).unwrap();
    }

    /// Sends until the lane is full, and says how many there was room for.
    pub fn fill(&mut self, long: bool) -> u64 {
        let start = self.next;
        while self.try_send(long).is_ok() {}
        assert_eq!(self.try_send(long), Err(SendError::Full));
        self.next - start
    }
}

/// Writes and sends a message.
pub fn commit(mut grant: WriteGrant<'_>, payload: Payload) -> u64 {
    payload.write(&mut grant);
    grant.set_tag(payload.tag());
    grant.commit(payload.len)
}

/// A message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    pub lane: u32,
    pub sequence: u64,
    pub deliveries: u32,
    pub author: u64,
}

/// What arrived: each message once.
#[derive(Default)]
pub struct Books {
    received: BTreeMap<(u32, u64), Receipt>,
    last: BTreeMap<u32, u64>,
    /// Whether messages that were given back unread may come late.
    pub lax: bool,
}

impl Books {
    #[track_caller]
    pub fn enter(&mut self, message: &ReadGrant<'_>) -> Receipt {
        let Message { author, lane, sequence, .. } = Message::read(message, message.tag());
        assert_eq!((lane, sequence), (message.producer(), message.sequence()));
        let receipt = Receipt { lane, sequence, deliveries: message.deliveries(), author };
        let before = self.received.insert((lane, sequence), receipt);
        assert_eq!(before, None, "message {sequence} of lane {lane} came twice");
        if !message.is_redelivered() {
            let last = self.last.insert(lane, sequence);
            assert!(self.lax || last < Some(sequence), "{last:?}, and then {sequence}");
        }
        receipt
    }

    /// How often it had been delivered before, if it came.
    pub fn deliveries(&self, lane: u32, sequence: u64) -> Option<u32> {
        self.received.get(&(lane, sequence)).map(|receipt| receipt.deliveries)
    }

    /// Another process received it; nobody says how often it was delivered before.
    #[track_caller]
    pub fn note(&mut self, lane: u32, sequence: u64) {
        let receipt = Receipt { lane, sequence, deliveries: 0, author: 0 };
        assert_eq!(
            self.received.insert((lane, sequence), receipt),
            None,
            "message {sequence} of lane {lane} came twice"
        );
        // For this one consumer others come in any order.
        self.lax = true;
    }

    /// The messages of a lane before `end` that did not arrive; none did behind it.
    #[track_caller]
    fn missing(&self, lane: u32, end: u64) -> impl Iterator<Item = (u32, u64)> {
        assert_eq!(self.received.range((lane, end)..=(lane, u64::MAX)).next(), None);
        (0..end).map(move |sequence| (lane, sequence)).filter(|message| !self.received.contains_key(message))
    }
}

/// The ring, and who is there all the time.
pub struct Hall {
    pub scratch: Scratch,
    /// The producers of the lanes from 0 on.
    pub authors: Vec<Author>,
    /// Receives what nobody else does.
    pub witness: Consumer,
    pub books: Books,
}

impl Hall {
    /// With that many authors, in a ring that may have further options.
    pub fn new(authors: u32, options: &str) -> Self {
        // What payloads are cut from is made once: not by a child whose steps are counted.
        Message { author: 0, lane: 0, sequence: 0, long: false }.payload().to_vec();
        let scratch = Scratch::many(Kind::Shm, &format!("capacity=1&{options}&persist=yes"));
        let witness = consumer(&scratch, Takeover::Redeliver);
        let authors = (0..authors).map(|lane| Author::join(&scratch, u64::from(lane) + 1, 0)).collect();
        Self { scratch, authors, witness, books: Books::default() }
    }

    /// Whether there are pools.
    fn has_pools(&self) -> bool {
        self.witness.max_message() == LONG
    }

    /// Lets `count` messages of a lane pass.
    pub fn pass(&mut self, lane: usize, count: u64) {
        for _ in 0..count {
            self.authors[lane].send();
            self.drain();
        }
    }

    /// What the witness gets until there is nothing left.
    #[track_caller]
    pub fn drain(&mut self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        loop {
            match self.witness.try_recv() {
                Ok(message) => receipts.push(self.books.enter(&message)),
                Err(error) => {
                    assert_eq!(error, RecvError::Empty);
                    return receipts;
                }
            }
        }
    }

    /// The others, and nobody's death, are in the way of a message.
    #[track_caller]
    pub fn check_others_go_on(&mut self) {
        for lane in 0..self.authors.len() {
            let author = &mut self.authors[lane];
            let sequence = author.next;
            author.send();
            // Before the first time that there is nothing.
            let receipts = self.drain();
            assert!(receipts.iter().any(|r| (r.lane, r.sequence) == (lane as u32, sequence)), "{receipts:?}");
        }
    }

    pub fn check(&self) -> Found {
        check(self.scratch.name().unwrap())
    }

    pub fn report(&self) -> Report {
        inspect(self.scratch.name().unwrap()).unwrap()
    }

    /// Recovers, and says how many have died since the ring was made: those who are seen to be dead, no more and no fewer.
    #[track_caller]
    pub fn recover(&self) -> u32 {
        let deaths = || {
            let report = self.report();
            let (mut recovered, mut dead) = (0, 0);
            for peer in report.producers.iter().chain(&report.consumers) {
                recovered += peer.deaths;
                dead += u32::from(matches!(peer.state, PeerState::Dead { .. }));
            }
            (recovered, dead)
        };
        let (before, dead) = deaths();
        let name = self.scratch.name().unwrap();
        let recovery = recover(name).unwrap();
        // Others may have been quicker.
        assert!(recovery.deaths <= dead);
        assert_eq!(deaths(), (before + dead, 0));
        assert_eq!(recover(name).unwrap(), ringway::Recovery::default(), "once is enough");
        self.check();
        before + dead
    }

    /// All memory of all lanes is there, for more than a lap, and each message arrived, but those given by lane and number.
    #[track_caller]
    pub fn check_all_is_free(&mut self, but: &[(u32, u64)]) {
        self.drain();
        self.check_idle();
        for _ in 0..2 {
            for lane in 0..self.authors.len() {
                let author = &mut self.authors[lane];
                assert_eq!(author.fill(false), SLOTS, "in lane {lane}");
                check(self.scratch.name().unwrap());
                self.drain();
                if self.has_pools() {
                    let author = &mut self.authors[lane];
                    assert_eq!((author.fill(true), author.fill(false)), (CHUNKS, SLOTS - CHUNKS), "in lane {lane}");
                    check(self.scratch.name().unwrap());
                    self.drain();
                }
            }
        }
        self.check_idle();
        let missing = (0..).zip(&self.authors).flat_map(|(lane, author)| self.books.missing(lane, author.next));
        assert_eq!(missing.collect::<Vec<_>>(), but, "missing");
    }

    fn check_idle(&self) {
        check_idle(self.scratch.name().unwrap());
    }
}

pub fn consumer(scratch: &Scratch, takeover: Takeover) -> Consumer {
    trusted(sleepy().takeover(takeover)).mpmc_consumer(&scratch.address).unwrap()
}

/// Receives and gives back a message.
pub fn receive(consumer: &Consumer) {
    std::hint::black_box(consumer.recv().unwrap()[0]);
}

/// Of one that waits for new peers, and that sleeps without further ado.
fn sleepy() -> Options {
    Options::new().keep_open(true).spin(std::time::Duration::ZERO)
}
