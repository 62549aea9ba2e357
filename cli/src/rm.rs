//! `ringway rm`: away with a ring.

use ringway::{Address, ErrorKind, segment};

use crate::{
    failure::{Failure, warn},
    ring::{self, Segment},
};

/// Remove a ring, and the messages in it
///
/// Refuses what is no ring, and what a living process is attached to: that would go on using memory that nobody else can
/// find.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders
    #[arg(value_name = "ADDR", value_parser = ring::address)]
    address: Address,
    /// Even if somebody is attached, or it was made by a newer version
    #[arg(long)]
    force: bool,
}

/// Removes it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let name = ring::name_of(&args.address);
    let place = args.address.target();
    let attached = match ring::look(&args.address) {
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
