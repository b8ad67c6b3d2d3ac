//! Pods that make way for more important ones.

use serde_json::{Value, json};

use super::machine::Machine;
use crate::Test;
use crate::api::{MERGE, Reply};

/// A pod of this priority that asks for units.
async fn run(machine: &Machine<'_>, name: &str, class: &str, units: u32) {
    let mut spec = machine.spec(units);
    spec["priorityClassName"] = json!(class);
    machine.run(name, spec).await;
}

async fn gives_way(test: &Test, class: &str) {
    let machine = Machine::new(test, 5).await;
    let (low, middle) = (machine.priority(1).await, machine.priority(2).await);
    run(&machine, "low", &low, 2).await;
    run(&machine, "middle", &middle, 3).await;
    machine.has("low").await;
    machine.has("middle").await;
    let class = if class.is_empty() { machine.priority(1000).await } else { class.to_owned() };
    run(&machine, "high", &class, 2).await;
    machine.has("high").await;
    let pods = test.path("v1", "pods");
    test.api.until_gone(&format!("{pods}/low")).await;
    machine.has("middle").await;
    machine.end().await;
}

pub async fn the_least_important_pod_makes_way(test: &Test) {
    gives_way(test, "").await;
}

pub async fn a_critical_pod_finds_room(test: &Test) {
    gives_way(test, "system-cluster-critical").await;
}

pub async fn replicas_keep_their_room_by_priority(test: &Test) {
    let machine = Machine::new(test, 5).await;
    let sets = test.path("apps/v1", "replicasets");
    for (priority, units) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        let name = format!("set-{priority}");
        let mut spec = machine.spec(units);
        spec["priorityClassName"] = json!(machine.priority(priority).await);
        let replicas = if priority == 1 { 2 } else { 1 };
        let set = json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec}}});
        test.api.create(&sets, &set).await.ok();
        until_placed(test, &machine, &name, replicas).await;
    }
    // The fourth took the room of the first two pods; theirs are made again, and wait.
    until_placed(test, &machine, "set-1", 0).await;
    for name in ["set-2", "set-3", "set-4"] {
        until_placed(test, &machine, name, 1).await;
    }
    for priority in 1..=4 {
        test.api.delete(&format!("{sets}/set-{priority}")).await.ok();
    }
    machine.end().await;
}

async fn until_placed(test: &Test, machine: &Machine<'_>, app: &str, expected: usize) {
    let path = format!("{}?labelSelector=app%3D{app}", test.path("v1", "pods"));
    let placed = |reply: &Reply| {
        let pods = reply.json();
        let pods = pods["items"].as_array().into_iter().flatten();
        pods.filter(|pod| pod["spec"]["nodeName"] == machine.name.as_str()).count() == expected
    };
    test.api.until(&path, &format!("{expected} on the node"), placed).await;
}

pub async fn a_pod_that_makes_way_says_so(test: &Test) {
    let machine = Machine::new(test, 1).await;
    let (low, high) = (machine.priority(1).await, machine.priority(1000).await);
    let mut spec = machine.spec(1);
    spec["priorityClassName"] = json!(low);
    let pods = test.path("v1", "pods");
    let pod = json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]}, "spec": spec});
    test.api.create(&pods, &pod).await.ok();
    machine.has("held").await;
    run(&machine, "high", &high, 1).await;
    let is_told = |reply: &Reply| {
        let found: Value = reply.json();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        found["metadata"]["deletionTimestamp"].is_string()
            && conditions.iter().any(|one| one["type"] == "DisruptionTarget" && one["status"] == "True")
    };
    test.api.until(&format!("{pods}/held"), "told", is_told).await;
    // Nobody else takes the finalizer away, and with it the pod makes its way.
    test.api.patch(&format!("{pods}/held"), MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    test.api.until_gone(&format!("{pods}/held")).await;
    machine.has("high").await;
    machine.end().await;
}
