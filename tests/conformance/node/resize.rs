//! A pod's resources change while it runs: in its status, in its control groups, and without a restart unless asked for.

use serde_json::{Value, json};
use windlass_api::quantity::Quantity;

use crate::Test;
use crate::api::STRATEGIC;
use crate::running::{condition, container, is_ready, status, waiting};

const MIB: u64 = 1 << 20;

/// CPU in thousandths and memory in MiB: requests and limits.
#[derive(Clone, Copy)]
struct Amounts {
    requests: (u64, u64),
    limits: (u64, u64),
}

/// What is promised is also the limit.
fn equal(cpu: u64, memory: u64) -> Amounts {
    Amounts { requests: (cpu, memory), limits: (cpu, memory) }
}

fn resources(amounts: Amounts) -> Value {
    let of = |(cpu, memory): (u64, u64)| json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
    json!({"requests": of(amounts.requests), "limits": of(amounts.limits)})
}

/// CPU and memory of a list, however they are written; nothing when one is missing.
fn amounts_of(list: &Value) -> Option<(i64, i64)> {
    let amount = |name: &str| Quantity::from_json(&list[name]).ok();
    Some((amount("cpu")?.millis(), amount("memory")?.units()))
}

/// A pod of containers `c0`, `c1` …; those named in `again` are started again when their memory changes.
fn pod(name: &str, containers: &[Amounts], again: &[usize]) -> Value {
    let mut pod = waiting(name);
    let idle = pod["spec"]["containers"][0]["command"][2].as_str().expect("a script").to_owned();
    let all = containers.iter().enumerate().map(|(index, amounts)| {
        let mut one = container(&format!("c{index}"), &idle);
        one["resources"] = resources(*amounts);
        let memory = if again.contains(&index) { "RestartContainer" } else { "NotRequired" };
        one["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": memory}]);
        one
    });
    pod["spec"]["containers"] = all.collect();
    pod
}

/// Resizes a pod by its `resize` part and waits until all of it is so, with these counts of restarts.
async fn resize(test: &Test, name: &str, containers: &[Amounts], restarts: &[u64]) {
    let all: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(|(index, amounts)| json!({"name": format!("c{index}"), "resources": resources(*amounts)}))
        .collect();
    let patch = json!({"spec": {"containers": all}});
    test.api.patch(&format!("{}/resize", test.pod(name)), STRATEGIC, &patch).await.ok();
    shows(test, name, containers, restarts).await;
}

/// Waits until the status and the control groups are so.
async fn shows(test: &Test, name: &str, containers: &[Amounts], restarts: &[u64]) {
    let is_so = |pod: &Value| {
        let done = ["PodResizePending", "PodResizeInProgress"].iter().all(|kind| condition(pod, kind).is_empty());
        let mut all = containers.iter().zip(restarts).enumerate();
        done && is_ready(pod)
            && all.all(|(index, (amounts, restarts))| {
                let status = status(pod, &format!("c{index}"));
                let wanted = resources(*amounts);
                let (given, promised) = (&status["resources"], &status["allocatedResources"]);
                amounts_of(&given["requests"]) == amounts_of(&wanted["requests"])
                    && amounts_of(&given["limits"]) == amounts_of(&wanted["limits"])
                    && amounts_of(promised) == amounts_of(&wanted["requests"])
                    && status["restartCount"] == *restarts
            })
    };
    test.until_pod(name, "resized", is_so).await;
    for (index, amounts) in containers.iter().enumerate() {
        let look = "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat memory.max cpu.max; \
                    else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares; fi";
        let said = test.exec(name, &format!("c{index}"), &["sh", "-c", look]).await;
        let words: Vec<&str> = said.stdout.split_whitespace().collect();
        assert_eq!(words[0], (amounts.limits.1 * MIB).to_string(), "memory of c{index}: {said:?}");
        assert_eq!(words[1], (amounts.limits.0 * 100).to_string(), "time of c{index}: {said:?}");
        if words[2] != "100000" {
            assert_eq!(words[2], (amounts.requests.0 * 1024 / 1000).to_string(), "share of c{index}: {said:?}");
        }
    }
}

