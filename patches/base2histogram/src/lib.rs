//! Stands in for the crate `base2histogram` under openraft, which keeps one histogram of batch sizes.
//!
//! The published crate computes tables for sixteen bucket widths at first use, 25 MiB that stay, where openraft uses one
//! width of 252 buckets. What openraft calls is here, in our own form: buckets by the position of the highest bit and the
//! two bits after it. Decision: docs/decisions/004-memory.md.

use std::fmt;
use std::marker::PhantomData;

/// Buckets: the values 0 to 3 by themselves, then four for each further power of two up to 2^63.
const BUCKETS: usize = 252;

/// How often values were seen, by their size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    slot: PhantomData<T>,
}

/// Some percentiles of a histogram: `p99_9` is not exceeded by 99.9 of 100 values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} samples, p50 {}, p90 {}, p99 {}, p99.9 {}",
            self.samples, self.p50, self.p90, self.p99, self.p99_9
        )
    }
}

/// Named histograms, one below the other.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl AsciiChart {
    /// Nothing to show.
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// One more.
    #[must_use]
    pub fn add<T>(mut self, name: impl Into<String>, histogram: Histogram<T>) -> AsciiChart {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, stats)| writeln!(out, "{name}: {stats}"))
    }
}

impl<T> Histogram<T> {
    /// A histogram that has seen nothing.
    pub fn new() -> Histogram<T> {
        Histogram { counts: vec![0; BUCKETS], slot: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.counts[bucket(value)] += times;
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The percentiles, each as the smallest value of its bucket.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    fn percentile(&self, part: f64) -> u64 {
        let wanted = (self.total() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return smallest(index);
            }
        }
        0
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

fn bucket(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    let next_two_bits = (value >> (power - 2)) as usize & 3;
    4 + (power - 2) * 4 + next_two_bits
}

fn smallest(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (power, next_two_bits) = ((bucket - 4) / 4 + 2, (bucket - 4) % 4);
    (4 + next_two_bits as u64) << (power - 2)
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, smallest};

    #[test]
    fn every_bucket_begins_with_its_smallest_value() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(smallest(index)), index);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_values_seen() {
        let mut histogram = Histogram::<()>::new();
        (0..100).for_each(|_| histogram.record(8));
        histogram.record(1000);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99), (101, 8, 8));
    }
}
