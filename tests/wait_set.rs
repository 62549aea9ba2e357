//! One thread that waits for many things: rings of every kind, what the kernel carries, descriptors and timers.

mod common;

use common::faults::kill;
use common::{Child, Gate, KINDS, Kind, PATIENCE, Scratch, alone};
use ringway::transport::PipeEnd;
use ringway::{Address, Events, Interest, Options, PeerEvent, Receiver, RecvError, SendError, Sender, Wait, WaitSet};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// In which way a set sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Futexes,
    Descriptors,
}

const WAYS: [Way; 2] = [Way::Futexes, Way::Descriptors];

/// A set that sleeps in that way; the socket keeps it so, and has that token.
fn set(way: Way) -> (WaitSet, Option<(UnixStream, UnixStream)>) {
    let set = WaitSet::new().unwrap();
    let sockets = (way == Way::Descriptors).then(|| UnixStream::pair().unwrap());
    if let Some((near, _)) = &sockets {
        set.add_descriptor(SOCKET, near, Interest::READABLE).unwrap();
    }
    (set, sockets)
}

const SOCKET: usize = 1_000_000;
const TIMER: usize = 1_000_001;

/// Waits, but not for ever.
fn wait<'e>(set: &WaitSet, events: &'e mut Events) -> &'e Events {
    assert_ne!(set.wait_timeout(events, PATIENCE).unwrap(), 0, "a wake-up was lost");
    events
}

/// Receives what is there; says how much it was, and how it ended.
fn drain(receiver: &mut Receiver) -> (u32, RecvError) {
    let mut count = 0;
    loop {
        match receiver.try_recv() {
            Ok(_) => count += 1,
            Err(end) => return (count, end),
        }
    }
}

/// Returns once a receiver has nothing to tell any more.
fn settle(set: &WaitSet, receivers: &mut [Receiver]) {
    let mut events = Events::with_capacity(receivers.len() + 2);
    while set.wait_timeout(&mut events, Duration::ZERO).unwrap() > 0 {
        for event in &events {
            if let Some(receiver) = receivers.get_mut(event.token()) {
                while receiver.peer_event().is_some() {}
                assert_eq!(drain(receiver), (0, RecvError::Empty));
            }
        }
    }
}

/// A ring of each place, each strategy that it has there, and each kind.
fn rings() -> Vec<Scratch> {
    let each = KINDS.into_iter().flat_map(|kind| kind.sleeping().iter().map(move |wait| (kind, wait)));
    each.flat_map(|(kind, wait)| {
        ["spsc", "mpmc"].map(|ring| Scratch::with(kind, &format!("wait={wait}&ring={ring}&capacity=64KiB")))
    })
    .collect()
}

#[test]
fn all_kinds_of_rings_at_once() {
    let _alone = alone();
    let mut rings = rings();
    while !rings.is_empty() {
        // So many sleep by futexes.
        receive_all(Way::Futexes, rings.split_off(rings.len().saturating_sub(15)));
    }
    receive_all(Way::Descriptors, self::rings());
}

/// Another process sends to all of these rings, and ends.
fn receive_all(way: Way, places: Vec<Scratch>) {
    const MESSAGES: u32 = 300;
    let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
    let (set, sockets) = set(way);
    let mut child = Child::fork(|_| {
        let mut senders: Vec<Sender> = places.iter().map(Scratch::sender).collect();
        for number in 0..MESSAGES {
            for (index, sender) in senders.iter_mut().enumerate() {
                sender.send((&[0; 100][..index], number)).unwrap();
            }
            if number % 100 == 0 {
                // So that the others sleep in between.
                thread::sleep(Duration::from_millis(20));
            }
        }
        if let Some((_, mut far)) = sockets.as_ref().map(|(near, far)| (near, far)) {
            far.write_all(b"bye").unwrap();
        }
    });
    for (token, receiver) in receivers.iter_mut().enumerate() {
        set.add(token, receiver).unwrap();
    }
    let begun = Instant::now();
    set.add_timer(TIMER, begun + Duration::from_millis(1), Some(Duration::from_millis(1))).unwrap();
    let mut received = vec![0; receivers.len()];
    let mut open = receivers.len() + usize::from(sockets.is_some());
    let mut ticks = 0;
    let mut events = Events::with_capacity(5);
    while open > 0 || ticks == 0 {
        let mut seen = Vec::new();
        for event in wait(&set, &mut events) {
            assert!(!seen.contains(&event.token()), "{way:?}: told twice");
            seen.push(event.token());
            match event.token() {
                TIMER => {
                    assert!(event.is_timer());
                    ticks += 1;
                    assert!(begun.elapsed() >= Duration::from_millis(ticks), "{way:?}");
                }
                SOCKET => {
                    assert!(event.is_readable() && !event.is_endpoint());
                    let mut said = [0; 3];
                    (&sockets.as_ref().unwrap().0).read_exact(&mut said).unwrap();
                    assert_eq!(said, *b"bye");
                    assert!(set.remove(SOCKET));
                    open -= 1;
                }
                token => {
                    assert!(event.is_readable() && event.is_endpoint());
                    let (count, end) = drain(&mut receivers[token]);
                    received[token] += count;
                    match end {
                        RecvError::Empty => {}
                        RecvError::Closed => {
                            assert!(set.remove(token));
                            open -= 1;
                        }
                        end => panic!("{}: {end}", places[token].address),
                    }
                }
            }
        }
    }
    child.expect_success();
    assert!(received.iter().all(|&count| count == MESSAGES), "{way:?}: {received:?}");
}

