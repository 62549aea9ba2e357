//! POSIX message queues: any number of senders, and one receiver of frames; any number of receivers without frames.
//!
//! Who is there shows in locks of the queue's open file descriptions, which the kernel gives back for the dead: a receiver shares
//! byte 0, and one of frames has the `flock` too, that makes it the only one; a sender has a byte of its own further on. Whoever
//! leaves takes the queue away if it holds no message, was made by ringway without `persist=yes`, and every byte can be locked: then
//! nobody else is there. Nobody can come meanwhile either, since that takes a lock; who opened the queue before finds, once that
//! lock is free, that the name leads elsewhere, and begins anew. A sender keeps its byte until its goodbye is in the queue: else that
//! could take the room of a message that somebody has taken out to look at it.
//!
//! With `priority=tag` a message's tag is its priority, and messages overtake each other. The parts of one message have one
//! priority, within which the queue is in order. Hellos and goodbyes have the lowest, so that no goodbye overtakes a message. With
//! a fixed priority all of them have that one.
//!
//! Without frames the tag of what is received is its priority. What is sent has the fixed priority, which its tag may repeat, but
//! not contradict; or, with `priority=tag`, its tag.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::address::Priority;
use super::feed::{Buffer, Feed};
use super::frame::{Frame, HEADER, Identity, Kind, LONGEST};
use super::outbox::source_number;
use super::plan::{Pauses, Plan};
use super::port::Port;
use super::{Receiver, Sender};
use crate::channel::{Existence, Framing, PeerState, SendError};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor::{self, Ready};
use crate::sys::mqueue::{self, Limits};
use crate::sys::{clock, file, ofd};

/// What a new queue is like, as far as the system allows it.
const MESSAGES: u64 = 10;
const MESSAGE_SIZE: u64 = 8192;
/// What frames need at least: the first one of each sender is that long.
const LEAST: usize = HEADER + Identity::BYTES;
/// The byte that receivers share. Senders have others.
const RECEIVERS: u64 = 0;
/// Priorities are below this.
const PRIORITIES: u32 = 32_768;
/// The bit in a queue's mode that says: the last one who leaves takes it away.
const TEMPORARY: u32 = 0o1000;
/// How long taking a queue away can take somebody else.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn sender(plan: &Plan, name: &str, priority: Priority) -> Result<Sender> {
    let framing = plan.piece_framing()?;
    let queue = Queue::join(plan, name, framing, Ready::Write)?;
    let was_received = queue.has_receiver();
    Ok(Sender::carried(plan.outward(QueuePort { queue, priority, was_received, whole: Vec::new() }, framing)?))
}

pub(super) fn receiver(plan: &Plan, name: &str) -> Result<Receiver> {
    let framing = plan.piece_framing()?;
    let queue = Queue::join(plan, name, framing, Ready::Read)?;
    Ok(Receiver::carried(plan.inward(Box::new(QueueFeed { queue }), framing, false)))
}

/// Takes away the queue of that name, unless somebody uses it and it is not to be taken away nevertheless.
pub(super) fn remove(plan: &Plan, name: &str, even_if_used: bool) -> Result<()> {
    let unlink = || mqueue::unlink(name).map_err(|e| plan.failed("remove", e));
    if even_if_used {
        return unlink();
    }
    // Stays locked until the name is gone.
    let queue = File::from(mqueue::open(name, true, true).map_err(|e| plan.failed("open", e))?);
    if ofd::try_lock_all(&queue).map_err(|e| plan.failed("lock", e))? {
        return unlink();
    }
    let pid = descriptor::flock_holder(queue.as_fd()).unwrap_or(0);
    Err(Error::new(ErrorKind::RoleTaken { pid }, "remove", plan.address.target())
        .advise("a sender or receiver uses it"))
}

/// A queue that this endpoint uses.
#[derive(Debug)]
struct Queue {
    name: String,
    file: File,
    framing: Framing,
    /// The longest message that it takes.
    unit: usize,
    /// The byte that shows that it is there.
    byte: u64,
    is_kept: bool,
    has_left: bool,
}

