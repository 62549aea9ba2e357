//! Whether others sleep, as the kernel tells: how lost wake-ups show without a clock.

use super::{Child, runs};
use std::fs;
use std::time::Duration;

/// The processor time that this process has used.
pub fn used() -> Duration {
    // SAFETY: all zeros are an rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the answer.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// What the kernel says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    pub asleep: bool,
    /// How often it has been switched out, of its own will and not.
    pub switches: Vec<u64>,
}

/// None once it has ended.
pub fn rest(child: &Child) -> Option<Rest> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let state = field("State:")?;
    let switches = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
    let switches = switches.iter().filter_map(|name| field(name)?.parse().ok()).collect();
    (!state.starts_with(['Z', 'X'])).then(|| Rest { asleep: state.starts_with('S'), switches })
}

/// How they all rest, if all of them sleep at the same time; since a process that was woken is runnable even while it waits for
/// a processor, nobody has woken one then.
pub fn all_asleep(children: &[&Child]) -> Option<Vec<Rest>> {
    let all = || children.iter().map(|child| rest(child)).collect::<Option<Vec<_>>>();
    let (first, second) = (all()?, all()?);
    // None ran between.
    (first == second && first.iter().all(|rest| rest.asleep)).then_some(first)
}

/// Watches processes of which at least one always has something to do, until one has ended. Counts how often all slept: then a
/// wake-up was lost, whatever else the machine does.
pub fn lost_wake_ups(children: &[&Child]) -> u32 {
    let mut lost = 0;
    let mut counted = None;
    while children.iter().all(|child| runs(child)) {
        let asleep = all_asleep(children);
        if asleep.is_some() && asleep != counted {
            lost += 1;
            counted = asleep;
        }
        // A lost wake-up lasts a tenth of a second.
        std::thread::sleep(Duration::from_millis(3));
    }
    lost
}

/// Does `work`, which has something to do for a child that sleeps: it must be woken by that, not by its own clock.
#[track_caller]
pub fn assert_wakes(child: &Child, work: impl FnOnce()) {
    child.await_sleep();
    let before = rest(child);
    work();
    let after = rest(child);
    let slept_on = after.as_ref().is_some_and(|rest| rest.asleep) && after == before;
    assert!(!slept_on, "it slept on: {after:?}");
}
