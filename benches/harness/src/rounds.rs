//! Blocks of many rows, interleaved round by round.

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    block::Block,
    pair::Pair,
    stats::{self, Summary},
};

/// Measures one block of about as many operations as it is told.
type Measure = Box<dyn Fn(&Pair, u64) -> io::Result<Block>>;

/// One thing to measure, and what was measured so far.
pub struct Row<T> {
    /// What it is.
    pub label: T,
    /// The blocks measured.
    pub blocks: Vec<Block>,
    measure: Measure,
    count: Count,
}

/// How many operations a block has.
enum Count {
    /// Always as many.
    Fixed(u64),
    /// As many as fill the time that the plan gives to a block, judging by the last block; the first is only a trial.
    Fitted(Option<u64>),
}

/// Operations in a row's first block.
const TRIAL: u64 = 500;

impl<T> Row<T> {
    /// A row whose blocks grow or shrink to fill the time that the plan gives them.
    pub fn new(label: T, measure: impl Fn(&Pair, u64) -> io::Result<Block> + 'static) -> Self {
        Self { label, blocks: Vec::new(), measure: Box::new(measure), count: Count::Fitted(None) }
    }

    /// A row whose blocks have `count` operations each.
    pub fn fixed(label: T, count: u64, measure: impl Fn(&Pair, u64) -> io::Result<Block> + 'static) -> Self {
        Self { count: Count::Fixed(count), ..Self::new(label, measure) }
    }

    /// Sums up the blocks that `keep` accepts; none if there are none.
    pub fn measured(&self, keep: impl Fn(&Block) -> bool) -> Option<Measured> {
        let kept: Vec<&Block> = self.blocks.iter().filter(|block| keep(block)).collect();
        let ns = Summary::of(kept.iter().map(|block| block.ns))?;
        let canary = |side: fn((f64, f64)) -> f64| Summary::of(kept.iter().filter_map(|block| block.canary).map(side));
        Some(Measured {
            ns,
            histogram: stats::merge(kept.iter().filter_map(|block| block.histogram.as_ref())),
            canary: canary(|(before, _)| before).zip(canary(|(_, after)| after)).map(|(b, a)| (b.median, a.median)),
        })
    }

    fn block(&mut self, pair: &Pair, time: Duration) -> io::Result<()> {
        let fit = |block: &Block| ((time.as_nanos() as f64 / block.ns) as u64).clamp(64, 1 << 28);
        let count = match self.count {
            Count::Fixed(count) | Count::Fitted(Some(count)) => count,
            Count::Fitted(None) => fit(&(self.measure)(pair, TRIAL)?),
        };
        let block = (self.measure)(pair, count)?;
        if let Count::Fitted(next) = &mut self.count {
            *next = Some(fit(&block));
        }
        self.blocks.push(block);
        Ok(())
    }
}

/// The result of a row.
pub struct Measured {
    /// Per message or round trip, one value per block.
    pub ns: Summary,
    /// All single round trips.
    pub histogram: Option<Histogram<u32>>,
    /// The medians of the canaries before and after.
    pub canary: Option<(f64, f64)>,
}

/// The median of all canaries: how far apart the sides were for most of the run.
pub fn usual_canary<T>(rows: &[Row<T>]) -> Option<f64> {
    let canaries = rows.iter().flat_map(|row| &row.blocks).filter_map(|block| block.canary);
    Summary::of(canaries.flat_map(|(before, after)| [before, after])).map(|summary| summary.median)
}

/// How much to measure.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Blocks that each row shall have.
    pub rounds: usize,
    /// When to stop even so; each row has one block at least.
    pub budget: Duration,
    /// How long a block shall take.
    pub block: Duration,
    /// Which blocks count towards `rounds`. The others are kept, too.
    pub counts: fn(&Block) -> bool,
}

impl Plan {
    /// Measures the rows in turn until each has its rounds, or the time is up. Before each block it tells `progress`
    /// how many are done, how many there are to do, and the row.
    pub fn run<T>(
        &self,
        pair: &Pair,
        rows: &mut [Row<T>],
        mut progress: impl FnMut(usize, usize, &T),
    ) -> io::Result<()> {
        let deadline = Instant::now() + self.budget;
        let lacks = |row: &Row<T>| self.rounds.saturating_sub(row.blocks.iter().filter(|b| (self.counts)(b)).count());
        let total = rows.len() * self.rounds;
        loop {
            let mut measured = false;
            for i in 0..rows.len() {
                let late = Instant::now() >= deadline;
                if lacks(&rows[i]) == 0 || (late && !rows[i].blocks.is_empty()) {
                    continue;
                }
                progress(total - rows.iter().map(lacks).sum::<usize>(), total, &rows[i].label);
                rows[i].block(pair, self.block)?;
                measured = true;
            }
            if !measured {
                return Ok(());
            }
        }
    }
}
