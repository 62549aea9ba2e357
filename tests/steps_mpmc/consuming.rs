//! Consumers killed between claiming and giving back: what they had comes to others, marked, or is dropped, as they wished.

use crate::common::alone;
use crate::common::trace::{Place, Traced, kill_after_each};
use crate::hall::{Hall, SLOTS, consumer, receive};
use ringway::Takeover;
use ringway::mpmc::Consumer;
use std::hint::black_box;

/// The witness is number 0, and another one that holds messages 1.
const VICTIM: u32 = 2;

/// What the others get of a message that a dead consumer was about to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Untouched,
    Again,
    Gone,
}

/// What a consumer does with which messages.
#[derive(Clone, Copy)]
struct Deed {
    what: &'static str,
    options: &'static str,
    /// What happens before, with another consumer that keeps what it has in hands.
    before: fn(&mut Hall, &mut Consumer),
    /// Of each message, how often it was delivered before; none if it was given back.
    messages: &'static [Option<u32>],
    operate: fn(&mut Consumer),
    /// Which of them it has not given back at the end.
    keeps: &'static [usize],
    /// Whether nobody receives between the death and the recovery.
    quiet: bool,
}

const PLAIN: Deed = Deed {
    what: "mpmc: recv, read, release",
    options: "producers=1&max_message=64",
    before: |hall, _| send(hall, 1),
    messages: &[Some(0)],
    operate: |consumer| receive(consumer),
    keeps: &[],
    quiet: false,
};

fn send(hall: &mut Hall, count: u32) {
    (0..count).for_each(|_| hall.authors[0].send());
}

fn receive_batch(consumer: &mut Consumer, max: usize, count: usize) {
    let mut batch = consumer.recv_batch(max).unwrap();
    let read = (&mut batch).into_iter().take(count).map(|message| black_box(message[0]));
    assert_eq!(read.count(), count);
}

/// Another one takes a message in hands.
fn take(consumer: &Consumer) {
    std::mem::forget(consumer.recv().unwrap());
}

/// Who leaves with messages in hands leaves them as if it had died.
fn replace(hall: &Hall, holder: &mut Consumer) {
    *holder = consumer(&hall.scratch, Takeover::Redeliver);
}

impl Deed {
    /// The situation, the number of the first message, and the victim, that has received something before.
    fn start(&self, takeover: Takeover) -> ((Hall, Consumer, u64), Traced) {
        let mut hall = Hall::new(1, self.options);
        let mut holder = consumer(&hall.scratch, Takeover::Redeliver);
        // The messages go across the lap's end.
        hall.pass(0, 2 * SLOTS - 3);
        send(&mut hall, 1);
        let prepare = || {
            let victim = consumer(&hall.scratch, takeover);
            receive(&victim);
            victim
        };
        let child = Traced::start(prepare, self.operate);
        (self.before)(&mut hall, &mut holder);
        let first = hall.authors[0].next - self.messages.len() as u64;
        // For the others.
        send(&mut hall, 2);
        ((hall, holder, first), child)
    }

    /// Lets the others go on, and says what has become of the messages.
    fn check(&self, takeover: Takeover, mut hall: Hall, holder: Consumer, first: u64, place: Place) -> Vec<Fate> {
        let held = u64::from(hall.check().held_by(VICTIM));
        let counts = |hall: &Hall| hall.report().lanes.map(|lanes| (lanes.redelivered, lanes.dropped)).unwrap();
        let before = counts(&hall);
        if !self.quiet {
            hall.check_others_go_on();
        }
        assert_eq!(hall.recover(), 1);
        let after = counts(&hall);
        let recovered = (after.0 - before.0, after.1 - before.1);
        hall.check_others_go_on();
        hall.drain();
        let mut fates = Vec::new();
        for (number, before) in (first..).zip(self.messages) {
            let again = hall.books.deliveries(0, number);
            fates.push(match (again, before) {
                (None, _) => Fate::Gone,
                (Some(now), Some(before)) if now == *before => Fate::Untouched,
                (Some(now), Some(before)) if now == before + 1 => Fate::Again,
                _ => panic!("message {number} came with {again:?} deliveries, after {before:?}"),
            });
        }
        let redelivered = fates.iter().filter(|&&fate| fate == Fate::Again).count() as u64;
        let expected = if self.drops(takeover) { (0, held) } else { (held, 0) };
        assert_eq!((recovered, redelivered), (expected, expected.0), "{held} messages were in its hands");
        if place.ended {
            assert_eq!(held, self.keeps.len() as u64);
        }
        let held = hall.check().held_by(1);
        drop(holder);
        assert_eq!(hall.drain().len() as u32, held, "what another one had comes again");
        // What the victim received before.
        let mut gone = vec![(0, 2 * SLOTS - 3)];
        gone.extend((first..).zip(&fates).filter(|(_, fate)| **fate == Fate::Gone).map(|(number, _)| (0, number)));
        hall.check_all_is_free(&gone);
        fates
    }

