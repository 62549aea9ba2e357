//! `ringway send`: standard input into a ring.

use std::time::Duration;

use ringway::{
    Address, Error, ErrorKind, Options, PeerState, SendError, Sender,
    units::{ByteSize, format_duration, parse_duration},
};

use crate::{
    failure::Failure,
    input::{Framing, Input},
    ring, signals,
    waiting::Waiting,
};

/// Send standard input, each line a message
///
/// Creates the ring unless the receiver came first. The end of the input closes it: the receiver gets what was sent, then
/// ends too. With ring=mpmc there can be several of both, and only the last sender to end closes it. Exit codes:
/// 0 everything is in the ring, 1 input failed or no receiver is left, 2 usage or no such ring, 3 the receiver died,
/// 4 timeout, 5 poisoned, 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders?capacity=4MiB
    #[arg(value_name = "ADDR", value_parser = ring::address)]
    address: Address,
    /// Send raw pieces of this size instead of lines; the last may be shorter
    #[arg(long, value_name = "SIZE", value_parser = chunk)]
    chunk: Option<usize>,
    /// Mark each message with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    tag: u32,
    /// Give up when there was no room for this long, such as 250ms; 0s gives up at once
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

fn chunk(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse().map_err(|error: ringway::units::ParseUnitError| error.to_string())?;
    if bytes == 0 { Err("a piece has at least one byte".to_owned()) } else { Ok(bytes as usize) }
}

/// Sends until the input ends.
pub fn run(args: &Args) -> Result<(), Failure> {
    signals::catch()?;
    let mut sender = Options::new().sender(&args.address).map_err(|error| refused(error, args))?;
    let max = sender.max_message();
    if let Some(chunk) = args.chunk.filter(|&chunk| chunk > max) {
        return Err(Failure::Usage(format!(
            "pieces of {} are too large: the longest message of {} has {}",
            ByteSize(chunk as u64),
            args.address.target(),
            ByteSize(max as u64)
        )));
    }
    let read = |error| Failure::of_io("read standard input", &error);
    let mut input = Input::stdin(args.chunk.map_or(Framing::Lines, Framing::Chunks), max).map_err(read)?;
    let mut sent = 0_u64;
    while let Some(piece) = input.next().map_err(read)? {
        match sender.try_send((piece, args.tag)) {
            Err(SendError::Full) => wait_for_room(&mut sender, piece, args)?,
            outcome => outcome.map(drop),
        }
        .map_err(|error| explain(error, args, sent))?;
        sent += 1;
    }
    Ok(())
}

/// Why there is no place for this sender.
fn refused(error: Error, args: &Args) -> Failure {
    let is_crowded = || {
        let report = ring::look(&args.address).ok()?;
        let here = |state| matches!(state, PeerState::Alive { .. } | PeerState::Quarantined { .. });
        let senders = report.producers.iter().filter(|peer| here(peer.state)).count();
        Some(senders >= report.lanes?.most_producers as usize)
    };
    match error.kind() {
        // The kernel's lack of something else has the same kind.
        ErrorKind::NoSpace if is_crowded() == Some(true) => {
            Failure::Usage(format!("{error}; `producers=` says how many a new ring has room for"))
        }
        _ => error.into(),
    }
}

#[cold]
fn wait_for_room(sender: &mut Sender, piece: &[u8], args: &Args) -> Result<Result<(), SendError>, Failure> {
    let waiting = Waiting::new(args.timeout);
    loop {
        match sender.send_timeout((piece, args.tag), waiting.slice()) {
            Err(SendError::Timeout) if !waiting.is_over()? => {}
            outcome => return Ok(outcome.map(drop)),
        }
    }
}

fn explain(error: SendError, args: &Args, sent: u64) -> Failure {
    let place = args.address.target();
    match error {
        SendError::TooLarge { max } => Failure::Io(format!(
            "line {} is too long: the longest message of {place} has {}; `max_message=` allows longer ones in a new ring",
            sent + 1,
            ByteSize(max as u64)
        )),
        SendError::Closed if ring::is_of_many(&args.address) => {
            Failure::Io(format!("no receiver is left, {}", undelivered(args)))
        }
        SendError::Closed => Failure::Io(format!("the receiver left, {}", undelivered(args))),
        SendError::PeerDied if ring::is_of_many(&args.address) => {
            Failure::PeerDied(format!("no receiver is left, and one of them died, {}", undelivered(args)))
        }
        SendError::PeerDied => Failure::PeerDied(format!("the receiver died, {}", undelivered(args))),
        SendError::Timeout => Failure::Timeout(format!(
            "there was no room for {}, {}",
            args.timeout.map(format_duration).unwrap_or_default(),
            undelivered(args)
        )),
        SendError::Poisoned => Failure::Poisoned(format!("{place}: {error}")),
        SendError::Full | SendError::Fenced | _ => Failure::Io(format!("{place}: {error}")),
    }
}

fn undelivered(args: &Args) -> String {
    // Somebody may have removed the ring; then nobody will get what it holds.
    let report = ring::look(&args.address).ok();
    let kept = report.as_ref().map_or(0, |report| report.depth);
    let taken = report.and_then(|report| report.lanes).map_or(0, |lanes| lanes.leased + lanes.requeued);
    let taken =
        if taken > 0 { format!("; {taken} batches that receivers took are not given back") } else { String::new() };
    let place = args.address.target();
    format!(
        "{} messages undelivered: {kept} stay in {place} for the next receiver, 1 and the rest of the input was not sent{taken}",
        kept + 1
    )
}
