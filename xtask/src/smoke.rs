//! The program as a person meets it: a short bench, and bytes from one process to another.

use crate::steps::{Outcome, run, target_dir};
use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
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

/// Sends files through each kind of segment, and through a ring of many; what comes out must be the same, and exit codes 0.
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
    carry(&key, &folder)?;
    let address = format!("shm:///ringway-smoke-{pid}?ring=mpmc&max_message=128KiB");
    let outcome = share(&address, &lines, &folder).and_then(|()| outlive(&address, &folder));
    if outcome.is_err() {
        // As above.
        let _ = Command::new(ringway()).args(["rm", &address]).output();
    }
    outcome.map_err(|problem| format!("{problem}, over {address}"))
}

/// Sends a shorter file by everything else that both sides find by one address, and through a pipe.
fn carry(key: &Path, folder: &Path) -> Outcome {
    let (pid, directory) = (process::id(), env::temp_dir());
    let (input, output) = (folder.join("short"), folder.join("output"));
    // No more than the buffer of a socket holds, which is all that UDP has.
    write(&input, |out| random().take(1 << 13).try_for_each(|word| out.write_all(&word.to_le_bytes())))?;
    let path = directory.join(format!("ringway-smoke-{pid}"));
    let at = |scheme: &str, options: &str| format!("{scheme}://{}{options}", path.display());
    let flags: (&[&str], &[&str]) = (&["--chunk", "10000"], &["--raw"]);
    for address in [
        at("memfd", ""),
        format!("auto:///ringway-smoke-{pid}"),
        at("fifo", ""),
        at("pty", ""),
        format!("mq:///ringway-smoke-{pid}"),
        format!("sysvmq://{}?id=7", key.display()),
        at("unix", ""),
        at("unix", "?type=dgram"),
        at("unix", "?type=seqpacket"),
        format!("unix:@ringway-smoke-{pid}"),
        at("log", ""),
    ] {
        let outcome = pass(&address, &input, &output, flags, First::Receiver);
        if outcome.is_err() || address.starts_with("log:") {
            // A log stays; for the others, as above.
            let _ = Command::new(ringway()).args(["rm", "--force", &address]).output();
        }
        outcome.map_err(|problem| format!("{problem}, over {address}"))?;
    }
    for address in ["tcp://127.0.0.1:0", "udp://127.0.0.1:0", "signal://self"] {
        find(address, &input, &output, flags).map_err(|problem| format!("{problem}, over {address}"))?;
    }
    println!("{} over a pipe", input.display());
    let (reader, writer) = io::pipe().map_err(|error| format!("could not make a pipe: {error}"))?;
    let (mut send, mut recv) = (Command::new(ringway()), Command::new(ringway()));
    send.arg("send").args(flags.0).arg("fd://1").stdin(open(&input)?).stdout(writer);
    recv.arg("recv").args(flags.1).arg("fd://0").stdin(reader).stdout(create(&output)?);
    let (sender, receiver) = (Running::start("ringway send", &mut send)?, Running::start("ringway recv", &mut recv)?);
    // Or the pipe would have a sender here.
    drop((send, recv));
    sender.finish(PIPE_LIMIT)?;
    receiver.finish(PIPE_LIMIT)?;
    run(Command::new("cmp").args([input, output]))
}

/// Sends to where the receiver says it is.
fn find(address: &str, input: &Path, output: &Path, flags: (&[&str], &[&str])) -> Outcome {
    println!("{} over {address}", input.display());
    let mut recv = Command::new(ringway());
    recv.arg("recv").args(flags.1).arg(address).stdin(Stdio::null()).stdout(create(output)?).stderr(Stdio::piped());
    let mut receiver = Running::start("ringway recv", &mut recv)?;
    let mut line = String::new();
    if let Some(stderr) = receiver.child.stderr.take() {
        BufReader::new(stderr).read_line(&mut line).map_err(|error| format!("could not hear ringway recv: {error}"))?;
    }
    let reached = line.trim_end().strip_prefix("ringway: receiving at ").ok_or_else(|| format!("it said {line:?}"))?;
    let mut send = Command::new(ringway());
    send.arg("send").args(flags.0).arg(reached).stdin(open(input)?);
    Running::start("ringway send", &mut send)?.finish(PIPE_LIMIT)?;
    receiver.finish(PIPE_LIMIT)?;
    run(Command::new("cmp").args([input, output]))
}

