use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::members::MOST;
use super::*;
use crate::primitive::AtomicU32;
use crate::sys::child::Child;
use crate::sys::doorbell::{self, Name};
use crate::wait::blocking::SLICE;
use crate::wait::event::{self, Announced, Sleep};
use crate::wait::manner::{How, Manner};
use crate::wait::waitable::Watched;
use crate::wait::watch::{Side, Watch, Words};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a ring shares: a number of messages, or of places, and whoever waits for them.
#[derive(Debug, Default)]
struct Shared {
    things: AtomicU32,
    epoch: AtomicU32,
    waiter: AtomicU32,
    manner: AtomicU32,
    deaths: AtomicU64,
    number: u64,
}

impl Shared {
    fn event(&self) -> event::Event<'_> {
        event::Event { epoch: &self.epoch, waiter: &self.waiter, manner: &self.manner }
    }

    /// As a peer does it.
    fn publish(&self) {
        self.things.fetch_add(1, Ordering::Release);
        self.event().notify(Bell(self));
    }

    /// As a peer that joins or leaves.
    fn tell(&self) {
        self.event().tell(Bell(self));
    }

    fn name(&self) -> (u64, u32) {
        (self.number, std::process::id())
    }
}

/// Wakes as a ring of a strategy without descriptors does.
#[derive(Clone, Copy)]
struct Bell<'a>(&'a Shared);

impl Sleep for Bell<'_> {
    fn wake(self, epoch: &AtomicU32, manner: Manner) {
        let (ring, member) = self.0.name();
        match manner.how() {
            How::Doorbell => doorbell::ring(Name { ring, member, number: manner.number() }),
            How::Strategy | How::Futex => drop(futex::wake(epoch, 1)),
        }
    }
}

/// What endpoints do.
struct Endpoint {
    shared: Arc<Shared>,
    side: Side,
    watch: Option<Arc<Watch>>,
    announced: Option<Announced>,
}

impl Endpoint {
    fn new(side: Side) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Relaxed: they only have to differ.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::new(Shared { number, ..Shared::default() }), side, watch: None, announced: None }
    }

    fn receiver() -> Self {
        Self::new(Side::Receiver)
    }

    /// Takes one, if there is one.
    fn take(&self) -> bool {
        let one_less = |things: u32| things.checked_sub(1);
        self.shared.things.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_less).is_ok()
    }

    /// Takes one, or arms itself.
    fn try_take(&mut self) -> bool {
        let watch = Arc::clone(self.watch.as_ref().expect("it is watched"));
        if self.announced.is_none() && self.take() {
            return true;
        }
        watch.take_suspicion();
        watch.clear();
        let event = self.shared.event();
        let announced = event.announce(watch.manner());
        if self.take() {
            event.retract(announced);
            self.announced = None;
            watch.release();
            return true;
        }
        watch.hold(announced.epoch(), false);
        self.announced = Some(announced);
        false
    }

    fn drain(&mut self) -> usize {
        std::iter::repeat_with(|| self.try_take()).take_while(|&took| took).count()
    }
}

impl Watched for Endpoint {
    fn watch(&mut self) -> crate::error::Result<Arc<Watch>> {
        let shared = Arc::clone(&self.shared);
        let watch = self.watch.get_or_insert_with(|| {
            let epoch = shared.event().watch(Manner::FUTEX);
            // SAFETY: the words are kept.
            let words =
                unsafe { Words::new((&shared.epoch, &shared.manner), shared.name(), None, Arc::clone(&shared) as _) };
            // Relaxed: a test's own number.
            Arc::new(Watch::of_ring(self.side, words, epoch, Box::new(move |_| shared.deaths.load(Ordering::Relaxed))))
        });
        Ok(Arc::clone(watch))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.close();
        }
    }
}

/// Runs it with a set of each way.
fn both_ways(test: impl Fn(WaitSet)) {
    test(WaitSet::new().unwrap());
    let set = WaitSet::new().unwrap();
    set.turn_to_descriptors(&mut set.lock()).unwrap();
    test(set);
}

