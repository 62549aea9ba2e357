//! A service that answers requests, over a pair of channels: one for the requests of all clients, and one per client for the answers.
//!
//! ```sh
//! cargo run --example request_reply
//! ```
//! It forks no process and needs none: the clients are threads here, and could be anywhere that the addresses reach.

use ringway::{Address, Options, RecvError, Sender};
use std::{error::Error, process, thread};

const CLIENTS: u32 = 3;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    // Any scheme that several can send to will do.
    let requests: Address = format!("shm:///requests-{}?ring=mpmc", process::id()).parse()?;
    let mut service = Options::new().receiver(&requests)?;
    // All of them before any can leave: the service ends when those who have come so far are gone.
    let senders = (0..CLIENTS).map(|_| Options::new().sender(&requests)).collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..).zip(senders).map(|(number, sender)| scope.spawn(move || client(number, sender))).collect();
        serve(&mut service)?;
        clients.into_iter().try_for_each(|client| client.join().expect("a client doesn't panic"))
    })
}

/// Where a client expects its answers.
fn answers(client: u32) -> Result<Address, ringway::transport::ParseAddressError> {
    format!("shm:///answers-{}-{client}?capacity=64KiB", process::id()).parse()
}

/// Answers until every client has left.
fn serve(service: &mut ringway::Receiver) -> Outcome {
    let mut senders: Vec<Option<Sender>> = (0..CLIENTS).map(|_| None).collect();
    loop {
        match service.recv() {
            // The tag says who asks.
            Ok(request) => {
                let client = request.tag();
                let Some(sender) = senders.get_mut(client as usize) else { continue };
                let sender = match sender {
                    Some(sender) => sender,
                    None => sender.insert(Options::new().sender(&answers(client)?)?),
                };
                sender.send(String::from_utf8_lossy(&request).to_uppercase().as_bytes())?;
            }
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn client(number: u32, mut sender: Sender) -> Outcome {
    let mut replies = Options::new().receiver(&answers(number)?)?;
    for word in ["one", "two", "three"] {
        sender.send((format!("{word} of client {number}").as_bytes(), number))?;
        println!("{}", String::from_utf8_lossy(&replies.recv()?));
    }
    Ok(())
}
