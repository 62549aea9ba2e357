//! `ringway bench`: every transport, measured between two pinned processes.

mod report;
mod rows;

use std::{
    io::{self, ErrorKind, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use ringway::units::{ByteSize, ParseUnitError};
use ringway_harness::{Block, Pair, Plan, SIZES, rounds::usual_canary};
use rows::Transport;

/// Measure ringway over each transport, beside raw system calls, between two pinned processes
///
/// One-way streams give ns per message and GB/s; round trips give percentiles. Everything is measured in turns, and each
/// measurement lies between two of the bare cost of passing a cache line to and fro (the canary): a row whose canary
/// moved is marked, since the machine then moved the CPUs under it.
#[derive(clap::Args)]
pub struct Args {
    /// Only these transports
    #[arg(long, value_delimiter = ',', value_name = "TRANSPORT")]
    only: Vec<Transport>,
    /// Only these message sizes, of 8, 64, 256, 1KiB, 4KiB and 64KiB
    #[arg(long, value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,
    /// How often each row is measured; its median is shown
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Stop after about this many seconds [default: 40, or 240 with --full]
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Everything: all sizes, both ring sizes, batches, each way of waiting
    #[arg(long)]
    full: bool,
    /// Print one JSON object per row instead of tables
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(args: &Args) -> io::Result<()> {
    let pair = Pair::new()?;
    let missing = rows::missing(&pair, &args.only);
    let mut rows = rows::select(&args.only, &args.size, args.full, pair.cpus.are_two());
    rows.retain(|row| missing.iter().all(|(transport, _)| row.label.transport != *transport));
    for (transport, error) in missing {
        eprintln!("ringway: {} can't be had here: {error}", rows::name(&transport));
    }
    if rows.is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "nothing to measure: no row has that transport and size"));
    }
    let rounds = usize::from(args.rounds);
    let budget = args.seconds.unwrap_or(Duration::from_secs(if args.full { 240 } else { 40 }));
    // What forking, mapping and the canaries take comes on top.
    let block = (budget.mul_f64(0.8) / (rows.len() * rounds) as u32)
        .clamp(Duration::from_millis(5), Duration::from_millis(200));

    let bar = ProgressBar::new((rows.len() * rounds) as u64)
        .with_style(ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}").expect("the template is valid"));
    let plan = Plan { rounds, budget, block, counts: Block::steady };
    plan.run(&pair, &mut rows, |done, _, key| {
        bar.set_message(key.to_string());
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();

    let canary = usual_canary(&rows);
    let results = report::results(rows, canary);
    let text = if args.json { report::json(&results)? } else { report::tables(&results, pair.cpus, canary) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn size(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse().map_err(|error: ParseUnitError| error.to_string())?;
    let allowed = || SIZES.map(|size| ByteSize(size as u64).to_string()).join(", ");
    SIZES.into_iter().find(|&size| size as u64 == bytes).ok_or_else(|| format!("the sizes measured are {}", allowed()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "a number of seconds is needed, such as 10 or 2.5".to_owned())
}
