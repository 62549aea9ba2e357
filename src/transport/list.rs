//! Which queues and meeting places exist on this machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::address::{Address, Priority, Target};
use crate::error::{Error, Result};
use crate::segment::Key;
use crate::sys::mqueue;
use crate::sys::sysv_msg::Queue;

/// Something that exists and has no ring, which [`segment::list`](crate::segment::list) lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Where it is.
    pub address: Address,
    /// How many bytes of messages it can hold. None of these can be told of what `auto:` has, where two sides meet.
    pub size: Option<u64>,
    /// How many messages are in it.
    pub messages: Option<u64>,
    /// Who may use it, as in `chmod`.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
}

const SYSV_TABLE: &str = "/proc/sysvipc/msg";
const SOCKETS: &str = "/proc/net/unix";
/// What the abstract names of `auto:` begin with.
const MEETING: &str = "@ringway-auto/";

/// The queues that this process may read, and where receivers at `auto:` wait. Who made a queue can't be told: it need not have been
/// ringway.
///
/// POSIX queues are found only where an mqueue filesystem is mounted to show them; of what has no key or a name that no address has,
/// nothing is listed.
///
/// # Errors
/// [`Os`](crate::ErrorKind::Os) if the kernel's tables can't be read.
pub fn list() -> Result<Vec<Listed>> {
    let mut found = match mqueue::list() {
        Ok(names) => names.into_iter().filter_map(posix).collect(),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Vec::new(),
        Err(e) => return Err(Error::os(e, "list", "the POSIX message queues")),
    };
    found.extend(table(SYSV_TABLE)?.lines().skip(1).filter_map(sysv));
    let mut meetings: Vec<Listed> = table(SOCKETS)?.lines().skip(1).filter_map(meeting).collect();
    // Each connection bears the name, too.
    meetings.sort_by_key(|listed| listed.address.to_string());
    meetings.dedup();
    found.extend(meetings);
    Ok(found)
}

/// Such a table is missing where the kernel lacks the mechanism.
fn table(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::os(e, "list", path)),
    }
}

/// The address of what may have a name that no address has.
fn address(target: &Target) -> Option<Address> {
    target.to_string().parse().ok()
}

/// What can't be opened is gone meanwhile, or not for this user.
fn posix(name: String) -> Option<Listed> {
    let queue = mqueue::open(&name, true, false).ok()?;
    let limits = mqueue::limits(&queue).ok()?;
    let metadata = File::from(queue).metadata().ok()?;
    Some(Listed {
        address: address(&Target::PosixQueue { name, priority: Priority::Fixed(0) })?,
        size: Some(limits.messages as u64 * limits.message_size as u64),
        messages: Some(limits.queued as u64),
        mode: Some(metadata.mode() & 0o777),
        uid: Some(metadata.uid()),
    })
}

/// A line: key, id, mode, …
fn sysv(line: &str) -> Option<Listed> {
    let key = line.split_ascii_whitespace().next()?.parse().ok().filter(|&key| key != 0)?;
    let status = Queue::open(key).ok()?.status().ok()?;
    Some(Listed {
        address: address(&Target::SysVQueue { key: Key::Raw(key), kind: None })?,
        size: Some(status.most_bytes),
        messages: Some(status.messages),
        mode: Some(status.mode),
        uid: Some(status.uid),
    })
}

/// A line: address, references, protocol, flags, type, state, inode and perhaps a name, which may hold spaces.
fn meeting(line: &str) -> Option<Listed> {
    let name = line.split_once(MEETING)?.1.to_owned();
    Some(Listed { address: address(&Target::Auto(name))?, size: None, messages: None, mode: None, uid: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::user_id;

    #[test]
    fn queues_are_listed_with_what_is_in_them() {
        struct Temporary(Queue);
        impl Drop for Temporary {
            fn drop(&mut self) {
                let _ = self.0.remove();
            }
        }
        // The pid is at most 22 bits long.
        let key = 0x5300_0000 | std::process::id() as i32;
        let queue = Temporary(Queue::create_new(key, 0o640).unwrap());
        queue.0.send(&[1_i64.to_ne_bytes().as_slice(), b"abc"].concat()).unwrap();
        let wanted: Address = format!("sysvmq:?key={key:#x}").parse().unwrap();
        let size = queue.0.status().unwrap().most_bytes;
        let here = || list().unwrap().into_iter().find(|listed| listed.address == wanted);
        let listed = Listed {
            address: wanted.clone(),
            size: Some(size),
            messages: Some(1),
            mode: Some(0o640),
            uid: Some(user_id()),
        };
        assert_eq!(here(), Some(listed));
        drop(queue);
        assert_eq!(here(), None);
    }

    #[test]
    fn posix_queues_are_looked_at() {
        struct Temporary(String);
        impl Drop for Temporary {
            fn drop(&mut self) {
                let _ = mqueue::unlink(&self.0);
            }
        }
        let name = Temporary(format!("ringway-test-list-{}", std::process::id()));
        let queue = mqueue::create(&name.0, 0o600, 2, 16).unwrap();
        mqueue::send(&queue, b"abc", 0).unwrap();
        let listed = posix(name.0.clone()).unwrap();
        assert_eq!(listed.address.to_string(), format!("mq:///{}", name.0));
        assert_eq!((listed.size, listed.messages, listed.mode), (Some(32), Some(1), Some(0o600)));
        assert_eq!(posix(format!("{}-not", name.0)), None);
    }

    #[test]
    fn meeting_places_are_found_among_all_sockets() {
        let line = |name: &str| meeting(&format!("0000: 00000002 00000000 00010000 0005 01 4711 {name}"));
        assert_eq!(line("@ringway-auto/or ders").unwrap().address, "auto:///or%20ders".parse().unwrap());
        for other in ["/run/ringway-auto/x", "@ringway", "", "@ringway-auto/", "@ringway-auto/a/b"] {
            assert_eq!(line(other), None, "{other:?}");
        }
    }
}
