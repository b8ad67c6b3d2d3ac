//! The parts of a pod that change while it runs: `/ephemeralcontainers` and `/resize`.

use http::Method;
use serde_json::{Value, json};

use crate::Api;

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(api: &Api) -> Value {
    let spec = json!({"containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "1"}}}]});
    api.make(PODS, &json!({"metadata": {"name": "p"}, "spec": spec})).await
}

/// As `kubectl debug` does it.
#[tokio::test]
async fn a_container_is_added_to_a_pod_by_a_strategic_patch() {
    let api = Api::start().await;
    let made = pod(&api).await;
    let patch = json!({
        "metadata": {"labels": {"not": "here"}},
        "spec": {"ephemeralContainers": [{"name": "debug", "image": "tools", "targetContainerName": "c", "stdin": true}]},
    });
    let path = format!("{PODS}/p/ephemeralcontainers");
    let reply = api.call(Method::PATCH, &path, STRATEGIC, patch.to_string()).await;
    assert_eq!(reply.said(), "200");
    let changed = reply.json();
    let added = &changed["spec"]["ephemeralContainers"][0];
    assert_eq!((&added["name"], &added["imagePullPolicy"]), (&json!("debug"), &json!("Always")));
    assert_eq!(changed["metadata"].get("labels"), None);
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["spec"]["containers"], made["spec"]["containers"]);
    assert_eq!(api.get(&path).await.json(), changed);

    let removal = json!({"spec": {"ephemeralContainers": []}});
    assert_eq!(api.merge(&path, &removal).await.code, 422);
    assert_eq!(api.merge(&format!("{PODS}/p"), &removal).await.code, 422, "nor through the main resource");
    let bound = api.post(&format!("{PODS}/p/binding"), &json!({"target": {"kind": "Node", "name": "n"}})).await;
    assert_eq!(bound.said(), "201", "a pod with visitors can still be bound");
}

#[tokio::test]
async fn a_pod_is_not_made_with_ephemeral_containers() {
    let api = Api::start().await;
    let container = json!([{"name": "c", "image": "a"}]);
    let spec = json!({"containers": container, "ephemeralContainers": [{"name": "e", "image": "a"}]});
    let reply = api.post(PODS, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    assert_eq!(reply.json()["details"]["causes"][0]["field"], "spec.ephemeralContainers");
}

#[tokio::test]
async fn resources_change_through_resize_only() {
    let api = Api::start().await;
    pod(&api).await;
    let patch = json!({"spec": {"containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "2"}}}]}});
    let send = async |path: String| api.call(Method::PATCH, &path, STRATEGIC, patch.to_string()).await;
    assert_eq!(send(format!("{PODS}/p")).await.code, 422);
    let resized = send(format!("{PODS}/p/resize")).await;
    assert_eq!(resized.said(), "200");
    assert_eq!(resized.json()["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(resized.json()["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_resize_stays_within_the_ranges_of_the_namespace() {
    let api = Api::start().await;
    pod(&api).await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "min": {"cpu": "1"}}]}});
    api.make("/api/v1/namespaces/default/limitranges", &range).await;
    let resize = async |cpu: &str| {
        let container = json!({"name": "c", "image": "a", "resources": {"requests": {"cpu": cpu}}});
        let patch = json!({"spec": {"containers": [container]}}).to_string();
        api.call(Method::PATCH, &format!("{PODS}/p/resize"), STRATEGIC, patch).await
    };
    let small = resize("500m").await;
    assert_eq!(small.code, 403);
    assert!(small.said().ends_with("minimum cpu usage per Container is 1, but request is 500m"), "{}", small.said());
    assert_eq!(resize("2").await.said(), "200");
}
