//! Rings of many senders and receivers.

use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use ringway::{Lanes, PeerState, Report};
use serde_json::Value;

use crate::{
    place::{Place, Temporary, file, shm, sysv},
    running::{Running, run, start, start_with},
};

/// A ring of many in each kind of segment.
fn everywhere() -> [Place; 3] {
    [shm("?ring=mpmc&capacity=256KiB"), sysv().with("ring=mpmc&wait=sem"), file().with("ring=mpmc&persist=no")]
}

/// Numbered lines of one of the senders.
fn lines(sender: usize, numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("{sender} {n}\n")).collect()
}

/// Sender and number of each whole line.
fn parse(text: &[u8]) -> Vec<(usize, u64)> {
    let whole = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let parse = |line| {
        let (sender, number) = str::from_utf8(line).unwrap().trim_end().split_once(' ').unwrap();
        (sender.parse().unwrap(), number.split(' ').next().unwrap().parse().unwrap())
    };
    whole.map(parse).collect()
}

/// Numbered lines of which no pipe holds two.
fn long_lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|n| format!("0 {n} {}\n", "x".repeat(40_000))).collect()
}

/// A ring that holds 20 such lines.
fn roomy(options: &str) -> Place {
    shm(&format!("?ring=mpmc&producers=1&max_message=64KiB{options}"))
}

/// Sends 20 such lines, and has a receiver take the first 16 of them, of which it can't write two.
fn with_stuck_receiver(place: &Place) -> Running {
    run(&["send", &place.address], long_lines(0..20).as_bytes()).assert_code(0);
    let receiver = start(&["recv", &place.address]);
    place.until(|report| report.depth == 4);
    receiver
}

fn lanes(report: &Report) -> Lanes {
    report.lanes.unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(run(args, b"").assert_code(0).text()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn each_line_reaches_one_receiver() {
    const LINES: u64 = 5000;
    for place in everywhere() {
        let receivers: Vec<Running> = (0..3).map(|_| start(&["recv", &place.address])).collect();
        let senders: Vec<Running> = (0..4).map(|_| start(&["send", &place.address])).collect();
        place.until_senders(4);
        place.until_receivers(3);
        let received: Vec<Vec<(usize, u64)>> = thread::scope(|scope| {
            let receivers: Vec<_> = receivers.into_iter().map(|receiver| scope.spawn(|| receiver.end())).collect();
            for (number, mut sender) in senders.into_iter().enumerate() {
                scope.spawn(move || {
                    sender.say(&lines(number, 0..LINES));
                    sender.end().assert_code(0);
                });
            }
            receivers.into_iter().map(|end| parse(&end.join().unwrap().assert_code(0).stdout)).collect()
        });
        for of_one in &received {
            for sender in 0..4 {
                let numbers: Vec<u64> = of_one.iter().filter(|line| line.0 == sender).map(|line| line.1).collect();
                assert!(numbers.is_sorted(), "in the order in which they were sent");
            }
        }
        let mut all = received.concat();
        all.sort_unstable();
        let sent: Vec<(usize, u64)> = (0..4).flat_map(|sender| (0..LINES).map(move |n| (sender, n))).collect();
        assert!(all == sent, "{} of {} lines came out of {}", all.len(), sent.len(), place.address);
        place.assert_gone();
    }
}

#[test]
fn receivers_killed_in_the_middle_lose_nothing() {
    for place in everywhere() {
        let mut sender = start(&["send", &place.address]);
        let survivor = start(&["recv", &place.address]);
        place.until_receivers(1);
        let enough = AtomicBool::new(false);
        let (sent, of_victims, of_survivor) = thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let mut sent = 0;
                while !enough.load(Ordering::Relaxed) {
                    sender.say(&lines(0, sent..sent + 100));
                    sent += 100;
                }
                sender.end().assert_code(0);
                sent
            });
            let survivor = scope.spawn(|| survivor.end());
            let of_victims: Vec<_> = (0..5)
                .map(|_| {
                    let mut victim = start(&["recv", &place.address]);
                    let first = victim.hear();
                    parse(&[first.as_bytes(), &victim.kill()].concat())
                })
                .collect();
            enough.store(true, Ordering::Relaxed);
            let survivor = survivor.join().unwrap();
            (sent.join().unwrap(), of_victims.concat(), parse(&survivor.assert_code(0).stdout))
        });
        let unique: BTreeSet<_> = of_survivor.iter().copied().collect();
        assert_eq!(unique.len(), of_survivor.len(), "the survivor receives nothing twice");
        let all: BTreeSet<_> = unique.into_iter().chain(of_victims).collect();
        assert!(all.into_iter().eq((0..sent).map(|n| (0, n))), "something is missing of {}", place.address);
        place.assert_gone();
    }
}

