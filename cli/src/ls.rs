//! `ringway ls`: which rings exist.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use ringway::{ErrorKind, segment, units::ByteSize};

use crate::{failure::Failure, output::print, ring::Segment};

/// List the rings of this machine
///
/// All that you may read in POSIX and System V shared memory. Rings in mapped files can be anywhere and are not listed.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object per ring, as `inspect --json` does
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub fn run(args: &Args) -> Result<(), Failure> {
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
    print(&if args.json { segments.iter().map(Segment::json).collect() } else { table(&segments) })
}

fn table(segments: &[Segment]) -> String {
    if segments.is_empty() {
        return "No rings.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ADDRESS", "SIZE", "MODE", "OWNER", "MESSAGES", "PRODUCER", "CONSUMER"]);
    for segment in segments {
        let (depth, producer, consumer) = match &segment.ring {
            Some(ring) => (ring.depth.to_string(), ring.producer.brief(), ring.consumer.brief()),
            None => Default::default(),
        };
        table.add_row([
            segment.address.clone(),
            ByteSize(segment.size as u64).to_string(),
            segment.mode.clone(),
            segment.owner(),
            segment.problem.map_or(depth, str::to_owned),
            producer,
            consumer,
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
