//! Which node suits a pod, and what happens where none does.

use serde_json::json;

use super::machine::Machine;
use crate::{Test, pod};

pub async fn a_pod_that_no_node_suits_waits_and_says_why(test: &Test) {
    let path = test.path("v1", "pods");
    test.api.create(&path, &pod::named("waiting", "waiting")).await.ok();
    let condition = |reply: &crate::api::Reply| {
        let conditions = reply.json()["status"]["conditions"].clone();
        conditions
            .as_array()
            .into_iter()
            .flatten()
            .find(|one| one["type"] == "PodScheduled")
            .cloned()
            .unwrap_or_default()
    };
    let one = format!("{path}/waiting");
    let found = test.api.until(&one, "judged", |reply| condition(reply)["status"] == "False").await;
    assert_eq!(condition(&found)["reason"], "Unschedulable");
    assert_eq!(found.json()["spec"]["nodeName"], json!(null));
}

pub async fn a_pod_goes_to_the_node_it_selects(test: &Test) {
    let machine = Machine::new(test, 4).await;
    machine.run("selecting", machine.spec(1)).await;
    machine.has("selecting").await;
    machine.end().await;
}

pub async fn a_node_takes_no_more_than_it_has(test: &Test) {
    let machine = Machine::new(test, 5).await;
    machine.run("first", machine.spec(3)).await;
    machine.has("first").await;
    machine.run("second", machine.spec(2)).await;
    machine.has("second").await;
    machine.run("third", machine.spec(1)).await;
    machine.refuses("third").await;
    machine.end().await;
}

/// Runs a pod with this port of its node.
async fn with_port(machine: &Machine<'_>, name: &str, port: u16, address: &str, protocol: &str) {
    let mut spec = machine.spec(0);
    spec["containers"][0]["resources"] = json!({});
    spec["containers"][0]["ports"] =
        json!([{"containerPort": 8080, "hostPort": port, "hostIP": address, "protocol": protocol}]);
    machine.run(name, spec).await;
}

pub async fn a_port_of_all_addresses_excludes_that_of_one(test: &Test) {
    let machine = Machine::new(test, 1).await;
    with_port(&machine, "all", 54322, "0.0.0.0", "TCP").await;
    machine.has("all").await;
    with_port(&machine, "one", 54322, "192.0.2.7", "TCP").await;
    machine.refuses("one").await;
    machine.end().await;
}

pub async fn one_port_serves_other_addresses_and_protocols(test: &Test) {
    let machine = Machine::new(test, 1).await;
    for (name, address, protocol) in [("a", "192.0.2.7", "TCP"), ("b", "192.0.2.8", "TCP"), ("c", "192.0.2.8", "UDP")] {
        with_port(&machine, name, 54321, address, protocol).await;
        machine.has(name).await;
    }
    machine.end().await;
}
