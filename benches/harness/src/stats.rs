//! Medians over rounds, and percentiles of round trips.

use hdrhistogram::Histogram;

/// Median and extremes of one value per round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median; the mean of the middle two of an even number.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Summary {
    /// Sums up some values; none of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max, rounds: values.len() })
    }
}

/// An empty histogram of nanoseconds: 1 ns to 10 s, exact to three digits.
pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("the bounds are valid")
}

/// All of them in one.
pub fn merge<'a>(histograms: impl IntoIterator<Item = &'a Histogram<u32>>) -> Option<Histogram<u32>> {
    let mut merged = histogram();
    for histogram in histograms {
        merged.add(histogram).expect("all have the same bounds");
    }
    (!merged.is_empty()).then_some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0, rounds: 3 }));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]), Some(Summary { median: 2.5, min: 1.0, max: 4.0, rounds: 4 }));
    }

    #[test]
    fn merging_adds_the_counts() {
        let mut one = histogram();
        one.saturating_record(100);
        let merged = merge([&one, &one]).unwrap();
        assert_eq!((merged.len(), merged.value_at_quantile(0.5)), (2, 100));
        assert!(merge([]).is_none());
    }
}
