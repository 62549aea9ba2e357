//! `ringway recv`: a ring onto standard output.

use std::{io, time::Duration};

use ringway::{
    Address, Options, RecvError,
    transport::Batch,
    units::{format_duration, parse_duration},
};

use crate::{failure::Failure, output::Output, ring, signals, waiting::Waiting};

/// Received at once, in bytes, before it is written and its room in the ring given back.
const BATCH: usize = 64 << 10;

/// Write what is sent to standard output, each message a line
///
/// Creates the ring unless the sender came first. Ends when the sender has ended and everything it sent is written. What
/// could not be written stays in the ring for the next receiver. With ring=mpmc there can be several of both: each message
/// goes to one receiver, and all end when the last sender has ended. Exit codes: 0 done, also when nobody reads the output
/// any longer, 1 output failed, 2 usage or no such ring, 3 a sender died, 4 timeout, 5 poisoned, 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders?capacity=4MiB
    #[arg(value_name = "ADDR", value_parser = ring::address)]
    address: Address,
    /// Write messages as they are, without adding newlines
    #[arg(long)]
    raw: bool,
    /// End after this many messages, and leave the others in the ring
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// Give up when no message came for this long, such as 250ms; 0s takes what is there
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Receives until no sender is left.
pub fn run(args: &Args) -> Result<(), Failure> {
    signals::catch()?;
    let mut receiver = Options::new().receiver(&args.address)?;
    let written = |error: &io::Error| Failure::of_io("write to standard output", error);
    let mut output = Output::stdout(!args.raw).map_err(|error| written(&error))?;
    let mut left = args.count;
    let mut waiting = Waiting::new(args.timeout);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut batch = match receiver.recv_batch_timeout(most, waiting.slice()) {
            Ok(batch) => batch,
            Err(RecvError::Timeout) if !waiting.is_over()? => continue,
            Err(RecvError::Closed) => return signals::check(),
            Err(error) => return Err(explain(error, args)),
        };
        match pass_on(&mut batch, &mut output) {
            Ok(count) => left -= count,
            Err(error) => {
                // Not given back: the next receiver gets them.
                std::mem::forget(batch);
                return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(written(&error)) };
            }
        }
        drop(batch);
        waiting = Waiting::new(args.timeout);
    }
    Ok(())
}

/// Writes what is there, up to a limit, and says how many messages it was.
fn pass_on(batch: &mut Batch<'_>, output: &mut Output) -> io::Result<u64> {
    let (mut count, mut bytes) = (0, 0);
    while bytes < BATCH
        && let Some((message, _)) = batch.next()
    {
        output.push(message)?;
        count += 1;
        bytes += message.len() + 1;
    }
    output.flush()?;
    Ok(count)
}

fn explain(error: RecvError, args: &Args) -> Failure {
    let place = args.address.target();
    match error {
        RecvError::PeerDied if ring::is_of_many(&args.address) => Failure::PeerDied(
            "no sender is left, and one of them died; everything they had sent was received".to_owned(),
        ),
        RecvError::PeerDied => Failure::PeerDied("the sender died; everything it had sent was received".to_owned()),
        RecvError::Timeout => Failure::Timeout(format!(
            "no message came for {} in {place}",
            args.timeout.map(format_duration).unwrap_or_default()
        )),
        RecvError::Poisoned => Failure::Poisoned(format!("{place}: {error}")),
        _ => Failure::Io(format!("{place}: {error}")),
    }
}
