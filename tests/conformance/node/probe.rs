//! Probes: what makes a container be restarted, and when a pod is ready.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Test;
use crate::running::{condition, is_ready, phase, restarts, script, server, status};

/// A probe with short times: what it asks, and after how many failures in a row it has failed.
fn quick(mut action: Value, failures: u32) -> Value {
    action["periodSeconds"] = json!(1);
    action["failureThreshold"] = json!(failures);
    action["timeoutSeconds"] = json!(5);
    action
}

fn probed(mut pod: Value, kind: &str, probe: Value) -> Value {
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0][kind] = probe;
    pod
}

async fn is_restarted(test: &Test, pod: Value, times: u64) {
    let name = test.start(&pod).await;
    let pod = test.until_pod(&name, "restarted", |pod| restarts(pod, "main") >= times).await;
    assert_eq!(phase(&pod), "Running");
}

/// The probe is asked a few times, and the container runs on.
async fn is_not_restarted(test: &Test, pod: Value) {
    let pod = test.start_ready(&pod).await;
    let name = pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
    // There is nothing to watch where nothing may happen.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pod = test.api.get(&test.pod(&name)).await.ok();
    assert_eq!(restarts(&pod, "main"), 0, "{pod:#}");
}

fn file() -> Value {
    json!({"exec": {"command": ["cat", "/tmp/health"]}})
}

fn http(path: &str) -> Value {
    json!({"httpGet": {"path": path, "port": 8080}})
}

pub async fn a_file_that_goes_restarts(test: &Test) {
    let body = "echo ok > /tmp/health; sleep 2; rm /tmp/health; sleep 600";
    is_restarted(test, probed(script("file", body), "livenessProbe", quick(file(), 1)), 1).await;
}

pub async fn a_file_that_stays_does_not_restart(test: &Test) {
    is_not_restarted(
        test,
        probed(script("file", "echo ok > /tmp/health; sleep 600"), "livenessProbe", quick(file(), 2)),
    )
    .await;
}

pub async fn an_http_error_restarts(test: &Test) {
    let pod = server("http", &["http=8080", "fail-after=2"]);
    is_restarted(test, probed(pod, "livenessProbe", quick(http("/healthz"), 1)), 1).await;
}

pub async fn an_http_success_does_not_restart(test: &Test) {
    is_not_restarted(test, probed(server("http", &["http=8080"]), "livenessProbe", quick(http("/"), 2))).await;
}

pub async fn each_failure_restarts_again(test: &Test) {
    let mut pod = server("http", &["http=8080", "fail-after=1"]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    is_restarted(test, probed(pod, "livenessProbe", quick(http("/healthz"), 1)), 3).await;
}

pub async fn an_open_port_does_not_restart(test: &Test) {
    let probe = quick(json!({"tcpSocket": {"port": 8080}}), 2);
    is_not_restarted(test, probed(server("tcp", &["http=8080", "fail-after=1"]), "livenessProbe", probe)).await;
}

pub async fn a_served_health_check_does_not_restart(test: &Test) {
    let probe = quick(json!({"grpc": {"port": 5000, "service": "peer"}}), 2);
    is_not_restarted(test, probed(server("grpc", &["grpc=5000", "health=peer"]), "livenessProbe", probe)).await;
}

pub async fn a_health_check_of_nobody_restarts(test: &Test) {
    let probe = quick(json!({"grpc": {"port": 2333}}), 1);
    is_restarted(test, probed(server("grpc", &["grpc=5000"]), "livenessProbe", probe), 1).await;
}

pub async fn a_pod_is_ready_after_its_delay(test: &Test) {
    let mut probe = quick(http("/"), 3);
    probe["initialDelaySeconds"] = json!(4);
    let pod = test.start_ready(&probed(server("http", &["http=8080"]), "readinessProbe", probe)).await;
    let ready = pod["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready");
    let ready = ready.expect("waited for")["lastTransitionTime"].clone();
    let started = status(&pod, "main")["state"]["running"]["startedAt"].clone();
    let seconds = |time: &Value| {
        let time = time.as_str().expect("a time");
        let [hours, minutes, seconds] = [11..13, 14..16, 17..19].map(|part| time[part].parse::<i64>().expect("digits"));
        hours * 3600 + minutes * 60 + seconds
    };
    let took = (seconds(&ready) - seconds(&started)).rem_euclid(86_400);
    // Both times are cut to seconds.
    assert!((3..30).contains(&took), "ready {took} s after it started");
}

pub async fn a_failing_pod_is_never_ready_nor_restarted(test: &Test) {
    let pod = probed(server("http", &["http=8080"]), "readinessProbe", quick(http("/status?code=500"), 1));
    let name = test.start(&pod).await;
    test.until_pod(&name, "running", |pod| phase(pod) == "Running").await;
    // There is nothing to watch where nothing may happen.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pod = test.api.get(&test.pod(&name)).await.ok();
    assert!(!is_ready(&pod) && condition(&pod, "ContainersReady") == "False", "{pod:#}");
    assert_eq!(restarts(&pod, "main"), 0);
}
