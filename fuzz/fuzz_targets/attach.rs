//! Any bytes, opened as a ring in a file: an error, or a ring that does no harm.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::segment::{Name, Segment};
use ringway::{Address, Options, Wait, inspect};
use std::{fs, path::PathBuf, sync::OnceLock, time::Duration};

/// A file of this process, in memory where there is some.
struct Place {
    path: PathBuf,
    name: Name,
    address: Address,
}

impl Place {
    fn get() -> &'static Self {
        static PLACE: OnceLock<Place> = OnceLock::new();
        PLACE.get_or_init(|| {
            let path = PathBuf::from(format!("/dev/shm/ringway-fuzz-{}", std::process::id()));
            let address = format!("file://{}", path.display()).parse().unwrap();
            Self { name: Name::File(path.clone()), path, address }
        })
    }
}

/// Left as they are: the C library ends a process that waits on a broken semaphore, as the library's documentation says.
const SEMAPHORES: std::ops::Range<usize> = 3 * 4096..4 * 4096;

/// A sound ring of each strategy, for the input to be laid over: noise alone seldom gets past the header.
fn sound(wait: Wait) -> &'static [u8] {
    static SOUND: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let made = SOUND.get_or_init(|| {
        [Wait::Spin, Wait::Futex, Wait::Semaphore].map(|wait| {
            let place = Place::get();
            drop(Options::new().capacity(0).wait(wait).create_new().sender(&place.address).unwrap());
            let bytes = fs::read(&place.path).unwrap();
            fs::remove_file(&place.path).unwrap();
            bytes
        })
    });
    &made[wait as usize]
}

/// The first byte chooses; then come whole bytes, or patches: two bytes say where, eight what.
fn bytes(input: &[u8]) -> Vec<u8> {
    let Some((choice, rest)) = input.split_first() else { return Vec::new() };
    let wait = match choice % 4 {
        0 if rest.len() <= SEMAPHORES.start => return rest.to_vec(),
        0 | 1 => Wait::Spin,
        2 => Wait::Futex,
        _ => Wait::Semaphore,
    };
    let mut bytes = sound(wait).to_vec();
    for patch in rest.chunks_exact(10) {
        let words = bytes.len() / 8;
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % words * 8;
        if !SEMAPHORES.contains(&at) {
            bytes[at..at + 8].copy_from_slice(&patch[2..]);
        }
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let place = Place::get();
    let bytes = bytes(input);
    fs::write(&place.path, &bytes).unwrap();
    let existing = Options::new().existing();
    let _ = inspect(&place.name);
    if let Ok(mut receiver) = existing.receiver(&place.address) {
        assert!(receiver.max_message() <= bytes.len());
        // A ring has a word for each message at least.
        for _ in 0..bytes.len() / 8 + 1 {
            let Ok(message) = receiver.try_recv() else { break };
            assert!(message.len() <= bytes.len());
        }
        let _ = receiver.recv_timeout(Duration::ZERO).map(drop);
    }
    if let Ok(mut sender) = existing.sender(&place.address) {
        for length in [0, 1, 100, sender.max_message()] {
            let _ = sender.try_send(&vec![0xff; length]);
        }
        let _ = sender.send_timeout(b"x", Duration::ZERO);
    }
    let _ = inspect(&place.name);
    let _ = Segment::open(&place.name).and_then(|segment| segment.unlink());
    let _ = fs::remove_file(&place.path);
});
