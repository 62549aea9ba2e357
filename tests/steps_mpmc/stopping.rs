//! Members stopped after every single instruction: the others pass more than a lap, nobody takes the stopped one for dead, and
//! when it goes on nothing is missing and nothing comes twice.

use crate::common::alone;
use crate::common::board::Board;
use crate::common::trace::{Place, Traced, stop_after_each, stop_sleepers};
use crate::hall::{Author, Hall, Message, SLOTS, commit, consumer};
use ringway::Takeover::Redeliver;
use ringway::mpmc::Consumer;

/// More than a lap.
const MANY: u64 = SLOTS + 7;

/// Lets the others go on for more than a lap in each of their lanes, while a member is stopped there.
fn pass_a_lap(hall: &mut Hall, child: &mut Traced, place: Place) {
    // Now and then by a signal, as users do it.
    if place.steps.is_multiple_of(8) {
        child.suspend();
    }
    for _ in 0..MANY {
        hall.check_others_go_on();
    }
    assert_eq!(hall.recover(), 0, "taken for dead");
}

/// Stops a producer of lane 1 all through `operate`, which sends `count` messages, with three pinned slots before it or not.
fn stop_producers(what: &str, pinned: bool, count: u64, operate: impl Fn(&mut Author)) {
    stop_after_each(
        what,
        || {
            let mut hall = Hall::new(1, "producers=2&max_message=64");
            let mut former = Author::join(&hall.scratch, 2, 0);
            (0..3).for_each(|_| former.send());
            let mut holder = consumer(&hall.scratch, Redeliver);
            if pinned {
                let mut batch = holder.try_recv_batch(3).unwrap();
                assert_eq!((&mut batch).into_iter().count(), 3);
                std::mem::forget(batch);
            }
            hall.authors.push(former);
            hall.drain();
            hall.pass(1, SLOTS - 3);
            let next = hall.authors.pop().unwrap().next;
            let child = Traced::start(|| Author::join(&hall.scratch, 9, next), &operate);
            ((hall, holder, next), child)
        },
        |(mut hall, holder, next), mut child, place| {
            pass_a_lap(&mut hall, &mut child, place);
            child.finish();
            drop(holder);
            hall.authors.push(Author::join(&hall.scratch, 3, next + count));
            hall.drain();
            hall.check_all_is_free(&[]);
            assert_eq!(hall.recover(), 0);
        },
    );
}

#[test]
fn a_producer() {
    let _alone = alone();
    let one = |author: &mut Author| {
        let payload = author.payload(0, false);
        commit(author.producer.reserve(payload.len).unwrap(), payload);
    };
    let two = |author: &mut Author| {
        let payloads = [0, 1].map(|ahead| author.payload(ahead, false));
        let mut batch = author.producer.batch();
        for payload in payloads {
            commit(batch.reserve(payload.len).unwrap(), payload);
        }
        assert!(batch.publish());
    };
    stop_producers("mpmc: reserve, write, commit", false, 1, one);
    stop_producers("the same behind pinned slots", true, 1, one);
    stop_producers("mpmc: a batch of two", false, 2, two);
    stop_producers("the same behind pinned slots", true, 2, two);
}

/// What a consumer received, on a board.
struct Log(Board);

impl Log {
    fn enter(&self, bytes: &[u8], tag: u32) {
        let Message { lane, sequence, .. } = Message::read(bytes, tag);
        let count = self.0.get(0);
        self.0.set(1 + count as usize, u64::from(lane) << 32 | sequence);
        self.0.set(0, count + 1);
    }

    fn into_books(self, hall: &mut Hall) {
        for index in 0..self.0.get(0) {
            let message = self.0.get(1 + index as usize);
            hall.books.note((message >> 32) as u32, message & u64::from(u32::MAX));
        }
    }
}

