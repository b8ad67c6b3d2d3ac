//! kubectl: a command is one request or a few, and these are they.

use serde_json::{Value, json};

use crate::api::{MERGE, Reply, STRATEGIC};
use crate::{Test, pod};

/// An image that no test's pod begins with.
const IMAGE: &str = "example.com/another:1";

async fn a_pod(test: &Test) -> String {
    let path = test.path("v1", "pods");
    test.api.create(&path, &pod::named("one", "one")).await.ok();
    format!("{path}/one")
}

fn image(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]["image"]
}

pub async fn api_versions_has_v1(test: &Test) {
    assert_eq!(test.api.get("/api").await.ok()["versions"], json!(["v1"]));
}

pub async fn version_says_what_runs(test: &Test) {
    let version = test.api.get("/version").await.ok();
    for key in
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]
    {
        assert!(version[key].is_string(), "{key}: {version}");
    }
}

pub async fn label_sets_and_takes_away(test: &Test) {
    let one = a_pod(test).await;
    let label = |value: Value| json!({"metadata": {"labels": {"testing-label": value}}});
    test.api.patch(&one, MERGE, &label(json!("testing-label-value"))).await.ok();
    assert_eq!(test.api.get(&one).await.ok()["metadata"]["labels"]["testing-label"], "testing-label-value");
    test.api.patch(&one, MERGE, &label(Value::Null)).await.ok();
    assert_eq!(test.api.get(&one).await.ok()["metadata"]["labels"], json!({"app": "one"}));
}

pub async fn patch_annotates(test: &Test) {
    let one = a_pod(test).await;
    test.api.patch(&one, STRATEGIC, &json!({"metadata": {"annotations": {"x": "y"}}})).await.ok();
    assert_eq!(test.api.get(&one).await.ok()["metadata"]["annotations"]["x"], "y");
}

pub async fn replace_changes_the_image(test: &Test) {
    let one = a_pod(test).await;
    test.api.replace(&one, |pod| pod["spec"]["containers"][0]["image"] = json!(IMAGE)).await;
    assert_eq!(*image(&test.api.get(&one).await.ok()), IMAGE);
}

pub async fn a_dry_run_changes_nothing(test: &Test) {
    let one = a_pod(test).await;
    let before = test.api.get(&one).await.ok();
    let patch = json!({"spec": {"containers": [{"name": "main", "image": IMAGE}]}});
    let would_be = test.api.patch(&format!("{one}?dryRun=All"), STRATEGIC, &patch).await.ok();
    assert_eq!(*image(&would_be), IMAGE);
    assert_eq!(image(&test.api.get(&one).await.ok()), image(&before));
}

pub async fn diff_shows_what_would_be(test: &Test) {
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": pod::template("d")});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    let path = test.path("apps/v1", "deployments");
    test.api.create(&path, &object).await.ok();
    let one = format!("{path}/d");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": IMAGE}]}}}});
    let would_be = test.api.patch(&format!("{one}?dryRun=All"), STRATEGIC, &patch).await.ok();
    let live = test.api.get(&one).await.ok();
    assert_eq!(*image(&would_be["spec"]["template"]), IMAGE);
    assert_eq!(image(&live["spec"]["template"]), image(&object["spec"]["template"]));
}

/// What `cluster-info` asks: the Services that say they are the cluster's own.
pub async fn cluster_info_finds_what_is_the_clusters(test: &Test) {
    let path = "/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
    assert_eq!(test.api.get(path).await.ok()["kind"], "ServiceList");
    assert_eq!(test.api.get("/readyz").await.code, 200);
}

/// What `run` sends.
pub async fn run_makes_a_pod(test: &Test) {
    let path = test.path("v1", "pods");
    let mut object = pod::named("ran", "ran");
    object["metadata"]["labels"] = json!({"run": "ran"});
    object["spec"]["containers"][0]["image"] = json!(IMAGE);
    test.api.create(&format!("{path}?fieldManager=kubectl-run"), &object).await.ok();
    let found = test.api.get(&format!("{path}?labelSelector=run%3Dran")).await.ok();
    assert_eq!(*image(&found["items"][0]), IMAGE);
}

/// A controller of this many pods, all of which run; gives its path.
async fn controlled(test: &Test, replicas: u32) -> String {
    let path = test.path("v1", "replicationcontrollers");
    let spec =
        json!({"replicas": replicas, "selector": {"app": "controlled"}, "template": pod::template("controlled")});
    test.api.create(&path, &json!({"metadata": {"name": "controlled"}, "spec": spec})).await.ok();
    let one = format!("{path}/controlled");
    until_running(test, &one, replicas).await;
    one
}

async fn until_running(test: &Test, controller: &str, replicas: u32) {
    let runs = |reply: &Reply| {
        let status = reply.json()["status"].clone();
        status["replicas"] == replicas && status["readyReplicas"].as_u64().unwrap_or(0) == u64::from(replicas)
    };
    pod::while_pods_run(test, |_| true, test.api.until(controller, "running", runs)).await;
}

pub async fn a_controller_runs_its_pods(test: &Test) {
    controlled(test, 2).await;
    let pods = format!("{}?labelSelector=app%3Dcontrolled", test.path("v1", "pods"));
    assert_eq!(test.api.get(&pods).await.ok()["items"].as_array().map(Vec::len), Some(2));
}

pub async fn scale_sets_how_many_run(test: &Test) {
    let one = controlled(test, 2).await;
    for replicas in [1, 2] {
        test.api.patch(&format!("{one}/scale"), MERGE, &json!({"spec": {"replicas": replicas}})).await.ok();
        until_running(test, &one, replicas).await;
    }
}

/// `expose` reads a controller or a Service, and makes a Service of its selector and ports.
pub async fn expose_makes_a_service_of_a_selector(test: &Test) {
    let one = controlled(test, 1).await;
    let services = test.path("v1", "services");
    let mut selector = test.api.get(&one).await.ok()["spec"]["selector"].clone();
    for (name, port) in [("first", 1234), ("second", 2345)] {
        let spec = json!({"selector": selector, "ports": [{"port": port, "targetPort": 6379}]});
        test.api.create(&services, &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
        let endpoints = format!("{}/{name}", test.path("v1", "endpoints"));
        let leads = |reply: &Reply| {
            let subset = &reply.json()["subsets"][0];
            subset["addresses"].as_array().map(Vec::len) == Some(1) && subset["ports"][0]["port"] == 6379
        };
        test.api.until(&endpoints, "leading to the pod", leads).await;
        let service = test.api.get(&format!("{services}/{name}")).await.ok();
        assert_eq!(service["spec"]["ports"][0]["port"], port);
        selector = service["spec"]["selector"].clone();
    }
}

/// What `describe` asks beside the object: its Events, and the pods that it selects.
pub async fn describe_finds_events_and_pods(test: &Test) {
    let one = controlled(test, 1).await;
    let uid = test.api.get(&one).await.ok()["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let about = format!("involvedObject.name%3Dcontrolled%2CinvolvedObject.uid%3D{uid}");
    let events = format!("{}?fieldSelector={about}", test.path("v1", "events"));
    let tells = |reply: &Reply| reply.json()["items"][0]["reason"] == "SuccessfulCreate";
    let found = test.api.until(&events, "telling of the pod", tells).await.json();
    assert!(found["items"][0]["message"].as_str().is_some_and(|text| text.starts_with("Created pod: controlled-")));
}
