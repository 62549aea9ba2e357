//! `ringway inspect`: all that can be seen of a ring without joining it.

use std::time::{Duration, SystemTime};

use ringway::{Address, units::ByteSize};

use crate::{
    failure::Failure,
    output::print,
    ring::{self, Form, Member, Peer, Segment},
};

/// Look at a ring without taking part in it
///
/// Shows geometry, positions, depth, and who is attached and alive. Changes nothing.
#[derive(clap::Args)]
pub struct Args {
    /// Where, such as shm:///orders
    #[arg(value_name = "ADDR", value_parser = ring::address)]
    address: Address,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Looks and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let name = ring::name_of(&args.address);
    let report = ringway::inspect(name)?;
    let segment = Segment::sound(name, &report);
    print(&if args.json { segment.json() } else { page(&segment, report.created) })
}

fn page(segment: &Segment, created: SystemTime) -> String {
    let mut text = format!("{}\n", segment.address);
    let mut line = |label: &str, value: String| text += &format!("  {label:<10}{value}\n");
    let kind = match segment.kind {
        "shm" => "POSIX shared memory",
        "sysv" => "System V shared memory",
        _ => "a mapped file",
    };
    let size = ByteSize(segment.size as u64);
    line("memory", format!("{size} of {kind}, mode {}, owner {}", segment.mode, segment.owner()));
    let Some(ring) = &segment.ring else { return text };
    line("created", ago(created));
    let stays = if ring.persist { "yes" } else { "no" };
    line("ring", format!("{}, capacity {}, wait={}, persist={stays}", ring.ring, ByteSize(ring.capacity), ring.wait));
    line("", format!("messages of up to {}", ByteSize(ring.max_message)));
    if let Some(Form::Many(many)) = &ring.form {
        line("", format!("up to {} producers, {} deliveries of a message", many.most_producers, many.max_deliveries));
    }
    line("depth", format!("{} messages, {} in them", ring.depth, ByteSize(ring.depth_bytes)));
    match &ring.form {
        Some(Form::Pair(pair)) => {
            let published = pair.published.map_or_else(|| "changing".to_owned(), |position| position.to_string());
            line("positions", format!("published {published}, taken {}, released {}", pair.taken, pair.released));
            line("producer", peer(&pair.producer));
            line("consumer", peer(&pair.consumer));
        }
        Some(Form::Many(many)) => {
            line("batches", format!("{} leased, {} requeued", many.leased, many.requeued));
            line("messages", format!("{} redelivered, {} dropped", many.redelivered, many.dropped));
            members("producers", &many.producers, &mut line);
            members("consumers", &many.consumers, &mut line);
        }
        None => {}
    }
    if let Some(problem) = segment.problem {
        line("problem", format!("{problem}: it holds what no correct peer writes; `ringway rm` removes it"));
    }
    text
}

fn members(role: &str, members: &[Member], line: &mut impl FnMut(&str, String)) {
    if members.is_empty() {
        line(role, "none yet".to_owned());
    }
    for (index, member) in members.iter().enumerate() {
        line(if index == 0 { role } else { "" }, format!("{:>2}  {}", member.number, peer(&member.peer)));
    }
}

fn peer(peer: &Peer) -> String {
    let pid = peer.pid.map(|pid| format!("process {pid}, ")).unwrap_or_default();
    let waiting = if peer.waiting && peer.state == "alive" { ", waiting" } else { "" };
    let state = match peer.state {
        "absent" => return "none yet".to_owned(),
        "quarantined" => "alive, but its proof of life was closed under it",
        state => state,
    };
    format!("{pid}{state}{waiting}; {} joined, {} died", peer.joined, peer.deaths)
}

fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
