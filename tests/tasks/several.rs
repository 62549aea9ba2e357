//! One task that waits for several; many tasks on one runtime.

use super::{In, Out, Runtime, number, once, pair, pipe};
use futures_util::future::{Either, join, join_all, join3, select};
use ringway::future::Event;
use ringway::{PeerEvent, RecvError};
use std::pin::pin;

const EACH: u64 = 3000;

async fn count_up<R: Runtime>(mut sender: Out<R>, pause: u64) {
    for number in 0..EACH {
        sender.send(&number.to_le_bytes()).await.unwrap();
        if pause > 0 && number % pause == 0 {
            // The receiver is to fall asleep between.
            let mut once = false;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                match std::mem::replace(&mut once, true) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
        }
    }
    sender.flush().await.unwrap();
}

/// Whoever loses the race is dropped each time: nothing may get lost.
pub fn select_over_three<R: Runtime>() {
    R::block_on(async {
        let (first, mut a, _a) = pair::<R>("capacity=4KiB");
        let (second, mut b, _b) = pair::<R>("ring=mpmc&capacity=16KiB");
        let (third, mut c) = pipe::<R>();
        let sending = async {
            join3(count_up::<R>(first, 1), count_up::<R>(second, 3), count_up::<R>(third, 7)).await;
        };
        let receiving = async {
            let mut next = [0; 3];
            let mut open = 3;
            while open > 0 {
                let (which, received) = {
                    let (a, b, c) = (pin!(a.recv()), pin!(b.recv()), pin!(c.recv()));
                    match select(a, select(b, c)).await {
                        Either::Left((a, _)) => (0, a.map(|message| number(&message))),
                        Either::Right((Either::Left((b, _)), _)) => (1, b.map(|message| number(&message))),
                        Either::Right((Either::Right((c, _)), _)) => (2, c.map(|message| number(&message))),
                    }
                };
                match received {
                    Ok(number) => {
                        assert_eq!(number, next[which], "of sender {which}");
                        next[which] += 1;
                    }
                    Err(error) => {
                        assert_eq!((error, next[which]), (RecvError::Closed, EACH));
                        // It would be ready for ever.
                        open -= 1;
                        let (_, other) = pipe::<R>();
                        *[&mut a, &mut b, &mut c][which] = replace(other);
                    }
                }
            }
        };
        join(sending, receiving).await;
    });
}

/// The receiver of a pipe whose sender stays, for ever without a message.
fn replace<R: ringway::future::Readiness>(closed: ringway::future::Receiver<R>) -> ringway::future::Receiver<R> {
    drop(closed);
    let (sender, receiver) = ringway::Options::new().pair(&"pipe:".parse::<ringway::Address>().unwrap()).unwrap();
    std::mem::forget(sender);
    ringway::future::Receiver::new(receiver.receiver().unwrap()).unwrap()
}

/// A consumer that takes one at a time, and falls asleep between, while the producer waits for room.
pub fn a_slow_consumer<R: Runtime>(options: &str) {
    R::block_on(async {
        let (sender, mut receiver, _scratch) = pair::<R>(options);
        let receiving = async {
            for expected in 0..EACH {
                assert_eq!(number(&receiver.recv().await.unwrap()), expected);
            }
            assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
        };
        join(count_up::<R>(sender, 0), receiving).await;
    });
}

/// A thousand receivers wait, of which each gets its own.
pub fn a_thousand<R: Runtime>() {
    raise_limit();
    R::block_on(async {
        let pairs: Vec<_> = (0..1000).map(|_| pair::<R>("capacity=4KiB")).collect();
        let (mut senders, mut receivers, mut scratches) = (Vec::new(), Vec::new(), Vec::new());
        for (sender, receiver, scratch) in pairs {
            senders.push(sender);
            receivers.push(receiver);
            scratches.push(scratch);
        }
        for receiver in &mut receivers {
            assert!(once(receiver.recv()).await.is_none());
        }
        let receiving = join_all(receivers.iter_mut().enumerate().map(|(which, receiver)| async move {
            for round in 0..3 {
                assert_eq!(number(&receiver.recv().await.unwrap()), which as u64 * 3 + round);
            }
        }));
        let sending = async {
            for round in 0..3 {
                for (which, sender) in senders.iter_mut().enumerate().rev() {
                    sender.send(&(which as u64 * 3 + round).to_le_bytes()).await.unwrap();
                }
            }
        };
        join(receiving, sending).await;
    });
}

fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer, and then for the question.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Who comes and leaves is told while nothing is sent; of the receiver also while there is no room.
pub fn peers<R: Runtime>() {
    R::block_on(async {
        let scratch = crate::common::Scratch::with(crate::common::Kind::Anon, "capacity=4KiB");
        let mut receiver = In::<R>::new(scratch.receiver()).unwrap();
        assert!(once(receiver.event()).await.is_none());
        let mut sender = {
            let mut coming = pin!(receiver.event());
            assert!(once(coming.as_mut()).await.is_none());
            let sender = Out::<R>::new(scratch.sender()).unwrap();
            assert!(matches!(coming.await, Ok(Event::Peer(PeerEvent::Joined))));
            sender
        };
        assert_eq!(sender.peer_event().await, Ok(PeerEvent::Joined));
        assert!(once(sender.peer_event()).await.is_none());
        super::fill::<R>(&mut sender, 1000).await;
        // By the same task, in both orders.
        let leaving = {
            let (mut room, mut told) = (None, None);
            let mut receiver = Some(receiver);
            std::future::poll_fn(|cx| {
                for _ in 0..2 {
                    if let std::task::Poll::Ready(event) = sender.poll_peer_event(cx) {
                        told = Some(event);
                    }
                    if let std::task::Poll::Ready(sent) = sender.poll_send(cx, &[0; 1000]) {
                        room = Some(sent);
                    }
                    drop(receiver.take());
                }
                if told.is_some() { std::task::Poll::Ready((told, room)) } else { std::task::Poll::Pending }
            })
            .await
        };
        assert_eq!(leaving.0, Some(Ok(PeerEvent::Left)));
    });
}

/// A look for room takes away what was rung for a receiver; it is told nevertheless.
pub fn peers_beside_room<R: Runtime>() {
    R::block_on(async {
        let scratch = crate::common::Scratch::with(crate::common::Kind::Anon, "capacity=4KiB");
        let mut sender = Out::<R>::new(scratch.sender()).unwrap();
        super::fill::<R>(&mut sender, 1000).await;
        let bell = super::Bell::new(std::task::Waker::noop());
        let waker = std::task::Waker::from(std::sync::Arc::clone(&bell));
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(sender.poll_peer_event(&mut cx).is_pending());
        let _receiver = scratch.receiver();
        let before = bell.wakes();
        assert!(sender.poll_send(&mut cx, &[0; 1000]).is_pending());
        assert!(bell.wakes() > before, "the task polls again");
        assert_eq!(sender.poll_peer_event(&mut cx), std::task::Poll::Ready(Ok(PeerEvent::Joined)));
    });
}