impl Queue {
    fn join(plan: &Plan, name: &str, framing: Framing, ready: Ready) -> Result<Self> {
        let deadline = clock::now().saturating_add(PATIENCE);
        let mut pauses = Pauses::new();
        loop {
            let Some(file) = open_or_create(plan, name, framing, ready)? else { continue };
            let unit = check(plan, &file, framing)?;
            let byte = match ready {
                Ready::Read => RECEIVERS,
                Ready::Write => RECEIVERS + 1 + u64::from(source_number()),
            };
            let is_in = match ready {
                Ready::Read => ofd::try_share(&file, byte),
                Ready::Write => ofd::try_lock(&file, byte),
            };
            if !is_in.map_err(|e| plan.failed("lock", e))? {
                // Somebody is about to take it away.
                if pauses.pause(deadline) {
                    continue;
                }
                return Err(plan.failed("lock", io::Error::from_raw_os_error(libc::EBUSY)));
            }
            if !leads_to(name, &file, ready).map_err(|e| plan.failed("look at", e))? {
                continue;
            }
            let is_alone = ready == Ready::Read && framing == Framing::Frames;
            if is_alone && !descriptor::try_flock(file.as_fd()).map_err(|e| plan.failed("lock", e))? {
                let pid = descriptor::flock_holder(file.as_fd()).unwrap_or(0);
                return Err(Error::new(ErrorKind::RoleTaken { pid }, "receive at", plan.address.target()));
            }
            if plan.persists() {
                // Who doesn't own it can't; for this endpoint it stays anyway.
                let _ = file::set_mode(&file, plan.perm());
            }
            return Ok(Self {
                name: name.to_owned(),
                file,
                framing,
                unit,
                byte,
                is_kept: plan.persists(),
                has_left: false,
            });
        }
    }

    /// Whether anybody of ringway's receives.
    fn has_receiver(&self) -> bool {
        ofd::is_locked(&self.file, RECEIVERS).unwrap_or(false)
    }

    /// Takes the queue away if nobody else is there, and says whether it did; else this sender is still there, as it was at every
    /// moment: while one is, nobody takes messages out to look at them.
    fn retire(&mut self) -> bool {
        if self.is_kept || !ofd::try_lock_all(&self.file).unwrap_or(false) {
            return false;
        }
        self.has_left = self.open().and_then(|queue| self.take_away(&queue)).unwrap_or(false);
        if !self.has_left {
            let _ = ofd::unlock_all_but(&self.file, self.byte);
        }
        self.has_left
    }

    /// Leaves, and takes the queue away if nobody else is there.
    fn leave(&mut self) {
        // Not by closing alone: a forked child may have the descriptor, too.
        let _ = ofd::unlock_all(&self.file);
        descriptor::unflock(self.file.as_fd());
        if self.is_kept || self.has_left {
            return;
        }
        let _ = self.open().and_then(|queue| Ok(ofd::try_lock_all(&queue)? && self.take_away(&queue)?));
    }

    /// Another description, that can do everything.
    fn open(&self) -> io::Result<File> {
        mqueue::open(&self.name, true, true).map(File::from)
    }

    /// Takes the queue away if that leaves no message behind; every byte is locked.
    fn take_away(&self, queue: &File) -> io::Result<bool> {
        let metadata = queue.metadata()?;
        let goes = file::Identity::from(&metadata) == file::Identity::from(&self.file.metadata()?)
            && metadata.mode() & TEMPORARY != 0
            && leads_to(&self.name, queue, Ready::Read)?
            && !has_messages(queue, self.framing, self.unit)?;
        if goes {
            mqueue::unlink(&self.name)?;
        }
        Ok(goes)
    }
}

