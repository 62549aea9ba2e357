//! Sends numbered messages to whoever receives at an address.
//!
//! Start it and `consumer` in two terminals, in any order; whoever comes first creates the ring:
//!
//! ```text
//! cargo run --release --example producer -- shm:///demo 1000000
//! cargo run --release --example consumer -- shm:///demo
//! ```

use std::env;
use std::error::Error;

use ringway::{Address, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address: Address = arguments.next().ok_or("usage: producer ADDRESS [COUNT]")?.parse()?;
    let count: u32 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;

    // If the consumer is killed, wait for the next one; without `keep_open` it would be an error.
    let mut sender = Options::new().keep_open(true).sender(&address)?;
    for number in 0..count {
        // Waits while the ring is full. The tag travels beside the payload.
        sender.send((&format!("message {number}"), number))?;
    }
    println!("sent {count} messages");
    // Dropping the sender closes the channel; what was sent stays until it is received.
    Ok(())
}
