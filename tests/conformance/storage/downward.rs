//! What a pod says about itself, as files.

use serde_json::{Value, json};

use crate::Test;
use crate::api::MERGE;
use crate::running::{script, waiting};

/// A volume `about` of these files.
fn volume(items: &Value, projected: bool, default_mode: Option<u32>) -> Value {
    let mut source = json!({"items": items});
    let mut volume = json!({"name": "about"});
    let inner = if projected {
        volume["projected"] = json!({"sources": [{"downwardAPI": source}]});
        &mut volume["projected"]
    } else {
        volume["downwardAPI"] = source.take();
        &mut volume["downwardAPI"]
    };
    if let Some(mode) = default_mode {
        inner["defaultMode"] = json!(mode);
    }
    volume
}

fn reader(line: &str, volume: Value) -> Value {
    let mut pod = script("about", line);
    pod["spec"]["volumes"] = json!([volume]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "about", "mountPath": "/about"}]);
    pod
}

/// One row: a file, and what it says.
#[derive(Clone, Copy)]
pub struct Amount {
    pub projected: bool,
    /// `limits.cpu` and its like.
    pub resource: &'static str,
    pub divisor: &'static str,
    /// What the container says of its resources in JSON: `{"limits": …}`.
    pub resources: &'static str,
    /// What the file says; without it what the node can give.
    pub expected: Option<&'static str>,
}

impl Amount {
    /// The file says what the container may use.
    pub async fn run(self, test: &Test) {
        let selector = json!({"containerName": "main", "resource": self.resource, "divisor": self.divisor});
        let items = json!([{"path": "amount", "resourceFieldRef": selector}]);
        let mut pod = reader("cat /about/amount", volume(&items, self.projected, None));
        pod["spec"]["containers"][0]["resources"] = serde_json::from_str(self.resources).expect("resources");
        let text = test.run(&pod).await;
        match self.expected {
            Some(expected) => assert_eq!(text, expected),
            None => {
                let pod = test.api.get(&test.pod("about")).await.ok();
                let node = pod["spec"]["nodeName"].as_str().expect("a pod that ran has a node");
                let node = test.api.get(&format!("/api/v1/nodes/{node}")).await.ok();
                let noun = self.resource.trim_start_matches("limits.");
                let given = node["status"]["allocatable"][noun].as_str().expect("a node says what it can give");
                let given: windlass_api::quantity::Quantity = given.parse().expect("a quantity");
                let expected = if noun == "cpu" { given.millis() } else { given.units() };
                assert_eq!(text, expected.to_string(), "{}", node["status"]["allocatable"]);
            }
        }
    }
}

async fn name(test: &Test, projected: bool) {
    let items = json!([{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]);
    assert_eq!(test.run(&reader("cat /about/podname", volume(&items, projected, None))).await, "about");
}

pub async fn a_pod_reads_its_name(test: &Test) {
    name(test, false).await;
}

pub async fn a_pod_reads_its_name_from_a_projection(test: &Test) {
    name(test, true).await;
}

async fn mode(test: &Test, projected: bool, default_mode: Option<u32>, item_mode: Option<u32>) {
    let mut item = json!({"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}});
    if let Some(mode) = item_mode {
        item["mode"] = json!(mode);
    }
    let pod = reader("stat -L -c %A /about/podname", volume(&json!([item]), projected, default_mode));
    assert_eq!(test.run(&pod).await, "-r--------\n");
}

pub async fn the_volume_has_a_mode(test: &Test) {
    mode(test, false, Some(0o400), None).await;
}

pub async fn a_file_has_a_mode(test: &Test) {
    mode(test, false, None, Some(0o400)).await;
}

pub async fn the_projection_has_a_mode(test: &Test) {
    mode(test, true, Some(0o400), None).await;
}

pub async fn a_projected_file_has_a_mode(test: &Test) {
    mode(test, true, None, Some(0o400)).await;
}

async fn follows(test: &Test, projected: bool, field: &str) {
    let items = json!([{"path": "said", "fieldRef": {"fieldPath": format!("metadata.{field}")}}]);
    let mut pod = waiting("about");
    pod["metadata"][field] = json!({"key1": "value1", "key2": "value2"});
    pod["spec"]["volumes"] = json!([volume(&items, projected, None)]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "about", "mountPath": "/about"}]);
    test.start_ready(&pod).await;
    let text = test.shell("about", "cat /about/said").await;
    assert!(text.contains("key1=\"value1\"\nkey2=\"value2\""), "{text}");
    test.api.patch(&test.pod("about"), MERGE, &json!({"metadata": {field: {"key3": "value3"}}})).await.ok();
    test.until_shell("about", "cat /about/said", |text| text.contains("key2=\"value2\"\nkey3=\"value3\"")).await;
}

pub async fn labels_are_followed(test: &Test) {
    follows(test, false, "labels").await;
}

pub async fn annotations_are_followed(test: &Test) {
    follows(test, false, "annotations").await;
}

pub async fn projected_labels_are_followed(test: &Test) {
    follows(test, true, "labels").await;
}

pub async fn projected_annotations_are_followed(test: &Test) {
    follows(test, true, "annotations").await;
}
