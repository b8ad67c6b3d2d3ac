//! What was acknowledged survives restarts, kills and losses of power.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use windlass_store::{CommitError, Limits, OpenError, SimulatedDisk, Store};

use crate::fixture::{DIR, commit, delete, live, open, put, small, try_open, value};

#[tokio::test(start_paused = true)]
async fn a_restart_shows_everything_in_its_place() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    for at in 0..100 {
        commit(&store, put(&format!("k{:02}", at % 30), &format!("value {at}"))).await;
    }
    commit(&store, delete("k07")).await;
    let expected = picture(&store);
    store.close().await;
    for _ in 0..2 {
        let store = open(&disk).await;
        assert_eq!(picture(&store), expected);
        store.close().await;
    }
}

/// Everything a store shows.
fn picture(store: &Store) -> String {
    let page = store.range(&windlass_store::Range::default()).unwrap();
    let lines = page.entries.iter().map(|entry| format!("{:?} {:?}\n", entry, entry.value()));
    format!("{} {}", page.revision, lines.collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_and_the_log_after_it_give_the_same_state() {
    let disk = SimulatedDisk::new(0);
    let limits = || Limits { snapshot_log_entries: 7, ..small() };
    let mut expected = String::new();
    for round in 0..10 {
        let store = try_open(&disk, limits()).await.unwrap();
        if round > 0 {
            assert_eq!(picture(&store), expected, "round {round}");
        }
        for at in 0..10 {
            commit(&store, put(&format!("k{}", (round * 10 + at) % 17), &format!("{round} {at}"))).await;
            commit(&store, delete(&format!("k{}", (round * 7 + at) % 19))).await;
            tokio::task::yield_now().await;
        }
        expected = picture(&store);
        store.close().await;
    }
    let names = disk.names();
    let count = |start: &str| names.iter().filter(|name| name.to_string_lossy().contains(start)).count();
    assert_eq!(count("snapshot-"), 2, "{names:?}");
    assert!(count("log-") < 8, "the log is purged behind the older snapshot: {names:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_state_is_written_less_often() {
    let disk = SimulatedDisk::new(0);
    let store = try_open(&disk, Limits { snapshot_log_entries: 10, ..small() }).await.unwrap();
    let snapshots = || disk.names().into_iter().filter(|name| name.to_string_lossy().contains("snapshot-")).collect();
    for at in 0..100 {
        commit(&store, put(&format!("k{at}"), "x")).await;
    }
    store.snapshot().await.unwrap();
    let before: Vec<_> = snapshots();
    for at in 0..40 {
        commit(&store, put(&format!("k{at}"), "y")).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(snapshots(), before, "40 entries are less than half of 100 keys");
    let more = async {
        while snapshots() == before {
            commit(&store, put("k0", "z")).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), more).await.unwrap();
    assert!(store.revision() < 160, "{}", store.revision());
}

#[test]
fn no_acknowledged_commit_is_lost_when_the_process_is_killed_or_the_power_fails() {
    for seed in 0..150 {
        let disk = SimulatedDisk::new(seed);
        let mut ledger = Ledger::default();
        for round in 0..8 {
            ledger = one_life(&disk, ledger, seed * 8 + round);
            if (seed + round) % 4 != 0 {
                disk.lose_power();
            }
        }
    }
}

/// What was acknowledged, and what was asked for and may or may not be there.
#[derive(Clone, Default)]
struct Ledger {
    acknowledged: BTreeMap<String, (u64, String)>,
    newest: u64,
}

fn one_life(disk: &SimulatedDisk, ledger: Ledger, life: u64) -> Ledger {
    let ledger = Rc::new(RefCell::new(ledger));
    let kept = ledger.clone();
    live(async move {
        let limits = Limits { snapshot_log_entries: 20, ..small() };
        let store = try_open(disk, limits).await.unwrap_or_else(|error| panic!("life {life}: {error}"));
        check(&store, &ledger.borrow(), life);
        let local = tokio::task::LocalSet::new();
        for writer in 0..3 {
            local.spawn_local(write(store.clone(), ledger.clone(), life, writer));
        }
        local
            .run_until(async {
                for _ in 0..(life * 37) % 400 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
    });
    Rc::into_inner(kept).unwrap().into_inner()
}

async fn write(store: Store, ledger: Rc<RefCell<Ledger>>, life: u64, writer: u64) {
    for at in 0.. {
        let key = format!("{life}/{writer}/{at}");
        let text = "v".repeat(((life * 31 + at * 17) % 900) as usize);
        let committed = store.commit(vec![put(&key, &text), put("shared", &key)]).await.unwrap();
        let mut ledger = ledger.borrow_mut();
        ledger.newest = ledger.newest.max(committed.revision);
        ledger.acknowledged.insert(key, (committed.revision, text));
    }
}

fn check(store: &Store, ledger: &Ledger, life: u64) {
    assert!(store.revision() >= ledger.newest, "life {life}: {} < {}", store.revision(), ledger.newest);
    for (key, (revision, text)) in &ledger.acknowledged {
        let entry = store.get(key).unwrap_or_else(|| panic!("life {life}: {key} is lost"));
        assert_eq!((entry.revision, entry.value()), (*revision, text.as_bytes()), "life {life}: {key}");
    }
}

#[test]
fn a_failed_sync_stops_the_store_and_loses_nothing_acknowledged() {
    let disk = SimulatedDisk::new(3);
    live(async {
        let store = open(&disk).await;
        commit(&store, put("kept", "x")).await;
        disk.set_sync_fails(true);
        let refused = store.commit(vec![put("doubtful", "x")]).await.unwrap_err();
        assert!(matches!(&refused, CommitError::Closed(why) if why.contains("does not answer")), "{refused}");
        assert!(store.failed().await.contains("does not answer"));
        disk.set_sync_fails(false);
        let again = store.commit(vec![put("later", "x")]).await.unwrap_err();
        assert!(matches!(again, CommitError::Closed(_)), "a failed sync is never tried again: {again}");
        assert_eq!(value(&store, "kept").as_deref(), Some("x"), "reads go on");
        assert_eq!(value(&store, "doubtful"), None);
    });
    disk.lose_power();
    live(async {
        let store = open(&disk).await;
        assert_eq!(value(&store, "kept").as_deref(), Some("x"));
        assert_eq!(value(&store, "later"), None);
    });
}

#[test]
fn a_failed_write_stops_the_store() {
    for writes in 0..12 {
        let disk = SimulatedDisk::new(writes);
        let acknowledged = live(async {
            let store = open(&disk).await;
            disk.fail_writes_after(writes);
            let mut acknowledged = 0;
            while store.commit(vec![put(&format!("k{acknowledged}"), &"x".repeat(500))]).await.is_ok() {
                acknowledged += 1;
            }
            assert!(store.failed().await.contains("does not take it"));
            acknowledged
        });
        disk.fail_writes_after(u64::MAX);
        disk.lose_power();
        live(async {
            let store = open(&disk).await;
            assert!(store.revision() >= acknowledged, "after {writes} writes");
        });
    }
}

#[test]
fn a_first_opening_that_breaks_off_anywhere_can_be_done_again() {
    let mut broken_off = 0;
    for seed in 0..200 {
        let disk = SimulatedDisk::new(seed);
        disk.fail_writes_after(seed % 20);
        broken_off += usize::from(live(async { try_open(&disk, small()).await.is_err() }));
        disk.fail_writes_after(u64::MAX);
        disk.lose_power();
        live(async { commit(&open(&disk).await, put("a", "x")).await });
        disk.lose_power();
        live(async { assert_eq!(value(&open(&disk).await, "a").as_deref(), Some("x"), "seed {seed}") });
    }
    assert!((10..190).contains(&broken_off), "{broken_off} of 200");
}

#[test]
fn opening_on_a_disk_that_does_not_sync_fails() {
    let disk = SimulatedDisk::new(0);
    disk.set_sync_fails(true);
    live(async {
        let error = try_open(&disk, small()).await.err().unwrap();
        assert!(matches!(&error, OpenError::Io { path, .. } if path.starts_with(DIR)), "{error}");
    });
}
