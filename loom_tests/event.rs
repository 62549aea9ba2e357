//! Sleeping and waking under every interleaving: a lost wake-up is a deadlock, which loom reports.

#![cfg(ringway_loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::wait::event::{Event, Sleep};

/// A futex: compares and falls asleep in one step, as the kernel does under the lock of the word's queue.
struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn sleep(&self, epoch: &AtomicU32, expected: u32) {
        let queue = self.queue.lock().unwrap();
        if epoch.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
    }
}

impl Sleep for &Futex {
    fn wake(self, _epoch: &AtomicU32) {
        let _queue = self.queue.lock().unwrap();
        self.woken.notify_one();
    }
}

struct Shared {
    /// What the notifier publishes.
    published: AtomicU32,
    epoch: AtomicU32,
    waiter: AtomicU32,
    futex: Futex,
}

impl Shared {
    fn new(epoch: u32, waiter: u32) -> Arc<Self> {
        Arc::new(Self {
            published: AtomicU32::new(0),
            epoch: AtomicU32::new(epoch),
            waiter: AtomicU32::new(waiter),
            futex: Futex { queue: Mutex::new(()), woken: Condvar::new() },
        })
    }

    fn event(&self) -> Event<'_> {
        Event { epoch: &self.epoch, waiter: &self.waiter }
    }

    fn publish(&self, value: u32) {
        self.published.store(value, Ordering::Release);
        self.event().notify(&self.futex);
    }

    /// As `wait::blocking` does it, without slices: nothing but a wake ends a sleep.
    fn wait_for(&self, value: u32) {
        while self.published.load(Ordering::Acquire) < value {
            let announced = self.event().announce();
            if self.published.load(Ordering::Acquire) < value {
                self.futex.sleep(&self.epoch, announced.epoch());
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
