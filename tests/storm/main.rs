//! A storm: producers and consumers that are killed, stopped, continued and replaced at random, and a ledger of what has become
//! of each message.
//!
//! It lasts `RINGWAY_STORM_SECONDS`, a minute unless said; `RINGWAY_STORM_SEED` repeats its plans, if not its moments.

#[path = "../common/mod.rs"]
mod common;
mod consumers;
mod controller;
mod ledger;
mod plan;
mod producers;
mod verdict;

use controller::Round;
use plan::Plan;
use std::time::{Duration, Instant};

/// How long a ring is used before all is counted.
const ROUND: Duration = Duration::from_secs(4);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn a_storm_loses_nothing_that_is_promised() {
    let lasts = Duration::from_secs(setting("RINGWAY_STORM_SECONDS").unwrap_or(60));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("RINGWAY_STORM_SEED").unwrap_or(now.as_nanos() as u64);
    println!("RINGWAY_STORM_SEED={seed}");
    let (start, mut total) = (Instant::now(), controller::Summary::default());
    for round in 0.. {
        let left = lasts.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        let plan = Plan::new(round, common::payload::mix(seed ^ round));
        println!("{round}: {plan:?}");
        let summary = Round::new(&plan).run(left.min(ROUND));
        println!("{summary}");
        total += summary;
    }
    println!("{} s: {total}", start.elapsed().as_secs());
    assert!(total.messages > 0 && total.kills > 0, "there was no storm");
}
