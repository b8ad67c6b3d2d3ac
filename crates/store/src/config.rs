//! How a store is opened, and how much it takes.

use std::path::PathBuf;

/// The largest value, in bytes: what the API accepts as a request body.
pub const VALUE_BYTES_MAX: usize = 3 << 20;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The most operations in one transaction.
pub const OPS_MAX: usize = 1024;
/// The most bytes in one transaction, keys and values together: several of the largest values, and a log record that
/// is still read in one piece.
pub const TRANSACTION_BYTES_MAX: usize = 16 << 20;
/// The most commits that wait for their group; further ones are refused as busy.
pub const COMMITS_WAITING_MAX: usize = 16_384;
/// The most transactions in one group: one log entry, one sync.
pub const GROUP_COMMITS_MAX: usize = 1024;
/// A group is not filled further beyond this many bytes, so that small commits do not wait for large ones.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// The most events kept for watches and for reads at an older revision.
pub const HISTORY_EVENTS_MAX: usize = 100_000;
/// The most bytes of values that events keep alive.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;
/// A snapshot is written when the log has grown by this many bytes.
pub const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// A snapshot is written when the log has grown by this many entries, so that opening stays fast.
pub const SNAPSHOT_LOG_ENTRIES: u64 = 50_000;
/// The size of the first log segment: small, because all of it is written when the store is opened first.
pub const SEGMENT_BYTES_MIN: u64 = 256 << 10;
/// Segments double up to this size.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made if missing. Only one process may have it open.
    pub dir: PathBuf,
    /// The id of this member of the cluster, not 0. It must not change over the life of the directory.
    pub member: u64,
    /// The id of the cluster. `None` takes the one in the directory, or makes a random one for an empty directory.
    pub cluster: Option<String>,
    /// How much the store takes.
    pub limits: Limits,
}

impl Config {
    /// Member 1 of whatever cluster the directory belongs to, with the usual limits.
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        Config { dir: dir.into(), member: 1, cluster: None, limits: Limits::default() }
    }
}

/// How much a store takes. Tests make these small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest value in bytes.
    pub value_bytes_max: usize,
    /// The most operations in one transaction.
    pub ops_max: usize,
    /// The most events kept.
    pub history_events_max: usize,
    /// The most bytes of values that events keep alive.
    pub history_bytes_max: u64,
    /// Log growth in bytes after which a snapshot is written.
    pub snapshot_log_bytes: u64,
    /// Log growth in entries after which a snapshot is written.
    pub snapshot_log_entries: u64,
    /// The size of the first log segment.
    pub segment_bytes_min: u64,
    /// The size up to which segments double.
    pub segment_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_bytes_max: VALUE_BYTES_MAX,
            ops_max: OPS_MAX,
            history_events_max: HISTORY_EVENTS_MAX,
            history_bytes_max: HISTORY_BYTES_MAX,
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
            snapshot_log_entries: SNAPSHOT_LOG_ENTRIES,
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MAX,
        }
    }
}
