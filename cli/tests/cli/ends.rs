//! How it ends: early, late, by a signal, by a death.

use std::{
    io::{BufRead, Read},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use ringway::{PeerState, Report};

use crate::{
    place::{Temporary, file, shm},
    running::{run, start, start_with},
};

/// So many numbered lines.
fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("line {n}\n")).collect()
}

/// The numbers of whole lines.
fn numbers(text: &[u8]) -> Vec<u64> {
    let whole = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.map(|line| str::from_utf8(line).unwrap().trim().strip_prefix("line ").unwrap().parse().unwrap()).collect()
}

/// Whether the receiver has given back something and holds something. If nobody reads its output, it is there to stay.
fn is_stuck(report: &Report) -> bool {
    report.positions.is_some_and(|positions| 0 < positions.released && positions.released < positions.taken)
}

#[test]
fn a_reader_that_has_enough_ends_the_receiver_well() {
    let place = shm("?capacity=64KiB");
    // More than the ring and both pipes hold.
    let input = Temporary::new(lines(0..100_000).as_bytes());
    let sender = start_with(&["send", &place.address], input.open(), Stdio::null());
    let mut receiver = start(&["recv", &place.address]);
    let pipe = receiver.stdout.take().unwrap().into_inner();
    let head = Command::new("head").args(["-n", "3"]).stdin(pipe).output().unwrap();
    assert_eq!(String::from_utf8(head.stdout).unwrap(), lines(0..3));
    receiver.end().assert_code(0);
    let end = sender.end();
    end.assert_code(1).assert_says(&["the receiver left"]);
    let kept = end.number_before("stay in");
    assert_eq!(end.number_before("messages undelivered"), kept + 1);
    let rest = run(&["recv", &place.address], b"");
    let rest = numbers(&rest.assert_code(0).stdout);
    assert_eq!(rest.len() as u64, kept);
    assert!(rest.windows(2).all(|pair| pair[0] + 1 == pair[1]), "nothing is missing among them");
    place.assert_gone();
}

#[test]
fn what_could_not_be_written_is_not_lost() {
    let place = shm("");
    run(&["send", &place.address], lines(0..5).as_bytes()).assert_code(0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    start_with(&["recv", &place.address], Stdio::null(), writer).end().assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), lines(0..5));
    place.assert_gone();
}

#[test]
fn a_sender_killed_is_told_when_everything_is_received() {
    let place = shm("");
    let mut sender = start(&["send", &place.address]);
    sender.say(&lines(0..1000));
    place.until(|report| report.depth == 1000);
    let pid = sender.pid();
    sender.kill();
    assert_eq!(place.look().unwrap().producers[0].state, PeerState::Dead { pid });
    let received = run(&["recv", &place.address], b"");
    assert_eq!(received.assert_code(3).text(), lines(0..1000));
    received.assert_says(&["the sender died"]);
    place.assert_gone();
}

#[test]
fn a_waiting_receiver_is_told_of_a_death() {
    let place = shm("");
    let mut receiver = start(&["recv", &place.address]);
    let mut sender = start(&["send", &place.address]);
    sender.say("alive\n");
    assert_eq!(receiver.hear(), "alive\n");
    sender.kill();
    receiver.end().assert_code(3);
    place.assert_gone();
}

