//! Watches: every change once, in order, by selector, from any revision that is kept.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;

fn config_map(name: &str, label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"watched": label}}})
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("an object has a revision")
}

pub async fn watchers_with_different_selectors_see_their_own(test: &Test) {
    let path = test.path("v1", "configmaps");
    let mut a = test.api.watch(&path, "labelSelector=watched%3Da").await;
    let mut b = test.api.watch(&path, "labelSelector=watched%3Db").await;
    let mut both = test.api.watch(&path, "labelSelector=watched+in+(a,b)").await;
    for (name, label) in [("a", "a"), ("b", "b")] {
        test.api.create(&path, &config_map(name, label)).await.ok();
        let one = format!("{path}/{name}");
        for round in ["1", "2"] {
            test.api.patch(&one, MERGE, &json!({"data": {"mutation": round}})).await.ok();
        }
        test.api.delete(&one).await.ok();
    }
    for kind in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(a.expect(kind).await["metadata"]["name"], "a");
        assert_eq!(b.expect(kind).await["metadata"]["name"], "b");
    }
    for name in ["a", "b"] {
        for kind in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
            assert_eq!(both.expect(kind).await["metadata"]["name"], name);
        }
    }
}

pub async fn a_watch_starts_after_a_revision(test: &Test) {
    let path = test.path("v1", "configmaps");
    test.api.create(&path, &config_map("c", "a")).await.ok();
    let one = format!("{path}/c");
    let first = test.api.patch(&one, MERGE, &json!({"data": {"mutation": "1"}})).await.ok();
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "2"}})).await.ok();
    test.api.delete(&one).await.ok();
    let query = format!("labelSelector=watched%3Da&resourceVersion={}", revision(&first));
    let mut watch = test.api.watch(&path, &query).await;
    assert_eq!(watch.expect("MODIFIED").await["data"]["mutation"], "2");
    assert_eq!(watch.expect("DELETED").await["data"]["mutation"], "2");
}

pub async fn a_watch_goes_on_where_another_ended(test: &Test) {
    let path = test.path("v1", "configmaps");
    let selector = "labelSelector=watched%3Da";
    let mut watch = test.api.watch(&path, selector).await;
    test.api.create(&path, &config_map("c", "a")).await.ok();
    let one = format!("{path}/c");
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "1"}})).await.ok();
    watch.expect("ADDED").await;
    let last = watch.expect("MODIFIED").await;
    drop(watch);
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "2"}})).await.ok();
    test.api.delete(&one).await.ok();
    let mut watch = test.api.watch(&path, &format!("{selector}&resourceVersion={}", revision(&last))).await;
    assert_eq!(watch.expect("MODIFIED").await["data"]["mutation"], "2");
    watch.expect("DELETED").await;
}

pub async fn an_object_that_leaves_the_selector_is_deleted(test: &Test) {
    let path = test.path("v1", "configmaps");
    let mut watch = test.api.watch(&path, "labelSelector=watched%3Da").await;
    test.api.create(&path, &config_map("c", "a")).await.ok();
    let one = format!("{path}/c");
    let label = |label: &str| json!({"metadata": {"labels": {"watched": label}}});
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "1"}})).await.ok();
    let left = test.api.patch(&one, MERGE, &label("b")).await.ok();
    watch.expect("ADDED").await;
    watch.expect("MODIFIED").await;
    let gone = watch.expect("DELETED").await;
    assert_eq!(revision(&gone), revision(&left), "the event has the revision of the change that took it out");
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "2"}})).await.ok();
    test.api.patch(&one, MERGE, &label("a")).await.ok();
    let back = watch.expect("ADDED").await;
    assert_eq!(back["data"]["mutation"], "2", "changes outside the selector are not told, but kept");
    test.api.patch(&one, MERGE, &json!({"data": {"mutation": "3"}})).await.ok();
    test.api.delete(&one).await.ok();
    watch.expect("MODIFIED").await;
    watch.expect("DELETED").await;
}

pub async fn all_watchers_see_the_same_order(test: &Test) {
    const CHANGES: usize = 50;
    let path = test.path("v1", "configmaps");
    let start = test.api.get(&path).await.ok();
    let changing = async {
        for number in 0..CHANGES {
            let name = format!("c{}", number % 5);
            let one = format!("{path}/{name}");
            match number / 5 % 3 {
                0 => drop(test.api.create(&path, &config_map(&name, "a")).await.ok()),
                1 => drop(test.api.patch(&one, MERGE, &json!({"data": {"n": number.to_string()}})).await.ok()),
                _ => drop(test.api.delete(&one).await.ok()),
            }
        }
    };
    let watching = async {
        let mut orders: Vec<Vec<String>> = Vec::new();
        let mut from = revision(&start).to_owned();
        for _ in 0..5 {
            let mut watch = test.api.watch(&path, &format!("resourceVersion={}", revision(&start))).await;
            let mut order = Vec::new();
            while order.len() < CHANGES {
                let (_, object) = watch.next().await.expect("the watch goes on");
                if object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with('c')) {
                    order.push(revision(&object).to_owned());
                }
            }
            from.clone_from(order.first().expect("at least one change"));
            orders.push(order);
        }
        (from, orders)
    };
    let ((), (_, orders)) = tokio::join!(changing, watching);
    for order in &orders {
        assert_eq!(order, &orders[0]);
        assert!(order.is_sorted_by_key(|revision| revision.parse::<u64>().ok()), "{order:?}");
    }
}
