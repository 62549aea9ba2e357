//! Queued real-time signals between processes: nothing is lost or mixed, and nobody is killed.

mod common;

use common::payload::{Payload, mix};
use common::{Child, PATIENCE, alone, runs};
use ringway::{Address, Error, ErrorKind, Options, PeerState, Receiver, RecvError, SendError, Sender};
use std::io::{Read, Write};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const SIZES: [usize; 9] = [0, 1, 7, 8, 9, 1000, 4097, (64 << 10) - 1, 64 << 10];

/// Pending signals that are many, but leave the limit of the user to others.
const MANY: u64 = 5000;

/// The first that the C library leaves to programs, and so on.
fn signal(number: i32) -> libc::c_int {
    libc::SIGRTMIN() + number
}

fn address(pid: u32, number: i32) -> Address {
    format!("signal://{pid}?sig=RTMIN+{number}").parse().unwrap()
}

/// In a child, which has one thread.
fn receiver(number: i32) -> Receiver {
    Options::new().receiver(&format!("signal://self?sig=RTMIN+{number}").parse().unwrap()).unwrap()
}

/// For a receiver that is there, or about to be.
fn sender(child: &Child, number: i32) -> Sender {
    Options::new().connect(PATIENCE).sender(&address(child.pid(), number)).unwrap()
}

/// Of a sender that doesn't wait for it.
fn refusal(pid: u32, number: i32) -> Error {
    let options = Options::new().connect(Duration::ZERO);
    options.sender(&address(pid, number)).expect_err("a sender to an unprepared process")
}

fn recv(receiver: &mut Receiver) -> Result<(Vec<u8>, u32, u64, u32), RecvError> {
    let message = receiver.recv_timeout(PATIENCE)?;
    Ok((message.to_vec(), message.tag(), message.sequence(), message.producer()))
}

/// This child takes no more signals than those that are pending at its user, and `more`.
fn limit_pending(more: u64) {
    // Pending signals are counted for each user of each namespace: here those of other processes don't count. Where this is not
    // allowed they do.
    // SAFETY: a plain system call, that changes this child alone.
    let _ = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigQ:")?.trim().split('/').next()).unwrap();
    set_limit(pending.parse::<u64>().unwrap() + more);
}

