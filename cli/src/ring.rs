//! What can be known of a ring from outside, for people and for programs.

use std::time::SystemTime;

use ringway::{
    Address, PeerState, Report,
    segment::{Metadata, Name},
    transport::Target,
};
use serde::Serialize;

use crate::place;

/// Reads the address of a ring that other processes can find.
pub fn address(text: &str) -> Result<Address, String> {
    let address = place::address(text)?;
    match name(&address) {
        Some(_) => Ok(address),
        None => {
            Err(format!("{address} is no ring that has a name; this command looks at rings only: shm, sysv and file"))
        }
    }
}

/// The name of the segment, if the address is that of a ring with a name.
pub fn name(address: &Address) -> Option<&Name> {
    match address.target() {
        Target::Segment(name) => Some(name),
        _ => None,
    }
}

/// The name in an address that [`address`] has read.
pub fn name_of(address: &Address) -> &Name {
    name(address).expect("addresses without a name were refused")
}

/// A segment, as `ls --json` and `inspect --json` print it. The names of the fields are part of the interface: see
/// `docs/cli.md`.
#[derive(Serialize)]
pub struct Segment {
    pub address: String,
    pub kind: &'static str,
    pub size: usize,
    pub mode: String,
    pub uid: u32,
    pub owner: Option<String>,
    pub problem: Option<&'static str>,
    /// What only a sound ring of a version that we know can tell.
    #[serde(flatten)]
    pub ring: Option<Ring>,
}

/// The ring in a segment.
#[derive(Serialize)]
pub struct Ring {
    pub created_unix_ms: u128,
    pub ring: String,
    pub wait: String,
    pub capacity: u64,
    pub max_message: u64,
    pub persist: bool,
    pub poisoned: bool,
    pub depth: u64,
    pub depth_bytes: u64,
    /// None of a kind that is unknown here.
    #[serde(flatten)]
    pub form: Option<Form>,
}

/// What only rings of its kind have.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Form {
    Pair(Pair),
    Many(Many),
}

/// A ring with one producer and one consumer.
#[derive(Serialize)]
pub struct Pair {
    pub released: u64,
    pub taken: u64,
    pub published: Option<u64>,
    pub producer: Peer,
    pub consumer: Peer,
}

/// A ring of many producers and consumers.
#[derive(Serialize)]
pub struct Many {
    pub most_producers: u32,
    pub max_deliveries: u32,
    pub leased: u64,
    pub requeued: u64,
    pub redelivered: u64,
    pub dropped: u64,
    pub producers: Vec<Member>,
    pub consumers: Vec<Member>,
}

/// One of many.
#[derive(Serialize)]
pub struct Member {
    pub number: usize,
    #[serde(flatten)]
    pub peer: Peer,
}

/// Who holds a role of it.
#[derive(Serialize)]
pub struct Peer {
    pub state: &'static str,
    pub pid: Option<u32>,
    pub joined: u32,
    pub deaths: u32,
    pub waiting: bool,
}

impl Segment {
    /// What a look at the ring of that name revealed.
    pub fn sound(name: &Name, report: &Report) -> Self {
        let created = report.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let problem = report.poisoned.then_some("poisoned");
        let ring = Ring {
            created_unix_ms: created.as_millis(),
            ring: report.ring.to_string(),
            wait: report.wait.to_string(),
            capacity: report.capacity,
            max_message: report.max_message,
            persist: report.persist,
            poisoned: report.poisoned,
            depth: report.depth,
            depth_bytes: report.depth_bytes,
            form: Form::of(report),
        };
        Self { ring: Some(ring), ..Self::unusable(name, report.segment, problem) }
    }

    /// A segment of which only the outside is known.
    pub fn unusable(name: &Name, metadata: Metadata, problem: Option<&'static str>) -> Self {
        Self {
            address: Target::Segment(name.clone()).to_string(),
            kind: match name {
                Name::Posix(_) => "shm",
                Name::SysV(_) => "sysv",
                Name::File(_) => "file",
            },
            size: metadata.size,
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            owner: place::user(metadata.uid),
            problem,
            ring: None,
        }
    }

    /// The owner's name, or number.
    pub fn owner(&self) -> String {
        self.owner.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// As a line of JSON.
    pub fn json(&self) -> String {
        let mut line = serde_json::to_string(self).expect("it has only string keys and cannot fail");
        line.push('\n');
        line
    }
}

impl Form {
    fn of(report: &Report) -> Option<Self> {
        if let Some(lanes) = report.lanes {
            return Some(Self::Many(Many {
                most_producers: lanes.most_producers,
                max_deliveries: lanes.max_deliveries,
                leased: lanes.leased,
                requeued: lanes.requeued,
                redelivered: lanes.redelivered,
                dropped: lanes.dropped,
                producers: members(&report.producers),
                consumers: members(&report.consumers),
            }));
        }
        let positions = report.positions?;
        Some(Self::Pair(Pair {
            released: positions.released,
            taken: positions.taken,
            published: positions.published,
            producer: report.producers.first()?.into(),
            consumer: report.consumers.first()?.into(),
        }))
    }

    /// Those who hold, or held, each role.
    pub fn peers(&self) -> [(&'static str, Vec<&Peer>); 2] {
        fn all(members: &[Member]) -> Vec<&Peer> {
            members.iter().map(|member| &member.peer).collect()
        }
        match self {
            Self::Pair(pair) => [("producer", vec![&pair.producer]), ("consumer", vec![&pair.consumer])],
            Self::Many(many) => [("producer", all(&many.producers)), ("consumer", all(&many.consumers))],
        }
    }
}

fn members(peers: &[ringway::Peer]) -> Vec<Member> {
    peers.iter().enumerate().map(|(number, peer)| Member { number, peer: peer.into() }).collect()
}

impl From<&ringway::Peer> for Peer {
    fn from(peer: &ringway::Peer) -> Self {
        let (state, pid) = match peer.state {
            PeerState::Absent => ("absent", None),
            PeerState::Alive { pid } => ("alive", Some(pid)),
            PeerState::Dead { pid } => ("dead", Some(pid)),
            PeerState::Quarantined { pid } => ("quarantined", Some(pid)),
            PeerState::Left => ("left", None),
            _ => ("unknown", None),
        };
        Self { state, pid, joined: peer.joined, deaths: peer.deaths, waiting: peer.waiting }
    }
}

impl Peer {
    /// In a word or two.
    pub fn brief(&self) -> String {
        match (self.state, self.pid) {
            ("absent", _) => "-".to_owned(),
            ("alive", Some(pid)) => pid.to_string(),
            (state, Some(pid)) => format!("{pid} {state}"),
            (state, None) => state.to_owned(),
        }
    }

    /// The process that may be using the ring now.
    pub fn living(&self) -> Option<u32> {
        self.pid.filter(|_| self.state != "dead")
    }
}

/// What can be seen of the ring at that address, if there is one.
pub fn look(address: &Address) -> Option<Report> {
    ringway::inspect(name(address)?).ok()
}
