//! `watch`: starts, selectors, bookmarks, ends.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use windlass_stdx::body_from;

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, Lines, PODS, admin, bind, config_map, deployment, pod};

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
    let blueprint = end["object"]["metadata"]["annotations"]["kubernetes.io/initial-events-list-blueprint"].as_str();
    let blueprint = BASE64.decode(blueprint.expect("a blueprint")).expect("base64");
    let list: serde_json::Value = serde_json::from_slice(&blueprint).expect("a list");
    assert_eq!((&list["kind"], &list["items"]), (&json!("ConfigMapList"), &json!([])));
    let reply = api.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    let expected = "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
                    sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    assert_eq!(reply.said(), expected);
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
    let watch = async || api.send(admin(), Method::GET, &path, &[], body_from("")).await.into_body();
    let (mut one, mut two) = (watch().await, watch().await);
    let made = api.make(DEPLOYMENTS, &deployment("web")).await;
    let next = async |body: &mut windlass_stdx::Body| {
        let frame = tokio::time::timeout(crate::PATIENCE, body.frame()).await.expect("in time").expect("it goes on");
        frame.expect("a frame").into_data().expect("data")
    };
    let (one, two) = (next(&mut one).await, next(&mut two).await);
    assert_eq!(one, two);
    assert_eq!(one.as_ptr(), two.as_ptr(), "encoded once and shared, not made again for each");
    let event: Value = serde_json::from_slice(&one).expect("JSON");
    assert_eq!(event["object"], made);
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

#[tokio::test]
async fn the_old_watch_paths_watch_too() {
    let api = Api::start().await;
    let mut all = api.watch("/api/v1/watch/configmaps?resourceVersion=1").await;
    let mut namespace = api.watch("/api/v1/watch/namespaces/default/configmaps").await;
    let mut one = api.watch("/api/v1/watch/namespaces/default/configmaps/one").await;
    let mut cluster = api.watch("/api/v1/watch/namespaces/kube-system").await;
    let mut group = api.watch("/apis/apps/v1/watch/deployments").await;
    assert_eq!(cluster.said().await, "ADDED kube-system");
    api.make(CONFIG_MAPS, &config_map("one-more")).await;
    api.make(CONFIG_MAPS, &config_map("one")).await;
    api.make(DEPLOYMENTS, &deployment("web")).await;
    assert_eq!((all.said().await, all.said().await), ("ADDED one-more".to_owned(), "ADDED one".to_owned()));
    assert_eq!(namespace.said().await, "ADDED one-more");
    assert_eq!(one.said().await, "ADDED one");
    assert_eq!(group.said().await, "ADDED web");
    for (path, code) in [
        ("/api/v1/watch", 404),
        ("/api/v1/watch/nothing", 404),
        ("/api/v1/watch/namespaces/default/pods/p/status", 404),
    ] {
        assert_eq!(api.get(path).await.code, code, "{path}");
    }
    assert_eq!(api.delete("/api/v1/watch/namespaces/default/configmaps/one").await.code, 405);
}

async fn watch_as(api: &Api, path: &str, accept: &str) -> Lines {
    let response = api.send(admin(), Method::GET, path, &[("accept", accept)], body_from("")).await;
    assert_eq!(response.status(), 200, "watching {path}");
    Lines { body: response.into_body(), rest: Vec::new() }
}

