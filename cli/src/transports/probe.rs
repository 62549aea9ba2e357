//! Tries a transport: one message from a process to another, by `ringway` itself, so that nothing happens to this process.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
};

use ringway::{Address, Options, transport};

const MESSAGE: &str = "ringway\n";
/// Each side gives up by itself.
const PATIENCE: &str = "5s";

/// How it is tried.
#[derive(Clone, Copy)]
pub enum Probe {
    /// Both sides find it by an address that is only used here.
    Named,
    /// As before, by a key that is made from a file.
    Keyed,
    /// The receiver says where it is, once it is there.
    Listening(&'static str),
    /// Both inherit the ends of a pipe.
    Inherited,
    /// It is found within a process only.
    Anonymous,
}

/// A directory for all that is made, gone when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("ringway-transports-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first address of a pattern, with this path and this name in it.
pub fn filled(pattern: &str, path: &str, name: &str) -> String {
    let first = pattern.split(" or ").next().unwrap_or_default();
    let places = [("/PATH", path), ("NAME", name), ("HOST:PORT", "127.0.0.1:0"), ("PID", "1")];
    places.iter().fold(first.to_owned(), |address, (word, place)| address.replace(word, place))
}

impl Probe {
    /// Passes a message, or says why it can't.
    pub fn attempt(self, pattern: &str, scratch: &Scratch) -> Result<(), String> {
        match self {
            Self::Anonymous => within(&filled(pattern, "", &format!("ringway-transports-{}", process::id()))),
            Self::Inherited => pass("fd://0", None, |receiver| receiver.stdin.take().map(Into::into)),
            Self::Listening(address) => pass(address, None, |_| None),
            Self::Named | Self::Keyed => {
                let path = scratch.0.join("place");
                let failed = |error: io::Error| format!("could not use {}: {error}", path.display());
                if matches!(self, Self::Keyed) {
                    fs::write(&path, "").map_err(failed)?;
                }
                let name = format!("ringway-transports-{}", process::id());
                let address = filled(pattern, &encoded(&path), &name);
                let outcome = pass(&address, Some(&address), |_| None);
                if let Ok(address) = address.parse() {
                    // Most are gone by themselves.
                    let _ = transport::remove(&address, true);
                }
                let _ = fs::remove_file(&path);
                outcome
            }
        }
    }
}

/// A path as it stands in an address.
fn encoded(path: &Path) -> String {
    ["%", "?", "&", "#"]
        .iter()
        .fold(path.display().to_string(), |path, sign| path.replace(sign, &format!("%{:02X}", sign.as_bytes()[0])))
}

/// A process that doesn't outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str], stdin: Stdio, stdout: Stdio) -> Result<Running, String> {
    let started = env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args(arguments).args(["--timeout", PATIENCE]).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn()
    });
    started.map(Running).map_err(|error| format!("could not start another process: {error}"))
}

/// Passes a message from one process to another. Without an address to send to, the receiver says it, or hands over its input.
fn pass(
    receive_at: &str,
    send_to: Option<&str>,
    input: impl FnOnce(&mut Child) -> Option<Stdio>,
) -> Result<(), String> {
    let is_inherited = receive_at.starts_with("fd:");
    let stdin = if is_inherited { Stdio::piped() } else { Stdio::null() };
    let mut receiver = start(&["recv", "--count", "1", receive_at], stdin, Stdio::piped())?;
    let mut errors = receiver.0.stderr.take().map(BufReader::new).ok_or("it has no standard error")?;
    let pipe = input(&mut receiver.0);
    let send_to = match (send_to, &pipe) {
        (Some(address), _) => address.to_owned(),
        (None, Some(_)) => "fd://1".to_owned(),
        (None, None) => {
            let mut line = String::new();
            let _ = errors.read_line(&mut line);
            match line.trim_end().strip_prefix("ringway: receiving at ") {
                Some(address) => address.to_owned(),
                None => return Err(plain(&line)),
            }
        }
    };
    let mut sender = start(&["send", &send_to], Stdio::piped(), pipe.unwrap_or_else(Stdio::null))?;
    if let Some(mut stdin) = sender.0.stdin.take() {
        // It may have ended already; then it says why.
        let _ = stdin.write_all(MESSAGE.as_bytes());
    }
    let mut received = String::new();
    if let Some(mut stdout) = receiver.0.stdout.take() {
        let _ = stdout.read_to_string(&mut received);
    }
    if received == MESSAGE {
        // Both leave in good order, and take with them what they made.
        let _ = sender.0.wait();
        let _ = receiver.0.wait();
        return Ok(());
    }
    let mut said = String::new();
    // A sender that failed is why the receiver waited in vain; else it waits for the receiver, which is why.
    let has_failed = matches!(sender.0.try_wait(), Ok(Some(status)) if !status.success());
    let _ = match sender.0.stderr.take() {
        Some(mut errors) if has_failed => errors.read_to_string(&mut said),
        _ => errors.read_to_string(&mut said),
    };
    Err(plain(&said))
}

/// What was said, without our name in front of it.
fn plain(said: &str) -> String {
    match said.lines().last() {
        Some(line) => line.strip_prefix("ringway: ").unwrap_or(line).to_owned(),
        None => "no message came through".to_owned(),
    }
}

fn within(address: &str) -> Result<(), String> {
    let address: Address = address.parse().map_err(|error: transport::ParseAddressError| error.to_string())?;
    let mut receiver = Options::new().receiver(&address).map_err(|error| error.to_string())?;
    let mut sender = Options::new().sender(&address).map_err(|error| error.to_string())?;
    sender.send(MESSAGE).map_err(|error| error.to_string())?;
    match receiver.recv().map_err(|error| error.to_string())? {
        message if message[..] == *MESSAGE.as_bytes() => Ok(()),
        _ => Err("another message came".to_owned()),
    }
}