/// Two senders and two receivers: each line comes out once.
fn share(address: &str, lines: &Path, folder: &Path) -> Outcome {
    println!("{} twice over {address}", lines.display());
    // Or the receivers would end when the first sender does.
    let mut silent = Command::new(ringway());
    let mut silent = Running::start("ringway send", silent.args(["send", address]).stdin(Stdio::piped()))?;
    until(address, "\"alive\"")?;
    let outputs = ["output", "output2"].map(|name| folder.join(name));
    let mut receivers = Vec::new();
    for output in &outputs {
        let mut recv = Command::new(ringway());
        recv.args(["recv", address]).stdin(Stdio::null()).stdout(create(output)?);
        receivers.push(Running::start("ringway recv", &mut recv)?);
    }
    let mut senders = Vec::new();
    for _ in 0..2 {
        let mut send = Command::new(ringway());
        senders.push(Running::start("ringway send", send.args(["send", address]).stdin(open(lines)?))?);
    }
    senders.into_iter().try_for_each(|sender| sender.finish(PIPE_LIMIT))?;
    drop(silent.child.stdin.take());
    silent.finish(PIPE_LIMIT)?;
    receivers.into_iter().try_for_each(|receiver| receiver.finish(PIPE_LIMIT))?;
    let read = |path: &Path| fs::read(path).map_err(|error| format!("could not read {}: {error}", path.display()));
    let (sent, received) = (read(lines)?.repeat(2), [read(&outputs[0])?, read(&outputs[1])?].concat());
    if sorted(&received) == sorted(&sent) { Ok(()) } else { Err("other lines came out".to_owned()) }
}

fn sorted(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

/// What a receiver held when it was killed is recovered, and received by the next one.
fn outlive(address: &str, folder: &Path) -> Outcome {
    let (input, output) = (folder.join("part"), folder.join("output"));
    println!("{} past a receiver that is killed, over {address}", input.display());
    // More than a pipe holds, so that nobody can have written it.
    write(&input, |out| random().take(1 << 14).try_for_each(|word| out.write_all(&word.to_le_bytes())))?;
    let mut send = Command::new(ringway());
    send.args(["send", "--chunk", "128KiB", address]).stdin(open(&input)?);
    Running::start("ringway send", &mut send)?.finish(PIPE_LIMIT)?;
    let mut recv = Command::new(ringway());
    let recv = recv.args(["recv", "--raw", address]).stdin(Stdio::null());
    let victim = Running::start("ringway recv", recv.stdout(Stdio::piped()))?;
    until(address, "\"leased\":1,")?;
    drop(victim);
    let recovered = ask(&["recover", "--json", address])?;
    if !recovered.contains("\"deaths\":1,\"redelivered\":1,\"dropped\":0") {
        return Err(format!("one message of one receiver was to be recovered, not {recovered}"));
    }
    Running::start("ringway recv", recv.stdout(create(&output)?))?.finish(PIPE_LIMIT)?;
    run(Command::new("cmp").args([input, output]))
}

/// Waits until `ringway inspect --json` prints this.
fn until(address: &str, wanted: &str) -> Outcome {
    let start = Instant::now();
    while !ask(&["inspect", "--json", address]).is_ok_and(|object| object.contains(wanted)) {
        if start.elapsed() > PIPE_LIMIT {
            return Err(format!("inspect did not print {wanted} within {PIPE_LIMIT:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What `ringway` prints.
fn ask(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(ringway()).args(arguments).output();
    let output = output.map_err(|error| format!("could not start ringway: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            Err(format!("ringway {} failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim_end()))
        }
    }
}

#[derive(Clone, Copy)]
enum First {
    Sender,
    Receiver,
}

fn pass(address: &str, input: &Path, output: &Path, flags: (&[&str], &[&str]), first: First) -> Outcome {
    println!("{} over {address}", input.display());
    let mut send = Command::new(ringway());
    send.arg("send").args(flags.0).arg(address).stdin(open(input)?);
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

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| format!("could not open {}: {error}", path.display()))
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
