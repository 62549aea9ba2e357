//! Which segments might exist on this machine.

use std::{fs, io};

use super::name::{Key, Name, SHM_DIRECTORY};
use super::{Metadata, PAGE};
use crate::error::{Error, Result};

/// Lists what may be segments: the regular files of POSIX shared memory and all System V segments that have a key.
/// Whether one is a ring, only its content tells. Mapped files can be anywhere, so that none are listed.
///
/// # Errors
/// When the kernel's lists can't be read; that they don't exist is no error.
pub fn list() -> Result<Vec<(Name, Metadata)>> {
    let mut found = posix().map_err(|e| Error::os(e, "list", SHM_DIRECTORY))?;
    match fs::read_to_string(SYSV_TABLE) {
        Ok(table) => found.extend(table.lines().skip(1).filter_map(sysv)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::os(e, "list", SYSV_TABLE)),
    }
    Ok(found)
}

const SYSV_TABLE: &str = "/proc/sysvipc/shm";

fn posix() -> io::Result<Vec<(Name, Metadata)>> {
    let entries = match fs::read_dir(SHM_DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // What vanishes while we look wasn't there.
        let Ok(metadata) = entry.metadata() else { continue };
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string())
            && !is_semaphore(&name, metadata.len())
        {
            found.push((Name::Posix(name), Metadata::of_file(&metadata)));
        }
    }
    Ok(found)
}

/// POSIX semaphores are kept in the same directory.
fn is_semaphore(name: &str, bytes: u64) -> bool {
    name.starts_with("sem.") && bytes < PAGE as u64
}

/// A line: key, id, mode, size, creator, last user, attachments, user, group, …
fn sysv(line: &str) -> Option<(Name, Metadata)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let key = fields.first()?.parse().ok()?;
    let mode = u32::from_str_radix(fields.get(2)?, 8).ok()? & 0o777;
    let [size, uid, gid] = [3, 7, 8].map(|field| fields.get(field).copied().unwrap_or_default());
    let metadata = Metadata { size: size.parse().ok()?, mode, uid: uid.parse().ok()?, gid: gid.parse().ok()? };
    // Without a key it is private, or removed.
    (key != 0).then_some((Name::SysV(Key::Raw(key)), metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semaphores_are_told_by_name_and_size() {
        assert!(is_semaphore("sem.x", 32) && !is_semaphore("sem.x", 4096) && !is_semaphore("x", 32));
    }

    #[test]
    fn lines_of_the_system_v_table() {
        let line =
            " -1499922431         12  1640             8192   431   431      0   1000   100   1000     0 1 0 1 8192 0";
        let expected = Metadata { size: 8192, mode: 0o640, uid: 1000, gid: 100 };
        assert_eq!(sysv(line), Some((Name::SysV(Key::Raw(-1499922431)), expected)));
        assert_eq!(sysv(&line.replace("-1499922431", "0")), None);
        assert_eq!(sysv("key shmid"), None);
    }
}
