//! Repository chores: `cargo xtask COMMAND`, on nothing but the standard library.

mod fuzz;
mod layers;
mod leaks;
mod loom;
mod smoke;
mod steps;

use std::{env, path::Path, process::ExitCode};
use steps::{Outcome, Steps, cargo, run};

const USAGE: &str = "usage: cargo xtask COMMAND

  test      build, then unit, integration, documentation and loom tests
  mutants   plant each known mistake and see the loom tests catch it
  layers    hold the arrows between the modules of the library
  fuzz      run each fuzz target for a short while
  smoke     a short bench, and bytes through `ringway send` and `ringway recv`
  ci        everything, with formatting, lints, documentation and a search for leaks";

/// Packages outside the workspace.
const OUTSIDE: [&str; 2] = ["benches/compare/Cargo.toml", "fuzz/Cargo.toml"];

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    env::set_current_dir(root).expect("the workspace is still there");
    let mut steps = Steps::default();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(&mut steps),
        ["mutants"] => steps.step("mutants", |_| loom::mutants(true)),
        ["layers"] => steps.step("layers", |_| layers::check()),
        ["fuzz"] => steps.step("fuzz", |_| fuzz::smoke()),
        ["smoke"] => smoke(&mut steps),
        ["ci"] => ci(&mut steps),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    steps.close(outcome)
}

fn test(steps: &mut Steps) -> Outcome {
    steps.step("build", |_| run(cargo("test --workspace --all-features --profile quick --no-run")))?;
    steps.step("unit, integration and documentation tests", |tests| {
        tests.count(cargo("test --workspace --all-features --profile quick --no-fail-fast"))?;
        if tests.passed == 0 { Err("no test ran".to_owned()) } else { Ok(()) }
    })?;
    steps.step("loom models", loom::models)
}

fn smoke(steps: &mut Steps) -> Outcome {
    steps.step("build the command line", |_| run(cargo("build --release --package ringway-cli")))?;
    steps.step("smoke: bench", |_| smoke::bench())?;
    steps.step("smoke: send and recv", |_| smoke::send_and_recv())
}

fn ci(steps: &mut Steps) -> Outcome {
    let before = leaks::Snapshot::take()?;
    let outside = || OUTSIDE.into_iter().filter(|manifest| Path::new(manifest).exists());
    steps.step("formatting", |_| {
        run(cargo("fmt --all --check"))?;
        outside().try_for_each(|manifest| run(cargo("fmt --check --manifest-path").arg(manifest)))
    })?;
    steps.step("lints", |_| {
        run(cargo("clippy --workspace --all-features --all-targets -- -D warnings"))?;
        // As most users build it.
        run(cargo("clippy --package ringway -- -D warnings"))?;
        outside().try_for_each(|manifest| {
            run(cargo("clippy --all-targets --manifest-path").arg(manifest).args(["--", "-D", "warnings"]))
        })
    })?;
    steps.step("documentation", |_| {
        run(cargo("doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-Dwarnings"))
    })?;
    steps.step("layers", |_| layers::check())?;
    test(steps)?;
    steps.step("mutants", |_| loom::mutants(false))?;
    steps.step("fuzz", |_| fuzz::smoke())?;
    smoke(steps)?;
    steps.step("leaks", |_| before.compare())
}
