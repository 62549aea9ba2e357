//! Streams and sinks, with what others make of them.

use super::{Runtime, fill, number, pair, pipe};
use futures_util::future::{join, join4};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use ringway::RecvError;

const COUNT: u64 = 2000;

/// From a ring through a pipe to another ring.
pub fn forward<R: Runtime>() {
    R::block_on(async {
        let (sender, receiver, _first) = pair::<R>("capacity=4KiB");
        let (middle, end) = pipe::<R>();
        let (last, result, _last) = pair::<R>("ring=mpmc&capacity=16KiB");
        let numbers = stream::iter((0..COUNT).map(|number| Ok(number.to_le_bytes())));
        let through = receiver.map(|message| Ok(message.unwrap()));
        let on = end.map(|message| Ok(message.unwrap()));
        let (a, b, c, received) = join4(
            numbers.forward(sender),
            through.forward(middle),
            on.forward(last),
            result.map_ok(|message| number(&message)).try_collect::<Vec<u64>>(),
        )
        .await;
        assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
        assert_eq!(received, Ok((0..COUNT).collect()), "the stream ends with the sender");
    });
}

/// A sink buffers what has no room, and flushes it.
pub fn buffers<R: Runtime>() {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>("capacity=4KiB");
        let sent = fill::<R>(&mut sender, 500).await;
        let sending = async {
            SinkExt::feed(&mut sender, sent.to_le_bytes().repeat(60)).await.unwrap();
            SinkExt::<Vec<u8>>::flush(&mut sender).await.unwrap();
            SinkExt::<Vec<u8>>::close(&mut sender).await.unwrap();
            drop(sender);
        };
        let receiving = async {
            let mut next = 0;
            while let Some(message) = receiver.next().await {
                assert_eq!(number(&message.unwrap()), next);
                next += 1;
            }
            assert_eq!(next, sent + 1);
        };
        join(sending, receiving).await;
    });
}

/// In batches, while it goes on.
pub fn batches<R: Runtime>(options: &str) {
    R::block_on(async {
        let (mut sender, mut receiver, _scratch) = pair::<R>(options);
        let sending = async move {
            for number in 0..COUNT {
                sender.send(&number.to_le_bytes()).await.unwrap();
            }
        };
        let receiving = async {
            let mut next = 0;
            loop {
                let taken = receiver.recv_many(7, |bytes, _| {
                    assert_eq!(number(bytes), next);
                    next += 1;
                });
                match taken.await {
                    Ok(taken) => assert!((1..=7).contains(&taken)),
                    Err(error) => break assert_eq!(error, RecvError::Closed),
                }
                let Ok(mut batch) = receiver.recv_batch(3).await else { continue };
                while let Some((bytes, _)) = batch.next() {
                    assert_eq!(number(bytes), next);
                    next += 1;
                }
            }
            assert_eq!(next, COUNT);
        };
        join(sending, receiving).await;
    });
}
