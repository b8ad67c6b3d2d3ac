//! Sets of completion indexes as a job's status writes them: `0,2-5,7`.
//!
//! Source: API reference, batch/v1 JobStatus `completedIndexes`.

use std::fmt;

/// Indexes as ranges, first and last included, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Reads a status's text up to `below`; what cannot be read is left out.
    pub(super) fn read(text: &str, below: i64) -> Indexes {
        let mut indexes = Indexes::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse::<i64>(), last.trim().parse::<i64>()) {
                let last = last.min(below - 1);
                if 0 <= first && first <= last {
                    indexes.0.push((first, last));
                }
            }
        }
        indexes.0.sort_unstable();
        indexes.join();
        indexes
    }

    fn join(&mut self) {
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0.drain(..) {
            match joined.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        self.0 = joined;
    }

    /// How many there are.
    pub(super) fn len(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(super) fn contains(&self, index: i64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && index <= self.0[after - 1].1
    }

    /// Adds one; whether it was not there.
    pub(super) fn insert(&mut self, index: i64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        if after > 0 && index <= self.0[after - 1].1 {
            return false;
        }
        let joins_before = after > 0 && self.0[after - 1].1 + 1 == index;
        let joins_after = after < self.0.len() && self.0[after].0 == index + 1;
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 = index,
            (false, true) => self.0[after].0 = index,
            (false, false) => self.0.insert(after, (index, index)),
        }
        true
    }

    /// How many of the others are among these.
    pub(super) fn count_of(&self, others: &Indexes) -> i64 {
        let (mut own, mut other, mut found) = (0, 0, 0);
        while own < self.0.len() && other < others.0.len() {
            let (one, two) = (self.0[own], others.0[other]);
            found += (one.1.min(two.1) - one.0.max(two.0) + 1).max(0);
            if one.1 < two.1 { own += 1 } else { other += 1 }
        }
        found
    }
}

/// As a status writes them: two neighbours are a list, more are a range.
impl fmt::Display for Indexes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match last - first {
                0 => write!(out, "{comma}{first}")?,
                1 => write!(out, "{comma}{first},{last}")?,
                _ => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Indexes;

    #[test]
    fn they_are_read_joined_and_written_as_in_a_status() {
        let mut indexes = Indexes::read("7,0,2-3,9-20", 12);
        assert_eq!(indexes.to_string(), "0,2,3,7,9-11");
        assert_eq!(indexes.len(), 7);
        assert!(indexes.insert(8) && indexes.insert(1) && !indexes.insert(3));
        assert_eq!(indexes.to_string(), "0-3,7-11");
        assert!(indexes.contains(2) && !indexes.contains(5));
        assert_eq!(indexes.count_of(&Indexes::read("3-8", 12)), 3);
        assert_eq!(Indexes::read("", 5), Indexes::default());
        assert_eq!(Indexes::read("x,-3,5-4", 9).to_string(), "");
    }
}
