//! What is explored: the ring's geometry, what its participants may do, and which mistake is planted.

use crate::mutants::Mutant;
use crate::truth::Violation;
use crate::words::{Seat, State};

#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub lanes: u8,
    pub slots: u8,
    /// One or two, at a time.
    pub consumers: usize,
    /// Messages that each producer publishes.
    pub messages: u8,
    /// The most loans committed at once, messages claimed at once, and leases held at once.
    pub batch: u8,
    pub run: u8,
    pub hold: u8,
    /// Whether loans are aborted and batches abandoned, and whether consumers put back what they hold.
    pub aborts: bool,
    pub puts_back: bool,
    pub kills: u8,
    pub leaves: u8,
    /// Deliveries at which a message is dropped; 1 is the policy that drops at once.
    pub max_deliveries: u8,
    /// Whether all must come to a good end while somebody is stopped, too.
    pub stopped: bool,
    pub mutant: Mutant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    Producer(usize),
    Consumer(usize),
    Recoverer(usize),
}

pub type Step<const L: usize, const N: usize> = (Who, &'static str, Result<State<L, N>, Violation>);

impl Model {
    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    /// All that can happen next. Of each participant's steps the first leads on, for the drain.
    pub fn steps<const L: usize, const N: usize>(&self, state: &State<L, N>, out: &mut Vec<Step<L, N>>) {
        out.clear();
        for lane in 0..L {
            self.producer_steps(state, lane, out);
        }
        for seat in 0..state.seats.len() {
            match state.seats[seat] {
                Seat::Alive(_) => self.consumer_steps(state, seat, out),
                Seat::Orphaned(recoverer) => self.recoverer_steps(state, seat, recoverer, out),
                Seat::Vacant => {}
            }
        }
        self.endings(state, out);
        for (_, _, next) in out {
            if let Err(violation) = next.and_then(|state| state.check()) {
                *next = Err(violation);
            }
        }
    }
}
