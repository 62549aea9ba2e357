//! A signal every millisecond, in both processes: no call fails of it, and none is repeated.

use crate::stage::{Gate, Note, Stage, content, expect_closed, tag};
use ringway::{RecvError, Sender};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Ends with it.
struct Storm(libc::timer_t);

impl Storm {
    fn new() -> Self {
        extern "C" fn count(_: libc::c_int) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: both structures are integers and pointers, for which zero is a value; the handler only counts.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = count as extern "C" fn(libc::c_int) as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGUSR1;
            let mut timer = std::mem::zeroed();
            assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer), 0);
            let every = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let times = libc::itimerspec { it_interval: every, it_value: every };
            assert_eq!(libc::timer_settime(timer, 0, &times, std::ptr::null_mut()), 0);
            Self(timer)
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // SAFETY: it was made by timer_create, and is deleted once.
        unsafe { libc::timer_delete(self.0) };
        assert!(COUNT.load(Ordering::Relaxed) > 10, "there was no storm");
    }
}

pub fn a_storm_of_signals(stage: &Stage) {
    let largest = |max: usize| max.min(1 << 20).min(stage.transport.largest);
    let gate = Gate::new();
    let note = Note::new();
    let (mut child, mut receiver) = stage.with_child(|_| {
        let storm = Storm::new();
        let mut sender: Sender = stage.sender();
        let len = largest(sender.max_message());
        note.tell(len);
        gate.pass();
        for number in 0..8 {
            stage.send(&mut sender, number, len);
        }
        let batch: Vec<_> = (8..16).map(|number| (content(number, 100), tag(number))).collect();
        sender.send_many(batch.iter().map(|(bytes, tag)| (bytes, *tag))).unwrap();
        drop((sender, storm));
    });
    let storm = Storm::new();
    let len = note.hear();
    let pause = Duration::from_millis(50);
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(pause).err(), Some(RecvError::Timeout));
    assert!(start.elapsed() >= pause);
    gate.open(1);
    for number in 0..8 {
        stage.expect(&mut receiver, number, len);
    }
    let mut number = 8;
    while number < 16 {
        receiver
            .recv_many(3, |bytes, delivery| {
                crate::stage::check(bytes, delivery.tag, number, 100);
                number += 1;
            })
            .unwrap();
    }
    expect_closed(&mut receiver);
    drop(storm);
    child.expect_success();
}
