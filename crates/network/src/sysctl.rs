//! Kernel settings of the calling thread's network namespace, under `/proc/sys/net`.

use std::io;
use std::path::{Path, PathBuf};

/// Writes a setting, such as `ipv4/ip_forward`.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(path(name), value)
}

/// Reads a setting.
pub(crate) fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path(name))?.trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}
