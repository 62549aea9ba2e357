//! What isn't framed as it should be costs its own connection or piece, and nothing else: no memory, no panic, no hang, no other
//! sender. The frames here are written by hand, from docs/framing.md.

mod common;

use common::{PATIENCE, Random, alone};
use proptest::prelude::*;
use ringway::{Address, Options, Receiver, RecvError};
use std::io::Write;
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

const DATA: u8 = 0;
const HELLO: u8 = 1;
const GOODBYE: u8 = 2;

/// A frame: kind, tag, source, sequence, and where its bytes belong in how many.
fn frame(kind: u8, source: u32, sequence: u64, (offset, total): (u32, u32), bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'R', 1, kind, 0];
    for word in [bytes.len() as u32, 7, total, offset, source] {
        frame.extend_from_slice(&word.to_le_bytes());
    }
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(bytes);
    frame
}

fn whole(source: u32, sequence: u64, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, source, sequence, (0, bytes.len() as u32), bytes)
}

fn hello(source: u32) -> Vec<u8> {
    frame(HELLO, source, 0, (0, 0), b"")
}

fn goodbye(source: u32) -> Vec<u8> {
    frame(GOODBYE, source, 0, (0, 0), b"")
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringway-test-{}-{name}", std::process::id()))
}

fn receiver(address: &str) -> Receiver {
    Options::new().receiver(&address.parse::<Address>().unwrap()).unwrap()
}

fn next(receiver: &mut Receiver) -> Result<(Vec<u8>, u32, u64), RecvError> {
    receiver.recv_timeout(PATIENCE).map(|message| (message.to_vec(), message.tag(), message.sequence()))
}

/// Kilobytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn frames_written_by_hand_are_received() {
    let _alone = alone();
    let path = path("by-hand");
    let mut receiver = receiver(&format!("unix://{}", path.display()));
    let mut stream = UnixStream::connect(&path).unwrap();
    let parts = [frame(DATA, 9, 1, (0, 6), b"abc"), frame(DATA, 9, 1, (3, 6), b"def")].concat();
    stream.write_all(&[hello(9), whole(9, 0, b"one"), parts, goodbye(9)].concat()).unwrap();
    drop(stream);
    assert_eq!(next(&mut receiver), Ok((b"one".to_vec(), 7, 0)));
    assert_eq!(next(&mut receiver), Ok((b"abcdef".to_vec(), 7, 1)));
    assert_eq!(next(&mut receiver), Err(RecvError::Closed));
}

#[test]
fn a_bad_connection_is_dropped_and_the_others_go_on() {
    let _alone = alone();
    for scheme in ["unix", "tcp"] {
        let path = path("bad");
        let mut receiver = receiver(&if scheme == "unix" {
            format!("unix://{}", path.display())
        } else {
            "tcp://127.0.0.1:0".to_owned()
        });
        let port = receiver.local_address();
        let connect = || -> Box<dyn Write> {
            match port {
                Some(address) => Box::new(TcpStream::connect(address).unwrap()),
                None => Box::new(UnixStream::connect(&path).unwrap()),
            }
        };
        let mut good = connect();
        good.write_all(&[hello(1), whole(1, 0, b"before")].concat()).unwrap();
        assert_eq!(next(&mut receiver), Ok((b"before".to_vec(), 7, 0)));
        let wrong: [Vec<u8>; 7] = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            vec![0; 4096],
            frame(3, 2, 0, (0, 0), b""),
            // Longer than any message may be.
            frame(DATA, 2, 0, (0, u32::MAX), b"x"),
            frame(DATA, 2, 0, (5, 4), b""),
            frame(DATA, 2, 0, (u32::MAX, 8), b"12345678"),
            // It has no beginning.
            frame(DATA, 2, 0, (4, 8), b"1234"),
        ];
        for bytes in wrong {
            let mut bad = connect();
            bad.write_all(&bytes).unwrap();
            assert_eq!(next(&mut receiver), Err(RecvError::Malformed), "{scheme} {bytes:?}");
            // The connection is gone: writing to it fails sooner or later, and nothing of it is received.
            let _ = bad.write_all(&whole(2, 1, b"after all"));
            good.write_all(&whole(1, 1, b"between")).unwrap();
            assert_eq!(next(&mut receiver), Ok((b"between".to_vec(), 7, 1)), "{scheme}");
        }
        good.write_all(&goodbye(1)).unwrap();
        drop(good);
        // One that had sent a beginning only counts as dead.
        assert!(matches!(next(&mut receiver), Err(RecvError::Closed | RecvError::PeerDied)));
    }
}

