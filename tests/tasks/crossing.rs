//! Between processes, over every transport.

use super::{Counted, In, Out, Runtime};
use crate::common::faults::kill;
use crate::stage::{Stage, check, content, expect_closed, tag};
use ringway::{ErrorKind, PeerEvent, RecvError};
use std::pin::{Pin, pin};
use std::time::Duration;

/// Small ones and some that don't fit at once.
fn length(number: u64, stage: &Stage) -> usize {
    let unit = stage.transport.unit.min(64 << 10);
    match number % 50 {
        49 if stage.transport.is_reliable => 3 * unit + 1,
        short => short as usize * 7,
    }
}

const COUNT: u64 = 600;

async fn send_all<R: Runtime>(sender: &mut Out<R>, stage: &Stage<'_>) {
    for number in 0..COUNT {
        let (len, tag) = (length(number, stage).min(sender.get_ref().max_message()), tag(number));
        let content = content(number, len);
        if number % 2 == 0 {
            sender.send((&content, tag)).await.unwrap();
        } else {
            let mut grant = sender.reserve(len).await.unwrap();
            grant.copy_from_slice(&content);
            grant.set_tag(tag);
            grant.commit(len).unwrap();
        }
        if !stage.transport.is_reliable {
            stage.await_arrival();
        }
    }
    sender.flush().await.unwrap();
}

async fn receive_all<R: Runtime>(receiver: &mut In<R>, stage: &Stage<'_>) {
    for number in 0..COUNT {
        let longest = receiver.get_ref().max_message();
        let message = receiver.recv().await.unwrap();
        check(&message, message.tag(), number, length(number, stage).min(longest));
        drop(message);
        stage.confirm_arrival();
    }
}

/// All that a task sends arrives at a task, and then the end.
pub fn arrive<R: Runtime>(stage: &Stage) {
    stage.between(
        |mut sender| {
            if !is_pollable(&mut sender, stage) {
                for number in 0..COUNT {
                    let len = length(number, stage).min(sender.max_message());
                    stage.send(&mut sender, number, len);
                }
                return;
            }
            R::block_on(async {
                let mut sender = Out::<R>::new(sender).unwrap();
                send_all::<R>(&mut sender, stage).await;
                sender.finish().await.unwrap();
            });
        },
        |receiver| {
            take(receiver, |receiver| {
                R::block_on(async {
                    let mut receiver = In::<R>::new(receiver).unwrap();
                    receive_all::<R>(&mut receiver, stage).await;
                    assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
                    receiver.into_inner()
                })
            });
            expect_closed(receiver);
        },
    );
}

/// Of some transports only the receiver can be polled.
fn is_pollable(sender: &mut ringway::Sender, stage: &Stage) -> bool {
    let scheme = stage.transport.address.split(':').next();
    match sender.pollable() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(
                (scheme, error.kind()),
                (scheme.filter(|&s| s == "signal" || s == "log"), ErrorKind::InvalidInput)
            );
            false
        }
    }
}

/// `receiver` is borrowed, and a task's owns its own.
fn take(receiver: &mut ringway::Receiver, work: impl FnOnce(ringway::Receiver) -> ringway::Receiver) {
    let spare = ringway::Options::new().pair(&"pipe:".parse::<ringway::Address>().unwrap()).unwrap().1;
    let own = std::mem::replace(receiver, spare.receiver().unwrap());
    *receiver = work(own);
}

/// A sender that finds no room sleeps until there is some.
pub fn press<R: Runtime>(stage: &Stage) {
    let scheme = stage.transport.address.split(':').next();
    if !stage.transport.is_reliable || scheme == Some("signal") || scheme == Some("log") {
        return stage.take_no_part();
    }
    let (mut child, receiver) = stage.with_child(|tell| {
        let sender = stage.sender();
        R::block_on(async {
            let mut sender = Out::<R>::new(sender).unwrap();
            let sent = super::fill::<R>(&mut sender, 1000).await;
            tell.say(b'f');
            for number in sent..sent + COUNT {
                let mut message = [0; 1000];
                message[..8].copy_from_slice(&number.to_le_bytes());
                sender.send(&message).await.unwrap();
            }
            sender.flush().await.unwrap();
            let end = [0; 1];
            sender.send(&end).await.unwrap();
            sender.finish().await.unwrap();
        });
    });
    R::block_on(async {
        let mut receiver = In::<R>::new(receiver).unwrap();
        child.expect(b'f');
        // It sleeps in the runtime now, or is about to.
        child.await_sleep();
        let mut next = 0;
        loop {
            let message = receiver.recv().await.unwrap();
            if message.len() == 1 {
                break;
            }
            assert_eq!(super::number(&message), next);
            next += 1;
        }
        assert!(next >= COUNT);
        assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
    });
    child.expect_success();
}

/// A task that waits for a process is told when that is killed; until then it sleeps.
pub fn mourn<R: Runtime>(stage: &Stage) {
    let (mut child, receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        stage.send(&mut sender, 0, 10);
        tell.say(b's');
        tell.sleep_until_killed();
    });
    R::block_on(async {
        let mut receiver = In::<R>::new(receiver).unwrap();
        let message = receiver.recv().await.unwrap();
        check(&message, message.tag(), 0, 10);
        drop(message);
        stage.confirm_arrival();
        child.expect(b's');
        let mut waiting = Counted::new(receiver.recv());
        let mut pause = pin!(R::sleep(Duration::from_millis(300)));
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut waiting).poll(cx).is_pending());
            pause.as_mut().poll(cx)
        })
        .await;
        assert!(waiting.polls < 10, "it was polled {} times", waiting.polls);
        kill(child);
        assert_eq!(waiting.await.err(), Some(RecvError::PeerDied));
    });
    stage.clear_away();
}

/// A sender at a ring hears of its receiver without sending.
pub fn hear<R: Runtime>(stage: &Stage) {
    let (mut child, receiver) = stage.with_child(|tell| {
        let sender = stage.sender();
        R::block_on(async {
            let mut sender = Out::<R>::new(sender).unwrap();
            assert_eq!(sender.peer_event().await, Ok(PeerEvent::Joined));
            tell.say(b'j');
            assert_eq!(sender.peer_event().await, Ok(PeerEvent::Left));
        });
    });
    child.expect(b'j');
    drop(receiver);
    child.expect_success();
}
