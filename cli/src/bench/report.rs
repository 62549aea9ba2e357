//! The results: tables for people, JSON for programs.

use std::{fmt::Write, io};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::UTF8_HORIZONTAL_ONLY};
use ringway::units::ByteSize;
use ringway_harness::{Row, cpus::Cpus, rounds::Measured};
use serde::Serialize;

use super::rows::{Key, Metric, name};

/// A row that was measured.
pub struct Outcome {
    key: Key,
    measured: Measured,
    /// In none of its blocks were the CPUs where they were for most of the run.
    moved: bool,
}

/// Sums up the blocks in which the sides were about `canary` apart; all blocks, if there are no such.
pub fn results(rows: Vec<Row<Key>>, canary: Option<f64>) -> Vec<Outcome> {
    let outcome = |row: Row<Key>| {
        let steady = row.measured(|block| canary.is_none_or(|canary| block.steady_at(canary)));
        let moved = steady.is_none();
        steady.or_else(|| row.measured(|_| true)).map(|measured| Outcome { key: row.label, measured, moved })
    };
    rows.into_iter().filter_map(outcome).collect()
}

impl Outcome {
    /// The round trip, in ns, that this share of all was no slower than.
    fn quantile(&self, share: f64) -> Option<u64> {
        self.measured.histogram.as_ref().map(|histogram| histogram.value_at_quantile(share))
    }
}

/// What `--json` prints for a row.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    key: &'a Key,
    median: f64,
    min: f64,
    max: f64,
    p50: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    rounds: usize,
    canary_before_ns: Option<f64>,
    canary_after_ns: Option<f64>,
}

/// One JSON object per row, a line each.
pub fn json(results: &[Outcome]) -> io::Result<String> {
    let rounded = |ns: f64| (ns * 100.0).round() / 100.0;
    let mut text = String::new();
    for result in results {
        let Measured { ns, canary, .. } = &result.measured;
        let object = Object {
            key: &result.key,
            median: rounded(ns.median),
            min: rounded(ns.min),
            max: rounded(ns.max),
            p50: result.quantile(0.5),
            p99: result.quantile(0.99),
            p999: result.quantile(0.999),
            rounds: ns.rounds,
            canary_before_ns: canary.map(|(before, _)| rounded(before)),
            canary_after_ns: canary.map(|(_, after)| rounded(after)),
        };
        text += &serde_json::to_string(&object)?;
        text.push('\n');
    }
    Ok(text)
}

/// A table of streams and one of round trips, with what is needed to judge them.
pub fn tables(results: &[Outcome], cpus: Cpus, canary: Option<f64>) -> String {
    let mut text = String::new();
    let (one_way, round_trips): (Vec<_>, Vec<_>) = results.iter().partition(|r| r.key.metric == Metric::OneWay);
    if !one_way.is_empty() {
        let _ = writeln!(text, "\nOne way, time per message\n{}", streams(&one_way));
    }
    if !round_trips.is_empty() {
        let _ = writeln!(text, "\nThere and back\n{}", latencies(&round_trips, canary));
    }
    let [a, b] = cpus.sides;
    let _ = match canary {
        Some(ns) => writeln!(
            text,
            "\nTwo processes, pinned to CPU {a} and CPU {b} of {}. Between these, a cache line passed to and fro bare takes \
             {ns:.0} ns;\ncanary: the same, measured before and after each row.",
            cpus.allowed,
        ),
        None => writeln!(
            text,
            "\nTwo processes share CPU {a}, the only one allowed: nothing that spins was measured, and there is no canary."
        ),
    };
    if !round_trips.is_empty() {
        text +=
            "Percentiles are of single round trips, each with a time stamp (about 25 ns) in it; the mean is without.\n";
    }
    if results.iter().any(|result| result.moved) {
        text += "~ The CPUs were elsewhere or moved while this was measured: don't compare it with the others.\n";
    }
    text
}

