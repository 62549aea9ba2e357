//! `ringway recv`: a ring, or whatever carries messages, onto standard output.

use std::{io, process, time::Duration};

use ringway::{
    Address, Options, Receiver, RecvError,
    transport::{Batch, Target},
    units::{format_duration, parse_duration},
};

use crate::{
    failure::{Failure, warn},
    output::Output,
    place, ring, signals,
    waiting::Waiting,
};

/// Received at once, in bytes, before it is written and its room in the ring given back.
const BATCH: usize = 64 << 10;

/// Write what is sent to standard output, each message a line
///
/// Creates what it receives from unless the sender came first. Ends when the sender has ended and everything it sent is written.
/// What could not be written stays in a ring for the next receiver; from elsewhere it is gone. Where there can be several senders,
/// as with ring=mpmc, it ends when the last one has ended. Exit codes: 0 done, also when nobody reads the output any longer, 1
/// output or receiving failed, or something got lost or was malformed, 2 usage or it can't be had, 3 a sender died, 4 timeout,
/// 5 poisoned, 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders?capacity=4MiB; `ringway transports` has all kinds
    #[arg(value_name = "ADDR", value_parser = place::address)]
    address: Address,
    /// Write messages as they are, without adding newlines
    #[arg(long)]
    raw: bool,
    /// End after this many messages, and leave the others in the ring or queue
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// Receive only messages of this tag, and leave the others in the queue: where `ringway transports` says it selects by tag
    #[arg(long, value_name = "TAG")]
    select: Option<u32>,
    /// Give up when no message came for this long, such as 250ms; 0s takes what is there
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Receives until no sender is left.
pub fn run(args: &Args) -> Result<(), Failure> {
    signals::catch()?;
    let refuse = || Failure::Usage(format!("{} can't choose messages by tag: sysvmq can", args.address.target()));
    if args.select.is_some() && !args.address.capabilities().select_by_tag {
        return Err(refuse());
    }
    let mut receiver = Options::new().receiver(&args.address).map_err(|error| place::refused(error, &args.address))?;
    if args.select.is_some() && !receiver.select(args.select) {
        return Err(refuse());
    }
    announce(&receiver, &args.address);
    let mut missing = Missing { lost: 0, malformed: 0 };
    let mut choice = Choice { address: &args.address, is_told: !matches!(args.address.target(), Target::Auto(_)) };
    let outcome = pass(&mut receiver, args, &mut missing, &mut choice);
    choice.tell(&receiver);
    missing.lost = receiver.lost();
    // Dropped before anything is said about the end, which others may wait to read.
    drop(receiver);
    missing.report(outcome)
}

/// Says where it receives, if the address left that open.
fn announce(receiver: &Receiver, address: &Address) {
    let at = match address.target() {
        Target::Tcp(host) | Target::Udp(host) if host.port == 0 => {
            receiver.local_address().map(|socket| format!("{}://{socket}", address.target().scheme()))
        }
        Target::Signal { pid: None, number } => {
            Some(Target::Signal { pid: Some(process::id()), number: *number }.to_string())
        }
        _ => None,
    };
    if let Some(at) = at {
        warn(format_args!("receiving at {at}"));
    }
}

/// What `auto:` has settled on, which is known when a sender comes; told once.
struct Choice<'a> {
    address: &'a Address,
    is_told: bool,
}

impl Choice<'_> {
    fn tell(&mut self, receiver: &Receiver) {
        if !self.is_told
            && let Some(chosen) = receiver.chosen()
        {
            warn(format_args!("{} is {chosen}", self.address.target()));
            self.is_told = true;
        }
    }
}

fn pass(receiver: &mut Receiver, args: &Args, missing: &mut Missing, choice: &mut Choice<'_>) -> Result<(), Failure> {
    let written = |error: &io::Error| Failure::of_io("write to standard output", error);
    let mut output = Output::stdout(!args.raw).map_err(|error| written(&error))?;
    // Rings keep what was taken and not received; elsewhere more must not be taken than is wanted.
    let is_kept = ring::name(&args.address).is_some();
    let mut left = args.count;
    let mut waiting = Waiting::new(args.timeout);
    while left > 0 {
        choice.tell(receiver);
        let most = if left == u64::MAX || is_kept { usize::try_from(left).unwrap_or(usize::MAX) } else { 1 };
        let mut batch = match receiver.recv_batch_timeout(most, waiting.slice()) {
            Ok(batch) => batch,
            Err(RecvError::Timeout) if !waiting.is_over()? => continue,
            Err(RecvError::Closed) => return signals::check(),
            Err(RecvError::Malformed) => {
                missing.note_malformed(&args.address);
                signals::check()?;
                continue;
            }
            Err(error) => return Err(explain(error, args)),
        };
        match pass_on(&mut batch, &mut output) {
            Ok(count) if left < u64::MAX => left -= count,
            Ok(_) => {}
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

/// What was sent and not written.
struct Missing {
    /// Messages that got lost on their way.
    lost: u64,
    /// Pieces that were not framed as they should be.
    malformed: u64,
}

impl Missing {
    fn note_malformed(&mut self, address: &Address) {
        // Whoever sends garbage may send a lot of it.
        if self.malformed == 0 {
            warn(format_args!("{}: {}; further ones are only counted", address.target(), RecvError::Malformed));
        }
        self.malformed += 1;
    }

    /// Has the end tell of it: what is missing makes a good end a bad one.
    fn report(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let lost = (self.lost > 0).then(|| format!("{} messages lost", self.lost));
        let malformed = (self.malformed > 0).then(|| format!("{} malformed and dropped", self.malformed));
        let text = match (lost, malformed) {
            (None, None) => return outcome,
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) => format!("{one}, {other}"),
        };
        outcome.inspect_err(|_| warn(&text))?;
        Err(Failure::Io(text))
    }
}

fn explain(error: RecvError, args: &Args) -> Failure {
    let place = args.address.target();
    match error {
        RecvError::PeerDied if place::has_many_senders(&args.address) => Failure::PeerDied(
            "no sender is left, and one of them died; everything they had sent was received".to_owned(),
        ),
        RecvError::PeerDied => Failure::PeerDied("the sender died; everything it had sent was received".to_owned()),
        RecvError::Timeout => Failure::Timeout(format!(
            "no message came for {} {} {place}",
            args.timeout.map(format_duration).unwrap_or_default(),
            if ring::name(&args.address).is_some() { "in" } else { "at" }
        )),
        RecvError::Poisoned => Failure::Poisoned(format!("{place}: {error}")),
        RecvError::Os { .. } => Failure::Io(format!("could not receive at {place}: {error}")),
        _ => Failure::Io(format!("{place}: {error}")),
    }
}
