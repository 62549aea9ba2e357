//! The program as a person meets it: a short bench, and bytes from one process to another.

use crate::steps::{Outcome, run, target_dir};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Every row of `ringway bench --json` has these.
const FIELDS: [&str; 15] = [
    "transport",
    "ring",
    "wait",
    "size",
    "batch",
    "metric",
    "median",
    "min",
    "max",
    "p50",
    "p99",
    "p999",
    "rounds",
    "canary_before_ns",
    "canary_after_ns",
];
const METRICS: [&str; 2] = ["\"one_way_ns\"", "\"rtt_ns\""];

const BENCH_LIMIT: Duration = Duration::from_secs(120);
const PIPE_LIMIT: Duration = Duration::from_secs(60);

/// Measures for a moment and checks the rows it prints.
pub fn bench() -> Outcome {
    let path = folder()?.join("bench.jsonl");
    let mut command = Command::new(ringway());
    command.args(["bench", "--seconds", "3", "--json"]).stdin(Stdio::null()).stdout(create(&path)?);
    Running::start("ringway bench", &mut command)?.finish(BENCH_LIMIT)?;
    let rows = fs::read_to_string(&path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
    rows.lines().try_for_each(check_row)?;
    for metric in METRICS {
        let shm = |row: &&str| field(row, "transport") == Some("\"shm\"") && field(row, "metric") == Some(metric);
        if rows.lines().find(shm).is_none() {
            return Err(format!("the bench printed no row of {metric} over shm, in {} rows", rows.lines().count()));
        }
    }
    println!("{} rows with all {} fields", rows.lines().count(), FIELDS.len());
    Ok(())
}

fn check_row(row: &str) -> Outcome {
    if !(row.starts_with('{') && row.ends_with('}')) {
        return Err(format!("the bench printed a line that is no object: {row}"));
    }
    if let Some(missing) = FIELDS.iter().find(|name| field(row, name).is_none()) {
        return Err(format!("the bench printed a row without {missing}: {row}"));
    }
    if !METRICS.contains(&field(row, "metric").unwrap_or_default()) {
        return Err(format!("the bench printed a row of an unknown metric: {row}"));
    }
    match field(row, "median").and_then(|median| median.parse().ok()) {
        Some(median) if 0.0 < median && median < f64::INFINITY => Ok(()),
        _ => Err(format!("the bench printed a row without a positive median: {row}")),
    }
}

/// The scalar behind a field's name in an object of one line.
fn field<'a>(row: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = row.split_once(&format!("\"{name}\":"))?;
    rest.split([',', '}']).next().map(str::trim)
}

/// Sends files through each kind of segment; what comes out must be the same, and exit codes 0.
pub fn send_and_recv() -> Outcome {
    let folder = folder()?;
    let (bytes, lines) = (folder.join("bytes"), folder.join("lines"));
    write(&bytes, |out| random().take(16 << 17).try_for_each(|word| out.write_all(&word.to_le_bytes())))?;
    write(&lines, |out| {
        random().take(200_000).try_for_each(|word| writeln!(out, "{:.*}", word as usize % 90, "x".repeat(90)))
    })?;
    let pid = process::id();
    let ring = std::path::absolute(folder.join(format!("{pid}.ring"))).map_err(|error| error.to_string())?;
    let key = std::path::absolute(&bytes).map_err(|error| error.to_string())?;
    let chunks: (&[&str], &[&str]) = (&["--chunk", "64KiB"], &["--raw"]);
    let as_lines: (&[&str], &[&str]) = (&[], &[]);
    for (address, input, flags, first) in [
        (format!("shm:///ringway-smoke-{pid}"), &bytes, chunks, First::Receiver),
        (format!("shm:///ringway-smoke-{pid}?wait=sem"), &bytes, chunks, First::Sender),
        (format!("sysv://{}?id=7", key.display()), &bytes, chunks, First::Sender),
        (format!("file://{}", ring.display()), &bytes, chunks, First::Receiver),
        (format!("shm:///ringway-smoke-{pid}"), &lines, as_lines, First::Sender),
    ] {
        let outcome = pass(&address, input, &folder.join("output"), flags, first);
        if outcome.is_err() {
            // The failure is what matters; this only keeps it from leaving a segment behind as well.
            let _ = Command::new(ringway()).args(["rm", &address]).output();
        }
        outcome.map_err(|problem| format!("{problem}, over {address}"))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum First {
    Sender,
    Receiver,
}

fn pass(address: &str, input: &Path, output: &Path, flags: (&[&str], &[&str]), first: First) -> Outcome {
    println!("{} over {address}", input.display());
    let mut send = Command::new(ringway());
    let source = File::open(input).map_err(|error| format!("could not open {}: {error}", input.display()))?;
    send.arg("send").args(flags.0).arg(address).stdin(source);
    let mut recv = Command::new(ringway());
    recv.arg("recv").args(flags.1).arg(address).stdin(Stdio::null()).stdout(create(output)?);
    let (sender, receiver) = match first {
        First::Sender => (Running::start("ringway send", &mut send)?, Running::start("ringway recv", &mut recv)?),
        First::Receiver => {
            let receiver = Running::start("ringway recv", &mut recv)?;
            (Running::start("ringway send", &mut send)?, receiver)
        }
    };
    sender.finish(PIPE_LIMIT)?;
    receiver.finish(PIPE_LIMIT)?;
    run(Command::new("cmp").args([input, output]))
}

/// A process that doesn't outlive its test.
struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    fn start(name: &'static str, command: &mut Command) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| format!("could not start {name}: {error}"))?;
        Ok(Self { name, child })
    }

    fn finish(mut self, limit: Duration) -> Outcome {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Err(error) => return Err(format!("could not wait for {}: {error}", self.name)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{} failed ({status})", self.name)),
                Ok(None) if start.elapsed() > limit => {
                    return Err(format!("{} did not end within {limit:?}", self.name));
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ringway() -> PathBuf {
    target_dir().join("release/ringway")
}

fn folder() -> Result<PathBuf, String> {
    let folder = target_dir().join("smoke");
    fs::create_dir_all(&folder).map_err(|error| format!("could not create {}: {error}", folder.display()))?;
    Ok(folder)
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| format!("could not create {}: {error}", path.display()))
}

fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Outcome {
    let mut out = BufWriter::new(create(path)?);
    fill(&mut out).and_then(|()| out.flush()).map_err(|error| format!("could not write {}: {error}", path.display()))
}

/// Marsaglia's xorshift: the same words in each run.
fn random() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |&word| {
        let word = word ^ word << 13;
        let word = word ^ word >> 7;
        Some(word ^ word << 17)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(metric: &str, median: &str) -> String {
        let fields = FIELDS.map(|name| match name {
            "metric" => format!("\"metric\":\"{metric}\""),
            "median" => format!("\"median\": {median}"),
            _ => format!("\"{name}\":1"),
        });
        format!("{{{}}}", fields.join(","))
    }

    #[test]
    fn rows_need_every_field_and_a_measurement() {
        assert_eq!(check_row(&row("rtt_ns", "104.5")), Ok(()));
        for bad in [
            "progress 10 %".to_owned(),
            row("rtt_ns", "104.5").replace("p999", "p9999"),
            row("rtt_us", "104.5"),
            row("one_way_ns", "0"),
            row("one_way_ns", "null"),
        ] {
            assert!(check_row(&bad).is_err(), "{bad}");
        }
    }
}
