//! Two rings, a socket and a timer, waited for in one thread, which sleeps while there is nothing to do.
//!
//! ```sh
//! cargo run --example wait_set
//! ```
//! The other ends are threads here, and could be anywhere that the addresses reach.

use ringway::{Address, Events, Interest, Options, RecvError, WaitSet};
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

// The first tokens are the rings' places in their list.
const SOCKET: usize = 100;
const TICK: usize = 101;

fn main() -> Result<(), Box<dyn Error>> {
    let pid = std::process::id();
    let addresses: Vec<Address> = ["orders", "news"]
        .iter()
        .map(|name| format!("shm:///{name}-{pid}?capacity=64KiB").parse())
        .collect::<Result<_, _>>()?;
    let mut rings = addresses.iter().map(|address| Options::new().receiver(address)).collect::<Result<Vec<_>, _>>()?;
    let (mut socket, mut far_end) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;

    let set = WaitSet::new()?;
    for (token, ring) in rings.iter_mut().enumerate() {
        set.add(token, ring)?;
    }
    set.add_descriptor(SOCKET, &socket, Interest::READABLE)?;
    set.add_timer(TICK, Instant::now() + Duration::from_millis(10), Some(Duration::from_millis(10)))?;

    let peers = thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
        for address in &addresses {
            let mut sender = Options::new().sender(address)?;
            for number in 0..3_u32 {
                sender.send((format!("message {number} of {address}").as_bytes(), number))?;
                thread::sleep(Duration::from_millis(5));
            }
        }
        far_end.write_all(b"good bye")?;
        Ok(())
    });

    let mut events = Events::with_capacity(16);
    let (mut open, mut ticks) = (rings.len() + 1, 0);
    while open > 0 || ticks == 0 {
        set.wait(&mut events)?;
        for event in &events {
            match event.token() {
                TICK => ticks += 1,
                SOCKET => {
                    let mut said = [0; 64];
                    match socket.read(&mut said) {
                        Ok(0) => {
                            set.remove(SOCKET);
                            open -= 1;
                        }
                        Ok(length) => println!("the socket says {}", String::from_utf8_lossy(&said[..length])),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                token => {
                    let ring = &mut rings[token];
                    while let Some(change) = ring.peer_event() {
                        println!("ring {token}: a peer has {}", format!("{change:?}").to_lowercase());
                    }
                    // To the end of what is there: only then is the ring not told again.
                    let end = loop {
                        match ring.try_recv() {
                            Ok(message) => println!("{}", String::from_utf8_lossy(&message)),
                            Err(end) => break end,
                        }
                    };
                    match end {
                        RecvError::Empty => {}
                        RecvError::Closed => {
                            set.remove(token);
                            open -= 1;
                        }
                        error => return Err(error.into()),
                    }
                }
            }
        }
    }
    peers.join().expect("it doesn't panic").map_err(|error| error.to_string())?;
    println!("all are gone");
    Ok(())
}
