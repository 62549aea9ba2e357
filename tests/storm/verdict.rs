//! At the end of a round: whether what the ring did is what it promises.

use crate::common::Scratch;
use crate::ledger::{Id, Ledger, Mark, PRODUCERS};
use crate::plan::{LANES, Plan};
use crate::producers::{MANY, WAYS};
use std::collections::HashMap;

/// What the controller has seen itself.
#[derive(Default)]
pub struct Witness {
    pub kills: u64,
    /// Of members that had joined for certain, and were not about to leave.
    pub deaths: u64,
    /// Messages that a killed producer may have been sending: the stream, from where to where, in what way.
    pub uncertain: Vec<(usize, std::ops::Range<usize>, usize)>,
    /// Messages whose holder was killed while it gave them back, with the holder.
    pub in_doubt: HashMap<Id, u32>,
    /// Where another producer took over a stream: it may have another lane.
    pub breaks: Vec<Id>,
}

/// How it came out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub delivered: u64,
    pub redelivered: u64,
    pub dropped: u64,
    /// Given back by one who was killed before it could note that, or dropped.
    pub in_doubt: u64,
}

/// As many messages may one consumer have claimed and not noted when it is killed, at most.
pub const UNNOTED: u64 = 32;

pub fn judge(plan: &Plan, scratch: &Scratch, ledger: &Ledger, witness: &Witness) -> Tally {
    let report = scratch.report().unwrap();
    let lanes = report.lanes.unwrap();
    assert_eq!(
        (report.depth, lanes.leased, lanes.requeued, report.poisoned),
        (0, 0, 0, false),
        "not all was given back"
    );
    let deaths: u64 = report.producers.iter().chain(&report.consumers).map(|peer| u64::from(peer.deaths)).sum();
    assert!((witness.deaths..=witness.kills).contains(&deaths), "{deaths} deaths, {} kills", witness.kills);

    let mut tally = Tally::default();
    // Dropped from a hand, between two hands, and before any.
    let (mut dropped, mut between, mut unseen, mut delivered_before) = (0, 0, 0, 0);
    for stream in 0..PRODUCERS {
        let end = ledger.mark(stream, Mark::Begun);
        let mut certain = vec![true; end];
        for (_, range, way) in witness.uncertain.iter().filter(|(of, ..)| *of == stream) {
            certain[range.clone()].fill(false);
            if plan.is_careful() {
                judge_uncertain(ledger, stream, range.clone(), *way);
            }
        }
        for (number, certain) in certain.into_iter().enumerate() {
            let id = Id { stream, number };
            let state = ledger.state(id);
            delivered_before += u64::from(state.deliveries);
            let last = u32::from(state.deliveries) + 1 >= plan.max_deliveries;
            match state {
                state if state.done == 1 => tally.delivered += 1,
                state if state.handed == 0 => {
                    assert!(!certain || !plan.is_careful(), "{id:?} was sent and is lost");
                    unseen += u64::from(certain);
                }
                state => {
                    assert!(ledger.is_killed(state.holder), "{id:?} is lost, though its holder lived: {state:?}");
                    if witness.in_doubt.get(&id) == Some(&state.holder) {
                        tally.in_doubt += 1;
                    } else if state.to_drop || last {
                        dropped += 1;
                    } else {
                        assert!(!plan.is_careful(), "{id:?} is lost: {state:?}");
                        between += 1;
                    }
                }
            }
        }
    }
    assert!(unseen + between <= UNNOTED * witness.kills, "{unseen} and {between} lost in {} kills", witness.kills);

    let unsure = judge_places(plan, scratch, ledger, witness, unseen);
    let most = dropped + between + unseen + unsure + tally.in_doubt;
    assert!(lanes.dropped <= most, "{} counted as dropped, at most {most} were", lanes.dropped);
    if plan.exact {
        let least = dropped + between + unseen;
        assert!(lanes.dropped >= least, "{} counted as dropped, at least {least} were", lanes.dropped);
    }
    if plan.is_careful() && plan.exact {
        assert_eq!(lanes.redelivered, delivered_before, "counted as redelivered, and were");
    }
    Tally { redelivered: lanes.redelivered, dropped: lanes.dropped, ..tally }
}

/// Of a batch all messages or none were sent, and of several sent as they are the first ones.
fn judge_uncertain(ledger: &Ledger, stream: usize, range: std::ops::Range<usize>, way: usize) {
    assert!(way < WAYS);
    let sent: Vec<bool> = range.clone().map(|number| ledger.place(Id { stream, number }).is_some()).collect();
    let count = sent.iter().take_while(|&&sent| sent).count();
    assert!(!sent[count..].contains(&true), "{range:?} of {stream} was sent in part: {sent:?}");
    assert!(way == MANY || count == 0 || count == sent.len(), "a batch was torn: {range:?} of {stream}: {sent:?}");
}

/// Each lane's sequences are those of its messages, each once; says how many belong to messages that may have been sent, and
/// that nobody has seen.
fn judge_places(plan: &Plan, scratch: &Scratch, ledger: &Ledger, witness: &Witness, unseen: u64) -> u64 {
    // Each lane tells how many messages it had.
    let mut senders: Vec<_> = (0..LANES).map(|_| scratch.sender()).collect();
    let mut taken: Vec<Vec<Option<Id>>> = vec![Vec::new(); LANES as usize];
    for sender in &mut senders {
        taken[sender.lane() as usize] = vec![None; sender.send(b"").unwrap() as usize];
    }
    let (mut nowhere, mut maybe) = (0, 0);
    for stream in 0..PRODUCERS {
        let mut before = None;
        for number in 0..ledger.mark(stream, Mark::Begun) {
            let id = Id { stream, number };
            let place = ledger.place(id);
            let certain = !witness.uncertain.iter().any(|(of, range, _)| *of == stream && range.contains(&number));
            match place {
                Some((lane, sequence)) => {
                    let taken = &mut taken[lane as usize];
                    let slot = taken.get_mut(sequence as usize);
                    let slot = slot.unwrap_or_else(|| panic!("{id:?} at {sequence} in lane {lane}, which had less"));
                    assert_eq!(slot.replace(id), None, "{id:?} and another one at {sequence} in lane {lane}");
                }
                None if certain => nowhere += 1,
                None => maybe += 1,
            }
            // One producer's messages follow each other.
            if let (Some((lane, sequence)), Some((last_lane, last))) = (place, before)
                && !witness.breaks.contains(&id)
            {
                assert_eq!((lane, sequence), (last_lane, last + 1), "{id:?} does not follow its predecessor");
            }
            before = place;
        }
    }
    let missing = taken.iter().flatten().filter(|id| id.is_none()).count() as u64;
    assert!(nowhere <= unseen, "{nowhere} messages were sent for certain and seen nowhere, {unseen} were lost");
    assert!(
        (nowhere..=nowhere + maybe).contains(&missing),
        "{missing} sequences are nobody's, {nowhere} to {maybe} more"
    );
    assert!(!plan.is_careful() || missing == 0, "{missing} sequences are nobody's");
    missing - nowhere
}