#[test]
fn what_the_kernel_carries_at_once() {
    let _alone = alone();
    const MESSAGES: u32 = 200;
    let directory = std::env::temp_dir().join(format!("ringway-test-{}-wait-set", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display();
    let addresses: Vec<Address> = [
        format!("fifo://{path}/fifo"),
        format!("unix://{path}/stream.sock"),
        format!("unix://{path}/packets.sock?type=seqpacket"),
        format!("memfd://{path}/memfd.sock"),
        format!("mq:///ringway-test-{}-wait-set", std::process::id()),
    ]
    .iter()
    .map(|address| address.parse().unwrap())
    .collect();
    let (pipe_sender, pipe_receiver): (PipeEnd, PipeEnd) =
        Options::new().pair(&"pipe:".parse::<Address>().unwrap()).unwrap();
    let ring = Scratch::new(Kind::Shm);
    let mut ends = Some((pipe_sender, pipe_receiver));
    let gate = Gate::new();
    let mut child = Child::fork(|_| {
        gate.pass();
        let (pipe, receiver) = ends.take().unwrap();
        drop(receiver);
        let mut senders: Vec<Sender> =
            addresses.iter().map(|address| Options::new().sender(address).unwrap()).collect();
        senders.push(pipe.sender().unwrap());
        senders.push(ring.sender());
        for number in 0..MESSAGES {
            senders.iter_mut().for_each(|sender| sender.send((b"hello", number)).map(drop).unwrap());
        }
        senders.iter_mut().for_each(|sender| sender.finish(PATIENCE).unwrap());
    });
    let mut receivers: Vec<Receiver> =
        addresses.iter().map(|address| Options::new().receiver(address).unwrap()).collect();
    let (sender, receiver) = ends.take().unwrap();
    drop(sender);
    receivers.push(receiver.receiver().unwrap());
    receivers.push(ring.receiver());
    let set = WaitSet::new().unwrap();
    for (token, receiver) in receivers.iter_mut().enumerate() {
        set.add(token, receiver).unwrap();
    }
    gate.open(1);
    let mut received = vec![0; receivers.len()];
    let mut events = Events::with_capacity(2);
    while received.iter().any(|&count| count < MESSAGES) {
        for event in wait(&set, &mut events) {
            let token = event.token();
            let (count, end) = drain(&mut receivers[token]);
            received[token] += count;
            if end != RecvError::Empty {
                assert_eq!((end, received[token]), (RecvError::Closed, MESSAGES), "member {token}");
                set.remove(token);
            }
        }
    }
    child.expect_success();
    drop(receivers);
    addresses.iter().for_each(|address| drop(ringway::transport::remove(address, true)));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Two processes with a set each, in turns.
#[test]
fn no_wake_up_between_processes_is_lost() {
    let _alone = alone();
    const ROUNDS: u32 = 20_000;
    for way in WAYS {
        let (ping, pong, idle) =
            (Scratch::new(Kind::Shm), Scratch::with(Kind::Shm, "ring=mpmc"), Scratch::new(Kind::Anon));
        let run = |from: &Scratch, to: &Scratch, is_first: bool| {
            let (mut receiver, mut sender) = (from.receiver(), to.sender());
            let (set, _sockets) = set(way);
            let mut idler = is_first.then(|| idle.receiver());
            set.add(1, &mut receiver).unwrap();
            if let Some(idler) = &mut idler {
                set.add(2, idler).unwrap();
            }
            let mut events = Events::with_capacity(4);
            if is_first {
                sender.send(b"go").unwrap();
            }
            let mut received = 0;
            while received < ROUNDS {
                for event in wait(&set, &mut events) {
                    let receiver = if event.token() == 1 { &mut receiver } else { idler.as_mut().unwrap() };
                    let (count, end) = drain(receiver);
                    assert!(end == RecvError::Empty || end == RecvError::Closed, "{end}");
                    if event.token() == 1 {
                        received += count;
                        (0..count).for_each(|_| {
                            // It may be the last one.
                            let _ = sender.send(b"on");
                        });
                    }
                }
            }
        };
        let mut child = Child::fork(|_| run(&ping, &pong, false));
        run(&pong, &ping, true);
        child.expect_success();
    }
}

#[test]
fn a_full_ring_is_waited_for() {
    let _alone = alone();
    for (way, ring) in WAYS.into_iter().flat_map(|way| [(way, "spsc"), (way, "mpmc")]) {
        let places: Vec<Scratch> =
            (0..2).map(|_| Scratch::with(Kind::Shm, &format!("ring={ring}&capacity=64KiB"))).collect();
        const MESSAGES: usize = 3000;
        let mut child = Child::fork(|tell| {
            let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
            tell.say(b'r');
            for number in 0..MESSAGES {
                for receiver in &mut receivers {
                    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().tag(), number as u32);
                }
            }
        });
        let mut senders: Vec<Sender> = places.iter().map(Scratch::sender).collect();
        child.expect(b'r');
        let (set, _sockets) = set(way);
        for (token, sender) in senders.iter_mut().enumerate() {
            set.add(token, sender).unwrap();
        }
        let mut sent = [0; 2];
        let mut events = Events::with_capacity(4);
        while sent.iter().any(|&sent| sent < MESSAGES) {
            for (sender, sent) in senders.iter_mut().zip(&mut sent) {
                while *sent < MESSAGES {
                    match sender.try_send((&[0; 500], *sent as u32)) {
                        Ok(_) => *sent += 1,
                        Err(SendError::Full) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            if sent.iter().any(|&sent| sent < MESSAGES) {
                assert!(wait(&set, &mut events).iter().all(|event| event.is_writable()), "{way:?} {ring}");
            }
        }
        child.expect_success();
    }
}

#[test]
fn peers_that_come_leave_and_die_are_told() {
    let _alone = alone();
    for (way, wait_by, ring) in WAYS.into_iter().flat_map(|way| {
        [Wait::Futex, Wait::Semaphore].into_iter().flat_map(move |by| [(way, by, "spsc"), (way, by, "mpmc")])
    }) {
        let case = format!("{way:?}, {wait_by}, {ring}");
        let places: Vec<Scratch> =
            (0..12).map(|_| Scratch::with(Kind::Shm, &format!("wait={wait_by}&ring={ring}&capacity=64KiB"))).collect();
        let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
        let (set, _sockets) = set(way);
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
        }
        settle(&set, &mut receivers);
        let mut events = Events::with_capacity(8);
        let mut expect = |receivers: &mut [Receiver], token: usize, expected: PeerEvent| {
            loop {
                for event in wait(&set, &mut events) {
                    let receiver = &mut receivers[event.token()];
                    let told = receiver.peer_event();
                    drain(receiver);
                    if told.is_some() {
                        assert_eq!((event.token(), told), (token, Some(expected)), "{case}");
                        return;
                    }
                }
            }
        };
        for (token, dies) in [(11, true), (0, false), (5, true)] {
            let gate = Gate::new();
            let child = Child::fork(|tell| {
                let sender = places[token].sender();
                if dies {
                    tell.sleep_until_killed();
                }
                gate.pass();
                drop(sender);
            });
            expect(&mut receivers, token, PeerEvent::Joined);
            if dies {
                kill(child);
                expect(&mut receivers, token, PeerEvent::Died);
            } else {
                gate.open(1);
                expect(&mut receivers, token, PeerEvent::Left);
            }
        }
    }
}

#[test]
fn a_thousand_rings() {
    let _alone = alone();
    const RINGS: usize = 1000;
    // SAFETY: a place for the answer, and the limit that is allowed.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    let places: Vec<Scratch> = (0..RINGS).map(|_| Scratch::with(Kind::Anon, "capacity=4KiB")).collect();
    let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
    let set = WaitSet::new().unwrap();
    for (token, receiver) in receivers.iter_mut().enumerate() {
        set.add(token, receiver).unwrap();
    }
    settle(&set, &mut receivers);
    let mut child = Child::fork(|_| {
        let mut senders: Vec<Sender> = places.iter().map(Scratch::sender).collect();
        for round in 0..3 {
            for index in 0..RINGS {
                // In another order than they were added.
                senders[index * 7 % RINGS].send((b"x", round)).unwrap();
            }
        }
    });
    let mut received = vec![0; RINGS];
    let mut open = RINGS;
    let mut events = Events::with_capacity(64);
    while open > 0 {
        for event in wait(&set, &mut events) {
            let (count, end) = drain(&mut receivers[event.token()]);
            received[event.token()] += count;
            if end == RecvError::Closed {
                open -= 1;
                set.remove(event.token());
            }
        }
    }
    child.expect_success();
    assert!(received.iter().all(|&count| count == 3));
}

#[test]
fn a_ring_that_is_never_drained_starves_nobody() {
    let _alone = alone();
    for way in WAYS {
        let places: Vec<Scratch> = (0..4).map(|_| Scratch::new(Kind::Shm)).collect();
        let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
        let mut senders: Vec<Sender> = places.iter().map(Scratch::sender).collect();
        let (set, _sockets) = set(way);
        for (token, receiver) in receivers.iter_mut().enumerate() {
            set.add(token, receiver).unwrap();
        }
        settle(&set, &mut receivers);
        senders.iter_mut().for_each(|sender| sender.send(b"again and again").map(drop).unwrap());
        let mut counts = HashMap::new();
        let mut events = Events::with_capacity(1);
        for _ in 0..40 {
            *counts.entry(wait(&set, &mut events).iter().next().unwrap().token()).or_insert(0) += 1;
        }
        assert_eq!(counts, (0..4).map(|token| (token, 10)).collect(), "{way:?}");
    }
}

/// A handler that does nothing, for a signal that interrupts all that it can.
fn interrupt_by(signal: libc::c_int) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a sigaction is plain integers, of which zeros are an empty mask and no flags; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_storm_of_signals_neither_ends_a_wait_nor_lengthens_it() {
    let _alone = alone();
    for way in WAYS {
        let place = Scratch::new(Kind::Shm);
        let mut child = Child::fork(|tell| {
            interrupt_by(libc::SIGUSR1);
            let mut receiver = place.receiver();
            let (set, _sockets) = set(way);
            set.add(0, &mut receiver).unwrap();
            settle(&set, std::slice::from_mut(&mut receiver));
            let mut events = Events::with_capacity(4);
            let timeout = Duration::from_millis(300);
            let begun = Instant::now();
            tell.say(b'r');
            assert_eq!(set.wait_timeout(&mut events, timeout).unwrap(), 0);
            assert!(begun.elapsed() >= timeout);
            set.add_timer(1, begun + 2 * timeout, None).unwrap();
            set.wait(&mut events).unwrap();
            assert!(events.iter().all(|event| event.is_timer()) && begun.elapsed() >= 2 * timeout);
            tell.say(b't');
            loop {
                set.wait(&mut events).unwrap();
                if drain(&mut receiver).0 == 1 {
                    break;
                }
            }
            tell.say(b'm');
        });
        child.expect(b'r');
        let is_over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let pid = child.pid().cast_signed();
            let storm = scope.spawn(move || {
                let mut sent = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: a plain system call; the child is not reaped before this ends.
                    unsafe { libc::kill(pid, libc::SIGUSR1) };
                    sent += 1;
                    thread::sleep(Duration::from_micros(200));
                }
                sent
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                child.expect(b't');
                let mut sender = place.sender();
                sender.send(b"at last").unwrap();
                child.expect(b'm');
            }));
            is_over.store(true, Ordering::Relaxed);
            assert!(storm.join().unwrap() > 0);
            outcome.unwrap();
        });
        child.expect_success();
    }
}