#[test]
fn what_a_receiver_held_when_it_was_killed_goes_to_another() {
    let place = roomy("");
    let victim = with_stuck_receiver(&place);
    let sender = start(&["send", &place.address]);
    place.until_sender();
    let survivor = start(&["recv", &place.address]);
    let survivor = thread::scope(|scope| {
        let survivor = scope.spawn(|| survivor.end());
        place.until(|report| report.depth == 0 && lanes(report).leased == 1 && report.consumers[1].waiting);
        victim.kill();
        place.until(|report| lanes(report).redelivered == 16 && lanes(report).leased + lanes(report).requeued == 0);
        sender.end().assert_code(0);
        survivor.join().unwrap()
    });
    let numbers = parse(&survivor.assert_code(0).stdout);
    assert!(numbers.into_iter().eq((16..20).chain(0..16).map(|n| (0, n))));
    place.assert_gone();
}

#[test]
fn it_does_so_even_if_the_sender_leaves_at_once() {
    let place = roomy("");
    let victim = with_stuck_receiver(&place);
    let sender = start(&["send", &place.address]);
    place.until_sender();
    let survivor = start(&["recv", &place.address]);
    let survivor = thread::scope(|scope| {
        let survivor = scope.spawn(|| survivor.end());
        place.until(|report| report.depth == 0 && lanes(report).leased == 1 && report.consumers[1].waiting);
        victim.kill();
        sender.end().assert_code(0);
        survivor.join().unwrap()
    });
    assert_eq!(parse(&survivor.assert_code(0).stdout).len(), 20);
    place.assert_gone();
}

#[test]
fn recovery_says_what_it_did() {
    for text in [false, true] {
        let place = roomy("&persist=yes");
        let victim = with_stuck_receiver(&place);
        let pid = victim.pid();
        assert_eq!(json(&["recover", "--json", &place.address])["deaths"], 0, "it is alive");
        victim.kill();
        let report = place.look().unwrap();
        assert_eq!((report.consumers[0].state, lanes(&report).leased), (PeerState::Dead { pid }, 1));
        if text {
            let end = run(&["recover", &place.address], b"");
            let words = ": 1 died, 16 messages to be redelivered, 0 dropped\n";
            assert_eq!(end.assert_code(0).text(), format!("{}{words}", place.target()));
        } else {
            let object = json(&["recover", "--json", &place.address]);
            assert_eq!(keys(&object), ["address", "deaths", "redelivered", "dropped"].into());
            assert_eq!(object["address"], place.target());
            assert_eq!([&object["deaths"], &object["redelivered"], &object["dropped"]], [1, 16, 0]);
        }
        let report = place.look().unwrap();
        assert_eq!((lanes(&report).leased, lanes(&report).requeued, lanes(&report).redelivered), (0, 1, 16));
        assert_eq!((report.consumers[0].state, report.consumers[0].deaths), (PeerState::Left, 1));
        let again = run(&["recover", &place.address], b"");
        assert_eq!(again.assert_code(0).text(), format!("{}: nothing to recover\n", place.target()));
        let rest = run(&["recv", &place.address], b"");
        assert_eq!(parse(&rest.assert_code(0).stdout).len(), 20);
    }
}

#[test]
fn recovery_drops_what_was_delivered_often_enough() {
    let place = roomy("&max_deliveries=1");
    with_stuck_receiver(&place).kill();
    let object = json(&["recover", "--json", &place.address]);
    assert_eq!([&object["deaths"], &object["redelivered"], &object["dropped"]], [1, 0, 16]);
    assert_eq!(json(&["inspect", "--json", &place.address])["dropped"], 16);
    let rest = run(&["recv", &place.address], b"");
    assert!(parse(&rest.assert_code(0).stdout).into_iter().eq((16..20).map(|n| (0, n))));
}

