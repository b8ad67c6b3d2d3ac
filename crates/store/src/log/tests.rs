//! What only members of a larger cluster do to a log, held over a restart: cutting its end, and beginning again after a
//! snapshot from elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use windlass_stdx::World;

use super::{Log, LogConfig};
use crate::config::Limits;
use crate::consensus::{LogEntry, LogId, Payload, Types, log_id};
use crate::disk::RealDisk;
use crate::entry::Template;
use crate::group::Group;
use crate::op::{Expect, Op};
use crate::shared::End;

/// A directory for a log, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("windlass-log-{}", World::real().uuid()));
        std::fs::create_dir(&path).expect("a directory of a random name can be made");
        Directory(path)
    }

    async fn open(&self) -> Log {
        let limits = Limits { segment_bytes_min: 4096, segment_bytes_max: 4096, ..Limits::default() };
        let config = LogConfig { dir: self.0.clone(), cluster: 7, limits };
        Log::open(config, Arc::new(RealDisk), Arc::new(End::default()), true).await.expect("the log opens")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whatever is left does no harm to other tests.
        let _ignored = std::fs::remove_dir_all(&self.0);
    }
}

async fn append(log: &Log, term: u64, indexes: std::ops::Range<u64>) {
    let entries = indexes.map(|index| {
        let value = Template::plain(format!("{term}.{index} ").repeat(60));
        let group = Group::new(vec![vec![Op::put("key", value, Expect::Any)]]);
        LogEntry { log_id: log_id(term, index), payload: Payload::Normal(group) }
    });
    let (tx, rx) = Types::oneshot();
    log.append(entries.collect(), IOFlushed::signal(tx)).await.expect("the writer runs");
    rx.await.expect("the writer answers").expect("the disk takes it");
}

/// The terms of the entries, after what was purged.
fn picture(log: &Log) -> (Option<LogId>, Vec<u64>) {
    let sources = log.index().read(0, u64::MAX);
    let ids = sources.into_iter().map(|source| source.load().expect("entries can be read").log_id);
    (log.index().purged, ids.map(|id| id.leader_id.term).collect())
}

#[tokio::test]
async fn a_log_whose_end_was_cut_goes_on_from_there_after_a_restart() {
    for cut in [0, 1, 7, 19, 20] {
        let directory = Directory::new();
        let log = directory.open().await;
        append(&log, 1, 0..20).await;
        log.truncate_after(u64::checked_sub(cut, 1).map(|last| log_id(1, last))).await.expect("the end is cut");
        append(&log, 2, cut..25).await;
        let expected = (None, (0..25).map(|index| if index < cut { 1 } else { 2 }).collect::<Vec<_>>());
        assert_eq!(picture(&log), expected, "cut at {cut}");
        log.close().await.expect("the log closes");
        let log = directory.open().await;
        assert_eq!(picture(&log), expected, "cut at {cut}, reopened");
        append(&log, 3, 25..26).await;
    }
}

#[tokio::test]
async fn a_log_begins_again_after_a_snapshot_from_elsewhere() {
    let directory = Directory::new();
    let log = directory.open().await;
    append(&log, 1, 0..20).await;
    log.purge(log_id(2, 99)).await.expect("the log is purged");
    assert_eq!(picture(&log), (Some(log_id(2, 99)), vec![]));
    append(&log, 3, 100..110).await;
    log.close().await.expect("the log closes");
    let log = directory.open().await;
    assert_eq!(picture(&log), (Some(log_id(2, 99)), vec![3; 10]));
}

#[tokio::test]
async fn purging_removes_segments_that_are_wholly_behind() {
    let directory = Directory::new();
    let log = directory.open().await;
    append(&log, 1, 0..100).await;
    let count = || {
        let files = std::fs::read_dir(&directory.0).expect("the directory is there");
        files.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension() == Some("wal".as_ref()))).count()
    };
    let before = count();
    log.purge(log_id(1, 89)).await.expect("the log is purged");
    assert!(count() + 5 < before, "{before} files before, {} after", count());
    assert_eq!(picture(&log), (Some(log_id(1, 89)), vec![1; 10]));
    log.close().await.expect("the log closes");
    let (purged, terms) = picture(&directory.open().await);
    assert!(purged.is_some_and(|purged| purged.index <= 89 && terms.len() as u64 == 99 - purged.index), "{purged:?}");
}
