//! Sleeping and waking under every interleaving: a lost wake-up is a deadlock, which loom reports.

#![cfg(ringway_loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::wait::event::{Event, Sleep};
use ringway::wait::manner::{How, Manner};

/// A futex: compares and falls asleep in one step, as the kernel does under the lock of the word's queue. Who sleeps in one manner
/// is woken in that manner only.
struct Futex {
    /// Whether the doorbell was rung, which stays.
    queue: Mutex<bool>,
    by_strategy: Condvar,
    otherwise: Condvar,
}

impl Futex {
    fn woken(&self, manner: Manner) -> &Condvar {
        if manner.how() == How::Strategy { &self.by_strategy } else { &self.otherwise }
    }

    fn sleep(&self, epoch: &AtomicU32, expected: u32, manner: Manner) {
        let queue = self.queue.lock().unwrap();
        if epoch.load(Ordering::Relaxed) == expected {
            drop(self.woken(manner).wait(queue).unwrap());
        }
    }

    /// What has rung stays rung, so that nothing is compared under the lock.
    fn await_doorbell(&self, epoch: &AtomicU32, expected: u32) {
        if epoch.load(Ordering::Acquire) != expected {
            return;
        }
        let mut is_rung = self.queue.lock().unwrap();
        while !*is_rung {
            is_rung = self.otherwise.wait(is_rung).unwrap();
        }
        *is_rung = false;
    }
}

impl Sleep for &Futex {
    fn wake(self, _epoch: &AtomicU32, manner: Manner) {
        let mut is_rung = self.queue.lock().unwrap();
        *is_rung |= manner.how() == How::Doorbell;
        self.woken(manner).notify_one();
    }
}

/// Two announcements and two publications take hours without a bound; with this one, which lets each thread be interrupted twice,
/// seconds.
const PREEMPTIONS: usize = 4;

fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

struct Shared {
    /// What the notifier publishes.
    published: AtomicU32,
    /// That somebody came or went.
    news: AtomicU32,
    epoch: AtomicU32,
    waiter: AtomicU32,
    manner: AtomicU32,
    futex: Futex,
}

impl Shared {
    fn new(epoch: u32, waiter: u32) -> Arc<Self> {
        Arc::new(Self {
            published: AtomicU32::new(0),
            news: AtomicU32::new(0),
            epoch: AtomicU32::new(epoch),
            waiter: AtomicU32::new(waiter),
            manner: AtomicU32::new(0),
            futex: Futex { queue: Mutex::new(false), by_strategy: Condvar::new(), otherwise: Condvar::new() },
        })
    }

    fn event(&self) -> Event<'_> {
        Event { epoch: &self.epoch, waiter: &self.waiter, manner: &self.manner }
    }

    fn publish(&self, value: u32) {
        self.published.store(value, Ordering::Release);
        self.event().notify(&self.futex);
    }

    /// As `wait::blocking` does it, without slices: nothing but a wake ends a sleep.
    fn wait_for(&self, value: u32) {
        self.wait_by(value, Manner::STRATEGY);
    }

    fn wait_by(&self, value: u32, manner: Manner) {
        while self.published.load(Ordering::Acquire) < value {
            let announced = self.event().announce(manner);
            if self.published.load(Ordering::Acquire) < value {
                self.futex.sleep(&self.epoch, announced.epoch(), manner);
            }
            self.event().retract(announced);
        }
    }
}

fn one_wake_each(epoch: u32, waiter: u32, publications: u32) {
    loom::model(move || {
        let shared = Shared::new(epoch, waiter);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (1..=publications).for_each(|value| shared.publish(value)))
        };
        shared.wait_for(publications);
        notifier.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost() {
    one_wake_each(0, 0, 1);
}

#[test]
fn no_wake_up_is_lost_among_several_publications() {
    one_wake_each(0, 0, 2);
}

#[test]
fn the_epoch_may_wrap() {
    one_wake_each(u32::MAX - 1, 0, 1);
}

#[test]
fn a_dead_waiters_announcement_does_no_harm() {
    // On the current epoch, and on an old one.
    one_wake_each(4, 5, 1);
    one_wake_each(4, 3, 1);
}

#[test]
fn two_sides_can_sleep_in_turn() {
    loom::model(|| {
        let (ping, pong) = (Shared::new(0, 0), Shared::new(0, 0));
        let other = {
            let (ping, pong) = (Arc::clone(&ping), Arc::clone(&pong));
            thread::spawn(move || {
                ping.wait_for(1);
                pong.publish(1);
            })
        };
        ping.publish(1);
        pong.wait_for(1);
        other.join().unwrap();
    });
}

#[test]
fn a_waiter_is_woken_in_the_manner_of_its_last_announcement() {
    bounded(|| {
        let shared = Shared::new(0, 0);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || [1, 2].map(|value| shared.publish(value)))
        };
        shared.wait_by(1, Manner::STRATEGY);
        shared.wait_by(2, Manner::FUTEX);
        notifier.join().unwrap();
    });
}

#[test]
fn a_doorbell_rings_for_its_own_announcement() {
    bounded(|| {
        let shared = Shared::new(0, 0);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || [1, 2].map(|value| shared.publish(value)))
        };
        shared.wait_by(1, Manner::STRATEGY);
        while shared.published.load(Ordering::Acquire) < 2 {
            let announced = shared.event().announce(Manner::doorbell(1));
            if shared.published.load(Ordering::Acquire) < 2 {
                shared.futex.await_doorbell(&shared.epoch, announced.epoch());
            }
            shared.event().retract(announced);
        }
        notifier.join().unwrap();
    });
}

#[test]
fn a_notifier_without_a_fence_spends_no_wake_up_in_the_wrong_manner() {
    loom::model(|| {
        let shared = Shared::new(0, 0);
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.published.store(1, Ordering::Release);
                shared.event().notify_fenced(&shared.futex);
                shared.event().notify(&shared.futex);
            })
        };
        shared.wait_by(1, Manner::doorbell(5));
        notifier.join().unwrap();
    });
}

#[test]
fn one_who_is_watched_hears_the_news_without_having_announced_a_wait() {
    loom::model(|| {
        let shared = Shared::new(0, 0);
        let teller = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.news.store(1, Ordering::Release);
                shared.event().tell(&shared.futex);
            })
        };
        let epoch = shared.event().watch(Manner::FUTEX);
        if shared.news.load(Ordering::Acquire) == 0 {
            shared.futex.sleep(&shared.epoch, epoch, Manner::FUTEX);
            // As `Hold` does, to find out that it moved on.
            assert_ne!(shared.epoch.load(Ordering::Acquire), epoch);
        }
        assert_eq!(shared.news.load(Ordering::Acquire), 1);
        teller.join().unwrap();
    });
}

#[test]
fn news_also_reach_one_who_waits_for_something_else() {
    loom::model(|| {
        let shared = Shared::new(0, 0);
        let teller = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.news.store(1, Ordering::Release);
                shared.event().tell(&shared.futex);
            })
        };
        while shared.news.load(Ordering::Acquire) == 0 {
            let announced = shared.event().announce(Manner::STRATEGY);
            if shared.news.load(Ordering::Acquire) == 0 {
                shared.futex.sleep(&shared.epoch, announced.epoch(), Manner::STRATEGY);
            }
            shared.event().retract(announced);
        }
        teller.join().unwrap();
    });
}
