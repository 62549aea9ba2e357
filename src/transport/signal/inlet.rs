//! The receiving end.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::peer::{Caller, Peer, Stage};
use super::roles::Claim;
use super::word::{HELLO, Header};
use crate::channel::{PeerState, RecvError};
use crate::sys::clock;
use crate::sys::descriptor::{self, Ready};
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::process::{Fate, ProcessId};
use crate::sys::signal::{self, Arrived, Batch, QUEUED};
use crate::transport::frame::{Frame, Identity, Kind, Malformed};
use crate::transport::inlet::Inlet;
use crate::transport::outlet::LINGER;
use crate::transport::receiver::Delivery;
use crate::transport::sources::{Sources, Taken};

/// How many processes are listened to. Of those that haven't said hello, the oldest is forgotten; more that have are refused.
const MOST: usize = 1024;

#[derive(Debug)]
pub(super) struct SignalInlet {
    fd: OwnedFd,
    _claim: Claim,
    max: usize,
    batch: Batch,
    /// Which of the batch are to be taken.
    left: Range<usize>,
    peers: Vec<Peer>,
    /// Where the last word came from: mostly the next one does, too.
    last: usize,
    /// How many have said hello.
    heard_of: u64,
    sources: Sources,
    /// Bytes that all unfinished messages hold.
    held: usize,
    current: Vec<u8>,
    delivery: Delivery,
    is_put_back: bool,
    /// Where its descriptors are in, once it is watched.
    epoll: Option<Arc<Epoll>>,
}

impl SignalInlet {
    pub(super) fn new(fd: OwnedFd, claim: Claim, max: usize) -> Self {
        Self {
            fd,
            _claim: claim,
            max,
            batch: Batch::new(),
            left: 0..0,
            peers: Vec::new(),
            last: 0,
            heard_of: 0,
            sources: Sources::new(max, false),
            held: 0,
            current: Vec::new(),
            delivery: Delivery::default(),
            is_put_back: false,
            epoll: None,
        }
    }

    /// Takes in a signal; a message if it was the last word of one.
    fn take(&mut self, arrived: Arrived) -> Result<Option<Delivery>, RecvError> {
        // A pid of 0 is one that has no number here.
        if arrived.code != QUEUED || arrived.pid == 0 {
            return Err(RecvError::Malformed);
        }
        let at = match self.peers.get(self.last) {
            Some(peer) if peer.pid == arrived.pid => self.last,
            _ => self.find(arrived.pid)?,
        };
        self.last = at;
        let peer = &mut self.peers[at];
        peer.window.rotate_left(1);
        peer.window[HELLO - 1] = arrived.value;
        if let Some(process) = peer.greeting()
            && peer.may_begin(&process)
        {
            return self.begin(at, process).map(|()| None);
        }
        match &mut peer.stage {
            Stage::Stray { greeting, is_told } => {
                let is_hello = arrived.value == Header::Hello.encode();
                *greeting = match *greeting {
                    _ if is_hello => 1,
                    0 => 0,
                    words => (words + 1) % HELLO,
                };
                if *greeting > 0 || *is_told {
                    return Ok(None);
                }
                *is_told = true;
                Err(RecvError::Malformed)
            }
            Stage::Header => self.take_header(at, arrived.value),
            Stage::Hello { left } => {
                *left -= 1;
                // It would have begun.
                if *left == 0 { self.give_up(at) } else { Ok(None) }
            }
            Stage::Message { length, bytes, .. } => {
                let share = (*length - bytes.len()).min(8);
                // Memory grows with what has come, not with what is announced; and all together is bounded.
                if self.held + share > 4 * self.max.max(1 << 20) {
                    return self.give_up(at);
                }
                bytes.extend_from_slice(&arrived.value.to_le_bytes()[..share]);
                self.held += share;
                if bytes.len() == *length { self.finish(at) } else { Ok(None) }
            }
        }
    }

    fn take_header(&mut self, at: usize, word: u64) -> Result<Option<Delivery>, RecvError> {
        let stage = match Header::decode(word) {
            Some(Header::Message { length, .. }) if length as usize > self.max => return self.give_up(at),
            Some(Header::Message { length, tag }) => {
                self.peers[at].stage = Stage::Message { length: length as usize, tag, bytes: Vec::new() };
                return if length == 0 { self.finish(at) } else { Ok(None) };
            }
            Some(Header::Hello) => Stage::Hello { left: HELLO - 1 },
            Some(Header::Goodbye) => {
                let peer = self.peers.swap_remove(at);
                self.note(&peer, Kind::Goodbye)?;
                return Ok(None);
            }
            None => return self.give_up(at),
        };
        self.peers[at].stage = stage;
        Ok(None)
    }

