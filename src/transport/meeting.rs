//! Where a sender and a receiver meet at a Unix socket, before they share memory: who may come, what they say, who answers.
//!
//! Both talk in letters of one size, [`LETTER`] bytes, so that neither ever has to believe a length: `RWMT`, a version, what it
//! is, the length of the text, and the text, filled up with zeros. A letter may come with descriptors. The receiver's side is
//! a [`Host`]: a thread that sleeps until somebody connects, and ends with the receiver.
//!
//! A forked child inherits the listening socket, but not the thread: its copy of the host does nothing. The socket is shut
//! down when the receiver leaves, so that the child's copy of it takes no connections any longer; an abstract name stays taken
//! until that child has ended or executed another program.

use std::fmt;
use std::io::{self, ErrorKind as IoKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Address;
use super::claim::Claim;
use super::plan::{CONNECT, Pauses, is_nobody_there};
use crate::channel::{Existence, Options, Owner};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor::{self, Ready};
use crate::sys::process::{group_id, user_id};
use crate::sys::socket::{self, MOST_DESCRIPTORS, Place, Type};
use crate::sys::{clock, thread};
use crate::units::format_duration;

/// Bytes of a letter.
pub(super) const LETTER: usize = 512;
const HEADER: usize = 8;
const MAGIC: [u8; 4] = *b"RWMT";
const VERSION: u8 = 1;
/// After how long a host that lacks descriptors or memory for the next connection tries again.
const SHORTAGE: Duration = Duration::from_millis(100);

/// What a letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The receiver offers the ring in the memfd that comes with it.
    Memfd,
    /// The receiver offers the ring in POSIX shared memory: by the name in the text, or the descriptor that comes with it.
    Shm,
    /// The receiver offers this very connection.
    Socket,
    /// The sender takes the offer.
    Yes,
    /// The sender can't take it; the text says why.
    No,
    /// The receiver has settled on what the sender took; the text says why on nothing better.
    Settled,
    /// The sender's user may not come.
    Denied,
    /// There is a sender: the process whose number is the text.
    Busy,
    /// What was settled on with another sender can't be had by this one.
    Unfit,
}

impl Word {
    const ALL: [Self; 9] = [
        Self::Memfd,
        Self::Shm,
        Self::Socket,
        Self::Yes,
        Self::No,
        Self::Settled,
        Self::Denied,
        Self::Busy,
        Self::Unfit,
    ];
}

/// What came.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) word: Word,
    pub(super) text: String,
    /// What came with it; as much as this process may have.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// As much of a text as fits into a letter.
pub(super) fn fitting(mut text: String) -> String {
    let mut length = text.len().min(LETTER - HEADER);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.truncate(length);
    text
}

/// Sends a letter, without waiting: each side has room for one, unless the other doesn't keep to the protocol.
pub(super) fn say(link: BorrowedFd, word: Word, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = fitting(text.to_owned());
    let mut bytes = [0; LETTER];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&[VERSION, word as u8]);
    bytes[6..HEADER].copy_from_slice(&(text.len() as u16).to_le_bytes());
    bytes[HEADER..HEADER + text.len()].copy_from_slice(text.as_bytes());
    match socket::send_with(link, &bytes, descriptors)? {
        LETTER => Ok(()),
        _ => Err(IoKind::WouldBlock.into()),
    }
}

/// The next letter: [`IoKind::UnexpectedEof`] if the other side is gone, [`IoKind::TimedOut`] at the monotonic `deadline`,
/// [`IoKind::ConnectionAborted`] once `stop` is set, [`IoKind::InvalidData`] if it is none.
pub(super) fn hear(link: BorrowedFd, deadline: Duration, stop: Option<BorrowedFd<'_>>) -> io::Result<Letter> {
    let mut bytes = [0; LETTER];
    let (mut length, mut descriptors) = (0, Vec::new());
    while length < LETTER {
        match socket::receive_with(link, &mut bytes[length..]) {
            Ok((0, _)) => return Err(IoKind::UnexpectedEof.into()),
            Ok((more, came)) => {
                length += more;
                // No letter comes with more; those of who sends some with each byte are closed.
                descriptors.extend(came);
                descriptors.truncate(MOST_DESCRIPTORS);
            }
            Err(e) if e.kind() == IoKind::WouldBlock => {
                let link = (link, Ready::Read);
                let is_ready =
                    descriptor::wait([link].into_iter().chain(stop.map(|fd| (fd, Ready::Read))), Some(deadline))?;
                if stop.is_some_and(|stop| descriptor::is_ready(stop, Ready::Read).unwrap_or(true)) {
                    return Err(IoKind::ConnectionAborted.into());
                }
                if !is_ready {
                    return Err(IoKind::TimedOut.into());
                }
            }
            Err(e) if e.kind() == IoKind::ConnectionReset => return Err(IoKind::UnexpectedEof.into()),
            Err(e) => return Err(e),
        }
    }
    let (word, text) = decode(&bytes).ok_or(IoKind::InvalidData)?;
    Ok(Letter { word, text, descriptors })
}

