//! Watches: every change, once, in order, or an error.

use std::time::Duration;

use windlass_store::{Event, Limits, ReadError, SimulatedDisk, Store, Watch, WatchError};

use crate::fixture::{commit, delete, fresh, open, put, small, try_open};

fn text(event: &Event) -> String {
    let sign = if event.entry.is_none() { '-' } else { '+' };
    format!("{sign}{}@{}", event.key(), event.revision)
}

async fn next(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("an event in time");
        seen.push(text(&event.unwrap()));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_the_changes_of_its_prefix_after_its_start() {
    let store = fresh().await;
    commit(&store, put("a/1", "x")).await;
    let mut all = store.watch("", 0).unwrap();
    let mut later = store.watch("a/", 1).unwrap();
    commit(&store, put("b/1", "x")).await;
    store.commit(vec![put("a/2", "x"), delete("a/1")]).await.unwrap();
    assert_eq!(next(&mut all, 4).await, ["+a/1@1", "+b/1@2", "+a/2@3", "-a/1@3"]);
    assert_eq!(next(&mut later, 2).await, ["+a/2@3", "-a/1@3"]);
    assert!(later.try_next().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_event_knows_the_entry_before_it() {
    let store = fresh().await;
    let mut watch = store.watch("", 0).unwrap();
    for op in [put("a", "1"), put("a", "2"), delete("a")] {
        commit(&store, op).await;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap();
        seen.push((event.previous.as_ref().map(|e| e.revision), event.entry.as_ref().map(|e| e.revision)));
    }
    assert_eq!(seen, [(None, Some(1)), (Some(1), Some(2)), (Some(2), None)]);
}

#[tokio::test(start_paused = true)]
async fn no_watch_misses_or_repeats_a_change_under_concurrent_commits() {
    let store = fresh().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0..50 {
                    store.commit(vec![put(&format!("p{}/{writer}-{at}", at % 3), "x")]).await.unwrap();
                }
            })
        })
        .collect();
    let watchers: Vec<_> = (0..30).map(|number| tokio::spawn(follow(store.clone(), number))).collect();
    for task in writers {
        task.await.unwrap();
    }
    assert_eq!(store.revision(), 400);
    for task in watchers {
        task.await.unwrap();
    }
}

