//! A running `ringway`, killed and reaped whatever happens.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// What hangs is broken. Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<BufReader<ChildStderr>>,
    /// Dropped to call off the watchdog.
    watchdog: Option<mpsc::Sender<()>>,
}

/// How it ended.
#[derive(Debug)]
pub struct End {
    status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Starts it with pipes on all sides.
pub fn start(args: &[&str]) -> Running {
    start_with(args, Stdio::piped(), Stdio::piped())
}

pub fn start_with(args: &[&str], stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(args).stdin(stdin).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (watchdog, called_off) = mpsc::channel::<()>();
    let pid = Pid::from_raw(child.id() as i32);
    thread::spawn(move || {
        if called_off.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            // It was not reaped, or this would have been called off.
            let _ = signal::kill(pid, Signal::SIGKILL);
        }
    });
    Running {
        stdin: child.stdin.take(),
        stdout: child.stdout.take().map(BufReader::new),
        stderr: child.stderr.take().map(BufReader::new),
        child,
        watchdog: Some(watchdog),
    }
}

/// Runs it to its end, with this input.
pub fn run(args: &[&str], input: &[u8]) -> End {
    let mut running = start(args);
    let mut stdin = running.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            // It may end without reading all.
            let _ = stdin.write_all(input);
        });
        running.end()
    })
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Reads a line from its standard output.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Reads a line from its standard error, without our name in front of it.
    pub fn hear_aside(&mut self) -> String {
        let mut line = String::new();
        self.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
        let line = line.trim_end().strip_prefix("ringway: ");
        line.expect("it says something in our name").to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Kills it without a warning, and says what it had written.
    pub fn kill(mut self) -> Vec<u8> {
        self.child.kill().unwrap();
        let end = self.wait();
        assert_eq!(end.status.signal(), Some(Signal::SIGKILL as i32), "{end:?}");
        end.stdout
    }

    /// Closes its input and waits for its end.
    pub fn end(mut self) -> End {
        self.wait()
    }

    fn wait(&mut self) -> End {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        let errors = self.stderr.take();
        thread::scope(|scope| {
            scope.spawn(|| errors.unwrap().read_to_string(&mut stderr).unwrap());
            if let Some(mut pipe) = self.stdout.take() {
                pipe.read_to_end(&mut stdout).unwrap();
            }
        });
        let status = self.child.wait().unwrap();
        drop(self.watchdog.take());
        End { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    /// Fails unless it ended with this code; an error is said in one line, in our name.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}\n{self:?}", self.stderr);
        match code {
            0 | 130.. => assert_eq!(self.stderr, ""),
            _ => {
                assert!(self.stderr.starts_with("ringway: ") && self.stderr.ends_with('\n'), "{}", self.stderr);
                assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
            }
        }
        self
    }

    /// Fails unless what it said as an error contains all of these.
    #[track_caller]
    pub fn assert_says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
    }

    /// Its exit code, whatever it said.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its standard output.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap()
    }

    /// The number in its error before these words.
    #[track_caller]
    pub fn number_before(&self, words: &str) -> u64 {
        let (before, _) = self.stderr.split_once(words).unwrap_or_else(|| panic!("no {words:?} in: {}", self.stderr));
        before.trim_end().rsplit(' ').next().unwrap().parse().unwrap_or_else(|e| panic!("{e}: {}", self.stderr))
    }
}

/// Looks until there is what is looked for, where no event tells of it.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "it never came to pass");
        thread::yield_now();
    }
}
