//! Whose an endpoint is: one receiver's, one process's.

use crate::common::{Child, PATIENCE};
use crate::stage::{Gate, Stage, expect_closed};
use ringway::error::ErrorKind;
use ringway::{Options, RecvError, SendError};
use std::time::Duration;

fn assert_taken(refused: Option<ErrorKind>, pid: u32) {
    assert_eq!(refused, Some(ErrorKind::RoleTaken { pid }));
}

/// It is refused, and the first one is none the worse for it.
pub fn a_second_receiver(stage: &Stage) {
    let asked = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        stage.send(&mut sender, 0, 10);
        asked.pass();
        stage.send(&mut sender, 1, 10);
    });
    stage.expect(&mut receiver, 0, 10);
    let holder = if stage.transport.names_holder { std::process::id() } else { 0 };
    let refused = || Options::new().receiver(&stage.address()).err().map(|error| error.kind());
    assert_taken(refused(), holder);
    // Of another process, signals are others.
    if !stage.transport.address.starts_with("signal:") {
        Child::fork(|_| assert_taken(refused(), holder)).expect_success();
    }
    asked.open(1);
    stage.expect(&mut receiver, 1, 10);
    expect_closed(&mut receiver);
    child.expect_success();
}

/// What can't be had, or not in time, leaves nothing behind; and is no obstacle later.
pub fn a_failed_attempt(stage: &Stage) {
    let beyond = Options::new().capacity(1 << 45);
    let hasty = || Options::new().connect(Duration::from_millis(20));
    let attempts: [&dyn Fn() -> bool; 4] = [
        &|| beyond.receiver(&stage.address()).is_err(),
        &|| hasty().capacity(1 << 45).sender(&stage.address()).is_err(),
        &|| hasty().sender(&stage.address()).is_err(),
        &|| Options::new().max_message(1 << 45).receiver(&stage.address()).is_err(),
    ];
    let failed = attempts.map(|attempt| {
        let failed = attempt();
        assert_eq!(stage.place.leftovers(), [""; 0], "after an attempt");
        failed
    });
    assert!(failed.contains(&true), "{failed:?}");
    stage.between(
        |mut sender| stage.send(&mut sender, 0, 10),
        |receiver| {
            // Of a sender that found its place, the end may still be news.
            while receiver.recv_batch_timeout(1, PATIENCE).err() == Some(RecvError::Closed) {}
            stage.expect(receiver, 0, 10);
            expect_closed(receiver);
        },
    );
}

/// As a second receiver.
pub fn a_second_sender(stage: &Stage) {
    let asked = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|tell| {
        let mut sender = stage.sender();
        stage.send(&mut sender, 0, 10);
        tell.say(b's');
        asked.pass();
        stage.send(&mut sender, 1, 10);
    });
    child.expect(b's');
    stage.expect(&mut receiver, 0, 10);
    let refused = Options::new().sender(&stage.address()).err().map(|error| error.kind());
    assert_taken(refused, child.pid());
    asked.open(1);
    stage.expect(&mut receiver, 1, 10);
    expect_closed(&mut receiver);
    child.expect_success();
}

/// What it inherits it can't use; and dropping it is no end.
pub fn a_forked_child(stage: &Stage) {
    let forked = Gate::new();
    let (mut child, mut receiver) = stage.with_child(|_| {
        let mut sender = stage.sender();
        stage.send(&mut sender, 0, 10);
        forked.pass();
        let mut inherited = Some(sender);
        Child::fork(|_| {
            let mut sender = inherited.take().unwrap();
            assert_eq!(sender.try_send(b"no"), Err(SendError::Fenced));
            assert_eq!(sender.send(b"no"), Err(SendError::Fenced));
            assert_eq!(sender.send_timeout(b"no", PATIENCE), Err(SendError::Fenced));
            assert_eq!(sender.send_many([b"no"]).unwrap_err().error, SendError::Fenced);
            assert_eq!(sender.reserve(1).err(), Some(SendError::Fenced));
        })
        .expect_success();
        stage.send(inherited.as_mut().unwrap(), 1, 10);
    });
    stage.expect(&mut receiver, 0, 10);
    let mut inherited = Some(receiver);
    Child::fork(|_| {
        let mut receiver = inherited.take().unwrap();
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Fenced));
        assert_eq!(receiver.recv().err(), Some(RecvError::Fenced));
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Fenced));
        assert_eq!(receiver.recv_many(1, |_, _| {}), Err(RecvError::Fenced));
        assert_eq!(receiver.recv_into(&mut [0; 10]), Err(RecvError::Fenced));
    })
    .expect_success();
    forked.open(1);
    let receiver = inherited.as_mut().unwrap();
    stage.expect(receiver, 1, 10);
    expect_closed(receiver);
    child.expect_success();
}
