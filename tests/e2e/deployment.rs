//! Deployments, from apply to an answered request.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::until;
use windlass_tests::suite::{PATIENCE, condition};

/// A Deployment of the demo server with a Service in front.
pub fn web(name: &str, replicas: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: windlass.local/demo:1
        ports: [{{name: http, containerPort: 8080}}]
        env: [{{name: GREETING, value: one}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"#
    )
}

/// One request to `address` from the host.
pub fn request(address: &str) -> Result<String, String> {
    let timeout = Duration::from_secs(3);
    let parsed = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream =
        TcpStream::connect_timeout(&parsed, timeout).map_err(|error| format!("connect {address}: {error}"))?;
    stream.set_read_timeout(Some(timeout)).map_err(|error| error.to_string())?;
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .map_err(|error| format!("send: {error}"))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| format!("receive: {error}"))?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim().to_owned()),
        _ => Err(format!("unexpected answer: {text:?}")),
    }
}

/// The address of a Service, with its first port.
pub fn service_address(test: &Test, name: &str) -> String {
    let service = test.get("service", name);
    format!("{}:{}", service["spec"]["clusterIP"].as_str().unwrap_or_default(), service["spec"]["ports"][0]["port"])
}

/// Asks a Service until `count` different replicas have answered.
pub fn answers(address: &str, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    until(&format!("{count} replicas answer at {address}"), PATIENCE, || {
        match request(address) {
            Ok(answer) => {
                seen.insert(answer);
            }
            Err(error) => return Err(error),
        }
        if seen.len() >= count { Ok(seen.clone()) } else { Err(format!("{seen:?}")) }
    })
}

/// Every hop of ARCHITECTURE.md, "Follow one Deployment": the object at each hop is there and names the next.
pub fn follow_one_deployment(test: &Test) {
    test.apply(&web("web", 3));
    let deployment = test.wait("deployment", "web", "observed", |object| object["status"]["observedGeneration"] == 1);
    test.rolled_out("web");
    let sets = test.list("replicasets");
    assert_eq!(sets.len(), 1, "one template makes one ReplicaSet");
    assert_eq!(sets[0]["metadata"]["ownerReferences"][0]["uid"], deployment["metadata"]["uid"]);
    let pods = test.list("pods");
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], sets[0]["metadata"]["uid"]);
        assert_eq!(pod["spec"]["nodeName"], "node1", "the scheduler has bound it");
        assert_eq!(condition(pod, "Ready").as_deref(), Some("True"));
    }
    let slices = test.list("endpointslices");
    let mut addresses: Vec<&str> = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
        .filter_map(|endpoint| endpoint["addresses"][0].as_str())
        .collect();
    let mut pod_addresses: Vec<&str> = pods.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    addresses.sort_unstable();
    pod_addresses.sort_unstable();
    assert_eq!(addresses, pod_addresses, "the slice holds the ready pods");
    let seen = answers(&service_address(test, "web"), 3);
    for pod in &pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        assert!(seen.contains(&format!("one from {name}")), "{name} answered: {seen:?}");
    }
    let events = test.kubectl(&["get", "events"]);
    for reason in ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Created", "Started"] {
        assert!(events.contains(reason), "an event says {reason}: {events}");
    }
}

pub fn create_deployment_by_generator(test: &Test) {
    // This generator sends protobuf.
    let said = test.kubectl(&["create", "deployment", "gen", "--image=windlass.local/demo:1", "--replicas=2"]);
    assert_eq!(said.trim(), "deployment.apps/gen created");
    test.rolled_out("gen");
    let said = test.kubectl(&["expose", "deployment", "gen", "--port=80", "--target-port=8080"]);
    assert_eq!(said.trim(), "service/gen exposed");
    answers(&service_address(test, "gen"), 2);
}

pub fn apply_twice_says_unchanged(test: &Test) {
    let first = test.apply(&web("same", 1));
    assert!(first.contains("deployment.apps/same created") && first.contains("service/same created"), "{first}");
    let before = test.get("deployment", "same");
    let second = test.apply(&web("same", 1));
    assert!(second.contains("deployment.apps/same unchanged") && second.contains("service/same unchanged"), "{second}");
    let after = test.get("deployment", "same");
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"]);
    let third = test.apply(&web("same", 2));
    assert!(third.contains("deployment.apps/same configured"), "{third}");
}

