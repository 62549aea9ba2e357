//! Logs: a file that any number of senders append to, kept apart by a lock, and any number of receivers read, each at its own
//! position. `docs/framing.md` specifies the file.
//!
//! **What a kill leaves.** A writer appends under the lock, by one write behind the last valid record. A record is valid if its
//! header can be one, all of its bytes are there, and the check behind them is theirs. The kernel copies what is written in order,
//! and makes the file longer only by what it has copied. So a writer that is killed inside `write` leaves a *torn tail*: some whole
//! records and the beginning of one, whose own length reaches beyond the end of the file. Whoever appends next holds the lock, so
//! that nobody is in the middle of anything; it goes over what has come since it looked last, and cuts off a record that is
//! unfinished before it appends. A write that fails or falls short for lack of space is cut back in the same way by the writer
//! itself. Whole records stay in both cases: valid records are never cut off, so that a reader may take one at once. A wrong length
//! in the middle of the file can look like a torn tail, too, but for the records behind it. So before a tail is cut off it is
//! searched for them. It has none if it is torn, even if a message was made of a log's records, for the check of each goes over the
//! number of its log, too.
//!
//! **What a writer knows.** It remembers where the valid records ended when it had the lock last. Valid records never change and
//! are never cut off, so if the file ends just there, nobody has appended since, and it writes without reading anything. Otherwise
//! it checks what is new; and all there is when it opens the log, which costs the time of reading it once.
//!
//! **What a reader sees.** Readers take no lock. What isn't a valid record is "not there yet": it may be on its way, or torn and
//! replaced soon. So it is read again from the file each time, and never kept. A record that is put together from bytes of two
//! moments doesn't pass its check, but by a chance of one in four milliards. Bytes that are all there by the length that they
//! claim, and wrong, are damage, which no kill causes; but a reader that read across a cut may see such for a moment, so it looks
//! again under the shared lock. Then it is real: one record is dropped as [`Malformed`](crate::RecvError::Malformed) if what lies behind
//! it begins as a record does, and otherwise the log is [`Poisoned`](crate::RecvError::Poisoned): nothing says where the next
//! record is. A tail that hides records is of the second kind. Writers pass over the first kind, and append nothing behind the second. Power loss can cause it, as nothing is synced.
//!
//! **Who is there.** Each sender shares an open-file-description lock on a byte far behind the data, from before its first record
//! until after its last one. If nobody holds it, and after that there is nothing more to read, then all senders that were read of
//! and didn't say goodbye are dead. A reader tells so once, however long ago it was: it is true, and this reader was not told
//! before. One that begins behind all that a sender wrote never hears of it. Who is present without having written anything that
//! this reader has read keeps it from saying that all have left.
//!
//! **Files that are replaced.** Senders and receivers keep the file they opened, also when its path leads to another one later;
//! a log that is shortened under a reader is poisoned. [`remove`] doesn't get between a sender's opening of the file and its
//! being seen there: it holds the byte of presence alone, and a sender that got its own share of it looks whether the path still
//! leads to the file. Symbolic links are followed, as logs often are elsewhere than programs are told.

mod position;
mod reader;
mod record;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Address, LogLock};
use super::outbox::{DEFAULT_LONGEST, source_number};
use super::plan::{Pauses, Plan};
use super::receiver::Receiver;
use super::sender::Sender;
use crate::channel::{Existence, SendError};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::Identity;
use crate::sys::inotify::Watch;
use crate::sys::{clock, descriptor, file, ofd, record_lock};
use position::Position;
use reader::Reader;
use record::{Head, NoHead};
use writer::Writer;

/// The byte that each sender locks as long as it is there; the one behind it is the writers' lock.
const PRESENCE: u64 = i64::MAX as u64 - 2;
/// How long a file may keep changing under its path while it is opened.
const PATIENCE: Duration = Duration::from_secs(5);

