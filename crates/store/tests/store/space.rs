//! A full disk: writes are refused, reads go on, deletions still go through, and it heals by itself.

use windlass_store::{CommitError, SimulatedDisk, Store};

use crate::fixture::{commit, delete, live, open, put, value};

/// Commits until the disk is full; the number of commits that were taken.
async fn fill(store: &Store, prefix: &str) -> u64 {
    for at in 0.. {
        match store.commit(vec![put(&format!("{prefix}{at:04}"), &"x".repeat(300))]).await {
            Ok(_) => {}
            Err(CommitError::StorageFull { .. }) => return at,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn a_full_disk_refuses_writes_and_heals_when_space_returns() {
    let disk = SimulatedDisk::new(0);
    let (taken, more) = live(async {
        let store = open(&disk).await;
        disk.set_capacity(disk.used() + 40_000);
        let taken = fill(&store, "a").await;
        assert!(taken > 20, "{taken}");
        assert_eq!(store.revision(), taken, "a refused write takes no revision");
        assert_eq!(value(&store, "a0000").map(|value| value.len()), Some(300), "reads go on");
        for _ in 0..20 {
            let refused = store.commit(vec![put("b", &"x".repeat(300))]).await;
            assert!(matches!(refused, Err(CommitError::StorageFull { .. })), "{refused:?}");
        }
        disk.set_capacity(disk.used() + 20_000);
        let more = fill(&store, "c").await;
        assert!(more > 5, "it heals without a restart: {more}");
        (taken, more)
    });
    disk.lose_power();
    live(async {
        let store = open(&disk).await;
        assert_eq!(store.revision(), taken + more);
        assert!(matches!(
            store.commit(vec![put("b", "x".repeat(4000).as_str())]).await,
            Err(CommitError::StorageFull { .. })
        ));
        disk.set_capacity(usize::MAX);
        commit(&store, put("b", "x")).await;
    });
}

#[test]
fn deletions_go_through_on_a_full_disk() {
    let disk = SimulatedDisk::new(0);
    live(async {
        let store = open(&disk).await;
        disk.set_capacity(disk.used() + 20_000);
        fill(&store, "a").await;
        for at in 0..5 {
            commit(&store, delete(&format!("a{at:04}"))).await;
        }
        assert_eq!(value(&store, "a0000"), None);
        let mixed = [store.commit(vec![put("b", &"x".repeat(300))]), store.commit(vec![delete("a0005")])];
        let results = futures::future::join_all(mixed).await;
        assert!(matches!(results[0], Err(CommitError::StorageFull { .. })), "{:?}", results[0]);
        assert!(results[1].is_ok(), "{:?}", results[1]);
    });
}

#[test]
fn a_snapshot_that_does_not_fit_costs_nothing_but_the_snapshot() {
    let disk = SimulatedDisk::new(0);
    live(async {
        let store = open(&disk).await;
        for at in 0..20 {
            commit(&store, put(&format!("k{at}"), &format!("{at}").repeat(100))).await;
        }
        let before = disk.names();
        disk.set_capacity(disk.used() + 10);
        assert!(matches!(store.snapshot().await, Err(CommitError::StorageFull { .. })));
        assert_eq!(disk.names(), before, "nothing half-written is left");
        disk.set_capacity(usize::MAX);
        assert_eq!(store.snapshot().await.unwrap(), 20);
        commit(&store, put("a", "x")).await;
    });
}

#[test]
fn a_write_that_finds_no_space_in_the_middle_is_cut_back_and_done_later() {
    let disk = SimulatedDisk::new(5);
    live(async {
        let store = open(&disk).await;
        commit(&store, put("a", "x")).await;
        disk.set_write_is_full(true);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.commit(vec![put("b", &"y".repeat(1000))]).await }
        });
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        assert_eq!(value(&store, "a").as_deref(), Some("x"), "reads go on");
        disk.set_write_is_full(false);
        waiting.await.unwrap().unwrap();
        commit(&store, put("c", "z")).await;
    });
    disk.lose_power();
    live(async {
        let store = open(&disk).await;
        assert_eq!(store.revision(), 3);
        assert_eq!(value(&store, "b").map(|value| value.len()), Some(1000));
    });
}
