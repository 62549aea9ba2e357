//! The examples do what they say, each as a process of its own that has until a deadline.
//!
//! `cargo test` builds them; before `cargo test --test examples`, `cargo build --examples` does.

mod common;

use common::alone;
use ringway::Address;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// What takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// An example, which Cargo builds beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A process that is killed if it hasn't ended when this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; `cargo test` builds the examples")))
    }

    /// What it printed, once it has ended by itself.
    fn finish(mut self, begun: Instant) -> Output {
        let (mut stdout, mut stderr) = (self.0.stdout.take().unwrap(), self.0.stderr.take().unwrap());
        let pid = self.0.id().cast_signed();
        let (is_over, over) = std::sync::mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let is_late = over.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())).is_err();
            if is_late {
                // SAFETY: a plain system call; nobody has reaped that process before it is told here.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            is_late
        });
        let mut said = Output { status: Default::default(), stdout: Vec::new(), stderr: Vec::new() };
        stdout.read_to_end(&mut said.stdout).unwrap();
        stderr.read_to_end(&mut said.stderr).unwrap();
        let _ = is_over.send(());
        assert!(!watch.join().unwrap(), "it hangs: {said:?}");
        said.status = self.0.wait().unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What has ended is not killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removed at the end, with what `any` was told to meet at.
struct Place {
    directory: PathBuf,
    address: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(address) = self.address.parse::<Address>() {
            let _ = ringway::transport::remove(&address, true);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ten orders go from one process to another.
fn exchange(address: &str) {
    let _alone = alone();
    let pid = std::process::id();
    let directory = std::env::temp_dir().join(format!("ringway-examples-{pid}"));
    fs::create_dir_all(&directory).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let udp = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let address = address
        .replace("{name}", &format!("ringway-examples-{pid}"))
        .replace("{directory}", directory.to_str().unwrap())
        .replace("{key}", &format!("{:#x}", 0x4000_0000 | pid))
        .replace("{tcp}", &tcp.to_string())
        .replace("{udp}", &udp.to_string());
    let place = Place { directory, address };
    let begun = Instant::now();
    let mut receiving = Running::start(example("any").args(["recv", &place.address]));
    // Only a datagram that has no receiver is lost without a word.
    if place.address.starts_with("udp:") {
        await_socket(&mut receiving, udp, begun);
    }
    let sending = Running::start(example("any").args(["send", &place.address])).finish(begun);
    assert!(sending.status.success(), "{address}: {sending:?}", address = place.address);
    let received = receiving.finish(begun);
    assert!(received.status.success(), "{address}: {received:?}", address = place.address);
    let expected: String = (0..10).map(|number| format!("order {number} with tag {number}\n")).collect();
    assert_eq!(String::from_utf8(received.stdout).unwrap(), expected, "{}", place.address);
}

/// Returns once somebody has that port.
fn await_socket(receiving: &mut Running, port: u16, begun: Instant) {
    let suffix = format!(":{port:04X}");
    let has = |line: &str| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&suffix));
    while !fs::read_to_string("/proc/net/udp6").unwrap().lines().any(has) {
        assert!(receiving.0.try_wait().unwrap().is_none(), "it has ended");
        assert!(begun.elapsed() < DEADLINE, "it never receives");
        thread::yield_now();
    }
}

macro_rules! any {
    ($($name:ident $address:literal;)*) => {
        /// One program over every scheme that its documentation names.
        mod any {
            $(#[test]
            fn $name() {
                crate::exchange($address);
            })*
        }
    };
}

any! {
    fifo "fifo://{directory}/orders";
    shm "shm:///{name}";
    shm_mpmc "shm:///{name}?ring=mpmc";
    auto "auto:///{name}";
    unix "unix://{directory}/orders.sock";
    unix_abstract "unix:@{name}?type=seqpacket";
    tcp "tcp://127.0.0.1:{tcp}";
    udp "udp://[::1]:{udp}";
    mq "mq:///{name}";
    sysvmq "sysvmq:?key={key}";
    pty "pty://{directory}/orders.tty";
    memfd "memfd://{directory}/orders.sock";
    log "log://{directory}/orders.log";
}

/// What a hanging `request_reply` would leave.
struct Rings(u32);

impl Drop for Rings {
    fn drop(&mut self) {
        let pid = self.0;
        for name in ["requests", "answers"].iter().flat_map(|name| ["", "-0", "-1", "-2"].map(|end| (name, end))) {
            let address: Address = format!("shm:///{}-{pid}{}", name.0, name.1).parse().unwrap();
            let _ = ringway::transport::remove(&address, true);
        }
    }
}

/// Every time: whoever comes or leaves first.
#[test]
fn request_reply() {
    let _alone = alone();
    for _ in 0..20 {
        let begun = Instant::now();
        let running = Running::start(&mut example("request_reply"));
        let _rings = Rings(running.0.id());
        let said = running.finish(begun);
        assert!(said.status.success(), "{said:?}");
        let mut lines: Vec<_> = std::str::from_utf8(&said.stdout).unwrap().lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<_> = (0..3)
            .flat_map(|client| ["ONE", "TWO", "THREE"].map(|word| format!("{word} OF CLIENT {client}")))
            .collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
    }
}

/// Removes what a hanging example would leave in shared memory.
fn rings(names: [&str; 2], pid: u32) -> [Place; 2] {
    names.map(|name| Place { directory: PathBuf::new(), address: format!("shm:///{name}-{pid}") })
}

/// Whatever comes first.
#[test]
fn wait_set() {
    let _alone = alone();
    let begun = Instant::now();
    let running = Running::start(&mut example("wait_set"));
    let pid = running.0.id();
    let _rings = rings(["orders", "news"], pid);
    let said = running.finish(begun);
    assert!(said.status.success(), "{said:?}");
    let lines: Vec<_> = std::str::from_utf8(&said.stdout).unwrap().lines().collect();
    for name in ["orders", "news"] {
        let messages: Vec<_> = lines.iter().filter(|line| line.contains(&format!("{name}-{pid}"))).collect();
        assert!(messages.len() == 3 && (0..3).all(|i| messages[i].starts_with(&format!("message {i} "))), "{lines:?}");
    }
    assert!(lines.contains(&"the socket says good bye"), "{lines:?}");
    assert_eq!(lines.last(), Some(&"all are gone"));
}

/// More than its rings take at once, and a last line without an end.
#[test]
fn epoll() {
    let _alone = alone();
    let begun = Instant::now();
    let mut running = Running::start(example("epoll").stdin(Stdio::piped()));
    let _rings = rings(["requests", "answers"], running.0.id());
    let lines: Vec<String> = (0..1000).map(|number| format!("order {number}")).collect();
    // The pipe takes it all.
    running.0.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let said = running.finish(begun);
    assert!(said.status.success(), "{said:?}");
    let expected: String = lines.iter().map(|line| format!("{line} has been seen\n")).collect();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), expected);
}

#[cfg(feature = "tokio")]
#[test]
fn tokio() {
    let _alone = alone();
    let begun = Instant::now();
    let running = Running::start(&mut example("tokio"));
    let _rings = rings(["orders", "answers"], running.0.id());
    let said = running.finish(begun);
    assert!(said.status.success(), "{said:?}");
    let expected: String = (0..3).map(|number| format!("ORDER {number} to order {number}\n")).collect();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), expected + "told to stop\n");
}
