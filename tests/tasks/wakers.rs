//! Who is woken, and how often.

use super::{Bell, Counted, Runtime, fill, once, pair};
use futures_util::future::join;
use ringway::RecvError;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

async fn own_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

async fn rung(bell: &Arc<Bell>) {
    poll_fn(|_| if bell.wakes() > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// A waker that leads nowhere, and then one that does.
pub fn forgotten<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        let mut nowhere = Context::from_waker(Waker::noop());
        // Nobody hears of the message.
        assert!(receiver.poll_recv(&mut nowhere).is_pending());
        sender.send(b"unheard").await.unwrap();
        assert_eq!(&receiver.recv().await.unwrap()[..], b"unheard");
        // The message comes behind the second wait.
        assert!(receiver.poll_recv(&mut nowhere).is_pending());
        let sending = async { sender.send(b"heard").await.unwrap() };
        let receiving = async { assert_eq!(&receiver.recv().await.unwrap()[..], b"heard") };
        join(receiving, sending).await;
        fill::<R>(&mut sender, 1000).await;
        assert!(sender.poll_send(&mut nowhere, &[0; 1000]).is_pending());
        let sending = async { sender.send(&[0; 1000]).await.unwrap() };
        let receiving = async {
            receiver.recv().await.unwrap();
        };
        join(sending, receiving).await;
    });
}

/// The last waker is woken, though it belongs to another task than the first.
pub fn moving<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        let own = own_waker().await;
        let bells = [Bell::new(&own), Bell::new(&own), Bell::new(&own)];
        for bell in &bells {
            let waker = Waker::from(Arc::clone(bell));
            assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        }
        sender.send(b"for the last").await.unwrap();
        rung(&bells[2]).await;
        // Back to the first.
        let waker = Waker::from(Arc::clone(&bells[0]));
        let mut cx = Context::from_waker(&waker);
        assert!(matches!(receiver.poll_recv(&mut cx), Poll::Ready(Ok(message)) if &message[..] == b"for the last"));
        let before = bells[0].wakes();
        assert!(receiver.poll_recv(&mut cx).is_pending());
        sender.send(b"for the first").await.unwrap();
        poll_fn(|_| if bells[0].wakes() > before { Poll::Ready(()) } else { Poll::Pending }).await;
        assert!(matches!(receiver.poll_recv(&mut cx), Poll::Ready(Ok(_))));
    });
}

/// One message is one wake: after it, nothing is reported about what was received already.
pub fn once_each<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        let bell = Bell::new(&own_waker().await);
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        // What the descriptor was readable for at first.
        while receiver.poll_recv(&mut cx).is_ready() {}
        for round in 1..=100 {
            sender.send(b"one").await.unwrap();
            poll_fn(|_| if bell.wakes() >= round { Poll::Ready(()) } else { Poll::Pending }).await;
            assert!(receiver.poll_recv(&mut cx).is_ready());
            assert!(receiver.poll_recv(&mut cx).is_pending());
        }
        assert!(bell.wakes() < 110, "{} wakes for 100 messages", bell.wakes());
    });
}

/// Whoever waits sleeps: for a message, for room, and for peers.
pub fn idle<R: Runtime>(options: &str) {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>(options);
        let mut receiving = Counted::new(receiver.recv());
        let mut pause = pin!(R::sleep(Duration::from_millis(300)));
        poll_fn(|cx| {
            assert!(Pin::new(&mut receiving).poll(cx).is_pending());
            pause.as_mut().poll(cx)
        })
        .await;
        assert!(receiving.polls < 10, "it was polled {} times", receiving.polls);
        drop(receiving);
        fill::<R>(&mut sender, 100).await;
        while once(sender.peer_event()).await.is_some() {}
        let mut pause = pin!(R::sleep(Duration::from_millis(300)));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            assert!(sender.poll_send(cx, &[0; 100]).is_pending());
            assert!(sender.poll_peer_event(cx).is_pending());
            pause.as_mut().poll(cx)
        })
        .await;
        assert!(polls < 10, "it was polled {polls} times");
    });
}

/// One that always has something to do lets others go first, too.
pub fn fair<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=64KiB");
        let (mut other, mut ping, _other) = pair::<R>("capacity=4KiB");
        let busy = async {
            loop {
                sender.send(b"again").await.unwrap();
                match receiver.recv().await {
                    Ok(_) => {}
                    Err(error) => return assert_eq!(error, RecvError::Closed),
                }
            }
        };
        let single = async {
            for _ in 0..100 {
                other.send(b"between").await.unwrap();
                ping.recv().await.unwrap();
            }
        };
        futures_util::future::select(pin!(busy), pin!(single)).await;
    });
}
