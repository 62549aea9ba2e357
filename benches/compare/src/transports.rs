//! What the kernel carries: ringway beside raw, blocking system calls of the same mechanism, one for each message and side.

use std::{fmt, fmt::Write, io, sync::Arc};

use comfy_table::{Cell, CellAlignment, Color};
use ringway::Options;
use ringway_harness::{
    Between, Carrier, Link, Mechanism, Pair, Plan, Row, Windowed,
    block::{self, Stream},
    rounds::usual_canary,
    stats::Summary,
    with_size,
    yardstick::{
        Log, PosixQueue, Signals, SysVQueue, Waiting, pipe, tcp, terminal, udp, unix, unix_datagram, unix_seqpacket,
    },
};
use serde_json::json;

use crate::{
    measure,
    report::{range, table},
};

/// Bytes per message.
const SIZES: [usize; 2] = [64, 1 << 10];
/// Messages in a batch.
const BATCH: usize = 32;
/// How much slower than raw ringway may be, one by one.
const RATIO: f64 = 1.1;

/// One row.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    mechanism: Mechanism,
    way: Way,
    size: usize,
}

/// Who carries, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Raw,
    OneByOne,
    Batches,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {} B", self.mechanism.name(), self.way, self.size)
    }
}

/// How much faster than raw one by one ringway's batches are to be; none where the kernel takes no more than one message at a
/// time.
fn factor(mechanism: Mechanism) -> Option<f64> {
    use Mechanism::{Fifo, Pipe, Tcp, Udp, Unix, UnixDatagram, UnixSeqPacket};
    match mechanism {
        Pipe | Fifo | Unix | Tcp => Some(4.0),
        UnixDatagram | UnixSeqPacket | Udp => Some(2.0),
        _ => None,
    }
}

/// Measures, and says how it went.
pub fn run(pair: &Pair, plan: Plan, only: Option<&str>, as_json: bool) -> io::Result<String> {
    // The others carry messages in shared memory, for which there are no system calls to compare with.
    let wanted = |mechanism: &Mechanism| {
        !matches!(mechanism, Mechanism::Memfd | Mechanism::Auto)
            && only.is_none_or(|only| mechanism.name().split('-').chain([mechanism.name()]).any(|name| name == only))
    };
    let mechanisms: Vec<_> = Mechanism::ALL.into_iter().filter(wanted).collect();
    let mut rows = Vec::new();
    for &mechanism in &mechanisms {
        for size in SIZES {
            for way in [Way::Raw, Way::OneByOne, Way::Batches] {
                rows.push(with_size!(size, N => row::<N>(Key { mechanism, way, size }))?);
            }
        }
    }
    if rows.is_empty() {
        return Err(io::Error::other("no mechanism has that name"));
    }
    let measured = measure(pair, plan, &mut rows)?;
    let find = |key: Key| measured.iter().find(|(other, _)| *other == key).and_then(|(_, summary)| *summary);
    let results = mechanisms.into_iter().flat_map(|mechanism| {
        SIZES.map(|size| {
            let [raw, one_by_one, batches] =
                [Way::Raw, Way::OneByOne, Way::Batches].map(|way| find(Key { mechanism, way, size }));
            Outcome { mechanism, size, raw, one_by_one, batches }
        })
    });
    if as_json {
        return Ok(results.map(|result| format!("{}\n", result.json(pair.cpus.allowed))).collect());
    }
    let mut table = table(["", "size", "raw ns", "ringway ns", "ratio", "batches ns", "factor", "aim"]);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    results.for_each(|result| {
        table.add_row(result.cells());
    });
    let mut text = format!("{table}\n");
    let _ = write!(
        text,
        "ns a message: median (least to greatest), on {} CPUs, between two processes; ratio: ringway to raw, one by one, at most \
         {RATIO};\nfactor: raw one by one to ringway's batches of {BATCH}, at least the aim",
        pair.cpus.allowed
    );
    let _ = match usual_canary(&rows) {
        Some(ns) => writeln!(text, "; the median of all canaries was {ns:.0} ns"),
        None => writeln!(text),
    };
    Ok(text)
}

/// One line.
struct Outcome {
    mechanism: Mechanism,
    size: usize,
    raw: Option<Summary>,
    one_by_one: Option<Summary>,
    batches: Option<Summary>,
}

