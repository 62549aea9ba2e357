//! The command line of ringway.

mod bench;

use std::{io::ErrorKind, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ringway", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let Cli { command: Command::Bench(args) } = Cli::parse();
    match bench::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway: {error}");
            ExitCode::from(if error.kind() == ErrorKind::InvalidInput { 2 } else { 1 })
        }
    }
}
