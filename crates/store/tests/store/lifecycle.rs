//! Opening and closing: at once, alone, and by the right owner.

use std::sync::Arc;

use jiff::Timestamp;
use windlass_stdx::World;
use windlass_store::{CommitError, Config, OpenError, RealDisk, SimulatedDisk, Store};

use crate::fixture::{commit, config, open, put, small, try_open, value};

/// A directory on the real disk, removed when dropped.
struct TempDir(std::path::PathBuf);

impl TempDir {
    fn new() -> TempDir {
        let path = std::env::temp_dir().join(format!("windlass-store-{}", World::real().uuid()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Whatever is left does no harm to other tests.
        let _ignored = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_store_on_the_real_disk_keeps_what_it_acknowledged() {
    let dir = TempDir::new();
    for round in 0..3 {
        let store = Store::open(Config::new(&dir.0), Arc::new(RealDisk), World::real()).await.unwrap();
        assert_eq!(store.revision(), round * 50);
        let commits = (0..50).map(|at| store.commit(vec![put(&format!("{round}/{at}"), "x")]));
        assert!(futures::future::join_all(commits).await.iter().all(Result::is_ok));
        if round == 1 {
            store.snapshot().await.unwrap();
        }
        store.close().await;
    }
}

#[tokio::test]
async fn two_stores_never_open_one_directory_on_the_real_disk() {
    let dir = TempDir::new();
    let first = Store::open(Config::new(&dir.0), Arc::new(RealDisk), World::real()).await.unwrap();
    let second = Store::open(Config::new(&dir.0), Arc::new(RealDisk), World::real()).await;
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    first.close().await;
    let third = Store::open(Config::new(&dir.0), Arc::new(RealDisk), World::real()).await.unwrap();
    third.close().await;
}

#[tokio::test(start_paused = true)]
async fn two_stores_never_open_one_directory() {
    let disk = SimulatedDisk::new(0);
    let first = open(&disk).await;
    assert!(matches!(try_open(&disk, small()).await, Err(OpenError::Locked { .. })));
    first.close().await;
    open(&disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_handles_are_dropped_closes_by_itself() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    commit(&store, put("a", "x")).await;
    drop(store);
    let reopened = async {
        loop {
            match try_open(&disk, small()).await {
                Ok(store) => return store,
                Err(OpenError::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let store = tokio::time::timeout(std::time::Duration::from_secs(60), reopened).await.unwrap();
    assert_eq!(value(&store, "a").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_sole_voter_leads_as_soon_as_it_is_open_and_no_timer_is_waited_for() {
    let disk = SimulatedDisk::new(0);
    let before = tokio::time::Instant::now();
    for _ in 0..3 {
        let store = open(&disk).await;
        assert!(store.stats().is_leader);
        assert_eq!(store.stats().voters, [1]);
        store.read_barrier().await.unwrap();
        commit(&store, put("a", "x")).await;
        store.close().await;
    }
    assert!(before.elapsed() < std::time::Duration::from_millis(50), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_idle_for_a_day_still_commits() {
    let store = open(&SimulatedDisk::new(0)).await;
    tokio::time::sleep(std::time::Duration::from_secs(86_400)).await;
    commit(&store, put("a", "x")).await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_belongs_to_one_cluster_and_one_member() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    let cluster = store.cluster().to_owned();
    store.close().await;
    let attempt = async |member, cluster: Option<&str>| {
        let config = Config { member, cluster: cluster.map(str::to_owned), ..config(small()) };
        let world = World::seeded(2, Timestamp::UNIX_EPOCH);
        Store::open(config, disk.boot(), world).await
    };
    assert!(matches!(attempt(2, None).await, Err(OpenError::Foreign { .. })));
    assert!(matches!(attempt(1, Some("another")).await, Err(OpenError::Foreign { .. })));
    assert_eq!(attempt(1, Some(&cluster)).await.unwrap().cluster(), cluster);
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_refuses_commits_and_answers_reads() {
    let store = open(&SimulatedDisk::new(0)).await;
    commit(&store, put("a", "x")).await;
    store.close().await;
    assert!(matches!(store.commit(vec![put("b", "x")]).await, Err(CommitError::Closed(_))));
    assert!(matches!(store.read_barrier().await, Err(CommitError::Closed(_))));
    assert_eq!(value(&store, "a").as_deref(), Some("x"));
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_writes_the_same_files() {
    let life = async || {
        let disk = SimulatedDisk::new(0);
        let store = open(&disk).await;
        let commits = (0..50).map(|at| store.commit(vec![put(&format!("k{at}"), "x")]));
        assert!(futures::future::join_all(commits).await.iter().all(Result::is_ok));
        store.snapshot().await.unwrap();
        store.close().await;
        disk.names().into_iter().map(|name| (disk.read(&name), name)).collect::<Vec<_>>()
    };
    assert!(life().await == life().await);
}