fn tokens(events: &Events) -> Vec<usize> {
    let mut tokens: Vec<usize> = events.iter().map(Event::token).collect();
    tokens.sort_unstable();
    tokens
}

/// What is told without sleeping.
fn told(set: &WaitSet) -> Vec<usize> {
    let mut events = Events::with_capacity(200);
    set.wait_timeout(&mut events, Duration::ZERO).unwrap();
    tokens(&events)
}

fn wait(set: &WaitSet, events: &mut Events) -> Vec<usize> {
    set.wait_timeout(events, PATIENCE).unwrap();
    tokens(events)
}

/// Returns once `count` threads sleep in the set, or are about to.
fn await_waiters(set: &WaitSet, count: usize) {
    while format!("{:?}", set.core.control()).split("waiters: ").nth(1).unwrap() != format!("{count} }}") {
        thread::yield_now();
    }
}

#[test]
fn a_receiver_is_told_until_it_is_drained() {
    both_ways(|set| {
        let mut receivers = [Endpoint::receiver(), Endpoint::receiver()];
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
        }
        assert_eq!(told(&set), [0, 1]);
        assert_eq!(told(&set), [0, 1]);
        assert_eq!(receivers[0].drain(), 0);
        assert_eq!(told(&set), [1]);
        assert_eq!(receivers[1].drain(), 0);
        assert_eq!(told(&set), []);
        for _ in 0..3 {
            receivers[1].shared.publish();
        }
        assert_eq!(told(&set), [1]);
        assert!(receivers[1].try_take());
        assert_eq!(told(&set), [1]);
        assert_eq!(receivers[1].drain(), 2);
        assert_eq!(told(&set), []);
        receivers[0].shared.tell();
        assert_eq!(told(&set), [0]);
    });
}

#[test]
fn a_sender_is_told_each_change_once() {
    both_ways(|set| {
        let mut sender = Endpoint::new(Side::Sender);
        set.add(5, &mut sender).unwrap();
        assert_eq!(told(&set), []);
        sender.shared.publish();
        assert_eq!(told(&set), [], "it has not asked for room");
        for _ in 0..100 {
            sender.shared.tell();
            assert_eq!(told(&set), [5]);
            assert_eq!(told(&set), []);
        }
        assert_eq!(sender.drain(), 1);
        // Nothing more was announced since.
        told(&set);
        assert_eq!(sender.drain(), 0);
        assert_eq!(told(&set), []);
        sender.shared.publish();
        assert_eq!(told(&set), [5]);
        assert_eq!(told(&set), []);
    });
}

#[test]
fn whatever_is_published_is_heard_of() {
    const ROUNDS: usize = 3000;
    both_ways(|set| {
        let mut receivers: Vec<Endpoint> = (0..3).map(|_| Endpoint::receiver()).collect();
        let shared: Vec<Arc<Shared>> = receivers.iter().map(|receiver| Arc::clone(&receiver.shared)).collect();
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
        }
        let received = AtomicUsize::new(0);
        thread::scope(|scope| {
            for shared in &shared {
                let received = &received;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        shared.publish();
                        // In turns with the other side, so that it sleeps most of the time.
                        while round % 2 == 0 && received.load(Ordering::Relaxed) < round {
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut events = Events::with_capacity(2);
            while received.load(Ordering::Relaxed) < 3 * ROUNDS {
                let tokens = wait(&set, &mut events);
                assert_ne!(tokens, [], "a wake-up was lost");
                for token in tokens {
                    received.fetch_add(receivers[token].drain(), Ordering::Relaxed);
                }
            }
        });
    });
}

#[test]
fn nothing_that_is_always_ready_starves_others() {
    both_ways(|set| {
        // None of them is ever drained.
        let mut receivers: Vec<Endpoint> = (0..5).map(|_| Endpoint::receiver()).collect();
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
        }
        set.add_timer(5, Instant::now(), Some(Duration::from_nanos(1))).unwrap();
        let mut counts = [0_usize; 6];
        for _ in 0..200 {
            let mut events = Events::with_capacity(1);
            counts[wait(&set, &mut events)[0]] += 1;
        }
        assert!(counts[..5].iter().all(|&count| count >= 19), "{counts:?}");
        assert!(counts[5] >= 90, "{counts:?}");
    });
}

