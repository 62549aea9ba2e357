//! The figures that ringway is to reach, and whether it does.

use ringway_harness::stats::Summary;

use crate::rows::{Key, Who};

/// How a figure follows from rows.
#[derive(Clone, Copy)]
pub enum Measure {
    /// ringway by the fastest of these.
    Ratio(&'static [Who]),
    /// ringway by this other row of its own.
    RatioTo(Key),
    /// ringway minus this, in ns.
    Difference(Who),
    /// What a million take, in seconds.
    Seconds,
}

/// One figure.
#[derive(Clone, Copy)]
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
    pub theirs: Option<(Key, Summary)>,
}

impl Figure {
    /// Whether this row is needed for it.
    pub fn needs(&self, key: &Key) -> bool {
        *key == self.ours || self.others().contains(key)
    }

    /// The rows that ringway's is compared with.
    fn others(&self) -> Vec<Key> {
        match self.measure {
            Measure::Ratio(theirs) => theirs.iter().map(|&who| Key { who, ..self.ours }).collect(),
            Measure::RatioTo(other) => vec![other],
            Measure::Difference(who) => vec![Key { who, ..self.ours }],
            Measure::Seconds => Vec::new(),
        }
    }

    /// Its value, from the rows that were measured.
    pub fn value(&self, measured: impl Fn(&Key) -> Option<Summary>) -> Option<Value> {
        let ours = measured(&self.ours)?;
        // All of them: a missing one might be the fastest.
        let others: Option<Vec<_>> = self.others().into_iter().map(|key| Some((key, measured(&key)?))).collect();
        let theirs = others?.into_iter().min_by(|a, b| a.1.median.total_cmp(&b.1.median));
        let other = theirs.map_or(f64::NAN, |(_, theirs)| theirs.median);
        let value = match self.measure {
            Measure::Seconds => ours.median / 1e3,
            Measure::Difference(_) => ours.median - other,
            Measure::Ratio(_) | Measure::RatioTo(_) => ours.median / other,
        };
        Some(Value { value, ours, theirs })
    }
}
