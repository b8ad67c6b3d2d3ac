//! Transactions: atomic, in one order, as expected or not at all.

use windlass_store::{CommitError, Expect, Op, SimulatedDisk, Template};

use crate::fixture::{commit, delete, fresh, open, put, value};

#[tokio::test(start_paused = true)]
async fn every_successful_transaction_takes_the_next_revision() {
    let store = fresh().await;
    assert_eq!(store.revision(), 0);
    for expected in 1..=5 {
        assert_eq!(commit(&store, put("a", "x")).await.revision, expected);
    }
    assert_eq!(store.revision(), 5);
    assert_eq!(store.get("a").unwrap().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_changes_nothing_takes_no_revision() {
    let store = fresh().await;
    commit(&store, put("a", "x")).await;
    assert_eq!(commit(&store, delete("absent")).await.revision, 1);
    let checked = commit(&store, Op::check("a", Expect::Revision(1))).await;
    assert_eq!((checked.revision, checked.entries[0].as_ref().unwrap().revision), (1, 1));
    assert_eq!(commit(&store, put("b", "y")).await.revision, 2);
}

#[tokio::test(start_paused = true)]
async fn all_operations_of_a_transaction_carry_one_revision() {
    let store = fresh().await;
    commit(&store, put("gone", "x")).await;
    let committed = store.commit(vec![put("b", "1"), delete("gone"), put("a", "2")]).await.unwrap();
    let revisions: Vec<_> = committed.entries.iter().map(|entry| entry.as_ref().unwrap().revision).collect();
    assert_eq!((committed.revision, revisions), (2, vec![2, 1, 2]));
    assert_eq!((value(&store, "a"), value(&store, "gone")), (Some("2".to_owned()), None));
}

#[tokio::test(start_paused = true)]
async fn a_failed_expectation_changes_nothing_and_names_what_stands_in_the_way() {
    let store = fresh().await;
    commit(&store, put("a", "x")).await;
    let cases = [
        (Expect::Absent, "a", true),
        (Expect::Exists, "b", false),
        (Expect::Revision(7), "a", true),
        (Expect::Revision(1), "b", false),
    ];
    for (expect, key, is_found) in cases {
        let ops = vec![put("other", "y"), Op::put(key, Template::plain("z"), expect)];
        match store.commit(ops).await {
            Err(CommitError::Conflict { index: 1, key: named, found }) => {
                assert_eq!((&*named, found.is_some()), (key, is_found), "{expect:?}");
            }
            other => panic!("{expect:?} on {key}: {other:?}"),
        }
        assert_eq!((store.revision(), value(&store, "other")), (1, None), "{expect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expectation_that_holds_lets_the_transaction_through() {
    let store = fresh().await;
    commit(&store, Op::put("a", Template::plain("x"), Expect::Absent)).await;
    commit(&store, Op::put("a", Template::plain("y"), Expect::Revision(1))).await;
    commit(&store, Op::put("a", Template::plain("z"), Expect::Exists)).await;
    commit(&store, Op::delete("a", Expect::Revision(3))).await;
    assert_eq!((store.revision(), store.get("a").is_none()), (4, true));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_made_anew_has_a_new_creation_revision() {
    let store = fresh().await;
    for op in [put("a", "x"), delete("a"), put("a", "y")] {
        commit(&store, op).await;
    }
    assert_eq!(store.get("a").unwrap().created, 3);
}

#[tokio::test(start_paused = true)]
async fn the_revision_is_spliced_into_the_value() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    for _ in 0..9 {
        commit(&store, put("filler", "x")).await;
    }
    let template = Template::with_revision_at("{\"resourceVersion\":\"\"}", 20);
    commit(&store, Op::put("a", template, Expect::Any)).await;
    assert_eq!(value(&store, "a").unwrap(), "{\"resourceVersion\":\"10\"}");
    assert_eq!(&store.get("a").unwrap().value_at(123)[..], b"{\"resourceVersion\":\"123\"}");
    store.snapshot().await.unwrap();
    store.close().await;
    let store = open(&disk).await;
    assert_eq!(&store.get("a").unwrap().value_at(9)[..], b"{\"resourceVersion\":\"9\"}");
}

#[tokio::test(start_paused = true)]
async fn malformed_and_oversized_transactions_are_refused() {
    let store = fresh().await;
    let big = "x".repeat((3 << 20) + 1);
    let cases: Vec<(Vec<Op>, &str)> = vec![
        (vec![], "malformed transaction: expected at least one operation, found none"),
        (vec![put("", "x")], "malformed transaction: expected a key, found an empty one"),
        (vec![put("a", "x"), delete("a")], "malformed transaction: key \"a\" is named twice"),
        (vec![put("a", &big)], "the value of \"a\" is 3145729, more than the limit of 3145728"),
        (vec![put(&"k".repeat(1025), "x")], "the length of a key is 1025, more than the limit of 1024"),
        (
            vec![Op::put("a", Template::with_revision_at("xy", 3), Expect::Any)],
            "malformed transaction: the revision of \"a\" stands beyond its value of 2 bytes",
        ),
        (
            (0..6).map(|at| put(&at.to_string(), &big[1..])).collect(),
            "the size of the transaction is 18874510, more than the limit of 16777216",
        ),
        (
            (0..1025).map(|at| delete(&at.to_string())).collect(),
            "the number of operations is 1025, more than the limit of 1024",
        ),
    ];
    for (ops, expected) in cases {
        assert_eq!(store.commit(ops).await.unwrap_err().to_string(), expected);
    }
    assert_eq!(store.revision(), 0);
    commit(&store, put("a", &big[1..])).await;
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_together_share_a_sync() {
    let disk = SimulatedDisk::new(0);
    let store = open(&disk).await;
    let before = disk.syncs();
    let commits = (0..100).map(|at| store.commit(vec![put(&format!("k{at:02}"), "x")]));
    let results = futures::future::join_all(commits).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(store.revision(), 100);
    assert!(disk.syncs() - before < 20, "{} syncs for 100 commits", disk.syncs() - before);
}
