//! `ringway send`: standard input into a ring, or whatever carries messages.

use std::time::{Duration, Instant};

use ringway::{
    Address, Error, ErrorKind, Options, PeerState, SendError, Sender,
    transport::Target,
    units::{ByteSize, format_duration, parse_duration},
};

use crate::{
    failure::{Failure, warn},
    input::{Framing, Input},
    place, ring, signals,
    waiting::Waiting,
};

/// How long a receiver may take to come, where it has to be there first: as long as the library waits.
const CONNECT: Duration = Duration::from_secs(5);

/// Send standard input, each line a message
///
/// Creates rings, queues and logs unless the receiver came first; elsewhere the receiver comes first, and this waits for it as
/// long as connect= in the address says, or --timeout, or 5s. The end of the input closes it: the receiver gets what was sent,
/// then ends too. Where there can be several senders, as with ring=mpmc, only the last one to end closes it. Exit codes: 0 everything
/// is in the ring, or was handed over to the kernel, 1 input or sending failed or no receiver is left, 2 usage or it can't be
/// had, 3 the receiver died, 4 timeout or no receiver came, 5 poisoned, 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders?capacity=4MiB; `ringway transports` has all kinds
    #[arg(value_name = "ADDR", value_parser = place::address)]
    address: Address,
    /// Send raw pieces of this size instead of lines; the last may be shorter
    #[arg(long, value_name = "SIZE", value_parser = chunk)]
    chunk: Option<usize>,
    /// Mark each message with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    tag: u32,
    /// Give up when there was no room, or no receiver, for this long, such as 250ms; 0s gives up at once
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
    let mut sender = open(args)?;
    if let Some(chosen) = sender.chosen() {
        warn(format_args!("{} is {chosen}", args.address.target()));
    }
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
            Err(SendError::Full) => patiently(args, |slice| sender.send_timeout((piece, args.tag), slice).map(drop))?,
            outcome => outcome.map(drop),
        }
        .map_err(|error| explain(error, args, sent))?;
        // Of a long message the end may still be here.
        patiently(args, |slice| sender.flush(slice))?.map_err(|error| explain(error, args, sent))?;
        sent += 1;
    }
    match patiently(args, |slice| sender.finish(slice))? {
        Err(error @ SendError::Timeout) => Err(explain(error, args, sent)),
        // Everything was handed over: that the receiver is gone by now is none of our business.
        _ => Ok(()),
    }
}

/// Becomes a sender; waits for a receiver where one has to be there.
fn open(args: &Args) -> Result<Sender, Failure> {
    let open = |address: &Address, options: Options| options.sender(address);
    let connects = matches!(
        args.address.target(),
        Target::Memfd(_)
            | Target::Auto(_)
            | Target::Fifo(_)
            | Target::Terminal(_)
            | Target::Unix { .. }
            | Target::Tcp(_)
    );
    if !connects {
        return open(&args.address, Options::new()).map_err(|error| refused(error, args));
    }
    // The library's wait goes on when a signal comes: hence the slices, for which it is not to be told how long in all.
    let (address, said) = without_patience(&args.address);
    let patience = args.timeout.or(said).unwrap_or(CONNECT);
    let waiting = Waiting::new(Some(patience));
    loop {
        let (slice, begin) = (waiting.slice(), Instant::now());
        let error = match open(&address, Options::new().connect(slice)) {
            Ok(sender) => return Ok(sender),
            Err(error) => error,
        };
        let is_nobody_there = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Os) && begin.elapsed() >= slice;
        if !is_nobody_there {
            return Err(refused(error, args));
        }
        if waiting.is_over()? {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return Err(Failure::Timeout(format!(
                "could not connect to {}{cause}; no receiver was there within {}: start one, or wait longer with connect= or --timeout",
                args.address.target(),
                format_duration(patience)
            )));
        }
    }
}

/// The address without what it says about connecting, and that.
fn without_patience(address: &Address) -> (Address, Option<Duration>) {
    let Some(said) = address.connect() else { return (address.clone(), None) };
    let text = address.to_string();
    let (place, options) = text.split_once('?').unwrap_or((&text, ""));
    let others: Vec<&str> = options.split('&').filter(|option| !option.starts_with("connect=")).collect();
    let separator = if others.is_empty() { "" } else { "?" };
    let shorter = format!("{place}{separator}{}", others.join("&"));
    (shorter.parse().expect("an address without one of its options is an address"), Some(said))
}

