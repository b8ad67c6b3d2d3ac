//! A part of a volume, mounted by its path inside it.

use serde_json::{Value, json};

use crate::Test;
use crate::running::script;

/// What the part says.
const TEXT: &str = "mount-tester new file";

async fn reads(test: &Test, volume: Value, sub_path: &str, target: &str, expected: &str) {
    // Twice with time between: a part must not vanish while its container runs.
    let mut pod = script("part", &format!("cat {target} && sleep 1 && cat {target}"));
    let mut volume = volume;
    volume["name"] = json!("v");
    pod["spec"]["volumes"] = json!([volume]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": target, "subPath": sub_path}]);
    assert_eq!(test.run(&pod).await, expected.repeat(2));
}

async fn config_map(test: &Test) -> String {
    let name = test.unique("part");
    let object = json!({"metadata": {"name": name}, "data": {"configmap-key": TEXT}});
    test.api.create(&test.path("v1", "configmaps"), &object).await.ok();
    name
}

pub async fn of_a_config_map(test: &Test) {
    let name = config_map(test).await;
    reads(test, json!({"configMap": {"name": name}}), "configmap-key", "/test/file", TEXT).await;
}

pub async fn of_a_config_map_in_the_place_of_a_file(test: &Test) {
    let name = config_map(test).await;
    reads(test, json!({"configMap": {"name": name}}), "configmap-key", "/etc/resolv.conf", TEXT).await;
}

pub async fn of_a_secret(test: &Test) {
    let name = test.unique("part");
    let object = json!({"metadata": {"name": name}, "stringData": {"secret-key": TEXT}});
    test.api.create(&test.path("v1", "secrets"), &object).await.ok();
    reads(test, json!({"secret": {"secretName": name}}), "secret-key", "/test/file", TEXT).await;
}

pub async fn of_a_downward_volume(test: &Test) {
    let items = json!([{"path": "downward/podname", "fieldRef": {"fieldPath": "metadata.name"}}]);
    reads(test, json!({"downwardAPI": {"items": items}}), "downward/podname", "/test/file", "part").await;
}

pub async fn of_a_projected_volume(test: &Test) {
    let name = config_map(test).await;
    let sources = json!([{"configMap": {"name": name, "items": [{"key": "configmap-key", "path": "projected/key"}]}}]);
    reads(test, json!({"projected": {"sources": sources}}), "projected/key", "/test/file", TEXT).await;
}
