//! From every state, without further kills, all must end well: the dead are recovered, all operations end, a consumer takes
//! what is there, everything is released, and the producers can fill their lanes again. One participant, or one recoverer,
//! may be stopped where it is; then all that must hold but for the slots that only it can free.

use crate::explorer::Seen;
use crate::model::{Model, Step, Who};
use crate::truth::Violation;
use crate::words::{Fate, Lent, Seat, State};

const FAR: usize = 1000;

impl Model {
    pub fn drain<const L: usize, const N: usize>(
        &self,
        state: &State<L, N>,
        ended: &mut Seen,
        steps: &mut Vec<Step<L, N>>,
    ) -> Result<(), Violation> {
        self.drain_without(None, state, ended, steps)?;
        if self.stopped {
            (0..L).try_for_each(|lane| self.drain_without(Some(Who::Producer(lane)), state, ended, steps))?;
            for seat in 0..state.seats.len() {
                let stopped = match state.seats[seat] {
                    Seat::Alive(_) => Who::Consumer(seat),
                    Seat::Orphaned(_) => Who::Recoverer(seat),
                    Seat::Vacant => continue,
                };
                self.drain_without(Some(stopped), state, ended, steps)?;
            }
        }
        Ok(())
    }

    /// Every state on the way to a good end has a good end.
    fn drain_without<const L: usize, const N: usize>(
        &self,
        stopped: Option<Who>,
        state: &State<L, N>,
        ended: &mut Seen,
        steps: &mut Vec<Step<L, N>>,
    ) -> Result<(), Violation> {
        let (mut now, mut way) = (*state, Vec::new());
        while !ended.contains(&(stopped, now)) {
            way.push(now);
            match self.onward(stopped, &now, steps) {
                Some(next) => now = next?,
                None => {
                    self.ends_well(stopped, &now, steps)?;
                    break;
                }
            }
            now.check()?;
            if way.len() > FAR {
                return Err("it never ends");
            }
        }
        way.iter().for_each(|state| _ = ended.insert(&(stopped, state)));
        Ok(())
    }

    fn onward<const L: usize, const N: usize>(
        &self,
        stopped: Option<Who>,
        state: &State<L, N>,
        steps: &mut Vec<Step<L, N>>,
    ) -> Option<Result<State<L, N>, Violation>> {
        steps.clear();
        let moves = |who| Some(who) != stopped;
        for lane in (0..L).filter(|&lane| moves(Who::Producer(lane))) {
            if !state.lanes[lane].producer.at_rest() {
                self.producer_steps(state, lane, steps);
                return Some(steps[0].2);
            }
        }
        for (seat, now) in state.seats.iter().enumerate() {
            match now {
                Seat::Orphaned(recoverer) if moves(Who::Recoverer(seat)) => {
                    self.recoverer_steps(state, seat, *recoverer, steps);
                }
                Seat::Alive(consumer) if moves(Who::Consumer(seat)) && !consumer.at_rest() => {
                    self.consumer_steps(state, seat, steps);
                }
                _ => continue,
            }
            return Some(steps[0].2);
        }
        let pinned = |fate| matches!(fate, Fate::Held(_) | Fate::Returned | Fate::Orphan { announced: false });
        let ended = |fate| fate == Fate::Free || (stopped.is_some() && pinned(fate));
        if state.lanes.iter().flat_map(|lane| &lane.slots).all(|slot| ended(slot.fate)) {
            return None;
        }
        let taker = |&seat: &usize| matches!(state.seats[seat], Seat::Alive(_)) && moves(Who::Consumer(seat));
        if let Some(seat) = (0..state.seats.len()).find(taker) {
            self.consumer_steps(state, seat, steps);
            return Some(steps[0].2);
        }
        let mut next = *state;
        *next.seats.iter_mut().find(|seat| **seat == Seat::Vacant)? = self.joiner(state);
        Some(Ok(next))
    }

    fn ends_well<const L: usize, const N: usize>(
        &self,
        stopped: Option<Who>,
        state: &State<L, N>,
        steps: &mut Vec<Step<L, N>>,
    ) -> Result<(), Violation> {
        let mut now = *state;
        for index in (0..L).filter(|&lane| Some(Who::Producer(lane)) != stopped) {
            let lane = &mut now.lanes[index];
            let pinned = lane.slots.iter().filter(|slot| slot.fate != Fate::Free).count();
            if pinned == 0 && lane.slots.iter().any(|slot| slot.lease.state != Lent::Released) {
                return Err("a lease is left over");
            }
            if lane.head.position != lane.producer.tail {
                return Err("the head is not at the tail");
            }
            let all = lane.published + (N - pinned) as u8;
            let filling = Model { messages: all, batch: 1, ..*self };
            for _ in 0..FAR {
                steps.clear();
                filling.producer_steps(&now, index, steps);
                let Some(step) = steps.first() else { break };
                now = step.2?;
            }
            if now.lanes[index].published < all || !now.lanes[index].producer.at_rest() {
                return Err("the lane can't be filled again");
            }
        }
        Ok(())
    }
}
