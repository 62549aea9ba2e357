//! One program over every mechanism, switched by its address.
//!
//! ```sh
//! cargo run --example any -- recv 'fifo:///tmp/orders' &
//! cargo run --example any -- send 'fifo:///tmp/orders'
//! ```
//! In place of `fifo:///tmp/orders` put `shm:///orders`, `shm:///orders?ring=mpmc`, `auto:///orders`, `unix:///tmp/orders.sock`, `unix:@orders?type=seqpacket`,
//! `tcp://127.0.0.1:7000`, `udp://[::1]:7000`, `mq:///orders`, `sysvmq:?key=0x51`, `pty:///tmp/orders.tty`, `memfd:///tmp/orders.sock`, `log:///tmp/orders.log` …

use ringway::{Address, Options, RecvError};
use std::{env, error::Error, process::ExitCode};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [role, address] = &arguments[..] else {
        eprintln!("usage: any send|recv ADDRESS");
        return Ok(ExitCode::from(2));
    };
    let address: Address = address.parse()?;
    let can = address.capabilities();
    eprintln!("{address}: reliable {}, longest message {} bytes", can.reliable, can.max_message);
    match role.as_str() {
        "send" => send(&address)?,
        _ => receive(&address)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn send(address: &Address) -> Result<(), Box<dyn Error>> {
    let mut sender = Options::new().sender(address)?;
    for number in 0..10_u32 {
        // The tag travels beside the payload.
        sender.send((format!("order {number}").as_bytes(), number))?;
    }
    Ok(())
}

fn receive(address: &Address) -> Result<(), Box<dyn Error>> {
    let mut receiver = Options::new().receiver(address)?;
    loop {
        match receiver.recv() {
            Ok(order) => {
                // Only where messages can get lost is there ever a gap.
                if order.gap() > 0 {
                    println!("{} orders are missing", order.gap());
                }
                println!("{} with tag {}", String::from_utf8_lossy(&order), order.tag());
            }
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
