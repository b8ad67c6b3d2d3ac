//! `delete`: preconditions, propagation, finalizers, grace, namespaces, collections.

use http::Method;
use serde_json::{Value, json};

use crate::{Api, CONFIG_MAPS, DEPLOYMENTS, PODS, Reply, bind, config_map, deployment, pod};

async fn delete_with(api: &Api, path: &str, options: Value) -> Reply {
    api.call(Method::DELETE, path, "application/json", options.to_string()).await
}

#[tokio::test]
async fn what_nothing_keeps_is_gone_at_once() {
    let api = Api::start().await;
    let made = api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    let reply = api.delete(&path).await;
    assert_eq!(reply.json()["status"], "Success", "{}", reply.said());
    assert_eq!(reply.json()["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(api.delete(&path).await.said(), "404 NotFound: configmaps \"c\" not found");
}

#[tokio::test]
async fn preconditions_must_hold() {
    let api = Api::start().await;
    let made = api.make(CONFIG_MAPS, &config_map("c")).await;
    let path = format!("{CONFIG_MAPS}/c");
    for wrong in [json!({"uid": "another"}), json!({"resourceVersion": "1"})] {
        let reply = delete_with(&api, &path, json!({"preconditions": wrong})).await;
        assert!(
            reply.said().starts_with("409 Conflict") && reply.said().contains("Precondition failed"),
            "{}",
            reply.said()
        );
    }
    let right = json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
    let dry = delete_with(&api, &path, json!({"preconditions": right, "dryRun": ["All"]})).await;
    assert_eq!(dry.said(), "200");
    assert_eq!(api.get(&path).await.said(), "200", "a dry run deletes nothing");
    assert_eq!(delete_with(&api, &path, json!({"preconditions": right})).await.said(), "200");
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let api = Api::start().await;
    let mut object = config_map("c");
    object["metadata"]["finalizers"] = json!(["example.com/a"]);
    api.make(CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/c");
    let reply = api.delete(&path).await;
    assert!(reply.json()["metadata"]["deletionTimestamp"].is_string(), "{}", reply.text());
    assert_eq!(api.delete(&path).await.json(), reply.json(), "deleting it again changes nothing");
    let more = api.merge(&path, &json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}})).await;
    assert_eq!(more.code, 422, "an ending object takes no new finalizers: {}", more.said());
    let back = api.merge(&path, &json!({"metadata": {"deletionTimestamp": null}})).await;
    assert!(back.json()["metadata"]["deletionTimestamp"].is_string(), "an ending object does not come back");
    let last = api.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(last.said(), "200");
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let api = Api::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        api.make(DEPLOYMENTS, &deployment(&name)).await;
        let path = format!("{DEPLOYMENTS}/{name}");
        let reply = delete_with(&api, &path, json!({"propagationPolicy": policy})).await;
        assert_eq!(reply.json()["metadata"]["finalizers"], json!([finalizer]), "{}", reply.said());
        assert_eq!(reply.json()["metadata"]["generation"], 2);
        let reply = delete_with(&api, &path, json!({"propagationPolicy": "Background"})).await;
        assert_eq!(reply.json()["status"], "Success", "Background takes it off again: {}", reply.text());
        assert_eq!(api.get(&path).await.code, 404);
    }
    api.make(DEPLOYMENTS, &deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(api.delete(&format!("{path}?propagationPolicy=Maybe")).await.code, 400);
    assert_eq!(api.delete(&format!("{path}?propagationPolicy=Background")).await.json()["status"], "Success");
}

#[tokio::test]
async fn a_bound_pod_stays_for_its_grace_and_goes_when_its_node_says_so() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    bind(&api, "p", "n1").await;
    let path = format!("{PODS}/p");
    let reply = api.delete(&path).await;
    assert_eq!(reply.json()["metadata"]["deletionGracePeriodSeconds"], 30, "{}", reply.text());
    let longer = api.delete(&format!("{path}?gracePeriodSeconds=60")).await;
    assert_eq!(longer.json()["metadata"]["deletionGracePeriodSeconds"], 30, "a grace is never made longer");
    let shorter = api.delete(&format!("{path}?gracePeriodSeconds=5")).await;
    assert_eq!(shorter.json()["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(bind(&api, "p", "n2").await.code, 409);
    assert_eq!(api.delete(&format!("{path}?gracePeriodSeconds=0")).await.said(), "200");
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn pods_that_do_not_run_go_at_once() {
    let api = Api::start().await;
    api.make(PODS, &pod("unbound")).await;
    assert_eq!(api.delete(&format!("{PODS}/unbound")).await.json()["kind"], "Pod");
    assert_eq!(api.get(&format!("{PODS}/unbound")).await.code, 404);
    api.make(PODS, &pod("done")).await;
    bind(&api, "done", "n1").await;
    let reply = api.merge(&format!("{PODS}/done/status"), &json!({"status": {"phase": "Succeeded"}})).await;
    assert_eq!(reply.said(), "200");
    api.delete(&format!("{PODS}/done")).await;
    assert_eq!(api.get(&format!("{PODS}/done")).await.code, 404);
}

#[tokio::test]
async fn an_eviction_is_a_deletion() {
    let api = Api::start().await;
    api.make(PODS, &pod("p")).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let reply = api.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!((reply.said().as_str(), reply.json()["status"].as_str()), ("201", Some("Success")));
    assert_eq!(api.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized_and_takes_nothing_meanwhile() {
    let api = Api::start().await;
    let made = api.make("/api/v1/namespaces", &json!({"metadata": {"name": "room"}})).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "room");
    let reply = api.delete("/api/v1/namespaces/room").await;
    assert_eq!(reply.json()["status"]["phase"], "Terminating", "{}", reply.text());
    let refused = api.post("/api/v1/namespaces/room/configmaps", &config_map("late")).await;
    assert_eq!(refused.code, 403);
    assert!(refused.said().contains("because it is being terminated"), "{}", refused.said());
    assert!(refused.said().contains("configmaps \"late\" is forbidden"), "the object is named: {}", refused.said());
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = api.get("/api/v1/namespaces/room").await.json();
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(api.put("/api/v1/namespaces/room/finalize", &finalized).await.said(), "200");
    assert_eq!(api.get("/api/v1/namespaces/room").await.code, 404);
    assert_eq!(api.delete("/api/v1/namespaces/default").await.code, 403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let api = Api::start().await;
    for (name, group) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"group": group});
        api.make(CONFIG_MAPS, &object).await;
    }
    let reply = api.delete(&format!("{CONFIG_MAPS}?labelSelector=group%3Dx")).await;
    assert_eq!(reply.json()["items"].as_array().map(Vec::len), Some(2), "{}", reply.said());
    let left = api.get(CONFIG_MAPS).await.json();
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(api.delete("/api/v1/configmaps").await.code, 405, "never in all namespaces at once");
}

#[tokio::test]
async fn a_name_in_a_create_and_delete_loop_never_comes_back_by_itself() {
    let api = Api::start().await;
    let path = format!("{CONFIG_MAPS}/c");
    for _ in 0..20 {
        let made = api.make(CONFIG_MAPS, &config_map("c")).await;
        let uid = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
        let both = futures::future::join(delete_with(&api, &path, uid.clone()), delete_with(&api, &path, uid)).await;
        let mut codes = [both.0.code.as_u16(), both.1.code.as_u16()];
        codes.sort_unstable();
        assert_eq!(codes, [200, 404]);
        assert_eq!(api.get(&path).await.code, 404);
    }
}
