//! Members killed while they leave: what they had in hands comes to others all the same, and those who sleep are told.

use crate::common::alone;
use crate::common::crowd::trusted;
use crate::common::trace::sleeper::Sleeper;
use crate::common::trace::{Traced, kill_after_each};
use crate::hall::{Author, Hall, commit, consumer, receive};
use ringway::{Options, PeerState, RecvError, Takeover};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The messages of a consumer that leaves: handed out and never given back; given back; and two that it has not looked at.
const HANDED_OUT: u64 = 71;
const UNREAD: [u64; 2] = [73, 74];

fn kill_leaving_consumers(takeover: Takeover) {
    let mut found = Vec::new();
    kill_after_each(
        &format!("mpmc: a consumer leaves; {takeover:?}"),
        || {
            let mut hall = Hall::new(1, "producers=1&max_message=64");
            hall.pass(0, HANDED_OUT - 1);
            (0..5).for_each(|_| hall.authors[0].send());
            let prepare = || {
                let mut victim = consumer(&hall.scratch, takeover);
                receive(&victim);
                std::mem::forget(victim.recv().unwrap());
                let mut batch = victim.recv_batch(3).unwrap();
                assert_eq!((&mut batch).into_iter().take(1).count(), 1);
                drop(batch);
                Some(victim)
            };
            let child = Traced::start(prepare, |victim| drop(victim.take()));
            hall.authors[0].send();
            (hall, child)
        },
        |mut hall, place| {
            // What it has not looked at may come late, and not marked.
            hall.books.lax = true;
            let held = hall.check().held_by(1);
            hall.check_others_go_on();
            let left = matches!(hall.report().consumers[1].state, PeerState::Left);
            assert!(left || !place.ended);
            assert_eq!(hall.recover(), u32::from(!left));
            hall.drain();
            let came = |number| hall.books.deliveries(0, number);
            let unread = UNREAD.map(came);
            assert_eq!(unread[0], unread[1]);
            let expected = if takeover == Takeover::Drop { None } else { Some(1) };
            assert_eq!(came(HANDED_OUT), expected);
            assert!(unread[0] == Some(0) || unread[0] == expected && held > 1, "{unread:?}");
            found.push((left, unread[0] == Some(0)));
            let all = [HANDED_OUT - 1, HANDED_OUT, HANDED_OUT + 1, UNREAD[0], UNREAD[1]];
            let gone: Vec<_> = all.into_iter().filter(|&n| came(n).is_none()).map(|n| (0, n)).collect();
            hall.check_all_is_free(&gone);
        },
    );
    let found = &found[1..];
    assert!(found.is_sorted() && found[0] == (false, false) && found[found.len() - 1] == (true, true));
}

#[test]
fn a_consumer_that_leaves_with_messages_in_hands() {
    let _alone = alone();
    kill_leaving_consumers(Takeover::Redeliver);
    kill_leaving_consumers(Takeover::Drop);
}

#[test]
fn a_producer_that_leaves_with_a_batch_in_hands() {
    let _alone = alone();
    let mut found = Vec::new();
    let longest = Cell::<Duration>::default();
    kill_after_each(
        "mpmc: a producer leaves",
        || {
            let hall = Hall::new(0, "producers=1&max_message=64");
            let prepare = || {
                let mut victim = Author::join(&hall.scratch, 9, 0);
                victim.send();
                let payloads = [0, 1].map(|ahead| victim.payload(ahead, false));
                let mut batch = victim.producer.batch();
                for payload in payloads {
                    commit(batch.reserve(payload.len).unwrap(), payload);
                }
                std::mem::forget(batch);
                Some(victim)
            };
            let child = Traced::start(prepare, |victim| drop(victim.take()));
            let mut hall = hall;
            hall.drain();
            let join = || trusted(Options::new().spin(Duration::ZERO)).mpmc_consumer(&hall.scratch.address).unwrap();
            let mut sleeper = Sleeper::new(join, |consumer| match consumer.recv().err() {
                Some(RecvError::Closed) => b'c',
                Some(RecvError::PeerDied) => b'd',
                _ => b'?',
            });
            sleeper.lie_down();
            ((hall, sleeper), child)
        },
        |(mut hall, sleeper), place| {
            let since = Instant::now();
            hall.check();
            let left = matches!(hall.report().producers[0].state, PeerState::Left);
            assert!(left || !place.ended);
            let patient = Sleeper::is_awaited(place, 4);
            if patient {
                assert_eq!(sleeper.wake_up(since, &longest), if left { b'c' } else { b'd' });
            } else {
                drop(sleeper);
            }
            // It may have been told before it was killed.
            assert!((0..2).contains(&(hall.recover() - u32::from(!left))));
            hall.authors.push(Author::join(&hall.scratch, 3, 1));
            hall.check_others_go_on();
            hall.check_all_is_free(&[]);
            found.push(left);
        },
    );
    println!("one sleeper in four awaited, or all with RINGWAY_FULL=1; told after {:.1?} at most", longest.get());
    let found = &found[1..];
    assert!(found.is_sorted() && !found[0] && found[found.len() - 1]);
}
