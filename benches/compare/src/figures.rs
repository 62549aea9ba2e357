//! The figures that ringway is to reach, and whether it does.

use ringway_harness::stats::Summary;

use crate::rows::{Key, LARGE, Metric, SMALL, Who};

/// How a figure follows from two rows.
#[derive(Clone, Copy)]
pub enum Measure {
    /// ringway by the fastest of these.
    Ratio(&'static [Who]),
    /// ringway minus this, in ns.
    Difference(Who),
    /// What a million take, in seconds.
    Seconds,
}

/// One figure.
pub struct Figure {
    /// What it is about.
    pub name: &'static str,
    /// ringway's row.
    pub ours: Key,
    /// What its value is.
    pub measure: Measure,
    /// The most that the value may be.
    pub target: f64,
}

/// The value of a figure, and the rows it came from; nothing where one of them has too few near rounds.
pub struct Value {
    /// To be compared with the target.
    pub value: f64,
    /// ringway's row.
    pub ours: Summary,
    /// What it is compared with.
    pub theirs: Option<(Who, Summary)>,
}

const RTRB: &[Who] = &[Who::RtrbInPlace, Who::RtrbValue];

/// All of them.
pub const ALL: [Figure; 9] = {
    use Measure::{Difference, Ratio, Seconds};
    use Metric::{Million, OneWay, RoundTrip};
    use Who::{BareFutex, PingPong, RingwayFutex, RingwaySleep, RingwaySpin, RtrbInPlace};
    [
        figure("stream, 64 KiB ring, to rtrb", (RingwaySpin, OneWay, SMALL, 64, 1), Ratio(RTRB), 1.0),
        figure("stream, 4 MiB ring, to rtrb", (RingwaySpin, OneWay, LARGE, 64, 1), Ratio(RTRB), 1.0),
        figure("futex - spin, 64 KiB ring", (RingwayFutex, OneWay, SMALL, 64, 1), Difference(RingwaySpin), 3.0),
        figure("futex - spin, 4 MiB ring", (RingwayFutex, OneWay, LARGE, 64, 1), Difference(RingwaySpin), 3.0),
        figure("batches, 64 KiB ring, to rtrb", (RingwaySpin, OneWay, SMALL, 64, 32), Ratio(&[RtrbInPlace]), 1.2),
        figure("batches, 4 MiB ring, to rtrb", (RingwaySpin, OneWay, LARGE, 64, 32), Ratio(&[RtrbInPlace]), 1.2),
        figure("round trip, spinning, to bare", (RingwaySpin, RoundTrip, SMALL, 64, 1), Ratio(&[PingPong]), 1.5),
        figure("round trip, blocked, to bare", (RingwaySleep, RoundTrip, SMALL, 64, 1), Ratio(&[BareFutex]), 1.15),
        figure("1 M messages of 1 KiB", (RingwaySpin, Million, LARGE, 1024, 1), Seconds, 0.15),
    ]
};

const fn figure(
    name: &'static str,
    (who, metric, ring, size, batch): (Who, Metric, usize, usize, usize),
    measure: Measure,
    target: f64,
) -> Figure {
    Figure { name, ours: Key { who, metric, ring, size, batch }, measure, target }
}

impl Figure {
    /// Whether this row is needed for it.
    pub fn needs(&self, key: &Key) -> bool {
        let who = match self.measure {
            Measure::Ratio(theirs) => theirs.contains(&key.who),
            Measure::Difference(theirs) => theirs == key.who,
            Measure::Seconds => false,
        };
        *key == self.ours || (who && Key { who: key.who, ..self.ours } == *key)
    }

    /// Its value, from the rows that were measured.
    pub fn value(&self, measured: impl Fn(&Key) -> Option<Summary>) -> Option<Value> {
        let ours = measured(&self.ours)?;
        let of = |who: &Who| Some((*who, measured(&Key { who: *who, ..self.ours })?));
        let (value, theirs) = match self.measure {
            Measure::Seconds => (ours.median / 1e3, None),
            Measure::Difference(who) => of(&who).map(|theirs| (ours.median - theirs.1.median, Some(theirs)))?,
            Measure::Ratio(theirs) => {
                let all: Vec<_> = theirs.iter().filter_map(of).collect();
                if all.len() < theirs.len() {
                    return None; // The missing one might be the fastest.
                }
                let fastest = *all.iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median))?;
                (ours.median / fastest.1.median, Some(fastest))
            }
        };
        Some(Value { value, ours, theirs })
    }
}
