//! How a channel ends: in good order or by a kill, on either side; and who goes on.

use crate::common::faults::kill;
use crate::common::{Child, PATIENCE};
use crate::stage::{Gate, Stage, Tell, await_sleep, content, expect_closed, tag};
use ringway::{Receiver, RecvError, SendError, Sender};

/// What is sent after the other side is gone fails at the latest after so many messages: those are what it holds.
const MOST: u64 = 200_000;

fn send_some(stage: &Stage, sender: &mut Sender, count: u64) {
    for number in 0..count {
        stage.send(sender, number, 100);
    }
}

fn expect_some(stage: &Stage, receiver: &mut Receiver, count: u64) {
    for number in 0..count {
        stage.expect(receiver, number, 100);
    }
}

/// Told of once: what comes after is no news.
fn expect_death(receiver: &mut Receiver) {
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
    let after = receiver.try_recv().err();
    assert!(matches!(after, Some(RecvError::Empty | RecvError::Closed)), "{after:?}");
}

/// Everything arrives that was sent before the sender left, and then its end.
pub fn a_sender_that_leaves(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        for number in 0..5 {
            sender.send((&content(number, 100), tag(number))).unwrap();
        }
    });
    child.expect_success();
    for number in 0..5 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), number, 100);
    }
    expect_closed(&mut receiver);
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Closed));
}

/// That it was there is known nevertheless.
pub fn a_sender_that_sends_nothing(stage: &Stage) {
    let is_open = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let sender = stage.sender();
        tell.say(b'o');
        // A ring that nobody has, and with nothing in it, would go.
        is_open.pass();
        drop(sender);
    });
    child.expect(b'o');
    is_open.open(1);
    expect_closed(&mut receiver);
    child.expect_success();
}

/// Whole messages arrive, and then the death.
pub fn a_sender_that_is_killed(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        for number in 0..5 {
            sender.send((&content(number, 100), tag(number))).unwrap();
        }
        tell.say(b's');
        tell.sleep_until_killed()
    });
    child.expect(b's');
    kill(child);
    for number in 0..5 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), number, 100);
    }
    expect_death(&mut receiver);
}

/// The receiver waits for it meanwhile.
pub fn a_sender_that_is_killed_while_it_is_waited_for(stage: &Stage) {
    let parent = std::process::id();
    let (mut killer, mut receiver) = stage.with_child(|_| {
        let mut child = Child::fork(|tell| {
            let mut sender = stage.sender();
            stage.send(&mut sender, 0, 100);
            tell.say(b's');
            tell.sleep_until_killed()
        });
        stage.take_no_part();
        child.expect(b's');
        await_sleep(parent);
        kill(child);
    });
    expect_some(stage, &mut receiver, 1);
    expect_death(&mut receiver);
    killer.expect_success();
}

/// Half a message is none.
pub fn a_sender_that_is_killed_within_a_message(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        for number in 0..3 {
            sender.send((&content(number, 100), tag(number))).unwrap();
        }
        let large = content(3, sender.max_message().min(stage.transport.largest));
        tell.say(b's');
        loop {
            sender.send((&large, tag(3))).unwrap();
        }
    });
    child.expect(b's');
    await_sleep(child.pid());
    kill(child);
    for number in 0..3 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), number, 100);
    }
    // Of the long ones, some may fit.
    let end = loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(message) => crate::stage::check(&message, message.tag(), 3, message.len()),
            Err(error) => break error,
        }
    };
    assert_eq!(end, RecvError::PeerDied);
    assert_ne!(receiver.try_recv().err(), Some(RecvError::PeerDied));
}

/// The sender hears of it, and gets no signal.
pub fn a_receiver_that_leaves(stage: &Stage) {
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        let error = send_until_refused(&mut sender);
        assert_eq!(error, SendError::Closed);
        let again = sender.send(b"again");
        assert!(matches!(again, Err(SendError::Closed | SendError::Timeout)), "{again:?}");
    });
    for number in 0..3 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), number, 100);
    }
    drop(receiver);
    child.expect_success();
    if stage.transport.keeps_messages {
        stage.clear_away();
    }
}

fn send_until_refused(sender: &mut Sender) -> SendError {
    let refused =
        (0..MOST).find_map(|number| sender.send_timeout((&content(number, 100), tag(number)), PATIENCE).err());
    refused.expect("the sender doesn't notice")
}

/// Starts the receiver in a child.
fn start_receiver(stage: &Stage, work: impl FnOnce(Receiver, &mut Tell)) -> Child {
    let mut child = Child::fork(|tell| {
        stage.receiving.set(std::process::id());
        let receiver = stage.receiver();
        tell.say(b'r');
        work(receiver, tell);
    });
    stage.receiving.set(child.pid());
    child.expect(b'r');
    child
}