#[test]
fn what_is_announced_and_never_comes_takes_no_memory() {
    let _alone = alone();
    let path = path("huge");
    let mut receiver = receiver(&format!("unix://{}?max_message=1GiB", path.display()));
    let before = resident();
    for source in 0..200 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&[hello(source), frame(DATA, source, 0, (0, 1 << 30), b"")[..31].to_vec()].concat()).unwrap();
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
        if source % 2 == 0 {
            continue;
        }
        // All but the bytes themselves.
        let mut header = frame(DATA, source, 0, (0, 1 << 30), b"");
        header[4..8].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&[hello(source), header, b"a few".to_vec()].concat()).unwrap();
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    }
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::PeerDied));
    let more = resident().saturating_sub(before);
    assert!(more < 40_000, "{more} kB");
}

#[test]
fn a_truncated_frame_at_the_end_is_a_death() {
    let _alone = alone();
    let path = path("truncated");
    let mut receiver = receiver(&format!("unix://{}", path.display()));
    let message = whole(5, 0, b"never whole");
    for length in 1..message.len() {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&[hello(5), message[..length].to_vec()].concat()).unwrap();
        // Half closed: it could still read.
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(next(&mut receiver), Err(RecvError::PeerDied), "{length} bytes");
    }
}

#[test]
fn a_bad_datagram_is_told_once_and_hurts_no_other() {
    let _alone = alone();
    let path = path("dgram");
    let mut unix = receiver(&format!("unix://{}?type=dgram", path.display()));
    let mut udp = receiver("udp://127.0.0.1:0");
    let to_unix = UnixDatagram::unbound().unwrap();
    let to_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_address = udp.local_address().unwrap();
    type Send<'a> = Box<dyn Fn(&[u8]) + 'a>;
    let ends: [(&mut Receiver, Send); 2] = [
        (&mut unix, Box::new(|bytes| assert_eq!(to_unix.send_to(bytes, &path).unwrap(), bytes.len()))),
        (&mut udp, Box::new(|bytes| assert_eq!(to_udp.send_to(bytes, udp_address).unwrap(), bytes.len()))),
    ];
    for (receiver, send) in ends {
        send(&whole(1, 0, b"one"));
        send(b"");
        send(b"too short");
        send(&whole(1, 1, b"cut off")[..35]);
        send(&[whole(1, 1, b"two"), whole(1, 2, b"three"), b"and more".to_vec()].concat());
        send(&whole(1, 3, b"four"));
        assert_eq!(next(receiver), Ok((b"one".to_vec(), 7, 0)));
        for _ in 0..3 {
            assert_eq!(next(receiver), Err(RecvError::Malformed));
        }
        assert_eq!(next(receiver), Ok((b"two".to_vec(), 7, 1)));
        assert_eq!(next(receiver), Ok((b"three".to_vec(), 7, 2)));
        assert_eq!(next(receiver), Err(RecvError::Malformed));
        assert_eq!(next(receiver), Ok((b"four".to_vec(), 7, 3)));
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    }
}

#[test]
fn lost_datagrams_are_gaps() {
    let _alone = alone();
    let mut receiver = receiver("udp://[::1]:0");
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    let address = receiver.local_address().unwrap();
    let mut gap_before = |sequence: u64| {
        socket.send_to(&whole(1, sequence, b"x"), address).unwrap();
        receiver.recv_timeout(PATIENCE).map(|message| message.gap())
    };
    assert_eq!(gap_before(10), Ok(0), "what was sent before it listened isn't missing");
    assert_eq!(gap_before(11), Ok(0));
    assert_eq!(gap_before(15), Ok(3));
    assert_eq!(gap_before(16), Ok(0));
}

