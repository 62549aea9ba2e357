//! One descriptor for everything that an endpoint waits for, at every transport that the kernel carries.

use std::any::Any;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod awaited;
mod doors;
mod receivers;
mod senders;
mod table;

use super::{Address, PipeEnd, Receiver, Sender};
use crate::channel::{Options, RecvError, SendError};
use crate::sys::child::Child;
use crate::sys::clock;
use crate::sys::descriptor::{self, Ready};
use crate::sys::epoll::{Epoll, Events, Interest};
use crate::sys::socket;
use crate::wait::SLICE;

const PATIENCE: Duration = Duration::from_secs(20);

/// How an endpoint learns that its peer was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Its descriptor shows it.
    Shown,
    /// By looking.
    Looked,
    /// Not at all.
    Unknown,
}
use Death::{Looked, Shown, Unknown};

/// What is expected of a transport.
#[derive(Clone, Copy, Debug)]
struct Case {
    address: &'static str,
    sender_is_pollable: bool,
    /// What the receiver sees of a killed sender.
    death: Death,
    /// Whether [`Inward::must_look`] says so while a sender is there.
    must_look: bool,
    /// Whether the sender has to look for the end of its receiver.
    sender_must_look: bool,
    /// Whether a sender ever finds it full, and its descriptor knows.
    is_ever_full: bool,
    /// Whether what was read can no longer show.
    is_consumed: bool,
}

const USUAL: Case = Case {
    address: "",
    sender_is_pollable: true,
    death: Shown,
    must_look: false,
    sender_must_look: false,
    is_ever_full: true,
    is_consumed: true,
};
/// Many senders share it, without connections.
const SHARED: Case = Case { must_look: true, ..USUAL };

const CASES: [Case; 19] = [
    // First, as it needs a process with one thread.
    Case {
        address: "signal://{pid}?sig=RTMIN+6",
        sender_is_pollable: false,
        sender_must_look: true,
        is_ever_full: false,
        ..USUAL
    },
    Case { address: "pipe:", ..SHARED },
    Case { address: "pipe:?framing=lines", must_look: false, death: Unknown, ..SHARED },
    Case { address: "fifo://{dir}/fifo", ..SHARED },
    Case { address: "pty://{dir}/tty", ..USUAL },
    Case { address: "mq:///{name}", death: Looked, sender_must_look: true, ..SHARED },
    Case { address: "unix://{dir}/socket", ..USUAL },
    Case { address: "unix:@{name}", ..USUAL },
    Case { address: "unix://{dir}/socket?framing=lines", death: Unknown, ..USUAL },
    Case { address: "unix://{dir}/socket?type=seqpacket", ..USUAL },
    Case { address: "unix://{dir}/socket?type=dgram", death: Looked, ..SHARED },
    Case { address: "unix://{dir}/socket?type=dgram&framing=none", death: Unknown, must_look: false, ..SHARED },
    Case { address: "tcp://127.0.0.1:{port}", ..USUAL },
    Case { address: "tcp://[::1]:{port}", ..USUAL },
    Case { address: "udp://127.0.0.1:{port}", death: Looked, is_ever_full: false, ..SHARED },
    Case { address: "fd://stream", ..USUAL },
    Case { address: "fd://seqpacket", ..USUAL },
    Case { address: "fd://dgram", death: Looked, ..SHARED },
    Case {
        address: "log://{dir}/log",
        sender_is_pollable: false,
        death: Looked,
        must_look: true,
        is_ever_full: false,
        is_consumed: false,
        ..USUAL
    },
];

/// Where sender and receiver meet; taken away at the end.
struct Place {
    case: Case,
    directory: PathBuf,
    address: String,
    /// The ends that have no name: the sender's, and the receiver's.
    pipe: (Option<PipeEnd>, Option<PipeEnd>),
    sockets: (Option<OwnedFd>, Option<OwnedFd>),
}