#[test]
fn what_changes_while_one_waits_is_seen_at_once() {
    both_ways(|set| {
        // The only endpoint: without one there are no slices that would make up for a lost wake-up.
        let mut receiver = Endpoint::receiver();
        let wait = || wait(&set, &mut Events::with_capacity(4));
        thread::scope(|scope| {
            let waiting = scope.spawn(wait);
            await_waiters(&set, 1);
            set.add(2, &mut receiver).unwrap();
            assert_eq!(waiting.join().unwrap(), [2]);
            receiver.drain();

            let waiting = scope.spawn(wait);
            await_waiters(&set, 1);
            assert!(set.remove(2));
            receiver.shared.publish();
            set.add_timer(3, Instant::now(), None).unwrap();
            assert_eq!(waiting.join().unwrap(), [3]);

            let waiting = scope.spawn(wait);
            await_waiters(&set, 1);
            set.waker().wake();
            assert_eq!(waiting.join().unwrap(), []);

            let waiting = scope.spawn(wait);
            await_waiters(&set, 1);
            let (reader, writer) = descriptor::pipe().unwrap();
            set.add_descriptor(4, &writer, Interest::WRITABLE).unwrap();
            assert_eq!(waiting.join().unwrap(), [4]);
            assert!(set.remove(4));
            drop(writer);
            assert_eq!(descriptor::read(reader.as_fd(), &mut [0]).unwrap(), 0, "the duplicate is still open");
        });
        assert!(!set.remove(2) && !set.remove(3) && !set.remove(4));
    });
}

#[test]
fn one_that_becomes_ready_in_another_thread_is_told() {
    both_ways(|set| {
        let mut receiver = Endpoint::receiver();
        set.add(1, &mut receiver).unwrap();
        receiver.drain();
        for _ in 0..200 {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| wait(&set, &mut Events::with_capacity(4)));
                await_waiters(&set, 1);
                receiver.watch.as_ref().unwrap().release();
                assert_eq!(waiting.join().unwrap(), [1]);
            });
            receiver.drain();
        }
    });
}

#[test]
fn an_endpoint_that_is_dropped_leaves_its_set() {
    both_ways(|set| {
        let mut stays = Endpoint::receiver();
        let mut goes = Endpoint::receiver();
        set.add(1, &mut goes).unwrap();
        set.add(2, &mut stays).unwrap();
        stays.drain();
        let shared = Arc::downgrade(&goes.shared);
        drop(goes);
        assert!(!set.remove(1));
        assert_eq!(told(&set), []);
        assert_eq!(shared.strong_count(), 0, "it is still held");
        stays.shared.publish();
        assert_eq!(told(&set), [2]);

        let mut goes = Endpoint::receiver();
        set.add(1, &mut goes).unwrap();
        let shared = Arc::downgrade(&goes.shared);
        drop(goes);
        // Nobody has looked meanwhile.
        set.add(1, &mut Endpoint::receiver()).unwrap();
        assert_eq!(shared.strong_count(), 0, "it is still held");
        drop(set);
        WaitSet::new().unwrap().add(0, &mut stays).unwrap();
    });
}

