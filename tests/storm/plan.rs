//! What a round is like.

use crate::common::payload::Payload;
use crate::common::{Kind, Random, Scratch};
use crate::ledger::{CONSUMERS, Id};
use ringway::{Options, Takeover, Wait};

/// More than there are producers: a chair is not free while one who recovers its last holder is stopped.
pub const LANES: u32 = 6;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub wait: Wait,
    pub longest: usize,
    pub capacity: usize,
    pub max_deliveries: u32,
    /// How many of the consumers want what they hold dropped when they die.
    pub droppers: usize,
    /// Kills happen while all others are stopped, and are recovered by nobody else: then all counters are exact.
    pub exact: bool,
    /// Nobody leaves a part of a batch to others, which would come to them late.
    pub tidy: bool,
    pub seed: u64,
}

impl Plan {
    pub fn new(round: u64, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut one_of = |choices: &[usize]| choices[random.below(choices.len() as u64) as usize];
        let wait = match round % 8 {
            5 => Wait::Spin,
            round if round % 2 == 0 => Wait::Futex,
            _ => Wait::Semaphore,
        };
        // Without droppers every other time, so that nothing may be missing.
        let careless = round % 4 > 1;
        Self {
            kind: [Kind::Shm, Kind::SysV][round as usize % 2],
            wait,
            longest: one_of(&[64, 256, 600, 5000]),
            capacity: one_of(&[4 << 10, 64 << 10, 1 << 20]),
            max_deliveries: if careless { one_of(&[1, 2, 15, 15]) as u32 } else { 15 },
            droppers: if careless { one_of(&[1, 2, CONSUMERS]) } else { 0 },
            exact: one_of(&[0, 1]) == 1,
            tidy: one_of(&[0, 1]) == 1,
            seed,
        }
    }

    pub fn scratch(&self) -> Scratch {
        let Self { wait, longest, capacity, max_deliveries, .. } = self;
        let options = format!(
            "producers={LANES}&capacity={capacity}&max_message={longest}&wait={wait}&max_deliveries={max_deliveries}&persist=yes"
        );
        Scratch::many(self.kind, &options)
    }

    /// Whether every message that was published has to be handed out, whatever happens.
    pub fn is_careful(&self) -> bool {
        self.droppers == 0 && self.max_deliveries == 15
    }

    pub fn payload(&self, id: Id) -> Payload {
        Payload::new(self.seed ^ u64::from(id.tag()), self.longest)
    }

    pub fn options(&self, consumer: Option<usize>) -> Options {
        let takeover = match consumer {
            Some(consumer) if self.drops(consumer) => Takeover::Drop,
            _ => Takeover::Redeliver,
        };
        Options::new().keep_open(true).takeover(takeover)
    }

    pub fn drops(&self, consumer: usize) -> bool {
        consumer < self.droppers
    }
}
