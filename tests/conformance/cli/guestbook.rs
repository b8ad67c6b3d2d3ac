//! The guest book: an application of three parts that find each other by their Services.
//!
//! The front writes to the primary and reads from the replicas, which register with the primary (xtask/test/peer.rs).

use serde_json::{Value, json};

use crate::Test;
use crate::api::Reply;
use crate::running::server;

/// The parts: name, how many pods, what they are told.
const PARTS: [(&str, u32, &[&str]); 3] = [
    ("primary", 1, &["http=6379"]),
    ("replica", 2, &["http=6379", "replica-of=primary:6379"]),
    ("frontend", 3, &["http=80", "writes-to=primary:6379", "reads-from=replica:6379"]),
];

fn port(settings: &[&str]) -> u64 {
    let written = settings.iter().find_map(|setting| setting.strip_prefix("http="));
    written.and_then(|port| port.parse().ok()).expect("every part serves HTTP")
}

/// A Deployment of a part.
fn deployment(name: &str, replicas: u32, settings: &[&str]) -> Value {
    let mut pod = server(name, settings);
    let labels = json!({"app": "guestbook", "part": name});
    pod["metadata"] = json!({"labels": labels});
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/healthz", "port": port(settings)}, "periodSeconds": 1});
    json!({"metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod}})
}

pub async fn what_guests_write_can_be_read(test: &Test) {
    let (deployments, services) = (test.path("apps/v1", "deployments"), test.path("v1", "services"));
    for (name, replicas, settings) in PARTS {
        let spec = json!({"selector": {"app": "guestbook", "part": name}, "ports": [{"port": port(settings)}]});
        test.api.create(&services, &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
        test.api.create(&deployments, &deployment(name, replicas, settings)).await.ok();
    }
    for (name, replicas, _) in PARTS {
        let are_ready = |deployment: &Value| deployment["status"]["readyReplicas"] == replicas;
        test.api.seen(&deployments, name, "ready", are_ready).await;
    }
    let book = format!("{services}/frontend:80/proxy/guestbook");
    let answered =
        |expected: &'static str| move |reply: &Reply| reply.code.is_success() && *reply.body == *expected.as_bytes();
    test.api.until(&format!("{book}?cmd=get&key=messages"), "empty", answered("")).await;
    test.api.until(&format!("{book}?cmd=set&key=messages&value=TestEntry"), "written", answered("")).await;
    test.api.until(&format!("{book}?cmd=get&key=messages"), "readable", answered("TestEntry")).await;
    // Each replica has it, whichever the front asks.
    let pods = test.path("v1", "pods");
    let replicas = test.api.get(&format!("{pods}?labelSelector=app%3Dguestbook%2Cpart%3Dreplica")).await.ok();
    for pod in replicas["items"].as_array().expect("a list") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let own = format!("{pods}/{name}:6379/proxy/get?key=messages");
        test.api.until(&own, "copied", answered("TestEntry")).await;
    }
    for (name, ..) in PARTS {
        test.api.delete(&format!("{deployments}/{name}")).await.ok();
        test.api.delete(&format!("{services}/{name}")).await.ok();
    }
    let pods = format!("{}?labelSelector=app%3Dguestbook", test.path("v1", "pods"));
    test.api.until(&pods, "stopped", |reply| reply.json()["items"] == json!([])).await;
}
