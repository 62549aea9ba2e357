//! What goes in comes out.

use std::{process::Stdio, sync::LazyLock};

use ringway::{Address, Options};

use crate::{
    place::{Place, Temporary, file, shm, sysv},
    running::{run, start, start_with},
};

/// Marsaglia's xorshift: the same 64 MiB in each run, in a file.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |&word| {
        let word = word ^ word << 13;
        let word = word ^ word >> 7;
        Some(word ^ word << 17)
    });
    words.take(8 << 20).flat_map(u64::to_le_bytes).collect()
});

#[derive(Clone, Copy, Debug)]
enum First {
    Sender,
    Receiver,
}

/// Passes 64 MiB from one process to another.
fn pass(place: &Place, chunk: &str, first: First) {
    let input = Temporary::new(&BYTES);
    let send = || start_with(&["send", "--chunk", chunk, &place.address], input.open(), Stdio::null());
    let recv = || start(&["recv", "--raw", &place.address]);
    let (sender, receiver) = match first {
        First::Sender => {
            let sender = send();
            place.until_sender();
            (sender, recv())
        }
        First::Receiver => {
            let receiver = recv();
            place.until_receiver();
            (send(), receiver)
        }
    };
    let received = receiver.end();
    received.assert_code(0);
    sender.end().assert_code(0);
    assert!(received.stdout == *BYTES, "other bytes came out of {}", place.address);
}

#[test]
fn bytes_pass_unchanged_through_posix_shared_memory() {
    for first in [First::Sender, First::Receiver] {
        let place = shm("");
        pass(&place, "64KiB", first);
        place.assert_gone();
    }
}

#[test]
fn bytes_pass_unchanged_through_system_v_shared_memory() {
    for first in [First::Sender, First::Receiver] {
        let place = sysv();
        pass(&place, "64KiB", first);
        place.assert_gone();
    }
}

#[test]
fn bytes_pass_unchanged_through_a_mapped_file() {
    for first in [First::Sender, First::Receiver] {
        let place = file();
        pass(&place, "64KiB", first);
        // A second time: it persists, and neither is told of the end of the first.
        pass(&place, "64KiB", First::Sender);
        assert_eq!(place.look().unwrap().depth, 0);
    }
}

#[test]
fn bytes_pass_unchanged_however_one_waits() {
    for wait in ["spin", "futex", "sem"] {
        let place = shm(&format!("?wait={wait}&capacity=64KiB"));
        pass(&place, "1000", First::Receiver);
        place.assert_gone();
    }
}

#[test]
fn lines_keep_their_bounds() {
    let text = b"first\n\n\xff\x00 not text\r\n\nlast, without a newline";
    let place = shm("");
    run(&["send", &place.address], text).assert_code(0);
    let report = place.look().unwrap();
    assert_eq!((report.depth, report.depth_bytes), (5, text.len() as u64 - 4));
    let received = run(&["recv", &place.address], b"");
    received.assert_code(0);
    assert_eq!(received.stdout, [&text[..], b"\n"].concat());
    place.assert_gone();
}

#[test]
fn raw_output_adds_nothing() {
    let place = shm("");
    run(&["send", &place.address], b"one\n\ntwo\n").assert_code(0);
    assert_eq!(run(&["recv", "--raw", &place.address], b"").assert_code(0).text(), "onetwo");
}

#[test]
fn pieces_have_the_size_asked_for() {
    let place = shm("");
    run(&["send", "--chunk", "4B", &place.address], b"abcd\nfghij").assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "abcd\n\nfgh\nij\n");
}

#[test]
fn each_line_is_there_at_once() {
    let place = shm("");
    let mut sender = start(&["send", &place.address]);
    let mut receiver = start(&["recv", &place.address]);
    for line in ["one\n", "\n", "three\n"] {
        sender.say(line);
        assert_eq!(receiver.hear(), line);
    }
    sender.say("four");
    sender.end().assert_code(0);
    assert_eq!(receiver.end().assert_code(0).text(), "four\n");
    place.assert_gone();
}

#[test]
fn empty_input_is_an_end_too() {
    let place = shm("");
    let receiver = start(&["recv", &place.address]);
    place.until_receiver();
    run(&["send", &place.address], b"").assert_code(0);
    assert_eq!(receiver.end().assert_code(0).text(), "");
    place.assert_gone();
}

#[test]
fn tags_travel_with_their_messages() {
    let place = shm("");
    run(&["send", "--tag", "4294967295", &place.address], b"tagged").assert_code(0);
    let address: Address = place.address.parse().unwrap();
    let mut receiver = Options::new().existing().receiver(&address).unwrap();
    let message = receiver.recv().unwrap();
    assert_eq!((&message[..], message.tag()), (&b"tagged"[..], u32::MAX));
}

#[test]
fn a_count_takes_no_more() {
    let place = shm("");
    run(&["send", &place.address], b"1\n2\n3\n4\n5\n").assert_code(0);
    assert_eq!(run(&["recv", "--count", "2", &place.address], b"").assert_code(0).text(), "1\n2\n");
    assert_eq!(place.look().unwrap().depth, 3);
    assert_eq!(run(&["recv", "--count", "3", &place.address], b"").assert_code(0).text(), "3\n4\n5\n");
    place.assert_gone();
}

#[test]
fn undelivered_messages_wait_and_more_can_follow() {
    let place = shm("");
    run(&["send", &place.address], b"1\n2\n").assert_code(0);
    assert_eq!(run(&["recv", "--count", "1", &place.address], b"").assert_code(0).text(), "1\n");
    // A receiver that left before it came is no reason for a sender to give up.
    run(&["send", &place.address], b"3\n").assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "2\n3\n");
    place.assert_gone();
}

#[test]
fn persistent_rings_stay() {
    let place = shm("?persist=yes");
    run(&["send", &place.address], b"1\n").assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "1\n");
    assert_eq!(place.look().unwrap().depth, 0);
}

#[test]
fn a_large_message_in_lines_is_whole() {
    let line = "x".repeat(3 << 20);
    let place = shm("?max_message=3MiB");
    let sender = {
        let input = Temporary::new(line.as_bytes());
        start_with(&["send", &place.address], input.open(), Stdio::null())
    };
    let received = run(&["recv", &place.address], b"");
    received.assert_code(0);
    sender.end().assert_code(0);
    assert!(received.text().strip_suffix('\n') == Some(&line));
}