/// `reader` means nothing to a sender, which may be given the same address.
pub(super) fn sender(plan: &Plan, path: &Path, lock: LogLock, _reader: Option<&str>) -> Result<Sender> {
    check(plan)?;
    let lock = kind(lock);
    let (file, head) = open(plan, path, lock, true)?;
    if head.lock != lock {
        let advice = format!("its writers exclude each other by lock={}, and all must do the same", name(head.lock));
        return Err(plan.refuse(ErrorKind::Mismatch, advice));
    }
    let writer = Writer::new(file, head, plan.max_message(), plan.identity()?);
    let mut writer = writer.map_err(|e| plan.failed("read", e))?;
    match writer.greet() {
        Ok(()) => Ok(Sender::carried(plan.outlet(Box::new(writer)))),
        Err(SendError::Os { errno }) => Err(plan
            .failed("append to", io::Error::from_raw_os_error(errno))
            .advise("free some space where the file is; `df -h` shows how much there is")),
        Err(_) => {
            let valid = writer.valid();
            let advice = format!(
                "what lies at byte {valid} is no record, and nothing says where the next one is; move the file away, or keep \
                 what is before that byte by `truncate -s {valid}`"
            );
            Err(plan.refuse(ErrorKind::Damaged, advice))
        }
    }
}

pub(super) fn receiver(plan: &Plan, path: &Path, lock: LogLock, reader: Option<&str>) -> Result<Receiver> {
    check(plan)?;
    let (file, head) = open(plan, path, kind(lock), false)?;
    // By the descriptor: the path may lead to another file meanwhile.
    let watch = Watch::new(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).map_err(|e| {
        let is_limit = matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENOSPC));
        let error = plan.failed("watch", e);
        if !is_limit {
            return error;
        }
        let limit = |name: &str| fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        error.advise(format!(
            "a user may have {} inotify instances and {} watches: raise fs.inotify.max_user_instances or \
             fs.inotify.max_user_watches by sysctl",
            limit("max_user_instances").trim_end(),
            limit("max_user_watches").trim_end()
        ))
    })?;
    let position = reader.map(|reader| Position::take(plan, path, reader, head.id)).transpose()?;
    let max = plan.max_message().unwrap_or(DEFAULT_LONGEST);
    let reader = Reader::new(file, head, max, watch, position).map_err(|e| plan.failed("look at", e))?;
    Ok(Receiver::carried(plan.inlet(Box::new(reader))))
}

/// Refuses what a log doesn't have.
fn check(plan: &Plan) -> Result<()> {
    let options = plan.options();
    for (is_asked, advice) in [
        (options.capacity.is_some(), "a log grows, and so has no capacity"),
        (options.framing.is_some(), "a log has records of its own, and so no framing"),
        (options.persist == Some(false), "a log stays until it is removed"),
    ] {
        if is_asked {
            return Err(plan.refuse(ErrorKind::InvalidInput, advice));
        }
    }
    Ok(())
}

fn kind(lock: LogLock) -> record_lock::Kind {
    match lock {
        LogLock::Flock => record_lock::Kind::Flock,
        LogLock::Fcntl => record_lock::Kind::Fcntl,
        LogLock::Ofd => record_lock::Kind::Ofd,
    }
}

fn name(lock: record_lock::Kind) -> &'static str {
    match lock {
        record_lock::Kind::Flock => "flock",
        record_lock::Kind::Fcntl => "fcntl",
        record_lock::Kind::Ofd => "ofd",
    }
}

/// Opens the log or makes it, as `plan` says; for a sender it is locked as present.
fn open(plan: &Plan, path: &Path, lock: record_lock::Kind, to_send: bool) -> Result<(File, Head)> {
    let deadline = clock::now().saturating_add(PATIENCE);
    let mut pauses = Pauses::new();
    loop {
        if let Some(file) = open_or_create(plan, path, to_send)? {
            let metadata = file.metadata().map_err(|e| plan.failed("look at", e))?;
            plan.check_owner(metadata.uid())?;
            if !metadata.is_file() {
                return Err(plan.refuse(ErrorKind::InvalidInput, "it is no regular file"));
            }
            let is_settled = !to_send
                || ofd::try_share(&file, PRESENCE).map_err(|e| plan.failed("lock", e))?
                    && leads_to(path, &file).map_err(|e| plan.failed("look at", e))?;
            if is_settled {
                let head = head(plan, &file, lock)?;
                return Ok((file, head));
            }
        }
        if !pauses.pause(deadline) {
            return Err(Error::removed("open", plan.address.target()));
        }
    }
}

