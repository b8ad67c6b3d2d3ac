//! What the process itself uses, as the kernel tells it (proc(5)): read when somebody asks, never kept.

use std::fs;

/// The process, now.
#[derive(Debug, PartialEq)]
pub(super) struct Process {
    pub cpu_seconds: f64,
    pub open_fds: usize,
    pub fds_max: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub started_seconds: f64,
}

/// Clock ticks in a second and bytes in a page, as Linux shows them to programs of every architecture we run on.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// `None` where there is no /proc.
pub(super) fn process() -> Option<Process> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let open_fds = fs::read_dir("/proc/self/fd").ok()?.count();
    let limits = read("/proc/self/limits")?;
    parse(&read("/proc/self/stat")?, &read("/proc/stat")?, &limits, open_fds)
}

fn parse(stat: &str, system: &str, limits: &str, open_fds: usize) -> Option<Process> {
    // The program's name stands in parentheses and may hold anything; fields are counted after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    let fds_max =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    Some(Process {
        cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS,
        open_fds,
        fds_max: fds_max?,
        resident_bytes: number(21)? * PAGE_BYTES,
        virtual_bytes: number(20)?,
        started_seconds: booted as f64 + number(19)? as f64 / TICKS,
    })
}

#[cfg(test)]
mod tests {
    use super::{Process, parse};

    #[test]
    fn a_name_with_parentheses_hides_no_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1000 4096000 25 18446744073709551615";
        let process = parse(stat, "cpu 1\nbtime 100\n", "Max open files            1024     4096     files\n", 9);
        let expected = Process {
            cpu_seconds: 2.0,
            open_fds: 9,
            fds_max: 1024,
            resident_bytes: 25 * 4096,
            virtual_bytes: 4_096_000,
            started_seconds: 110.0,
        };
        assert_eq!(process, Some(expected));
    }
}