/// None if it came or went just now.
fn open_or_create(plan: &Plan, name: &str, framing: Framing, ready: Ready) -> Result<Option<File>> {
    if plan.existence() != Existence::CreateNew {
        match mqueue::open(name, ready == Ready::Read, ready == Ready::Write) {
            Ok(queue) => return Ok(Some(queue.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound && plan.existence() == Existence::OpenOrCreate => {}
            Err(e) => return Err(plan.failed("open", e)),
        }
    }
    let (most_messages, most_bytes, _) = mqueue::system_limits();
    let size = match (framing, plan.max_message()) {
        (Framing::None, Some(max)) => max.max(1) as u64,
        _ => MESSAGE_SIZE.min(most_bytes.unwrap_or(MESSAGE_SIZE)),
    };
    let messages = match plan.capacity() {
        Some(bytes) => (bytes as u64).div_ceil(size).max(1),
        None => MESSAGES.min(most_messages.unwrap_or(MESSAGES)),
    };
    let mark = if plan.persists() { 0 } else { TEMPORARY };
    match mqueue::create(name, plan.perm() | mark, messages.cast_signed(), size.cast_signed()) {
        Ok(queue) => Ok(Some(queue.into())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && plan.existence() == Existence::OpenOrCreate => Ok(None),
        Err(e) => Err(explain_limit(plan, e, messages, size)),
    }
}

/// Why a queue can't be made.
fn explain_limit(plan: &Plan, error: io::Error, messages: u64, size: u64) -> Error {
    let (most_messages, most_bytes, most_queues) = mqueue::system_limits();
    let advice = match error.raw_os_error() {
        Some(libc::EINVAL) => match (most_messages, most_bytes) {
            (_, Some(most)) if size > most => format!(
                "messages of {size} bytes are more than /proc/sys/fs/mqueue/msgsize_max allows, {most}: ask for a smaller \
                 max_message, or raise it with `sysctl fs.mqueue.msgsize_max={size}`"
            ),
            (Some(most), _) if messages > most => format!(
                "a capacity of {messages} messages of {size} bytes is more messages than /proc/sys/fs/mqueue/msg_max allows, \
                 {most}: ask for less, or raise it with `sysctl fs.mqueue.msg_max={messages}`"
            ),
            _ => String::new(),
        },
        Some(libc::EMFILE) => {
            let limit = mqueue::memory_limit().map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes} bytes"));
            format!(
                "all queues of this user may take {limit} together (RLIMIT_MSGQUEUE), and this one takes {} for {messages} \
                 messages of {size} bytes and more for itself: ask for less capacity, remove queues that nobody uses, or raise \
                 the limit with `ulimit -q`",
                messages.saturating_mul(size)
            )
        }
        Some(libc::ENOSPC) => format!(
            "there are as many queues as /proc/sys/fs/mqueue/queues_max allows, {}: remove some, or raise it with `sysctl \
             fs.mqueue.queues_max`",
            most_queues.unwrap_or_default()
        ),
        _ => String::new(),
    };
    plan.failed("create", error).advise(advice)
}

/// Refuses what is not as wanted; how long a message may be.
fn check(plan: &Plan, queue: &File, framing: Framing) -> Result<usize> {
    let metadata = queue.metadata().map_err(|e| plan.failed("look at", e))?;
    plan.check_owner(metadata.uid())?;
    let Limits { messages, message_size, .. } = mqueue::limits(queue).map_err(|e| plan.failed("look at", e))?;
    let (messages, size) = (messages.unsigned_abs() as usize, message_size.unsigned_abs() as usize);
    let mismatch = |what: String| Err(plan.refuse(ErrorKind::Mismatch, format!("the queue that exists {what}")));
    let holds = messages.saturating_mul(size);
    if let Some(wanted) = plan.capacity().filter(|&wanted| wanted > holds) {
        return mismatch(format!("holds {messages} messages of {size} bytes, {holds} in all, and not {wanted}"));
    }
    let least = match framing {
        Framing::None => plan.max_message().unwrap_or(0),
        _ => LEAST,
    };
    if size < least {
        return mismatch(format!("takes messages of at most {size} bytes, and {least} are needed"));
    }
    Ok(size)
}

/// Whether the queue still has that name.
fn leads_to(name: &str, queue: &File, ready: Ready) -> io::Result<bool> {
    let there = match mqueue::open(name, ready == Ready::Read, ready == Ready::Write) {
        Ok(there) => File::from(there),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    Ok(file::Identity::from(&there.metadata()?) == file::Identity::from(&queue.metadata()?))
}

/// Whether there is a message that somebody may still want to receive: hellos and goodbyes are none.
///
/// The kernel shows messages only by handing them out. So what is in front is taken, up to the first message, and put back in front
/// if there was one. Nobody else is there meanwhile; but a process that is killed between the two loses that message.
fn has_messages(queue: &File, framing: Framing, unit: usize) -> io::Result<bool> {
    if framing != Framing::Frames || mqueue::limits(queue)?.queued == 0 {
        return Ok(mqueue::limits(queue)?.queued > 0);
    }
    let highest = PRIORITIES - 1;
    let mut taken: Vec<Vec<u8>> = Vec::new();
    let mut has_messages = false;
    let mut buffer = vec![0; unit];
    loop {
        let (length, priority) = match mqueue::receive(queue, &mut buffer) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        };
        let bytes = &buffer[..length];
        taken.push(bytes.to_vec());
        let frame = bytes.first_chunk().and_then(|header| Frame::decode(header, LONGEST).ok());
        let is_message = frame.is_none_or(|frame| frame.kind == Kind::Data);
        has_messages |= is_message;
        // Behind those that have the highest priority nothing could be put back in front.
        if is_message && priority < highest {
            break;
        }
    }
    if has_messages {
        for bytes in taken {
            mqueue::send(queue, &bytes, highest)?;
        }
    }
    Ok(has_messages)
}

/// The sender's end.
#[derive(Debug)]
struct QueuePort {
    queue: Queue,
    priority: Priority,
    /// Whether a receiver was seen since this sender joined.
    was_received: bool,
    /// Where the parts of a piece are put together.
    whole: Vec<u8>,
}

impl Port for QueuePort {
    fn unit(&self) -> usize {
        self.queue.unit
    }

    #[inline]
    fn put(&mut self, parts: &[IoSlice<'_>], tag: u32) -> io::Result<usize> {
        let bytes = match parts {
            [part] => part,
            parts => {
                self.whole.clear();
                parts.iter().for_each(|part| self.whole.extend_from_slice(part));
                &self.whole[..]
            }
        };
        let priority = match self.priority {
            Priority::Fixed(priority) => priority.into(),
            Priority::Tag => tag,
        };
        mqueue::send(&self.queue.file, bytes, priority).map(|()| bytes.len())
    }

    fn must_look(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.file.as_fd())
    }

    fn wait(&mut self, deadline: Duration) -> io::Result<()> {
        descriptor::wait_one(self.queue.file.as_fd(), Ready::Write, Some(deadline)).map(drop)
    }

    fn end(&mut self) -> Option<SendError> {
        let is_received = self.queue.has_receiver();
        self.was_received |= is_received;
        (self.was_received && !is_received).then_some(SendError::Closed)
    }

    fn peer(&self) -> PeerState {
        match (self.queue.has_receiver(), descriptor::flock_holder(self.queue.file.as_fd())) {
            (true, Some(pid)) if pid != 0 => PeerState::Alive { pid },
            (true, _) => PeerState::Unknown,
            (false, _) if self.was_received => PeerState::Left,
            _ if self.queue.framing == Framing::Frames => PeerState::Absent,
            _ => PeerState::Unknown,
        }
    }

    fn has_tags(&self) -> bool {
        self.priority == Priority::Tag
    }

    fn is_fit(&self, _length: usize, tag: u32) -> bool {
        match self.priority {
            Priority::Fixed(priority) => tag == 0 || tag == priority.into(),
            Priority::Tag => tag < PRIORITIES,
        }
    }

    fn is_tag(&self, tag: u32) -> bool {
        self.priority != Priority::Tag || tag < PRIORITIES
    }

    fn retire(&mut self) -> bool {
        self.queue.retire()
    }

    fn close(&mut self) {
        self.queue.leave();
    }
}

/// The receiver's end.
#[derive(Debug)]
struct QueueFeed {
    queue: Queue,
}

impl Feed for QueueFeed {
    #[inline]
    fn fill(&mut self, buffer: &mut Buffer, _many: bool) -> io::Result<bool> {
        let (length, priority) = mqueue::receive(&self.queue.file, buffer.room(self.queue.unit))?;
        buffer.filled_piece(length, priority, length);
        Ok(true)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.file.as_fd())
    }

    fn close(&mut self) {
        self.queue.leave();
    }
}
