//! The modules of the library use only what lies below them.

use crate::steps::Outcome;
use std::{fs, io, path::Path};

/// Lowest first; modules of one line don't use each other.
const LAYERS: [&[&str]; 8] = [
    &["error", "primitive", "units"],
    &["ring", "sys"],
    &["segment"],
    &["layout"],
    &["liveness", "wait"],
    &["channel"],
    &["transport"],
    &["future"],
];

/// Crates that only the lowest modules may use.
const CONFINED: [(&str, &[&str]); 4] =
    [("libc", &["sys"]), ("nix", &["sys"]), ("rustix", &["sys"]), ("memmap2", &["sys", "segment"])];

/// Checks all of `src/`, tests in it included.
pub fn check() -> Outcome {
    let sources = sources()?;
    let wrong: Vec<String> = sources.iter().flat_map(|(path, text)| violations(path, text)).collect();
    if wrong.is_empty() {
        println!("{} files keep to the layers", sources.len());
        return Ok(());
    }
    let order: Vec<String> = LAYERS.iter().map(|layer| layer.join(", ")).collect();
    Err(format!("{}\nthe order, lowest first: {}", wrong.join("\n"), order.join(" < ")))
}

/// The path within `src/` and the text of each source file of the library.
pub fn sources() -> Result<Vec<(String, String)>, String> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let within = path.strip_prefix("src").expect("the walk starts there");
                found.push((within.to_string_lossy().into_owned(), fs::read_to_string(&path)?));
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(Path::new("src"), &mut found).map_err(|error| format!("could not read src/: {error}"))?;
    found.sort();
    Ok(found)
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    // The crate root only declares and re-exports.
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = height(module) else {
        return vec![format!("src/{path}: module {module} has no place in the order")];
    };
    let code = without_comments(text);
    let mut wrong = Vec::new();
    for (line, used) in used_modules(&code, &root_prefixes(path)) {
        match height(used) {
            _ if used == module => {}
            Some(other) if other < own => {}
            Some(_) => wrong.push(format!("src/{path}:{line}: {module} may not use {used}")),
            None => wrong.push(format!("src/{path}:{line}: {used} has no place in the order")),
        }
    }
    for (name, homes) in CONFINED.into_iter().filter(|(_, homes)| !homes.contains(&module)) {
        for (at, _) in code.match_indices(name) {
            let rest = &code[at + name.len()..];
            let starts_word = !code[..at].ends_with(is_word);
            // Errors are told apart by errno, which is a name and no call.
            let errno =
                rest.strip_prefix("::E").is_some_and(|e| e.starts_with(|c: char| c.is_uppercase() || c.is_numeric()));
            if starts_word && ["::", ";", " as "].iter().any(|end| rest.starts_with(end)) && !errno {
                wrong.push(format!("src/{path}:{}: only {} may use {name}", line_of(&code, at), homes.join(" and ")));
            }
        }
    }
    wrong
}

fn height(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// How this file can spell the crate root: `crate::`, and a `super::` for each module above it.
fn root_prefixes(path: &str) -> [String; 2] {
    let depth = path.trim_end_matches("/mod.rs").matches('/').count() + 1;
    ["crate::".to_owned(), "super::".repeat(depth)]
}

/// The modules named right behind the crate root, alone or in braces, with their lines.
fn used_modules<'a>(code: &'a str, roots: &[String]) -> Vec<(usize, &'a str)> {
    let mut used = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root.as_str()) {
            if code[..at].ends_with(|c| is_word(c) || c == ':' || c == '$') {
                continue;
            }
            let rest = &code[at + root.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => first_words_in_group(group),
                None => vec![first_word(rest)],
            };
            // Items that the root re-exports, such as `crate::Error`, are no modules; behind `super::` there may be others.
            let modules = names.into_iter().filter(|name| name.starts_with(char::is_lowercase));
            let modules = modules.filter(|name| root == "crate::" || height(name).is_some());
            used.extend(modules.map(|name| (line_of(code, at), name)));
        }
    }
    used
}

/// `a::b, c::{d, e}` of `a::b, c::{d, e}} …` gives a and c.
fn first_words_in_group(group: &str) -> Vec<&str> {
    let mut words = vec![first_word(group.trim_start())];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => words.push(first_word(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    words
}

fn first_word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Documentation may point upwards. A comment starts a line or follows a space, unlike the slashes of `"shm:///x"`.
fn without_comments(text: &str) -> String {
    let code = text.lines().map(|line| {
        match line.match_indices("//").find(|&(at, _)| line[..at].trim_end().len() < at || at == 0) {
            Some((at, _)) => &line[..at],
            None => line,
        }
    });
    code.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_down_and_within_are_fine() {
        for (path, text) in [
            ("lib.rs", "pub use crate::transport::Address;"),
            ("channel/mod.rs", "use crate::{error::Error, ring::{self, spsc}, wait::Wait, channel::grant};"),
            ("ring/spsc.rs", "use super::record;\nuse crate::primitive::AtomicU64;"),
            (
                "ring/spsc.rs",
                "/// See [`crate::channel::Producer`].\nfn f() {} // crate::channel::x\n//crate::channel::x",
            ),
            ("error.rs", "Some(libc::ENOENT | libc::EIDRM) => {}"),
            ("sys/futex.rs", "use rustix::thread; libc::close(0)"),
            ("segment/mod.rs", "use memmap2::MmapRaw;"),
            ("transport/shm.rs", "use crate::Error; crate::Channel::new(); my_libc::x();"),
            ("wait/mod.rs", "mod tests { use super::*; use super::super::wait::Wait; }"),
        ] {
            assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn arrows_up_and_sideways_are_found() {
        for (path, text, wrong) in [
            ("sys/shm.rs", "\nuse crate::segment::Name;", "src/sys/shm.rs:2: sys may not use segment"),
            ("ring/spsc.rs", "use crate::{\n  error,\n  wait::Wait,\n};", "src/ring/spsc.rs:1: ring may not use wait"),
            ("wait/mod.rs", "crate::liveness::poll()", "src/wait/mod.rs:1: wait may not use liveness"),
            ("liveness/mod.rs", "use crate::wait::Wait;", "src/liveness/mod.rs:1: liveness may not use wait"),
            ("layout/mod.rs", "use super::wait::event;", "src/layout/mod.rs:1: layout may not use wait"),
            ("layout/words.rs", "use super::super::wait;", "src/layout/words.rs:1: layout may not use wait"),
            ("units.rs", "#[cfg(test)] mod t { use crate::sys; }", "src/units.rs:1: units may not use sys"),
            ("ring/spsc.rs", "f(\"a://b\", crate::channel::X)", "src/ring/spsc.rs:1: ring may not use channel"),
            ("ring/mod.rs", "use crate::helpers::x;", "src/ring/mod.rs:1: helpers has no place in the order"),
            ("helpers.rs", "", "src/helpers.rs: module helpers has no place in the order"),
            ("ring/mod.rs", "libc::abort()", "src/ring/mod.rs:1: only sys may use libc"),
            ("wait/mod.rs", "use rustix::{thread};", "src/wait/mod.rs:1: only sys may use rustix"),
            ("channel/mod.rs", "use nix;", "src/channel/mod.rs:1: only sys may use nix"),
            ("layout/map.rs", "use memmap2::MmapRaw;", "src/layout/map.rs:1: only sys and segment may use memmap2"),
            ("error.rs", "libc::exit(1)", "src/error.rs:1: only sys may use libc"),
        ] {
            assert_eq!(violations(path, text), [wrong], "{path}: {text}");
        }
    }
}
