//! Killed while leaving: the other one is told what happened, and a successor goes on.

use crate::common::trace::sleeper::Sleeper;
use crate::common::trace::{Traced, kill_after_each};
use crate::common::{Scratch, alone};
use crate::pair::{ROOM, check_ring_works, commit, consumer, expect, message, producer, receive, ring, send, sleepy};
use ringway::{Options, PeerState, Receiver, RecvError, SendError, Sender};
use std::cell::Cell;
use std::time::Instant;

fn told<T, E: PartialEq + std::fmt::Debug>(answer: Result<T, E>, closed: E, died: E) -> u8 {
    match answer.err() {
        Some(error) if error == closed => b'c',
        Some(error) if error == died => b'd',
        other => panic!("{other:?}"),
    }
}

/// Kills one that leaves, while its peer sleeps; `check` looks at what is left, and has to know whether it left.
fn kill_leavers<T>(
    what: &str,
    join: impl Fn(&Scratch) -> T,
    sleeper: impl Fn(&Scratch) -> Sleeper,
    has_left: impl Fn(&Scratch) -> bool,
    check: impl Fn(&Scratch),
) {
    let (longest, mut found) = (Cell::default(), Vec::new());
    kill_after_each(
        what,
        || {
            let scratch = ring();
            let child = Traced::start(|| Some(join(&scratch)), |slot| drop(slot.take()));
            let mut sleeper = sleeper(&scratch);
            sleeper.lie_down();
            ((scratch, sleeper), child)
        },
        |(scratch, sleeper), place| {
            let since = Instant::now();
            let left = has_left(&scratch);
            assert!(left || !place.ended);
            found.push(left);
            if Sleeper::is_awaited(place, 4) {
                assert_eq!(sleeper.wake_up(since, &longest), if left { b'c' } else { b'd' });
            } else {
                drop(sleeper);
            }
            check(&scratch);
        },
    );
    println!("one sleeper in four awaited, or all with RINGWAY_FULL=1; told after {:.1?} at most", longest.get());
    assert!(found[1..].is_sorted() && !found[1]);
}

#[test]
fn a_producer_that_leaves() {
    let _alone = alone();
    kill_leavers(
        "spsc: a producer leaves with a batch in hands",
        |scratch| {
            let mut producer = producer(scratch);
            commit(&mut producer, 0);
            let mut batch = producer.batch();
            batch.reserve(100).unwrap().commit(100);
            std::mem::forget(batch);
            producer
        },
        |scratch| {
            let wait = |mut receiver: Receiver| {
                expect(&mut receiver, 0..=0);
                told(receiver.recv(), RecvError::Closed, RecvError::PeerDied)
            };
            Sleeper::new(|| sleepy().receiver(&scratch.address).unwrap(), wait)
        },
        |scratch| matches!(ringway::inspect(scratch.name().unwrap()).unwrap().producers[0].state, PeerState::Left),
        |scratch| check_ring_works(scratch, 1),
    );
}

#[test]
fn a_consumer_that_leaves() {
    let _alone = alone();
    kill_leavers(
        "spsc: a consumer leaves with a message in hands",
        |scratch| {
            let mut former = producer(scratch);
            (0..2).for_each(|number| commit(&mut former, number));
            let mut consumer = consumer(scratch);
            assert_eq!(receive(&mut consumer), 0);
            std::mem::forget(consumer.recv().unwrap());
            consumer
        },
        |scratch| {
            let wait = |mut sender: Sender| {
                (2..ROOM + 1).for_each(|number| send(&mut sender, number).unwrap());
                told(sender.send(&message(0).to_vec()), SendError::Closed, SendError::PeerDied)
            };
            Sleeper::new(|| sleepy().sender(&scratch.address).unwrap(), wait)
        },
        |scratch| matches!(ringway::inspect(scratch.name().unwrap()).unwrap().consumers[0].state, PeerState::Left),
        |scratch| {
            let mut receiver = Options::new().keep_open(true).receiver(&scratch.address).unwrap();
            assert_eq!(expect(&mut receiver, 1..=1), (1, true));
            for number in 2..ROOM + 1 {
                assert_eq!(expect(&mut receiver, number..=number), (number, false));
            }
            drop(receiver);
            check_ring_works(scratch, 1000);
        },
    );
}
