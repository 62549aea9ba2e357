//! Segments that no correct peer wrote: an error or a closed door, never a panic, a hang or a stray access.

mod common;

use common::payload::mix;
use common::{Kind, Random, Scratch, WAITS, alone};
use ringway::segment::Segment;
use ringway::{Address, Error, ErrorKind, Options, RecvError, SendError, Wait, inspect};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;
/// Where each side has its words, and where the messages begin; as the specification of the format says.
const PRODUCER: usize = PAGE;
const CONSUMER: usize = 2 * PAGE;
const DATA: usize = 4 * PAGE;
const TAKEN: usize = CONSUMER + 128;
const RELEASED: usize = CONSUMER + 136;
const POISONED: usize = 512;
const CAPACITY: usize = 4096;
const SHORT: Duration = Duration::from_millis(1);

fn path(scratch: &Scratch) -> &Path {
    let ringway::segment::Name::File(path) = scratch.name().unwrap() else { panic!("not a file") };
    path
}

/// The bytes of a ring with a few messages, given back in part, that nobody is attached to.
fn sound(wait: Wait) -> Vec<u8> {
    let scratch = Scratch::with(Kind::File, &format!("capacity=4KiB&wait={wait}"));
    let mut sender = Options::new().keep_open(true).sender(&scratch.address).unwrap();
    let mut receiver = scratch.receiver();
    for number in 0..20u64 {
        sender.send(&number.to_le_bytes()).unwrap();
    }
    for _ in 0..5 {
        receiver.recv().unwrap();
    }
    drop((sender, receiver));
    fs::read(path(&scratch)).unwrap()
}

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// Does everything with a file of these bytes that can be done; gives what opening it as a receiver came to.
fn use_all(bytes: &[u8]) -> Result<(), Error> {
    let scratch = Scratch::new(Kind::File);
    fs::write(path(&scratch), bytes).unwrap();
    let _ = inspect(scratch.name().unwrap());
    let existing = || Options::new().existing();
    let opened = existing().receiver(&scratch.address).map(|mut receiver| {
        // A ring of 4 KiB has at most 512 messages.
        for _ in 0..1000 {
            match receiver.try_recv() {
                Ok(message) => assert!(message.len() <= CAPACITY),
                Err(_) => break,
            }
        }
        let _ = receiver.recv_timeout(Duration::ZERO).map(|message| message.len());
    });
    if let Ok(mut sender) = existing().sender(&scratch.address) {
        for length in (0..300).chain([sender.max_message()]) {
            if sender.try_send(&vec![1; length]).is_err() {
                break;
            }
        }
        let _ = sender.send_timeout(b"x", Duration::ZERO);
    }
    let _ = inspect(scratch.name().unwrap());
    opened
}

