//! What processes and the machine have used: CPU time, memory, writes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of the whole machine that was not idle, in clock ticks of 10 ms.
pub fn machine_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let busy = fields.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4 | 8 | 9)).map(|(_, ticks)| ticks);
    Ok(Duration::from_millis(busy.sum::<u64>() * 10))
}

/// CPU time of a process and its threads.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?.flatten() {
        // The first figure of schedstat is the time on a CPU in nanoseconds; `stat` counts in 10 ms only.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Proportional memory of a process, in KiB.
pub fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Write calls and bytes that reached the disk, of a process.
pub fn writes(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let figure = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
    (figure("syscw:"), figure("write_bytes:"))
}

/// All processes whose command line satisfies a condition.
pub fn processes(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if wanted(&String::from_utf8_lossy(&line).replace('\0', " ")) {
            found.push(pid);
        }
    }
    found
}
