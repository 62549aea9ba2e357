//! The SPSC ring under every interleaving and every outcome of its orderings that loom knows.
//!
//! A ring of eight words. Each word is an atomic, as in production; beside it lies a cell that stands for the same bytes
//! as payload, in which loom sees every access that is not ordered by the protocol.

#![cfg(ringway_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use ringway::ring::spsc::{Bounds, Cursor, Next, Reader, Record, Reservation, Resume, Words, Writer};

const CAPACITY: u64 = 64;
const BOUNDS: Bounds = Bounds { capacity: CAPACITY, max_message: CAPACITY / 2 - 16 };

struct Memory {
    words: Vec<AtomicU64>,
    payload: Vec<UnsafeCell<u64>>,
    cursor: Cursor,
    /// The producer's tenure: 1 once it has left.
    left: AtomicU64,
}

#[derive(Clone)]
struct Ring(Arc<Memory>);

// SAFETY: the cells are what loom watches; it panics on any access that is not ordered.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Words for Ring {
    fn word(&self, position: u64) -> &AtomicU64 {
        &self.0.words[index(position)]
    }

    fn cursor(&self) -> &Cursor {
        &self.0.cursor
    }
}

fn index(position: u64) -> usize {
    (position % CAPACITY / 8) as usize
}

impl Ring {
    /// An empty ring whose next record is at `origin`.
    fn at(origin: u64) -> Self {
        let words = (0..CAPACITY / 8).map(|_| AtomicU64::new(0)).collect();
        let payload = (0..CAPACITY / 8).map(|_| UnsafeCell::new(0)).collect();
        let cursor = Cursor { taken: AtomicU64::new(origin), released: AtomicU64::new(origin) };
        Self(Arc::new(Memory { words, payload, cursor, left: AtomicU64::new(0) }))
    }

    fn writer(&self) -> Writer<Self> {
        Writer::resume(self.clone(), BOUNDS).unwrap()
    }

    fn reader(&self) -> Reader<Self> {
        Reader::resume(self.clone(), BOUNDS, Resume::Released).unwrap()
    }

    /// Fills the payload with copies of a value that as a header word would be a valid message of 8 bytes.
    fn fill(&self, reservation: Reservation, value: u64) {
        for position in payload(reservation.position(), reservation.length()) {
            // SAFETY: loom checks that nobody else accesses it now.
            self.0.payload[index(position)].with_mut(|cell| unsafe { *cell = forged(value) });
            self.0.words[index(position)].store(forged(value), Ordering::Relaxed);
        }
    }

    /// Checks that the payload is what `fill` made of `value`, both ways.
    fn expect(&self, record: &Record, value: u64) {
        for position in payload(record.position, record.length()) {
            // SAFETY: loom checks that nobody else writes it now.
            let cell = self.0.payload[index(position)].with(|cell| unsafe { *cell });
            assert_eq!(cell, forged(value));
            assert_eq!(self.0.words[index(position)].load(Ordering::Relaxed), forged(value));
        }
    }
}

/// The positions of a payload's words, behind its header.
fn payload(record: u64, length: u64) -> impl Iterator<Item = u64> {
    (record + 8..record + 8 + length).step_by(8)
}

fn forged(value: u64) -> u64 {
    value << 32 | 8 << 2 | 1
}

fn send(ring: &Ring, writer: &mut Writer<Ring>, length: u64, value: u64) {
    let reservation = loop {
        match writer.reserve(length).unwrap() {
            Some(reservation) => break reservation,
            None => thread::yield_now(),
        }
    };
    ring.fill(reservation, value);
    writer.commit(reservation, length, value as u32);
}

fn receive(ring: &Ring, reader: &mut Reader<Ring>, length: u64, value: u64) {
    let record = loop {
        match reader.take().unwrap() {
            Some(record) => break record,
            None => thread::yield_now(),
        }
    };
    assert_eq!((record.length(), record.tag()), (length, value as u32));
    ring.expect(&record, value);
    reader.release(record.end);
}

/// One side sends messages of these lengths, the other receives them; the ring begins at `origin`.
fn stream(origin: u64, lengths: &'static [u64]) {
    loom::model(move || {
        let ring = Ring::at(origin);
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for (value, &length) in (1..).zip(lengths) {
                    send(&ring, &mut writer, length, value);
                }
            })
        };
        for (value, &length) in (1..).zip(lengths) {
            receive(&ring, &mut reader, length, value);
        }
        producer.join().unwrap();
        assert!(matches!(reader.take(), Ok(None)));
    });
}

#[test]
fn messages_arrive_whole_and_in_order() {
    stream(0, &[8, 0, 16]);
}