pub fn scale_up_and_down(test: &Test) {
    test.apply(&web("scaled", 1));
    test.rolled_out("scaled");
    test.kubectl(&["scale", "deployment/scaled", "--replicas=4"]);
    test.wait("deployment", "scaled", "4 available", |object| object["status"]["availableReplicas"] == 4);
    test.kubectl(&["scale", "deployment/scaled", "--replicas=0"]);
    until("no pods are left", PATIENCE, || {
        let pods = test.list("pods");
        if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    });
    let refused = test.refused(&["scale", "deployment/scaled", "--replicas=1", "--current-replicas=7"]);
    assert!(refused.contains("7"), "{refused}");
}

fn greeting(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"].as_str().unwrap_or_default()
}

pub fn rollout_status_history_undo(test: &Test) {
    test.apply(&web("rolled", 2));
    test.rolled_out("rolled");
    test.kubectl(&["set", "env", "deployment/rolled", "GREETING=two"]);
    test.rolled_out("rolled");
    let history = test.kubectl(&["rollout", "history", "deployment/rolled"]);
    let revisions: Vec<&str> =
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).map(|line| &line[..1]).collect();
    assert_eq!(revisions, ["1", "2"], "{history}");
    assert_eq!(greeting(&test.get("deployment", "rolled")), "two");
    test.kubectl(&["rollout", "undo", "deployment/rolled"]);
    test.rolled_out("rolled");
    assert_eq!(greeting(&test.get("deployment", "rolled")), "one");
    let seen = answers(&service_address(test, "rolled"), 2);
    assert!(seen.iter().all(|answer| answer.starts_with("one from")), "{seen:?}");
    test.kubectl(&["rollout", "restart", "deployment/rolled"]);
    test.rolled_out("rolled");
    test.kubectl(&["rollout", "pause", "deployment/rolled"]);
    test.kubectl(&["set", "env", "deployment/rolled", "GREETING=three"]);
    test.kubectl(&["rollout", "resume", "deployment/rolled"]);
    test.rolled_out("rolled");
    answers(&service_address(test, "rolled"), 2);
}

pub fn set_image_rolls_with_no_failed_request(test: &Test) {
    test.apply(&web("busy", 3));
    test.rolled_out("busy");
    let address = service_address(test, "busy");
    answers(&address, 3);
    let stop = AtomicBool::new(false);
    let (asked, failures) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = request(&address) {
                    failures.lock().expect("no panic while holding it").push(error);
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            test.kubectl(&["set", "image", "deployment/busy", "web=windlass.local/demo:latest"]);
            test.kubectl(&["set", "env", "deployment/busy", "GREETING=after"]);
            test.kubectl(&["set", "image", "deployment/busy", "web=windlass.local/demo:1"]);
            test.rolled_out("busy");
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let failures = failures.into_inner().expect("the asking thread has ended");
    assert!(
        failures.is_empty(),
        "{} of {} requests failed: {:?}",
        failures.len(),
        asked.load(Ordering::Relaxed),
        failures.first()
    );
    let seen = answers(&address, 3);
    assert!(seen.iter().any(|answer| answer.starts_with("after from")), "{seen:?}");
}

pub fn a_bad_image_does_not_take_down_the_old_replicas(test: &Test) {
    test.apply(&web("careful", 2));
    test.rolled_out("careful");
    test.kubectl(&["set", "image", "deployment/careful", "web=127.0.0.1:1/no/such:image"]);
    until("a new pod waits for its image", PATIENCE, || {
        let text = test.kubectl(&["get", "pods"]);
        if text.contains("ErrImagePull") || text.contains("ImagePullBackOff") { Ok(()) } else { Err(text) }
    });
    answers(&service_address(test, "careful"), 2);
    test.kubectl(&["rollout", "undo", "deployment/careful"]);
    test.rolled_out("careful");
}

pub fn delete_takes_the_pods_along(test: &Test) {
    test.apply(&web("gone", 2));
    test.rolled_out("gone");
    test.kubectl(&["delete", "deployment/gone", "service/gone"]);
    until("everything it owned is gone", PATIENCE, || {
        let left = test.list("replicasets").len() + test.list("pods").len() + test.list("endpointslices").len();
        if left == 0 { Ok(()) } else { Err(format!("{left} objects are left")) }
    });
}
