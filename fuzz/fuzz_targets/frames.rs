//! Any bytes, received from a stream, from a pipe and as single messages: messages no longer than allowed, errors, and an end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::{Address, Framing, Options, RecvError};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

const LONGEST: usize = 4096;
/// Nothing may be waited for: what was sent is there.
const NO_TIME: Duration = Duration::ZERO;

fn receive(end: OwnedFd, framing: Framing, most: usize) {
    let address: Address = format!("fd://{}", end.as_raw_fd()).parse().unwrap();
    let mut receiver = Options::new().framing(framing).max_message(LONGEST).receiver(&address).unwrap();
    drop(end);
    for _ in 0..=most {
        match receiver.recv_timeout(NO_TIME) {
            Ok(message) => assert!(message.len() <= LONGEST),
            Err(RecvError::Closed | RecvError::Timeout) => return,
            Err(RecvError::Malformed | RecvError::PeerDied) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("more than {most} messages and errors");
}

fuzz_target!(|input: (Vec<u8>, Vec<Vec<u8>>)| {
    let (stream, pieces) = input;
    let stream = &stream[..stream.len().min(60_000)];
    for framing in [Framing::Frames, Framing::Lines] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(stream).unwrap();
        drop(theirs);
        receive(ours.into(), framing, stream.len() + 3);

        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(stream).unwrap();
        drop(writer);
        receive(reader.into(), framing, stream.len() + 3);
    }
    // The kernel lets no more wait.
    let pieces = &pieces[..pieces.len().min(8)];
    let bytes: usize = pieces.iter().map(Vec::len).sum();
    for framing in [Framing::Frames, Framing::None] {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        pieces.iter().for_each(|piece| _ = theirs.send(&piece[..piece.len().min(60_000)]).unwrap());
        receive(ours.into(), framing, bytes + pieces.len() + 3);
    }
});
