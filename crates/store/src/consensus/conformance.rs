//! The engine's own suite for logs and state machines, run on ours: appending, truncating, purging, votes, membership
//! and snapshots that travel from one member to another.
//!
//! Not here    `get_initial_state_log_ids`: it purges entries that were never applied, of which there is no snapshot

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use windlass_stdx::World;

use super::{LogStorage, Machine, Types};
use crate::config::Config;
use crate::disk::RealDisk;
use crate::opening;

struct Directories;

/// Keeps a directory locked, and removes it in the end.
struct Directory {
    path: PathBuf,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Whatever is left does no harm to other tests.
        let _ignored = std::fs::remove_dir_all(&self.path);
    }
}

impl StoreBuilder<Types, LogStorage, Machine, Directory> for Directories {
    async fn build(&self) -> Result<(Directory, LogStorage, Machine), StorageError<Types>> {
        let world = World::real();
        let path = std::env::temp_dir().join(format!("windlass-store-{}", world.uuid()));
        let config = Config { cluster: Some("conformance".to_owned()), ..Config::new(&path) };
        let opened = opening::open(&config, Arc::new(RealDisk), &world).await.expect("an empty directory opens");
        let storage = LogStorage::new(opened.log, false);
        let machine = Machine::new(opened.shared, opened.snapshots);
        Ok((Directory { path, _lock: opened.lock }, storage, machine))
    }
}

type Cases = Suite<Types, LogStorage, Machine, Directories, Directory>;

/// Runs each case of the suite in a directory of its own, as a test of its own.
macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (_directory, storage, machine) = Directories.build().await.expect("an empty directory opens");
                Cases::$case(storage, machine).await.expect("the case holds");
            }
        )*
    };
}

cases! {
    last_membership_in_log_initial
    last_membership_in_log
    last_membership_in_log_multi_step
    get_membership_initial
    get_membership_from_log_and_empty_sm
    get_membership_from_empty_log_and_sm
    get_membership_from_log_le_sm_last_applied
    get_membership_from_log_gt_sm_last_applied_1
    get_membership_from_log_gt_sm_last_applied_2
    get_initial_state_without_init
    get_initial_state_membership_from_empty_log_and_sm
    get_initial_state_membership_from_sm_inlog_is_smaller
    get_initial_state_membership_from_log_insm_is_smaller
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_last_log_lt_sm
    get_initial_state_inverted_log_order
    get_initial_state_conflict_at_same_index
    get_initial_state_re_apply_committed
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    last_applied_state
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta
    snapshot_meta_optional
    apply_single
    apply_multiple
}

#[tokio::test]
async fn transfer_snapshot() {
    Cases::transfer_snapshot(&Directories).await.expect("the case holds");
}
