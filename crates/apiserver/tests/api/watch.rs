//! `watch`: starts, selectors, bookmarks, ends.

use serde_json::json;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, bind, config_map, deployment, pod};

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_is_there() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(lines.said().await, "ADDED a");
    api.make(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(lines.said().await, "ADDED b");
    api.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "2"}})).await;
    assert_eq!(lines.said().await, "MODIFIED a");
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    let deleted = lines.next().await.expect("an event");
    assert_eq!((&deleted["type"], &deleted["object"]["data"]["k"]), (&json!("DELETED"), &json!("2")));
    assert_eq!(
        deleted["object"]["metadata"]["resourceVersion"],
        api.store.revision().to_string(),
        "the revision of its end"
    );
}

#[tokio::test]
async fn a_watch_from_a_revision_sees_what_came_after_it_and_only_its_own_namespace() {
    let api = Api::start().await;
    let list = api.get(CONFIG_MAPS).await.json();
    let revision = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    api.make(CONFIG_MAPS, &config_map("a")).await;
    api.make("/api/v1/namespaces/kube-system/configmaps", &config_map("elsewhere")).await;
    api.make(CONFIG_MAPS, &config_map("b")).await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}")).await;
    assert_eq!((lines.said().await, lines.said().await), ("ADDED a".to_owned(), "ADDED b".to_owned()));
    let mut all = api.watch(&format!("/api/v1/configmaps?watch=true&resourceVersion={revision}")).await;
    assert_eq!((all.said().await, all.said().await), ("ADDED a".to_owned(), "ADDED elsewhere".to_owned()));
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let api = Api::start().await;
    let mut by_label = api.watch(&format!("{PODS}?watch=1&labelSelector=app%3Dp")).await;
    let mut by_node = api.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    let mut unbound = api.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3D").await;
    api.make(PODS, &pod("p")).await;
    assert_eq!(by_label.said().await, "ADDED p");
    assert_eq!(unbound.said().await, "ADDED p");
    bind(&api, "p", "n1").await;
    assert_eq!(by_label.said().await, "MODIFIED p");
    assert_eq!(by_node.said().await, "ADDED p");
    assert_eq!(unbound.said().await, "DELETED p");
    api.merge(&format!("{PODS}/p"), &json!({"metadata": {"labels": {"app": "other"}}})).await;
    assert_eq!(by_label.said().await, "DELETED p");
    assert_eq!(by_node.said().await, "MODIFIED p");
}

#[tokio::test]
async fn a_watch_of_initial_events_says_when_they_end() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(lines.said().await, "ADDED a");
    let end = lines.next().await.expect("a bookmark");
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["metadata"]["resourceVersion"], api.store.revision().to_string());
    api.make(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(lines.said().await, "ADDED b");
    let reply = api.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(reply.code, 400);
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_told_to_list_again() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    api.store.compact(api.store.revision()).expect("everything before now");
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1")).await;
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_watch_that_has_seen_less_than_is_kept_is_closed() {
    let api = Api::start().await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    for name in ["a", "b"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    api.store.compact(api.store.revision()).expect("everything before now");
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_watch_ends_after_the_time_asked_for_and_when_the_server_closes() {
    let api = Api::start().await;
    let mut short = api.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(short.next().await, None);
    let mut long = api.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    api.apiserver.close();
    assert_eq!(long.next().await, None);
}

#[tokio::test]
async fn every_watcher_gets_the_same_bytes() {
    let api = Api::start().await;
    let path = format!("{DEPLOYMENTS}?watch=1");
    let (mut one, mut two) = (api.watch(&path).await, api.watch(&path).await);
    let made = api.make(DEPLOYMENTS, &deployment("web")).await;
    let events = (one.next().await.expect("an event"), two.next().await.expect("an event"));
    assert_eq!(events.0, events.1);
    assert_eq!(events.0["object"], made);
}

#[tokio::test]
async fn one_object_is_watched_by_its_name() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("one")).await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Done")).await;
    assert_eq!(lines.said().await, "ADDED one");
    api.make(CONFIG_MAPS, &config_map("one-more")).await;
    api.delete(&format!("{CONFIG_MAPS}/one")).await;
    assert_eq!(lines.said().await, "DELETED one");
}
