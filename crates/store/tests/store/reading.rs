//! Reads: by prefix, in pages, as of an older revision.

use windlass_store::{Page, Range, ReadError, Store};

use crate::fixture::{commit, delete, fresh, put};

fn keys(page: &Page) -> Vec<String> {
    page.entries.iter().map(|entry| format!("{}@{}", entry.key(), entry.revision)).collect()
}

async fn sample() -> Store {
    let store = fresh().await;
    for op in [
        put("a/1", "x"),
        put("b/1", "x"),
        put("b/2", "x"),
        put("b/3", "x"),
        put("c/1", "x"),
        delete("b/2"),
        put("b/1", "y"),
        put("b/0", "x"),
        put("b/2", "z"),
    ] {
        commit(&store, op).await;
    }
    store
}

#[tokio::test(start_paused = true)]
async fn a_range_shows_its_prefix_in_key_order() {
    let store = sample().await;
    let page = store.range(&Range::prefix("b/")).unwrap();
    assert_eq!(keys(&page), ["b/0@8", "b/1@7", "b/2@9", "b/3@4"]);
    assert_eq!((page.revision, page.remaining), (9, 0));
    assert_eq!(store.range(&Range::default()).unwrap().entries.len(), 6);
    assert!(store.range(&Range::prefix("zz")).unwrap().entries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_range_at_a_revision_shows_what_was_then() {
    let store = sample().await;
    let expected: [&[&str]; 10] = [
        &[],
        &[],
        &["b/1@2"],
        &["b/1@2", "b/2@3"],
        &["b/1@2", "b/2@3", "b/3@4"],
        &["b/1@2", "b/2@3", "b/3@4"],
        &["b/1@2", "b/3@4"],
        &["b/1@7", "b/3@4"],
        &["b/0@8", "b/1@7", "b/3@4"],
        &["b/0@8", "b/1@7", "b/2@9", "b/3@4"],
    ];
    for (at, expected) in expected.iter().enumerate() {
        let page = store.range(&Range { at: Some(at as u64), ..Range::prefix("b/") }).unwrap();
        assert_eq!(keys(&page), *expected, "at {at}");
        assert_eq!(page.revision, at as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_at_one_revision_are_the_whole_of_it_whatever_is_written_meanwhile() {
    let store = fresh().await;
    for at in 0..20 {
        commit(&store, put(&format!("k/{at:02}"), "x")).await;
    }
    let whole = keys(&store.range(&Range::prefix("k/")).unwrap());
    let mut range = Range { limit: 3, ..Range::prefix("k/") };
    let mut seen = Vec::new();
    loop {
        let page = store.range(&range).unwrap();
        seen.extend(keys(&page));
        assert_eq!(page.remaining as usize, whole.len() - seen.len());
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { break };
        range.after = Some(last.key().to_owned());
        range.at = Some(page.revision);
        commit(&store, delete(&format!("k/{:02}", seen.len()))).await;
        commit(&store, put(&format!("k/{:02}-new", seen.len() + 1), "y")).await;
        commit(&store, put("k/19", "changed")).await;
    }
    assert_eq!(seen, whole);
}

#[tokio::test(start_paused = true)]
async fn a_scan_shows_its_revision_whatever_is_written_and_compacted_meanwhile() {
    let store = fresh().await;
    for at in 0..20 {
        commit(&store, put(&format!("k/{at:02}"), "x")).await;
    }
    let now = store.range(&Range::prefix("k/")).unwrap();
    for at in [20, 12] {
        let whole = keys(&store.range(&Range { at: Some(at), ..Range::prefix("k/") }).unwrap());
        let mut scan = store.scan(&Range { at: Some(at), limit: 1, ..Range::prefix("k/") }).unwrap();
        let mut seen = Vec::new();
        while !scan.is_done() {
            let entries = scan.read(3);
            seen.extend(keys(&Page { entries, ..now.clone() }));
            assert_eq!(scan.remaining() as usize, whole.len() - seen.len());
            commit(&store, delete(&format!("k/{:02}", seen.len() % 20))).await;
            commit(&store, put("k/19", "changed")).await;
        }
        assert!(scan.read(3).is_empty());
        assert_eq!((scan.revision(), seen), (at, whole));
    }
    let mut scan = store.scan(&Range { at: Some(20), ..Range::prefix("k/") }).unwrap();
    store.compact(store.revision()).unwrap();
    assert_eq!(scan.read(usize::MAX).len(), 20, "what has begun can be read to its end");
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_is_compacted_or_does_not_exist_cannot_be_shown() {
    let store = sample().await;
    store.compact(5).unwrap();
    let at = |revision| store.range(&Range { at: Some(revision), ..Range::prefix("b/") });
    assert_eq!(at(4).unwrap_err(), ReadError::Compacted { wanted: 4, oldest: 5 });
    assert_eq!(keys(&at(5).unwrap()), ["b/1@2", "b/2@3", "b/3@4"]);
    assert_eq!(at(10).unwrap_err(), ReadError::Future { wanted: 10, newest: 9 });
    assert_eq!(store.compact(10).unwrap_err(), ReadError::Future { wanted: 10, newest: 9 });
}

#[tokio::test(start_paused = true)]
async fn what_was_derived_from_an_entry_is_shared() {
    let store = sample().await;
    let first = store.get("a/1").unwrap();
    let length = first.memo(|entry| entry.value().len());
    let second = store.get("a/1").unwrap();
    assert!(std::ptr::eq(length, second.memo::<usize>(|_| panic!("derived twice"))));
}