    fn drops(&self, takeover: Takeover) -> bool {
        takeover == Takeover::Drop || self.options.contains("max_deliveries=2")
    }

    fn kill(&self) {
        for takeover in [Takeover::Redeliver, Takeover::Drop] {
            let mut found = Vec::new();
            kill_after_each(
                &format!("{}; {takeover:?}", self.what),
                || self.start(takeover),
                |(hall, holder, first), place| found.push(self.check(takeover, hall, holder, first, place)),
            );
            // The first run is the one to the end.
            for index in 0..self.messages.len() {
                let fates: Vec<Fate> = found[1..].iter().map(|fates| fates[index]).collect();
                assert!(fates.is_sorted(), "message {index}");
                if self.messages[index].is_none() {
                    assert_eq!(fates[0], Fate::Gone);
                    continue;
                }
                let last = match (self.keeps.contains(&index), self.drops(takeover)) {
                    (true, false) => Fate::Again,
                    _ => Fate::Gone,
                };
                assert_eq!((fates[0], fates[fates.len() - 1], found[0][index]), (Fate::Untouched, last, last));
                assert_eq!(fates.contains(&Fate::Again), !self.drops(takeover));
            }
        }
    }
}

#[test]
fn a_consumer_of_one_message() {
    let _alone = alone();
    PLAIN.kill();
    Deed { what: "the same, recovered before anybody claims", quiet: true, ..PLAIN }.kill();
    let unrecorded = Deed {
        what: "the same behind another's claim, of which only the head tells",
        before: |hall, holder| {
            send(hall, 1);
            take(holder);
            send(hall, 1);
        },
        ..PLAIN
    };
    unrecorded.kill();
    Deed { what: "the same, recovered before anybody claims", quiet: true, ..unrecorded }.kill();
    Deed {
        what: "mpmc: recv, read, release from a pool",
        options: "producers=1&max_message=1000",
        before: |hall, _| hall.authors[0].try_send(true).unwrap(),
        ..PLAIN
    }
    .kill();
}

#[test]
fn a_consumer_of_several_messages() {
    let _alone = alone();
    let batch = Deed {
        what: "mpmc: recv, read and release a batch of three across a lap's end",
        before: |hall, _| send(hall, 3),
        messages: &[Some(0); 3],
        operate: |consumer| receive_batch(consumer, 3, 3),
        ..PLAIN
    };
    batch.kill();
    Deed { what: "the same, recovered before anybody claims", quiet: true, ..batch }.kill();
    Deed {
        what: "a batch of three of which one is read, and one more alone",
        operate: |consumer| {
            receive_batch(consumer, 3, 1);
            receive(consumer);
        },
        keeps: &[2],
        ..batch
    }
    .kill();
    Deed {
        what: "two in hands, released in the other order",
        before: |hall, _| send(hall, 2),
        messages: &[Some(0); 2],
        operate: |consumer| {
            let first = consumer.recv().unwrap();
            let second = consumer.recv().unwrap();
            black_box((first[0], second[0]));
            drop(second);
            drop(first);
        },
        ..PLAIN
    }
    .kill();
}

#[test]
fn a_consumer_of_redelivered_messages() {
    let _alone = alone();
    let one = Deed {
        what: "mpmc: recv, read and release a redelivered message",
        before: |hall, holder| {
            send(hall, 1);
            take(holder);
            replace(hall, holder);
        },
        messages: &[Some(1)],
        ..PLAIN
    };
    one.kill();
    Deed {
        what: "the same, delivered for the last time",
        options: "producers=1&max_message=64&max_deliveries=2",
        ..one
    }
    .kill();
    Deed {
        what: "the rest of a redelivered batch",
        before: |hall, holder| {
            send(hall, 3);
            receive_batch(holder, 3, 1);
            take(holder);
            replace(hall, holder);
        },
        messages: &[None, Some(1), Some(1)],
        operate: |consumer| {
            receive(consumer);
            receive(consumer);
        },
        ..PLAIN
    }
    .kill();
}