    /// The message has come whole.
    fn finish(&mut self, at: usize) -> Result<Option<Delivery>, RecvError> {
        let peer = &mut self.peers[at];
        let (Stage::Message { length, tag, bytes }, Some(caller)) =
            (std::mem::replace(&mut peer.stage, Stage::Header), &mut peer.caller)
        else {
            return Ok(None);
        };
        self.held -= bytes.len();
        self.current = bytes;
        let sequence = caller.sequence;
        caller.sequence += 1;
        let frame = Frame { tag, ..Frame::control(Kind::Data, peer.pid, sequence, length) };
        match self.sources.take(&frame, &self.current, caller.number) {
            Ok(Taken::Whole(delivery)) => {
                self.delivery = delivery;
                Ok(Some(delivery))
            }
            Ok(_) => Ok(None),
            Err(Malformed) => self.give_up(at),
        }
    }

    /// Where the words of a process are kept.
    #[cold]
    fn find(&mut self, pid: u32) -> Result<usize, RecvError> {
        if let Some(at) = self.peers.iter().position(|peer| peer.pid == pid) {
            return Ok(at);
        }
        if self.peers.len() == MOST {
            let stray = self.peers.iter().position(|peer| peer.caller.is_none()).ok_or(RecvError::Malformed)?;
            self.peers.remove(stray);
        }
        self.peers.push(Peer::new(pid));
        Ok(self.peers.len() - 1)
    }

    /// A process has said hello.
    fn begin(&mut self, at: usize, process: ProcessId) -> Result<(), RecvError> {
        self.end(at);
        // Whose descriptor it is can be told afterwards: that of a process which lives has its number, and no other has it.
        let pidfd = signal::pidfd(process.pid).ok();
        let is_gone = process.fate() == Fate::Gone;
        let pidfd = pidfd.filter(|_| !is_gone).filter(|pidfd| self.is_shown(pidfd));
        self.heard_of += 1;
        let peer = &mut self.peers[at];
        peer.stage = Stage::Header;
        peer.caller = Some(Caller { process, pidfd, is_suspect: is_gone, number: self.heard_of, sequence: 0 });
        let frame = Frame::control(Kind::Hello, peer.pid, 0, Identity::BYTES);
        match self.sources.take(&frame, &Identity(process).encode(), self.heard_of) {
            Ok(_) => Ok(()),
            Err(Malformed) => self.give_up(at).map(drop),
        }
    }

    /// Has the end of a process shown, if that is wanted; without room for it, it is found by looking.
    fn is_shown(&self, pidfd: &OwnedFd) -> bool {
        self.epoll.as_ref().is_none_or(|epoll| epoll.add(pidfd.as_fd(), Interest::READ, 0).is_ok())
    }

    /// Takes back [`SignalInlet::is_shown`]: a process that has ended would be ready for ever.
    fn hide(&self, caller: &Caller) {
        if let (Some(epoll), Some(pidfd)) = (&self.epoll, &caller.pidfd) {
            // It was added, so that this can't fail.
            let _ = epoll.delete(pidfd.as_fd());
        }
    }

    /// Passes on that a process has left.
    fn note(&mut self, peer: &Peer, kind: Kind) -> Result<(), RecvError> {
        let Some(caller) = &peer.caller else { return Ok(()) };
        self.hide(caller);
        let frame = Frame::control(kind, peer.pid, caller.sequence, 0);
        self.sources.take(&frame, &[], caller.number).map(drop).map_err(|Malformed| RecvError::Malformed)
    }

    /// What a process sends isn't understood: it counts as dead until it says hello again.
    fn give_up(&mut self, at: usize) -> Result<Option<Delivery>, RecvError> {
        self.end(at);
        self.peers[at].stage = Stage::Stray { greeting: 0, is_told: true };
        Err(RecvError::Malformed)
    }

    /// The sender that said hello is no longer there.
    fn end(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if let Stage::Message { bytes, .. } = &peer.stage {
            self.held -= bytes.len();
        }
        peer.stage = Stage::Header;
        if let Some(caller) = peer.caller.take() {
            self.hide(&caller);
            self.sources.end_connection(caller.number);
        }
    }

    /// Looks who is dead. What they sent may be pending still.
    fn suspect(&mut self) {
        for caller in self.peers.iter_mut().filter_map(|peer| peer.caller.as_mut()) {
            caller.is_suspect = caller.is_suspect || caller.is_dead();
        }
    }

    /// Whether the descriptor of any process shows that it has ended.
    fn has_ended(&self) -> bool {
        let pidfds = self.peers.iter().filter_map(|peer| peer.caller.as_ref()?.pidfd.as_ref());
        let all = pidfds.map(|pidfd| (pidfd.as_fd(), Ready::Read));
        descriptor::wait(all, Some(Duration::ZERO)).unwrap_or(false)
    }

