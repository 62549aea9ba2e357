//! ringway beside its peers and the bare hardware: decides whether it reaches the figures it is to reach.
//!
//! Rings of one producer and one consumer, or with `--mpmc` those of many, whose sides share the cores if they are more; or with
//! `--transports` what the kernel carries, beside raw system calls; or with `--waiting` the ways to sleep and to be woken, beside the bare ones
//! and those of others.
//!
//! All rows are measured in turns, each block between two canaries. Only blocks with both canaries near count; a row
//! with fewer than seven of them is unmeasured. Where cores are never near, `--far` shows the results all the same.

mod figures;
mod many;
mod one;
mod peers;
mod report;
mod rows;
mod suite;
mod transports;
mod waiting;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use report::Results;
use ringway_harness::{Block, Pair, Plan, Row, rounds::usual_canary, stats::Summary};
use rows::Key;

/// Near blocks that a row must have.
const ROUNDS: usize = 7;

/// Measure ringway beside its peers and the bare hardware
#[derive(Parser)]
struct Args {
    /// Rings of many producers and consumers, instead of one and one
    #[arg(long)]
    mpmc: bool,
    /// Everything the kernel carries, beside raw system calls; `--only` takes the name of a mechanism
    #[arg(long, conflicts_with = "mpmc")]
    transports: bool,
    /// All ways to wait, beside the bare ones and those of others; `--only` takes the name of a section
    #[arg(long, conflicts_with_all = ["mpmc", "transports"])]
    waiting: bool,
    /// Keep the CPUs from halting while nobody runs, by processes of the lowest priority
    #[arg(long, requires = "waiting")]
    awake: bool,
    /// Only figures whose name contains this, and the rows they need; "figures" for all of them without further rows
    #[arg(long)]
    only: Option<String>,
    /// Count all blocks, near or not, and judge no figure
    #[arg(long)]
    far: bool,
    /// One JSON object per row and per figure
    #[arg(long)]
    json: bool,
    /// Stop after about this many seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Milliseconds that a block shall take
    #[arg(long, default_value_t = 60)]
    block: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let pair = Pair::new()?;
    if !pair.cpus.are_two() {
        return Err(io::Error::other("two CPUs are needed, and one is allowed"));
    }
    let counts: fn(&Block) -> bool = if args.far { |_| true } else { Block::near };
    let plan = Plan {
        rounds: ROUNDS,
        budget: Duration::from_secs(args.seconds),
        block: Duration::from_millis(args.block),
        counts,
    };
    if args.transports {
        let text = transports::run(&pair, plan, args.only.as_deref(), args.json)?;
        return io::stdout().lock().write_all(text.as_bytes());
    }
    if args.waiting {
        let text = waiting::run(&pair, plan, args.only.as_deref(), args.awake, args.json)?;
        return io::stdout().lock().write_all(text.as_bytes());
    }
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == "figures" || name.contains(only));
    let suite = if args.mpmc { many::SUITE } else { one::SUITE };
    let figures: Vec<_> = suite.figures.iter().copied().filter(|figure| wanted(figure.name)).collect();
    let mut keys = (suite.keys)();
    keys.retain(|key| args.only.is_none() || figures.iter().any(|figure| figure.needs(key)));
    let mut rows: Vec<Row<Key>> = keys.into_iter().map(suite.row).collect();
    if rows.is_empty() {
        return Err(io::Error::other("no figure has that in its name"));
    }

    let measured = measure(&pair, plan, &mut rows)?;
    let results = Results {
        rows: &measured,
        figures: &figures,
        columns: suite.columns,
        canary: usual_canary(&rows),
        cpus: pair.cpus.allowed,
        near: !args.far,
    };
    let text = if args.json { results.json()? } else { results.tables() };
    io::stdout().lock().write_all(text.as_bytes())
}

/// Measures in turns; a row with too few blocks that count has no result.
fn measure<T: Copy + Display>(pair: &Pair, plan: Plan, rows: &mut [Row<T>]) -> io::Result<Vec<(T, Option<Summary>)>> {
    let chatty = io::stderr().is_terminal();
    plan.run(pair, rows, |done, total, key| {
        if chatty {
            eprint!("\r\x1b[K{done}/{total} {key}");
        }
    })?;
    if chatty {
        eprint!("\r\x1b[K");
    }
    let result = |row: &Row<T>| {
        let counted = row.measured(plan.counts).map(|measured| measured.ns);
        (row.label, counted.filter(|ns| ns.rounds >= plan.rounds))
    };
    Ok(rows.iter().map(result).collect())
}
