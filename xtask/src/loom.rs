//! Model checking: the loom tests, and planted mistakes that they must catch.

use crate::steps::{Outcome, Tests, cargo, run, stream_until, target_dir};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Instant};

/// Runs every model; without the cfg they are empty files that pass, so the number that ran is what counts.
pub fn models(tests: &mut Tests) -> Outcome {
    let before = tests.passed;
    tests.count(cargo_loom("loom_*"))?;
    match tests.passed - before {
        0 => Err("no loom model ran; is there a [[test]] named loom_* and is its code under cfg(ringway_loom)?".into()),
        models => {
            println!("{models} loom models passed");
            Ok(())
        }
    }
}

/// Plants each `cfg(ringway_mutant = "name")` of the library in turn; one that no model catches is an error.
///
/// To list all models that catch each takes much longer than to see that one does.
pub fn mutants(all: bool) -> Outcome {
    let names = planted()?;
    if names.is_empty() {
        return Err("src/ contains no cfg(ringway_mutant = \"name\")".to_owned());
    }
    let mut rows = Vec::new();
    for (name, models) in &names {
        let start = Instant::now();
        let cargo_loom = || cargo_loom(models);
        let wrapper = wrapper(name)?;
        // A mutant that does not compile would look as if it were caught.
        run(cargo_loom().env("RUSTC_WORKSPACE_WRAPPER", &wrapper).arg("--no-run"))?;
        let mut failed = Vec::new();
        let outcome = stream_until(cargo_loom().env("RUSTC_WORKSPACE_WRAPPER", &wrapper), |line| {
            failed.extend(
                line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")).map(str::to_owned),
            );
            !all && !failed.is_empty()
        });
        let verdict = match (outcome, failed.is_empty()) {
            (Ok(()), _) => None,
            (Err(_), false) => Some(failed.join(", ")),
            (Err(problem), true) => Some(format!("a crash: {problem}")),
        };
        rows.push((name, verdict, start.elapsed()));
    }
    let width = names.keys().map(String::len).max().unwrap_or(0).max("mutant".len());
    println!("\n{:width$}  {:>8}  caught by", "mutant", "time");
    for (name, verdict, took) in &rows {
        println!("{name:width$}  {:>6.1} s  {}", took.as_secs_f64(), verdict.as_deref().unwrap_or("NOTHING"));
    }
    match rows.iter().filter(|(_, verdict, _)| verdict.is_none()).count() {
        0 => Ok(()),
        missed => Err(format!("{missed} of {} mutants were caught by no model", rows.len())),
    }
}

/// Runs the models of these names, which may have a `*`. Link-time optimisation gains a model nothing and costs most of the
/// time a mutant takes.
fn cargo_loom(models: &str) -> Command {
    let mut command = cargo("test --package ringway --release --test");
    command
        .arg(models)
        .env("RUSTFLAGS", "--cfg ringway_loom")
        .env("CARGO_TARGET_DIR", target_dir().join("loom"))
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    command
}

/// A stand-in for rustc that adds the mutant's cfg. In RUSTFLAGS the cfg would make cargo build all dependencies anew for
/// each mutant; a workspace wrapper touches our own packages only, and cargo tells builds apart by the wrapper's path.
fn wrapper(name: &str) -> Result<PathBuf, String> {
    let folder = std::path::absolute(target_dir().join("mutants")).map_err(|error| error.to_string())?;
    let path = folder.join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, format!("#!/bin/sh\nexec \"$@\" --cfg 'ringway_mutant=\"{name}\"'\n")))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path)
}

/// The mutants, each with the models of the protocol that it is planted in: those of `ring/spsc.rs` are in `loom_spsc`.
fn planted() -> Result<BTreeMap<String, String>, String> {
    let mut names = BTreeMap::new();
    for (path, text) in crate::layers::sources()? {
        let protocol = path.split(['/', '.']).nth(1).unwrap_or_default();
        for rest in text.split("ringway_mutant = \"").skip(1) {
            names.extend(rest.split_once('"').map(|(name, _)| (name.to_owned(), format!("loom_{protocol}"))));
        }
    }
    Ok(names)
}
