//! PodDisruptionBudget: its life, collections and status, and what it means for evictions.

use serde_json::{Value, json};

use crate::api::{MERGE, Reply};
use crate::walk::{Walk, condition};
use crate::{Test, pod};

fn row(test: &Test) -> Walk {
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "none"}}});
    Walk::namespaced(test, "policy/v1", "poddisruptionbudgets", json!({"spec": spec}))
        .change(json!({"spec": {"minAvailable": "70%"}}))
        .status(condition("StatusPatched"), condition("StatusReplaced"))
}

pub async fn a_budget_lives(test: &Test) {
    row(test).lives(test).await;
}

pub async fn many_are_listed_and_deleted(test: &Test) {
    row(test).collection(test).await;
}

pub async fn the_status_is_read_patched_and_replaced(test: &Test) {
    row(test).has_status(test).await;
}

/// A budget for the ready pods with label `app: budgeted`; gives its path.
async fn a_budget(test: &Test, spec: Value, pods: usize) -> String {
    let path = test.path("v1", "pods");
    for at in 0..pods {
        let name = format!("budgeted-{at}");
        test.api.create(&path, &pod::named(&name, "budgeted")).await.ok();
        pod::make_ready(test, &name, &format!("192.0.2.{}", at + 1)).await;
    }
    let mut object = json!({"metadata": {"name": "budget"}, "spec": spec});
    object["spec"]["selector"] = json!({"matchLabels": {"app": "budgeted"}});
    let budgets = test.path("policy/v1", "poddisruptionbudgets");
    test.api.create(&budgets, &object).await.ok();
    format!("{budgets}/budget")
}

/// Waits until this many disruptions are allowed, of the budget as it is now.
async fn allows(test: &Test, budget: &str, disruptions: i64) -> Value {
    let counted = |reply: &Reply| {
        let found = reply.json();
        found["status"]["observedGeneration"] == found["metadata"]["generation"]
            && found["status"]["disruptionsAllowed"] == disruptions
    };
    test.api.until(budget, &format!("allowing {disruptions}"), counted).await.json()
}

pub async fn the_status_counts_the_pods(test: &Test) {
    let budget = a_budget(test, json!({"minAvailable": 1}), 3).await;
    let found = allows(test, &budget, 2).await;
    let status = &found["status"];
    let counts = ["currentHealthy", "desiredHealthy", "expectedPods"].map(|count| status[count].as_i64());
    assert_eq!(counts, [Some(3), Some(1), Some(3)]);
    let said = &status["conditions"][0];
    assert_eq!((&said["type"], &said["status"]), (&json!("DisruptionAllowed"), &json!("True")));
    test.api.delete(&format!("{}/budgeted-0", test.path("v1", "pods"))).await.ok();
    allows(test, &budget, 1).await;
}

async fn evict(test: &Test, name: &str) -> Reply {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    test.api.create(&format!("{}/{name}/eviction", test.path("v1", "pods")), &eviction).await
}

pub async fn an_eviction_waits_for_its_budget(test: &Test) {
    let budget = a_budget(test, json!({"minAvailable": 3}), 3).await;
    allows(test, &budget, 0).await;
    evict(test, "budgeted-0").await.refused(429);
    test.api.patch(&budget, MERGE, &json!({"spec": {"minAvailable": 2}})).await.ok();
    allows(test, &budget, 1).await;
    let pods = test.path("v1", "pods");
    assert!(evict(test, "budgeted-0").await.code.is_success());
    test.api.until_gone(&format!("{pods}/budgeted-0")).await;
    allows(test, &budget, 0).await;
    evict(test, "budgeted-1").await.refused(429);
    test.api.delete(&budget).await.ok();
    test.api.until_gone(&budget).await;
    assert!(evict(test, "budgeted-1").await.code.is_success());
    test.api.until_gone(&format!("{pods}/budgeted-1")).await;
}