#[test]
fn every_field_of_the_header_is_checked() {
    let _alone = alone();
    let sound = sound(Wait::Futex);
    use_all(&sound).unwrap();
    let broken = |at: usize, value: u64, bytes: usize| {
        let mut broken = sound.clone();
        broken[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        use_all(&broken).err().unwrap_or_else(|| panic!("{value:#x} at {at} was let through"))
    };
    use ErrorKind::{Damaged, InvalidInput, NewerVersion, NotARing};
    // Offset, bytes, a value, what it is.
    for (at, bytes, value, kind) in [
        (0, 8, 0, NotARing),
        (7, 1, 1, NotARing),
        (8, 4, 2, NewerVersion),
        (8, 4, 0, NewerVersion),
        (12, 4, 0xffff_ffff, Damaged),
        (16, 8, 1, Damaged),
        (16, 8, 1 << 63, NewerVersion),
        (32, 8, 0, Damaged),
        (32, 8, u64::MAX, Damaged),
        (40, 4, 2, Damaged),
        (40, 4, 3, NewerVersion),
        (44, 4, 7, NewerVersion),
        (44, 4, 2, Damaged),
        (44, 4, 3, Damaged),
        (44, 4, 4, Damaged),
        // Eventfds, which nobody could find by a name.
        (44, 4, 5, InvalidInput),
        (44, 4, 6, Damaged),
        (52, 4, 2, Damaged),
        (56, 4, 0, Damaged),
        (56, 4, 2, Damaged),
        (64, 8, 0, Damaged),
        (64, 8, 2048, Damaged),
        (64, 8, 8192, Damaged),
        (64, 8, 5000, Damaged),
        (64, 8, 1 << 63, Damaged),
        (72, 8, 2033, Damaged),
        (72, 8, u64::MAX, Damaged),
        (80, 8, 0, Damaged),
        (80, 8, u64::MAX, Damaged),
        (80, 8, PRODUCER as u64 + 8, Damaged),
        (88, 8, PRODUCER as u64, Damaged),
        (96, 8, u64::MAX - 4095, Damaged),
        (104, 8, DATA as u64 + 4096, Damaged),
        (104, 8, CONSUMER as u64, Damaged),
    ] {
        let error = broken(at, value, bytes);
        assert_eq!(error.kind(), kind, "{value:#x} at {at}: {error}");
        assert!(error.to_string().contains("file:"), "{error}");
    }
    for side in [PRODUCER, CONSUMER] {
        assert_eq!(broken(side + POISONED, 1, 4).kind(), ErrorKind::Poisoned);
    }
    for (length, kind) in [
        (0, NotARing),
        (1, NotARing),
        (PAGE - 1, NotARing),
        (PAGE, Damaged),
        (DATA, Damaged),
        (sound.len() - 1, Damaged),
    ] {
        assert_eq!(use_all(&sound[..length]).unwrap_err().kind(), kind, "{length} bytes");
    }
}

#[test]
fn positions_and_messages_that_can_not_be_are_errors() {
    let _alone = alone();
    let sound = sound(Wait::Futex);
    let valid = |length: u64| length << 2 | 1;
    for position in [4, CAPACITY as u64 * 2 + 1, u64::MAX, u64::MAX - 7, u64::MAX - 4095, u64::MAX - 4103, 1 << 63] {
        for taken in [0, position, u64::MAX] {
            for fill in [0, valid(0), valid(8), valid(4095), valid(2032), 3, u64::MAX] {
                let mut bytes = sound.clone();
                put(&mut bytes, RELEASED, position);
                put(&mut bytes, TAKEN, taken);
                (DATA..DATA + CAPACITY).step_by(8).for_each(|at| put(&mut bytes, at, fill));
                let error = use_all(&bytes).err();
                if !position.is_multiple_of(8) || position >= 1 << 63 {
                    assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::Poisoned), "{position:#x}");
                }
            }
        }
    }
    for (at, word) in [(0, 3), (0, valid(2033)), (0, valid(1 << 29)), (8, valid(4000))] {
        let mut bytes = sound.clone();
        put(&mut bytes, RELEASED, 0);
        put(&mut bytes, TAKEN, 0);
        put(&mut bytes, DATA + at, word);
        use_all(&bytes).ok();
    }
}

#[test]
fn rings_go_on_at_any_position() {
    let _alone = alone();
    for power in [31, 32, 34, 35, 36, 48, 61] {
        for before in [0, 8, 64, 4096 + 8] {
            let scratch = Scratch::with(Kind::File, "capacity=4KiB");
            drop((scratch.sender(), scratch.receiver()));
            let mut bytes = fs::read(path(&scratch)).unwrap();
            let position = (1u64 << power) - before;
            put(&mut bytes, RELEASED, position);
            put(&mut bytes, TAKEN, position);
            fs::write(path(&scratch), bytes).unwrap();
            let (mut receiver, mut sender) = (scratch.receiver(), scratch.sender());
            for number in 0..500u64 {
                let message = mix(number).to_le_bytes().repeat(number as usize % 40);
                let sequence = sender.send(&message).unwrap();
                let received = receiver.try_recv().unwrap();
                assert_eq!((&received[..], received.sequence()), (&message[..], sequence));
                assert!(sequence >= position);
            }
        }
    }
}

#[test]
fn bytes_at_random() {
    let _alone = alone();
    let mut random = Random(5);
    for round in 0..600 {
        let mut bytes = sound([Wait::Futex, Wait::Spin][round % 2]);
        match round % 3 {
            // Nothing but noise.
            0 => {
                let length = random.below(6 * PAGE as u64) as usize;
                bytes.resize(length, 0);
                bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
            }
            // Noise in what changes.
            1 => {
                for at in (PAGE..bytes.len()).step_by(8) {
                    if random.below(4) == 0 {
                        put(&mut bytes, at, strange(&mut random));
                    }
                }
            }
            // A bit here and there.
            _ => {
                for _ in 0..1 + random.below(20) {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << random.below(8);
                }
            }
        }
        let _ = use_all(&bytes);
    }
}

/// Words that look like something.
fn strange(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.next(),
        1 => random.below(3000) << 2 | 1,
        2 => 3,
        3 => random.below(1 << 16) & !7,
        4 => u64::MAX - random.below(5000),
        _ => 0,
    }
}

