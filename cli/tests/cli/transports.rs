//! What is no ring: every other way between processes.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use nix::sys::signal::Signal;
use ringway::{Address, transport};
use serde_json::Value;

use crate::{
    place::{Temporary, temporary},
    running::{Running, run, start, start_with, until},
};

/// A place that no other test has, and of which nothing is left at the end.
struct Spot {
    address: String,
    /// What the address leads to, if that is in a file system.
    path: Option<PathBuf>,
    /// A file that the address needs.
    key: Option<Temporary>,
}

/// A name that no other test has.
fn unique(what: &str) -> String {
    temporary(what).file_name().unwrap().to_str().unwrap().to_owned()
}

fn at_path(scheme: &str, options: &str) -> Spot {
    // Not where the others are: the name of a socket must be short.
    let path = std::env::temp_dir().join(unique("spot"));
    Spot { address: format!("{scheme}://{}{options}", path.display()), path: Some(path), key: None }
}

fn named(prefix: &str, options: &str) -> Spot {
    Spot { address: format!("{prefix}{}{options}", unique("spot")), path: None, key: None }
}

fn keyed(options: &str) -> Spot {
    let key = Temporary::new(b"");
    Spot { address: format!("sysvmq://{}?id=7{options}", key.0.display()), path: None, key: Some(key) }
}

/// Those that a sender and a receiver find by the same address.
fn all() -> Vec<Spot> {
    vec![
        at_path("memfd", ""),
        named("auto:///", ""),
        at_path("fifo", ""),
        at_path("pty", ""),
        named("mq:///", ""),
        keyed(""),
        at_path("unix", ""),
        at_path("unix", "?type=dgram"),
        at_path("unix", "?type=seqpacket"),
        named("unix:@", ""),
        at_path("log", ""),
    ]
}

impl Spot {
    fn is(&self, scheme: &str) -> bool {
        self.address.starts_with(&format!("{scheme}:"))
    }

    fn path(&self) -> &Path {
        self.path.as_ref().unwrap()
    }

    /// All that there may be in a file system.
    fn files(&self) -> Vec<PathBuf> {
        self.path.iter().flat_map(|path| [path.clone(), format!("{}.lock", path.display()).into()]).collect()
    }

    /// Fails if anything is left of it.
    #[track_caller]
    fn assert_gone(&self) {
        for path in self.files() {
            assert!(path.symlink_metadata().is_err(), "{} is left of {}", path.display(), self.address);
        }
        if self.is("mq") || self.is("sysvmq") {
            run(&["rm", &self.address], b"").assert_code(2);
        }
    }

    /// As before; a log stays until it is removed.
    #[track_caller]
    fn assert_gone_or_removed(&self) {
        if self.is("log") {
            run(&["rm", &self.address], b"").assert_code(0);
        }
        self.assert_gone();
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        // Most are gone already.
        let _ = self.address.parse::<Address>().map(|address| transport::remove(&address, true));
        self.files().iter().for_each(|path| drop(fs::remove_file(path)));
        drop(self.key.take());
    }
}

/// Starts a receiver that chooses where it receives, and says it.
fn start_anywhere(args: &[&str]) -> (Running, String) {
    let mut receiver = start(args);
    let line = receiver.hear_aside();
    let address = line.strip_prefix("receiving at ").unwrap_or_else(|| panic!("it said {line}")).to_owned();
    (receiver, address)
}

/// Starts both, and has a line pass.
fn start_both(spot: &Spot) -> (Running, Running) {
    let mut receiver = start(&["recv", &spot.address]);
    let mut sender = start(&["send", &spot.address]);
    sender.say("alive\n");
    assert_eq!(receiver.hear(), "alive\n", "{}", spot.address);
    (sender, receiver)
}

/// Waits until it handles a signal, which would kill it before.
fn until_it_catches(running: &Running, signal: Signal) {
    until(|| {
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        (u64::from_str_radix(caught, 16).unwrap() >> (signal as i32 - 1) & 1 == 1).then_some(())
    });
}

