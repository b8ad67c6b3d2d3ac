//! Pods on a node: their life, what they know of Services, and their streams.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::Test;
use crate::running::{has_lines, is_ready, phase, script, server, waiting};
use crate::walk::holds;

pub async fn a_pod_that_takes_too_long_fails(test: &Test) {
    test.start_ready(&waiting("slow")).await;
    let patch = json!({"spec": {"activeDeadlineSeconds": 3}});
    test.api.patch(&test.pod("slow"), crate::api::STRATEGIC, &patch).await.ok();
    let pod = test.until_pod("slow", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

/// Waits until the node has seen this generation of the pod.
async fn until_observed(test: &Test, name: &str, generation: u64) {
    test.until_pod(name, "observed", |pod| pod["status"]["observedGeneration"] == generation).await;
}

pub async fn what_is_wished_counts_generations(test: &Test) {
    super::pod::images_and_times_count_generations(test).await;
    let pod = test.start_ready(&waiting("wished")).await;
    assert_eq!(pod["metadata"]["generation"], 1);
    until_observed(test, "wished", 1).await;
    let tolerations = json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}});
    let changes = [
        (tolerations, 2),
        (json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}}), 2),
        (json!({"spec": {"activeDeadlineSeconds": 1000}}), 3),
    ];
    for (patch, generation) in changes {
        let after = test.api.patch(&test.pod("wished"), crate::api::STRATEGIC, &patch).await.ok();
        assert_eq!(after["metadata"]["generation"], generation, "{patch}");
        until_observed(test, "wished", generation).await;
    }
}

pub async fn every_wish_counts(test: &Test) {
    test.start_ready(&waiting("busy")).await;
    for generation in 2_u64..=500 {
        let patch = json!({"spec": {"activeDeadlineSeconds": 100_000 - generation}});
        let after = test.api.patch(&test.pod("busy"), crate::api::STRATEGIC, &patch).await.ok();
        assert_eq!(after["metadata"]["generation"], generation);
    }
    until_observed(test, "busy", 500).await;
}

pub async fn a_graceful_end_counts(test: &Test) {
    let mut pod = waiting("ending");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["sleep", "3"]}}});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let pod = test.start_ready(&pod).await;
    assert_eq!(pod["metadata"]["generation"], 1);
    test.api.delete(&test.pod("ending")).await.ok();
    let ending = test.api.get(&test.pod("ending")).await.ok();
    assert!(ending["metadata"]["deletionTimestamp"].is_string(), "{ending:#}");
    assert_eq!(ending["metadata"]["generation"], 2);
    test.api.until_gone(&test.pod("ending")).await;
}

pub async fn the_status_is_patched(test: &Test) {
    let pod = test.start_ready(&waiting("patched")).await;
    assert_eq!(phase(&pod), "Running");
    let patch = json!({"status": {"message": "patched by a test", "reason": "E2E"}});
    // Its node may say otherwise a moment later: what counts is the answer.
    holds(
        &test.api.patch(&format!("{}/status", test.pod("patched")), crate::api::STRATEGIC, &patch).await.ok(),
        &patch,
    );
}

pub async fn a_pod_has_its_hosts_address(test: &Test) {
    let pod = test.start_ready(&waiting("hosted")).await;
    let ip = pod["status"]["hostIP"].as_str().expect("a pod that runs has its host's address");
    ip.parse::<std::net::IpAddr>().expect("an address");
    assert_eq!(pod["status"]["hostIPs"][0]["ip"], ip);
}

