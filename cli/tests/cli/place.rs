//! Places for rings that no other test has, and that are removed whatever happens.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use ringway::{
    Address, ErrorKind, Peer, PeerState, Report,
    segment::{self, Name},
    transport::Target,
};

/// A place for a ring, removed at the end.
pub struct Place {
    /// As the command line takes it.
    pub address: String,
    name: Name,
    /// What else goes at the end.
    file: Option<PathBuf>,
}

pub fn shm(options: &str) -> Place {
    Place::new(format!("shm:///ringway-cli-{}{options}", unique()), None)
}

pub fn sysv() -> Place {
    let path = temporary("key");
    fs::write(&path, "").unwrap();
    Place::new(format!("sysv://{}?id=7", path.display()), Some(path))
}

pub fn file() -> Place {
    let path = temporary("ring");
    Place::new(format!("file://{}", path.display()), Some(path))
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A path that no other test has.
pub fn temporary(what: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ringway-cli-{}.{what}", unique()))
}

fn living(peers: &[Peer]) -> usize {
    peers.iter().filter(|peer| matches!(peer.state, PeerState::Alive { .. })).count()
}

impl Place {
    fn new(address: String, file: Option<PathBuf>) -> Self {
        let parsed: Address = address.parse().unwrap();
        let Target::Segment(name) = parsed.target() else { panic!("{address} has no name") };
        Self { name: name.clone(), address, file }
    }

    /// The same place, with more options in its address.
    pub fn with(mut self, options: &str) -> Self {
        let separator = if self.address.contains('?') { '&' } else { '?' };
        self.address = format!("{}{separator}{options}", self.address);
        self
    }

    /// The address without its options.
    pub fn target(&self) -> &str {
        self.address.split('?').next().unwrap()
    }

    /// What the ring looks like; none if it isn't there.
    pub fn look(&self) -> Option<Report> {
        match ringway::inspect(&self.name) {
            Ok(report) => Some(report),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => panic!("{e}"),
        }
    }

    /// Waits until the ring looks as wanted.
    pub fn until(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        super::running::until(|| self.look().filter(&wanted))
    }

    pub fn until_sender(&self) -> Report {
        self.until_senders(1)
    }

    pub fn until_receiver(&self) -> Report {
        self.until_receivers(1)
    }

    /// Waits until so many senders are attached.
    pub fn until_senders(&self, count: usize) -> Report {
        self.until(|report| living(&report.producers) == count)
    }

    /// Waits until so many receivers are attached.
    pub fn until_receivers(&self, count: usize) -> Report {
        self.until(|report| living(&report.consumers) == count)
    }

    /// Fails unless nothing is left of the ring.
    pub fn assert_gone(&self) {
        assert!(self.look().is_none(), "{} is still there", self.address);
        assert_eq!(segment::remove(&self.name).unwrap_err().kind(), ErrorKind::NotFound, "{}", self.address);
    }

    /// Overwrites bytes of a ring in POSIX shared memory.
    pub fn scribble(&self, offset: u64, bytes: &[u8]) {
        self.memory().write_all_at(bytes, offset).unwrap();
    }

    /// The file that the ring is, in POSIX shared memory.
    pub fn memory(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    pub fn path(&self) -> PathBuf {
        let Name::Posix(name) = &self.name else { panic!("{} is no POSIX shared memory", self.address) };
        Path::new("/dev/shm").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Most are gone already.
        let _ = segment::remove(&self.name);
        let _ = self.file.take().map(fs::remove_file);
    }
}

/// A file with this content, removed at the end.
pub struct Temporary(pub PathBuf);

impl Temporary {
    pub fn new(content: &[u8]) -> Self {
        let path = temporary("input");
        fs::write(&path, content).unwrap();
        Self(path)
    }

    pub fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