    /// Nothing is pending: the suspects are dead.
    fn bury(&mut self) {
        for at in (0..self.peers.len()).rev() {
            if self.peers[at].caller.as_ref().is_some_and(|caller| caller.is_suspect) {
                self.end(at);
                self.peers.swap_remove(at);
            }
        }
    }
}

impl Inlet for SignalInlet {
    fn max_message(&self) -> usize {
        self.max
    }

    fn try_take(&mut self, _many: bool) -> Result<Delivery, RecvError> {
        if self.is_put_back {
            self.is_put_back = false;
            return Ok(self.delivery);
        }
        // Only who is watched must find at once what ended the wait.
        let mut has_looked = self.epoll.is_none();
        loop {
            while let Some(at) = self.left.next() {
                if let Some(delivery) = self.take(self.batch.get(at))? {
                    return Ok(delivery);
                }
            }
            match self.batch.fill(&self.fd) {
                Ok(count) => self.left = 0..count,
                // Once more after that, as what they sent may have become pending just before they ended.
                Err(e) if e.kind() == ErrorKind::WouldBlock && !has_looked && self.has_ended() => {
                    self.suspect();
                    has_looked = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.bury();
                    return Err(self.sources.tell_end().unwrap_or(RecvError::Empty));
                }
                Err(e) => return Err(RecvError::Os { errno: e.raw_os_error().unwrap_or(libc::EIO) }),
            }
        }
    }

    fn payload(&self) -> &[u8] {
        &self.current
    }

    fn put_back(&mut self) {
        self.is_put_back = true;
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), RecvError> {
        let os = |e: io::Error| RecvError::Os { errno: e.raw_os_error().unwrap_or(libc::EIO) };
        let pidfds = self.peers.iter().filter_map(|peer| peer.caller.as_ref()?.pidfd.as_ref());
        let all = std::iter::once(&self.fd).chain(pidfds).map(|fd| (fd.as_fd(), Ready::Read));
        let is_ready = descriptor::wait(all, Some(deadline)).map_err(os)?;
        if is_ready && !descriptor::is_ready(self.fd.as_fd(), Ready::Read).map_err(os)? {
            self.suspect();
        }
        Ok(())
    }

    fn look(&mut self) {
        self.suspect();
    }

    fn must_look(&self) -> bool {
        self.peers.iter().filter_map(|peer| peer.caller.as_ref()).any(|caller| caller.pidfd.is_none())
    }

    fn watch(&mut self, epoll: &Arc<Epoll>) -> io::Result<bool> {
        epoll.add(self.fd.as_fd(), Interest::READ, 0)?;
        self.epoll = Some(Arc::clone(epoll));
        for at in 0..self.peers.len() {
            let pidfd = self.peers[at].caller.as_mut().and_then(|caller| caller.pidfd.take());
            if let (Some(pidfd), Some(caller)) =
                (pidfd.filter(|pidfd| self.is_shown(pidfd)), &mut self.peers[at].caller)
            {
                caller.pidfd = Some(pidfd);
            }
        }
        Ok(true)
    }

    fn has_hidden(&self) -> bool {
        self.is_put_back || !self.left.is_empty()
    }

    fn select(&mut self, _tag: Option<u32>) -> bool {
        false
    }

    fn peer(&self) -> PeerState {
        self.sources.peer()
    }