/// Why there is no place for this sender.
fn refused(error: Error, args: &Args) -> Failure {
    let is_crowded = || {
        let report = ring::look(&args.address)?;
        let here = |state| matches!(state, PeerState::Alive { .. } | PeerState::Quarantined { .. });
        let senders = report.producers.iter().filter(|peer| here(peer.state)).count();
        Some(senders >= report.lanes?.most_producers as usize)
    };
    match error.kind() {
        // The kernel's lack of something else has the same kind.
        ErrorKind::NoSpace if is_crowded() == Some(true) => {
            Failure::Usage(format!("{error}; `producers=` says how many a new ring has room for"))
        }
        _ => place::refused(error, &args.address),
    }
}

/// Repeats what waits for room in slices, until it is done or `--timeout` has passed.
fn patiently(
    args: &Args,
    mut attempt: impl FnMut(Duration) -> Result<(), SendError>,
) -> Result<Result<(), SendError>, Failure> {
    let waiting = Waiting::new(args.timeout);
    loop {
        match attempt(waiting.slice()) {
            Err(SendError::Timeout) if !waiting.is_over()? => {}
            outcome => return Ok(outcome),
        }
    }
}

fn explain(error: SendError, args: &Args, sent: u64) -> Failure {
    let place = args.address.target();
    let rest = || rest(args, sent);
    let piece = if args.chunk.is_some() { "piece" } else { "line" };
    let is_of_many = || place::has_many_receivers(&args.address);
    match error {
        SendError::TooLarge { max } => Failure::Io(format!(
            "{piece} {} is too long: the longest message of {place} has {}; {}",
            sent + 1,
            ByteSize(max as u64),
            longer(&args.address)
        )),
        SendError::Unfit => Failure::Io(format!(
            "{piece} {} can't be sent to {place} as it is: without frames a message can't be empty where that means the end, have a \
             newline where that ends it, or a tag that the transport doesn't have",
            sent + 1
        )),
        SendError::Closed if is_of_many() => Failure::Io(format!("no receiver is left, {}", rest())),
        SendError::Closed => Failure::Io(format!("the receiver left, {}", rest())),
        SendError::PeerDied if is_of_many() => {
            Failure::PeerDied(format!("no receiver is left, and one of them died, {}", rest()))
        }
        SendError::PeerDied => Failure::PeerDied(format!("the receiver died, {}", rest())),
        SendError::Timeout => Failure::Timeout(format!(
            "there was no room for {}, {}",
            args.timeout.map(format_duration).unwrap_or_default(),
            rest()
        )),
        SendError::Poisoned => Failure::Poisoned(format!("{place}: {error}")),
        SendError::Os { .. } => Failure::Io(format!("could not send to {place}: {error}; {}", rest())),
        SendError::Full | SendError::Fenced | _ => Failure::Io(format!("{place}: {error}")),
    }
}

/// How longer messages could be sent there.
fn longer(address: &Address) -> &'static str {
    match (ring::name(address), address.framing()) {
        (Some(_), _) => "`max_message=` allows longer ones in a new ring",
        (None, Some(ringway::Framing::None)) => "framing=frames splits them, if both ends are ringway",
        (None, _) => "`max_message=` allows longer ones, said at both ends",
    }
}

/// What became of the messages, when not all could be sent.
fn rest(args: &Args, sent: u64) -> String {
    if ring::name(&args.address).is_none() {
        return format!(
            "{sent} messages were sent, of which not all need have arrived; the rest of the input was not sent"
        );
    }
    // Somebody may have removed the ring; then nobody will get what it holds.
    let report = ring::look(&args.address);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_taken_out_of_addresses() {
        for (given, left, said) in [
            ("tcp://[::1]:7000?connect=2s", "tcp://[::1]:7000", Some(2)),
            ("unix:@x?type=dgram&framing=none&connect=1s", "unix:@x?type=dgram&framing=none", Some(1)),
            ("fifo:///run/x?perm=0600", "fifo:///run/x?perm=0600", None),
        ] {
            let (address, patience) = without_patience(&given.parse().unwrap());
            assert_eq!((address.to_string().as_str(), patience), (left, said.map(Duration::from_secs)));
        }
    }
}