#[test]
fn tokens_and_endpoints_are_taken_once() {
    both_ways(|set| {
        let mut receiver = Endpoint::receiver();
        set.add(1, &mut receiver).unwrap();
        set.add_timer(2, Instant::now() + PATIENCE, None).unwrap();
        let mut another = Endpoint::receiver();
        for token in [1, 2] {
            let error = set.add(token, &mut another).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("token {token}")), "{error}");
            assert_eq!(set.add_timer(token, Instant::now(), None).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let other_set = WaitSet::new().unwrap();
        for set in [&set, &other_set] {
            assert_eq!(set.add(3, &mut receiver).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(set.remove(1) && set.remove(2));
        other_set.add(3, &mut receiver).unwrap();
        set.add(1, &mut another).unwrap();
    });
}

#[test]
fn a_file_is_refused() {
    let set = WaitSet::new().unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = set.add_descriptor(1, &file, Interest::READABLE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    set.add_timer(1, Instant::now(), None).unwrap();
    assert_eq!(told(&set), [1]);
}

#[test]
fn one_too_many_for_the_kernel_turns_the_set_to_descriptors() {
    let set = WaitSet::new().unwrap();
    let mut receivers: Vec<Endpoint> = (0..=MOST).map(|_| Endpoint::receiver()).collect();
    let (last, first) = receivers.split_last_mut().unwrap();
    for (token, receiver) in first.iter_mut().enumerate() {
        set.add(token, receiver).unwrap();
        receiver.drain();
    }
    assert!(set.epoll.get().is_none());
    let mut events = Events::with_capacity(4);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&set, &mut events));
        await_waiters(&set, 1);
        first[MOST - 1].shared.publish();
        assert_eq!(waiting.join().unwrap(), [MOST - 1]);
    });
    assert_eq!(first[MOST - 1].drain(), 1);

    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // Those that were added before are told for nothing, since their descriptors are new.
            while !wait(&set, &mut events).contains(&MOST) {}
        });
        await_waiters(&set, 1);
        set.add(MOST, last).unwrap();
        waiting.join().unwrap();
    });
    assert!(set.epoll.get().is_some());
    receivers.iter_mut().for_each(|receiver| assert_eq!(receiver.drain(), 0));
    assert_eq!(told(&set), []);
    receivers[3].shared.publish();
    assert_eq!(told(&set), [3]);
}

#[test]
fn a_member_that_gets_a_descriptor_turns_a_sleeping_set_to_descriptors() {
    let set = WaitSet::new().unwrap();
    let mut receivers = [Endpoint::receiver(), Endpoint::receiver()];
    for (token, receiver) in receivers.iter_mut().enumerate() {
        set.add(token, receiver).unwrap();
        receiver.drain();
    }
    let watch = receivers[0].watch().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&set, &mut Events::with_capacity(4)));
        await_waiters(&set, 1);
        watch.descriptor().unwrap();
        assert!(waiting.join().unwrap().contains(&0));
    });
    told(&set);
    assert!(set.epoll.get().is_some());
    receivers.iter_mut().for_each(|receiver| assert_eq!(receiver.drain(), 0));
    assert_eq!(told(&set), []);
    receivers[0].shared.publish();
    assert_eq!(told(&set), [0]);
}

#[test]
fn several_threads_can_wait() {
    both_ways(|set| {
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| wait(&set, &mut Events::with_capacity(1)))).collect();
            await_waiters(&set, 3);
            // Each one goes to one thread.
            let now = Instant::now();
            set.add_timer(1, now, None).unwrap();
            await_waiters(&set, 2);
            set.add_timer(2, now + Duration::from_millis(20), None).unwrap();
            await_waiters(&set, 1);
            set.waker().wake();
            let mut all: Vec<usize> = waiting.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2]);
        });
    });
}

#[test]
fn wakers_add_up_to_one_and_may_be_forgotten() {
    both_ways(|set| {
        let waker = set.waker();
        waker.clone().wake();
        waker.wake();
        assert_eq!(wait(&set, &mut Events::with_capacity(1)), []);
        assert!(!set.core.take_wake());
        let mut receiver = Endpoint::receiver();
        set.add(0, &mut receiver).unwrap();
        waker.wake();
        assert_eq!(wait(&set, &mut Events::with_capacity(1)), [0], "a wake hides what is ready");
        drop(set);
        waker.wake();
        // The waker keeps the member in no set.
        WaitSet::new().unwrap().add(0, &mut receiver).unwrap();
    });
}

#[test]
fn deaths_are_found_by_looking_and_told_once() {
    both_ways(|set| {
        let mut endpoints: Vec<Endpoint> = (0..MOST).map(|_| Endpoint::receiver()).collect();
        for (token, endpoint) in endpoints.iter_mut().enumerate() {
            set.add(token, endpoint).unwrap();
            endpoint.drain();
        }
        let mut events = Events::with_capacity(4);
        for dead in [0, MOST - 1, 7] {
            // Relaxed: a test's own number.
            endpoints[dead].shared.deaths.fetch_add(1, Ordering::Relaxed);
            assert_eq!(wait(&set, &mut events), [dead]);
            assert_eq!(endpoints[dead].drain(), 0);
            assert_eq!(told(&set), []);
        }
    });
}

