//! A service on tokio: requests come by two rings and by a pipe, one task answers them all and ticks.
//!
//! ```sh
//! cargo run --example tokio --features tokio
//! ```

use ringway::tokio::{Receiver, Sender};
use ringway::{Address, Options, RecvError};
use std::error::Error;
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let ring = |name| format!("shm:///{name}-{}?capacity=64KiB", std::process::id()).parse::<Address>();
    let (orders, answers) = (ring("orders")?, ring("answers")?);
    // Opening may block, so it comes first; registering needs the runtime.
    let mut server_in = Receiver::new(Options::new().receiver(&orders)?)?;
    let mut client_out = Sender::new(Options::new().sender(&orders)?)?;
    let mut client_in = Receiver::new(Options::new().receiver(&answers)?)?;
    let mut server_out = Sender::new(Options::new().sender(&answers)?)?;
    let (urgent_out, urgent_in) = Options::new().pair(&"pipe:".parse::<Address>()?)?;
    let mut urgent_in = Receiver::new(urgent_in.receiver()?)?;
    let mut urgent_out = Sender::new(urgent_out.sender()?)?;

    let client = tokio::spawn(async move {
        for number in 0..3_u32 {
            client_out.send((format!("order {number}").as_bytes(), number)).await?;
            let answer = client_in.recv().await?;
            println!("{} to order {}", String::from_utf8_lossy(&answer), answer.tag());
        }
        urgent_out.send(b"stop").await?;
        // What is too long to go at once goes while this is awaited.
        urgent_out.flush().await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    });

    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        // Whatever loses the race has received nothing.
        tokio::select! {
            biased;
            message = urgent_in.recv() => {
                println!("told to {}", String::from_utf8_lossy(&message?));
                break;
            }
            order = server_in.recv() => match order {
                Ok(order) => {
                    // Built in place, if the answer's ring has room; the order is given back first.
                    let (tag, text) = (order.tag(), order.to_ascii_uppercase());
                    drop(order);
                    let mut grant = server_out.reserve(text.len()).await?;
                    grant.copy_from_slice(&text);
                    grant.set_tag(tag);
                    grant.commit(text.len())?;
                }
                Err(RecvError::Closed) => break,
                Err(error) => return Err(error.into()),
            },
            _ = ticks.tick() => {}
        }
    }
    client.await?
}
