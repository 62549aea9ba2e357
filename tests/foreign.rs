//! Partners that know nothing of ringway: plain lines on streams, plain messages on sockets that keep them apart. Those of queues are
//! in queues.rs.

mod common;

use common::{PATIENCE, alone};
use ringway::{Address, Options, Receiver, RecvError, SendError, Sender};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringway-test-{}-{name}", std::process::id()))
}

fn receiver(address: &str) -> Receiver {
    Options::new().receiver(&address.parse::<Address>().unwrap()).unwrap()
}

fn sender(address: &str) -> Sender {
    Options::new().connect(PATIENCE).sender(&address.parse::<Address>().unwrap()).unwrap()
}

fn next(receiver: &mut Receiver) -> Result<String, RecvError> {
    receiver.recv_timeout(PATIENCE).map(|message| String::from_utf8(message.to_vec()).unwrap())
}

/// What foreign programs write, and how it is received.
const TEXT: &str = "one\n\ntwo words\nlast";
const LINES: [&str; 4] = ["one", "", "two words", "last"];

#[test]
fn lines_of_strangers_are_received() {
    let _alone = alone();
    let path = path("lines-in");
    let shown = path.display();
    for scheme in ["fifo", "pty", "unix", "tcp"] {
        let mut receiver = receiver(&match scheme {
            "tcp" => "tcp://127.0.0.1:0?framing=lines".to_owned(),
            _ => format!("{scheme}://{shown}?framing=lines"),
        });
        for round in 0..2 {
            let mut stranger: Box<dyn Write> = match scheme {
                "unix" => Box::new(UnixStream::connect(&path).unwrap()),
                "tcp" => Box::new(TcpStream::connect(receiver.local_address().unwrap()).unwrap()),
                _ => Box::new(File::options().write(true).open(&path).unwrap()),
            };
            stranger.write_all(TEXT.as_bytes()).unwrap();
            drop(stranger);
            for line in LINES {
                assert_eq!(next(&mut receiver).as_deref(), Ok(line), "{scheme}, round {round}");
            }
            assert_eq!(next(&mut receiver), Err(RecvError::Closed), "{scheme}, round {round}");
        }
    }
}

#[test]
fn a_shell_writes_into_a_fifo_and_reads_from_one() {
    let _alone = alone();
    let path = path("shell");
    let mut receiver = receiver(&format!("fifo://{}?framing=lines", path.display()));
    let mut shell =
        Command::new("sh").arg("-c").arg("seq 1000 > \"$0\"").arg(&path).stdin(Stdio::null()).spawn().unwrap();
    for number in 1..=1000 {
        assert_eq!(next(&mut receiver), Ok(number.to_string()));
    }
    assert_eq!(next(&mut receiver), Err(RecvError::Closed));
    assert!(shell.wait().unwrap().success());
    drop(receiver);

    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let shell = Command::new("sh")
        .args(["-c", "cat \"$0\""])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut sender = sender(&format!("fifo://{}?framing=lines", path.display()));
    for line in LINES {
        sender.send(line).unwrap();
    }
    assert_eq!(sender.send("two\nlines"), Err(SendError::Unfit));
    drop(sender);
    let output = shell.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{TEXT}\n"));
    assert!(path.exists(), "it was the user's, and stays");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn strangers_read_lines() {
    let _alone = alone();
    let path = path("lines-out");
    let at_path = UnixListener::bind(&path).unwrap();
    let at_port = TcpListener::bind("[::1]:0").unwrap();
    let port = at_port.local_addr().unwrap().port();
    type Accept = Box<dyn Fn() -> Box<dyn Read>>;
    let ends: [(String, Accept); 2] = [
        (format!("unix://{}?framing=lines", path.display()), Box::new(move || Box::new(at_path.accept().unwrap().0))),
        (format!("tcp://[::1]:{port}?framing=lines"), Box::new(move || Box::new(at_port.accept().unwrap().0))),
    ];
    for (address, accept) in ends {
        let mut sender = sender(&address);
        let lines = BufReader::new(accept());
        assert_eq!(sender.send_many(LINES), Ok(4));
        let long = "x".repeat(20_000);
        sender.send(&long).unwrap();
        drop(sender);
        let received: Vec<String> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(received[..4], LINES);
        assert_eq!(received[4..], [long]);
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn plain_messages_keep_their_boundaries_both_ways() {
    let _alone = alone();
    let path = path("plain");
    // Ours receives.
    let mut unix = receiver(&format!("unix://{}?type=dgram&framing=none", path.display()));
    let mut udp = receiver("udp://127.0.0.1:0?framing=none");
    let stranger = UnixDatagram::unbound().unwrap();
    let internet = UdpSocket::bind("127.0.0.1:0").unwrap();
    for message in ["one", "", "R\u{1}\0\0 no frame"] {
        stranger.send_to(message.as_bytes(), &path).unwrap();
        internet.send_to(message.as_bytes(), udp.local_address().unwrap()).unwrap();
        assert_eq!(next(&mut unix).as_deref(), Ok(message));
        assert_eq!(next(&mut udp).as_deref(), Ok(message));
    }
    drop(unix);
    // Ours sends.
    let stranger = UnixDatagram::bind(&path).unwrap();
    let mut to_unix = sender(&format!("unix://{}?type=dgram&framing=none", path.display()));
    let mut to_udp = sender(&format!("udp://{}?framing=none", internet.local_addr().unwrap()));
    let mut buffer = [0; 100];
    for message in ["one", "", "three"] {
        to_unix.send(message).unwrap();
        assert_eq!(stranger.recv(&mut buffer).unwrap(), message.len());
        assert_eq!(&buffer[..message.len()], message.as_bytes());
        to_udp.send(message).unwrap();
        assert_eq!(internet.recv(&mut buffer).unwrap(), message.len());
        assert_eq!(&buffer[..message.len()], message.as_bytes());
    }
    assert_eq!(to_udp.send(&vec![0; 65_508]), Err(SendError::TooLarge { max: 65_507 }));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_a_mechanism_cannot_carry_plainly_is_refused() {
    let _alone = alone();
    let path = path("unfit");
    let address = format!("unix://{}?type=seqpacket&framing=none", path.display());
    let (mut receiver, mut sender) = (receiver(&address), sender(&address));
    assert_eq!(sender.send(""), Err(SendError::Unfit), "it would look like the end");
    sender.send("one").unwrap();
    assert_eq!(next(&mut receiver).as_deref(), Ok("one"));
    drop(sender);
    assert_eq!(next(&mut receiver), Err(RecvError::Closed));

    for wrong in [
        "unix:@x?framing=none",
        "tcp://127.0.0.1:1?framing=none",
        "udp://127.0.0.1:1?framing=lines",
        "mq:///x?framing=lines",
    ] {
        let refused = Options::new().receiver(&wrong.parse().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ringway::ErrorKind::InvalidInput, "{wrong}: {refused}");
    }
}
