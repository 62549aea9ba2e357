//! Waiting: ringway beside the bare ways to sleep and to be woken, beside pipes, sockets, iceoryx2's events and tokio's sockets, and
//! what it costs while nothing comes.

mod aio;
mod awake;
mod iceoryx;
mod idle;
mod rows;

use std::{fmt::Write, io};

use awake::Awake;
use comfy_table::{Cell, CellAlignment, Color, Table};
use idle::{Cost, Waiter};
use ringway_harness::{Pair, Plan, Row, rounds::usual_canary, stats::Summary};
use rows::{Aim, LINES, Line, Name, Section};
use serde_json::{Value, json};

use crate::{
    measure,
    report::{range, table},
};

/// Bytes per message.
const SIZE: usize = 64;

/// The name of the measurement of idle waiters, which stands beside those of the sections.
const IDLE: &str = "idle";
/// What a waiter may use in ten seconds while nothing comes, in ms of CPU time and in wake-ups a second.
const IDLE_AIMS: (f64, f64) = (5.0, 15.0);
/// What a wait set may use with a hundred rings, by what it uses with one; the tenth is for noise.
const CROWD_AIM: f64 = 1.1;

/// Measures, and says how it went.
pub fn run(pair: &Pair, plan: Plan, only: Option<&str>, is_awake: bool, as_json: bool) -> io::Result<String> {
    let is_wanted = |name: &str| only.is_none_or(|only| only == name);
    let sections: Vec<Section> = Section::ALL.into_iter().filter(|section| is_wanted(section.names().0)).collect();
    if sections.is_empty() && !is_wanted(IDLE) {
        let names = Section::ALL.map(|section| section.names().0).join(", ");
        return Err(io::Error::other(format!("no section has that name; there are {names} and {IDLE}")));
    }
    let _awake = is_awake.then(|| Awake::keep(&pair.cpus.sides)).transpose()?;
    let mut rows: Vec<Row<Name>> = Vec::new();
    for &section in &sections {
        rows.extend(rows::rows(section)?);
    }
    let measured = measure(pair, plan, &mut rows)?;
    let idle = if is_wanted(IDLE) { idle::measure(pair)? } else { Vec::new() };
    let results = Results { measured: &measured, idle: &idle, canary: usual_canary(&rows), cpus: pair.cpus.allowed };
    Ok(if as_json { results.json(&sections) } else { results.tables(&sections) })
}

/// What was measured.
struct Results<'a> {
    measured: &'a [(Name, Option<Summary>)],
    idle: &'a [(Waiter, Cost)],
    canary: Option<f64>,
    cpus: usize,
}

/// A line with its values.
struct Outcome {
    line: &'static Line,
    ours: Option<Summary>,
    theirs: Option<(Name, Summary)>,
}

impl Outcome {
    /// The value that the aim is about.
    fn value(&self) -> Option<f64> {
        let (ours, (_, theirs)) = self.ours.zip(self.theirs)?;
        Some(match self.line.aim {
            Aim::More(_) => ours.median - theirs.median,
            Aim::Ratio(_) | Aim::None => ours.median / theirs.median,
        })
    }

    /// What it is to be at most.
    fn aim(&self) -> Option<f64> {
        match self.line.aim {
            Aim::Ratio(aim) | Aim::More(aim) => Some(aim),
            Aim::None => None,
        }
    }
}

