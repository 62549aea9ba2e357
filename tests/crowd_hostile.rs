//! Rings of many whose memory somebody else writes as he likes: an error or a closed door for the safe API, never a panic, a hang
//! or a stray access.

mod common;

use common::payload::mix;
use common::{Kind, Random, Scratch, WAITS, alone};
use ringway::segment::{Name, Segment};
use ringway::{Error, ErrorKind, Options, RecvError, SendError, Wait, inspect, recover};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(1);
/// No call with a timeout of [`SHORT`] takes so long, however busy the machine.
const FAR_TOO_LONG: Duration = Duration::from_secs(20);
const PAGE: usize = 4096;
const SLOTS: usize = 64;
/// Bytes of a slot's own chunk; longer messages lie in two pools.
const CHUNK: usize = 256;
const LONGEST: usize = 5000;
const OPTIONS: &str = "ring=mpmc&producers=3&capacity=4KiB&max_message=5000";

/// Where the parts of a segment lie, as the specification of the format says.
#[derive(Clone, Copy)]
struct Parts {
    commons: usize,
    members: usize,
    data: usize,
    lane_bytes: usize,
    total: usize,
}

impl Parts {
    fn new(word: impl Fn(usize) -> u64) -> Self {
        let word = |at| word(at) as usize;
        assert_eq!((word(144), word(136) >> 32), (SLOTS, CHUNK), "the offsets below are those of other sizes");
        Self { commons: word(80), members: word(88), data: word(104), lane_bytes: word(152), total: word(32) }
    }

    fn lane(&self, lane: u64) -> usize {
        self.data + lane as usize * self.lane_bytes
    }
}

const SEALS: usize = 128;
const LEASES: usize = SEALS + SLOTS * 16;
const DONE: usize = LEASES + SLOTS * 8;
const CHUNKS: usize = DONE + SLOTS * 8;
const MEMBER: usize = 256;

/// Words that look like something: positions, laps, leases and lengths near those in use and at their ends.
fn strange(random: &mut Random) -> u64 {
    let small = random.below(200);
    match random.below(10) {
        0 => random.next(),
        1 => 0,
        2 => u64::MAX - small,
        // A head.
        3 => small << 11 | random.below(64) << 5 | random.below(18),
        4 => (u64::MAX >> 11).wrapping_sub(small) << 11 | random.below(32),
        // A seal.
        5 => random.below(300) << 32 | random.below(5) << 7 | random.below(4),
        // A note.
        6 => random.below(3) << 30 | [0, 64, 256, 257, 5000, 5001, (1 << 30) - 1][random.below(7) as usize],
        // A lease.
        7 => random.below(6) << 16 | random.below(1 << 10) << 6 | random.below(16) << 2 | random.below(4),
        // What was given back of a run.
        8 => random.below(6) << 16 | random.below(1 << 16),
        // A link.
        _ => random.below(8) << 32 | random.below(6),
    }
}

/// Where an attacker writes next.
type Aim = fn(Parts, &mut Random) -> usize;

fn anywhere(parts: Parts, random: &mut Random) -> usize {
    PAGE + random.below((parts.total - PAGE) as u64 / 8) as usize * 8
}

fn in_lanes(parts: Parts, random: &mut Random) -> usize {
    let slot = random.below(SLOTS as u64) as usize;
    parts.lane(random.below(3))
        + match random.below(6) {
            0 => 0,
            1 => SEALS + slot * 16,
            2 => SEALS + slot * 16 + 8,
            3 => LEASES + slot * 8,
            4 => DONE + slot * 8,
            _ => CHUNKS + slot * CHUNK,
        }
}

fn at_heads(parts: Parts, random: &mut Random) -> usize {
    parts.lane(random.below(3))
}

fn in_commons(parts: Parts, random: &mut Random) -> usize {
    // Who is there, who sleeps, what was put back, how many lanes there are, and counts; but not that it is poisoned.
    parts.commons + [0, 128, 256, 384, 640, 648][random.below(6) as usize]
}

fn in_members(parts: Parts, random: &mut Random) -> usize {
    parts.members + random.below(8) as usize * MEMBER + random.below(18) as usize * 8
}

