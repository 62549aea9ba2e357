//! A future that is dropped before it is ready has done nothing.

use super::{Runtime, fill, number, once, pair, pipe};
use futures_util::future::join;
use futures_util::{SinkExt, StreamExt};
use ringway::future::Event;
use ringway::{PeerEvent, RecvError};
use std::pin::pin;

/// Each way to receive is dropped while there is nothing, and once there is something that it has not looked at.
pub fn receiving<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=64KiB");
        macro_rules! cancel {
            ($($waiting:expr),*) => {$(
                assert!(once($waiting).await.is_none(), "there is nothing");
                let mut number = 0;
                {
                    let mut waiting = pin!($waiting);
                    assert!(once(waiting.as_mut()).await.is_none());
                    for _ in 0..2 {
                        number = sender.send(stringify!($waiting)).await.unwrap();
                    }
                    // Nor has it taken what has come meanwhile.
                }
                for last in [false, true] {
                    let message = receiver.recv().await.unwrap();
                    assert_eq!(&message[..], stringify!($waiting).as_bytes());
                    assert_eq!(message.sequence() == number, last, "each comes once, and in order");
                }
            )*};
        }
        // It is there from now on.
        assert!(matches!(receiver.event().await, Ok(Event::Peer(PeerEvent::Joined))));
        cancel!(
            receiver.recv(),
            receiver.recv_batch(5),
            receiver.recv_many(5, |_, _| unreachable!()),
            receiver.event(),
            receiver.next()
        );
        assert!(once(receiver.recv()).await.is_none(), "nothing comes twice");
        drop(sender);
        assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
    });
}

/// Each way to send is dropped while there is no room, and once there is some that it has not looked at.
pub fn sending<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        macro_rules! cancel {
            ($($waiting:expr),*) => {$(
                let sent = fill::<R>(&mut sender, 1000).await;
                assert!(sent > 0);
                assert!(once($waiting).await.is_none(), "there is no room");
                {
                    let mut waiting = pin!($waiting);
                    assert!(once(waiting.as_mut()).await.is_none());
                    for expected in 0..sent {
                        assert_eq!(number(&receiver.recv().await.unwrap()), expected);
                    }
                    // Nor has it sent anything now that there is room.
                }
                assert!(once(receiver.recv()).await.is_none(), "nothing was sent");
            )*};
        }
        cancel!(sender.send(&[1; 1000]), sender.reserve(1000));
        drop(sender.reserve(1000).await.unwrap());
        assert!(once(receiver.recv()).await.is_none(), "nothing was committed");
    });
}

/// What was sent and has not gone stays, and goes once.
pub fn flushing<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver) = pipe::<R>();
        let long: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        sender.send(&long).await.unwrap();
        assert!(once(sender.flush()).await.is_none(), "no pipe takes that at once");
        assert!(once(sender.reserve(1)).await.is_none(), "it goes first");
        let receiving = async {
            assert_eq!(*receiver.recv().await.unwrap(), long);
        };
        let flushing = async {
            sender.flush().await.unwrap();
        };
        join(receiving, flushing).await;
        // A committed one that has not begun to go.
        let sent = fill::<R>(&mut sender, 3000).await;
        let mut grant = sender.reserve(4000).await.unwrap();
        grant.copy_from_slice(&long[..4000]);
        grant.commit(4000).unwrap();
        assert!(once(sender.finish()).await.is_none());
        let receiving = async {
            for expected in 0..sent {
                assert_eq!(number(&receiver.recv().await.unwrap()), expected);
            }
            assert_eq!(receiver.recv().await.unwrap()[..], long[..4000]);
            assert_eq!(receiver.recv().await.err(), Some(RecvError::Closed));
        };
        let finishing = async {
            sender.finish().await.unwrap();
        };
        join(receiving, finishing).await;
    });
}

/// A sink that has taken something sends it once, whatever becomes of the futures.
pub fn a_sink<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        let sent = fill::<R>(&mut sender, 1000).await;
        let item = [7; 1000];
        assert!(once(SinkExt::send(&mut sender, item)).await.is_none(), "it took it, and there is no room");
        assert!(once(SinkExt::<[u8; 1000]>::flush(&mut sender)).await.is_none());
        assert!(once(SinkExt::feed(&mut sender, [8; 1000])).await.is_none(), "it takes one only");
        assert!(once(sender.send(&[9; 1000])).await.is_none(), "which goes first");
        for expected in 0..sent {
            assert_eq!(number(&receiver.recv().await.unwrap()), expected);
        }
        SinkExt::send(&mut sender, [10; 1000]).await.unwrap();
        for expected in [[7; 1000], [10; 1000]] {
            assert_eq!(receiver.recv().await.unwrap()[..], expected);
        }
        assert!(once(receiver.recv()).await.is_none());
    });
}
