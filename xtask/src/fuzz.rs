//! A short run of each fuzz target, from its seeds.

use crate::steps::{Outcome, cargo, run, target_dir};
use std::{fs, path::Path};

const SECONDS_EACH: u32 = 15;

pub fn smoke() -> Outcome {
    run(cargo("+nightly --version")).map_err(|e| format!("{e}; fuzzing needs `rustup toolchain install nightly`"))?;
    run(cargo("fuzz --version")).map_err(|e| format!("{e}; fuzzing needs `cargo install cargo-fuzz --locked`"))?;
    let targets = targets().map_err(|error| format!("could not list fuzz/fuzz_targets: {error}"))?;
    if targets.is_empty() {
        return Err("there is nothing in fuzz/fuzz_targets".to_owned());
    }
    for target in targets {
        // The first folder receives what a run discovers, which git ignores.
        let corpus = format!("fuzz/corpus/{target}");
        fs::create_dir_all(&corpus).map_err(|error| format!("could not create {corpus}: {error}"))?;
        let seeds = format!("fuzz/seeds/{target}");
        run(cargo("+nightly fuzz run")
            .env("CARGO_TARGET_DIR", target_dir().join("fuzz"))
            .args([&target, &corpus])
            .args(Path::new(&seeds).exists().then_some(&seeds))
            .args(["--", "-verbosity=0", "-print_final_stats=1", &format!("-max_total_time={SECONDS_EACH}")]))?;
    }
    Ok(())
}

fn targets() -> std::io::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir("fuzz/fuzz_targets")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}
