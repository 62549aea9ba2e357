//! What the operations of a ring cost in one process, on one thread: no waiting, no traffic between cores; and what joining and
//! recovering a ring of many costs, by its size.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../src/sys/child.rs"]
mod child;

use child::Child;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway::segment::{Name, remove};
use ringway::spsc::{Consumer, Producer};
use ringway::transport::Target;
use ringway::{Address, Options, recover, spsc};
use std::hint::black_box;
use std::time::{Duration, Instant};

const SIZES: [usize; 2] = [64, 1024];
const BATCH: usize = 32;

fn ring() -> (Producer, Consumer) {
    spsc::channel(&Options::new()).unwrap()
}

/// Reserve, commit, receive, release; the payload is touched at its first byte only.
fn in_place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in place");
    for size in SIZES {
        let (mut producer, mut consumer) = ring();
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size} B"), |bencher| {
            bencher.iter(|| {
                let mut grant = producer.try_reserve(size).unwrap();
                grant[0] = 1;
                grant.commit(size);
                black_box(consumer.try_recv().unwrap()[0])
            });
        });
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("{size} B, batches of {BATCH}"), |bencher| {
            bencher.iter(|| {
                let mut batch = producer.batch();
                for _ in 0..BATCH {
                    let mut grant = batch.try_reserve(size).unwrap();
                    grant[0] = 1;
                    grant.commit(size);
                }
                batch.publish();
                let mut received = consumer.try_recv_batch(BATCH).unwrap();
                (&mut received).into_iter().for_each(|message| {
                    black_box(message[0]);
                });
            });
        });
    }
}

/// Copies in and out, through a segment as other processes would share it.
fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copies");
    for size in SIZES {
        let address: Address = format!("anon:bench-{size}").parse().unwrap();
        let mut sender = Options::new().sender(&address).unwrap();
        let mut receiver = Options::new().receiver(&address).unwrap();
        let message = vec![1; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("{size} B"), |bencher| {
            bencher.iter(|| {
                sender.try_send(&message).unwrap();
                black_box(receiver.try_recv().unwrap()[0])
            });
        });
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("{size} B, batches of {BATCH}"), |bencher| {
            bencher.iter(|| {
                sender.send_many((0..BATCH).map(|_| &message)).unwrap();
                receiver
                    .recv_many(BATCH, |bytes, _| {
                        black_box(bytes[0]);
                    })
                    .unwrap()
            });
        });
    }
}

/// A ring with one lane of so many slots, removed at the end.
struct Lane {
    address: Address,
    slots: usize,
}

const SLOTS: [usize; 4] = [1 << 10, 1 << 12, 1 << 14, 1 << 16];

impl Lane {
    fn new(slots: usize) -> Self {
        let capacity = slots * 64;
        let name = format!("ringway-bench-{}", std::process::id());
        let options = format!("ring=mpmc&producers=1&max_message=64&capacity={capacity}&persist=yes");
        Self { address: format!("shm:///{name}?{options}").parse().unwrap(), slots }
    }

    fn name(&self) -> &Name {
        let Target::Segment(name) = self.address.target() else { unreachable!() };
        name
    }

    /// Leaves as many messages in the hands of a dead consumer as there are slots.
    fn hold_all_and_die(&self) {
        let mut sender = Options::new().keep_open(true).sender(&self.address).unwrap();
        (0..self.slots).for_each(|_| _ = sender.send(b"held").unwrap());
        let mut child = Child::fork(|tell| {
            // SAFETY: only this benchmark's processes have the ring, and they use nothing but ringway's endpoints.
            let trusted = unsafe { Options::new().assume_trusted_peers() };
            let consumer = trusted.mpmc_consumer(&self.address).unwrap();
            let _held: Vec<_> = (0..self.slots).map(|_| consumer.try_recv().unwrap()).collect();
            tell.say(b'h');
            tell.sleep_until_killed()
        });
        child.expect(b'h');
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = remove(self.name());
    }
}

/// The time of `work` alone.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let answer = work();
    (start.elapsed(), answer)
}

/// Joining a ring that is there, in either role.
fn mpmc_attach(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mpmc_attach");
    for slots in SLOTS {
        let lane = Lane::new(slots);
        drop(Options::new().sender(&lane.address).unwrap());
        let options = Options::new().existing();
        group.bench_function(BenchmarkId::new("sender", slots), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| timed(|| options.sender(&lane.address).unwrap()).0).sum());
        });
        group.bench_function(BenchmarkId::new("receiver", slots), |bencher| {
            bencher
                .iter_custom(|rounds| (0..rounds).map(|_| timed(|| options.receiver(&lane.address).unwrap()).0).sum());
        });
    }
}

/// Taking back all messages of a ring from a dead consumer, the opening of the ring included.
fn mpmc_recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mpmc_recovery");
    group.sample_size(10);
    for slots in SLOTS {
        group.throughput(Throughput::Elements(slots as u64));
        group.bench_function(BenchmarkId::from_parameter(slots), |bencher| {
            bencher.iter_custom(|rounds| {
                let recovered = (0..rounds).map(|_| {
                    let lane = Lane::new(slots);
                    lane.hold_all_and_die();
                    let (time, recovery) = timed(|| recover(lane.name()).unwrap());
                    assert_eq!((recovery.deaths, recovery.redelivered), (1, slots as u64));
                    time
                });
                recovered.sum()
            });
        });
    }
}

criterion_group!(benches, in_place, copies, mpmc_attach, mpmc_recovery);
criterion_main!(benches);
