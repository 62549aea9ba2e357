//! `ringway transports`: what each way can do, and whether it can be had on this machine.

mod probe;

use std::env;

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use ringway::{Address, transport::Capabilities, units::ByteSize};
use serde::Serialize;

use crate::{failure::Failure, output::print, signals};
use probe::{Probe, Scratch};

/// Show what each transport can do, and which of them can be had here
///
/// Each is tried: a message goes from one process to another, at a place of its own that is gone afterwards. Where that fails, the
/// reason stands below the table. Exit codes: 0 also when some can't be had, 1 no place to try them, 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object per transport
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the table in docs/transports.md, which is the same on every machine: nothing is tried
    #[arg(long)]
    markdown: bool,
}

/// A transport as it is written in the table; `NAME`, `PATH` and the like are replaced where it is tried.
#[derive(Clone, Copy)]
struct Way {
    address: &'static str,
    probe: Probe,
}

const fn way(address: &'static str, probe: Probe) -> Way {
    Way { address, probe }
}

const WAYS: [Way; 19] = [
    way("shm:///NAME", Probe::Named),
    way("shm:///NAME?ring=mpmc", Probe::Named),
    way("sysv:///PATH?id=7", Probe::Keyed),
    way("file:///PATH", Probe::Named),
    way("anon:NAME", Probe::Anonymous),
    way("memfd:///PATH", Probe::Named),
    way("auto:///NAME", Probe::Named),
    way("pipe: or fd://NUMBER", Probe::Inherited),
    way("fifo:///PATH", Probe::Named),
    way("pty:///PATH", Probe::Named),
    way("mq:///NAME", Probe::Named),
    way("sysvmq:///PATH?id=7", Probe::Keyed),
    way("unix:///PATH or unix:@NAME", Probe::Named),
    way("unix:///PATH?type=dgram", Probe::Named),
    way("unix:///PATH?type=seqpacket", Probe::Named),
    way("tcp://HOST:PORT", Probe::Listening("tcp://127.0.0.1:0")),
    way("udp://HOST:PORT", Probe::Listening("udp://127.0.0.1:0")),
    way("signal://PID", Probe::Listening("signal://self")),
    way("log:///PATH", Probe::Named),
];

/// A row as `--json` prints it. The names of the fields are part of the interface: see `docs/cli.md`.
#[derive(Serialize)]
struct Row {
    address: &'static str,
    scheme: &'static str,
    reliable: bool,
    ordered: bool,
    zero_copy: bool,
    max_message: u64,
    producers: Option<u32>,
    consumers: Option<u32>,
    survives_restart: bool,
    crosses_hosts: bool,
    pollable: bool,
    select_by_tag: bool,
    tells_death: bool,
    /// Whether it can be had here; none if it was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<bool>,
    /// Why it can't be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Option<String>>,
}

/// Tries and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut rows: Vec<Row> = WAYS.iter().map(Row::of).collect();
    if args.markdown {
        return print(&markdown(&rows));
    }
    signals::catch()?;
    let scratch = Scratch::new()
        .map_err(|error| Failure::of_io(&format!("make a directory in {}", env::temp_dir().display()), &error))?;
    for (way, row) in WAYS.iter().zip(&mut rows) {
        let outcome = way.probe.attempt(way.address, &scratch);
        signals::check()?;
        row.available = Some(outcome.is_ok());
        row.reason = Some(outcome.err());
    }
    drop(scratch);
    print(&if args.json { rows.iter().map(Row::json).collect() } else { table(&rows) })
}

impl Row {
    fn of(way: &Way) -> Self {
        let address: Address = probe::filled(way.address, "/path", "name").parse().expect("the table has addresses");
        let Capabilities {
            reliable,
            ordered,
            zero_copy,
            max_message,
            producers,
            consumers,
            survives_restart,
            crosses_hosts,
            pollable,
            select_by_tag,
            tells_death,
            ..
        } = address.capabilities();
        Self {
            address: way.address,
            scheme: address.target().scheme(),
            reliable,
            ordered,
            zero_copy,
            max_message,
            producers,
            consumers,
            survives_restart,
            crosses_hosts,
            pollable,
            select_by_tag,
            tells_death,
            available: None,
            reason: None,
        }
    }

    fn json(&self) -> String {
        let mut line = serde_json::to_string(self).expect("it has only string keys and cannot fail");
        line.push('\n');
        line
    }

    /// The columns of both tables.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let yes = |is: bool| if is { "yes" } else { "-" }.to_owned();
        let most = |count: Option<u32>| count.map_or("any".to_owned(), |count| count.to_string());
        [
            yes(self.reliable),
            yes(self.ordered),
            yes(self.zero_copy),
            length(self.max_message),
            most(self.producers),
            most(self.consumers),
            yes(self.survives_restart),
            yes(self.crosses_hosts),
            yes(self.pollable),
            yes(self.select_by_tag),
            yes(self.tells_death),
        ]
    }
}

const COLUMNS: [&str; 11] = [
    "reliable",
    "ordered",
    "zero copy",
    "longest message",
    "senders",
    "receivers",
    "survives a restart",
    "crosses hosts",
    "pollable",
    "selects by tag",
    "tells death",
];

/// A length as people say it: some are a few bytes short of a round one.
fn length(bytes: u64) -> String {
    match bytes.next_power_of_two() {
        round if round != bytes && round - bytes <= 64 => format!("< {}", ByteSize(round)),
        _ => ByteSize(bytes).to_string(),
    }
}

fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = ["address"].into_iter().chain(COLUMNS).map(str::to_owned).collect();
    let mut text = line(&header) + &line(&["---"; COLUMNS.len() + 1].map(str::to_owned));
    for row in rows {
        let address = row.address.split(" or ").map(|address| format!("`{address}`")).collect::<Vec<_>>().join(", ");
        let cells: Vec<String> = [address].into_iter().chain(row.cells()).collect();
        text += &line(&cells);
    }
    text
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let header = ["address", "here"].into_iter().chain(COLUMNS);
    // Each word below the other: there are many columns.
    table.set_header(header.map(|name| name.to_uppercase().replace(' ', "\n")));
    for row in rows {
        let here = match row.available {
            Some(true) => "yes",
            _ => "no",
        };
        table.add_row([row.address.to_owned(), here.to_owned()].into_iter().chain(row.cells()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.column_mut(5).expect("it has thirteen").set_cell_alignment(CellAlignment::Right);
    let reasons =
        rows.iter().filter_map(|row| Some(format!("\n{}: {}\n", row.address, row.reason.as_ref()?.as_ref()?)));
    format!("{}\n{}", table.trim_fmt(), reasons.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_round() {
        assert_eq!([1 << 30, (1 << 30) - 16, 65_507, 8 << 10].map(length), ["1GiB", "< 1GiB", "< 64KiB", "8KiB"]);
    }

    #[test]
    fn each_scheme_is_there() {
        let rows: Vec<Row> = WAYS.iter().map(Row::of).collect();
        let mut schemes: Vec<&str> = rows.iter().map(|row| row.scheme).collect();
        schemes.dedup();
        assert_eq!(schemes.len(), 16, "{schemes:?}");
    }
}
