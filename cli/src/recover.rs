//! `ringway recover`: what the dead held, back into the ring.

use ringway::Address;
use serde::Serialize;

use crate::{failure::Failure, output::print, ring};

/// Take back the messages that dead receivers held
///
/// They become free for the living, marked as redelivered. Senders and receivers of the ring do so by themselves when they
/// join, or have waited for a while: this is for rings that have none, or none that waits. Only rings with ring=mpmc ever
/// need it. Exit codes: 0 done, also when there was nothing to do, 1 the system lacks something, 2 usage or no such ring.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders
    #[arg(value_name = "ADDR", value_parser = ring::address)]
    address: Address,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// What was done, as `--json` prints it. The names of the fields are part of the interface: see `docs/cli.md`.
#[derive(Serialize)]
struct Recovery {
    address: String,
    deaths: u32,
    redelivered: u64,
    dropped: u64,
}

/// Recovers and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let recovery = ringway::recover(ring::name_of(&args.address))?;
    let recovery = Recovery {
        address: args.address.target().to_string(),
        deaths: recovery.deaths,
        redelivered: recovery.redelivered,
        dropped: recovery.dropped,
    };
    print(&if args.json { json(&recovery) } else { text(&recovery) })
}

fn json(recovery: &Recovery) -> String {
    let mut line = serde_json::to_string(recovery).expect("it has only string keys and cannot fail");
    line.push('\n');
    line
}

fn text(Recovery { address, deaths, redelivered, dropped }: &Recovery) -> String {
    match deaths {
        0 => format!("{address}: nothing to recover\n"),
        _ => format!("{address}: {deaths} died, {redelivered} messages to be redelivered, {dropped} dropped\n"),
    }
}
