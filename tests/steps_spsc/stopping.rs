//! Stopped after each instruction of sending and receiving: the other one goes as far as it can and takes nobody for dead, and in
//! the end everything has arrived once and in order.

use crate::common::alone;
use crate::common::board::Board;
use crate::common::payload::number;
use crate::common::trace::{Place, Traced, stop_after_each};
use crate::pair::{check_ring_works, commit, consumer, fill, message, producer, receive, ring};
use ringway::PeerState;
use ringway::spsc::{Consumer, Producer};

/// Now and then by a signal, as users do it.
fn suspend(child: &mut Traced, place: Place) {
    if place.steps.is_multiple_of(8) {
        child.suspend();
    }
}

fn check_alive(peer: PeerState) {
    assert!(matches!(peer, PeerState::Alive { .. }), "taken for {peer:?}");
}

#[test]
fn a_producer() {
    let _alone = alone();
    let operate = |producer: &mut Producer| {
        (0..2).for_each(|number| commit(producer, number));
        let mut batch = producer.batch();
        for number in 2..4 {
            let payload = message(number);
            let mut grant = batch.reserve(payload.len).unwrap();
            payload.write(&mut grant);
            grant.set_tag(payload.tag());
            grant.commit(payload.len);
        }
        assert!(batch.publish());
    };
    stop_after_each(
        "spsc: two messages and a batch of two sent",
        || {
            let scratch = ring();
            let child = Traced::start(|| producer(&scratch), operate);
            let consumer = consumer(&scratch);
            ((scratch, consumer), child)
        },
        |(scratch, mut consumer), mut child, place| {
            suspend(&mut child, place);
            let mut next = 0;
            let mut drain = || {
                while let Ok(received) = consumer.try_recv() {
                    assert_eq!(number(&received), next);
                    message(next).check(&received, received.tag());
                    next += 1;
                }
                check_alive(consumer.peer());
                next
            };
            assert!([0, 1, 2, 4].contains(&drain()));
            child.finish();
            let mut left = crate::pair::producer(&scratch);
            assert_eq!(drain(), 4);
            commit(&mut left, 4);
            assert_eq!(receive(&mut consumer), 4);
            drop((left, consumer));
            check_ring_works(&scratch, 5);
        },
    );
}

#[test]
fn a_consumer() {
    let _alone = alone();
    let board = Board::new();
    let log = |number: u64| {
        board.set(1 + board.get(0) as usize, number);
        board.set(0, board.get(0) + 1);
    };
    let operate = |consumer: &mut Consumer| {
        log(receive(consumer));
        log(receive(consumer));
        let mut batch = consumer.recv_batch(2).unwrap();
        for received in &mut batch {
            message(number(&received)).check(&received, received.tag());
            log(number(&received));
        }
    };
    stop_after_each(
        "spsc: two messages and a batch of two received",
        || {
            board.set(0, 0);
            let scratch = ring();
            let mut producer = producer(&scratch);
            (0..4).for_each(|number| commit(&mut producer, number));
            let child = Traced::start(|| consumer(&scratch), operate);
            ((scratch, producer), child)
        },
        |(scratch, mut producer), mut child, place| {
            suspend(&mut child, place);
            let next = fill(&mut producer, 4);
            check_alive(producer.peer());
            child.finish();
            assert_eq!((board.get(0), [1, 2, 3, 4].map(|index| board.get(index))), (4, [0, 1, 2, 3]));
            let mut consumer = consumer(&scratch);
            (4..next).for_each(|number| assert_eq!(receive(&mut consumer), number));
            drop((producer, consumer));
            check_ring_works(&scratch, next);
        },
    );
}
