//! Lines from standard input go out by one ring, answers come by another, in one thread with an epoll instance of its own.
//!
//! ```sh
//! seq 1000 | cargo run --example epoll
//! ```
//! Standard input may be a terminal or a pipe; files can't be waited for. The other end is a thread here, and could be any process.

use ringway::{Address, Options, RecvError, SendError, Sender};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::thread;

const INPUT: u64 = 0;
const ANSWERS: u64 = 1;
const ROOM: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let ring = |name| format!("shm:///{name}-{}?capacity=4KiB", std::process::id()).parse::<Address>();
    let (requests, answers) = (ring("requests")?, ring("answers")?);
    let mut receiver = Options::new().receiver(&answers)?;
    let mut sender = Some(Options::new().sender(&requests)?);
    let peer = thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut requests = Options::new().receiver(&requests)?;
        let mut answers = Options::new().sender(&answers)?;
        for request in requests.messages() {
            let answer = format!("{} has been seen", String::from_utf8_lossy(&request?));
            answers.send(answer.as_bytes())?;
        }
        Ok(())
    });

    let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // They keep their descriptors open, so they stay as long as epoll knows them.
    let (answered, room) = (receiver.pollable()?, sender.as_mut().expect("it is there").pollable()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let add_input = || epoll::add(&epoll, std::io::stdin(), EventData::new_u64(INPUT), EventFlags::IN);
    add_input()?;
    // Level-triggered: told until it has been drained.
    epoll::add(&epoll, &answered, EventData::new_u64(ANSWERS), EventFlags::IN)?;
    // Edge-triggered: most of the time there is room, and nobody wants to hear of it.
    epoll::add(&epoll, &room, EventData::new_u64(ROOM), EventFlags::IN | EventFlags::ET)?;

    let mut events = Vec::with_capacity(8);
    let (mut unsent, mut has_ended, mut is_held_up) = (Vec::new(), false, false);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                INPUT => {
                    let mut bytes = [0; 16 << 10];
                    let length = input.read(&mut bytes)?;
                    unsent.extend_from_slice(&bytes[..length]);
                    has_ended = length == 0;
                    if has_ended {
                        epoll::delete(&epoll, std::io::stdin())?;
                        if unsent.last().is_some_and(|&last| last != b'\n') {
                            unsent.push(b'\n');
                        }
                    }
                }
                ANSWERS => loop {
                    match receiver.try_recv() {
                        Ok(answer) => println!("{}", String::from_utf8_lossy(&answer)),
                        // Only now does it sleep: before it said so it has announced itself, and looked once more.
                        Err(RecvError::Empty) => break,
                        Err(RecvError::Closed) => {
                            peer.join().expect("it doesn't panic").map_err(|error| error.to_string())?;
                            return Ok(());
                        }
                        Err(error) => return Err(error.into()),
                    }
                },
                // There may be room again, which is tried below.
                _ => {}
            }
        }
        let Some(open) = &mut sender else { continue };
        let was_held_up = is_held_up;
        is_held_up = !send_lines(open, &mut unsent)?;
        // Who can't send reads no more, so that whoever writes there feels it.
        match (was_held_up, is_held_up) {
            _ if has_ended => {}
            (false, true) => epoll::delete(&epoll, std::io::stdin())?,
            (true, false) => add_input()?,
            _ => {}
        }
        if has_ended && !is_held_up {
            sender = None;
        }
    }
}

/// Sends all whole lines; says whether there was room for them.
fn send_lines(sender: &mut Sender, unsent: &mut Vec<u8>) -> Result<bool, SendError> {
    while let Some(length) = unsent.iter().position(|&byte| byte == b'\n') {
        match sender.try_send(&unsent[..length]) {
            Ok(_) => drop(unsent.drain(..=length)),
            // From here on its descriptor is unreadable, until there is room.
            Err(SendError::Full) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