#[test]
fn there_may_be_nothing_to_recover() {
    for place in [shm(""), sysv(), file(), shm("?ring=mpmc")] {
        run(&["recover", &place.address], b"").assert_code(2);
        run(&["send", &place.address], b"one\n").assert_code(0);
        assert!(run(&["recover", &place.address], b"").assert_code(0).text().ends_with(": nothing to recover\n"));
        assert_eq!(json(&["recover", "--json", &place.address])["deaths"], 0);
        assert_eq!(place.look().unwrap().depth, 1);
    }
}

#[test]
fn a_count_takes_no_more_of_what_is_redelivered() {
    let place = roomy("");
    with_stuck_receiver(&place).kill();
    let received = run(&["recv", "--count", "2", &place.address], b"");
    let mut numbers = parse(&received.assert_code(0).stdout);
    assert_eq!(numbers.len(), 2);
    let rest = run(&["recv", &place.address], b"");
    numbers.extend(parse(&rest.assert_code(0).stdout));
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((0..20).map(|n| (0, n))));
    place.assert_gone();
}

#[test]
fn counts_are_kept_and_raw_output_adds_nothing() {
    let place = shm("?ring=mpmc");
    run(&["send", &place.address], lines(0, 0..40).as_bytes()).assert_code(0);
    assert_eq!(run(&["recv", "--count", "17", &place.address], b"").assert_code(0).text(), lines(0, 0..17));
    assert_eq!(place.look().unwrap().depth, 23);
    let raw = run(&["recv", "--raw", &place.address], b"");
    assert_eq!(raw.assert_code(0).text(), lines(0, 17..40).replace('\n', ""));
    place.assert_gone();

    run(&["send", "--chunk", "4B", "--tag", "7", &place.address], b"abcd\nfghij").assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "abcd\n\nfgh\nij\n");
    place.assert_gone();
}

#[test]
fn what_could_not_be_written_is_not_lost() {
    let place = shm("?ring=mpmc");
    run(&["send", &place.address], lines(0, 0..5).as_bytes()).assert_code(0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    start_with(&["recv", &place.address], Stdio::null(), writer).end().assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), lines(0, 0..5));
    place.assert_gone();
}

#[test]
fn receivers_go_on_until_the_last_sender_has_left() {
    let place = shm("?ring=mpmc");
    let receivers = [start(&["recv", &place.address]), start(&["recv", &place.address])];
    let [mut leaves, mut stays] = [start(&["send", &place.address]), start(&["send", &place.address])];
    place.until_senders(2);
    place.until_receivers(2);
    leaves.say("one\n");
    leaves.end().assert_code(0);
    place.until(|report| report.depth == 0 && report.consumers.iter().all(|consumer| consumer.waiting));
    stays.say("two\n");
    stays.end().assert_code(0);
    let received = receivers.map(|receiver| receiver.end().assert_code(0).text().to_owned());
    assert_eq!(received.iter().flat_map(|text| text.lines()).collect::<BTreeSet<_>>(), ["one", "two"].into());
    place.assert_gone();
}

#[test]
fn receivers_are_told_that_a_sender_died() {
    let place = shm("?ring=mpmc");
    let mut senders = [0, 1].map(|number| (number, start(&["send", &place.address])));
    for (number, sender) in &mut senders {
        sender.say(&lines(*number, 0..100));
    }
    place.until(|report| report.depth == 200);
    let receivers = [start(&["recv", &place.address]), start(&["recv", &place.address])];
    place.until(|report| report.consumers.len() == 2 && report.consumers.iter().all(|consumer| consumer.waiting));
    let [(_, stays), (_, dies)] = senders;
    dies.kill();
    place.until(|report| report.producers.iter().any(|producer| producer.deaths == 1));
    stays.end().assert_code(0);
    let mut received = Vec::new();
    for receiver in receivers {
        let end = receiver.end();
        end.assert_code(3).assert_says(&["no sender is left", "died"]);
        received.extend(parse(&end.stdout));
    }
    assert_eq!(received.len(), 200);
    place.assert_gone();
}