/// A word of the segment, which the caller keeps mapped.
fn word_at(base: usize, at: usize) -> &'static AtomicU64 {
    assert!(at.is_multiple_of(8));
    // SAFETY: inside of the segment, which `under_attack` holds; ringway expects other processes to write it.
    unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(base + at)) }
}

/// Does something that must not take long.
fn promptly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = work();
    assert!(start.elapsed() < FAR_TOO_LONG, "{what} took {:?}", start.elapsed());
    answer
}

/// Sends in all ways that have an end. Whether the ring was found to be of no further use.
fn sends(scratch: &Scratch, seed: u64) -> bool {
    let mut random = Random(seed);
    let mut poisoned = false;
    for _ in 0..12 {
        let mut sender = match promptly("joining", || Options::new().sender(&scratch.address)) {
            Ok(sender) => sender,
            Err(error) => {
                poisoned |= error.kind() == ErrorKind::Poisoned;
                continue;
            }
        };
        let buffer = [seed as u8; LONGEST];
        for _ in 0..60 {
            let longest = if random.below(8) == 0 { LONGEST } else { 300 };
            let message = &buffer[..random.below(longest as u64 + 1) as usize];
            let answer = promptly("sending", || match random.below(3) {
                0 => sender.try_send(message),
                _ => sender.send_timeout(message, SHORT),
            });
            match answer {
                Err(SendError::Poisoned) => return true,
                Err(SendError::TooLarge { .. } | SendError::Fenced) => panic!("{answer:?}"),
                _ => {}
            }
        }
        promptly("leaving", || drop(sender));
    }
    poisoned
}

fn receives(scratch: &Scratch, seed: u64) -> bool {
    let mut random = Random(seed);
    let mut poisoned = false;
    for _ in 0..12 {
        let mut receiver = match promptly("joining", || Options::new().receiver(&scratch.address)) {
            Ok(receiver) => receiver,
            Err(error) => {
                poisoned |= error.kind() == ErrorKind::Poisoned;
                continue;
            }
        };
        for _ in 0..60 {
            let answer = promptly("receiving", || match random.below(4) {
                0 => receiver.try_recv().map(|message| assert!(message.len() <= LONGEST)),
                1 => receiver.recv_timeout(SHORT).map(|message| assert!(message.len() <= LONGEST)),
                // Of some a part is left.
                most => receiver.recv_batch_timeout(16, SHORT).map(|mut batch| {
                    let mut count = 0;
                    while (most == 2 || count < 3)
                        && let Some((bytes, _)) = batch.next()
                    {
                        assert!(bytes.len() <= LONGEST);
                        count += 1;
                    }
                    assert!(count <= 16);
                }),
            });
            match answer {
                Err(RecvError::Poisoned) => return true,
                Err(RecvError::Fenced | RecvError::BufferTooSmall { .. }) => panic!("{answer:?}"),
                _ => {}
            }
        }
        promptly("leaving", || drop(receiver));
    }
    poisoned
}

/// While somebody writes into the ring, others send and receive, come and go, and look at it.
fn under_attack(wait: Wait, seed: u64, aim: Aim) -> bool {
    let scratch = Scratch::with(Kind::Shm, &format!("{OPTIONS}&wait={wait}&persist=yes"));
    // The lanes are in use, and there are messages of all sizes.
    let mut first = [scratch.sender(), scratch.sender(), scratch.sender()];
    for (number, sender) in (0..).zip(&mut first) {
        (0..20).for_each(|_| _ = sender.try_send(&vec![1; mix(number) as usize % LONGEST]));
    }
    drop(first);
    let segment = Segment::open(scratch.name().unwrap()).unwrap();
    let base = segment.as_ptr().as_ptr().expose_provenance();
    let parts = Parts::new(|at| word_at(base, at).load(Ordering::Relaxed));
    assert_eq!(parts.total, segment.len(), "the offsets above are not those of the format");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut random = Random(seed);
            while !done.load(Ordering::Relaxed) {
                for _ in 0..1 + random.below(20) {
                    let word = word_at(base, aim(parts, &mut random));
                    match random.below(4) {
                        0 => word.fetch_add(1 << random.below(40), Ordering::Relaxed),
                        1 => word.fetch_xor(1 << random.below(64), Ordering::Relaxed),
                        _ => word.swap(strange(&mut random), Ordering::Relaxed),
                    };
                }
                // Now and then the others get somewhere.
                (0..random.below(3000)).for_each(|_| std::hint::spin_loop());
            }
        });
        let observer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let name = scratch.name().unwrap();
                let _ = promptly("inspecting", || inspect(name));
                let _ = promptly("recovering", || recover(name));
            }
        });
        let users = [0, 1, 2, 3].map(|user| {
            let scratch = &scratch;
            scope.spawn(move || if user < 2 { sends(scratch, seed + user) } else { receives(scratch, seed + user) })
        });
        let poisoned = users.map(|user| user.join());
        done.store(true, Ordering::Relaxed);
        attacker.join().unwrap();
        observer.join().unwrap();
        poisoned.into_iter().any(|poisoned| poisoned.unwrap())
    })
}

