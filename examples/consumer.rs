//! Receives what `producer` sends, until it has finished; see there for how to start both.
//!
//! Kill the producer with `kill -9` and this says so, after all that was sent; kill this, start it again, and it goes on
//! with the first message that it had not finished.

use std::env;
use std::error::Error;

use ringway::{Address, Options, RecvError};

fn main() -> Result<(), Box<dyn Error>> {
    let address: Address = env::args().nth(1).ok_or("usage: consumer ADDRESS")?.parse()?;
    let mut receiver = Options::new().receiver(&address)?;
    let (mut messages, mut bytes, mut again) = (0_u64, 0, 0_u64);
    let end = loop {
        match receiver.recv() {
            Ok(message) => {
                assert_eq!(*message, *format!("message {}", message.tag()).as_bytes());
                messages += 1;
                bytes += message.len();
                // A consumer that was killed may have finished it already.
                again += u64::from(message.is_redelivered());
                // Dropping the message counts it as received.
            }
            Err(end) => break end,
        }
    };
    println!("received {messages} messages of {bytes} bytes in all, {again} of them for the second time");
    // With everything received, the last one to leave removes the ring.
    if end == RecvError::Closed { Ok(()) } else { Err(end.into()) }
}