#[test]
fn a_sender_goes_on_until_the_last_receiver_has_left() {
    let place = shm("?ring=mpmc&producers=1&capacity=4KiB");
    let mut sender = start(&["send", &place.address]);
    let receivers = [1, 2].map(|_| start(&["recv", &place.address]));
    place.until_receivers(2);
    let [first, mut second] = receivers;
    first.signal(Signal::SIGINT);
    first.end().assert_code(130);
    sender.say("one\n");
    assert_eq!(second.hear(), "one\n");
    second.signal(Signal::SIGINT);
    second.end().assert_code(130);
    sender.say("two\n");
    let end = sender.end();
    end.assert_code(1).assert_says(&["no receiver is left"]);
    assert_eq!(end.number_before("stay in"), 0);
    place.assert_gone();
}

#[test]
fn a_sender_is_told_of_the_death_of_the_last_receiver() {
    let place = shm("?ring=mpmc&producers=1&capacity=4KiB");
    let mut receiver = start(&["recv", &place.address]);
    let input = Temporary::new(lines(0, 0..100_000).as_bytes());
    let sender = start_with(&["send", &place.address], input.open(), Stdio::null());
    receiver.hear();
    receiver.kill();
    let end = sender.end();
    end.assert_code(3).assert_says(&["no receiver is left", "died"]);
    let kept = end.number_before("stay in");
    let rest = parse(&run(&["recv", &place.address], b"").assert_code(0).stdout);
    assert!(rest.len() as u64 >= kept, "{} of {kept}", rest.len());
    place.assert_gone();
}

#[test]
fn patience_ends() {
    let place = shm("?ring=mpmc&producers=1&capacity=4KiB");
    for timeout in ["0s", "20ms", "150ms"] {
        let end = run(&["recv", "--timeout", timeout, &place.address], b"");
        end.assert_code(4).assert_says(&[timeout, place.target()]);
        place.assert_gone();
        let end = run(&["send", "--timeout", timeout, &place.address], lines(0, 0..1000).as_bytes());
        end.assert_code(4).assert_says(&[timeout]);
        let kept = end.number_before("stay in");
        assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), lines(0, 0..kept));
        place.assert_gone();
    }
}

#[test]
fn a_sender_too_many_is_told_what_to_do() {
    for place in [shm(""), sysv(), file()] {
        let place = place.with("ring=mpmc&producers=2");
        let senders = [start(&["send", &place.address]), start(&["send", &place.address])];
        place.until_senders(2);
        let third = run(&["send", &place.address], b"one\n");
        third.assert_code(2).assert_says(&["all of its 2 lanes are taken", "`producers=`"]);
        for sender in senders {
            sender.end().assert_code(0);
        }
    }
}

#[test]
fn a_dead_sender_makes_room_for_another() {
    let place = shm("?ring=mpmc&producers=1");
    let mut sender = start(&["send", &place.address]);
    sender.say("one\n");
    place.until(|report| report.depth == 1);
    sender.kill();
    run(&["send", &place.address], b"two\n").assert_code(0);
    assert_eq!(run(&["recv", &place.address], b"").text(), "one\ntwo\n");
    place.assert_gone();
}

#[test]
fn the_other_kind_of_ring_is_refused() {
    for place in [shm("?persist=yes"), sysv().with("persist=yes"), file()] {
        let many = format!("{}{}ring=mpmc", place.address, if place.address.contains('?') { '&' } else { '?' });
        run(&["send", &place.address], b"one\n").assert_code(0);
        for command in ["send", "recv"] {
            run(&[command, &many], b"").assert_code(2).assert_says(&["ring=spsc", "ring=mpmc"]);
        }
        run(&["rm", &place.address], b"").assert_code(0);

        run(&["send", &many], b"one\n").assert_code(0);
        let one = many.replace("mpmc", "spsc");
        for command in ["send", "recv"] {
            run(&[command, &one], b"").assert_code(2).assert_says(&["ring=spsc", "ring=mpmc"]);
            run(&[command, &format!("{many}&producers=9")], b"").assert_code(2).assert_says(&["8 producers", "9"]);
            run(&[command, &format!("{many}&max_deliveries=9")], b"").assert_code(2).assert_says(&["=8"]);
        }
        assert_eq!(run(&["recv", &place.address], b"").assert_code(0).text(), "one\n", "whichever it is");
    }
}