/// None if it comes or goes just now.
fn open_or_create(plan: &Plan, path: &Path, to_send: bool) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    // A FIFO must not have it wait.
    options.read(true).custom_flags(file::NO_WAIT);
    if plan.existence() != Existence::CreateNew {
        match options.clone().write(to_send).open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound && plan.existence() == Existence::OpenOrCreate => {}
            Err(e) => return Err(plan.failed("open", e)),
        }
    }
    match options.write(true).create_new(true).mode(plan.perm()).open(path) {
        Ok(file) => {
            file::set_mode(&file, plan.perm()).map_err(|e| plan.failed("set the mode of", e))?;
            Ok(Some(file))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && plan.existence() == Existence::OpenOrCreate => Ok(None),
        Err(e) => Err(plan.failed("create", e)),
    }
}

fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok(Identity::from(&there) == Identity::from(&file.metadata()?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The head of the log, which is written if the file is empty.
fn head(plan: &Plan, file: &File, lock: record_lock::Kind) -> Result<Head> {
    let mut head = Head::read(file).map_err(|e| plan.failed("read", e))?;
    if head == Err(NoHead::Unfinished) {
        head = make_head(plan, file, lock)?;
    }
    head.map_err(|why| match why {
        NoHead::NewerVersion => plan.refuse(ErrorKind::NewerVersion, ""),
        NoHead::Unfinished | NoHead::Foreign => plan.refuse(ErrorKind::InvalidInput, "it is no ringway log"),
    })
}

/// Whoever comes first decides how writers exclude each other: that decision itself always goes by `flock`.
fn make_head(plan: &Plan, file: &File, lock: record_lock::Kind) -> Result<Result<Head, NoHead>> {
    let failed = |e| plan.failed("write the head of", e);
    let file = file::reopen(file, true).map_err(failed)?;
    let deadline = clock::now().saturating_add(PATIENCE);
    let mut pauses = Pauses::new();
    while !record_lock::try_lock_exclusive(record_lock::Kind::Flock, &file).map_err(failed)? {
        if !pauses.pause(deadline) {
            let holder =
                descriptor::flock_holder(file.as_fd()).map_or("a process".into(), |pid| format!("process {pid}"));
            return Err(failed(io::Error::from_raw_os_error(libc::EWOULDBLOCK)).advise(format!(
                "{holder} holds its flock, for longer than that takes: end it, or have it unlock the file"
            )));
        }
    }
    write_head(&file, lock).map_err(failed)
}

/// Under the lock.
fn write_head(file: &File, lock: record_lock::Kind) -> io::Result<Result<Head, NoHead>> {
    match Head::read(file)? {
        Err(NoHead::Unfinished) => {}
        head => return Ok(head),
    }
    let bytes = Head { lock, id: source_number() }.encode();
    if record::write_at(file, &bytes, 0)? < bytes.len() {
        file.set_len(0)?;
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    }
    Head::read(file)
}

/// Removes a log and all positions in it. While senders are there that takes `force`, and what they send from then on nobody
/// finds.
pub(super) fn remove(address: &Address, path: &Path, force: bool) -> Result<()> {
    let failed = |tried: &str, e: io::Error| Error::os(e, tried, address.target());
    let refuse = |kind, advice: &str| Err(Error::new(kind, "remove", address.target()).advise(advice));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(file::NO_WAIT).open(path).map_err(|e| failed("open", e))?;
    let is_file = file.metadata().map_err(|e| failed("look at", e))?.is_file();
    if !is_file || Head::read(&file).map_err(|e| failed("read", e))? == Err(NoHead::Foreign) {
        return refuse(ErrorKind::InvalidInput, "it is no ringway log");
    }
    let is_deserted = ofd::try_lock(&file, PRESENCE).map_err(|e| failed("lock", e))?;
    if !is_deserted && !force {
        return refuse(ErrorKind::RoleTaken { pid: 0 }, "a sender is there: end it, or force the removal");
    }
    fs::remove_file(path).map_err(|e| failed("remove", e))?;
    for position in positions(path).map_err(|e| failed("list the positions in", e))? {
        match fs::remove_file(&position) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&format!("remove the position {} in", position.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn positions(path: &Path) -> io::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(directory), Some(log)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let reader = name.as_bytes().strip_prefix(log.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        if reader.is_some_and(|rest| rest.strip_suffix(b".position").is_some_and(|reader| !reader.is_empty())) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