impl Results<'_> {
    fn outcomes(&self, section: Section) -> impl Iterator<Item = Outcome> {
        let find =
            |name: Name| self.measured.iter().find(|(other, _)| *other == name).and_then(|(_, summary)| *summary);
        LINES.iter().filter(move |line| line.section == section).map(move |line| {
            // All of them: a missing one might be the fastest.
            let theirs: Option<Vec<_>> = line.theirs.iter().map(|name| Some((*name, find(name)?))).collect();
            let fastest = theirs.and_then(|all| all.into_iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median)));
            Outcome { line, ours: find(line.ours), theirs: fastest }
        })
    }

    fn tables(&self, sections: &[Section]) -> String {
        let mut text = String::new();
        for &section in sections {
            let mut table =
                right_aligned(table([section.names().1, "ns", "against", "ns", "value", "aim"]), &[1, 3, 4, 5]);
            for outcome in self.outcomes(section) {
                let (name, theirs) = outcome.theirs.unzip();
                let unit = if matches!(outcome.line.aim, Aim::More(_)) { " ns more" } else { "" };
                table.add_row([
                    Cell::new(outcome.line.ours),
                    cell(outcome.ours),
                    Cell::new(name.unwrap_or_default()),
                    cell(theirs),
                    judged(outcome.value(), outcome.aim(), unit),
                    aim(outcome.aim()),
                ]);
            }
            let _ = writeln!(text, "{table}\n");
        }
        // Those that are compared with, and were not the fastest.
        let told: Vec<Name> = sections
            .iter()
            .flat_map(|&section| self.outcomes(section))
            .flat_map(|outcome| [Some(outcome.line.ours), outcome.theirs.map(|(name, _)| name)])
            .flatten()
            .collect();
        for (name, summary) in self.measured.iter().filter(|(name, _)| !told.contains(name)) {
            let _ = writeln!(text, "{name}: {} ns", summary.as_ref().map_or("unmeasured".to_owned(), range));
        }
        if !self.measured.is_empty() {
            let _ = write!(
                text,
                "ns: median (least to greatest) of {SIZE} B messages between two processes on {} CPUs, round trips by the whole way \
                 there and back, paused ones with about 1 ms between them;\nvalue: by the fastest of those it is compared with",
                self.cpus
            );
            let _ = match self.canary {
                Some(ns) => writeln!(text, "; the median of all canaries was {ns:.0} ns\n"),
                None => writeln!(text, "\n"),
            };
        }
        if !self.idle.is_empty() {
            let _ = writeln!(text, "{}", self.idle_table());
        }
        text
    }

    fn idle_table(&self) -> Table {
        let header =
            ["ten seconds of waiting for nothing", "CPU ms", "aim", "wake-ups a second", "aim", "by that of 1"];
        let mut table = right_aligned(table(header), &[1, 2, 3, 4, 5]);
        for (waiter, cost) in self.idle {
            let crowd = self.crowd(*waiter, cost);
            table.add_row([
                Cell::new(waiter.name()),
                judged(Some(cost.cpu_ms), Some(IDLE_AIMS.0), ""),
                Cell::new(format!("< {}", IDLE_AIMS.0)),
                judged(Some(cost.wakes), Some(IDLE_AIMS.1), ""),
                Cell::new(format!("< {}", IDLE_AIMS.1)),
                crowd.map_or(Cell::new(""), |value| judged(Some(value), Some(CROWD_AIM), "")),
            ]);
        }
        table
    }

    /// What a wait set of many uses by what one of a single ring does.
    fn crowd(&self, waiter: Waiter, cost: &Cost) -> Option<f64> {
        let (_, alone) = self.idle.iter().find(|(other, _)| *other == Waiter::Set(1))?;
        matches!(waiter, Waiter::Set(2..)).then(|| cost.cpu_ms / alone.cpu_ms)
    }

    /// One object for each line, then one for each idle waiter.
    fn json(&self, sections: &[Section]) -> String {
        let mut text = String::new();
        for outcome in sections.iter().flat_map(|&section| self.outcomes(section)) {
            let object = json!({
                "section": outcome.line.section.names().0,
                "row": outcome.line.ours,
                "ns": outcome.ours.as_ref().map(summary),
                "against": outcome.theirs.map(|(name, _)| name),
                "against_ns": outcome.theirs.map(|(_, theirs)| summary(&theirs)),
                "value": outcome.value(),
                "target": outcome.aim(),
                "cpus": self.cpus,
            });
            let _ = writeln!(text, "{object}");
        }
        for (waiter, cost) in self.idle {
            let object = json!({
                "section": IDLE,
                "row": waiter.name(),
                "cpu_ms": cost.cpu_ms,
                "cpu_ms_target": IDLE_AIMS.0,
                "wakes_per_second": cost.wakes,
                "wakes_target": IDLE_AIMS.1,
                "by_that_of_one": self.crowd(*waiter, cost),
                "cpus": self.cpus,
            });
            let _ = writeln!(text, "{object}");
        }
        text
    }
}

fn summary(summary: &Summary) -> Value {
    json!({ "median": summary.median, "min": summary.min, "max": summary.max, "rounds": summary.rounds })
}

fn right_aligned(mut table: Table, columns: &[usize]) -> Table {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn cell(summary: Option<Summary>) -> Cell {
    Cell::new(summary.as_ref().map_or("unmeasured".to_owned(), range))
}

fn aim(aim: Option<f64>) -> Cell {
    Cell::new(aim.map(|aim| format!("<= {aim}")).unwrap_or_default())
}

fn judged(value: Option<f64>, aim: Option<f64>, unit: &str) -> Cell {
    let cell = Cell::new(value.map(|value| format!("{value:.2}{unit}")).unwrap_or_default());
    match value.zip(aim).map(|(value, aim)| value <= aim) {
        Some(true) => cell.fg(Color::Green),
        Some(false) => cell.fg(Color::Yellow),
        None => cell,
    }
}
