//! The tables, and the same as JSON.

use std::{fmt::Write, io};

use comfy_table::{Cell, Color, Table, presets::UTF8_HORIZONTAL_ONLY};
use ringway_harness::stats::Summary;
use serde_json::json;

use crate::{
    figures::{Figure, Value},
    rows::{Key, Metric},
    suite::Column,
};

/// What was measured.
pub struct Results<'a> {
    /// Rows with their results; none where too few blocks counted.
    pub rows: &'a [(Key, Option<Summary>)],
    /// What is to be judged.
    pub figures: &'a [Figure],
    /// How the rows are shown.
    pub columns: &'a [Column],
    /// The usual one, in ns.
    pub canary: Option<f64>,
    /// How many there are.
    pub cpus: usize,
    /// Whether only near blocks counted; else nothing is judged.
    pub near: bool,
}

impl Results<'_> {
    /// One object per row, then one per figure.
    pub fn json(&self) -> io::Result<String> {
        let mut text = String::new();
        let summary = |summary: &Summary| json!({ "median": summary.median, "min": summary.min, "max": summary.max, "rounds": summary.rounds });
        for (key, result) in self.rows {
            let mut object = serde_json::to_value(key)?;
            object["ns"] = result.as_ref().map(summary).into();
            object["cpus"] = self.cpus.into();
            object["near"] = self.near.into();
            let _ = writeln!(text, "{object}");
        }
        for figure in self.figures {
            let value = figure.value(|key| self.find(key));
            let object = json!({
                "figure": figure.name,
                "value": value.as_ref().map(|value| value.value),
                "target": figure.target,
                "reached": self.verdict(figure, &value),
                "ringway_ns": value.as_ref().map(|value| summary(&value.ours)),
                "against": value.as_ref().and_then(|value| value.theirs.as_ref()).map(|(key, _)| key.who),
                "against_ns": value.as_ref().and_then(|value| value.theirs.as_ref()).map(|(_, theirs)| summary(theirs)),
            });
            let _ = writeln!(text, "{object}");
        }
        Ok(text)
    }

    /// The figures, then all rows.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        if !self.figures.is_empty() {
            let _ = writeln!(text, "{}\n", self.figure_table());
        }
        let _ = writeln!(text, "{}", self.row_table());
        let blocks = if self.near { "the blocks between near canaries" } else { "all blocks, near or not" };
        let _ = write!(text, "ns: median (least to greatest) of {blocks}, on {} CPUs", self.cpus);
        let _ = match self.canary {
            Some(ns) => writeln!(text, "; the median of all canaries was {ns:.0} ns"),
            None => writeln!(text),
        };
        text
    }

    fn figure_table(&self) -> Table {
        let mut table = table(["figure", "ringway ns", "against", "ns", "value", "target", "reached"]);
        for figure in self.figures {
            let value = figure.value(|key| self.find(key));
            let verdict = self.verdict(figure, &value);
            let (ours, who, theirs, number) = match value {
                Some(Value { value, ours, theirs: Some((key, theirs)) }) => {
                    (range(&ours), against(&figure.ours, &key), range(&theirs), format!("{value:.2}"))
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
    fn row_table(&self) -> Table {
        let mut table =
            table(["work", "ring", "size", "batch"].into_iter().chain(self.columns.iter().map(|(name, _)| *name)));
        let work = |key: &Key| (key.metric, key.roles, key.size, key.batch, key.ring);
        let mut works: Vec<_> = self.rows.iter().map(|(key, _)| work(key)).collect();
        works.sort();
        works.dedup();
        for (metric, roles, size, batch, ring) in works {
            let name = match metric {
                Metric::OneWay => "stream".to_owned(),
                Metric::RoundTrip => "round trip".to_owned(),
                Metric::Million => "1 M from start".to_owned(),
                Metric::Many => roles.to_string(),
            };
            let mut cells = vec![name, format!("{} KiB", ring >> 10), size.to_string(), batch.to_string()];
            cells.extend(self.columns.iter().map(|(_, who)| {
                let here = |key: &Key| work(key) == (metric, roles, size, batch, ring) && who.contains(&key.who);
                let results = self.rows.iter().filter(|(key, _)| here(key)).map(|(_, result)| result);
                results
                    .map(|result| result.as_ref().map_or("unmeasured".to_owned(), range))
                    .collect::<Vec<_>>()
                    .join("\n")
            }));
            table.add_row(cells);
        }
        table
    }

    fn find(&self, key: &Key) -> Option<Summary> {
        self.rows.iter().find(|(other, _)| other == key).and_then(|(_, summary)| *summary)
    }

    fn verdict(&self, figure: &Figure, value: &Option<Value>) -> &'static str {
        match value {
            Some(_) if !self.near => "not judged",
            Some(value) if value.value <= figure.target => "yes",
            Some(_) => "no",
            None => "unmeasured",
        }
    }
}

/// What a figure's row is compared with.
fn against(ours: &Key, theirs: &Key) -> String {
    if ours.who == theirs.who {
        return format!("{}, {} at a time", theirs.roles, theirs.batch);
    }
    format!("{:?}", theirs.who)
}

/// A table in the style of all of them.
pub fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.into_iter().collect::<Vec<_>>());
    table
}

/// A result with the least and the greatest of its blocks.
pub fn range(Summary { median, min, max, .. }: &Summary) -> String {
    let digits = if *median < 100.0 { 1 } else { 0 };
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}