/// 300 KiB that are not text.
fn bytes() -> Vec<u8> {
    (0..300 << 10).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[track_caller]
fn assert_passed(mut sender: Running, receiver: Running, wanted: &[u8], what: &str) {
    drop(sender.stdin.take());
    let received = receiver.end();
    let sent = sender.end();
    assert_eq!((sent.code(), received.code()), (Some(0), Some(0)), "{what}: {}{}", sent.stderr, received.stderr);
    assert!(received.stdout == wanted, "other bytes came out of {what}");
}

#[test]
fn bytes_pass_unchanged() {
    let input = Temporary::new(&bytes());
    for spot in all() {
        let receiver = start(&["recv", "--raw", &spot.address]);
        let sender = start_with(&["send", "--chunk", "64KiB", &spot.address], input.open(), Stdio::null());
        assert_passed(sender, receiver, &bytes(), &spot.address);
        spot.assert_gone_or_removed();
    }
}

#[test]
fn bytes_pass_unchanged_to_where_the_receiver_says() {
    // Of datagrams, as many as the buffer of a socket holds.
    for (address, length) in [
        ("tcp://127.0.0.1:0", 300 << 10),
        ("tcp://[::1]:0", 300 << 10),
        ("udp://127.0.0.1:0", 40_000),
        ("signal://self?sig=RTMIN+2", 40_000),
    ] {
        let input = Temporary::new(&bytes()[..length]);
        let (receiver, reached) = start_anywhere(&["recv", "--raw", address]);
        let sender = start_with(&["send", "--chunk", "1000", &reached], input.open(), Stdio::null());
        assert_passed(sender, receiver, &bytes()[..length], &reached);
    }
}

#[test]
fn bytes_pass_unchanged_through_an_inherited_pipe() {
    let input = Temporary::new(&bytes());
    let (reader, writer) = std::io::pipe().unwrap();
    let sender = start_with(&["send", "--chunk", "64KiB", "fd://1"], input.open(), writer);
    let receiver = start_with(&["recv", "--raw", "fd://0"], reader, Stdio::piped());
    assert_passed(sender, receiver, &bytes(), "fd");
}

#[test]
fn each_line_is_there_at_once() {
    for spot in all() {
        let (mut sender, mut receiver) = start_both(&spot);
        for line in ["one\n", "\n", "three\n"] {
            sender.say(line);
            assert_eq!(receiver.hear(), line, "{}", spot.address);
        }
        // More than most take at once.
        let long = format!("{}\n", "x".repeat(1 << 20));
        sender.say(&long);
        assert!(receiver.hear() == long, "{}", spot.address);
        assert_passed(sender, receiver, b"", &spot.address);
    }
}

#[test]
fn queues_and_logs_can_be_sent_to_first() {
    for spot in [named("mq:///", ""), keyed(""), at_path("log", "?reader=me")] {
        run(&["send", &spot.address], b"1\n2\n3\n").assert_code(0);
        let end = run(&["recv", "--count", "1", &spot.address], b"");
        assert_eq!(end.assert_code(0).text(), "1\n", "{}", spot.address);
        // The others are still there.
        let end = run(&["recv", &spot.address], b"");
        assert_eq!(end.assert_code(0).text(), "2\n3\n", "{}", spot.address);
        spot.assert_gone_or_removed();
    }
}

#[test]
fn a_receiver_chooses_by_tag() {
    let spot = keyed("");
    run(&["send", "--tag", "1", &spot.address], b"first\n").assert_code(0);
    run(&["send", "--tag", "2", &spot.address], b"second\n").assert_code(0);
    let end = run(&["recv", "--select", "2", "--count", "1", &spot.address], b"");
    assert_eq!(end.assert_code(0).text(), "second\n");
    assert_eq!(run(&["recv", &spot.address], b"").assert_code(0).text(), "first\n");
    spot.assert_gone();
    for spot in all().iter().filter(|spot| !spot.is("sysvmq")) {
        run(&["recv", "--select", "2", &spot.address], b"").assert_code(2).assert_says(&["by tag"]);
        spot.assert_gone();
    }
}

#[test]
fn both_sides_tell_what_they_have_agreed_on() {
    let spot = named("auto:///", "");
    let receiver = start(&["recv", &spot.address]);
    let sender = run(&["send", &spot.address], b"one\n");
    let received = receiver.end();
    assert_eq!((sender.code(), received.code(), received.text()), (Some(0), Some(0), "one\n"));
    assert!(sender.stderr.starts_with(&format!("ringway: {} is ", spot.address)), "{}", sender.stderr);
    assert_eq!(sender.stderr, received.stderr);
    assert_eq!(sender.stderr.lines().count(), 1);
}

#[test]
fn a_sender_killed_is_told() {
    for spot in all() {
        let (sender, receiver) = start_both(&spot);
        sender.kill();
        let end = receiver.end();
        assert_eq!(end.code(), Some(3), "{}: {}", spot.address, end.stderr);
        end.assert_says(&["died"]);
        spot.assert_gone_or_removed();
    }
}

#[test]
fn interrupted_ones_leave_nothing() {
    for spot in all() {
        let (mut sender, receiver) = start_both(&spot);
        receiver.signal(Signal::SIGINT);
        assert_eq!(receiver.end().code(), Some(130), "{}", spot.address);
        sender.signal(Signal::SIGINT);
        let stdin = sender.stdin.take();
        assert_eq!(sender.end().code(), Some(130), "{}", spot.address);
        drop(stdin);
        spot.assert_gone_or_removed();
    }
}

#[test]
fn the_way_to_a_receiver_is_bounded() {
    for spot in
        [at_path("memfd", ""), named("auto:///", ""), at_path("fifo", ""), at_path("pty", ""), at_path("unix", "")]
    {
        let end = run(&["send", "--timeout", "20ms", &spot.address], b"one\n");
        end.assert_code(4).assert_says(&["no receiver", "20ms", &spot.address]);
        let end = run(&["send", &format!("{}?connect=30ms", spot.address)], b"one\n");
        end.assert_code(4).assert_says(&["no receiver", "30ms", &spot.address]);
        run(&["send", "--timeout", "0s", &spot.address], b"one\n").assert_code(4);
        spot.assert_gone();
    }
}

#[test]
fn waiting_for_a_receiver_can_be_interrupted() {
    for spot in [at_path("fifo", "?connect=60m"), named("auto:///", "?connect=60m"), at_path("unix", "?connect=60m")] {
        let sender = start(&["send", &spot.address]);
        until_it_catches(&sender, Signal::SIGALRM);
        sender.signal(Signal::SIGINT);
        sender.end().assert_code(130);
    }
}

#[test]
fn patience_ends_while_nothing_comes_or_goes() {
    for spot in all() {
        let end = run(&["recv", "--timeout", "20ms", &spot.address], b"");
        end.assert_code(4).assert_says(&["20ms", &spot.address]);
        spot.assert_gone_or_removed();
    }
    let spot = named("mq:///", "");
    let end = run(&["send", "--timeout", "20ms", &spot.address], "line\n".repeat(1000).as_bytes());
    end.assert_code(4).assert_says(&["no room", "20ms", "messages were sent"]);
    run(&["rm", &spot.address], b"").assert_code(0);
    spot.assert_gone();
}

#[test]
fn an_end_that_nobody_can_be_told_of_is_a_failure() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // Fills the pipe to the last byte, so that there is no room for more.
    let line = format!("{}\n", "x".repeat(4095));
    let filler =
        start_with(&["send", "--timeout", "0s", "fd://1?framing=lines"], Stdio::piped(), writer.try_clone().unwrap());
    let mut filler = filler;
    for _ in 0..16 {
        filler.say(&line);
    }
    filler.end().assert_code(0);
    let sender = start_with(&["send", "--timeout", "20ms", "fd://1"], Stdio::null(), writer);
    sender.end().assert_code(4).assert_says(&["no room for 20ms"]);
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), 16 << 12);
}