/// Begins somewhere, reads at its own pace, and compares with what the store has in the end.
async fn follow(store: Store, number: u64) {
    for _ in 0..number {
        tokio::task::yield_now().await;
    }
    let prefix = ["", "p0/", "p1/", "p2/"][number as usize % 4];
    let after = store.revision() / 2;
    let mut watch = store.watch(prefix, after).unwrap();
    let mut seen = Vec::new();
    let wanted = async {
        while watch.progress() < 400 {
            tokio::select! {
                biased;
                event = watch.next() => seen.push(text(&event.unwrap())),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            if number.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wanted).await.expect("the watch catches up");
    let page = store.range(&windlass_store::Range::prefix(prefix)).unwrap();
    let mut expected: Vec<_> = page.entries.iter().filter(|entry| entry.revision > after).collect();
    expected.sort_by_key(|entry| entry.revision);
    let expected: Vec<_> = expected.iter().map(|entry| format!("+{}@{}", entry.key(), entry.revision)).collect();
    assert_eq!(seen, expected, "watcher {number} of {prefix:?} after {after}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_outlives_any_amount_of_other_changes() {
    let limits = Limits { history_events_max: 8, ..small() };
    let store = try_open(&SimulatedDisk::new(0), limits).await.unwrap();
    let mut quiet = store.watch("quiet/", 0).unwrap();
    assert!(quiet.try_next().unwrap().is_none());
    for at in 0..50 {
        commit(&store, put(&format!("loud/{at}"), "x")).await;
        tokio::task::yield_now().await;
    }
    commit(&store, put("quiet/1", "x")).await;
    assert_eq!(next(&mut quiet, 1).await, ["+quiet/1@51"]);
    assert!(quiet.try_next().unwrap().is_none());
    assert_eq!(quiet.progress(), 51);
}

#[tokio::test(start_paused = true)]
async fn progress_never_promises_what_was_not_given_out() {
    let store = fresh().await;
    store.commit(vec![put("a/1", "x"), put("a/2", "x")]).await.unwrap();
    commit(&store, put("b/1", "x")).await;
    let mut watch = store.watch("a/", 0).unwrap();
    assert_eq!(watch.progress(), 0);
    next(&mut watch, 1).await;
    assert_eq!(watch.progress(), 0, "the other half of revision 1 is not out yet");
    next(&mut watch, 1).await;
    assert!(watch.try_next().unwrap().is_none());
    assert_eq!(watch.progress(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_behind_the_history_ends() {
    let limits = Limits { history_events_max: 8, ..small() };
    let store = try_open(&SimulatedDisk::new(0), limits).await.unwrap();
    let mut slow = store.watch("", 0).unwrap();
    for at in 0..9 {
        commit(&store, put(&format!("k{at}"), "x")).await;
    }
    assert_eq!(slow.next().await.unwrap_err(), WatchError::Lagged { seen: 0 });
    assert_eq!(store.watch("", 0).err(), Some(ReadError::Compacted { wanted: 0, oldest: 1 }));
    assert_eq!(next(&mut store.watch("", 1).unwrap(), 1).await, ["+k1@2"]);
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded_by_the_bytes_it_keeps_alive() {
    let limits = Limits { history_bytes_max: 10_000, ..small() };
    let store = try_open(&SimulatedDisk::new(0), limits).await.unwrap();
    for _ in 0..50 {
        commit(&store, put("a", &"x".repeat(1000))).await;
    }
    let stats = store.stats();
    assert!(stats.history_bytes <= 10_000 && stats.history_events > 5, "{stats:?}");
    assert_eq!(stats.compacted, 50 - stats.history_events as u64);
}

#[tokio::test(start_paused = true)]
async fn compaction_ends_watches_that_have_not_seen_it_and_spares_the_others() {
    let store = fresh().await;
    let mut behind = store.watch("", 0).unwrap();
    for at in 0..5 {
        commit(&store, put(&format!("k{at}"), "x")).await;
    }
    let mut ahead = store.watch("", 3).unwrap();
    store.compact(3).unwrap();
    assert_eq!(behind.next().await.unwrap_err(), WatchError::Compacted { seen: 0 });
    assert_eq!(next(&mut ahead, 2).await, ["+k3@4", "+k4@5"]);
    assert_eq!(store.watch("", 6).err(), Some(ReadError::Future { wanted: 6, newest: 5 }));
}

#[tokio::test(start_paused = true)]
async fn compaction_does_not_disturb_watches_that_it_does_not_concern() {
    let store = fresh().await;
    let mut quiet = store.watch("quiet/", 0).unwrap();
    assert!(quiet.try_next().unwrap().is_none());
    commit(&store, put("loud/1", "x")).await;
    store.compact(1).unwrap();
    commit(&store, put("quiet/1", "x")).await;
    assert_eq!(next(&mut quiet, 1).await, ["+quiet/1@2"]);
}

#[tokio::test(start_paused = true)]
async fn closing_gives_out_what_was_published_and_then_ends_the_watch() {
    let store = fresh().await;
    let mut watch = store.watch("", 0).unwrap();
    let mut idle = store.watch("other/", 0).unwrap();
    assert!(idle.try_next().unwrap().is_none());
    commit(&store, put("a", "x")).await;
    let waiting = tokio::spawn(async move { idle.next().await });
    store.close().await;
    assert_eq!(next(&mut watch, 1).await, ["+a@1"]);
    assert!(matches!(watch.next().await, Err(WatchError::Closed(_))));
    assert!(matches!(waiting.await.unwrap(), Err(WatchError::Closed(_))));
    assert!(matches!(store.watch("", 0), Err(ReadError::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_over_a_restart_as_far_as_the_log_reaches() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    for at in 0..5 {
        commit(&store, put(&format!("k{at}"), "x")).await;
    }
    store.close().await;
    let store = open(&disk).await;
    assert_eq!(next(&mut store.watch("", 2).unwrap(), 3).await, ["+k2@3", "+k3@4", "+k4@5"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_watches_are_forgotten() {
    let store = fresh().await;
    let watches: Vec<_> = (0..100).map(|at| store.watch(&format!("p{}/", at % 7), 0).unwrap()).collect();
    assert_eq!(store.stats().watches, 100);
    drop(watches);
    assert_eq!(store.stats().watches, 0);
}