#[tokio::test]
async fn events_and_bookmarks_come_in_the_form_asked_for() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let revision = api.store.revision().to_string();
    let mut table = watch_as(&api, &path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let added = table.next().await.expect("an event");
    assert_eq!((&added["object"]["kind"], &added["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let end = table.next().await.expect("a bookmark");
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("Table")));
    assert_eq!(end["object"]["metadata"]["resourceVersion"], revision);
    let row = &end["object"]["rows"][0]["object"]["metadata"];
    assert_eq!(
        (&row["resourceVersion"], &row["annotations"]["k8s.io/initial-events-end"]),
        (&json!(revision), &json!("true"))
    );

    let mut partial = watch_as(&api, &path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    let added = partial.next().await.expect("an event")["object"].clone();
    assert_eq!((&added["kind"], added.get("data")), (&json!("PartialObjectMetadata"), None));
    let end = partial.next().await.expect("a bookmark")["object"].clone();
    assert_eq!((&end["kind"], &end["apiVersion"]), (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1")));
    assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(table.next().await.expect("an event")["type"], "DELETED");
    let gone = partial.next().await.expect("an event");
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("a")));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_learns_how_far_it_is() {
    let api = Api::start().await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=300")).await;
    api.make("/api/v1/namespaces/kube-system/configmaps", &config_map("elsewhere")).await;
    let revision = api.store.revision().to_string();
    let mut marks = 0;
    // Not `next`: its patience is shorter than the pause between two bookmarks.
    while let Some(frame) = lines.body.frame().await {
        let line = frame.expect("a watch does not break").into_data().expect("a watch has no trailers");
        let mark: Value = serde_json::from_slice(&line).expect("a line of a watch is JSON");
        assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
        assert_eq!(mark["object"]["metadata"]["resourceVersion"], revision);
        marks += 1;
    }
    assert!((3..=5).contains(&marks), "{marks} bookmarks in five minutes");
}

/// What is present and does not match is no reason to forget the time.
#[tokio::test(start_paused = true)]
async fn a_watch_whose_selector_leaves_out_all_that_is_present_ends_in_time() {
    let api = Api::start().await;
    api.make(CONFIG_MAPS, &config_map("c")).await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=watched&timeoutSeconds=30")).await;
    let begun = tokio::time::Instant::now();
    while lines.body.frame().await.is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(31), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_leaves_a_selector_is_deleted_at_the_revision_of_the_change() {
    let api = Api::start().await;
    let mut object = config_map("c");
    object["metadata"]["labels"] = json!({"watched": "yes"});
    api.make(CONFIG_MAPS, &object).await;
    let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=watched%3Dyes")).await;
    assert_eq!(lines.said().await, "ADDED c");
    let changed =
        api.merge(&format!("{CONFIG_MAPS}/c"), &json!({"metadata": {"labels": {"watched": "no"}}})).await.json();
    let gone = lines.next().await.expect("an event");
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["labels"]["watched"]), (&json!("DELETED"), &json!("yes")));
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    api.merge(&format!("{CONFIG_MAPS}/c"), &json!({"data": {"unseen": "1"}})).await;
    api.merge(&format!("{CONFIG_MAPS}/c"), &json!({"metadata": {"labels": {"watched": "yes"}}})).await;
    assert_eq!(lines.said().await, "ADDED c");
}

/// Conformance: "watch-consistency", "watch-configmaps-closed-and-restarted".
#[tokio::test]
async fn watches_begun_at_each_event_see_the_same_order() {
    let api = Api::start().await;
    let list = api.get(CONFIG_MAPS).await.json();
    let start = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    for index in 0..5 {
        let name = format!("c{index}");
        api.make(CONFIG_MAPS, &config_map(&name)).await;
        api.merge(&format!("{CONFIG_MAPS}/{name}"), &json!({"data": {"k": "2"}})).await;
        if index % 2 == 0 {
            api.delete(&format!("{CONFIG_MAPS}/{name}")).await;
        }
    }
    async fn revisions(api: &Api, from: &str, count: usize) -> Vec<String> {
        let mut lines = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}")).await;
        let mut found = Vec::new();
        for _ in 0..count {
            let event: Value = lines.next().await.expect("an event");
            found.push(event["object"]["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned());
        }
        found
    }
    let all = revisions(&api, &start, 13).await;
    for (index, revision) in all.iter().enumerate() {
        assert_eq!(revisions(&api, revision, 12 - index).await, all[index + 1..], "after {revision}");
    }
}
