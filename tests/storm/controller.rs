//! Who makes the storm: starts, kills, stops and continues the members, and sees to it that there is progress.

use crate::common::crowd::trusted;
use crate::common::{Child, Random, Scratch, runs};
use crate::consumers::{Books, Came, consume};
use crate::ledger::{CONSUMERS, Flag, HANDS, Id, Ledger, Mark, Order, PRODUCERS};
use crate::plan::{LANES, Plan};
use crate::producers::produce;
use crate::verdict::{Tally, UNNOTED, Witness, judge};
use ringway::{RecvError, recover};
use std::fmt;
use std::time::{Duration, Instant};

/// Without any progress for so long, something hangs.
const HANGS: Duration = Duration::from_secs(40);
const MEMBERS: usize = PRODUCERS + CONSUMERS;

#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub messages: u64,
    pub kills: u64,
    stops: u64,
    rejoins: u64,
    redelivered: u64,
    dropped: u64,
    in_doubt: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.kills += other.kills;
        self.stops += other.stops;
        self.rejoins += other.rejoins;
        self.redelivered += other.redelivered;
        self.dropped += other.dropped;
        self.in_doubt += other.in_doubt;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, kills, stops, rejoins, redelivered, dropped, in_doubt } = self;
        write!(
            f,
            "{messages} messages, {kills} kills, {stops} stops, {rejoins} rejoins, {redelivered} redelivered, {dropped} \
             dropped, {in_doubt} in doubt"
        )
    }
}

/// A place in the storm, and who has it.
#[derive(Default)]
struct Member {
    child: Option<Child>,
    generation: u32,
    stopped_until: Option<Instant>,
    is_leaving: bool,
    /// When the next one comes, if there is nobody.
    back_at: Option<Instant>,
}

impl Member {
    /// Continues it after a halt, unless it is stopped for longer.
    fn go_on(&self) {
        if self.stopped_until.is_none() {
            self.child.iter().for_each(|child| child.signal(libc::SIGCONT));
        }
    }
}

pub struct Round<'a> {
    plan: &'a Plan,
    scratch: Scratch,
    ledger: Ledger,
    members: [Member; MEMBERS],
    generations: u32,
    random: Random,
    witness: Witness,
    summary: Summary,
    progress: (u64, Instant),
}

