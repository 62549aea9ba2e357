//! The command line of ringway.

mod bench;
mod failure;
mod input;
mod inspect;
mod ls;
mod output;
mod place;
mod queue;
mod recover;
mod recv;
mod ring;
mod rm;
mod send;
mod signals;
mod transports;
mod waiting;

use std::{io::ErrorKind, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind as Misuse};

use failure::Failure;

/// Feed, drain, inspect, remove and measure rings in shared memory and all other ways between processes
#[derive(Parser)]
#[command(name = "ringway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Send(send::Args),
    Recv(recv::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Rm(rm::Args),
    Recover(recover::Args),
    Transports(transports::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(&cli.command),
        Err(misuse) => return explain(&misuse),
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Send(args) => send::run(args),
        Command::Recv(args) => recv::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Transports(args) => transports::run(args),
        Command::Bench(args) => bench::run(args).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => Failure::Usage(error.to_string()),
            _ => Failure::Io(error.to_string()),
        }),
    }
}

/// Help goes where it was asked for; of a misuse, one line says what it is.
fn explain(misuse: &clap::Error) -> ExitCode {
    match misuse.kind() {
        Misuse::DisplayHelp | Misuse::DisplayVersion | Misuse::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Whoever asked may have closed the pipe.
            let _ = misuse.print();
            ExitCode::from(misuse.exit_code() as u8)
        }
        _ => {
            let text = misuse.to_string();
            let problem = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = problem.trim_start_matches("error:").split_whitespace().collect();
            Failure::Usage(format!("{}; see ringway --help", words.join(" "))).report()
        }
    }
}