fn decode(bytes: &[u8; LETTER]) -> Option<(Word, String)> {
    let word = Word::ALL.into_iter().find(|&word| word as u8 == bytes[5])?;
    let length = usize::from(bytes[6]) | usize::from(bytes[7]) << 8;
    let text = bytes[HEADER..].get(..length)?;
    let is_letter = bytes[..4] == MAGIC && bytes[4] == VERSION;
    // It is shown to people, as part of an error.
    let text: String = String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    is_letter.then_some((word, text))
}

/// Whether the process at the other end may share what is made with these bits: it has the same user or is root's, or its
/// group or everybody has both read and write permission.
pub(super) fn is_admitted(link: BorrowedFd, perm: u32) -> io::Result<bool> {
    let (_, user) = socket::peer(link)?;
    let is_in_group = || socket::is_peer_in_group(link, group_id());
    Ok([user_id(), 0].contains(&user) || perm & 0o006 == 0o006 || (perm & 0o060 == 0o060 && is_in_group()?))
}

/// A connection to the receiver at `place`, of which the sender makes sure that it isn't a stranger's; none if nobody is there
/// yet.
pub(super) fn visit(address: &Address, options: &Options, place: &Place, kind: Type) -> Result<Option<OwnedFd>> {
    let failed = |e| Error::os(e, "connect to", address.target());
    let link = socket::open(place, kind).map_err(failed)?;
    match socket::connect_to(link.as_fd(), place) {
        Ok(()) => {}
        Err(e) if is_nobody_there(&e) => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    // As the owner of a file is checked: shared with anybody, it is shared with whoever came first.
    if is_admitted(link.as_fd(), options.perm.unwrap_or(0)).map_err(failed)? {
        return Ok(Some(link));
    }
    let user = socket::peer(link.as_fd()).map_err(failed)?.1;
    Err(Error::new(ErrorKind::PermissionDenied, "connect to", address.target()).advise(format!(
        "who listens there is user {user}; say perm= with the bits of group or others if it is meant to be shared"
    )))
}

/// Until when whoever must find a receiver may try, and for how long that is.
pub(super) fn patience(options: &Options) -> (Duration, Duration) {
    let patience = options.connect.unwrap_or(CONNECT);
    (clock::now().saturating_add(patience), patience)
}

/// Tries until it succeeds, as long as a sender may try: `attempt` has nothing while nobody is there, and is told the deadline.
pub(super) fn meet<T>(
    address: &Address,
    options: &Options,
    mut attempt: impl FnMut(Duration) -> Result<Option<T>>,
) -> Result<T> {
    let (deadline, patience) = patience(options);
    let mut pauses = Pauses::new();
    loop {
        if let Some(met) = attempt(deadline)? {
            return Ok(met);
        }
        if !pauses.pause(deadline) {
            let patience = format_duration(patience);
            return Err(Error::new(ErrorKind::NotFound, "connect to", address.target())
                .advise(format!("no receiver was there within {patience}: start one, or wait longer with connect=")));
        }
    }
}

/// Why nothing came of a connection that had been made; none if the receiver left, so that another may come.
pub(super) fn unheard<T>(address: &Address, options: &Options, error: io::Error) -> Result<Option<T>> {
    let failed =
        |kind, advice: String| Err(Error::new(kind, "agree with the receiver at", address.target()).advise(advice));
    match error.kind() {
        IoKind::UnexpectedEof | IoKind::BrokenPipe => Ok(None),
        IoKind::TimedOut | IoKind::WouldBlock => {
            let patience = format_duration(patience(options).1);
            failed(ErrorKind::NotFound, format!("one is there, but it did not answer within {patience}"))
        }
        IoKind::InvalidData => failed(
            ErrorKind::Mismatch,
            "who listens there speaks otherwise: another program, or another version".into(),
        ),
        _ => Err(Error::os(error, "agree with the receiver at", address.target())),
    }
}

/// Refuses what can't be where the receiver makes what both use, and it goes with them.
pub(super) fn check(address: &Address, options: &Options, is_receiver: bool) -> Result<()> {
    options.check_for_ring(address)?;
    let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidInput, "open", address.target()).advise(why));
    match options.existence {
        Existence::CreateNew if !is_receiver => {
            return refuse("it is the receiver that makes it, so that a sender can't");
        }
        _ => {}
    }
    match options.persist {
        Some(true) => refuse("it goes with those who use it, so that it can't persist; use shm: or file:"),
        _ => Ok(()),
    }
}

/// What a host is told of.
pub(super) trait Service: Send + 'static {
    /// Deals with somebody who has connected; soon gives up when `stop` is set.
    fn serve(&mut self, link: OwnedFd, stop: BorrowedFd<'_>);
}

/// Who answers for a receiver, in a thread, as long as the receiver has it.
pub(super) struct Host {
    thread: Option<JoinHandle<()>>,
    stop: Arc<OwnedFd>,
    listener: Arc<OwnedFd>,
    claim: Option<Claim>,
    owner: Owner,
}