fn attack(aim: Aim, seeds: u64) -> u32 {
    let mut poisoned = 0;
    for wait in WAITS {
        for seed in 0..seeds {
            poisoned += u32::from(under_attack(wait, mix(seed), aim));
        }
    }
    poisoned
}

#[test]
fn one_who_writes_anything_anywhere() {
    let _alone = alone();
    attack(anywhere, 6);
}

#[test]
fn one_who_writes_the_words_of_lanes() {
    let _alone = alone();
    assert!(attack(in_lanes, 8) > 0, "nobody noticed");
}

#[test]
fn one_who_moves_the_heads() {
    let _alone = alone();
    attack(at_heads, 5);
}

#[test]
fn one_who_says_what_all_share() {
    let _alone = alone();
    attack(in_commons, 5);
}

#[test]
fn one_who_forges_members() {
    let _alone = alone();
    attack(in_members, 6);
}

/// The bytes of a ring in the middle of its life, that nobody is attached to.
fn sound() -> Vec<u8> {
    let scratch = Scratch::with(Kind::File, OPTIONS);
    let keep_open = || Options::new().keep_open(true);
    let mut senders = [(); 2].map(|()| keep_open().sender(&scratch.address).unwrap());
    let mut receiver = keep_open().receiver(&scratch.address).unwrap();
    for number in 0..100u64 {
        for sender in &mut senders {
            sender.try_send(&vec![number as u8; mix(number) as usize % 700]).unwrap();
        }
        while number % 10 < 8 && receiver.try_recv().is_ok() {}
    }
    drop((senders, receiver));
    let Name::File(path) = scratch.name().unwrap() else { unreachable!() };
    fs::read(path).unwrap()
}

/// Does everything with a file of these bytes that can be done; what opening it as a receiver came to.
fn use_all(bytes: &[u8]) -> Result<(), Error> {
    let scratch = Scratch::new(Kind::File);
    let name = scratch.name().unwrap();
    let Name::File(path) = name else { unreachable!() };
    fs::write(path, bytes).unwrap();
    let _ = promptly("inspecting", || inspect(name));
    let existing = || Options::new().existing();
    let opened = existing().receiver(&scratch.address).map(|mut receiver| {
        for _ in 0..1000 {
            match promptly("receiving", || receiver.try_recv().map(|message| message.len())) {
                Ok(len) => assert!(len <= LONGEST),
                Err(_) => break,
            }
        }
        let _ = receiver.recv_timeout(Duration::ZERO).map(|message| message.len());
    });
    if let Ok(mut sender) = existing().sender(&scratch.address) {
        for length in (0..300).chain([sender.max_message()]) {
            if promptly("sending", || sender.try_send(&vec![1; length])).is_err() {
                break;
            }
        }
        let _ = sender.send_timeout(b"x", Duration::ZERO);
    }
    let _ = promptly("recovering", || recover(name));
    let _ = promptly("inspecting", || inspect(name));
    opened
}

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

