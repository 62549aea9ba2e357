//! What the operations of a ring cost in one process, on one thread: no waiting, no traffic between cores.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway::spsc::{Consumer, Producer};
use ringway::{Address, Options, spsc};
use std::hint::black_box;

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

criterion_group!(benches, in_place, copies);
criterion_main!(benches);