impl Place {
    fn new(case: Case) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringway-watched-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).unwrap();
        let port = match case.address.contains("{port}") {
            true => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            false => 0,
        };
        let address = case
            .address
            .replace("{dir}", directory.to_str().unwrap())
            .replace("{name}", &name)
            .replace("{pid}", &std::process::id().to_string())
            .replace("{port}", &port.to_string());
        let pipe = match case.address.starts_with("pipe:") {
            true => {
                let (sender, receiver) = Options::new().pair(&address.parse().unwrap()).unwrap();
                (Some(sender), Some(receiver))
            }
            false => (None, None),
        };
        let kind = match case.address {
            "fd://stream" => Some(socket::Type::STREAM),
            "fd://seqpacket" => Some(socket::Type::SEQPACKET),
            "fd://dgram" => Some(socket::Type::DGRAM),
            _ => None,
        };
        let sockets = kind.map_or((None, None), |kind| {
            let (one, other) = socket::pair(kind);
            (Some(one), Some(other))
        });
        Self { case, directory, address, pipe, sockets }
    }

    fn receiver(&mut self) -> Receiver {
        self.receiver_with(&Options::new())
    }

    fn receiver_with(&mut self, options: &Options) -> Receiver {
        if let Some(end) = self.pipe.1.take() {
            return end.receiver().unwrap();
        }
        match self.sockets.1.take() {
            Some(fd) => options.receiver(&format!("fd://{}", fd.as_raw_fd()).parse().unwrap()).unwrap(),
            None => options.receiver(&self.address.parse().unwrap()).unwrap(),
        }
    }

    fn sender(&mut self) -> Sender {
        if let Some(end) = self.pipe.0.take() {
            return end.sender().unwrap();
        }
        match self.sockets.0.take() {
            Some(fd) => Options::new().sender(&format!("fd://{}", fd.as_raw_fd()).parse().unwrap()).unwrap(),
            None => Options::new().sender(&self.address.parse().unwrap()).unwrap(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        if self.case.address.starts_with("mq:") {
            let _ = super::remove(&self.address.parse::<Address>().unwrap(), true);
        }
    }
}

/// A watched receiver, with what polls its edges.
struct Watched {
    receiver: Receiver,
    fd: Arc<OwnedFd>,
    edges: Epoll,
}

impl Watched {
    fn new(mut receiver: Receiver) -> Self {
        let fd = receiver.inward().watch().unwrap().expect("it can be polled");
        assert_eq!(receiver.inward().watch().unwrap().unwrap().as_raw_fd(), fd.as_raw_fd(), "always the same");
        let edges = Epoll::new().unwrap();
        edges.add(fd.as_fd(), Interest::READ.on_edge(), 0).unwrap();
        let watched = Self { receiver, fd, edges };
        assert!(watched.is_readable(), "nobody has looked yet");
        watched
    }

    fn is_readable(&self) -> bool {
        descriptor::is_ready(self.fd.as_fd(), Ready::Read).unwrap()
    }

    /// Until its level is high.
    fn expect_readable(&self) {
        let deadline = clock::now() + PATIENCE;
        assert!(descriptor::wait_one(self.fd.as_fd(), Ready::Read, Some(deadline)).unwrap(), "it stays unreadable");
    }

    /// Until there is an edge that was not seen yet.
    fn expect_edge(&self) {
        let deadline = clock::now() + PATIENCE;
        assert_eq!(self.edges.wait(&mut Events::with_capacity(1), Some(deadline)).unwrap(), 1, "there is no edge");
    }

    fn forget_edges(&self) {
        self.edges.wait(&mut Events::with_capacity(1), Some(Duration::ZERO)).unwrap();
    }

    fn take(&mut self) -> Result<Vec<u8>, RecvError> {
        self.receiver.try_recv().map(|message| message.to_vec())
    }

    /// Takes whatever there is.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        loop {
            match self.take() {
                Ok(message) => messages.push(message),
                Err(RecvError::Empty) => return messages,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// The next message, by polling; it is unreadable then unless there is more.
    fn await_message(&mut self) -> Vec<u8> {
        loop {
            self.expect_readable();
            match self.take() {
                Ok(message) => return message,
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// What it says when nothing is left, by polling.
    fn await_end(&mut self) -> RecvError {
        loop {
            self.expect_readable();
            match self.take() {
                Err(RecvError::Empty) => {}
                Err(error) => return error,
                Ok(message) => panic!("{message:?}"),
            }
        }
    }
}

/// Held by tests that make terminals, against those that need the number of one that is gone.
pub(super) fn numbers_are_not_used_again() -> MutexGuard<'static, ()> {
    static TERMINALS: Mutex<()> = Mutex::new(());
    TERMINALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test for each case, in a process that no other test's threads and descriptors disturb, nor are disturbed by.
fn for_each(filter: impl Fn(&Case) -> bool, test: impl Fn(Place)) {
    let is_terminal = |case: &Case| case.address.starts_with("pty:");
    for terminals in [false, true] {
        let _terminals = terminals.then(numbers_are_not_used_again);
        alone(|| {
            for case in CASES.iter().filter(|case| is_terminal(case) == terminals && filter(case)) {
                let tested = catch_unwind(AssertUnwindSafe(|| test(Place::new(*case))));
                if let Err(panic) = tested {
                    panic!("{}: {}\n", case.address, text(&*panic));
                }
            }
        });
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let fixed = || panic.downcast_ref::<&str>().map(|text| text.to_string());
    panic.downcast_ref::<String>().cloned().or_else(fixed).unwrap_or_default()
}

/// Runs a test in a process of its own.
fn alone(test: impl FnOnce()) {
    let mut child = Child::fork(|tell| {
        tell.close_inherited();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(test)) {
            panic!("{}", text(&*panic));
        }
    });
    child.expect_success();
}
