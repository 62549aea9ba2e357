//! Breadth first through all states, so that a violation comes with a shortest trace.
//!
//! Visited states are known by fingerprints of 64 bits: among 10^7 states two agree with a probability of 3 in a million.

use crate::model::{Model, Step};
use crate::truth::Violation;
use crate::words::State;
use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// All fields are bytes, and all discriminants could be: eight of them are mixed at once. The lengths of arrays tell nothing.
#[derive(Default)]
struct Fingerprint {
    mixed: u64,
    bytes: u64,
    count: u32,
}

impl Fingerprint {
    fn mix(&mut self) {
        let product = u128::from(self.mixed ^ self.bytes ^ 0x9e37_79b9_7f4a_7c15) * 0xe703_7ed1_a0b4_28db;
        self.mixed = (product >> 64) as u64 ^ product as u64;
        self.bytes = 0;
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u8(byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.bytes = self.bytes << 8 | u64::from(byte);
        self.count += 1;
        if self.count.is_multiple_of(8) {
            self.mix();
        }
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant as u8);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        let mut last = Fingerprint { ..*self };
        last.mix();
        last.bytes = u64::from(self.count);
        last.mix();
        last.mixed
    }
}

fn fingerprint(what: &impl Hash) -> u64 {
    let mut fingerprint = Fingerprint::default();
    what.hash(&mut fingerprint);
    fingerprint.finish()
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub struct Seen(HashSet<u64, BuildHasherDefault<AsItIs>>);

impl Seen {
    /// Whether it is new.
    pub fn insert(&mut self, what: &impl Hash) -> bool {
        self.0.insert(fingerprint(what))
    }

    pub fn contains(&self, what: &impl Hash) -> bool {
        self.0.contains(&fingerprint(what))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

pub struct Explored {
    pub states: usize,
    pub steps: usize,
    pub drained: usize,
}

pub struct Failure {
    pub violation: Violation,
    pub states: usize,
    pub length: usize,
    pub trace: String,
}

/// From which state, and by which of its steps.
type Origin = (u32, u16);

impl Model {
    pub fn explore<const L: usize, const N: usize>(&self) -> Result<Explored, Box<Failure>> {
        let start = State::<L, N>::new(self.consumers, self.kills, self.leaves).canonical();
        let (mut visited, mut ended) = (Seen::default(), Seen::default());
        let mut origins: Vec<Origin> = vec![(0, 0)];
        let mut queue = VecDeque::from([start]);
        let (mut steps, mut count, mut taken) = (Vec::new(), 0, 0);
        visited.insert(&start);
        while let Some(state) = queue.pop_front() {
            let index = count;
            count += 1;
            let fail = |violation, step, origins: &[Origin]| {
                let (trace, length) = self.trace(start, origins, index, step);
                Box::new(Failure { violation, states: count, length, trace })
            };
            self.drain(&state, &mut ended, &mut steps).map_err(|violation| fail(violation, None, &origins))?;
            self.steps(&state, &mut steps);
            taken += steps.len();
            for (number, step) in steps.iter().enumerate() {
                let next = step.2.map_err(|violation| fail(violation, Some(number), &origins))?.canonical();
                if visited.insert(&next) {
                    origins.push((index as u32, number as u16));
                    queue.push_back(next);
                }
            }
        }
        Ok(Explored { states: count, steps: taken, drained: ended.len() })
    }

    /// The way to a state, and the step from there that fails; no step if it is the drain that does.
    fn trace<const L: usize, const N: usize>(
        &self,
        start: State<L, N>,
        origins: &[Origin],
        end: usize,
        step: Option<usize>,
    ) -> (String, usize) {
        let mut numbers = Vec::new();
        let mut at = end;
        while at != 0 {
            let (from, number) = origins[at];
            numbers.push(usize::from(number));
            at = from as usize;
        }
        let (mut text, mut steps) = (String::new(), Vec::<Step<L, N>>::new());
        // The states visited have their consumers exchanged at times; in the text each keeps its name.
        let (mut state, mut visited) = (start, start);
        let length = numbers.len() + usize::from(step.is_some());
        for number in numbers.into_iter().rev().chain(step) {
            self.steps(&visited, &mut steps);
            let wanted = steps[number].2.map(|next| next.canonical());
            self.steps(&state, &mut steps);
            let same = |step: &&Step<L, N>| step.2.map(|next| next.canonical()) == wanted;
            let (who, what, next) = steps.iter().find(same).expect("the same step, by the other name");
            let _ = write!(text, "{who:?} {what}");
            let Ok(next) = next else { break };
            let _ = writeln!(text, "{next}");
            (state, visited) = (*next, next.canonical());
        }
        (text, length)
    }
}