/// While `hostile` writes into the ring, a sender and a receiver of the safe API use it, until it is of no further use.
fn under_attack(wait: Wait, seed: u64, hostile: impl Fn(&dyn Fn(usize) -> AtomicWord, &mut Random) + Sync) -> bool {
    let scratch = Scratch::with(Kind::Shm, &format!("capacity=4KiB&wait={wait}&persist=yes"));
    let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
    let segment = Segment::open(scratch.name().unwrap()).unwrap();
    let base = segment.as_ptr().as_ptr().expose_provenance();
    let word = move |at: usize| AtomicWord(base + at);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut random = Random(seed);
            while !done.load(Ordering::Relaxed) {
                hostile(&word, &mut random);
            }
        });
        let sends = scope.spawn(move || {
            let mut buffer = [0; 2032];
            for number in 0..3000 {
                let length = mix(number) as usize % 300;
                match sender.send_timeout(&buffer[..length], SHORT) {
                    Err(SendError::Poisoned) => return true,
                    Err(SendError::Timeout) if number % 50 == 0 => break,
                    Ok(_) | Err(SendError::Timeout | SendError::Closed | SendError::PeerDied) => {}
                    other => panic!("{other:?}"),
                }
                buffer[0] = number as u8;
            }
            false
        });
        let receives = scope.spawn(move || {
            for number in 0..3000 {
                match receiver.recv_timeout(SHORT) {
                    Ok(message) => assert!(message.len() <= 2032),
                    Err(RecvError::Poisoned) => return true,
                    Err(RecvError::Timeout) if number % 50 == 0 => break,
                    Err(RecvError::Timeout | RecvError::Closed | RecvError::PeerDied) => {}
                    other => panic!("{other:?}"),
                }
            }
            false
        });
        let poisoned = [sends.join(), receives.join()];
        done.store(true, Ordering::Relaxed);
        attacker.join().unwrap();
        poisoned.map(Result::unwrap).contains(&true)
    })
}

/// A word of the segment, wherever it is mapped.
struct AtomicWord(usize);

impl AtomicWord {
    fn get(&self) -> &AtomicU64 {
        assert!(self.0.is_multiple_of(8));
        // SAFETY: inside of the segment, which `under_attack` holds; ringway expects other processes to write it.
        unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(self.0)) }
    }
}

#[test]
fn a_peer_that_writes_anything_anywhere() {
    let _alone = alone();
    let mut poisoned = 0;
    for wait in WAITS {
        for seed in 0..25 {
            poisoned += u32::from(under_attack(wait, seed, |word, random| {
                let at = random.below(5) as usize * PAGE + random.below(PAGE as u64 / 8) as usize * 8;
                let value = strange(random);
                word(at).get().store(value, Ordering::Relaxed);
            }));
        }
    }
    assert!(poisoned > 30, "only {poisoned} of 75 noticed");
}

#[test]
fn a_peer_that_moves_the_positions_and_headers() {
    let _alone = alone();
    for wait in [Wait::Spin, Wait::Futex] {
        // Whether one is noticed depends on what runs when: so it goes on until enough of them were.
        let mut seeds = 0..500;
        let mut noticed = 0;
        for seed in seeds.by_ref() {
            noticed += u32::from(under_attack(wait, seed, |word, random| {
                let at = match random.below(4) {
                    0 => TAKEN,
                    1 => RELEASED,
                    _ => DATA + random.below(CAPACITY as u64 / 8) as usize * 8,
                };
                match random.below(3) {
                    0 => word(at).get().fetch_add(8, Ordering::Relaxed),
                    1 => word(at).get().fetch_xor(1 << random.below(34), Ordering::Relaxed),
                    _ => word(at).get().swap(strange(random), Ordering::Relaxed),
                };
            }));
            if seed >= 25 && noticed > 10 {
                break;
            }
        }
        assert!(!seeds.is_empty(), "only {noticed} of 500 noticed");
    }
}

#[test]
fn a_poisoned_ring_is_refused_and_its_peer_is_told() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, "capacity=4KiB&persist=yes");
    let (mut sender, mut receiver) = (scratch.sender(), scratch.receiver());
    let segment = Segment::open(scratch.name().unwrap()).unwrap();
    // SAFETY: inside of the segment; an attack as above.
    let header = unsafe { AtomicU64::from_ptr(segment.as_ptr().add(DATA).cast().as_ptr()) };
    header.store(4000 << 2 | 1, Ordering::Relaxed);
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Poisoned));
    assert_eq!(receiver.recv().err(), Some(RecvError::Poisoned));
    while sender.try_send(b"fill").is_ok() {}
    assert_eq!(sender.send(b"more"), Err(SendError::Poisoned));
    drop((sender, receiver));
    let kind = |address: &Address| Options::new().sender(address).unwrap_err().kind();
    assert_eq!(kind(&scratch.address), ErrorKind::Poisoned);
    assert!(inspect(scratch.name().unwrap()).unwrap().poisoned);
}