#[test]
fn json_has_the_documented_fields() {
    let common = ["address", "kind", "size", "mode", "uid", "owner", "problem"];
    let of_rings = ["created_unix_ms", "ring", "wait", "capacity", "max_message", "persist", "poisoned"];
    let of_many = ["most_producers", "max_deliveries", "leased", "requeued", "redelivered", "dropped"];
    let fields = [&common[..], &of_rings, &of_many, &["depth", "depth_bytes", "producers", "consumers"]].concat();
    let fields: BTreeSet<&str> = fields.into_iter().collect();
    for place in everywhere() {
        run(&["send", &place.address], b"one\n\nthree\n").assert_code(0);
        let senders = [start(&["send", &place.address]), start(&["send", &place.address])];
        place.until_senders(2);
        let object = json(&["inspect", "--json", &place.address]);
        assert_eq!(keys(&object), fields);
        assert_eq!((&object["ring"], &object["depth"], &object["depth_bytes"]), (&"mpmc".into(), &3.into(), &8.into()));
        assert_eq!((&object["most_producers"], &object["max_deliveries"]), (&8.into(), &8.into()));
        assert_eq!(object["consumers"], Value::Array(Vec::new()));
        let producers = object["producers"].as_array().unwrap();
        let pids: BTreeSet<u64> = producers.iter().map(|producer| producer["pid"].as_u64().unwrap()).collect();
        assert_eq!(pids, senders.iter().map(|sender| sender.pid().into()).collect());
        for (number, producer) in producers.iter().enumerate() {
            assert_eq!(keys(producer), ["number", "state", "pid", "joined", "deaths", "waiting"].into());
            assert_eq!((&producer["number"], &producer["state"]), (&number.into(), &"alive".into()));
        }
    }
}

#[test]
fn people_see_who_is_there() {
    let place = roomy("");
    let row = || {
        let end = run(&["ls"], b"");
        let row = end.assert_code(0).text().lines().find(|line| line.starts_with(place.target())).unwrap().to_owned();
        let words: Vec<&str> = row.split_whitespace().skip(4).collect();
        words.join(" ")
    };
    let victim = with_stuck_receiver(&place);
    assert_eq!(row(), format!("4 left {}", victim.pid()));
    let sender = start(&["send", &place.address]);
    place.until_sender();
    // As stuck as the first one: a receiver that waits would recover what that held.
    let other = start(&["recv", &place.address]);
    place.until(|report| report.depth == 0);
    assert_eq!(row(), format!("0 {} 2 alive", sender.pid()));
    let pid = victim.pid();
    victim.kill();
    assert_eq!(row(), format!("0 {} 1 alive, 1 dead", sender.pid()));
    let end = run(&["inspect", &place.address], b"");
    let text = end.assert_code(0).text();
    for words in [
        "ring      mpmc, capacity",
        "up to 1 producers, 8 deliveries of a message",
        "batches   2 leased, 0 requeued",
        "messages  0 redelivered, 0 dropped",
        &format!("producers  0  process {}, alive", sender.pid()),
        &format!("consumers  0  process {pid}, dead"),
        &format!("  process {}, alive", other.pid()),
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn removal_asks_before_it_takes_a_ring_from_the_living() {
    for place in everywhere() {
        let senders = [start(&["send", &place.address]), start(&["send", &place.address])];
        let receiver = start(&["recv", &place.address]);
        place.until_senders(2);
        place.until_receivers(1);
        let [first, second] = senders;
        let pids = [first.pid().to_string(), second.pid().to_string(), receiver.pid().to_string()];
        let said = ["attached as its producers", "attached as its consumer", "--force", &pids[0], &pids[1], &pids[2]];
        run(&["rm", &place.address], b"").assert_code(2).assert_says(&said);
        first.kill();
        receiver.signal(Signal::SIGINT);
        receiver.end().assert_code(130);
        run(&["rm", &place.address], b"").assert_code(2).assert_says(&[&pids[1], "attached as its producer;"]);
        second.kill();
        run(&["rm", &place.address], b"").assert_code(0);
        place.assert_gone();
    }
}
