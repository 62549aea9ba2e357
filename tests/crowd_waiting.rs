//! Rings of many: whoever sleeps is woken when there is something to do for it, and nobody else is.

mod common;

use common::board::Board;
use common::crowd::{put, trusted};
use common::faults::kill;
use common::payload::number;
use common::sleep::{all_asleep, assert_wakes, lost_wake_ups, rest, used};
use common::{Child, KINDS, Kind, PATIENCE, Scratch, alone, runs};
use ringway::mpmc::{Consumer, Producer};
use ringway::{Options, RecvError, SendError, Takeover, recover};
use std::sync::atomic::Ordering;
use std::time::Duration;

const SMALL: &str = "capacity=4KiB&max_message=64&producers=4";

/// Sleeps at once when there is nothing to do.
fn sleepy() -> Options {
    Options::new().spin(Duration::ZERO).keep_open(true)
}

fn sleepy_consumer(scratch: &Scratch) -> Consumer {
    trusted(sleepy()).mpmc_consumer(&scratch.address).unwrap()
}

fn sleepy_producer(scratch: &Scratch) -> Producer {
    trusted(sleepy()).mpmc_producer(&scratch.address).unwrap()
}

/// A child that receives and says so, again and again.
fn receiving(scratch: &Scratch) -> Child {
    let mut child = Child::fork(|tell| {
        let consumer = sleepy_consumer(scratch);
        tell.say(b'j');
        loop {
            consumer.recv().unwrap();
            tell.say(b'm');
        }
    });
    child.expect(b'j');
    child
}

fn fill(producer: &mut Producer) -> usize {
    (0..).take_while(|_| producer.try_reserve(1).map(|grant| grant.commit(1)).is_ok()).count()
}

#[test]
fn any_producer_wakes_a_sleeping_consumer() {
    let _alone = alone();
    for kind in KINDS {
        for &wait in kind.sleeping() {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let mut producers: Vec<_> = (0..4).map(|_| sleepy_producer(&scratch)).collect();
            let mut child = receiving(&scratch);
            for round in 0..40 {
                assert_wakes(&child, || _ = put(&mut producers[round % 4], b"x"));
                child.expect(b'm');
            }
            // One that came later, too.
            drop(producers.remove(0));
            assert_wakes(&child, || _ = put(&mut sleepy_producer(&scratch), b"x"));
            child.expect(b'm');
        }
    }
}

#[test]
fn a_release_wakes_a_producer_whose_lane_is_full() {
    let _alone = alone();
    for kind in KINDS {
        for &wait in kind.sleeping() {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let mut consumer = sleepy_consumer(&scratch);
            let mut children: Vec<Child> = (0..2)
                .map(|_| {
                    let mut child = Child::fork(|tell| {
                        let mut producer = sleepy_producer(&scratch);
                        fill(&mut producer);
                        tell.say(b'f');
                        loop {
                            producer.reserve(1).unwrap().commit(1);
                            tell.say(b's');
                        }
                    });
                    child.expect(b'f');
                    child
                })
                .collect();
            let held: Vec<_> = (0..128).map(|_| consumer.recv().unwrap()).collect();
            let mut lanes = [Vec::new(), Vec::new()];
            held.into_iter().for_each(|grant| lanes[grant.producer() as usize].push(grant));
            for round in 0..30 {
                // In any order.
                let lane = &mut lanes[round % 2];
                let grant = lane.swap_remove(round * 7 % lane.len());
                assert_wakes(&children[round % 2], || drop(grant));
                children[round % 2].expect(b's');
                lane.push(consumer.recv().unwrap());
            }
            drop(lanes);
            // And by a batch.
            let mut seen = [false; 2];
            while seen != [true; 2] {
                let mut batch = consumer.recv_batch(16).unwrap();
                let lane = (&mut batch).into_iter().map(|message| message.producer() as usize).last().unwrap();
                assert_wakes(&children[lane], || drop(batch));
                seen[lane] = true;
            }
        }
    }
}