impl<'a> Round<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            scratch: plan.scratch(),
            ledger: Ledger::new(),
            members: Default::default(),
            generations: 0,
            random: Random(plan.seed),
            witness: Witness::default(),
            summary: Summary::default(),
            progress: (0, Instant::now()),
        }
    }

    pub fn run(mut self, lasts: Duration) -> Summary {
        (0..MEMBERS).for_each(|at| self.start(at));
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            self.act();
            self.look();
            std::thread::sleep(Duration::from_micros(self.random.below(12_000)));
        }
        self.calm()
    }

    fn start(&mut self, at: usize) {
        let generation = self.generations;
        self.generations += 1;
        for flag in [Flag::Leave, Flag::Joined, Flag::Leaving] {
            self.ledger.set_flag(at, flag, false);
        }
        if at < PRODUCERS {
            self.witness.breaks.push(Id { stream: at, number: self.ledger.mark(at, Mark::Begun) });
        }
        let (plan, scratch, ledger, seed) = (self.plan, &self.scratch, &self.ledger, self.random.next());
        let child = Child::fork(|_| match at.checked_sub(PRODUCERS) {
            None => produce(plan, scratch, ledger, at, seed),
            Some(consumer) => consume(plan, scratch, ledger, consumer, generation, seed),
        });
        self.members[at] = Member { child: Some(child), generation, ..Member::default() };
    }

    fn act(&mut self) {
        let at = self.random.below(MEMBERS as u64) as usize;
        let until = Instant::now() + Duration::from_millis(self.random.below(250));
        match self.random.below(100) {
            0..40 => self.kill(at),
            40..70 => self.stop(at, until),
            70..80 => self.send_away(at),
            80..82 => (0..PRODUCERS).for_each(|at| self.kill(at)),
            82..84 => (PRODUCERS..MEMBERS).for_each(|at| self.kill(at)),
            84..86 => (0..MEMBERS).filter(|&other| other != at).for_each(|at| self.stop(at, until)),
            _ => {}
        }
    }

    /// Continues the stopped, replaces the gone, and looks for those that failed.
    fn look(&mut self) {
        let now = Instant::now();
        for at in 0..MEMBERS {
            let member = &mut self.members[at];
            if member.stopped_until.is_some_and(|until| until < now) {
                member.stopped_until = None;
                if let Some(child) = &member.child {
                    child.signal(libc::SIGCONT);
                }
            }
            if member.child.as_ref().is_some_and(|child| !runs(child)) {
                self.reap(at);
            }
            if self.members[at].back_at.is_some_and(|back_at| back_at < now) {
                self.summary.rejoins += 1;
                self.start(at);
            }
        }
        if self.progress.0 != self.ledger.progress() {
            self.progress = (self.ledger.progress(), now);
        }
        assert!(now - self.progress.1 < HANGS, "it hangs: {:?}", self.scratch.report());
    }

    fn stop(&mut self, at: usize, until: Instant) {
        let member = &mut self.members[at];
        if let (Some(child), None) = (&member.child, member.stopped_until) {
            child.signal(libc::SIGSTOP);
            member.stopped_until = Some(until);
            self.summary.stops += 1;
        }
    }

    fn send_away(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.child.is_some() {
            member.is_leaving = true;
            self.ledger.set_flag(at, Flag::Leave, true);
        }
    }

    fn kill(&mut self, at: usize) {
        let Some(child) = &self.members[at].child else { return };
        if self.plan.exact {
            // One who is stopped while it opens a System V segment would keep us from that.
            let is_joining =
                |other: usize| self.members[other].child.is_some() && !self.ledger.flag(other, Flag::Joined);
            if (0..MEMBERS).any(|other| other != at && is_joining(other)) {
                return;
            }
            self.halt_all_but(at);
        }
        self.ledger.note_kill(self.members[at].generation);
        child.signal(libc::SIGKILL);
        let (held, unsure) = self.reap(at);
        if self.plan.exact {
            let recovery = recover(self.scratch.name().unwrap()).unwrap();
            let back = recovery.redelivered + recovery.dropped;
            let most = held + unsure + UNNOTED;
            assert!((held..=most).contains(&back), "{back} taken back, {held} held, {unsure} unsure");
            self.members.iter().for_each(Member::go_on);
        }
    }

    /// Stops all others, and returns when they have stopped.
    fn halt_all_but(&self, at: usize) {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != at);
        let others: Vec<&Child> = others.filter_map(|(_, member)| member.child.as_ref()).collect();
        others.iter().for_each(|child| child.signal(libc::SIGSTOP));
        for child in others {
            let stat = format!("/proc/{}/stat", child.pid());
            while ![") T ", ") t ", ") Z "].iter().any(|state| std::fs::read_to_string(&stat).unwrap().contains(state))
            {
                std::thread::yield_now();
            }
        }
    }

    /// Sees how one ended, which was killed or has left; how many messages it held for certain, and how many perhaps.
    fn reap(&mut self, at: usize) -> (u64, u64) {
        let member = &mut self.members[at];
        let mut child = member.child.take().expect("somebody");
        let status = child.reap();
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        let generation = member.generation;
        assert!(
            killed && self.ledger.is_killed(generation) || status == 0 && member.is_leaving,
            "member {at} failed with {status:#x}: {:?}",
            self.plan
        );
        member.stopped_until = None;
        member.back_at = Some(Instant::now() + Duration::from_millis(self.random.below(20) * self.random.below(6)));
        if killed {
            self.summary.kills += 1;
            self.witness.kills += 1;
            let was_there = self.ledger.flag(at, Flag::Joined) && !self.ledger.flag(at, Flag::Leaving);
            self.witness.deaths += u64::from(was_there);
        }
        match at.checked_sub(PRODUCERS) {
            None => self.settle_stream(at),
            Some(consumer) => return self.settle_hands(consumer, generation),
        }
        (0, 0)
    }

    fn settle_stream(&mut self, stream: usize) {
        let [begun, sent, way] = [Mark::Begun, Mark::Sent, Mark::Way].map(|mark| self.ledger.mark(stream, mark));
        if sent < begun {
            self.witness.uncertain.push((stream, sent..begun, way));
            self.ledger.set_mark(stream, Mark::Sent, begun);
        }
    }

    fn settle_hands(&mut self, consumer: usize, generation: u32) -> (u64, u64) {
        let (mut held, mut unsure) = (0, 0);
        for hand in 0..HANDS {
            let Some((id, released)) = self.ledger.hand(consumer, hand) else { continue };
            self.ledger.set_hand(consumer, hand, None);
            if released {
                self.witness.in_doubt.insert(id, generation);
                unsure += 1;
            } else {
                held += 1;
            }
        }
        (held, unsure)
    }

    /// Lets all finish, receives what is left, and counts.
    fn calm(mut self) -> Summary {
        for member in &mut self.members {
            member.is_leaving = true;
            member.back_at = None;
            member.stopped_until = None;
            member.child.iter().for_each(|child| child.signal(libc::SIGCONT));
        }
        for (order, places) in [(Order::Finish, 0..PRODUCERS), (Order::Drain, PRODUCERS..MEMBERS)] {
            self.ledger.order(order);
            let start = Instant::now();
            while self.members[places.clone()].iter().any(|member| member.child.is_some()) {
                for at in 0..MEMBERS {
                    if self.members[at].child.as_ref().is_some_and(|child| !runs(child)) {
                        self.reap(at);
                    }
                    // Those who send need somebody who receives.
                    if at >= places.end && self.members[at].child.is_none() {
                        self.start(at);
                        self.members[at].is_leaving = true;
                    }
                }
                assert!(start.elapsed() < HANGS, "it hangs at its end: {:?}", self.scratch.report());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let consumer = CONSUMERS - 1;
        let Self { plan, scratch, ledger, witness, .. } = &self;
        let end = trusted(plan.options(Some(consumer))).mpmc_consumer(&scratch.address).unwrap();
        let mut books = Books { ledger, plan, consumer, generation: self.generations, last: [None; LANES as usize] };
        loop {
            match end.try_recv() {
                Ok(grant) => {
                    let hand = books.take(Came::from(&grant));
                    books.give_back(&[hand], || drop(grant));
                }
                Err(error) => break assert_eq!(error, RecvError::Empty),
            }
        }
        let Tally { delivered, redelivered, dropped, in_doubt } = judge(plan, scratch, ledger, witness);
        Summary { messages: delivered + in_doubt + dropped, redelivered, dropped, in_doubt, ..self.summary }
    }
}
