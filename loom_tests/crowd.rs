//! Many sleepers under every interleaving: a lost wake-up is a deadlock, which loom reports.

#![cfg(ringway_loom)]

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::wait::crowd::{Bells, Crowd};

/// One waiter's bell, and its sleep on it: compares and falls asleep in one step, as the kernel does.
struct Bell {
    epoch: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { epoch: AtomicU32::new(0), queue: Mutex::new(()), woken: Condvar::new() }
    }
}

struct Shared {
    /// Messages that were published and not taken.
    messages: AtomicU32,
    waiters: AtomicU64,
    bells: Vec<Bell>,
}

impl Bells for &Shared {
    fn bell(&self, waiter: u32) -> &AtomicU32 {
        &self.bells[waiter as usize].epoch
    }

    fn wake(&self, waiter: u32) {
        let bell = &self.bells[waiter as usize];
        let _queue = bell.queue.lock().unwrap();
        bell.woken.notify_one();
    }
}

impl Shared {
    fn new(waiters: usize) -> Arc<Self> {
        let bells = (0..waiters).map(|_| Bell::new()).collect();
        Arc::new(Self { messages: AtomicU32::new(0), waiters: AtomicU64::new(0), bells })
    }

    fn crowd(&self) -> Crowd<'_> {
        Crowd { waiters: &self.waiters }
    }

    fn publish(&self, messages: u32) {
        self.messages.fetch_add(messages, Ordering::Release);
        self.crowd().notify(self);
    }

    fn take(&self) -> bool {
        self.messages.fetch_update(Ordering::Acquire, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// As a consumer does it, without slices: nothing but a wake ends a sleep.
    fn receive(&self, waiter: u32) {
        let mut announced = false;
        while !self.take() {
            announced = true;
            let epoch = self.crowd().announce(waiter, self);
            let found = self.take();
            let bell = &self.bells[waiter as usize];
            if !found {
                let queue = bell.queue.lock().unwrap();
                if bell.epoch.load(Ordering::Relaxed) == epoch {
                    drop(bell.woken.wait(queue).unwrap());
                }
            }
            self.crowd().retract(waiter);
            if found {
                break;
            }
        }
        if announced && self.messages.load(Ordering::Relaxed) > 0 {
            self.crowd().notify(self);
        }
    }
}

/// Three threads with two locks are too many for loom without a bound: here at most this many switches are forced where a
/// thread could have gone on, enough for each of the three to be interrupted once.
const PREEMPTIONS: usize = 3;

fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Two waiters take a message each, however they were published.
fn each_gets_one(publications: &'static [u32]) {
    bounded(move || {
        let shared = Shared::new(2);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.receive(1))
        };
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || publications.iter().for_each(|&messages| shared.publish(messages)))
        };
        shared.receive(0);
        other.join().unwrap();
        notifier.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_by_one_of_a_crowd() {
    loom::model(|| {
        let shared = Shared::new(1);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || [1, 1].map(|messages| shared.publish(messages)))
        };
        shared.receive(0);
        shared.receive(0);
        notifier.join().unwrap();
    });
}

#[test]
fn a_wake_up_is_passed_on() {
    each_gets_one(&[2]);
}

#[test]
fn two_wake_ups_reach_two_waiters() {
    each_gets_one(&[1, 1]);
}

#[test]
fn two_notifiers_wake_one_waiter_twice() {
    bounded(|| {
        let shared = Shared::new(1);
        let notifiers = [1, 2].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.publish(1))
        });
        shared.receive(0);
        shared.receive(0);
        for notifier in notifiers {
            notifier.join().unwrap();
        }
    });
}

#[test]
fn all_are_woken() {
    bounded(|| {
        let shared = Shared::new(2);
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.receive(1))
        };
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.messages.fetch_add(2, Ordering::Release);
                shared.crowd().notify_all(&*shared);
            })
        };
        shared.receive(0);
        other.join().unwrap();
        notifier.join().unwrap();
    });
}
