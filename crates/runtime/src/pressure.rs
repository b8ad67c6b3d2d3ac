//! How long processes had to wait for CPU, memory and disks: the kernel's pressure stall information.
//!
//! Source: kernel documentation, "PSI - Pressure Stall Information"

use std::fs;
use std::path::Path;

/// What was waited for; `None` where the kernel does not count it: version 1 of control groups, or counting is switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// A CPU.
    pub cpu: Option<Stalls>,
    /// Memory.
    pub memory: Option<Stalls>,
    /// Disks.
    pub io: Option<Stalls>,
}

/// Time in which something waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks that had something to do waited.
    pub full: Stall,
}

/// One kind of stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Since the group was made, in millionths of a second.
    pub total_us: u64,
    /// Hundredths of a percent of the last ten seconds.
    pub of_10_s: u32,
    /// Of the last minute.
    pub of_60_s: u32,
    /// Of the last five minutes.
    pub of_300_s: u32,
}

impl Pressure {
    /// Of the whole machine.
    pub fn of_machine() -> Pressure {
        let read = |what: &str| stalls(Path::new("/proc/pressure").join(what).as_path());
        Pressure { cpu: read("cpu"), memory: read("memory"), io: read("io") }
    }

    /// Of the group (version 2) with this directory.
    pub(crate) fn of_group(directory: &Path) -> Pressure {
        let read = |file: &str| stalls(&directory.join(file));
        Pressure { cpu: read("cpu.pressure"), memory: read("memory.pressure"), io: read("io.pressure") }
    }
}

/// A kernel that has it switched off fails the read.
fn stalls(path: &Path) -> Option<Stalls> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`, which kernels before 5.13 leave out of
/// CPU's.
fn parse(text: &str) -> Option<Stalls> {
    let mut stalls = Stalls::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let stall = match fields.next()? {
            "some" => &mut stalls.some,
            "full" => &mut stalls.full,
            _ => continue,
        };
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            match name {
                "avg10" => stall.of_10_s = hundredths(value)?,
                "avg60" => stall.of_60_s = hundredths(value)?,
                "avg300" => stall.of_300_s = hundredths(value)?,
                "total" => stall.total_us = value.parse().ok()?,
                _ => {}
            }
        }
    }
    text.starts_with("some ").then_some(stalls)
}

/// `12.34`: the kernel always writes two digits behind the point.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.')?;
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{Stall, Stalls, parse};

    #[test]
    fn the_kernels_stalls_are_read_whole_or_not_at_all() {
        let text =
            "some avg10=12.34 avg60=0.05 avg300=100.00 total=567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8\n";
        let some = Stall { total_us: 567, of_10_s: 1234, of_60_s: 5, of_300_s: 10_000 };
        let full = Stall { total_us: 8, ..Stall::default() };
        assert_eq!(parse(text), Some(Stalls { some, full }));
        assert_eq!(
            parse("some avg10=1.00 avg60=0.00 avg300=0.00 total=3\n").map(|found| found.full),
            Some(Stall::default())
        );
        for wrong in ["", "nothing", "some avg10=x avg60=0.00 avg300=0.00 total=3", "full total=1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