#[test]
fn a_message_that_does_not_fit_into_the_lap_starts_the_next() {
    // A pad of one word, and of two, where the positions pass 2^32 and 2^35.
    stream((1 << 32) - 8, &[8, 8]);
    stream((1 << 35) - 16, &[16, 8]);
}

#[test]
fn a_full_ring_is_not_overwritten() {
    // Three of them fill it; the fourth has to wait, and lies where the first was.
    stream(0, &[8, 8, 8, 8]);
}

#[test]
fn stale_payload_is_never_a_header() {
    // The second lap's headers fall on the first lap's payload.
    stream(8, &[16, 0, 16, 0, 8]);
}

#[test]
fn a_shrunk_message_ends_where_it_was_cut() {
    loom::model(|| {
        let ring = Ring::at(0);
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let reservation = writer.reserve(16).unwrap().unwrap();
                ring.fill(reservation, 1);
                writer.commit(reservation, 8, 1);
                let aborted = writer.reserve(8).unwrap().unwrap();
                ring.fill(aborted, 9);
                send(&ring, &mut writer, 0, 2);
            })
        };
        receive(&ring, &mut reader, 8, 1);
        receive(&ring, &mut reader, 0, 2);
        producer.join().unwrap();
        assert!(matches!(reader.take(), Ok(None)));
    });
}

/// A batch is seen whole or not at all.
fn batch(origin: u64) {
    loom::model(move || {
        let ring = Ring::at(origin);
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for value in [1, 2] {
                    let reservation = writer.reserve(8).unwrap().unwrap();
                    ring.fill(reservation, value);
                    writer.commit_in_batch(reservation, 8, value as u32);
                }
                assert!(writer.publish());
            })
        };
        receive(&ring, &mut reader, 8, 1);
        let second = reader.take().unwrap().expect("the batch was published as one");
        ring.expect(&second, 2);
        reader.release(second.end);
        assert!(matches!(reader.take(), Ok(None)));
        producer.join().unwrap();
    });
}

#[test]
fn a_batch_is_published_at_once() {
    batch(0);
    // With a pad before its first message, and before its second.
    batch(56);
    batch(40);
}

#[test]
fn nothing_is_lost_when_the_producer_leaves() {
    loom::model(|| {
        let ring = Ring::at(0);
        let (mut writer, mut reader) = (ring.writer(), ring.reader());
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                send(&ring, &mut writer, 8, 1);
                // As a tenure: pairs with the load below.
                ring.0.left.store(1, Ordering::Release);
            })
        };
        let mut received = 0;
        loop {
            let ended = || ring.0.left.load(Ordering::Acquire) == 1;
            match reader.find_or_end(|reader| reader.take(), ended).unwrap() {
                Next::Found(record) => {
                    ring.expect(&record, 1);
                    received += 1;
                }
                Next::Nothing => thread::yield_now(),
                Next::End => break,
            }
        }
        assert_eq!(received, 1);
        producer.join().unwrap();
    });
}

#[test]
fn a_successor_goes_on_where_a_dead_producer_stopped() {
    loom::model(|| {
        let ring = Ring::at(48);
        let mut reader = ring.reader();
        let producers = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut first = ring.writer();
                send(&ring, &mut first, 0, 1);
                // Dies with one message built and a batch half made; the lock that its successor takes orders the two.
                let reservation = first.reserve(8).unwrap().unwrap();
                ring.fill(reservation, 9);
                first.commit_in_batch(reservation, 8, 9);
                drop(first);
                let mut second = ring.writer();
                send(&ring, &mut second, 16, 2);
            })
        };
        receive(&ring, &mut reader, 0, 1);
        receive(&ring, &mut reader, 16, 2);
        producers.join().unwrap();
        assert!(matches!(reader.take(), Ok(None)));
    });
}

#[test]
fn a_successor_receives_again_what_a_dead_consumer_held() {
    loom::model(|| {
        let ring = Ring::at(0);
        let mut writer = ring.writer();
        let producer = {
            let ring = ring.clone();
            thread::spawn(move || {
                send(&ring, &mut writer, 8, 1);
                send(&ring, &mut writer, 8, 2);
            })
        };
        let mut first = ring.reader();
        let held = loop {
            match first.take().unwrap() {
                Some(record) => break record,
                None => thread::yield_now(),
            }
        };
        drop(first);
        let mut second = ring.reader();
        assert!(second.is_redelivered(held.position));
        receive(&ring, &mut second, 8, 1);
        assert!(!second.is_redelivered(held.end));
        receive(&ring, &mut second, 8, 2);
        producer.join().unwrap();
    });
}