#[test]
fn lines_that_never_end_are_given_up() {
    let _alone = alone();
    let path = path("lines");
    let mut receiver = receiver(&format!("unix://{}?framing=lines&max_message=10", path.display()));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"short\n0123456789\n").unwrap();
    stream.write_all(&[b'x'; 100]).unwrap();
    let text =
        |next: Result<(Vec<u8>, u32, u64), RecvError>| next.map(|(bytes, _, _)| String::from_utf8(bytes).unwrap());
    assert_eq!(text(next(&mut receiver)).unwrap(), "short");
    assert_eq!(text(next(&mut receiver)).unwrap(), "0123456789");
    assert_eq!(text(next(&mut receiver)), Err(RecvError::Malformed));
    // It costs that line, and told once, however it comes.
    stream.write_all(&[b'x'; 100]).unwrap();
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    stream.write_all(b"xxx\nthe next\nhalf").unwrap();
    assert_eq!(text(next(&mut receiver)).unwrap(), "the next");
    assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
    drop(stream);
    assert_eq!(text(next(&mut receiver)).unwrap(), "half");
    let mut other = UnixStream::connect(&path).unwrap();
    other.write_all(b"\n\nlast").unwrap();
    drop(other);
    assert_eq!(text(next(&mut receiver)).unwrap(), "");
    assert_eq!(text(next(&mut receiver)).unwrap(), "");
    assert_eq!(text(next(&mut receiver)).unwrap(), "last");
    assert_eq!(next(&mut receiver), Err(RecvError::Closed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A stream of sound frames with bytes changed, left out or put in: what comes out before the damage is what was sent, and
    /// afterwards the receiver still ends.
    #[test]
    fn damaged_streams_end(seed in any::<u64>(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..4)) {
        let mut random = Random(seed);
        let messages: Vec<Vec<u8>> = (0..20).map(|_| vec![random.next() as u8; random.below(200) as usize]).collect();
        let mut bytes = hello(3);
        for (sequence, message) in messages.iter().enumerate() {
            bytes.extend(whole(3, sequence as u64, message));
        }
        bytes.extend(goodbye(3));
        let mut first = bytes.len();
        for (at, value, how) in damage {
            let at = at.index(bytes.len());
            first = first.min(at);
            match how {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                _ => _ = bytes.remove(at),
            }
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut receiver = receiver(&format!("fd://{}", ours.as_raw_fd()));
        theirs.write_all(&bytes).unwrap();
        drop(theirs);
        let mut intact = 0;
        let mut end = hello(3).len();
        while intact < messages.len() && end + 32 + messages[intact].len() <= first {
            end += 32 + messages[intact].len();
            intact += 1;
        }
        let mut received = 0;
        // Each turn takes a frame or ends a connection, of which there is one.
        for _ in 0..1000 {
            match receiver.recv_timeout(Duration::from_millis(1)) {
                Ok(message) => {
                    if received < intact {
                        prop_assert_eq!(&message[..], &messages[received][..]);
                    }
                    received += 1;
                }
                Err(RecvError::Closed | RecvError::PeerDied) => break,
                Err(RecvError::Malformed | RecvError::Timeout) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        prop_assert!(received >= intact, "{} of {} that were not damaged", received, intact);
    }
}

#[test]
fn a_stranger_in_a_fifo_costs_no_sender_anything() {
    let _alone = alone();
    let path = path("stranger");
    let address: Address = format!("fifo://{}", path.display()).parse().unwrap();
    let mut receiver = Options::new().receiver(&address).unwrap();
    let mut senders = [(); 2].map(|()| Options::new().sender(&address).unwrap());
    let mut stranger = std::fs::File::options().write(true).open(&path).unwrap();
    for (sequence, noise) in
        (0..).zip([&b"garbage"[..], &[0; 4000], b"R\x01\0\0 not quite a header, but nearly one, to be sure", b"R"])
    {
        for sender in &mut senders {
            sender.send(format!("before {sequence}").as_bytes()).unwrap();
        }
        stranger.write_all(noise).unwrap();
        for sender in &mut senders {
            sender.send(format!("after {sequence}").as_bytes()).unwrap();
        }
        let mut malformed = 0;
        let mut received = Vec::new();
        while received.len() < 4 {
            match receiver.recv_timeout(PATIENCE) {
                Ok(message) => received.push(String::from_utf8(message.to_vec()).unwrap()),
                Err(RecvError::Malformed) => malformed += 1,
                Err(error) => panic!("{error} after {received:?}"),
            }
        }
        let expected = ["before", "before", "after", "after"].map(|word| format!("{word} {sequence}"));
        assert_eq!((received, malformed), (expected.to_vec(), 1), "{noise:?}");
    }
    drop((senders, stranger));
    assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
}

#[test]
fn a_message_whose_beginning_is_gone_is_told_once() {
    let _alone = alone();
    let (reader, mut pipe) = std::io::pipe().unwrap();
    let mut receiver = receiver(&format!("fd://{}", reader.as_raw_fd()));
    pipe.write_all(&frame(DATA, 1, 4, (10, 30), b"0123456789")).unwrap();
    pipe.write_all(&whole(2, 0, b"another's")).unwrap();
    pipe.write_all(&frame(DATA, 1, 4, (20, 30), b"0123456789")).unwrap();
    pipe.write_all(&whole(1, 5, b"the next")).unwrap();
    assert_eq!(next(&mut receiver), Err(RecvError::Malformed));
    assert_eq!(next(&mut receiver), Ok((b"another's".to_vec(), 7, 0)));
    assert_eq!(next(&mut receiver), Ok((b"the next".to_vec(), 7, 5)));
}

#[test]
fn many_large_messages_in_one_pipe_do_not_keep_each_other_out() {
    let _alone = alone();
    let path = path("many-large");
    let address: Address = format!("fifo://{}?max_message=1MiB", path.display()).parse().unwrap();
    let mut receiver = Options::new().receiver(&address).unwrap();
    std::thread::scope(|scope| {
        for byte in 0..8 {
            let address = &address;
            scope.spawn(move || {
                let mut sender = Options::new().sender(address).unwrap();
                (0..3).for_each(|_| _ = sender.send(&vec![byte; 1 << 20]).unwrap());
            });
        }
        for _ in 0..24 {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert!(message.len() == 1 << 20 && message.iter().all(|&byte| byte == message[0]));
        }
        assert_eq!(receiver.recv_timeout(PATIENCE).err(), Some(RecvError::Closed));
    });
}

/// How long a call takes of the processor.
fn used(work: impl FnOnce()) -> Duration {
    fn now() -> Duration {
        // SAFETY: a timespec is plain integers, and the call writes one.
        unsafe {
            let mut time: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        }
    }
    let before = now();
    work();
    now() - before
}

#[test]
fn who_waits_at_an_end_or_with_many_idle_ones_sleeps() {
    let _alone = alone();
    const NAP: Duration = Duration::from_millis(500);
    // Nothing was ever sent, and nothing will be.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut ended =
        Options::new().keep_open(true).receiver(&format!("fd://{}", ours.as_raw_fd()).parse().unwrap()).unwrap();
    drop(theirs);
    let time = used(|| assert_eq!(ended.recv_timeout(NAP).err(), Some(RecvError::Timeout)));
    assert!(time < NAP / 5, "at an end: {time:?}");

    // More than there may be, of which both ends are here.
    // SAFETY: a rlimit is plain integers, and both calls are given a valid one.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    let path = path("idle");
    let mut receiver = receiver(&format!("unix://{}", path.display()));
    let idle: Vec<UnixStream> = (0..1030)
        .map(|_| {
            let stream = UnixStream::connect(&path).unwrap();
            assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty));
            stream
        })
        .collect();
    let time = used(|| assert_eq!(receiver.recv_timeout(NAP).err(), Some(RecvError::Timeout)));
    assert!(time < NAP / 5, "with {} idle ones: {time:?}", idle.len());
    (&idle[500]).write_all(&[hello(1), whole(1, 0, b"one of them")].concat()).unwrap();
    assert_eq!(next(&mut receiver), Ok((b"one of them".to_vec(), 7, 0)));
}

#[test]
fn ids_without_end_keep_nobody_out() {
    let _alone = alone();
    let path = path("ids");
    let mut receiver = receiver(&format!("unix://{}", path.display()));
    let mut hostile = UnixStream::connect(&path).unwrap();
    let hellos: Vec<u8> = (0..2000).flat_map(hello).collect();
    hostile.write_all(&hellos).unwrap();
    assert_eq!(next(&mut receiver), Err(RecvError::Malformed), "a connection has one sender");
    let mut honest = UnixStream::connect(&path).unwrap();
    honest.write_all(&[hello(5000), whole(5000, 0, b"through")].concat()).unwrap();
    assert_eq!(next(&mut receiver), Ok((b"through".to_vec(), 7, 0)));

    let mut udp = Options::new().receiver(&"udp://127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for source in 0..3000 {
        socket.send_to(&whole(source, 0, b"x"), udp.local_address().unwrap()).unwrap();
        assert_eq!(next(&mut udp), Ok((b"x".to_vec(), 7, 0)));
    }
}

#[test]
fn what_is_lost_at_the_end_is_counted_too() {
    let _alone = alone();
    let mut receiver = receiver("udp://127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_address().unwrap();
    let farewell = frame(GOODBYE, 1, 10, (0, 0), b"");
    for bytes in [hello(1), whole(1, 0, b"one"), whole(1, 3, b"two"), farewell] {
        socket.send_to(&bytes, address).unwrap();
    }
    assert_eq!(next(&mut receiver), Ok((b"one".to_vec(), 7, 0)));
    assert_eq!(next(&mut receiver), Ok((b"two".to_vec(), 7, 3)));
    assert_eq!(next(&mut receiver), Err(RecvError::Closed));
    assert_eq!(receiver.lost(), 8);
}
