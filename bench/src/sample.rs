//! Samples: medians and percentiles, as a table row shows them.

use std::time::Duration;

/// Measured values of one thing, in one unit.
#[derive(Default, Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a duration, in milliseconds.
    pub fn add_ms(&mut self, duration: Duration) {
        self.add(duration.as_secs_f64() * 1e3);
    }

    /// Adds all of another's values.
    pub fn extend(&mut self, other: &Sample) {
        self.0.extend_from_slice(&other.0);
    }

    /// The value below which this part of all values lies; 0.5 is the median. Zero for no values.
    pub fn percentile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or(0.0)
    }

    /// `min / median / max`.
    pub fn shown(&self) -> String {
        format!("{:.1} / {:.1} / {:.1}", self.percentile(0.0), self.percentile(0.5), self.percentile(1.0))
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn the_median_is_the_middle() {
        let mut sample = Sample::default();
        [5.0, 1.0, 3.0].into_iter().for_each(|value| sample.add(value));
        assert_eq!(sample.shown(), "1.0 / 3.0 / 5.0");
        assert_eq!(sample.len(), 3);
    }
}
