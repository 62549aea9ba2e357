//! `ringway ls`: which rings and queues exist.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use ringway::{ErrorKind, segment, transport, units::ByteSize};

use crate::{
    failure::Failure,
    output::print,
    queue::Queue,
    ring::{Peer, Segment},
};

/// List the rings and queues of this machine
///
/// All that you may read: rings in POSIX and System V shared memory, System V message queues, POSIX message queues where an mqueue
/// filesystem is mounted, and where receivers at auto: wait. Queues don't tell who made them: those of other programs are listed, too.
/// What has its name in a file system (mapped files, FIFOs, sockets, logs) can be anywhere and is not listed.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object per ring, as `inspect --json` does, and per queue
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub fn run(args: &Args) -> Result<(), Failure> {
    let segments = segments()?;
    let queues: Vec<Queue> = transport::list()?.into_iter().map(Queue::from).collect();
    print(&if args.json {
        segments.iter().map(Segment::json).chain(queues.iter().map(Queue::json)).collect()
    } else {
        table(&segments, &queues)
    })
}

fn segments() -> Result<Vec<Segment>, Failure> {
    let mut segments = Vec::new();
    for (name, metadata) in segment::list()? {
        let problem = match ringway::inspect(&name) {
            Ok(report) => {
                segments.push(Segment::sound(&name, &report));
                continue;
            }
            Err(error) => match error.kind() {
                ErrorKind::Damaged => "damaged",
                ErrorKind::NewerVersion => "newer version",
                // Removed meanwhile, somebody else's, or no ring at all.
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotARing => continue,
                _ => return Err(error.into()),
            },
        };
        segments.push(Segment::unusable(&name, metadata, Some(problem)));
    }
    segments.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(segments)
}

fn table(segments: &[Segment], queues: &[Queue]) -> String {
    if segments.is_empty() && queues.is_empty() {
        return "No rings and no queues.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ADDRESS", "SIZE", "MODE", "OWNER", "MESSAGES", "PRODUCER", "CONSUMER"]);
    for segment in segments {
        let ring = segment.ring.as_ref();
        let depth = ring.map(|ring| ring.depth.to_string()).unwrap_or_default();
        let form = ring.and_then(|ring| ring.form.as_ref());
        let [producers, consumers] = form.map(|form| form.peers().map(|(_, peers)| brief(&peers))).unwrap_or_default();
        table.add_row([
            segment.address.clone(),
            ByteSize(segment.size as u64).to_string(),
            segment.mode.clone(),
            segment.owner(),
            segment.problem.map_or(depth, str::to_owned),
            producers,
            consumers,
        ]);
    }
    for queue in queues {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        table.add_row([
            queue.address.clone(),
            queue.size.map(|size| ByteSize(size).to_string()).unwrap_or_default(),
            queue.mode.clone().unwrap_or_default(),
            queue.owner.clone().unwrap_or_else(|| number(queue.uid.map(u64::from))),
            number(queue.depth),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in [1, 4] {
        table.column_mut(column).expect("it has seven").set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

/// Who holds a role: the one, or how many.
fn brief(peers: &[&Peer]) -> String {
    let here: Vec<&Peer> = peers.iter().copied().filter(|peer| !matches!(peer.state, "absent" | "left")).collect();
    match (&here[..], peers.last()) {
        ([], None) => "-".to_owned(),
        ([], Some(peer)) | ([peer], _) => peer.brief(),
        _ => {
            let count = |state| here.iter().filter(|peer| peer.state == state).count();
            let states = ["alive", "quarantined", "unknown", "dead"].map(|state| (count(state), state));
            let counts = states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
            counts.collect::<Vec<_>>().join(", ")
        }
    }
}
