//! Kinds that are stored in another version than they are served in.

use serde_json::{Value, json};

use crate::{Api, Reply};

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const OLDER_AUTOSCALERS: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";

fn event(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": name},
        "reason": "R", "message": "m", "type": "Normal",
    })
}

/// What an object says of its version.
fn version(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", text("apiVersion"), text("message"), text("note"))
}

fn items(reply: &Reply) -> Vec<String> {
    reply.json()["items"].as_array().expect("a list").iter().map(version).collect()
}

#[tokio::test]
async fn one_object_is_read_in_every_version() {
    let api = Api::start().await;
    let made = api.make(OLD, &event("a")).await;
    let newer = api.get(&format!("{NEW}/a")).await.json();
    assert_eq!((version(&made), version(&newer)), ("v1 m -".to_owned(), "events.k8s.io/v1 - m".to_owned()));
    assert_eq!(newer["metadata"], made["metadata"], "metadata is the same in all versions");
    assert_eq!((items(&api.get(OLD).await), items(&api.get(NEW).await)), (vec![version(&made)], vec![version(&newer)]));
}

#[tokio::test]
async fn selectors_look_at_the_served_version() {
    let api = Api::start().await;
    for name in ["a", "b"] {
        api.make(OLD, &event(name)).await;
    }
    let found = api.get(&format!("{NEW}?fieldSelector=regarding.name=b&limit=5")).await;
    assert_eq!(found.json()["items"][0]["metadata"]["name"], "b");
    assert_eq!(items(&found).len(), 1);
}

#[tokio::test]
async fn a_write_through_one_version_is_seen_in_the_other() {
    let api = Api::start().await;
    api.make(OLD, &event("a")).await;
    let patched = api.merge(&format!("{NEW}/a"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((patched.said(), version(&patched.json())), ("200".to_owned(), "events.k8s.io/v1 - m".to_owned()));
    let stored = api.get(&format!("{OLD}/a")).await.json();
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(stored["metadata"], patched.json()["metadata"]);
    let gone = api.delete(&format!("{NEW}/a")).await;
    assert_eq!((gone.said(), api.get(&format!("{OLD}/a")).await.code.as_u16()), ("200".to_owned(), 404));
}

#[tokio::test]
async fn a_watch_shows_its_own_version() {
    let api = Api::start().await;
    api.make(OLD, &event("a")).await;
    let mut watches = [api.watch(&format!("{NEW}?watch=1")).await, api.watch(&format!("{OLD}?watch=1")).await];
    api.make(OLD, &event("b")).await;
    api.delete(&format!("{OLD}/a")).await;
    for (lines, shown) in watches.iter_mut().zip(["events.k8s.io/v1 - m", "v1 m -"]) {
        for wanted in ["ADDED a", "ADDED b", "DELETED a"] {
            let event = lines.next().await.expect("the watch goes on");
            let name = event["object"]["metadata"]["name"].as_str().expect("a name");
            assert_eq!(format!("{} {name}", event["type"].as_str().expect("a type")), wanted);
            assert_eq!(version(&event["object"]), shown);
        }
    }
}

/// What is only in the stored version survives a write through an older one that does not touch it.
#[tokio::test]
async fn an_autoscaler_changed_through_its_older_version_keeps_its_metrics_and_its_status() {
    let api = Api::start().await;
    let metric = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    let spec = json!({
        "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [metric],
        "behavior": {"scaleDown": {"selectPolicy": "Disabled"}},
    });
    let made = api.make(AUTOSCALERS, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
    let conditions = json!([{"type": "AbleToScale", "status": "True"}]);
    let status = json!({"status": {"currentReplicas": 1, "desiredReplicas": 2, "conditions": conditions}});
    assert_eq!(api.merge(&format!("{AUTOSCALERS}/a/status"), &status).await.said(), "200");
    let (path, older) = (format!("{AUTOSCALERS}/a"), format!("{OLDER_AUTOSCALERS}/a"));

    // An older client that sends back the annotations of the spec, and none of the status.
    let mut wished = api.get(&older).await.json();
    assert_eq!(wished["spec"].get("metrics"), None);
    wished["spec"]["maxReplicas"] = json!(5);
    let annotations = wished["metadata"]["annotations"].as_object_mut().expect("annotations");
    annotations.remove("autoscaling.alpha.kubernetes.io/conditions").expect("the conditions");
    assert_eq!(api.put(&older, &wished).await.said(), "200");
    let after = api.get(&path).await.json();
    assert_eq!(after["spec"]["maxReplicas"], 5);
    assert_eq!(
        (&after["spec"]["metrics"], &after["spec"]["behavior"]),
        (&made["spec"]["metrics"], &made["spec"]["behavior"])
    );
    assert_eq!(after["status"]["conditions"], conditions);
    assert_eq!(after["metadata"].get("annotations"), None);

    // The status' part says nothing of the spec.
    let patch = json!({
        "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": null}},
        "status": {"currentCPUUtilizationPercentage": 40},
    });
    assert_eq!(api.merge(&format!("{older}/status"), &patch).await.said(), "200");
    let after = api.get(&path).await.json();
    assert_eq!(after["spec"]["metrics"], made["spec"]["metrics"]);
    assert_eq!(after["status"]["currentMetrics"][0]["resource"]["current"], json!({"averageUtilization": 40}));
}