fn set_limit(limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` outlives the call, which changes this child alone.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
}

/// Sends a word, as any program can.
fn queue(child: &Child, number: i32, word: usize) {
    let value = libc::sigval { sival_ptr: word as *mut libc::c_void };
    // SAFETY: the child is there and takes signals, and a value is only passed on.
    assert_eq!(unsafe { libc::sigqueue(child.pid() as libc::pid_t, signal(number), value) }, 0);
}

fn block(signal: libc::c_int) {
    // SAFETY: a set that is made here, and this thread's mask.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()), 0);
    }
}

#[test]
fn messages_of_all_sizes_arrive_in_order() {
    let _alone = alone();
    let mut child = Child::fork(|_| {
        limit_pending(MANY);
        let mut receiver = receiver(1);
        assert_eq!(receiver.max_message(), 64 << 10);
        assert_eq!(receiver.peer(), PeerState::Absent);
        for round in 0..3 {
            for (number, len) in SIZES.into_iter().enumerate() {
                let payload = Payload::of_len(number as u64, len);
                let (bytes, tag, sequence, producer) = recv(&mut receiver).unwrap();
                payload.check(&bytes, tag);
                assert_eq!((sequence, producer), ((round * SIZES.len() + number) as u64, 0));
            }
        }
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
        assert_eq!(receiver.peer(), PeerState::Left);
    });
    let mut sender = sender(&child, 1);
    assert_eq!((sender.max_message(), sender.peer()), (64 << 10, PeerState::Alive { pid: child.pid() }));
    let too_large = SendError::TooLarge { max: 64 << 10 };
    assert_eq!(sender.try_send(&vec![0; (64 << 10) + 1]), Err(too_large));
    for round in 0..3 {
        for (number, len) in SIZES.into_iter().enumerate() {
            let payload = Payload::of_len(number as u64, len);
            let sequence = sender.send((&payload.to_vec(), payload.tag())).unwrap();
            assert_eq!(sequence, (round * SIZES.len() + number) as u64);
        }
    }
    drop(sender);
    child.expect_success();
}

#[test]
fn a_message_of_a_mebibyte_and_batches() {
    let _alone = alone();
    const SMALL: u64 = 5000;
    let long: Vec<u8> = (0..1 << 17).flat_map(|i| mix(i).to_le_bytes()).collect();
    let options = || Options::new().max_message(1 << 20).connect(PATIENCE);
    let mut child = Child::fork(|_| {
        limit_pending(MANY);
        let mut receiver = options().receiver(&"signal://self?sig=RTMIN+2".parse().unwrap()).unwrap();
        let (bytes, tag, ..) = recv(&mut receiver).unwrap();
        assert_eq!(tag, 7);
        assert!(bytes == long, "a mebibyte of something else");
        let mut next = 0;
        while next < SMALL {
            // Waits for the first.
            let mut batch = receiver.recv_batch_timeout(100, PATIENCE).unwrap();
            while let Some((bytes, delivery)) = batch.next() {
                Payload::new(next, 50).check(bytes, delivery.tag);
                next += 1;
            }
        }
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    let mut sender = options().sender(&address(child.pid(), 2)).unwrap();
    sender.send((&long, 7)).unwrap();
    let payloads: Vec<_> = (0..SMALL).map(|number| Payload::new(number, 50)).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| (payload.to_vec(), payload.tag())).collect();
    for chunk in messages.chunks(700) {
        sender.send_many(chunk.iter().map(|(bytes, tag)| (&bytes[..], *tag))).unwrap();
    }
    drop(sender);
    child.expect_success();
}

#[test]
fn senders_are_told_apart() {
    let _alone = alone();
    const SENDERS: u32 = 4;
    const EACH: u64 = 300;
    let mut child = Child::fork(|tell| {
        limit_pending(MANY);
        let mut receiver = receiver(3);
        tell.say(b'r');
        let mut next = [0; SENDERS as usize];
        let mut numbers = [None; SENDERS as usize];
        for _ in 0..u64::from(SENDERS) * EACH {
            let (bytes, tag, sequence, producer) = recv(&mut receiver).unwrap();
            let who = tag as usize;
            assert_eq!(sequence, next[who]);
            next[who] += 1;
            assert_eq!(*numbers[who].get_or_insert(producer), producer);
            let payload = Payload::new(u64::from(tag) << 32 | sequence, 3000);
            payload.check(&bytes, payload.tag());
        }
        let mut numbers = numbers.map(Option::unwrap);
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    child.expect(b'r');
    let mut senders: Vec<_> = (0..SENDERS)
        .map(|tag| {
            Child::fork(|_| {
                let mut sender = sender(&child, 3);
                for sequence in 0..EACH {
                    let payload = Payload::new(u64::from(tag) << 32 | sequence, 3000);
                    assert_eq!(sender.send((&payload.to_vec(), tag)), Ok(sequence));
                }
            })
        })
        .collect();
    senders.iter_mut().for_each(Child::expect_success);
    child.expect_success();
}

#[test]
fn at_the_limit_of_pending_signals_nothing_is_lost() {
    let _alone = alone();
    let (mut go, gone) = std::io::pipe().unwrap();
    let mut child = Child::fork(|tell| {
        limit_pending(20);
        let mut receiver = receiver(4);
        tell.say(b'r');
        // Until the sender has met the limit.
        go.read_exact(&mut [0]).unwrap();
        for number in 0..200 {
            let (bytes, tag, sequence, _) = recv(&mut receiver).unwrap();
            Payload::new(number, 500).check(&bytes, tag);
            assert_eq!(sequence, number);
        }
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    child.expect(b'r');
    let mut sender = sender(&child, 4);
    let mut sent = 0;
    let full = loop {
        let payload = Payload::new(sent, 500);
        match sender.try_send((&payload.to_vec(), payload.tag())) {
            Ok(sequence) => assert_eq!(sequence, sent),
            Err(error) => break error,
        }
        sent += 1;
    };
    assert_eq!(full, SendError::Full);
    assert!(sent < 20, "{sent}");
    let timeout = Duration::from_millis(20);
    assert_eq!(sender.send_timeout((b"never", 0), timeout), Err(SendError::Timeout));
    (&gone).write_all(b"g").unwrap();
    for number in sent..200 {
        let payload = Payload::new(number, 500);
        assert_eq!(sender.send((&payload.to_vec(), payload.tag())), Ok(number));
    }
    drop(sender);
    child.expect_success();
}

#[test]
fn what_a_sender_could_not_finish_the_next_one_of_its_process_does() {
    let _alone = alone();
    let (mut go, gone) = std::io::pipe().unwrap();
    let mut child = Child::fork(|tell| {
        limit_pending(20);
        // Between the two nobody is there.
        let options = Options::new().keep_open(true);
        let mut receiver = options.receiver(&"signal://self?sig=RTMIN+5".parse().unwrap()).unwrap();
        tell.say(b'r');
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(recv(&mut receiver).unwrap().0, [7; 1000]);
        assert_eq!(recv(&mut receiver).unwrap(), (b"next".to_vec(), 9, 0, 1));
    });
    child.expect(b'r');
    let mut first = sender(&child, 5);
    assert_eq!(first.try_send(&[7; 1000]), Ok(0));
    // Which takes as long as it may try.
    drop(first);
    let mut second = sender(&child, 5);
    (&gone).write_all(b"g").unwrap();
    second.send((b"next", 9)).unwrap();
    drop(second);
    child.expect_success();
}

#[test]
fn a_sender_killed_in_the_middle_of_a_message_is_told_of_and_the_message_dropped() {
    let _alone = alone();
    let (mut go, gone) = std::io::pipe().unwrap();
    let mut child = Child::fork(|tell| {
        limit_pending(20);
        let mut receiver = receiver(6);
        tell.say(b'r');
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(recv(&mut receiver).unwrap(), (b"whole".to_vec(), 1, 0, 0));
        assert_eq!(recv(&mut receiver), Err(RecvError::PeerDied));
        assert!(matches!(receiver.peer(), PeerState::Dead { .. }));
        assert_eq!(receiver.try_recv().err(), Some(RecvError::Empty), "it is told once");
        tell.say(b'd');
        assert_eq!(recv(&mut receiver).unwrap(), (b"successor".to_vec(), 2, 0, 1));
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    child.expect(b'r');
    let mut victim = Child::fork(|tell| {
        let mut sender = sender(&child, 6);
        sender.send((b"whole", 1)).unwrap();
        assert_eq!(sender.try_send(&[7; 1000]), Ok(1));
        tell.say(b'h');
        tell.sleep_until_killed();
    });
    victim.expect(b'h');
    victim.kill_without_reaping();
    (&gone).write_all(b"g").unwrap();
    child.expect(b'd');
    sender(&child, 6).send((b"successor", 2)).unwrap();
    child.expect_success();
}

#[test]
fn a_sleeping_receiver_wakes_when_its_sender_dies() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        let mut receiver = receiver(6);
        assert_eq!(recv(&mut receiver).unwrap().0, b"first");
        tell.say(b'f');
        assert_eq!(recv(&mut receiver), Err(RecvError::PeerDied));
    });
    let mut victim = Child::fork(|tell| {
        let mut sender = sender(&child, 6);
        sender.send(b"first").unwrap();
        tell.sleep_until_killed();
    });
    child.expect(b'f');
    child.await_sleep();
    victim.kill_without_reaping();
    child.expect_success();
}

#[test]
fn a_sender_learns_that_the_receivers_process_died() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        limit_pending(20);
        let _receiver = receiver(7);
        tell.say(b'r');
        tell.sleep_until_killed();
    });
    child.expect(b'r');
    let mut sender = sender(&child, 7);
    while sender.try_send(b"more").is_ok() {}
    child.kill_without_reaping();
    assert_eq!(sender.send_timeout(b"late", PATIENCE), Err(SendError::PeerDied));
    assert_eq!(sender.send_timeout(b"late", PATIENCE), Err(SendError::Closed), "it is told once");
    assert_eq!(sender.peer(), PeerState::Dead { pid: child.pid() });
    child.reap();
    assert_eq!(sender.try_send(b"late"), Err(SendError::Closed));
    drop(sender);
    assert_eq!(refusal(child.pid(), 7).kind(), ErrorKind::NotFound);
}

#[test]
fn roles_are_taken_once_in_a_process() {
    let _alone = alone();
    let mut child = Child::fork(|_| {
        let own = std::process::id();
        let receiver = receiver(8);
        let taken = ErrorKind::RoleTaken { pid: own };
        assert_eq!(Options::new().receiver(&address(own, 8)).err().unwrap().kind(), taken);
        let sender = Options::new().sender(&address(own, 8)).unwrap();
        assert_eq!(Options::new().sender(&address(own, 8)).err().unwrap().kind(), taken);
        drop((sender, receiver));
        // Again, both of them: to itself.
        let mut receiver = self::receiver(8);
        let mut sender = Options::new().sender(&"signal://self?sig=RTMIN+8".parse().unwrap()).unwrap();
        // What a parent has is none of its child's.
        Child::fork(|_| drop(self::receiver(8))).expect_success();
        sender.send((b"to myself", 3)).unwrap();
        assert_eq!(recv(&mut receiver).unwrap(), (b"to myself".to_vec(), 3, 0, 0));
        drop(sender);
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    child.expect_success();
}

#[test]
fn signals_of_others_are_malformed_and_harm_nobody() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        let mut receiver = receiver(9);
        tell.say(b'r');
        for _ in 0..3 {
            assert_eq!(recv(&mut receiver), Err(RecvError::Malformed));
            tell.say(b'm');
        }
        assert_eq!(recv(&mut receiver).unwrap(), (b"sound".to_vec(), 0, 0, 0));
        assert_eq!(recv(&mut receiver), Err(RecvError::Malformed), "in between");
        assert_eq!(recv(&mut receiver).unwrap(), (b"sound, too".to_vec(), 0, 1, 0));
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    child.expect(b'r');
    for _ in 0..2 {
        child.signal(signal(9));
        child.expect(b'm');
    }
    // A stranger with values, of which one looks like a message's header: that is told once.
    let words = [0x1000_0001_0000_0000, 5, 0x2000_0028_5257_5331, 1, 2, 3, 4, 5, 6];
    Child::fork(|_| words.into_iter().for_each(|word| queue(&child, 9, word))).expect_success();
    child.expect(b'm');
    let mut sender = sender(&child, 9);
    sender.send(b"sound").unwrap();
    child.signal(signal(9));
    sender.send(b"sound, too").unwrap();
    drop(sender);
    child.expect_success();
}

#[test]
fn a_sender_that_breaks_the_format_counts_as_dead_until_it_says_hello() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        let mut receiver = receiver(10);
        assert_eq!(recv(&mut receiver).unwrap().0, b"one");
        tell.say(b'1');
        assert_eq!(recv(&mut receiver), Err(RecvError::Malformed));
        assert_eq!(recv(&mut receiver), Err(RecvError::PeerDied));
        tell.say(b'm');
        assert_eq!(recv(&mut receiver).unwrap(), (b"two".to_vec(), 0, 0, 1));
        assert_eq!(recv(&mut receiver), Err(RecvError::Closed));
    });
    let mut first = sender(&child, 10);
    first.send(b"one").unwrap();
    child.expect(b'1');
    // Longer than the receiver takes.
    queue(&child, 10, 0x1fff_ffff_0000_0000);
    child.expect(b'm');
    first.send(b"lost").unwrap();
    drop(first);
    let mut second = sender(&child, 10);
    second.send(b"two").unwrap();
    drop(second);
    child.expect_success();
}

#[test]
fn a_dropped_receiver_leaves_the_signal_blocked() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        let receiver = receiver(11);
        tell.say(b'r');
        tell.say(b'?');
        drop(receiver);
        tell.say(b'd');
        tell.sleep_until_killed();
    });
    child.expect(b'r');
    let mut sender = sender(&child, 11);
    child.expect(b'?');
    child.expect(b'd');
    sender.send(b"late").unwrap();
    drop(sender);
    assert!(runs(&child));
}

#[test]
fn an_unprepared_process_is_left_alone() {
    let _alone = alone();
    // One that doesn't block the signal.
    let mut idle = Child::fork(|tell| {
        tell.say(b'r');
        tell.sleep_until_killed();
    });
    idle.expect(b'r');
    let error = refusal(idle.pid(), 12);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("start the receiver first") && text.contains("would kill"), "{text}");
    assert!(text.contains(&format!("thread {} ", idle.pid())), "{text}");
    assert!(runs(&idle));

    // One with a thread that doesn't.
    let mut threaded = Child::fork(|tell| {
        let (send, start) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: gettid has no preconditions.
            send.send(unsafe { libc::gettid() }).unwrap();
            std::thread::park();
        });
        let id = start.recv().unwrap();
        block(signal(12));
        // The thread's number, to whoever is to name it.
        id.to_le_bytes().into_iter().for_each(|byte| tell.say(byte));
        thread.join().unwrap();
    });
    let thread = u32::from_le_bytes(std::array::from_fn(|_| threaded.hear()));
    let text = refusal(threaded.pid(), 12).to_string();
    assert!(text.contains(&format!("thread {thread} of process {}", threaded.pid())), "{text}");
    assert!(runs(&threaded));

    // One that ignores it.
    let mut ignoring = Child::fork(|tell| {
        block(signal(12));
        // SAFETY: this child's own disposition.
        unsafe { libc::signal(signal(12), libc::SIG_IGN) };
        tell.say(b'r');
        tell.sleep_until_killed();
    });
    ignoring.expect(b'r');
    let text = refusal(ignoring.pid(), 12).to_string();
    assert!(text.contains("ignores signal"), "{text}");

    // Another program.
    let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
    let refused = refusal(sleep.id(), 12);
    let still_runs = sleep.try_wait().unwrap().is_none();
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!((refused.kind(), still_runs), (ErrorKind::NotFound, true));
}

#[test]
fn a_process_that_is_no_longer_prepared_gets_nothing_more() {
    let _alone = alone();
    let mut child = Child::fork(|tell| {
        let mut receiver = receiver(13);
        recv(&mut receiver).unwrap();
        // SAFETY: a set that is made here, and this thread's mask.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        }
        tell.say(b'u');
        tell.sleep_until_killed();
    });
    let mut sender = sender(&child, 13);
    sender.send(b"prepared").unwrap();
    child.expect(b'u');
    // What it saw last counts for a tenth of a second, as documented; no event ends that.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(sender.try_send(b"unprepared"), Err(SendError::Closed));
    drop(sender);
    assert!(runs(&child));
}

#[test]
fn a_sender_waits_for_its_receiver() {
    let _alone = alone();
    let (mut go, gone) = std::io::pipe().unwrap();
    let mut child = Child::fork(|_| {
        go.read_exact(&mut [0]).unwrap();
        assert_eq!(recv(&mut receiver(14)).unwrap().0, b"patience");
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sender(&child, 14).send(b"patience"));
        (&gone).write_all(b"g").unwrap();
        waiting.join().unwrap().unwrap();
    });
    child.expect_success();
}

#[test]
fn a_receiver_must_be_sure_of_its_threads() {
    let _alone = alone();
    let mut child = Child::fork(|_| {
        let own = std::process::id();
        let open = || Options::new().receiver(&address(own, 15));
        let (send, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: gettid has no preconditions.
            send.send(unsafe { libc::gettid() }).unwrap();
            std::thread::park();
        });
        let id = started.recv().unwrap();
        block(signal(15));
        let error = open().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("threads {id} don't block it: block it in main")), "{error}");
        thread.thread().unpark();
        thread.join().unwrap();
        // Another one inherits what this one blocks.
        let thread = std::thread::spawn(std::thread::park);
        drop(open().unwrap());
        thread.thread().unpark();
        thread.join().unwrap();

        extern "C" fn handle(_: libc::c_int) {}
        for (handler, word) in [(libc::SIG_IGN, "ignores"), (handle as *const () as usize, "handler")] {
            // SAFETY: this child's own disposition; the handler does nothing.
            unsafe { libc::signal(signal(15), handler) };
            let error = open().err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    });
    child.expect_success();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let _alone = alone();
    let kind = |options: Options, address: &str| options.receiver(&address.parse().unwrap()).err().unwrap().kind();
    assert_eq!(kind(Options::new(), "signal://1"), ErrorKind::InvalidInput);
    assert_eq!(kind(Options::new().framing(ringway::Framing::Frames), "signal://self"), ErrorKind::InvalidInput);
    assert_eq!(kind(Options::new().max_message(1 << 28), "signal://self"), ErrorKind::InvalidInput);
    // Above any pid_max.
    assert_eq!(refusal(1 << 30, 0).kind(), ErrorKind::NotFound);
    Child::fork(|_| {
        set_limit(0);
        let error = Options::new().receiver(&"signal://self".parse().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().contains("RLIMIT_SIGPENDING is 0"), "{error}");
    })
    .expect_success();
}
