//! Looking at rings and removing them, and everything that is none.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    place::{Place, Temporary, file, shm, sysv},
    running::{run, start},
};

/// Offsets of format 1.
const VERSION: u64 = 8;
const CAPACITY: u64 = 64;
const PRODUCER_POISONED: u64 = 4096 + 512;
const DATA: u64 = 4 * 4096;

fn with_three_messages(place: &Place) {
    run(&["send", &place.address], b"one\n\nthree\n").assert_code(0);
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    names.sort_unstable();
    names
}

#[test]
fn json_has_the_documented_fields() {
    let fields = sorted([
        "address",
        "kind",
        "size",
        "mode",
        "uid",
        "owner",
        "problem",
        "created_unix_ms",
        "ring",
        "wait",
        "capacity",
        "max_message",
        "persist",
        "poisoned",
        "released",
        "taken",
        "published",
        "depth",
        "depth_bytes",
        "producer",
        "consumer",
    ]);
    for (place, kind) in [(shm("?perm=0640&capacity=64KiB&wait=sem"), "shm"), (sysv(), "sysv"), (file(), "file")] {
        with_three_messages(&place);
        let end = run(&["inspect", "--json", &place.address], b"");
        let object: Value = serde_json::from_str(end.assert_code(0).text()).unwrap();
        assert_eq!(keys(&object), fields);
        assert_eq!(object["kind"], kind);
        assert_eq!((&object["depth"], &object["depth_bytes"]), (&Value::from(3), &Value::from(8)));
        assert_eq!(object["problem"], Value::Null);
        for role in ["producer", "consumer"] {
            assert_eq!(keys(&object[role]), sorted(["state", "pid", "joined", "deaths", "waiting"]));
        }
        assert_eq!((&object["producer"]["state"], &object["consumer"]["state"]), (&"left".into(), &"absent".into()));
        if kind == "shm" {
            assert_eq!((&object["mode"], &object["wait"]), (&"0640".into(), &"sem".into()));
            assert_eq!((&object["capacity"], &object["size"]), (&(64 << 10).into(), &(80 << 10).into()));
            assert_eq!(object["address"], place.target());
        }
    }
}

#[test]
fn the_list_shows_who_is_attached() {
    let (place, keyed) = (shm(""), sysv());
    let sender = start(&["send", &place.address]);
    place.until_sender();
    with_three_messages(&keyed);
    let end = run(&["ls", "--json"], b"");
    let rows: Vec<Value> = end.assert_code(0).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = rows.iter().find(|row| row["address"] == place.address).unwrap();
    assert_eq!((&row["producer"]["state"], &row["producer"]["pid"]), (&"alive".into(), &sender.pid().into()));
    assert!(rows.iter().any(|row| row["kind"] == "sysv" && row["depth"] == 3 && row["depth_bytes"] == 8));

    let end = run(&["ls"], b"");
    let line = end.assert_code(0).text().lines().find(|line| line.contains(&place.address)).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], place.address);
    assert_eq!(words[1..3], ["4112KiB", "0600"]);
    assert_eq!(words[4..], ["0", &sender.pid().to_string(), "-"]);
}

