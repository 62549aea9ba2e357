//! Waiting for an endpoint along with other things, under every interleaving: a lost wake-up is a deadlock, which loom reports.

#![cfg(ringway_loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ringway::wait::event::{Event, Sleep};
use ringway::wait::hold::{Control, Hold};
use ringway::wait::manner::Manner;

/// A futex on several words: compares them and falls asleep in one step, as the kernel does.
struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn sleep(&self, words: [(&AtomicU32, u32); 2]) {
        let queue = self.queue.lock().unwrap();
        if words.iter().all(|(word, expected)| word.load(Ordering::Relaxed) == *expected) {
            drop(self.woken.wait(queue).unwrap());
        }
    }

    fn wake_all(&self) {
        let _queue = self.queue.lock().unwrap();
        self.woken.notify_all();
    }
}

impl Sleep for &Futex {
    fn wake(self, _epoch: &AtomicU32, _manner: Manner) {
        self.wake_all();
    }
}

struct Shared {
    /// What the notifier publishes.
    published: AtomicU32,
    epoch: AtomicU32,
    waiter: AtomicU32,
    manner: AtomicU32,
    hold: Hold,
    control: Control,
    futex: Futex,
}

impl Shared {
    /// With an endpoint that has armed itself.
    fn held() -> Arc<Self> {
        Self::new(1, Hold::held(0))
    }

    fn new(waiter: u32, hold: Hold) -> Arc<Self> {
        Arc::new(Self {
            published: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            waiter: AtomicU32::new(waiter),
            manner: AtomicU32::new(0),
            hold,
            control: Control::new(),
            futex: Futex { queue: Mutex::new(()), woken: Condvar::new() },
        })
    }

    fn event(&self) -> Event<'_> {
        Event { epoch: &self.epoch, waiter: &self.waiter, manner: &self.manner }
    }

    fn publish(&self, value: u32) {
        self.published.store(value, Ordering::Release);
        self.event().notify(&self.futex);
    }

    /// As `Watch::release` does it.
    fn release(&self) {
        self.hold.release();
        if self.control.advance() {
            self.futex.wake_all();
        }
    }

    /// The endpoint looks for that value, and arms itself if it isn't there.
    fn try_receive(&self, value: u32) -> bool {
        let announced = self.event().announce(Manner::FUTEX);
        if self.published.load(Ordering::Acquire) >= value {
            self.event().retract(announced);
            self.release();
            return true;
        }
        self.hold.hold(announced.epoch());
        false
    }

    /// As `wait::set` does it, without slices: returns when the endpoint is to be told.
    fn wait(&self, mut is_ready: impl FnMut() -> Option<u32>) {
        self.control.enter();
        loop {
            let control = self.control.load();
            let Some(expected) = is_ready() else { break };
            self.futex.sleep([(self.control.word(), control), (&self.epoch, expected)]);
        }
        self.control.leave();
    }

    fn expected(&self) -> Option<u32> {
        self.hold.expected(&self.epoch)
    }
}

/// What is too much for loom without a bound, see `crowd`.
fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn what_is_published_is_told_until_it_is_received() {
    bounded(|| {
        let shared = Shared::new(0, Hold::ready());
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (1..=2).for_each(|value| shared.publish(value)))
        };
        let mut received = 0;
        while received < 2 {
            shared.wait(|| shared.expected());
            while shared.try_receive(received + 1) {
                received += 1;
            }
        }
        notifier.join().unwrap();
    });
}

#[test]
fn an_endpoint_of_another_thread_that_becomes_ready_by_itself_is_told() {
    loom::model(|| {
        let shared = Shared::held();
        let endpoint = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.release())
        };
        shared.wait(|| shared.expected());
        endpoint.join().unwrap();
    });
}

/// Whether it is the notifier or the endpoint itself by which there is something to tell.
#[test]
fn an_endpoint_of_another_thread_that_arms_itself_meanwhile_is_told() {
    bounded(|| {
        let shared = Shared::held();
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.publish(1))
        };
        let endpoint = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.try_receive(1))
        };
        shared.wait(|| shared.expected());
        notifier.join().unwrap();
        let _ = endpoint.join().unwrap();
    });
}

/// What was told once is not told again, and what comes then is.
#[test]
fn a_sender_is_told_each_change() {
    bounded(|| {
        let shared = Shared::held();
        let notifier = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (1..=2).for_each(|value| shared.publish(value)))
        };
        while shared.published.load(Ordering::Acquire) < 2 {
            // As one does that was told that there is no room.
            if shared.try_receive(2) {
                break;
            }
            shared.wait(|| shared.hold.told(&shared.epoch));
        }
        notifier.join().unwrap();
        shared.hold.told(&shared.epoch);
        assert!(shared.hold.told(&shared.epoch).is_some());
    });
}

/// A change of the set, as of its members.
#[test]
fn two_waiters_see_a_change() {
    bounded(|| {
        let shared = Shared::held();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.wait(|| shared.expected()))
        };
        let endpoint = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.release())
        };
        shared.wait(|| shared.expected());
        other.join().unwrap();
        endpoint.join().unwrap();
    });
}
