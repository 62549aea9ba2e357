//! Two processes that meet at an address, whatever that takes.

use crate::common::payload::mix;
use crate::common::{Child, PATIENCE, alone};
use crate::place::Place;
use crate::transports::Transport;
use ringway::transport::PipeEnd;
use ringway::{Address, Options, Receiver, RecvError, Sender};
use std::cell::{Cell, RefCell};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub use crate::common::{Gate, Tell};

/// Beyond this, a test hangs.
const LONGEST: libc::c_uint = 60;

/// Runs `body` in a process of its own, which has one thread and the default action for SIGPIPE; nothing may be left then.
pub fn run(transport: &'static Transport, body: fn(&Stage)) {
    let _alone = alone();
    let place = Place::new(transport);
    let mut child = Child::fork(|_| {
        std::panic::set_hook(Box::new(|panic| {
            let text = format!("{panic}\n");
            // SAFETY: a buffer and its length. The harness would keep what is printed.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }));
        // SAFETY: plain system calls; the default action is no handler.
        unsafe {
            libc::alarm(LONGEST);
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        body(&Stage::new(transport, &place));
    });
    child.expect_success();
    assert_eq!(place.leftovers(), [""; 0], "this is left");
}

/// What both processes know.
pub struct Stage<'a> {
    pub transport: &'static Transport,
    pub place: &'a Place,
    ends: RefCell<Ends>,
    /// The process that receives.
    pub receiving: Cell<u32>,
    is_ready: Gate,
    arrived: Gate,
}

/// What is made before the fork.
enum Ends {
    Elsewhere,
    Pipe(Box<(PipeEnd, PipeEnd)>),
    Sockets(OwnedFd, OwnedFd),
}

impl<'a> Stage<'a> {
    fn new(transport: &'static Transport, place: &'a Place) -> Self {
        let ends = match transport.sockets {
            Some(kind) => socket_pair(kind),
            None if transport.address == "pipe:" => {
                Ends::Pipe(Box::new(Options::new().pair(&"pipe:".parse().unwrap()).unwrap()))
            }
            None => Ends::Elsewhere,
        };
        Self {
            transport,
            place,
            ends: RefCell::new(ends),
            receiving: Cell::new(std::process::id()),
            is_ready: Gate::new(),
            arrived: Gate::new(),
        }
    }

    /// Of an address that both know.
    pub fn address(&self) -> Address {
        self.place.address().replace("{pid}", &self.receiving.get().to_string()).parse().unwrap()
    }

    /// As a person would write it.
    pub fn nominal_address(&self) -> Address {
        self.place.address().replace("{pid}", "self").replace("{end}", "0").parse().unwrap()
    }

    /// Opens the sending end, once there is a receiver if that must be.
    pub fn sender(&self) -> Sender {
        if self.transport.needs_receiver {
            self.is_ready.pass();
        }
        self.sender_at_once()
    }

    pub fn sender_at_once(&self) -> Sender {
        let options = Options::new().connect(PATIENCE);
        match self.take_ends() {
            Ends::Elsewhere => options.sender(&self.address()).unwrap(),
            Ends::Pipe(ends) => ends.0.sender().unwrap(),
            Ends::Sockets(sender, _) => options.sender(&inherited(&sender)).unwrap(),
        }
    }

    pub fn receiver(&self) -> Receiver {
        let receiver = match self.take_ends() {
            Ends::Elsewhere => Options::new().receiver(&self.address()).unwrap(),
            Ends::Pipe(ends) => ends.1.receiver().unwrap(),
            Ends::Sockets(_, receiver) => Options::new().receiver(&inherited(&receiver)).unwrap(),
        };
        self.is_ready.open(8);
        receiver
    }

    /// This process has neither end.
    pub fn take_no_part(&self) {
        self.take_ends();
    }

    fn take_ends(&self) -> Ends {
        self.ends.replace(Ends::Elsewhere)
    }

    /// Forks a child that sends, and then opens the receiver here: a child that inherited it would keep it open.
    pub fn with_child(&self, work: impl FnOnce(&mut Tell)) -> (Child, Receiver) {
        let early = self.transport.is_inherited.then(|| self.receiver());
        let child = Child::fork(work);
        (child, early.unwrap_or_else(|| self.receiver()))
    }

    /// [`Stage::with_child`] with several, which are told their number.
    pub fn with_children(&self, count: usize, work: impl Fn(usize, &mut Tell)) -> (Vec<Child>, Receiver) {
        let early = self.transport.is_inherited.then(|| self.receiver());
        let children = (0..count).map(|number| Child::fork(|tell| work(number, tell))).collect();
        (children, early.unwrap_or_else(|| self.receiver()))
    }

    /// Runs `send` in a child, and `receive` here.
    pub fn between(&self, send: impl FnOnce(Sender), receive: impl FnOnce(&mut Receiver)) {
        let (mut child, mut receiver) = self.with_child(|_| send(self.sender()));
        receive(&mut receiver);
        child.expect_success();
    }

    /// Has a receiver take what is left there.
    pub fn clear_away(&self) {
        if self.transport.has_name {
            self.receiving.set(std::process::id());
            let mut receiver = self.receiver();
            while !matches!(receiver.try_recv(), Err(RecvError::Empty | RecvError::Closed)) {}
        }
    }

    /// Sends message `number`; where messages get lost unless they are waited for, waits for it to arrive.
    #[track_caller]
    pub fn send(&self, sender: &mut Sender, number: u64, len: usize) {
        sender.send((&content(number, len), tag(number))).unwrap();
        self.await_arrival();
    }

    pub fn await_arrival(&self) {
        if !self.transport.is_reliable {
            self.arrived.pass();
        }
    }

    /// Receives message `number`.
    #[track_caller]
    pub fn expect(&self, receiver: &mut Receiver, number: u64, len: usize) {
        match receiver.recv_timeout(PATIENCE) {
            Ok(message) => {
                check(&message, message.tag(), number, len);
                assert!(message.gap() == 0 && !message.is_redelivered());
            }
            Err(error) => panic!("instead of message {number} of {len} bytes: {error:?}"),
        }
        self.confirm_arrival();
    }

    pub fn confirm_arrival(&self) {
        if !self.transport.is_reliable {
            self.arrived.open(1);
        }
    }
}

fn socket_pair(kind: libc::c_int) -> Ends {
    let mut pair = [0; 2];
    // SAFETY: `pair` is a valid place for the answer.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) }, 0);
    // SAFETY: they were just opened, and are nobody else's.
    let [sender, receiver] = pair.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ends::Sockets(sender, receiver)
}

fn inherited(end: &OwnedFd) -> Address {
    format!("fd://{}", end.as_raw_fd()).parse().unwrap()
}

#[track_caller]
pub fn expect_closed(receiver: &mut Receiver) {
    for _ in 0..2 {
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
    }
}

/// What message `number` contains.
pub fn content(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (word, at) in bytes.chunks_mut(8).zip(0..) {
        word.copy_from_slice(&mix(mix(number).wrapping_add(at)).to_le_bytes()[..word.len()]);
    }
    bytes
}

pub fn tag(number: u64) -> u32 {
    mix(!number) as u32
}

#[track_caller]
pub fn check(bytes: &[u8], its_tag: u32, number: u64, len: usize) {
    assert_eq!((bytes.len(), its_tag), (len, tag(number)), "length and tag of message {number}");
    assert!(bytes == content(number, len), "the content of message {number}");
}

/// A number that one process tells another; made before they are forked.
pub struct Note(PipeReader, PipeWriter);

impl Note {
    pub fn new() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Self(reader, writer)
    }

    pub fn tell(&self, number: usize) {
        (&self.1).write_all(&number.to_le_bytes()).unwrap();
    }

    pub fn hear(&self) -> usize {
        let mut bytes = [0; size_of::<usize>()];
        (&self.0).read_exact(&mut bytes).unwrap();
        usize::from_le_bytes(bytes)
    }
}

/// Returns once that process sleeps in a system call.
pub fn await_sleep(pid: u32) {
    let stat = format!("/proc/{pid}/stat");
    loop {
        let stat = std::fs::read_to_string(&stat).unwrap();
        assert!(!stat.contains(") Z "), "it has ended");
        if stat.contains(") S ") {
            break;
        }
        std::thread::yield_now();
    }
}