impl Outcome {
    fn ratio(&self) -> Option<f64> {
        Some(self.one_by_one?.median / self.raw?.median)
    }

    fn factor(&self) -> Option<f64> {
        Some(self.raw?.median / self.batches?.median)
    }

    fn cells(&self) -> Vec<Cell> {
        let summary = |summary: &Option<Summary>| Cell::new(summary.as_ref().map_or("unmeasured".to_owned(), range));
        let judged = |value: Option<f64>, is_reached: Option<bool>| {
            let cell = Cell::new(value.map(|value| format!("{value:.2}")).unwrap_or_default());
            match is_reached {
                Some(true) => cell.fg(Color::Green),
                Some(false) => cell.fg(Color::Yellow),
                None => cell,
            }
        };
        let (ratio, is_faster, aim) = (self.ratio(), self.factor(), factor(self.mechanism));
        vec![
            Cell::new(self.mechanism.name()),
            Cell::new(self.size),
            summary(&self.raw),
            summary(&self.one_by_one),
            judged(ratio, ratio.map(|ratio| ratio <= RATIO)),
            summary(&self.batches),
            judged(is_faster, is_faster.zip(aim).map(|(factor, aim)| factor >= aim)),
            Cell::new(aim.map(|aim| format!(">= {aim}")).unwrap_or_default()),
        ]
    }

    fn json(&self, cpus: usize) -> serde_json::Value {
        let summary = |summary: &Option<Summary>| {
            summary.as_ref().map(|s| json!({ "median": s.median, "min": s.min, "max": s.max, "rounds": s.rounds }))
        };
        json!({
            "mechanism": self.mechanism.name(),
            "size": self.size,
            "raw_ns": summary(&self.raw),
            "ringway_ns": summary(&self.one_by_one),
            "ratio": self.ratio(),
            "ratio_target": RATIO,
            "batches_ns": summary(&self.batches),
            "factor": self.factor(),
            "factor_target": factor(self.mechanism),
            "cpus": cpus,
        })
    }
}

fn row<const N: usize>(key: Key) -> io::Result<Row<Key>> {
    let batch = if key.way == Way::Batches { BATCH } else { 1 };
    if key.way != Way::Raw {
        let carrier = Arc::new(Carrier::new(key.mechanism, &Options::new())?);
        return Ok(match key.mechanism {
            Mechanism::Udp => linked::<N, _>(key, batch, move || Windowed::new(carrier.link()?)),
            _ => linked::<N, _>(key, batch, move || carrier.link()),
        });
    }
    let waiting = Waiting::Sleep;
    Ok(match key.mechanism {
        // A FIFO is a pipe once it is open.
        Mechanism::Pipe | Mechanism::Fifo => linked::<N, _>(key, batch, move || pipe(waiting)),
        Mechanism::Unix => linked::<N, _>(key, batch, move || unix(waiting)),
        Mechanism::UnixDatagram => linked::<N, _>(key, batch, unix_datagram),
        Mechanism::UnixSeqPacket => linked::<N, _>(key, batch, unix_seqpacket),
        Mechanism::Tcp => linked::<N, _>(key, batch, move || tcp(waiting)),
        Mechanism::Udp => linked::<N, _>(key, batch, udp),
        Mechanism::PosixQueue => linked::<N, _>(key, batch, PosixQueue::new),
        Mechanism::SysVQueue => {
            let queue = SysVQueue::new()?;
            linked::<N, _>(key, batch, move || Ok(queue.clone()))
        }
        Mechanism::Terminal => linked::<N, _>(key, batch, move || terminal(waiting)),
        Mechanism::Signal => linked::<N, _>(key, batch, || Signals::new(1)),
        Mechanism::Log => linked::<N, _>(key, batch, Log::new),
        Mechanism::Memfd | Mechanism::Auto => unreachable!("{key}: not one of these rows"),
    })
}

fn linked<const N: usize, L: Link<N>>(
    key: Key,
    batch: usize,
    link: impl Fn() -> io::Result<L> + Clone + Send + 'static,
) -> Row<Key> {
    Row::new(key, move |pair, count| {
        let stream = Stream { warm_up: count / 5, count, batch };
        block::stream::<N, L>(pair, Between::Processes, link.clone(), stream)
    })
}