#[test]
fn a_receiver_killed_leaves_the_rest_to_its_successor() {
    let place = shm("");
    run(&["send", &place.address], lines(0..50_000).as_bytes()).assert_code(0);
    let mut receiver = start(&["recv", &place.address]);
    let first = receiver.hear();
    // Nobody reads on: it writes until the pipe is full, and there it stands.
    place.until(is_stuck);
    let seen = numbers(&[first.as_bytes(), &receiver.kill()].concat());
    let rest = run(&["recv", &place.address], b"");
    let rest = numbers(&rest.assert_code(0).stdout);
    assert_eq!(rest.last(), Some(&49_999));
    assert!(rest.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(0 < rest[0] && rest[0] <= seen.last().unwrap() + 1, "{} follows {:?}", rest[0], seen.last());
    place.assert_gone();
}

#[test]
fn a_sender_is_told_of_the_death_of_its_receiver() {
    let place = shm("?capacity=4KiB");
    let mut receiver = start(&["recv", &place.address]);
    let input = Temporary::new(lines(0..100_000).as_bytes());
    let sender = start_with(&["send", &place.address], input.open(), Stdio::null());
    receiver.hear();
    receiver.kill();
    let end = sender.end();
    end.assert_code(3).assert_says(&["the receiver died"]);
    let kept = end.number_before("stay in");
    assert_eq!(numbers(&run(&["recv", &place.address], b"").assert_code(0).stdout).len() as u64, kept);
    place.assert_gone();
}

#[test]
fn an_interrupted_receiver_leaves_nothing() {
    let place = shm("");
    let receiver = start(&["recv", &place.address]);
    place.until_receiver();
    receiver.signal(Signal::SIGINT);
    receiver.end().assert_code(130);
    place.assert_gone();
}

#[test]
fn an_interrupted_sender_leaves_nothing() {
    let place = shm("");
    let mut sender = start(&["send", &place.address]);
    place.until_sender();
    sender.signal(Signal::SIGINT);
    let stdin = sender.stdin.take();
    sender.end().assert_code(130);
    drop(stdin);
    place.assert_gone();
}

#[test]
fn an_interrupted_pair_leaves_nothing() {
    let place = shm("");
    let mut sender = start(&["send", &place.address]);
    let mut receiver = start(&["recv", &place.address]);
    sender.say("one\n");
    assert_eq!(receiver.hear(), "one\n");
    // In this order: the receiver must not find the ring closed first.
    receiver.signal(Signal::SIGINT);
    sender.signal(Signal::SIGINT);
    let stdin = sender.stdin.take();
    sender.end().assert_code(130);
    drop(stdin);
    receiver.end().assert_code(130);
    place.assert_gone();
}

#[test]
fn a_sender_can_be_interrupted_while_the_ring_is_full() {
    let place = shm("?capacity=4KiB");
    let input = Temporary::new(lines(0..1000).as_bytes());
    let sender = start_with(&["send", &place.address], input.open(), Stdio::null());
    place.until(|report| report.producers[0].waiting);
    sender.signal(Signal::SIGINT);
    sender.end().assert_code(130);
    // What it had sent is not thrown away.
    let kept = place.look().unwrap().depth;
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), lines(0..kept));
    place.assert_gone();
}

#[test]
fn a_receiver_can_be_interrupted_while_nobody_reads() {
    let place = shm("");
    run(&["send", &place.address], lines(0..50_000).as_bytes()).assert_code(0);
    let mut receiver = start(&["recv", &place.address]);
    let mut pipe = receiver.stdout.take().unwrap();
    let mut first = String::new();
    pipe.read_line(&mut first).unwrap();
    place.until(is_stuck);
    receiver.signal(Signal::SIGTERM);
    receiver.end().assert_code(128 + Signal::SIGTERM as i32);
    let mut seen = first.into_bytes();
    pipe.read_to_end(&mut seen).unwrap();
    let rest = numbers(&run(&["recv", &place.address], b"").assert_code(0).stdout);
    assert!(rest[0] <= numbers(&seen).last().unwrap() + 1 && rest.last() == Some(&49_999));
    place.assert_gone();
}

#[test]
fn patience_ends() {
    let place = shm("?capacity=4KiB");
    let end = run(&["recv", "--timeout", "20ms", &place.address], b"");
    end.assert_code(4).assert_says(&["20ms", place.target()]);
    place.assert_gone();
    let end = run(&["send", "--timeout", "20ms", &place.address], lines(0..1000).as_bytes());
    end.assert_code(4).assert_says(&["20ms"]);
    let kept = end.number_before("stay in");
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), lines(0..kept));
    place.assert_gone();
}

#[test]
fn a_line_beyond_the_maximum_names_it() {
    let place = shm("?max_message=100");
    let text = format!("fits\n{}\nnever sent\n", "x".repeat(101));
    run(&["send", &place.address], text.as_bytes()).assert_code(1).assert_says(&["line 2", "100B"]);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "fits\n");
    place.assert_gone();
    run(&["send", &place.address], "x".repeat(100).as_bytes()).assert_code(0);
    run(&["send", "--chunk", "101", &place.address], b"").assert_code(2).assert_says(&["101B", "100B"]);
    run(&["send", "--chunk", "100", &place.address], &[b'x'; 101]).assert_code(0);
    assert_eq!(place.look().unwrap().depth, 3);
}

#[test]
fn a_role_is_held_by_one() {
    for (role, place) in [("send", shm("")), ("recv", shm("")), ("recv", file())] {
        let first = start(&[role, &place.address]);
        match role {
            "send" => place.until_sender(),
            _ => place.until_receiver(),
        };
        let second = run(&[role, &place.address], b"");
        second.assert_code(2).assert_says(&[&format!("process {}", first.pid()), "ring=mpmc"]);
        first.signal(Signal::SIGINT);
        first.end();
    }
}
