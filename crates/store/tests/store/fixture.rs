//! Stores to test on.

use std::path::Path;

use jiff::Timestamp;
use windlass_stdx::World;
use windlass_store::{Committed, Config, Expect, Limits, Op, OpenError, SimulatedDisk, Store, Template};

/// Where stores on a [`SimulatedDisk`] lie.
pub const DIR: &str = "/data";

/// Limits at which a few commits already use several segments.
pub fn small() -> Limits {
    Limits { segment_bytes_min: 4096, segment_bytes_max: 16384, ..Limits::default() }
}

pub fn config(limits: Limits) -> Config {
    Config { limits, ..Config::new(Path::new(DIR)) }
}

pub async fn try_open(disk: &SimulatedDisk, limits: Limits) -> Result<Store, OpenError> {
    Store::open(config(limits), disk.boot(), World::seeded(1, Timestamp::UNIX_EPOCH)).await
}

pub async fn open(disk: &SimulatedDisk) -> Store {
    try_open(disk, small()).await.unwrap()
}

/// A store of its own, empty.
pub async fn fresh() -> Store {
    open(&SimulatedDisk::new(0)).await
}

pub fn put(key: &str, value: &str) -> Op {
    Op::put(key, Template::plain(value.to_owned()), Expect::Any)
}

pub fn delete(key: &str) -> Op {
    Op::delete(key, Expect::Any)
}

pub async fn commit(store: &Store, op: Op) -> Committed {
    store.commit(vec![op]).await.unwrap()
}

/// The value of a key as text.
pub fn value(store: &Store, key: &str) -> Option<String> {
    store.get(key).map(|entry| String::from_utf8(entry.value().to_vec()).unwrap())
}

/// Runs one life of a process: when `life` returns, everything it started is gone at once, as after a kill.
pub fn live<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(life)
}