#[test]
fn recovery_wakes_those_for_whom_it_found_something() {
    let _alone = alone();
    for kind in [Kind::Shm, Kind::SysV, Kind::File] {
        for &wait in kind.sleeping() {
            for takeover in [Takeover::Redeliver, Takeover::Drop] {
                let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}&max_deliveries=15"));
                let mut first = 0;
                for _ in 0..20 {
                    if first > 0 {
                        break;
                    }
                    let mut victim = Child::fork(|tell| {
                        let options = sleepy().takeover(takeover);
                        let consumer = trusted(options).mpmc_consumer(&scratch.address).unwrap();
                        tell.say(b'j');
                        let _held: Vec<_> = (0..64).map(|_| consumer.recv().unwrap()).collect();
                        tell.say(b'h');
                        tell.sleep_until_killed()
                    });
                    victim.expect(b'j');
                    // One waits for what is redelivered, or else for room where something is dropped.
                    let mut producer = Child::fork(|tell| {
                        let mut producer = sleepy_producer(&scratch);
                        fill(&mut producer);
                        tell.say(b'f');
                        producer.reserve(1).unwrap().commit(1);
                        tell.say(b's');
                        tell.sleep_until_killed()
                    });
                    producer.expect(b'f');
                    victim.expect(b'h');
                    let mut waiting = match takeover {
                        Takeover::Redeliver => receiving(&scratch),
                        Takeover::Drop => producer,
                    };
                    kill(victim);
                    let mut deaths = 0;
                    assert_wakes(&waiting, || deaths = recover(scratch.name().unwrap()).unwrap().deaths);
                    // Unless it has looked by itself just before.
                    first += deaths;
                    waiting.expect(if takeover == Takeover::Redeliver { b'm' } else { b's' });
                    drop(waiting);
                    let consumer = scratch.consumer();
                    while consumer.try_recv().is_ok() {}
                }
                assert!(first > 0, "the sleeper was always first");
            }
        }
    }
}

#[test]
fn sleepers_of_many_lose_no_wake_up() {
    let _alone = alone();
    const ROUNDS: u64 = 4_000;
    for (kind, wait) in Kind::of_each_way() {
        let there = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        let back = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        // Children find anonymous rings only while somebody has them.
        let _held = (sleepy_consumer(&there), sleepy_consumer(&back));
        // Publishes several at once, which wakes one, who must wake the others as long as there is more.
        let leader = Child::fork(|_| {
            let (mut producer, consumer) = (sleepy_producer(&there), sleepy_consumer(&back));
            for round in 0..ROUNDS {
                let count = 1 + round % 5;
                let mut batch = producer.batch();
                for _ in 0..count {
                    let mut grant = batch.reserve(8).unwrap();
                    grant.copy_from_slice(&round.to_le_bytes());
                    grant.commit(8);
                }
                batch.publish();
                for _ in 0..count {
                    assert_eq!(number(&consumer.recv_timeout(PATIENCE).unwrap()), round);
                }
            }
        });
        let workers: Vec<Child> = (0..3)
            .map(|_| {
                Child::fork(|_| {
                    let (mut producer, consumer) = (sleepy_producer(&back), sleepy_consumer(&there));
                    loop {
                        let round = number(&consumer.recv().unwrap());
                        put(&mut producer, &round.to_le_bytes());
                    }
                })
            })
            .collect();
        let everybody: Vec<&Child> = workers.iter().chain([&leader]).collect();
        let lost = lost_wake_ups(&everybody);
        let mut leader = leader;
        leader.expect_success();
        assert_eq!(lost, 0, "{wait}: lost wake-ups in {ROUNDS} rounds");
    }
}

#[test]
fn each_of_several_sleepers_gets_work() {
    let _alone = alone();
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        let (mut producer, board) = (sleepy_producer(&scratch), Board::new());
        for round in 1..=20 {
            // Each takes one message and then no more.
            let takers: Vec<Child> = (0..4)
                .map(|_| {
                    let mut child = Child::fork(|tell| {
                        let consumer = sleepy_consumer(&scratch);
                        tell.say(b'j');
                        let _held = consumer.recv().unwrap();
                        board.word(0).fetch_add(1, Ordering::SeqCst);
                        tell.sleep_until_killed()
                    });
                    child.expect(b'j');
                    child.await_sleep();
                    child
                })
                .collect();
            let mut batch = producer.batch();
            (0..4).for_each(|_| _ = batch.reserve(1).unwrap().commit(1));
            batch.publish();
            let all: Vec<&Child> = takers.iter().collect();
            while board.get(0) < 4 * round {
                let taken = board.get(0);
                let asleep = all_asleep(&all).is_some();
                let is_left = taken < 4 * round && board.get(0) == taken;
                assert!(!(asleep && is_left), "{wait}: they sleep, and {} messages are left", 4 * round - taken);
            }
            takers.into_iter().for_each(kill);
            let consumer = scratch.consumer();
            while consumer.try_recv().is_ok() {}
        }
    }
}