#[test]
fn a_ring_that_a_killed_peer_owed_is_found_by_looking() {
    both_ways(|set| {
        let mut receiver = Endpoint::receiver();
        set.add(1, &mut receiver).unwrap();
        receiver.drain();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&set, &mut Events::with_capacity(1)));
            await_waiters(&set, 1);
            receiver.shared.things.fetch_add(1, Ordering::Relaxed);
            receiver.shared.epoch.fetch_add(2, Ordering::Release);
            assert_eq!(waiting.join().unwrap(), [1]);
        });
    });
}

#[test]
fn timers_are_never_early_and_deadlines_neither() {
    both_ways(|set| {
        let mut events = Events::with_capacity(4);
        let begun = Instant::now();
        assert_eq!(set.wait_timeout(&mut events, Duration::from_millis(5)).unwrap(), 0);
        assert!(begun.elapsed() >= Duration::from_millis(5));
        let deadline = Instant::now() + 2 * SLICE;
        let mut receiver = Endpoint::receiver();
        set.add(9, &mut receiver).unwrap();
        receiver.drain();
        assert_eq!(set.wait_deadline(&mut events, deadline).unwrap(), 0);
        assert!(Instant::now() >= deadline);
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        set.add_timer(2, after(12), None).unwrap();
        set.add_timer(1, after(7), Some(Duration::from_millis(100))).unwrap();
        assert_eq!(wait(&set, &mut events)[0], 1);
        assert!(Instant::now() >= after(7));
        assert_eq!(wait(&set, &mut events), [2]);
        assert!(Instant::now() >= after(12));
        assert_eq!(wait(&set, &mut events), [1]);
        assert!(Instant::now() >= after(107));
    });
}

#[test]
fn a_forked_child_is_refused_and_does_no_harm() {
    both_ways(|set| {
        let (reader, writer) = descriptor::pipe().unwrap();
        let mut receiver = Endpoint::receiver();
        set.add(1, &mut receiver).unwrap();
        receiver.drain();
        if set.epoll.get().is_some() {
            set.add_descriptor(2, &reader, Interest::READABLE).unwrap();
        }
        let mut set = Some(set);
        Child::fork(|_| {
            let set = set.take().unwrap();
            let mut events = Events::with_capacity(1);
            let refused = |error: Error| {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("forked"), "{error}");
            };
            refused(set.wait_timeout(&mut events, Duration::ZERO).unwrap_err());
            refused(set.add_timer(3, Instant::now(), None).unwrap_err());
            refused(set.add(4, &mut Endpoint::receiver()).unwrap_err());
            refused(set.add_descriptor(5, &reader, Interest::READABLE).unwrap_err());
            assert!(!set.remove(1) && !set.remove(2));
            set.waker().wake();
            drop(set);
        })
        .expect_success();
        let set = set.unwrap();
        assert_eq!(told(&set), []);
        let expected: &[usize] = if set.epoll.get().is_some() { &[1, 2] } else { &[1] };
        receiver.shared.publish();
        descriptor::write(writer.as_fd(), &[std::io::IoSlice::new(b"x")], descriptor::Sink::Pipe).unwrap();
        assert_eq!(told(&set), expected);
    });
}

#[test]
fn an_idle_set_wakes_up_ten_times_a_second() {
    both_ways(|set| {
        let count = if set.epoll.get().is_some() { 100 } else { MOST };
        let mut receivers: Vec<Endpoint> = (0..count).map(|_| Endpoint::receiver()).collect();
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
            receiver.drain();
        }
        let sleeps = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse::<u64>().unwrap()
        };
        let before = sleeps();
        assert_eq!(set.wait_timeout(&mut Events::with_capacity(1), Duration::from_secs(1)).unwrap(), 0);
        let slept = sleeps() - before;
        assert!(slept <= 12, "{slept}");
    });
}
