//! `ringway rm`: away with a ring, a queue, a FIFO, or what else has a name.

use ringway::{
    Address, ErrorKind,
    segment::{self, Name},
    transport,
};

use crate::{
    failure::{Failure, warn},
    place,
    ring::{self, Segment},
};

/// Remove a ring, a queue, a FIFO or a log, and the messages in it
///
/// Also what a receiver that was killed left of a socket or pseudo-terminal. Refuses what is something else than the address
/// says, and what a living process uses: that would go on without being found by anybody else. What leaves nothing behind (pipes,
/// TCP, UDP, signals, abstract names) can't be removed.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders
    #[arg(value_name = "ADDR", value_parser = place::address)]
    address: Address,
    /// Even if somebody uses it, or, of a ring, it was made by a newer version
    #[arg(long)]
    force: bool,
}

/// Removes it.
pub fn run(args: &Args) -> Result<(), Failure> {
    match ring::name(&args.address) {
        Some(name) => remove_ring(name, args),
        None => transport::remove(&args.address, args.force).map_err(|error| match error.kind() {
            ErrorKind::RoleTaken { .. } => Failure::Usage(format!("{error}; end that first, or use --force")),
            _ => error.into(),
        }),
    }
}

fn remove_ring(name: &Name, args: &Args) -> Result<(), Failure> {
    let place = args.address.target();
    let attached = match ringway::inspect(name) {
        Ok(report) => attached(&Segment::sound(name, &report)),
        Err(error) => match error.kind() {
            ErrorKind::Damaged => String::new(),
            ErrorKind::NewerVersion if args.force => String::new(),
            // Of a System V ring, the semaphores may be left.
            ErrorKind::NotFound => String::new(),
            _ => return Err(error.into()),
        },
    };
    if !attached.is_empty() && !args.force {
        return Err(Failure::Usage(format!("did not remove {place}: {attached}; end that first, or use --force")));
    }
    segment::remove(name)?;
    if !attached.is_empty() {
        warn(format_args!("removed {place}, though {attached}"));
    }
    Ok(())
}

/// Who is attached and alive, in words.
fn attached(segment: &Segment) -> String {
    let Some(form) = segment.ring.as_ref().and_then(|ring| ring.form.as_ref()) else { return String::new() };
    let words = form.peers().into_iter().filter_map(|(role, peers)| {
        let living: Vec<String> = peers.iter().filter_map(|peer| Some(peer.living()?.to_string())).collect();
        match &living[..] {
            [] => None,
            [pid] => Some(format!("process {pid} is attached as its {role}")),
            pids => Some(format!("processes {} are attached as its {role}s", pids.join(", "))),
        }
    });
    words.collect::<Vec<_>>().join(" and ")
}
