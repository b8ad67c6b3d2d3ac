//! A set of CPUs, written as the kernel writes it: `0-3,8`.
//!
//! Source: cpuset(7), "List format".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// CPUs are numbered below this.
pub const CPUS_MAX: usize = 1024;
const WORD_BITS: usize = 64;

/// A set of CPUs.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet([u64; CPUS_MAX / WORD_BITS]);

/// A text that is no set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected CPUs below {CPUS_MAX} as in 0-3,8, found {0:?}")]
pub struct CpuSetError(String);

impl CpuSet {
    /// Adds a CPU. What no machine of today has is left out.
    pub fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.0.get_mut(cpu / WORD_BITS) {
            *word |= 1 << (cpu % WORD_BITS);
        }
    }

    /// Whether the CPU is in it.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.get(cpu / WORD_BITS).is_some_and(|word| word & (1 << (cpu % WORD_BITS)) != 0)
    }

    /// The CPUs, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let set = *self;
        (0..CPUS_MAX).filter(move |cpu| set.contains(*cpu))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == CpuSet::default()
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: CpuSet) -> CpuSet {
        self.0.iter_mut().zip(other.0).for_each(|(own, theirs)| *own |= theirs);
        self
    }

    /// What is in this one alone.
    #[must_use]
    pub fn minus(mut self, other: CpuSet) -> CpuSet {
        self.0.iter_mut().zip(other.0).for_each(|(own, theirs)| *own &= !theirs);
        self
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        let mut set = CpuSet::default();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    fn from_str(text: &str) -> Result<CpuSet, CpuSetError> {
        let wrong = || CpuSetError(text.chars().take(64).collect());
        let number = |text: &str| text.trim().parse().ok().filter(|cpu: &usize| *cpu < CPUS_MAX).ok_or_else(wrong);
        let mut set = CpuSet::default();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            (first..=last).for_each(|cpu| set.insert(cpu));
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            match first == last {
                true => write!(out, "{separator}{first}")?,
                false => write!(out, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CpuSet({self})")
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CpuSet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::CpuSet;

    #[test]
    fn a_set_is_read_and_written_as_the_kernel_does() {
        for text in ["", "0", "0-3,8", "1,3,5-6", "0-1023"] {
            assert_eq!(text.parse::<CpuSet>().expect("a set").to_string(), text);
        }
        assert_eq!("2,1,0\n".parse::<CpuSet>().expect("a set").to_string(), "0-2");
        for wrong in ["x", "1-", "3-1", "1024", "-1", "0-99999999999"] {
            assert!(wrong.parse::<CpuSet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sets_are_joined_and_parted() {
        let of = |text: &str| text.parse::<CpuSet>().expect("a set");
        assert_eq!(of("0-3").minus(of("1-2")), of("0,3"));
        assert_eq!(of("0").union(of("64")).len(), 2);
        assert!(of("5").minus(of("0-9")).is_empty());
    }
}
