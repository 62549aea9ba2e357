//! The protocol of the ring of many producers and many consumers, explored exhaustively: every interleaving of its steps as
//! `src/ring/mpmc/mod.rs` numbers them, with kills between any two, recoverers that are killed themselves, consumers that leave
//! and join, and successors of producers.
//!
//! A load, a store or a compare and swap of a shared word is one step; where several make one, the module says why nothing
//! is lost by it. Memory is sequentially consistent. Some participant that is never scheduled is part of every exploration.
//!
//! In every state, what really became of each message ([`truth`]) must agree with what the words made the participants do,
//! and all must still come to a good end ([`drain`]). A model that can't fail shows nothing: each of the [`mutants`] must.
//!
//! `cargo test --profile quick --test mpmc_model -- --nocapture` shows what was explored. With `RINGWAY_MODEL=full` in the
//! environment larger configurations follow, which take minutes and some gigabytes.

mod consumer;
mod drain;
mod explorer;
mod model;
mod mutants;
mod producer;
mod recovery;
mod show;
mod truth;
mod words;

use explorer::{Explored, Failure};
use model::Model;
use mutants::Mutant;
use std::time::Instant;

/// Two slots, so that three messages are the second lap.
const SMALL: Model = Model {
    lanes: 1,
    slots: 2,
    messages: 4,
    batch: 2,
    run: 2,
    hold: 2,
    aborts: false,
    kills: 1,
    leaves: 0,
    max_deliveries: 15,
    stopped: false,
    mutant: Mutant::None,
};

/// Room for a skip between messages, and for a run beside a pinned one.
const MEDIUM: Model = Model { slots: 3, ..SMALL };

/// Singles: for more kills, laps and lanes.
const SINGLES: Model = Model { batch: 1, run: 1, ..SMALL };

const TWO_LANES: Model = Model { lanes: 2, messages: 2, hold: 1, ..SINGLES };

fn explore(model: &Model) -> Result<Explored, Box<Failure>> {
    match (model.lanes, model.slots) {
        (1, 2) => model.explore::<1, 2>(),
        (1, 3) => model.explore::<1, 3>(),
        (1, 4) => model.explore::<1, 4>(),
        (2, 2) => model.explore::<2, 2>(),
        other => panic!("no model of {other:?} lanes and slots"),
    }
}

fn holds(model: Model) {
    let start = Instant::now();
    match explore(&model) {
        Ok(Explored { states, steps, drained }) => {
            println!("{model}: {states} states, {steps} steps, {drained} drained, {:.0?}", start.elapsed());
        }
        Err(failure) => panic!("{model}: {} after {} states\n{}", failure.violation, failure.states, failure.trace),
    }
}

fn caught(models: &[(Mutant, Model)]) {
    for &(mutant, model) in models {
        let Err(failure) = explore(&Model { mutant, ..model }) else { panic!("{mutant:?} is not caught") };
        println!("{mutant:?}: {} by {} steps, {} states", failure.violation, failure.length, failure.states);
    }
}

fn full() -> bool {
    std::env::var("RINGWAY_MODEL").is_ok_and(|size| size == "full")
}

#[test]
fn batches_and_runs_in_two_slots() {
    holds(Model { leaves: 1, max_deliveries: 2, stopped: true, ..SMALL });
}

#[test]
fn aborted_loans() {
    holds(Model { aborts: true, ..SMALL });
}

#[test]
fn dropped_at_once() {
    holds(Model { max_deliveries: 1, kills: 2, ..SMALL });
}

#[test]
fn singles_over_many_laps() {
    holds(Model { messages: 5, kills: 2, ..SINGLES });
}

#[test]
fn batches_and_runs_in_three_slots() {
    holds(Model { stopped: true, ..MEDIUM });
}

#[test]
fn two_lanes() {
    holds(Model { kills: 2, stopped: true, ..TWO_LANES });
}

#[test]
fn large() {
    if full() {
        holds(Model { slots: 4, messages: 5, ..SMALL });
        holds(Model { slots: 4, messages: 5, batch: 1, run: 3, ..SMALL });
        holds(Model { kills: 2, leaves: 1, ..SMALL });
        holds(Model { messages: 6, ..SMALL });
        holds(Model { aborts: true, stopped: true, ..MEDIUM });
        holds(Model { messages: 5, ..MEDIUM });
    }
}

#[test]
fn large_with_two_lanes() {
    if full() {
        holds(Model { batch: 2, run: 2, hold: 2, ..TWO_LANES });
        holds(Model { kills: 2, leaves: 1, ..TWO_LANES });
        holds(Model { messages: 3, ..TWO_LANES });
    }
}

#[test]
fn mistakes_in_claims_and_redelivery_are_caught() {
    caught(&[
        (Mutant::ClaimUnrecorded, SMALL),
        (Mutant::RecordOverLaterLap, SMALL),
        (Mutant::RunOverSkip, MEDIUM),
        (Mutant::PassedIsEmpty, SMALL),
        (Mutant::SeenAfterScan, Model { kills: 2, ..SINGLES }),
        (Mutant::JoinWithoutScan, SMALL),
        (Mutant::DoneOfAnyLap, SMALL),
        (Mutant::DoneIgnored, SMALL),
        (Mutant::RunReleasedEarly, SMALL),
    ]);
}

#[test]
fn mistakes_in_recovery_are_caught() {
    caught(&[
        (Mutant::RequeueBeforeRecord, SMALL),
        (Mutant::NoAnnouncement, SMALL),
        (Mutant::AnnouncementFirst, SMALL),
        (Mutant::AnnouncementOfOwn, SMALL),
        (Mutant::VacantFirst, SMALL),
        (Mutant::Unflagged, SMALL),
    ]);
}

#[test]
fn mistakes_of_producers_are_caught() {
    caught(&[
        (Mutant::NoHeadCheck, SMALL),
        (Mutant::OldLeaseIsFree, SMALL),
        (Mutant::PinOfOneSlot, SMALL),
        (Mutant::PinForOneLap, SMALL),
        (Mutant::SkipAlone, SMALL),
        (Mutant::FirstSealFirst, SMALL),
        (Mutant::SkipForgetsSequence, SMALL),
        (Mutant::StaleSeals, SMALL),
        (Mutant::ClearedToZero, MEDIUM),
        (Mutant::SequenceFromSeal, SMALL),
    ]);
}