    fn close(&mut self) {
        // What is pending counts against the limit of the user as long as this process lives.
        let deadline = clock::now().saturating_add(LINGER);
        while self.batch.fill(&self.fd).is_ok() && clock::now() < deadline {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::roles::Role;
    use super::super::word;
    use super::*;

    /// Fed by hand; the signal is nobody else's in this process.
    fn inlet(number: i32, max: usize) -> SignalInlet {
        let signal = signal::rtmin() + number;
        let claim = Claim::take(Role::Receiver, signal).unwrap().unwrap();
        SignalInlet::new(signal::signal_fd(signal).unwrap(), claim, max)
    }

    fn hello(process: ProcessId) -> Vec<u64> {
        let mut words = vec![Header::Hello.encode()];
        word::push(&mut words, &Identity(process).encode());
        words
    }

    fn message(bytes: &[u8]) -> Vec<u64> {
        let mut words = vec![Header::Message { length: bytes.len() as u32, tag: 3 }.encode()];
        word::push(&mut words, bytes);
        words
    }

    impl SignalInlet {
        /// What the words of a process lead to: messages with their sender's number, and errors.
        fn feed(&mut self, pid: u32, words: &[u64]) -> Vec<Result<(Vec<u8>, u32), RecvError>> {
            let arrived = |&value| Arrived { signal: 0, code: QUEUED, pid, uid: 0, value };
            let outcomes = words.iter().filter_map(|word| match self.take(arrived(word)) {
                Ok(None) => None,
                Ok(Some(delivery)) => Some(Ok((self.current.clone(), delivery.producer))),
                Err(error) => Some(Err(error)),
            });
            outcomes.collect()
        }
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_sender() {
        let mut inlet = inlet(20, 100);
        let first = ProcessId { start_time: 1, ..ProcessId::current().unwrap() };
        let second = ProcessId { start_time: 2, ..first };
        assert_eq!(inlet.feed(first.pid, &hello(first)), []);
        assert_eq!(inlet.feed(first.pid, &message(b"whole")), [Ok((b"whole".to_vec(), 0))]);
        // In the middle of a message, of which there was more.
        assert_eq!(inlet.feed(first.pid, &message(&[1; 100])[..5]), []);
        assert_eq!(inlet.feed(first.pid, &hello(second)), []);
        assert_eq!(inlet.held, 0);
        assert_eq!(inlet.feed(first.pid, &message(b"another")), [Ok((b"another".to_vec(), 1))]);
        assert_eq!(inlet.try_take(false), Err(RecvError::PeerDied), "both");
        assert!(inlet.peers.is_empty());
    }

    #[test]
    fn nobody_can_forge_a_hello_in_a_message() {
        let mut inlet = inlet(21, 100);
        let process = ProcessId::current().unwrap();
        assert_eq!(inlet.feed(process.pid, &hello(process)), []);
        let forged: Vec<u8> =
            hello(ProcessId { start_time: 1, ..process }).iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(inlet.feed(process.pid, &message(&forged)), [Ok((forged, 0))]);
        // Between messages it is one: the program was replaced by another.
        assert_eq!(inlet.feed(process.pid, &hello(process)), []);
        assert_eq!(inlet.feed(process.pid, &message(b"anew")), [Ok((b"anew".to_vec(), 1))]);
        assert_eq!(inlet.feed(process.pid, &[Header::Goodbye.encode()]), []);
        assert_eq!(inlet.try_take(false), Err(RecvError::PeerDied), "the first");
        assert_eq!(inlet.try_take(false), Err(RecvError::Closed));
    }

    #[test]
    fn strays_are_told_once_and_found_again_by_their_hello() {
        let mut inlet = inlet(22, 100);
        let process = ProcessId::current().unwrap();
        let malformed = [Err(RecvError::Malformed)];
        assert_eq!(inlet.feed(process.pid, &message(&[9; 50])), malformed);
        // Of another process, and cut off.
        assert_eq!(inlet.feed(process.pid, &hello(ProcessId { pid: 1, ..process })), []);
        assert_eq!(inlet.feed(process.pid, &hello(process)[..3]), []);
        assert_eq!(inlet.feed(process.pid, &hello(process)), []);
        assert_eq!(inlet.feed(process.pid, &message(b"")), [Ok((Vec::new(), 0))]);
        assert_eq!(inlet.feed(process.pid, &message(&[9; 101])[..1]), malformed, "too long");
        assert_eq!(inlet.feed(process.pid, &message(&[9; 101])), []);
        assert_eq!(inlet.try_take(false), Err(RecvError::PeerDied));
        // Half a hello, and something else.
        let mut other = hello(process);
        other[4] = 7;
        assert_eq!(inlet.feed(process.pid + 1, &other), malformed);
        assert_eq!(inlet.feed(0, &hello(process)[..1]), malformed, "it has no number here");
    }

    #[test]
    fn memory_is_bounded_whoever_sends() {
        let mut inlet = inlet(23, 1 << 20);
        let part = message(&vec![7; 1 << 20]);
        let mut refused = 0;
        // Pids that are nobody's; what they sent stays until something is waited for.
        for pid in 1 << 29..(1 << 29) + 6 {
            assert_eq!(inlet.feed(pid, &hello(ProcessId { pid, ..ProcessId::current().unwrap() })), []);
            refused += inlet.feed(pid, &part[..part.len() - 1]).len();
            assert!(inlet.held <= 4 << 20);
        }
        assert_eq!(refused, 2);
        for pid in 1..3000 {
            assert_eq!(inlet.feed(1 << 30 | pid, &[5]), [Err(RecvError::Malformed)]);
            assert!(inlet.peers.len() <= MOST);
        }
        assert_eq!(inlet.try_take(false), Err(RecvError::PeerDied));
        assert_eq!(inlet.held, 0);
    }
}