#[test]
fn what_other_threads_change_is_seen_at_once() {
    let _alone = alone();
    for way in WAYS {
        let places: Vec<Scratch> = (0..2).map(|_| Scratch::new(Kind::Shm)).collect();
        let mut receivers: Vec<Receiver> = places.iter().map(Scratch::receiver).collect();
        let mut sender = places[1].sender();
        let (set, _sockets) = set(way);
        let (first, second) = receivers.split_at_mut(1);
        set.add(0, &mut first[0]).unwrap();
        settle(&set, first);
        let set = &set;
        let (tell, told) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                let mut events = Events::with_capacity(4);
                loop {
                    let count = set.wait_timeout(&mut events, PATIENCE).unwrap();
                    tell.send(events.iter().next().map(|event| event.token())).unwrap();
                    if count == 0 {
                        return;
                    }
                    assert!(set.remove(1), "only what was added");
                }
            });
            sender.send(b"before").unwrap();
            set.add(1, &mut second[0]).unwrap();
            assert_eq!(told.recv().unwrap(), Some(1));
            set.waker().wake();
            assert_eq!(told.recv().unwrap(), None);
            waiting.join().unwrap();
        });
        // What was removed is told no more, and can be added again.
        sender.send(b"while it is out").unwrap();
        assert_eq!(set.wait_timeout(&mut Events::with_capacity(4), Duration::from_millis(10)).unwrap(), 0);
        set.add(7, &mut second[0]).unwrap();
        assert_eq!(drain(&mut second[0]).0, 2);
    }
}

#[test]
fn rings_that_only_spin_are_refused() {
    let _alone = alone();
    let place = Scratch::with(Kind::Shm, "wait=spin");
    let error = WaitSet::new().unwrap().add(0, &mut place.receiver()).unwrap_err();
    assert_eq!(error.kind(), ringway::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("wait=spin"), "{error}");
}
