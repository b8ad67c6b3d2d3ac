//! Lifecycle hooks: each says a word to a pod that listens, and the word is in that pod's log.

use serde_json::{Value, json};

use crate::Test;
use crate::running::{is_ready, server, waiting};

/// Starts the pod that listens; gives its address.
async fn listener(test: &Test) -> String {
    let pod = test.start_ready(&server("listener", &["http=8080"])).await;
    pod["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned()
}

fn exec(address: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", format!("/bin/peer fetch http://{address}:8080/echo?msg=$(hostname)")]}})
}

fn http(address: &str) -> Value {
    json!({"httpGet": {"path": "/echo?msg=hooked", "host": address, "port": 8080}})
}

async fn hooked(test: &Test, lifecycle: Value) {
    let mut pod = waiting("hooked");
    pod["spec"]["containers"][0]["lifecycle"] = lifecycle;
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    test.start(&pod).await;
    test.until_pod("hooked", "ready", is_ready).await;
}

async fn is_called(test: &Test) {
    test.until_log("listener", "", "called", |text| text.contains("/echo?msg=hooked")).await;
}

async fn after_start(test: &Test, hook: fn(&str) -> Value) {
    let address = listener(test).await;
    hooked(test, json!({"postStart": hook(&address)})).await;
    is_called(test).await;
}

async fn before_stop(test: &Test, hook: fn(&str) -> Value) {
    let address = listener(test).await;
    hooked(test, json!({"preStop": hook(&address)})).await;
    assert!(!test.log("listener", "").await.contains("hooked"), "called before its time");
    test.stop("hooked").await;
    is_called(test).await;
}

pub async fn a_command_runs_after_start(test: &Test) {
    after_start(test, exec).await;
}

pub async fn a_request_is_sent_after_start(test: &Test) {
    after_start(test, http).await;
}

pub async fn a_command_runs_before_stop(test: &Test) {
    before_stop(test, exec).await;
}

pub async fn a_request_is_sent_before_stop(test: &Test) {
    before_stop(test, http).await;
}

pub async fn a_deleted_pod_runs_its_hook(test: &Test) {
    let address = listener(test).await;
    hooked(test, json!({"preStop": exec(&address)})).await;
    let options = json!({"gracePeriodSeconds": 30});
    test.api.delete_with(&test.pod("hooked"), &options).await.ok();
    test.api.until_gone(&test.pod("hooked")).await;
    is_called(test).await;
}