/// Stops a consumer all through `operate`, which takes `count` messages.
fn stop_consumers(what: &str, count: u64, operate: impl Fn(&mut Consumer, &Log)) {
    stop_after_each(
        what,
        || {
            let mut hall = Hall::new(2, "producers=2&max_message=64");
            hall.pass(0, SLOTS - 2);
            hall.pass(1, SLOTS - 2);
            let log = Log(Board::new());
            let prepare = || {
                let victim = consumer(&hall.scratch, Redeliver);
                assert!(victim.try_recv().is_err());
                victim
            };
            let child = Traced::start(prepare, |consumer| operate(consumer, &log));
            (0..count).for_each(|_| hall.authors[1].send());
            ((hall, log), child)
        },
        |(mut hall, log), mut child, place| {
            pass_a_lap(&mut hall, &mut child, place);
            // So that it finds what it is there for.
            (0..count).for_each(|_| hall.authors[0].send());
            child.finish();
            assert_eq!(log.0.get(0), count);
            log.into_books(&mut hall);
            hall.check_all_is_free(&[]);
            assert_eq!(hall.recover(), 0);
        },
    );
}

#[test]
fn a_consumer() {
    let _alone = alone();
    stop_consumers("mpmc: recv, read, release", 1, |consumer, log| {
        let message = consumer.recv().unwrap();
        log.enter(&message, message.tag());
    });
    stop_consumers("mpmc: two in hands, released in the other order", 2, |consumer, log| {
        let (first, second) = (consumer.recv().unwrap(), consumer.recv().unwrap());
        log.enter(&second, second.tag());
        drop(second);
        log.enter(&first, first.tag());
        drop(first);
    });
    stop_consumers("mpmc: recv, read and release a batch of three", 3, |consumer, log| {
        let mut left = 3;
        while left > 0 {
            let mut batch = consumer.recv_batch(left).unwrap();
            for message in &mut batch {
                log.enter(&message, message.tag());
                left -= 1;
            }
        }
    });
}

#[test]
fn a_consumer_that_waits() {
    let _alone = alone();
    stop_sleepers(
        "mpmc: wait for a message, read and release it",
        || {
            let mut hall = Hall::new(1, "producers=1&max_message=64");
            hall.pass(0, SLOTS - 2);
            let log = Log(Board::new());
            let prepare = || {
                let victim = consumer(&hall.scratch, Redeliver);
                assert!(victim.try_recv().is_err());
                victim
            };
            let child = Traced::start_sleepy(prepare, |consumer| {
                let message = consumer.recv().unwrap();
                log.enter(&message, message.tag());
            });
            ((hall, log), child)
        },
        |(hall, _)| hall.authors[0].send(),
        |(mut hall, log), mut child, place| {
            pass_a_lap(&mut hall, &mut child, place);
            hall.authors[0].send();
            child.finish();
            assert_eq!(log.0.get(0), 1);
            log.into_books(&mut hall);
            hall.check_all_is_free(&[]);
        },
    );
}

#[test]
fn a_producer_that_waits() {
    let _alone = alone();
    stop_sleepers(
        "mpmc: wait for room, write and commit",
        || {
            let hall = Hall::new(1, "producers=2&max_message=64");
            let prepare = || {
                let mut victim = Author::join(&hall.scratch, 9, 0);
                assert_eq!(victim.fill(false), SLOTS);
                victim
            };
            let child = Traced::start_sleepy(prepare, |author: &mut Author| {
                let payload = author.payload(0, false);
                commit(author.producer.reserve(payload.len).unwrap(), payload);
            });
            (hall, child)
        },
        |hall| {
            hall.books.enter(&hall.witness.try_recv().unwrap());
        },
        |mut hall, mut child, place| {
            pass_a_lap(&mut hall, &mut child, place);
            child.finish();
            hall.authors.push(Author::join(&hall.scratch, 3, SLOTS + 1));
            hall.drain();
            hall.check_all_is_free(&[]);
        },
    );
}