#[test]
fn a_reader_that_has_enough_ends_both() {
    let spot = at_path("fifo", "");
    // More than all pipes hold.
    let input = Temporary::new("line\n".repeat(200_000).as_bytes());
    let sender = start_with(&["send", &spot.address], input.open(), Stdio::null());
    let mut receiver = start(&["recv", &spot.address]);
    assert_eq!(receiver.hear(), "line\n");
    drop(receiver.stdout.take());
    receiver.end().assert_code(0);
    sender.end().assert_code(1).assert_says(&["the receiver left", "was not sent"]);
    spot.assert_gone();
}

#[test]
fn a_role_is_held_by_one() {
    for spot in
        [at_path("fifo", ""), at_path("pty", ""), at_path("unix", ""), at_path("memfd", ""), named("mq:///", "")]
    {
        let (sender, receiver) = start_both(&spot);
        let end = run(&["recv", &spot.address], b"");
        end.assert_code(2).assert_says(&[&format!("process {}", receiver.pid())]);
        assert_passed(sender, receiver, b"", &spot.address);
    }
}

#[test]
fn a_stranger_at_the_other_end_speaks_in_lines() {
    let spot = at_path("fifo", "?framing=lines");
    let receiver = start(&["recv", &spot.address]);
    until(|| spot.path().exists().then_some(()));
    // Waits for the receiver, as everybody does who opens a FIFO.
    let fifo = File::options().write(true).open(spot.path()).unwrap();
    let echo = Command::new("sh").args(["-c", "echo one; echo; printf three"]).stdout(fifo).status();
    assert!(echo.unwrap().success());
    assert_eq!(receiver.end().assert_code(0).text(), "one\n\nthree\n");
    spot.assert_gone();

    let (receiver, reached) = start_anywhere(&["recv", "tcp://127.0.0.1:0?framing=lines"]);
    let mut stream = TcpStream::connect(reached.strip_prefix("tcp://").unwrap()).unwrap();
    stream.write_all(b"one\ntwo\n").unwrap();
    drop(stream);
    let end = receiver.end();
    assert_eq!((end.code(), end.text()), (Some(0), "one\ntwo\n"));
}

