//! Environment variables: from ConfigMaps, Secrets and what the pod says about itself.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{has_lines, script};

/// Prefixes that no shell would take for a name.
const PREFIXES: [&str; 5] = ["#_", "1-", "$_", "p-", "a.b/c "];

fn printing(more: Value) -> Value {
    let mut pod = script("env", "env");
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"]["containers"][0][key] = value.clone();
    }
    pod
}

async fn made(test: &Test, plural: &str, key: &str) -> String {
    let name = test.unique(plural);
    let data = json!({"data-1": "value-1", "data_2": "value-2"});
    let object = json!({"metadata": {"name": name}, key: data});
    test.api.create(&test.path("v1", plural), &object).await.ok();
    name
}

async fn one_key(test: &Test, plural: &str, key: &str, reference: &str) {
    let name = made(test, plural, key).await;
    let from = json!({reference: {"name": name, "key": "data-1"}});
    let absent = json!({reference: {"name": name, "key": "absent", "optional": true}});
    let env = json!([{"name": "TAKEN", "valueFrom": from}, {"name": "ABSENT", "valueFrom": absent}]);
    let text = test.run(&printing(json!({"env": env}))).await;
    has_lines(&text, &["TAKEN=value-1"]);
    assert!(!text.contains("ABSENT"), "{text}");
}

async fn every_key(test: &Test, plural: &str, key: &str, reference: &str, prefixes: &[&str]) {
    let name = made(test, plural, key).await;
    let mut from = vec![json!({reference: {"name": name}})];
    from.extend(prefixes.iter().map(|prefix| json!({"prefix": prefix, reference: {"name": name}})));
    let mut pod = printing(json!({"envFrom": from}));
    // A shell drops names it does not like.
    pod["spec"]["containers"][0]["command"] = json!(["/bin/env"]);
    let text = test.run(&pod).await;
    has_lines(&text, &["data-1=value-1", "data_2=value-2"]);
    for prefix in prefixes {
        has_lines(&text, &[&format!("{prefix}data-1=value-1"), &format!("{prefix}data_2=value-2")]);
    }
}

pub async fn a_key_of_a_config_map(test: &Test) {
    one_key(test, "configmaps", "data", "configMapKeyRef").await;
}

pub async fn every_key_of_a_config_map(test: &Test) {
    every_key(test, "configmaps", "data", "configMapRef", &[]).await;
}

pub async fn every_key_of_a_config_map_prefixed(test: &Test) {
    every_key(test, "configmaps", "data", "configMapRef", &PREFIXES).await;
}

pub async fn a_key_of_a_secret(test: &Test) {
    one_key(test, "secrets", "stringData", "secretKeyRef").await;
}

pub async fn every_key_of_a_secret(test: &Test) {
    every_key(test, "secrets", "stringData", "secretRef", &[]).await;
}

pub async fn every_key_of_a_secret_prefixed(test: &Test) {
    every_key(test, "secrets", "stringData", "secretRef", &PREFIXES).await;
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

fn resource(name: &str, resource: &str) -> Value {
    json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}})
}

/// The pod of a test as its node has reported it, and what it printed.
async fn about_itself(test: &Test, env: Value) -> (Value, String) {
    let text = test.run(&printing(json!({"env": env}))).await;
    (test.api.get(&test.pod("env")).await.ok(), text)
}

pub async fn a_pod_knows_its_name_and_address(test: &Test) {
    let env =
        json!([field("NAME", "metadata.name"), field("SPACE", "metadata.namespace"), field("IP", "status.podIP")]);
    let (pod, text) = about_itself(test, env).await;
    let ip = pod["status"]["podIP"].as_str().expect("a pod that ran has an address");
    has_lines(&text, &["NAME=env", &format!("SPACE={}", test.namespace), &format!("IP={ip}")]);
}

pub async fn a_pod_knows_its_uid(test: &Test) {
    let (pod, text) = about_itself(test, json!([field("UID", "metadata.uid")])).await;
    has_lines(&text, &[&format!("UID={}", pod["metadata"]["uid"].as_str().expect("a pod has a uid"))]);
}

pub async fn a_pod_knows_its_hosts_address(test: &Test) {
    let (pod, text) = about_itself(test, json!([field("HOST", "status.hostIP")])).await;
    has_lines(&text, &[&format!("HOST={}", pod["status"]["hostIP"].as_str().expect("a host has an address"))]);
}

pub async fn a_pod_knows_its_hosts_addresses(test: &Test) {
    let (pod, text) = about_itself(test, json!([field("HOSTS", "status.hostIPs")])).await;
    let addresses: Vec<&str> =
        pod["status"]["hostIPs"].as_array().into_iter().flatten().filter_map(|one| one["ip"].as_str()).collect();
    assert!(!addresses.is_empty(), "{pod}");
    has_lines(&text, &[&format!("HOSTS={}", addresses.join(","))]);
}

fn resources() -> Value {
    json!([
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory"),
        resource("CPU_REQUEST", "requests.cpu"),
        resource("MEMORY_REQUEST", "requests.memory")
    ])
}

pub async fn a_container_knows_its_resources(test: &Test) {
    let quantities =
        json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let text = test.run(&printing(json!({"env": resources(), "resources": quantities}))).await;
    let lines = ["CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"];
    has_lines(&text, &lines);
}

pub async fn limits_default_to_what_the_node_has(test: &Test) {
    let text = test.run(&printing(json!({"env": resources()}))).await;
    let pod = test.api.get(&test.pod("env")).await.ok();
    let node = pod["spec"]["nodeName"].as_str().expect("a pod that ran has a node");
    let node = test.api.get(&format!("/api/v1/nodes/{node}")).await.ok();
    let cpus = node["status"]["allocatable"]["cpu"].as_str().expect("a node has cpus").to_owned();
    let limit = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<u64>().expect("a number")
    };
    assert!(cpus.ends_with('m') || limit("CPU_LIMIT").to_string() == cpus, "{cpus} {text}");
    assert!(limit("CPU_LIMIT") >= 1 && limit("MEMORY_LIMIT") > 1 << 20, "{text}");
    assert_eq!((limit("CPU_REQUEST"), limit("MEMORY_REQUEST")), (0, 0));
}
