//! The protocol of the ring of many producers and many consumers, explored exhaustively: every interleaving of its steps as
//! `src/ring/mpmc/mod.rs` numbers them, with kills between any two of them, recoverers and successors that are killed
//! themselves, consumers that leave and join, batches that are abandoned, and messages that are put back.
//!
//! Memory is sequentially consistent, and a load, a store, or a compare and swap of a shared word is one step; where some make
//! one together, the module says why nothing is lost by it. That somebody is stopped for ever is part of every exploration.
//! Not in it: pools (a chunk of a pool is free when its slot is), waking, counters that wrap, and weaker orderings, which are
//! loom's to check.
//!
//! In every state, what really became of each message ([`truth`]) must agree with what the words made the participants do,
//! and all must still come to a good end ([`drain`]). A model that can't fail shows nothing: each of the [`mutants`] must.
//!
//! `cargo test --profile quick --test mpmc_model -- --nocapture` shows what was explored. With `RINGWAY_MODEL=full` in the
//! environment there are larger configurations, which take minutes and some gigabytes.

mod consumer;
mod drain;
mod explorer;
mod model;
mod mutants;
mod producer;
mod recovery;
mod resume;
mod show;
mod truth;
mod words;

use explorer::{Explored, Failure};
use model::Model;
use mutants::Mutant;
use std::time::Instant;

/// Two slots: from the third message on they are used again.
const SMALL: Model = Model {
    lanes: 1,
    slots: 2,
    consumers: 2,
    messages: 4,
    batch: 2,
    run: 2,
    hold: 2,
    aborts: false,
    puts_back: false,
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
fn batches_and_runs() {
    holds(SMALL);
    holds(MEDIUM);
}

#[test]
fn many_laps() {
    holds(Model { messages: 7, kills: 2, consumers: 1, aborts: true, ..SMALL });
    holds(Model { messages: 7, consumers: 1, ..MEDIUM });
    holds(Model { messages: 5, ..SINGLES });
}

#[test]
fn two_kills() {
    holds(Model { kills: 2, ..SINGLES });
    holds(Model { kills: 2, max_deliveries: 1, ..SMALL });
}

#[test]
fn leaving_and_dropping() {
    holds(Model { messages: 3, leaves: 1, max_deliveries: 2, stopped: true, ..SMALL });
}

#[test]
fn putting_back() {
    holds(Model { messages: 3, aborts: true, puts_back: true, stopped: true, ..SMALL });
}

#[test]
fn two_lanes() {
    holds(TWO_LANES);
}

#[test]
fn large() {
    if full() {
        holds(Model { slots: 4, messages: 5, ..SMALL });
        holds(Model { slots: 4, messages: 5, batch: 1, run: 3, ..SMALL });
        holds(Model { slots: 4, messages: 7, kills: 2, consumers: 1, ..SMALL });
        holds(Model { messages: 7, kills: 2, consumers: 1, batch: 1, ..MEDIUM });
        holds(Model { aborts: true, stopped: true, ..MEDIUM });
    }
}

#[test]
fn large_with_many_kills() {
    if full() {
        holds(Model { kills: 2, leaves: 1, ..SMALL });
        holds(Model { kills: 3, ..SINGLES });
        holds(Model { messages: 3, leaves: 1, aborts: true, puts_back: true, stopped: true, ..SMALL });
    }
}

#[test]
fn large_with_two_lanes() {
    if full() {
        holds(Model { kills: 2, ..TWO_LANES });
        holds(Model { batch: 2, run: 2, hold: 2, ..TWO_LANES });
    }
}

#[test]
fn mistakes_in_claims_and_redelivery_are_caught() {
    caught(&[
        (Mutant::ClaimUnrecorded, SMALL),
        (Mutant::RecordOverLaterLap, SMALL),
        (Mutant::RunOverSkip, MEDIUM),
        (Mutant::EmptyAtOnce, SMALL),
        (Mutant::SeenAfterScan, Model { kills: 2, ..SINGLES }),
        (Mutant::JoinWithoutScan, SMALL),
        (Mutant::DoneOfAnyLap, SMALL),
        (Mutant::DoneIgnored, SMALL),
        (Mutant::RunReleasedEarly, SMALL),
        (Mutant::PutBackUntold, Model { puts_back: true, ..SMALL }),
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
        (Mutant::MembersIgnored, SMALL),
        (Mutant::PinForOneLap, SMALL),
        (Mutant::SkipAlone, SMALL),
        (Mutant::FirstSealFirst, SMALL),
        (Mutant::SkipForgetsSequence, SMALL),
        (Mutant::StaleSeals, SMALL),
        (Mutant::NotAnnounced, SMALL),
        (Mutant::NotRestored, SMALL),
        (Mutant::UnusedLaneSeemsFilled, MEDIUM),
        (Mutant::FromRunToRun, Model { messages: 7, consumers: 1, batch: 1, ..MEDIUM }),
    ]);
}