#[test]
fn every_field_of_the_header_is_checked() {
    let _alone = alone();
    let sound = sound();
    use_all(&sound).unwrap();
    let word = |at: usize| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap());
    let parts = Parts::new(word);
    // Offset, bytes, a value that is wrong.
    for (at, bytes, value) in [
        (12, 4, u64::MAX),
        (32, 8, 0),
        (32, 8, u64::MAX),
        (56, 4, 2),
        (64, 8, 0),
        (64, 8, word(64) + 64),
        (72, 8, word(72) + 64),
        (72, 8, u64::MAX),
        (80, 8, 0),
        (80, 8, u64::MAX),
        (80, 8, word(88)),
        (88, 8, word(80) + 8),
        (96, 8, u64::MAX - 4095),
        (104, 8, parts.data as u64 + 4096),
        (104, 8, parts.members as u64),
        (128, 4, 0),
        (128, 4, 2),
        (128, 4, 65),
        (132, 4, 63),
        (136, 4, 0),
        (136, 4, 16),
        (140, 4, 0),
        (140, 4, 255),
        (144, 8, 32),
        (144, 8, 65),
        (144, 8, 1 << 60),
        (152, 8, word(152) + 4096),
        (160, 4, 0),
        (160, 4, 1 << 31),
        (164, 4, 0),
        (164, 4, u64::MAX),
        (168, 8, 0),
        (200, 8, 1 << 32),
    ] {
        let mut broken = sound.clone();
        broken[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        let error = use_all(&broken).err().unwrap_or_else(|| panic!("{value:#x} at {at} was let through"));
        assert_eq!(error.kind(), ErrorKind::Damaged, "{value:#x} at {at}: {error}");
    }
    let mut poisoned = sound.clone();
    put(&mut poisoned, parts.commons + 512, 1);
    assert_eq!(use_all(&poisoned).unwrap_err().kind(), ErrorKind::Poisoned);
    for length in [parts.commons, parts.members, parts.data, sound.len() - 1] {
        assert_eq!(use_all(&sound[..length]).unwrap_err().kind(), ErrorKind::Damaged, "{length} bytes");
    }
}

#[test]
fn bytes_at_random() {
    let _alone = alone();
    let sound = sound();
    let parts = Parts::new(|at| u64::from_le_bytes(sound[at..at + 8].try_into().unwrap()));
    let mut random = Random(5);
    let aims: [Aim; 5] = [anywhere, in_lanes, at_heads, in_commons, in_members];
    for round in 0..800 {
        let mut bytes = sound.clone();
        match round % 3 {
            // Noise in what changes, all over or here and there.
            0 => {
                let one_in = 1 + random.below(60);
                for at in (PAGE..bytes.len()).step_by(8) {
                    if random.below(one_in) == 0 {
                        put(&mut bytes, at, strange(&mut random));
                    }
                }
            }
            1 => {
                for _ in 0..1 + random.below(40) {
                    let at = aims[random.below(5) as usize](parts, &mut random);
                    put(&mut bytes, at, strange(&mut random));
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

#[test]
fn a_poisoned_ring_is_refused_and_all_are_told() {
    let _alone = alone();
    let scratch = Scratch::with(Kind::Shm, &format!("{OPTIONS}&persist=yes"));
    let mut senders = [scratch.sender(), scratch.sender()];
    let mut receivers = [scratch.receiver(), scratch.receiver()];
    senders[0].send(b"x").unwrap();
    let segment = Segment::open(scratch.name().unwrap()).unwrap();
    let base = segment.as_ptr().as_ptr().expose_provenance();
    let parts = Parts::new(|at| word_at(base, at).load(Ordering::Relaxed));
    // A length beyond its chunk.
    word_at(base, parts.lane(0) + SEALS + 8).store(300, Ordering::Relaxed);
    assert_eq!(receivers[0].try_recv().err(), Some(RecvError::Poisoned));
    for receiver in &mut receivers {
        assert_eq!(receiver.recv().err(), Some(RecvError::Poisoned));
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Poisoned));
    }
    for sender in &mut senders {
        while sender.try_send(b"fill").is_ok() {}
        assert_eq!(sender.send(b"more"), Err(SendError::Poisoned));
    }
    drop((senders, receivers));
    let refused = || Options::new().sender(&scratch.address).unwrap_err().kind();
    assert_eq!((refused(), refused()), (ErrorKind::Poisoned, ErrorKind::Poisoned));
    assert!(inspect(scratch.name().unwrap()).unwrap().poisoned);
}