#[test]
fn a_stranger_at_the_other_end_hears_lines() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}?framing=lines", listener.local_addr().unwrap());
    let mut sender = start(&["send", &address]);
    let mut lines = BufReader::new(listener.accept().unwrap().0);
    for line in ["one\n", "\n", "three\n"] {
        sender.say(line);
        let mut heard = String::new();
        lines.read_line(&mut heard).unwrap();
        assert_eq!(heard, line);
    }
    sender.end().assert_code(0);
    let mut rest = String::new();
    assert_eq!(lines.read_to_string(&mut rest).unwrap(), 0, "{rest}");

    // A piece may hold what a line can't.
    let end = run(&["send", "--chunk", "4", &address], b"a\nbc");
    end.assert_code(1).assert_says(&["piece 1", "newline"]);
}

#[test]
fn a_stranger_at_the_other_end_has_plain_messages() {
    let spot = at_path("unix", "?type=dgram&framing=none");
    let receiver = start(&["recv", "--count", "2", &spot.address]);
    let stranger = UnixDatagram::unbound().unwrap();
    until(|| stranger.connect(spot.path()).ok());
    for message in ["one", "two"] {
        stranger.send(message.as_bytes()).unwrap();
    }
    assert_eq!(receiver.end().assert_code(0).text(), "one\ntwo\n");
    spot.assert_gone();

    let stranger = UnixDatagram::bind(spot.path()).unwrap();
    run(&["send", &spot.address], b"three\n").assert_code(0);
    let mut buffer = [0; 16];
    let length = stranger.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"three");
}