/// And the sender here.
fn with_receiver(stage: &Stage, work: impl FnOnce(Receiver, &mut Tell)) -> (Child, Sender) {
    let early = stage.transport.is_inherited.then(|| stage.sender_at_once());
    let child = start_receiver(stage, work);
    (child, early.unwrap_or_else(|| stage.sender()))
}

/// Whether it left or died is not always to be told.
pub fn a_receiver_that_is_killed(stage: &Stage) {
    let (mut child, mut sender) = with_receiver(stage, |mut receiver, tell| {
        for number in 0..3 {
            stage.expect(&mut receiver, number, 100);
        }
        tell.say(b'3');
        tell.sleep_until_killed()
    });
    send_some(stage, &mut sender, 3);
    child.expect(b'3');
    kill(child);
    let error = send_until_refused(&mut sender);
    assert!(matches!(error, SendError::Closed | SendError::PeerDied), "{error:?}");
    drop(sender);
    stage.clear_away();
}

/// The sender waits for room meanwhile.
pub fn a_receiver_that_is_killed_while_it_is_waited_for(stage: &Stage) {
    let (mut child, mut sender) = with_receiver(stage, |_receiver, tell| tell.sleep_until_killed());
    while sender.try_send(&content(0, 1000)).is_ok() {}
    let this = std::process::id();
    let mut killer = Child::fork(|_| {
        await_sleep(this);
        child.signal(libc::SIGKILL);
    });
    let error = send_until_refused(&mut sender);
    assert!(matches!(error, SendError::Closed | SendError::PeerDied), "{error:?}");
    killer.expect_success();
    child.reap();
    drop(sender);
    stage.clear_away();
}

/// After one that left and one that was killed.
pub fn other_senders_go_on(stage: &Stage) {
    let gates: [Gate; 3] = std::array::from_fn(|_| Gate::new());
    let (mut children, mut receiver) = stage.with_children(3, |at, tell| {
        gates[at].pass();
        let mut sender = stage.sender();
        sender.send((&content(0, 100), tag(0))).unwrap();
        tell.say(b's');
        stage.await_arrival();
        if at == 1 {
            tell.sleep_until_killed();
        }
    });
    let mut last = None;
    for (at, child) in children.iter_mut().enumerate() {
        gates[at].open(1);
        // Until then, what is told may be its predecessor's end.
        child.expect(b's');
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        crate::stage::check(&message, message.tag(), 0, 100);
        assert!(last.is_none_or(|last| last != (message.producer(), message.sequence())), "a sender of its own");
        last = Some((message.producer(), message.sequence()));
        drop(message);
        stage.confirm_arrival();
        if at == 1 {
            child.kill_without_reaping();
            expect_death(&mut receiver);
        } else {
            child.expect_success();
            expect_closed(&mut receiver);
        }
    }
}

/// After one that left and one that was killed, with what else they left behind.
pub fn other_receivers_go_on(stage: &Stage) {
    let expect_two = |receiver: &mut Receiver| {
        // Of what stays, the last one's end may have been left unread.
        while stage.transport.persists && receiver.recv_batch_timeout(1, PATIENCE).err() == Some(RecvError::Closed) {}
        expect_some(stage, receiver, 2);
    };
    for ending in ["leaves", "is killed"] {
        let (mut child, mut sender) = with_receiver(stage, |mut receiver, tell| {
            expect_two(&mut receiver);
            tell.say(b'2');
            if ending == "is killed" {
                tell.sleep_until_killed();
            }
        });
        send_some(stage, &mut sender, 2);
        child.expect(b'2');
        if ending == "is killed" {
            kill(child)
        } else {
            child.expect_success()
        }
        drop(sender);
    }
    stage.receiving.set(std::process::id());
    stage.between(
        |mut sender| send_some(stage, &mut sender, 2),
        |receiver| {
            expect_two(receiver);
            expect_closed(receiver);
        },
    );
}

/// Both are killed; those who come next take away what they left.
pub fn both_are_killed(stage: &Stage) {
    let mut child = start_receiver(stage, |mut receiver, tell| {
        expect_some(stage, &mut receiver, 2);
        tell.say(b'2');
        tell.sleep_until_killed()
    });
    let mut other = Child::fork(|tell| {
        let mut sender = stage.sender();
        send_some(stage, &mut sender, 2);
        tell.sleep_until_killed()
    });
    child.expect(b'2');
    other.kill_without_reaping();
    drop(other);
    kill(child);
    stage.receiving.set(std::process::id());
    stage.between(
        |mut sender| send_some(stage, &mut sender, 2),
        |receiver| {
            let (mut number, mut deaths) = (0, 0);
            loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(message) => crate::stage::check(&message, message.tag(), number, 100),
                    // That of the one before may still be news.
                    Err(RecvError::PeerDied) => {
                        deaths += 1;
                        continue;
                    }
                    Err(error) => {
                        assert_eq!((error, number), (RecvError::Closed, 2));
                        break;
                    }
                }
                stage.confirm_arrival();
                number += 1;
            }
            assert!(deaths <= 1);
        },
    );
}
