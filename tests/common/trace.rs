//! Children that run an operation step by step under ptrace, to be killed, or left stopped, wherever they are.
//!
//! An operation is run once under `PTRACE_SINGLESTEP`, and then once for each of its instructions, killed right after it. What
//! takes tens of thousands, as joining does, is killed at its [`marks`] instead.

pub mod marks;
pub mod sleeper;
mod traced;

pub use traced::Traced;

use std::time::Instant;
use traced::Step;

/// How many of the instructions before a kill are taken one by one; to the first of them it goes without a stop, where
/// debug registers are at hand.
const TAIL: usize = 8;
/// Instead of an address, of a step that fell asleep.
const ASLEEP: u64 = 0;
/// More instructions than an operation that is not held up takes.
const MOST: u64 = 20_000;

/// Whether to do all that can be done, however long it takes.
pub fn is_full_run() -> bool {
    std::env::var_os("RINGWAY_FULL").is_some()
}

/// Where a child was killed, or stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How many steps it had taken.
    pub steps: u64,
    /// Whether it had slept, or did then.
    pub slept: bool,
    /// Whether the operation was over.
    pub ended: bool,
}

/// Kills a child of `start` after each instruction, and has `check` look at what is left each time, beginning with one that
/// came to the end. `start` makes the same situation each time.
pub fn kill_after_each<S>(what: &str, start: impl Fn() -> (S, Traced), check: impl FnMut(S, Place)) {
    kill_sleepers(what, start, |_| {}, check);
}

/// The same with an operation that sleeps, once, until `rouse`.
pub fn kill_sleepers<S>(
    what: &str,
    start: impl Fn() -> (S, Traced),
    rouse: impl Fn(&mut S),
    mut check: impl FnMut(S, Place),
) {
    visit(what, "killed", start, rouse, |situation, child, place| {
        child.kill();
        check(situation, place);
    });
}

/// Stops a child of `start` after each instruction, and hands it to `pause`, which lets it [`finish`](Traced::finish).
pub fn stop_after_each<S>(what: &str, start: impl Fn() -> (S, Traced), pause: impl FnMut(S, Traced, Place)) {
    stop_sleepers(what, start, |_| {}, pause);
}

/// The same with an operation that sleeps, once, until `rouse`.
pub fn stop_sleepers<S>(
    what: &str,
    start: impl Fn() -> (S, Traced),
    rouse: impl Fn(&mut S),
    pause: impl FnMut(S, Traced, Place),
) {
    visit(what, "stopped", start, rouse, pause);
}

/// Brings children of `start` to each place in turn, and each of them to its `end` there.
fn visit<S>(
    what: &str,
    done: &str,
    start: impl Fn() -> (S, Traced),
    rouse: impl Fn(&mut S),
    mut end: impl FnMut(S, Traced, Place),
) {
    let begun = Instant::now();
    let (situation, child, whole, addresses) = run_to_the_end(&start, &rouse);
    let sleeps = if whole.slept { " and a sleep" } else { "" };
    end(situation, child, whole);
    let mut elsewhere = 0;
    for steps in 0..=addresses.len() {
        // It may take another way where a clock is read, or memory freed: then instruction by instruction.
        for way in [&addresses[..steps.saturating_sub(TAIL)], &[]] {
            let (mut situation, mut child) = start();
            let mut place = skip(&mut situation, &mut child, way, &rouse);
            let lost = place.ended;
            run(&mut situation, &mut child, &mut place, steps as u64, &rouse, |_| {});
            let wanted = steps.checked_sub(1).map(|last| addresses[last]).filter(|&address| address != ASLEEP);
            let other = place.ended || wanted.is_some_and(|wanted| !child.is_at(wanted));
            end(situation, child, place);
            if !lost {
                elsewhere += u32::from(other);
                break;
            }
        }
    }
    println!(
        "{what}: {} instructions{sleeps}, {done} at {} points, {elsewhere} of them elsewhere, {:.1?}",
        addresses.len(),
        addresses.len() + 2,
        begun.elapsed()
    );
}

/// Goes all the way whose `addresses` are given without a stop, if it can.
fn skip<S>(situation: &mut S, child: &mut Traced, addresses: &[u64], rouse: &impl Fn(&mut S)) -> Place {
    let mut place = Place::default();
    let Some(last) = addresses.iter().rposition(|&address| address != ASLEEP) else { return place };
    let address = addresses[last];
    if !child.set_breakpoint(address) {
        return place;
    }
    let mut hits = addresses[..=last].iter().filter(|&&visited| visited == address).count();
    while hits > 0 && !place.ended {
        match child.go(libc::PTRACE_CONT) {
            Step::Taken => hits -= 1,
            Step::Asleep => {
                place.slept = true;
                rouse(situation);
            }
            Step::End => place.ended = true,
        }
    }
    child.set_breakpoint(0);
    place.steps = last as u64 + 1;
    place
}

/// Goes on until it has taken `steps` steps. To fall asleep is one; if it is not the last, `rouse` has to wake the child.
fn run<S>(
    situation: &mut S,
    child: &mut Traced,
    place: &mut Place,
    steps: u64,
    rouse: &impl Fn(&mut S),
    mut visit: impl FnMut(u64),
) {
    while place.steps < steps && !place.ended {
        match child.step() {
            Step::Taken => {
                place.steps += 1;
                visit(child.address());
            }
            Step::Asleep => {
                (place.steps, place.slept) = (place.steps + 1, true);
                visit(ASLEEP);
                if place.steps < steps {
                    rouse(situation);
                }
            }
            Step::End => place.ended = true,
        }
    }
}

/// One run, instruction by instruction, with the addresses to which they led.
fn run_to_the_end<S>(start: &impl Fn() -> (S, Traced), rouse: &impl Fn(&mut S)) -> (S, Traced, Place, Vec<u64>) {
    for _ in 0..20 {
        let (mut situation, mut child) = start();
        let (mut place, mut addresses) = (Place::default(), Vec::new());
        run(&mut situation, &mut child, &mut place, MOST, rouse, |address| addresses.push(address));
        if place.ended && child.is_as_expected(place.slept) {
            return (situation, child, place, addresses);
        }
        // A sleep has a deadline, which passes before it begins where the machine is slow; then there is much to do, or
        // nobody to wake.
        assert!(!child.is_plain(), "{place:?}");
    }
    panic!("nobody slept, or only too late; or there is far too much to do");
}