#[test]
fn what_is_malformed_is_dropped_and_told() {
    let spot = at_path("unix", "");
    let mut receiver = start(&["recv", &spot.address]);
    let mut stranger = until(|| UnixStream::connect(spot.path()).ok());
    stranger.write_all(&[b'?'; 256]).unwrap();
    assert!(receiver.hear_aside().contains("framed"), "it warns");
    run(&["send", &spot.address], b"fine\n").assert_code(0);
    let end = receiver.end();
    assert_eq!(end.assert_code(1).text(), "fine\n");
    end.assert_says(&["1 malformed"]);
    spot.assert_gone();
}

#[test]
fn what_is_lost_is_told() {
    let (receiver, reached) = start_anywhere(&["recv", "udp://127.0.0.1:0"]);
    let reached = reached.strip_prefix("udp://").unwrap();
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sender = start(&["send", &format!("udp://{}", between.local_addr().unwrap())]);
    sender.say("one\ntwo\nthree\nfour\n");
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = between.recv(&mut buffer).unwrap();
        let datagram = &buffer[..length];
        if ![&b"two"[..], b"three"].iter().any(|end| datagram.ends_with(end)) {
            between.send_to(datagram, reached).unwrap();
        }
        if datagram.ends_with(b"four") {
            break;
        }
    }
    sender.end().assert_code(0);
    let goodbye = between.recv(&mut buffer).unwrap();
    between.send_to(&buffer[..goodbye], reached).unwrap();
    let end = receiver.end();
    assert_eq!(end.assert_code(1).text(), "one\nfour\n");
    end.assert_says(&["2 messages lost"]);
}

#[test]
fn a_line_beyond_the_maximum_names_it() {
    let spot = at_path("unix", "?max_message=100");
    let receiver = start(&["recv", &spot.address]);
    let end = run(&["send", &spot.address], format!("fits\n{}\n", "x".repeat(101)).as_bytes());
    end.assert_code(1).assert_says(&["line 2", "100B", "max_message"]);
    assert_eq!(receiver.end().assert_code(0).text(), "fits\n");
}

#[test]
fn removal_takes_what_is_left_and_nothing_else() {
    for address in ["tcp://127.0.0.1:7", "udp://127.0.0.1:7", "signal://1", "fd://0", "unix:@x", "auto:///x"] {
        run(&["rm", address], b"").assert_code(2).assert_says(&["leaves nothing behind"]);
    }
    // What a receiver that was killed left.
    for spot in [at_path("unix", ""), at_path("pty", ""), at_path("memfd", ""), at_path("fifo", "")] {
        run(&["rm", &spot.address], b"").assert_code(2);
        let (sender, receiver) = start_both(&spot);
        run(&["rm", &spot.address], b"").assert_code(2).assert_says(&["--force"]);
        receiver.kill();
        sender.kill();
        assert!(spot.path().symlink_metadata().is_ok(), "{}", spot.address);
        run(&["rm", &spot.address], b"").assert_code(0);
        spot.assert_gone();
    }
    // Something else.
    let other = Temporary::new(b"mine");
    for scheme in ["unix", "pty", "fifo", "memfd"] {
        run(&["rm", "--force", &format!("{scheme}://{}", other.0.display())], b"").assert_code(2);
        assert_eq!(fs::read(&other.0).unwrap(), b"mine", "{scheme}");
    }
}

#[test]
fn removal_asks_before_it_takes_a_queue_from_the_living() {
    for spot in [named("mq:///", ""), keyed(""), at_path("log", "")] {
        let (sender, receiver) = start_both(&spot);
        run(&["rm", &spot.address], b"").assert_code(2).assert_says(&["--force"]);
        run(&["rm", "--force", &spot.address], b"").assert_code(0);
        spot.assert_gone();
        drop((sender, receiver));
    }
}

