//! What tests with real processes need: rings that go away, payloads that can be checked, memory to report through.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub mod board;
#[path = "../../src/sys/child.rs"]
mod child;
pub mod crowd;
pub mod faults;
pub mod payload;
pub mod ringcheck;
pub mod sleep;
pub mod trace;

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use child::{Child, Tell};
use ringway::segment::{Key, Name, remove};
use ringway::transport::Target;
use ringway::{Address, Options, Receiver, Sender, Wait};

/// Far longer than anything takes: a wait of this length that runs out is a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where rings can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Shm,
    SysV,
    File,
    /// Reaches only children forked while the segment is held.
    Anon,
}

pub const KINDS: [Kind; 4] = [Kind::Shm, Kind::SysV, Kind::File, Kind::Anon];
pub const NAMED: [Kind; 3] = [Kind::Shm, Kind::SysV, Kind::File];
/// Those that every ring can use.
pub const WAITS: [Wait; 3] = [Wait::Spin, Wait::Futex, Wait::Semaphore];

impl Kind {
    /// By what one can sleep in a ring there.
    pub fn sleeping(self) -> &'static [Wait] {
        const BY_NAME: [Wait; 5] =
            [Wait::Futex, Wait::Semaphore, Wait::NamedSemaphore, Wait::SystemVSemaphore, Wait::Fifo];
        match self {
            Self::Anon => &[Wait::Futex, Wait::Semaphore, Wait::Eventfd],
            Self::Shm | Self::SysV | Self::File => &BY_NAME,
        }
    }

    /// Where each way to sleep is to be had.
    pub fn of_each_way() -> impl Iterator<Item = (Self, Wait)> {
        Self::Shm.sleeping().iter().map(|&wait| (Self::Shm, wait)).chain([(Self::Anon, Wait::Eventfd)])
    }
}

/// One test at a time: a fork while another thread holds a lock would leave that lock locked in the child.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address that no other test has; what is there is removed at the end.
pub struct Scratch {
    pub address: Address,
}

impl Scratch {
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, "")
    }

    /// With options in the address, as in `capacity=4KiB&wait=spin`.
    pub fn with(kind: Kind, options: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let name = format!("ringway-test-{pid}-{number}");
        let (place, separator) = match kind {
            Kind::Shm => (format!("shm:///{name}"), "?"),
            // Keys carry the pid too: 22 bits of it, as Linux has at most. The first of 128 is long gone.
            Kind::SysV => (format!("sysv:?key={:#x}", 0x6000_0000 | ((number % 128) << 22) | pid), "&"),
            Kind::File => (format!("file://{}", std::env::temp_dir().join(name).display()), "?"),
            Kind::Anon => (format!("anon:{name}"), "?"),
        };
        let separator = if options.is_empty() { "" } else { separator };
        Self { address: format!("{place}{separator}{options}").parse().unwrap() }
    }

    /// The segment's name; anonymous rings have none.
    pub fn name(&self) -> Option<&Name> {
        match self.address.target() {
            Target::Segment(name) => Some(name),
            _ => None,
        }
    }

    /// Whether anything is left under the name: memory, or semaphores.
    pub fn exists(&self) -> bool {
        match self.name().expect("a name") {
            Name::Posix(name) => std::path::Path::new("/dev/shm").join(name).exists(),
            Name::File(path) => path.exists(),
            Name::SysV(key) => has_sysv("shm", key) || has_sysv("sem", key),
        }
    }

    pub fn sender(&self) -> Sender {
        Options::new().sender(&self.address).unwrap()
    }

    pub fn receiver(&self) -> Receiver {
        Options::new().receiver(&self.address).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(name) = self.name() {
            let _ = remove(name);
        }
    }
}

fn has_sysv(table: &str, key: &Key) -> bool {
    let key = key.number().unwrap();
    let table = std::fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap();
    table.lines().skip(1).any(|line| line.split_whitespace().next().unwrap().parse() == Ok(key))
}

/// A seeded sequence of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        payload::mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Something that processes wait for; made before they are forked.
pub struct Gate(PipeReader, PipeWriter);

impl Gate {
    pub fn new() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Self(reader, writer)
    }

    /// Lets so many pass.
    pub fn open(&self, count: usize) {
        (&self.1).write_all(&vec![0; count]).unwrap();
    }

    pub fn pass(&self) {
        (&self.0).read_exact(&mut [0]).unwrap();
    }
}

/// Occupies the processor for about `turns` turns: time of no fixed length, to end at no fixed place.
pub fn dawdle(turns: u64) {
    for _ in 0..turns {
        std::hint::spin_loop();
    }
}

/// Whether it has not ended yet; never reaps it.
pub fn runs(child: &Child) -> bool {
    // SAFETY: all zeros are a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitid(libc::P_PID, child.pid(), &mut info, options) }, 0);
    // SAFETY: waitid fills in the fields of SIGCHLD, or leaves them 0.
    unsafe { info.si_pid() == 0 }
}