#[test]
fn a_lane_that_is_full_and_empty_by_turns_loses_no_wake_up() {
    let _alone = alone();
    const EACH: u32 = 60_000;
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        let _held = sleepy_consumer(&scratch);
        let senders = [0, 1].map(|_| {
            Child::fork(|_| {
                let mut sender = sleepy().sender(&scratch.address).unwrap();
                (0..EACH).for_each(|number| _ = sender.send(&number.to_le_bytes()).unwrap());
            })
        });
        let receiver = Child::fork(|_| {
            let mut receiver = sleepy().receiver(&scratch.address).unwrap();
            for _ in 0..2 * EACH {
                receiver.recv_timeout(PATIENCE).unwrap();
            }
        });
        // Until one of them is done.
        let lost = lost_wake_ups(&[&senders[0], &senders[1], &receiver]);
        let [mut one, mut other] = senders;
        let lost =
            lost + if runs(&one) { lost_wake_ups(&[&one, &receiver]) } else { lost_wake_ups(&[&other, &receiver]) };
        let mut receiver = receiver;
        one.expect_success();
        other.expect_success();
        receiver.expect_success();
        assert_eq!(lost, 0, "{wait}: lost wake-ups");
    }
}

#[test]
fn a_message_wakes_one_of_those_who_sleep() {
    let _alone = alone();
    const MESSAGES: u64 = 200;
    const SLEEPERS: u64 = 8;
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        let mut producer = sleepy_producer(&scratch);
        let done = Board::new();
        let sleepers: Vec<Child> = (0..SLEEPERS)
            .map(|_| {
                Child::fork(|_| {
                    let consumer = sleepy_consumer(&scratch);
                    loop {
                        consumer.recv().unwrap();
                        done.word(0).fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let switches = || sleepers.iter().map(|child| rest(child).unwrap().switches[0]).sum::<u64>();
        sleepers.iter().for_each(Child::await_sleep);
        let (before, start) = (switches(), std::time::Instant::now());
        for number in 0..MESSAGES {
            put(&mut producer, b"x");
            while done.get(0) <= number {
                std::thread::yield_now();
            }
        }
        let slices = start.elapsed().as_millis() as u64 / 100 + 1;
        let woken = switches() - before;
        // Each sleeps again once; and looks around once per slice.
        let at_most = 2 * MESSAGES + SLEEPERS * (slices + 1);
        assert!(woken < at_most, "{wait}: {woken} wakes for {MESSAGES} messages, {slices} slices");
    }
}

#[test]
fn idle_members_take_next_to_no_processor_time() {
    let _alone = alone();
    let second = Duration::from_secs(1);
    let mut cases = Vec::new();
    for kind in KINDS {
        for &wait in kind.sleeping() {
            let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
            let keep = (scratch.sender(), scratch.receiver());
            let mut idle: Vec<Child> = (0..3)
                .map(|_| {
                    Child::fork(|tell| {
                        let mut receiver = scratch.receiver();
                        tell.say(b'j');
                        assert_eq!(receiver.recv_timeout(second).err(), Some(RecvError::Timeout));
                        assert!(used() < second / 20, "{:?}", used());
                    })
                })
                .collect();
            idle.iter_mut().for_each(|child| child.expect(b'j'));
            cases.push((idle, keep, scratch));
        }
    }
    for (idle, ..) in &mut cases {
        idle.iter_mut().for_each(Child::expect_success);
    }
    // Nor do those whose lanes are full.
    for (kind, wait) in Kind::of_each_way() {
        let scratch = Scratch::many(kind, &format!("{SMALL}&wait={wait}"));
        let _keep = scratch.receiver();
        let mut idle = [0, 1].map(|_| {
            Child::fork(|_| {
                let mut sender = scratch.sender();
                while sender.try_send(b"fill").is_ok() {}
                let before = used();
                assert_eq!(sender.send_timeout(b"more", second), Err(SendError::Timeout));
                assert!(used() - before < second / 20, "{:?}", used() - before);
            })
        });
        idle.iter_mut().for_each(Child::expect_success);
    }
}