#[test]
fn a_look_tells_people_what_there_is() {
    let place = shm("?capacity=64KiB");
    let receiver = start(&["recv", &place.address]);
    place.until(|report| report.consumers[0].waiting);
    let end = run(&["inspect", &place.address], b"");
    let text = end.assert_code(0).text();
    for words in ["capacity 64KiB", "mode 0600", "0 messages", "producer  none yet"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    assert!(text.contains(&format!("process {}, alive", receiver.pid())), "{text}");
}

#[test]
fn what_is_not_there_is_an_error() {
    for place in [shm(""), sysv(), file()] {
        for command in ["inspect", "rm"] {
            run(&[command, &place.address], b"").assert_code(2);
        }
    }
}

#[test]
fn removal_asks_before_it_takes_a_ring_from_the_living() {
    for place in [shm(""), sysv(), file()] {
        with_three_messages(&place);
        run(&["rm", &place.address], b"").assert_code(0);
        place.assert_gone();

        let sender = start(&["send", &place.address]);
        place.until_sender();
        let pid = format!("process {}", sender.pid());
        run(&["rm", &place.address], b"").assert_code(2).assert_says(&[&pid, "producer", "--force"]);
        place.until_sender();
        let end = run(&["rm", "--force", &place.address], b"");
        assert!(end.stderr.contains(&pid), "{}", end.stderr);
        place.assert_gone();
        sender.end().assert_code(0);
    }
}

#[test]
fn a_dead_process_does_not_keep_a_ring() {
    let place = shm("");
    let sender = start(&["send", &place.address]);
    place.until_sender();
    sender.kill();
    run(&["rm", &place.address], b"").assert_code(0);
    place.assert_gone();
}

#[test]
fn what_is_no_ring_is_left_alone() {
    let content = vec![b'x'; 8192];
    let foreign = Temporary::new(&content);
    let address = format!("file://{}", foreign.0.display());
    for command in ["inspect", "send", "recv", "rm"] {
        run(&[command, &address], b"").assert_code(2).assert_says(&["not a ringway segment"]);
    }
    run(&["rm", "--force", &address], b"").assert_code(2);
    assert!(fs::read(&foreign.0).unwrap() == content);
}

#[test]
fn newer_rings_are_refused_and_listed() {
    let place = shm("");
    with_three_messages(&place);
    place.scribble(VERSION, &2_u32.to_le_bytes());
    for command in ["inspect", "send", "recv", "rm"] {
        run(&[command, &place.address], b"").assert_code(2).assert_says(&["newer version"]);
    }
    assert!(row(&place).contains("newer version"));
    run(&["rm", "--force", &place.address], b"").assert_code(0);
    assert!(!place.path().exists());
}

#[test]
fn damaged_rings_are_refused_and_can_be_removed() {
    let place = shm("");
    with_three_messages(&place);
    place.scribble(CAPACITY, &1_u64.to_le_bytes());
    for command in ["inspect", "send", "recv"] {
        run(&[command, &place.address], b"").assert_code(2).assert_says(&["damaged"]);
    }
    assert!(row(&place).contains("damaged"));
    run(&["rm", &place.address], b"").assert_code(0);
    assert!(!place.path().exists());
}

#[test]
fn poisoned_rings_are_told_from_all_others() {
    let place = shm("");
    with_three_messages(&place);
    place.scribble(PRODUCER_POISONED, &[1]);
    for command in ["send", "recv"] {
        run(&[command, &place.address], b"").assert_code(5).assert_says(&["poisoned"]);
    }
    assert!(run(&["inspect", &place.address], b"").assert_code(0).text().contains("poisoned"));
    assert!(row(&place).contains("poisoned"));
    run(&["rm", &place.address], b"").assert_code(0);
    place.assert_gone();
}

#[test]
fn a_receiver_that_finds_nonsense_poisons_the_ring() {
    let place = shm("");
    with_three_messages(&place);
    // The second message, behind "one": a header whose length no ring can have.
    place.scribble(DATA + 16, &u64::from(u32::MAX - 2).to_le_bytes());
    let end = run(&["recv", &place.address], b"");
    assert_eq!(end.assert_code(5).text(), "one\n");
    assert!(place.look().unwrap().poisoned);
}

/// The line of the list that tells of this ring.
fn row(place: &Place) -> String {
    let end = run(&["ls"], b"");
    end.assert_code(0).text().lines().find(|line| line.starts_with(place.target())).unwrap().to_owned()
}

#[test]
fn misuse_is_explained_in_a_line() {
    let place = shm("");
    let address = |options: &str| format!("{}{options}", place.address);
    for (args, words) in [
        (vec!["send".to_owned()], "<ADDR>"),
        (vec!["sned".to_owned(), address("")], "sned"),
        (vec!["send".to_owned(), "nowhere".to_owned()], "no scheme"),
        (vec!["send".to_owned(), "anon:orders".to_owned()], "no other process"),
        (vec!["send".to_owned(), address("?size=4")], "allowed here are ring, producers"),
        (vec!["send".to_owned(), address("?capacity=4mb")], "KiB"),
        (vec!["send".to_owned(), address("?capacity=1TiB")], "at most 2GiB"),
        (vec!["send".to_owned(), address("?ring=many")], "spsc and mpmc"),
        (vec!["send".to_owned(), address("?producers=2")], "ring=mpmc"),
        (vec!["send".to_owned(), address("?ring=mpmc&producers=65")], "1 to 64"),
        (vec!["recv".to_owned(), address("?ring=mpmc&max_deliveries=0")], "1 to 15"),
        (vec!["recv".to_owned(), address("?perm=0999")], "octal"),
        (vec!["recv".to_owned(), address("?perm=0777")], "0777"),
        (vec!["recv".to_owned(), address("?wait=poll")], "spin, futex, sem, named-sem, sysv-sem, eventfd, fifo"),
        (vec!["recv".to_owned(), "--timeout".to_owned(), "5".to_owned(), address("")], "no unit"),
        (vec!["send".to_owned(), "--chunk".to_owned(), "0".to_owned(), address("")], "at least one byte"),
        (vec!["send".to_owned(), "--tag".to_owned(), "x".to_owned(), address("")], "--tag"),
        (vec!["inspect".to_owned(), "--yaml".to_owned(), address("")], "--yaml"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(&args, b"").assert_code(2).assert_says(&[words]);
    }
    place.assert_gone();
}

#[test]
fn rings_that_are_otherwise_are_refused() {
    let place = shm("?capacity=64KiB&wait=futex");
    with_three_messages(&place);
    let other = place.address.replace("futex", "spin");
    run(&["recv", &other], b"").assert_code(2).assert_says(&["wait=futex"]);
    let other = place.address.replace("64KiB", "128KiB");
    run(&["recv", &other], b"").assert_code(2).assert_says(&["64KiB", "128KiB"]);
}

#[test]
fn closed_pipes_are_no_reason_to_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ringway = || Command::new(env!("CARGO_BIN_EXE_ringway"));
    let pipe = || writer.try_clone().unwrap();
    let end = ringway().args(["ls"]).stdout(pipe()).output().unwrap();
    assert_eq!((end.status.code(), &end.stderr[..]), (Some(0), &b""[..]));
    let end = ringway().args(["--help"]).stdout(pipe()).output().unwrap();
    assert_eq!((end.status.code(), &end.stderr[..]), (Some(0), &b""[..]));
    let place = shm("");
    let mut told = String::new();
    for args in [vec!["inspect", &place.address], vec!["nonsense"], vec!["recv", "--timeout", "1ms", &place.address]] {
        let mut child = ringway().args(&args).stderr(pipe()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(if args[0] == "recv" { 4 } else { 2 }), "{args:?}");
    }
    assert_eq!(told, "");
}