impl Host {
    /// `listener` listens already; `claim` is released when the host goes.
    pub(super) fn start(
        listener: OwnedFd,
        claim: Option<Claim>,
        mut service: impl Service,
        address: &Address,
    ) -> Result<Self> {
        let failed = |e| Error::os(e, "start a thread that answers at", address.target());
        let stop = match descriptor::event() {
            Ok(stop) => Arc::new(stop),
            Err(e) => {
                claim.iter().for_each(Claim::release);
                return Err(failed(e));
            }
        };
        let listener = Arc::new(listener);
        let theirs = (Arc::clone(&stop), Arc::clone(&listener));
        let thread = thread::spawn("ringway-host", move || answer(&theirs.1, &theirs.0, &mut service));
        let (thread, error) = match thread {
            Ok(thread) => (Some(thread), None),
            Err(e) => (None, Some(failed(e))),
        };
        // Dropping it clears up in either case.
        let host = Self { thread, stop, listener, claim, owner: Owner::this() };
        match error {
            None => Ok(host),
            Some(error) => Err(error),
        }
    }
}

fn answer(listener: &OwnedFd, stop: &OwnedFd, service: &mut impl Service) {
    let is_stopped = || descriptor::is_ready(stop.as_fd(), Ready::Read).unwrap_or(true);
    loop {
        let accepted = socket::accept(listener.as_fd());
        if is_stopped() {
            return;
        }
        match accepted {
            Ok(link) => service.serve(link, stop.as_fd()),
            Err(e) if e.kind() == IoKind::ConnectionAborted => {}
            Err(e) => {
                let mut awaited = vec![(stop.as_fd(), Ready::Read)];
                let mut deadline = None;
                match e.kind() {
                    IoKind::WouldBlock => awaited.push((listener.as_fd(), Ready::Read)),
                    _ => deadline = Some(clock::now().saturating_add(SHORTAGE)),
                }
                if descriptor::wait(awaited, deadline).is_err() {
                    // Without memory to wait with; not to be busy then is what counts.
                    std::thread::sleep(SHORTAGE);
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.owner.check().is_err() {
            // The thread is the parent's, and so are socket and claim.
            std::mem::forget(thread);
            return;
        }
        descriptor::set_event(self.stop.as_fd());
        let _ = socket::shut_down_all(self.listener.as_fd());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        if let Some(claim) = &self.claim {
            claim.release();
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("claim", &self.claim).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (one, other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        (one.into(), other.into())
    }

    fn soon() -> Duration {
        clock::now() + Duration::from_millis(20)
    }

    #[test]
    fn letters_arrive_with_their_descriptors() {
        let (one, other) = pair();
        let event = descriptor::event().unwrap();
        say(one.as_fd(), Word::Memfd, "ä".repeat(400).as_str(), &[event.as_fd(); 129]).unwrap();
        say(one.as_fd(), Word::No, "no\nway", &[]).unwrap();
        let letter = hear(other.as_fd(), soon(), None).unwrap();
        assert_eq!((letter.word, letter.text.len()), (Word::Memfd, LETTER - HEADER));
        assert_eq!(letter.descriptors.len(), 129);
        descriptor::set_event(letter.descriptors[128].as_fd());
        assert!(descriptor::is_ready(event.as_fd(), Ready::Read).unwrap());
        let letter = hear(other.as_fd(), soon(), None).unwrap();
        assert_eq!((letter.word, &letter.text[..]), (Word::No, "no?way"));
        assert!(letter.descriptors.is_empty());
        assert_eq!(hear(other.as_fd(), soon(), None).unwrap_err().kind(), IoKind::TimedOut);
        descriptor::set_event(event.as_fd());
        let stopped = hear(other.as_fd(), soon() + Duration::from_secs(60), Some(event.as_fd()));
        assert_eq!(stopped.unwrap_err().kind(), IoKind::ConnectionAborted);
    }

    #[test]
    fn what_is_no_letter_is_refused() {
        let [low, high] = 505_u16.to_le_bytes();
        // From where on which bytes are others.
        for (at, wrong) in [(0, &[0][..]), (4, &[2]), (5, &[99]), (6, &[low, high]), (0, &[255; LETTER])] {
            let (one, other) = pair();
            let (there, back) = pair();
            say(there.as_fd(), Word::Yes, "", &[]).unwrap();
            let mut bytes = [0; LETTER];
            assert_eq!(descriptor::read(back.as_fd(), &mut bytes).unwrap(), LETTER);
            bytes[at..at + wrong.len()].copy_from_slice(wrong);
            socket::send_with(one.as_fd(), &bytes, &[]).unwrap();
            assert_eq!(hear(other.as_fd(), soon(), None).unwrap_err().kind(), IoKind::InvalidData);
        }
        let (one, other) = pair();
        socket::send_with(one.as_fd(), b"RW", &[]).unwrap();
        assert_eq!(hear(other.as_fd(), soon(), None).unwrap_err().kind(), IoKind::TimedOut);
        drop(one);
        assert_eq!(hear(other.as_fd(), soon(), None).unwrap_err().kind(), IoKind::UnexpectedEof);
    }
}
