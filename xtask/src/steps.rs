//! Named, timed steps and the commands they run.

use std::os::unix::process::CommandExt;
use std::{
    borrow::BorrowMut,
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// What a step comes to: nothing more to say, or what went wrong.
pub type Outcome = Result<(), String>;

/// The steps taken so far and the tests they counted.
#[derive(Default)]
pub struct Steps {
    taken: Vec<(String, Duration)>,
    tests: Tests,
}

impl Steps {
    /// Takes a step under a heading.
    pub fn step(&mut self, name: &str, work: impl FnOnce(&mut Tests) -> Outcome) -> Outcome {
        println!("\n==> {name}");
        let start = Instant::now();
        let outcome = work(&mut self.tests);
        self.taken.push((name.to_owned(), start.elapsed()));
        outcome.map_err(|problem| format!("{name}: {problem}"))
    }

    /// Prints what the steps took, why the last one failed if it did, and the number of tests as the last line.
    pub fn close(self, outcome: Outcome) -> ExitCode {
        println!("\n==> summary");
        for (name, took) in &self.taken {
            println!("{:>7.1} s  {name}", took.as_secs_f64());
        }
        println!("{:>7.1} s  in all\n", self.taken.iter().map(|(_, took)| took.as_secs_f64()).sum::<f64>());
        let Tests { passed, failed } = self.tests;
        match outcome {
            Ok(()) => {
                if passed > 0 {
                    println!("{passed} passed, {failed} failed");
                }
                ExitCode::SUCCESS
            }
            Err(problem) => {
                println!("FAILED: {problem}");
                // A step that fails without a failed test still is a failure.
                println!("{passed} passed, {} failed", failed.max(1));
                ExitCode::FAILURE
            }
        }
    }
}

/// How many tests ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// As they should.
    pub passed: u64,
    /// Otherwise.
    pub failed: u64,
}

impl Tests {
    /// Runs a test command, showing its output and adding up what it reports.
    pub fn count(&mut self, command: impl BorrowMut<Command>) -> Outcome {
        stream(command, |line| {
            println!("{line}");
            self.note(line);
        })
    }

    /// Adds `test result: ok. 3 passed; 0 failed; …`; other lines count nothing.
    fn note(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
        let number_before = |what| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let at = words.iter().position(|&word| word == what)?;
            words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
        };
        self.passed += number_before("passed").unwrap_or(0);
        self.failed += number_before("failed").unwrap_or(0);
    }
}

/// `cargo` with these words as arguments.
pub fn cargo(arguments: &str) -> Command {
    // By name, not by $CARGO: that one is no proxy of rustup and would not understand +nightly.
    let mut command = Command::new("cargo");
    command.args(arguments.split(' '));
    command
}

/// Where cargo builds; parts of it serve builds with flags of their own.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

/// Runs a command to success.
pub fn run(command: impl BorrowMut<Command>) -> Outcome {
    stream(command, |line| println!("{line}"))
}

/// Runs a command to success, handing over each line of its standard output.
pub fn stream(mut command: impl BorrowMut<Command>, mut each: impl FnMut(&str)) -> Outcome {
    follow(command.borrow_mut(), |line| {
        each(line);
        false
    })
}

/// [`stream`] that ends the command, with all that it started, once `each` has seen enough: that is no success.
pub fn stream_until(mut command: impl BorrowMut<Command>, each: impl FnMut(&str) -> bool) -> Outcome {
    // A group of its own, that it can be ended as a whole.
    follow(command.borrow_mut().process_group(0), each)
}

fn follow(command: &mut Command, mut each: impl FnMut(&str) -> bool) -> Outcome {
    let shown = shown(command);
    println!("$ {shown}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("could not start `{shown}`: {error}"))?;
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    for line in output.split(b'\n') {
        let line = line.map_err(|error| format!("could not read from `{shown}`: {error}"))?;
        if each(&String::from_utf8_lossy(&line)) {
            let group = format!("-{}", child.id());
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            break;
        }
    }
    let status = child.wait().map_err(|error| format!("could not wait for `{shown}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed ({status})")) }
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_string_lossy(), value?.to_string_lossy())));
    let words = [command.get_program()].into_iter().chain(command.get_args());
    variables.chain(words.map(|word| word.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_result_lines_are_counted() {
        let mut tests = Tests::default();
        for line in [
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "7 passed; 7 failed",
            "test passed ... ok",
        ] {
            tests.note(line);
        }
        assert_eq!(tests, Tests { passed: 9, failed: 2 });
    }

    #[test]
    fn a_failing_command_is_named() {
        let problem = run(Command::new("false").env("REASON", "none")).unwrap_err();
        assert_eq!(problem, "`REASON='none' false` failed (exit status: 1)");
        assert!(run(&mut Command::new("/no/such/program")).unwrap_err().starts_with("could not start `/no/such"));
    }
}