async fn begins(test: &Test, name: &str, containers: &[Amounts], again: &[usize]) {
    test.start_ready(&pod(name, containers, again)).await;
    shows(test, name, containers, &vec![0; containers.len()]).await;
}

pub async fn a_guaranteed_pod_grows(test: &Test) {
    begins(test, "grows", &[equal(50, 32), equal(50, 32), equal(50, 32)], &[]).await;
    resize(test, "grows", &[equal(70, 48), equal(60, 40), equal(50, 32)], &[0, 0, 0]).await;
    test.stop("grows").await;
}

pub async fn a_guaranteed_pod_shrinks(test: &Test) {
    begins(test, "shrinks", &[equal(80, 64), equal(80, 64), equal(50, 32)], &[]).await;
    resize(test, "shrinks", &[equal(50, 40), equal(60, 48), equal(60, 36)], &[0, 0, 0]).await;
    test.stop("shrinks").await;
}

pub async fn a_guaranteed_pod_moves_what_it_has(test: &Test) {
    begins(test, "moves", &[equal(50, 32), equal(80, 64)], &[1]).await;
    resize(test, "moves", &[equal(80, 32), equal(50, 64)], &[0, 0]).await;
    resize(test, "moves", &[equal(80, 64), equal(50, 32)], &[0, 1]).await;
    test.stop("moves").await;
}

pub async fn a_burstable_pod_changes_in_place_and_by_restart(test: &Test) {
    let wide = |cpu, memory| Amounts { requests: (cpu, memory), limits: (cpu * 2, memory * 2) };
    begins(test, "burstable", &[wide(30, 24), wide(30, 24)], &[0]).await;
    resize(test, "burstable", &[wide(40, 24), wide(30, 32)], &[0, 0]).await;
    resize(test, "burstable", &[wide(40, 32), wide(20, 32)], &[1, 0]).await;
    // More than the node has is never promised, and what runs stays as it is.
    let patch = json!({"spec": {"containers": [{"name": "c1", "resources": {"requests": {"cpu": "4000"}, "limits": {"cpu": "5000"}}}]}});
    test.api.patch(&format!("{}/resize", test.pod("burstable")), STRATEGIC, &patch).await.ok();
    let refused = test.until_pod("burstable", "refused", |pod| condition(pod, "PodResizePending") == "True").await;
    let pending = refused["status"]["conditions"].as_array().into_iter().flatten();
    let pending = pending.into_iter().find(|one| one["type"] == "PodResizePending").expect("waited for");
    assert_eq!(pending["reason"], "Infeasible", "{pending}");
    resize(test, "burstable", &[wide(40, 32), wide(20, 32)], &[1, 0]).await;
    test.stop("burstable").await;
}

pub async fn amounts_written_otherwise_are_the_same(test: &Test) {
    let amounts = Amounts { requests: (50, 32), limits: (100, 64) };
    begins(test, "same", &[amounts], &[0]).await;
    let same = json!({"requests": {"cpu": "0.05", "memory": "32768Ki"}, "limits": {"cpu": "0.1", "memory": "65536Ki"}});
    let patch = json!({"spec": {"containers": [{"name": "c0", "resources": same}]}});
    test.api.patch(&format!("{}/resize", test.pod("same")), STRATEGIC, &patch).await.ok();
    shows(test, "same", &[amounts], &[0]).await;
    test.stop("same").await;
}

pub async fn the_part_is_read_replaced_and_patched(test: &Test) {
    begins(test, "part", &[equal(50, 32)], &[]).await;
    let part = format!("{}/resize", test.pod("part"));
    assert_eq!(test.api.get(&part).await.ok()["metadata"]["name"], "part");
    test.api.replace(&part, |pod| pod["spec"]["containers"][0]["resources"] = resources(equal(60, 40))).await;
    shows(test, "part", &[equal(60, 40)], &[0]).await;
    resize(test, "part", &[equal(50, 32)], &[0]).await;
    test.stop("part").await;
}
