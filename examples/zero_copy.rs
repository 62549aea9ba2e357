//! Builds and reads messages in place, alone and in batches, between two threads.
//!
//! ```text
//! cargo run --release --example zero_copy
//! ```
//!
//! Between processes the endpoints are the same; they come from `Options::assume_trusted_peers`, whose contract says what
//! the other processes must not do.

use std::error::Error;
use std::thread;

use ringway::{Options, Profile, RecvError, spsc};

const SAMPLES: usize = 250;
const FRAMES: u32 = 10_000;
const BATCH: u32 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let (producer, consumer) = spsc::channel(&Options::new().profile(Profile::Latency))?;
    thread::scope(|scope| {
        let sent = scope.spawn(|| produce(producer));
        let received = consume(consumer)?;
        let sent = sent.join().expect("it does not panic")?;
        assert_eq!(received, sent);
        println!("the samples of {FRAMES} frames add up to {received} on both sides");
        Ok(())
    })
}

fn produce(mut producer: spsc::Producer) -> Result<u64, ringway::SendError> {
    // A frame alone is visible as soon as it is committed. It may turn out shorter than was reserved.
    let mut frame = producer.reserve(2 * SAMPLES * size_of::<u32>())?;
    let mut sum = fill(&mut frame, 0);
    frame.commit(SAMPLES * size_of::<u32>());

    // The frames of a batch become visible together, for the price of one publication.
    let mut number = 1;
    while number < FRAMES {
        let mut batch = producer.batch();
        for number in number..FRAMES.min(number + BATCH) {
            let mut frame = batch.reserve(SAMPLES * size_of::<u32>())?;
            sum += fill(&mut frame, number);
            frame.set_tag(number);
            frame.commit(SAMPLES * size_of::<u32>());
        }
        batch.publish();
        number += BATCH;
    }
    Ok(sum)
}

fn fill(frame: &mut [u8], number: u32) -> u64 {
    let samples = (number..).take(SAMPLES);
    for (place, sample) in frame.chunks_exact_mut(size_of::<u32>()).zip(samples.clone()) {
        place.copy_from_slice(&sample.to_le_bytes());
    }
    samples.map(u64::from).sum()
}

fn consume(mut consumer: spsc::Consumer) -> Result<u64, Box<dyn Error>> {
    let (mut sum, mut next) = (0, 0);
    loop {
        // Waits for one, then takes what has gathered; all of it is given back at once when the batch is dropped.
        let mut batch = match consumer.recv_batch(64) {
            Ok(batch) => batch,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        };
        for frame in &mut batch {
            assert_eq!((frame.tag(), frame.len()), (next, SAMPLES * size_of::<u32>()));
            next += 1;
            for sample in frame.chunks_exact(size_of::<u32>()) {
                sum += u64::from(u32::from_le_bytes(sample.try_into()?));
            }
        }
    }
    assert_eq!(next, FRAMES);
    Ok(sum)
}
