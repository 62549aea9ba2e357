//! The tables, and the same as JSON.

use std::{fmt::Write, io};

use comfy_table::{Cell, Color, Table, presets::UTF8_HORIZONTAL_ONLY};
use ringway_harness::stats::Summary;
use serde_json::json;

use crate::{
    figures::{Figure, Value},
    rows::{Key, Metric, Who},
};

/// Rows with their results; none where there were too few near blocks.
type Measured = [(Key, Option<Summary>)];

fn find(measured: &Measured, key: &Key) -> Option<Summary> {
    measured.iter().find(|(other, _)| other == key).and_then(|(_, summary)| *summary)
}

fn verdict(figure: &Figure, value: &Option<Value>) -> &'static str {
    match value {
        Some(value) if value.value <= figure.target => "yes",
        Some(_) => "no",
        None => "unmeasured",
    }
}

/// One object per row, then one per figure.
pub fn json(measured: &Measured, figures: &[Figure]) -> io::Result<String> {
    let mut text = String::new();
    let summary = |summary: &Summary| json!({ "median": summary.median, "min": summary.min, "max": summary.max, "rounds": summary.rounds });
    for (key, result) in measured {
        let mut object = serde_json::to_value(key)?;
        object["ns"] = result.as_ref().map(summary).into();
        let _ = writeln!(text, "{object}");
    }
    for figure in figures {
        let value = figure.value(|key| find(measured, key));
        let object = json!({
            "figure": figure.name,
            "value": value.as_ref().map(|value| value.value),
            "target": figure.target,
            "reached": verdict(figure, &value),
            "ringway_ns": value.as_ref().map(|value| summary(&value.ours)),
            "against": value.as_ref().and_then(|value| value.theirs.as_ref()).map(|(who, _)| who),
            "against_ns": value.as_ref().and_then(|value| value.theirs.as_ref()).map(|(_, theirs)| summary(theirs)),
        });
        let _ = writeln!(text, "{object}");
    }
    Ok(text)
}

/// The figures, then all rows.
pub fn tables(measured: &Measured, figures: &[Figure], canary: Option<f64>) -> String {
    let mut text = String::new();
    if !figures.is_empty() {
        let _ = writeln!(text, "{}\n", figure_table(measured, figures));
    }
    let _ = writeln!(text, "{}", row_table(measured));
    let _ = write!(text, "ns: median (least to greatest) of the blocks between near canaries");
    let _ = match canary {
        Some(ns) => writeln!(text, "; the median of all canaries was {ns:.0} ns"),
        None => writeln!(text),
    };
    text
}

fn figure_table(measured: &Measured, figures: &[Figure]) -> Table {
    let mut table = table(["figure", "ringway ns", "against", "ns", "value", "target", "reached"]);
    for figure in figures {
        let value = figure.value(|key| find(measured, key));
        let verdict = verdict(figure, &value);
        let (ours, who, theirs, number) = match value {
            Some(Value { value, ours, theirs: Some((who, theirs)) }) => {
                (range(&ours), format!("{who:?}"), range(&theirs), format!("{value:.2}"))
            }
            Some(Value { value, ours, theirs: None }) => {
                (range(&ours), String::new(), String::new(), format!("{value:.3} s"))
            }
            None => Default::default(),
        };
        let color = if verdict == "yes" { Color::Green } else { Color::Yellow };
        let texts = [figure.name.to_owned(), ours, who, theirs, number, format!("<= {}", figure.target)];
        table.add_row(texts.map(Cell::new).into_iter().chain([Cell::new(verdict).fg(color)]));
    }
    table
}

/// One line for each kind of work, one column for each who does it.
fn row_table(measured: &Measured) -> Table {
    let columns: [(&str, &[Who]); 8] = [
        ("ringway spin", &[Who::RingwaySpin]),
        ("futex", &[Who::RingwayFutex]),
        ("sleep", &[Who::RingwaySleep]),
        ("rtrb in place", &[Who::RtrbInPlace]),
        ("by value", &[Who::RtrbValue]),
        ("gil in place", &[Who::GilInPlace]),
        ("by value", &[Who::GilValue, Who::GilMpmc]),
        ("bare", &[Who::BareRing, Who::PingPong, Who::BareFutex]),
    ];
    let mut table = table(["work", "ring", "size", "batch"].into_iter().chain(columns.map(|(name, _)| name)));
    let work = |key: &Key| (key.metric, key.size, key.batch, key.ring);
    let mut works: Vec<_> = measured.iter().map(|(key, _)| work(key)).collect();
    works.sort();
    works.dedup();
    for (metric, size, batch, ring) in works {
        let name = match metric {
            Metric::OneWay => "stream",
            Metric::RoundTrip => "round trip",
            Metric::Million => "1 M from start",
        };
        let mut cells = vec![name.to_owned(), format!("{} KiB", ring >> 10), size.to_string(), batch.to_string()];
        cells.extend(columns.iter().map(|(_, who)| {
            let here = |key: &Key| work(key) == (metric, size, batch, ring) && who.contains(&key.who);
            let results = measured.iter().filter(|(key, _)| here(key)).map(|(_, result)| result);
            results.map(|result| result.as_ref().map_or("unmeasured".to_owned(), range)).collect::<Vec<_>>().join("\n")
        }));
        table.add_row(cells);
    }
    table
}

fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.into_iter().collect::<Vec<_>>());
    table
}

fn range(Summary { median, min, max, .. }: &Summary) -> String {
    let digits = if *median < 100.0 { 1 } else { 0 };
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}
