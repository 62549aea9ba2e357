//! Many sleepers under every interleaving: a lost wake-up is a deadlock, which loom reports.

#![cfg(ringway_loom)]

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::wait::crowd::{Bells, Crowd};
use ringway::wait::manner::{How, Manner};

/// One waiter's bell, and its sleep on it: compares and falls asleep in one step, as the kernel does.
struct Bell {
    epoch: AtomicU32,
    manner: AtomicU32,
    queue: Mutex<()>,
    by_strategy: Condvar,
    otherwise: Condvar,
}

impl Bell {
    fn new() -> Self {
        let word = || AtomicU32::new(0);
        let (by_strategy, otherwise) = (Condvar::new(), Condvar::new());
        Self { epoch: word(), manner: word(), queue: Mutex::new(()), by_strategy, otherwise }
    }

    /// Who sleeps in one manner is woken in that manner only.
    fn woken(&self, manner: Manner) -> &Condvar {
        if manner.how() == How::Strategy { &self.by_strategy } else { &self.otherwise }
    }

    fn sleep(&self, expected: u32, manner: Manner) {
        let queue = self.queue.lock().unwrap();
        if self.epoch.load(Ordering::Relaxed) == expected {
            drop(self.woken(manner).wait(queue).unwrap());
        }
    }
}

struct Shared {
    /// Messages that were published and not taken.
    messages: AtomicU32,
    /// That somebody came or went.
    news: AtomicU32,
    waiters: AtomicU64,
    bells: Vec<Bell>,
}

impl Bells for &Shared {
    fn bell(&self, waiter: u32) -> &AtomicU32 {
        &self.bells[waiter as usize].epoch
    }

    fn manner(&self, waiter: u32) -> &AtomicU32 {
        &self.bells[waiter as usize].manner
    }

    fn wake(&self, waiter: u32, manner: Manner) {
        let bell = &self.bells[waiter as usize];
        let _queue = bell.queue.lock().unwrap();
        bell.woken(manner).notify_one();
    }
}

impl Shared {
    fn new(waiters: usize) -> Arc<Self> {
        let bells = (0..waiters).map(|_| Bell::new()).collect();
        Arc::new(Self { messages: AtomicU32::new(0), news: AtomicU32::new(0), waiters: AtomicU64::new(0), bells })
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
        self.receive_by(waiter, Manner::STRATEGY);
    }

    fn receive_by(&self, waiter: u32, manner: Manner) {
        let mut announced = false;
        while !self.take() {
            announced = true;
            let epoch = self.crowd().announce(waiter, self, manner);
            let found = self.take();
            if !found {
                self.bells[waiter as usize].sleep(epoch, manner);
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
/// Two threads finish without a bound in ten minutes; with this one, which lets each be interrupted twice, in seconds.
const PREEMPTIONS_OF_TWO: usize = 4;

fn bounded(model: impl Fn() + Send + Sync + 'static) {
    bounded_by(PREEMPTIONS, model);
}

fn bounded_by(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
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
    bounded_by(PREEMPTIONS_OF_TWO, || {
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

#[test]
fn a_notifier_without_a_fence_spends_no_wake_up_in_the_wrong_manner() {
    loom::model(|| {
        let shared = Shared::new(1);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.messages.fetch_add(1, Ordering::Release);
                shared.crowd().notify_fenced(&*shared);
                shared.crowd().notify(&*shared);
            })
        };
        shared.receive_by(0, Manner::doorbell(3));
        notifier.join().unwrap();
    });
}

#[test]
fn one_who_is_watched_hears_the_news_without_having_announced_a_wait() {
    loom::model(|| {
        let shared = Shared::new(1);
        let teller = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.news.store(1, Ordering::Release);
                shared.crowd().tell(0..1, &*shared);
            })
        };
        let epoch = shared.crowd().watch(0, &*shared, Manner::FUTEX);
        if shared.news.load(Ordering::Acquire) == 0 {
            shared.bells[0].sleep(epoch, Manner::FUTEX);
            // As `Hold` does, to find out that it moved on.
            assert_ne!(shared.bells[0].epoch.load(Ordering::Acquire), epoch);
        }
        assert_eq!(shared.news.load(Ordering::Acquire), 1);
        teller.join().unwrap();
    });
}