#[test]
fn rings_alone_can_be_inspected_and_recovered() {
    for command in ["inspect", "recover"] {
        for address in ["mq:///x", "unix:@x", "memfd:///x", "auto:///x"] {
            run(&[command, address], b"").assert_code(2).assert_says(&["no ring", "shm, sysv and file"]);
        }
    }
    for command in ["send", "recv", "rm"] {
        run(&[command, "pipe:"], b"").assert_code(2).assert_says(&["fd://"]);
    }
}

#[test]
fn queues_and_meeting_places_are_listed() {
    // The pid is at most 22 bits long.
    let queue = format!("sysvmq:?key={:#x}", 0x5400_0000 | process::id());
    let queue = Spot { address: queue, path: None, key: None };
    let meeting = named("auto:///", "");
    run(&["send", &queue.address], b"one\ntwo\n").assert_code(0);
    let receiver = start(&["recv", &meeting.address]);
    let row = |address: &str| -> Option<Value> {
        let end = run(&["ls", "--json"], b"");
        let rows = end.assert_code(0).text().lines().map(|line| serde_json::from_str(line).unwrap());
        rows.into_iter().find(|row: &Value| row["address"] == address)
    };
    let found = until(|| row(&meeting.address));
    assert_eq!((&found["kind"], &found["size"], &found["depth"]), (&"auto".into(), &Value::Null, &Value::Null));
    let found = row(&queue.address).unwrap();
    assert_eq!((&found["kind"], &found["mode"]), (&"sysvmq".into(), &"0600".into()));
    assert!(found["depth"].as_u64() >= Some(2), "{found}");
    let fields: Vec<&str> = found.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["address", "depth", "kind", "mode", "owner", "problem", "size", "uid"]);
    let end = run(&["ls"], b"");
    assert!(end.assert_code(0).text().lines().any(|line| line.starts_with(&queue.address)));
    receiver.signal(Signal::SIGINT);
    receiver.end();
    run(&["rm", &queue.address], b"").assert_code(0);
    assert_eq!(row(&queue.address), None);
}

/// Runs `ringway transports` with a directory of its own for temporary files; says what is left there.
fn transports(args: &[&str], directory: &str) -> (process::Output, usize) {
    let directory = std::env::temp_dir().join(directory);
    fs::create_dir(&directory).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.arg("transports").args(args).env("TMPDIR", &directory).output();
    let left = fs::read_dir(&directory).unwrap().count();
    fs::remove_dir_all(&directory).unwrap();
    (output.unwrap(), left)
}

#[test]
fn each_transport_is_tried() {
    let (output, left) = transports(&["--json"], &unique("tried"));
    assert_eq!((output.status.code(), left), (Some(0), 0));
    assert_eq!(output.stderr, b"");
    let text = str::from_utf8(&output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 19);
    for row in rows {
        assert_eq!((&row["available"], &row["reason"]), (&true.into(), &Value::Null), "{row}");
    }
}

#[test]
fn what_cannot_be_had_has_a_reason() {
    // Longer than the name of a socket may be.
    let (output, left) = transports(&[], &unique(&"x".repeat(100)));
    assert_eq!((output.status.code(), left), (Some(0), 0));
    let text = str::from_utf8(&output.stdout).unwrap();
    let here = |address: &str| {
        let line = text.lines().find(|line| line.starts_with(address)).unwrap();
        line[address.len()..].split_whitespace().next().unwrap()
    };
    assert_eq!((here("unix:///PATH?type=dgram"), here("fifo:///PATH")), ("no", "yes"), "{text}");
    let reason = text.lines().find(|line| line.starts_with("unix:///PATH?type=dgram: "));
    assert!(reason.is_some_and(|line| line.contains("sun_path")), "{text}");
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transports.md");
    let text = fs::read_to_string(document).unwrap();
    let (_, rest) = text.split_once("<!-- capabilities -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /capabilities -->").unwrap();
    let end = run(&["transports", "--markdown"], b"");
    assert!(
        table.trim() == end.assert_code(0).text().trim(),
        "put the output of `ringway transports --markdown` between the two markers in docs/transports.md"
    );
}
