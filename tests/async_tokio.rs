//! Endpoints for tasks, on tokio.

mod common;
#[path = "conformance/place.rs"]
mod place;
#[path = "conformance/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod stage;
mod tasks;
#[path = "conformance/transports.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod transports;

use common::{Kind, Scratch, alone};
use ringway::ErrorKind;
use ringway::tokio::{Receiver, Sender};
use std::time::Duration;
use tasks::{Runtime, number};

struct Tokio;

impl Runtime for Tokio {
    type Readiness = ringway::tokio::Registration;

    fn block_on<T>(task: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(task)
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }
}

tasks::tests!(crate::Tokio);

#[test]
fn outside_of_a_runtime_there_is_an_error() {
    let _alone = alone();
    let scratch = Scratch::new(Kind::Anon);
    let error = Receiver::new(scratch.receiver()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os);
    assert!(error.to_string().contains("register with the runtime"), "{error}");
}

/// Tasks of which any thread may run any, and that hand their endpoints on.
#[test]
fn threads_share_the_tasks() {
    const TASKS: u64 = 8;
    const EACH: u64 = 2000;

    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scratch = Scratch::many(Kind::Anon, "capacity=64KiB");
        let receiving: Vec<_> = (0..TASKS)
            .map(|_| {
                let mut receiver = Receiver::new(scratch.receiver()).unwrap();
                tokio::spawn(async move {
                    let mut sum = 0;
                    loop {
                        match receiver.recv().await {
                            Ok(message) => sum += number(&message),
                            Err(error) => break assert_eq!(error, ringway::RecvError::Closed),
                        }
                        if sum % 64 == 0 {
                            receiver = tokio::spawn(async move {
                                tokio::task::yield_now().await;
                                receiver
                            })
                            .await
                            .unwrap();
                        }
                    }
                    sum
                })
            })
            .collect();
        // All of them come before the first can leave: else the ring may be closed in between.
        let senders: Vec<_> = (0..TASKS).map(|_| Sender::new(scratch.sender()).unwrap()).collect();
        let sending: Vec<_> = senders
            .into_iter()
            .map(|mut sender| {
                tokio::spawn(async move {
                    for number in 0..EACH {
                        sender.send(&number.to_le_bytes()).await.unwrap();
                    }
                })
            })
            .collect();
        for task in sending {
            task.await.unwrap();
        }
        let mut sum = 0;
        for task in receiving {
            sum += task.await.unwrap();
        }
        assert_eq!(sum, TASKS * EACH * (EACH - 1) / 2);
    });
}

/// tokio's own macro, with a timer beside.
#[test]
fn select_with_a_timer() {
    let _alone = alone();
    Tokio::block_on(async {
        let (mut sender, mut receiver, _scratch) = tasks::pair::<Tokio>("capacity=4KiB");
        let sending = tokio::spawn(async move {
            for number in 0..100_u64 {
                sender.send(&number.to_le_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        });
        let mut ticks = tokio::time::interval(Duration::from_micros(100));
        let mut next = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                received = receiver.recv() => match received {
                    Ok(message) => {
                        assert_eq!(number(&message), next);
                        next += 1;
                    }
                    Err(error) => break assert_eq!(error, ringway::RecvError::Closed),
                },
            }
        }
        assert_eq!(next, 100);
        sending.await.unwrap();
    });
}

/// When the runtime goes, whoever waits is told; the endpoint can be used elsewhere.
#[test]
fn the_runtime_may_go_first() {
    let _alone = alone();
    let scratch = Scratch::new(Kind::Anon);
    let mut sender = scratch.sender();
    let mut receiver = Tokio::block_on(async { Receiver::new(scratch.receiver()).unwrap() });
    let error = Tokio::block_on(async { receiver.recv().await.err() });
    assert_eq!(error, Some(ringway::RecvError::Os { errno: libc::ECANCELED }));
    sender.send(b"still").unwrap();
    assert_eq!(&receiver.into_inner().recv().unwrap()[..], b"still");
}