pub async fn a_watch_tells_of_a_pods_life(test: &Test) {
    let path = test.path("v1", "pods");
    let mut events = test.api.watch(&path, "labelSelector=app%3Dwatched").await;
    test.start(&waiting("watched")).await;
    events.expect("ADDED").await;
    events.until("MODIFIED", |pod| phase(pod) == "Running").await;
    test.api.delete_with(&test.pod("watched"), &json!({"gracePeriodSeconds": 30})).await.ok();
    events.until("MODIFIED", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    events.until("DELETED", |_| true).await;
    let left = test.api.get(&format!("{path}?labelSelector=app%3Dwatched")).await.ok();
    assert_eq!(left["items"], json!([]));
}

pub async fn a_pod_knows_the_services(test: &Test) {
    test.start_ready(&server("server", &["http=8080"])).await;
    let service = json!({"metadata": {"name": "fooservice"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 8765, "targetPort": 8080}]}});
    let service = test.api.create(&test.path("v1", "services"), &service).await.ok();
    let ip = service["spec"]["clusterIP"].as_str().expect("a Service has an address");
    let expected = [
        format!("FOOSERVICE_SERVICE_HOST={ip}"),
        "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
        format!("FOOSERVICE_PORT=tcp://{ip}:8765"),
        "FOOSERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        format!("FOOSERVICE_PORT_8765_TCP=tcp://{ip}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP_ADDR={ip}"),
    ];
    // The node hears of the Service by a watch of its own: a pod begun at once may not know it yet.
    let mut last = String::new();
    for attempt in 0..5 {
        last = test.run(&script(&format!("client-{attempt}"), "env")).await;
        if last.contains("FOOSERVICE") {
            break;
        }
    }
    has_lines(&last, &expected.each_ref().map(String::as_str));
}

pub async fn a_command_runs_over_a_websocket(test: &Test) {
    test.start_ready(&waiting("remote")).await;
    let path =
        format!("{}/exec?command=cat&command=/etc/resolv.conf&stderr=1&stdout=1&container=main", test.pod("remote"));
    let text = first_channel(test, &path, "channel.k8s.io", 1).await;
    assert!(text.contains("nameserver"), "{text}");
}

pub async fn a_log_comes_over_a_websocket(test: &Test) {
    test.start_ready(&waiting("writer")).await;
    let said = script("speaker", "echo container is alive; sleep 600");
    test.start_ready(&said).await;
    test.until_log("speaker", "", "written", |text| !text.is_empty()).await;
    let path = format!("{}/log?container=main", test.pod("speaker"));
    let mut socket = test.api.socket(&path, "binary.k8s.io").await;
    let mut text = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(content) => text.extend_from_slice(&content),
            Message::Text(content) => text.extend_from_slice(content.as_bytes()),
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&text), "container is alive\n");
}

/// What comes on one channel until the socket closes.
async fn first_channel(test: &Test, path: &str, protocol: &str, channel: u8) -> String {
    let mut socket = test.api.socket(path, protocol).await;
    let mut text = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(content) = message
            && content.first() == Some(&channel)
        {
            text.extend_from_slice(&content[1..]);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn visitor(name: &str, more: Value) -> Value {
    let mut container = more;
    container["name"] = json!(name);
    container["image"] = json!(crate::running::IMAGE);
    json!({"spec": {"ephemeralContainers": [container]}})
}

async fn visit(test: &Test, name: &str) {
    let command = json!(["sh", "-c", format!("echo {name} polo; sleep 600")]);
    let patch = visitor(name, json!({"command": command, "stdin": true, "tty": true}));
    let path = format!("{}/ephemeralcontainers", test.pod("visited"));
    test.api.patch(&path, crate::api::STRATEGIC, &patch).await.ok();
    test.until_pod("visited", "visited", |pod| {
        crate::running::status(pod, name)["state"]["running"].is_object() && is_ready(pod)
    })
    .await;
    test.until_log("visited", &format!("container={name}"), "written", |text| text.contains("polo")).await;
}

pub async fn a_visitor_runs(test: &Test) {
    test.start_ready(&waiting("visited")).await;
    visit(test, "debugger").await;
}

pub async fn a_second_visitor_runs(test: &Test) {
    test.start_ready(&waiting("visited")).await;
    visit(test, "debugger").await;
    visit(test, "debugger2").await;
    let pod = test.api.get(&test.pod("visited")).await.ok();
    assert_eq!(pod["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2));
}
