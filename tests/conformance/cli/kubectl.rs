//! kubectl: a command is one request or a few, and these are they.

use serde_json::{Value, json};

use crate::api::{MERGE, STRATEGIC};
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
