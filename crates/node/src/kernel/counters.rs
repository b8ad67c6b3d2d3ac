//! What this computer counts of itself: time, memory, packets, room on disk.
//!
//! Source: proc(5), statvfs(3).

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use windlass_runtime::Pressure;

use super::facts::memory_field;
use crate::machine::Usage;

/// Nanoseconds of a tick: the kernel tells user space 100 a second on every machine.
const TICK_NS: u64 = 10_000_000;
/// Most interfaces that are told of.
const INTERFACES_MAX: usize = 256;

/// What an interface has carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received_bytes: u64,
    pub received_errors: u64,
    pub sent_bytes: u64,
    pub sent_errors: u64,
}

/// The room of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub free_bytes: u64,
    pub files: u64,
    pub free_files: u64,
}

/// What the whole machine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub usage: Usage,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub booted: Timestamp,
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Reads what the machine uses now.
pub fn machine() -> Machine {
    let (memory, stat, faults) = (text("/proc/meminfo"), text("/proc/stat"), text("/proc/vmstat"));
    let field = |name: &str| memory_field(&memory, name);
    let (all, swap) = (field("MemTotal"), field("SwapTotal"));
    let used = all.saturating_sub(field("MemFree"));
    let usage = Usage {
        cpu_ns: busy_ticks(&stat).saturating_mul(TICK_NS),
        memory_bytes: used,
        working_set_bytes: used.saturating_sub(field("Inactive(file)")),
        rss_bytes: field("AnonPages"),
        swap_bytes: swap.saturating_sub(field("SwapFree")),
        page_faults: number_of(&faults, "pgfault"),
        major_page_faults: number_of(&faults, "pgmajfault"),
        pids: super::facts::processes(&text("/proc/loadavg")),
        pressure: Pressure::of_machine(),
    };
    let booted = i64::try_from(number_of(&stat, "btime")).ok().and_then(|at| Timestamp::from_second(at).ok());
    Machine { usage, memory_bytes: all, swap_bytes: swap, booted: booted.unwrap_or(Timestamp::UNIX_EPOCH) }
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are in user.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default().strip_prefix("cpu ").unwrap_or_default();
    let ticks = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0)).take(8);
    ticks.enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum()
}

/// One of the numbers in a file of lines `NAME NUMBER`.
fn number_of(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    rest.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

/// The interfaces of the network that a process is in; none when it is gone.
pub fn interfaces(pid: Option<u32>) -> Vec<Interface> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    interfaces_in(&text(&format!("/proc/{process}/net/dev")))
}

/// Lines `NAME: BYTES PACKETS ERRORS …` with eight fields received, then eight sent.
fn interfaces_in(text: &str) -> Vec<Interface> {
    let of = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        let fields: Vec<u64> = fields.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let interface = Interface {
            name: name.trim().to_owned(),
            received_bytes: *fields.first()?,
            received_errors: *fields.get(2)?,
            sent_bytes: *fields.get(8)?,
            sent_errors: *fields.get(10)?,
        };
        (interface.name != "lo").then_some(interface)
    };
    text.lines().filter_map(of).take(INTERFACES_MAX).collect()
}

/// The interface of the way out.
pub fn default_interface() -> Option<String> {
    let routes = text("/proc/self/net/route");
    let mut lines = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|fields| fields.get(1) == Some(&"00000000")).and_then(|fields| fields.first().map(|name| (*name).into()))
}

/// The room of the file system that a path lies on; `None` when it cannot be looked at.
pub fn room(path: &Path) -> Option<Room> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Room {
        bytes: found.f_blocks * found.f_frsize,
        free_bytes: found.f_bavail * found.f_frsize,
        files: found.f_files,
        free_files: found.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::{busy_ticks, interfaces_in, machine};

    #[test]
    fn the_kernels_counters_are_read() {
        assert_eq!(busy_ticks("cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 1 1 1\n"), 21);
        let dev = "Inter-|   Receive    |  Transmit\n face |bytes packets errs\n    lo: 1 1 1 0 0 0 0 0 1 1 1 0 0 0 0 0\n  \
                   eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let found = interfaces_in(dev);
        assert_eq!(found.len(), 1, "{found:?}");
        let eth = &found[0];
        assert_eq!((eth.received_bytes, eth.received_errors, eth.sent_bytes, eth.sent_errors), (100, 3, 200, 5));
        let now = machine();
        assert!(now.usage.cpu_ns > 0 && now.usage.working_set_bytes > 0 && now.usage.memory_bytes < now.memory_bytes);
    }
}
