//! What outlives its processes: names in /dev/shm, our own in the directory for temporary files, and System V objects.
//!
//! POSIX message queues can't be seen unless somebody has mounted their file system: their tests clean up for themselves.

use crate::steps::Outcome;
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process,
};

const SHARED: &str = "/dev/shm";

/// What existed at one moment.
pub struct Snapshot {
    /// Files, sockets and FIFOs.
    names: BTreeSet<PathBuf>,
    system_v: BTreeSet<Object>,
}

/// A System V object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: &'static str,
    id: String,
    /// Who made it, where the kernel tells.
    creator: Option<u32>,
}

impl Snapshot {
    pub fn take() -> Result<Self, String> {
        let mut names = list(Path::new(SHARED))?;
        // Everybody has files there: ours all have one name.
        names.extend(list(&env::temp_dir())?.into_iter().filter(|path| name_of(path).starts_with("ringway")));
        let mut system_v = BTreeSet::new();
        for kind in ["shm", "sem", "msg"] {
            let path = format!("/proc/sysvipc/{kind}");
            let table = fs::read_to_string(&path).map_err(|error| format!("could not read {path}: {error}"))?;
            system_v.extend(objects(kind, &table));
        }
        Ok(Self { names, system_v })
    }

    /// Fails if there is something now that wasn't there, and whose maker is gone: others may be at work on this machine.
    pub fn compare(&self) -> Outcome {
        let now = Self::take()?;
        // This process lives, but has no use left for anything it made.
        let alive = |pid: u32| pid != process::id() && Path::new(&format!("/proc/{pid}")).exists();
        let names = now.names.difference(&self.names).filter(|path| is_leak(&name_of(path), alive));
        let objects = now.system_v.difference(&self.system_v).filter(|object| !object.creator.is_some_and(alive));
        let left: Vec<String> = names
            .map(|path| path.display().to_string())
            .chain(objects.map(|object| format!("System V {} {}", object.kind, object.id)))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.join(", "))) }
    }
}

/// What is in a directory.
fn list(directory: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let failed = |error| format!("could not list {}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Our names begin with ringway and those of tests carry a pid, the largest number in them.
fn is_leak(name: &str, alive: impl Fn(u32) -> bool) -> bool {
    let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    match numbers.max() {
        Some(pid) => !alive(pid),
        None => name.starts_with("ringway"),
    }
}

/// Reads a table of /proc/sysvipc: a line of column names, then a line per object.
fn objects(kind: &'static str, table: &str) -> Vec<Object> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().unwrap_or_default();
    let column = |name| header.iter().position(|&column| column == name);
    let creator = column("cpid");
    lines
        .filter_map(|line| {
            let id = (*line.get(1)?).to_owned();
            Some(Object { kind, id, creator: creator.and_then(|at| line.get(at)?.parse().ok()) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_leaks_when_their_process_is_gone() {
        let alive = |pid| pid == 4242 || pid == 1;
        for (name, leak) in [
            ("ringway-test-4242-1", false),
            ("ringway-test-4243-1", true),
            ("wrap-99", true),
            ("ringway-orders", true),
            ("pulse-shm", false),
        ] {
            assert_eq!(is_leak(name, alive), leak, "{name}");
        }
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let table = "       key      shmid perms                  size  cpid  lpid nattch\n   81   7  1600  4096  4242  4243  2\n";
        assert_eq!(objects("shm", table), [Object { kind: "shm", id: "7".to_owned(), creator: Some(4242) }]);
        let table = "       key      semid perms      nsems\n   0   3  600  1\n";
        assert_eq!(objects("sem", table), [Object { kind: "sem", id: "3".to_owned(), creator: None }]);
        assert_eq!(objects("msg", "       key      msqid perms\n"), []);
    }

    #[test]
    fn a_file_left_behind_is_reported_until_it_is_removed() {
        for directory in [PathBuf::from(SHARED), env::temp_dir()] {
            let path = directory.join(format!("ringway-leak-{}", process::id()));
            let reported =
                |before: &Snapshot| before.compare().is_err_and(|problem| problem.contains(path.to_str().unwrap()));
            let before = Snapshot::take().unwrap();
            fs::write(&path, "").unwrap();
            let while_there = reported(&before);
            fs::remove_file(&path).unwrap();
            assert!(while_there);
            assert!(!reported(&before));
        }
    }
}