/// Rows that differ only in the size of the messages share a line.
fn streams(results: &[&Outcome]) -> Table {
    let mut sizes: Vec<usize> = results.iter().map(|result| result.key.size).collect();
    sizes.sort();
    sizes.dedup();
    let batches = results.iter().any(|result| result.key.batch > 1);
    let mut table = table();
    let mut header = vec!["".to_owned(), "waits".to_owned()];
    header.extend(batches.then(|| "batch".to_owned()));
    header.extend(sizes.iter().map(|&size| ByteSize(size as u64).to_string()));
    header.push("canary".to_owned());
    table.set_header(header.into_iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    for line in results.chunk_by(|a, b| Key { size: 0, ..a.key.clone() } == Key { size: 0, ..b.key.clone() }) {
        let mut cells = who(line[0]);
        cells.extend(batches.then(|| Cell::new(line[0].key.batch).set_alignment(CellAlignment::Right)));
        cells.extend(sizes.iter().map(|&size| match line.iter().find(|result| result.key.size == size) {
            Some(result) => {
                let ns = result.measured.ns.median;
                figure(result, format!("{}\n{:.2} GB/s", time(ns), size as f64 / ns))
            }
            None => Cell::new(""),
        }));
        cells.push(canaries(line));
        table.add_row(cells);
    }
    right_from(table, 2)
}

fn latencies(results: &[&Outcome], canary: Option<f64>) -> Table {
    let sizes = results.iter().any(|result| result.key.size != results[0].key.size);
    let mut table = table();
    let mut header = vec!["", "waits"];
    header.extend(sizes.then_some("size"));
    header.extend(["mean", "p50", "p99", "p99.9", "x bare", "canary"]);
    table.set_header(header.into_iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    for result in results {
        let ns = result.measured.ns.median;
        let mut cells = who(result);
        cells.extend(sizes.then(|| Cell::new(ByteSize(result.key.size as u64))));
        cells.push(figure(result, time(ns)));
        for share in [0.5, 0.99, 0.999] {
            let ns = result.quantile(share);
            cells.push(figure(result, ns.map(|ns| time(ns as f64)).unwrap_or_default()));
        }
        cells.push(figure(result, canary.map(|canary| format!("{:.2}", ns / canary)).unwrap_or_default()));
        cells.push(canaries(&[result]));
        table.add_row(cells);
    }
    right_from(table, 2)
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    if std::env::var_os("NO_COLOR").is_some() {
        table.force_no_tty();
    }
    table
}

fn right_from(mut table: Table, first: usize) -> Table {
    table.column_iter_mut().skip(first).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// The cells that name a line.
fn who(result: &Outcome) -> Vec<Cell> {
    let transport = name(&result.key.transport);
    let name_of_ring = result.key.ring.as_deref().map(|ring| format!("{transport} {ring}"));
    let cell = match name_of_ring {
        Some(ours) => Cell::new(ours).fg(Color::Green),
        None => Cell::new(transport),
    };
    vec![cell, Cell::new(name(&result.key.wait))]
}

/// A measured value, marked if the CPUs moved.
fn figure(result: &Outcome, text: String) -> Cell {
    if result.moved { Cell::new(format!("~{text}")).fg(Color::Yellow) } else { Cell::new(text) }
}

fn canaries(results: &[&Outcome]) -> Cell {
    let canaries: Vec<_> = results.iter().filter_map(|result| result.measured.canary).collect();
    let mean = |side: fn(&(f64, f64)) -> f64| canaries.iter().map(side).sum::<f64>() / canaries.len() as f64;
    match canaries.is_empty() {
        true => Cell::new(""),
        false => Cell::new(format!("{:.0} · {:.0}", mean(|c| c.0), mean(|c| c.1))).fg(Color::DarkGrey),
    }
}

/// A duration in three or four digits.
fn time(ns: f64) -> String {
    match ns {
        ..100.0 => format!("{ns:.1} ns"),
        ..1e4 => format!("{ns:.0} ns"),
        ..1e5 => format!("{:.1} µs", ns / 1e3),
        ..1e7 => format!("{:.0} µs", ns / 1e3),
        _ => format!("{:.0} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ringway_harness::stats::Summary;

    use super::*;
    use crate::bench::rows::{Transport, Wait};

    fn outcome(metric: Metric, moved: bool) -> Outcome {
        let key = Key {
            transport: Transport::Shm,
            ring: Some("spsc/4MiB".to_owned()),
            wait: Wait::Spin,
            size: 64,
            batch: 1,
            metric,
        };
        let ns = Summary { median: 4.126, min: 3.0, max: 9.0, rounds: 7 };
        Outcome { key, measured: Measured { ns, histogram: None, canary: Some((100.0, 101.0)) }, moved }
    }

    #[test]
    fn json_has_the_documented_fields() {
        assert_eq!(
            json(&[outcome(Metric::OneWay, false)]).unwrap(),
            concat!(
                r#"{"transport":"shm","ring":"spsc/4MiB","wait":"spin","size":64,"batch":1,"metric":"one_way_ns","#,
                r#""median":4.13,"min":3.0,"max":9.0,"p50":null,"p99":null,"p999":null,"rounds":7,"#,
                r#""canary_before_ns":100.0,"canary_after_ns":101.0}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_moved_row_is_marked_and_explained() {
        let cpus = Cpus { sides: [0, 1], allowed: 2 };
        for metric in [Metric::OneWay, Metric::RoundTrip] {
            let marks = |moved| tables(&[outcome(metric, moved)], cpus, Some(100.0)).matches('~').count();
            assert_eq!(marks(false), 0);
            assert!(marks(true) >= 2, "one at the figure, one at the explanation");
        }
    }

    #[test]
    fn times_have_few_digits() {
        let texts = [4.126, 101.6, 41_234.0, 412_345.0, 4.1e7].map(time);
        assert_eq!(texts, ["4.1 ns", "102 ns", "41.2 µs", "412 µs", "41 ms"]);
    }
}
