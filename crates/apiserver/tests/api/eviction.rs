//! `pods/eviction`: budgets allow, refuse and are charged.

use serde_json::{Value, json};

use crate::{Api, PODS, Reply, bind, pod};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn budget(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}})
}

/// Writes the status that the budgets' controller would.
async fn count(api: &Api, name: &str, status: Value) {
    let reply = api.merge(&format!("{BUDGETS}/{name}/status"), &json!({ "status": status })).await;
    assert_eq!(reply.said(), "200");
}

/// A pod that runs on a node.
async fn run(api: &Api, name: &str, ready: &str) {
    api.make(PODS, &pod(name)).await;
    bind(api, name, "n").await;
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
    let reply = api.merge(&format!("{PODS}/{name}/status"), &json!({ "status": status })).await;
    assert_eq!(reply.said(), "200");
}

async fn evict(api: &Api, name: &str, query: &str) -> Reply {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    api.post(&format!("{PODS}/{name}/eviction{query}"), &eviction).await
}

async fn is_ending(api: &Api, name: &str) -> bool {
    let pod = api.get(&format!("{PODS}/{name}")).await;
    pod.code == 404 || pod.json()["metadata"]["deletionTimestamp"].is_string()
}

#[tokio::test]
async fn e1_a_pod_that_does_not_run_goes_at_once() {
    let api = Api::start().await;
    api.make(BUDGETS, &budget("b", "web")).await;
    api.make(PODS, &pod("web")).await;
    assert_eq!(evict(&api, "web", "").await.said(), "201");
    assert!(is_ending(&api, "web").await);
}

#[tokio::test]
async fn e2_several_budgets_cannot_be_charged() {
    let api = Api::start().await;
    api.make(BUDGETS, &budget("b", "web")).await;
    api.make(BUDGETS, &budget("c", "web")).await;
    run(&api, "web", "True").await;
    let reply = evict(&api, "web", "").await;
    assert_eq!(reply.code, 500);
    assert!(reply.text().contains("more than one PodDisruptionBudget"), "{}", reply.text());
}

#[tokio::test]
async fn e3_a_pod_that_is_not_ready_goes_where_nobody_misses_it() {
    let api = Api::start().await;
    api.make(BUDGETS, &budget("b", "web")).await;
    run(&api, "web", "False").await;
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1});
    count(&api, "b", status).await;
    assert_eq!(evict(&api, "web", "").await.code, 429);
    let met = json!({"currentHealthy": 1});
    count(&api, "b", met).await;
    assert_eq!(evict(&api, "web", "?dryRun=All").await.said(), "201");
    assert!(!is_ending(&api, "web").await, "a dry run ends nothing");
    count(&api, "b", json!({"currentHealthy": 0})).await;
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    assert_eq!(api.merge(&format!("{BUDGETS}/b"), &always).await.said(), "200");
    assert_eq!(evict(&api, "web", "").await.said(), "201");
    assert!(is_ending(&api, "web").await);
}

#[tokio::test]
async fn e4_a_budget_that_allows_nothing_refuses() {
    let api = Api::start().await;
    api.make(BUDGETS, &budget("b", "web")).await;
    run(&api, "web", "True").await;
    let reply = evict(&api, "web", "").await;
    assert_eq!(reply.said(), "429 TooManyRequests: Cannot evict pod as it would violate the pod's disruption budget.");
    let details = reply.json()["details"].clone();
    assert_eq!(details["retryAfterSeconds"], 10);
    assert_eq!(
        details["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget b is still being processed by the server."}])
    );
    count(
        &api,
        "b",
        json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1}),
    )
    .await;
    let cause = evict(&api, "web", "").await.json()["details"]["causes"][0].clone();
    assert_eq!(cause["message"], "The disruption budget b needs 1 healthy pods and has 1 currently");
    assert!(!is_ending(&api, "web").await);
}

#[tokio::test]
async fn e5_and_e6_an_eviction_charges_its_budget_once_and_says_why_the_pod_ends() {
    let api = Api::start().await;
    api.make(BUDGETS, &budget("b", "web")).await;
    run(&api, "web", "True").await;
    count(
        &api,
        "b",
        json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1}),
    )
    .await;
    assert_eq!(evict(&api, "web", "?dryRun=All").await.said(), "201");
    assert_eq!(api.get(&format!("{BUDGETS}/b")).await.json()["status"]["disruptionsAllowed"], 1);
    let before = api.store.revision();
    assert_eq!(evict(&api, "web", "").await.said(), "201");
    assert_eq!(api.store.revision(), before + 1, "pod and budget change together");
    let status = api.get(&format!("{BUDGETS}/b")).await.json()["status"].clone();
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"]["web"].is_string(), "{status}");
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
    let pod = api.get(&format!("{PODS}/web")).await.json();
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|condition| condition["reason"] == "EvictionByEvictionAPI"), "{pod}");
    assert_eq!(evict(&api, "web", "").await.said(), "201", "a pod that is ending already is not charged again");
    assert_eq!(api.get(&format!("{BUDGETS}/b")).await.json()["status"]["disruptionsAllowed"], 0);
}
