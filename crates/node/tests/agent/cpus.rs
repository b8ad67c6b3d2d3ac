//! CPUs of their own: who asks for whole ones has them alone, and nobody is moved by an agent that starts again.

use serde_json::{Value, json};
use windlass_node::config::{CpuPolicy, CpuSet};

use crate::stage::{Cluster, condition, on_a_node, shell, status, until_so};

const SAYS: &str = "trap 'exit 0' TERM; while true; do grep Cpus_allowed_list /proc/self/status; sleep 0.1; done";

fn pod(resources: Value) -> Value {
    let mut container = shell("a", SAYS);
    container["resources"] = resources;
    json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
}

/// Where a container says that it runs.
fn says(cluster: &Cluster, pod: &Value) -> Vec<usize> {
    let log = cluster.log(pod, "a", 0);
    let said = log.lines().last().and_then(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap_or_default();
    said.parse::<CpuSet>().map(|cpus| cpus.iter().collect()).unwrap_or_default()
}

/// Waits until a container runs on these CPUs.
async fn runs_on(cluster: &Cluster, name: &str, cpus: &[usize]) {
    let pod = cluster.until(name, |pod| condition(pod, "Ready")).await;
    until_so(&format!("{name} runs on {cpus:?}"), || async { says(cluster, &pod) == cpus }).await;
}

#[test]
fn whole_cpus_of_a_guaranteed_pod_are_its_own_whatever_the_agent_does() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let all = std::thread::available_parallelism().expect("the machine has CPUs").get();
        if all < 2 {
            eprintln!("a machine of one CPU has none to give away");
            return;
        }
        let everywhere: Vec<usize> = (0..all).collect();
        let amounts = json!({"cpu": "1", "memory": "32Mi"});
        cluster.pod("shared", pod(json!({}))).await;
        runs_on(&cluster, "shared", &everywhere).await;
        cluster.stop_agent().await;
        cluster.cpu_policy = CpuPolicy::Static;
        cluster.start_agent().await;
        cluster.pod("own", pod(json!({"limits": amounts}))).await;
        let own = cluster.until("own", |pod| condition(pod, "Ready")).await;
        assert_eq!(own["status"]["qosClass"], "Guaranteed");
        until_so("it has a CPU", || async { says(&cluster, &own).len() == 1 }).await;
        let its = says(&cluster, &own)[0];
        assert_ne!(its, 0, "the first one is kept");
        let rest: Vec<usize> = everywhere.iter().copied().filter(|cpu| *cpu != its).collect();
        runs_on(&cluster, "shared", &rest).await;
        // All but the one that is kept and the one that is taken.
        let too_many = json!({"cpu": (all - 1).to_string(), "memory": "32Mi"});
        cluster.pod("late", pod(json!({"limits": too_many}))).await;
        let late = cluster.until("late", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(late["status"]["reason"], "OutOfcpu", "{late:#}");
        cluster.delete("late").await;
        let lines = cluster.log(&own, "a", 0).lines().count();
        cluster.stop_agent().await;
        cluster.start_agent().await;
        until_so("it goes on", || async { cluster.log(&own, "a", 0).lines().count() > lines + 5 }).await;
        let said = cluster.log(&own, "a", 0);
        let moves: std::collections::BTreeSet<&str> = said.lines().collect();
        assert_eq!(moves.len(), 1, "it was never moved: {moves:?}");
        let after = cluster.until("own", |pod| condition(pod, "Ready")).await;
        assert_eq!(status(&after)["restartCount"], 0);
        cluster.delete("own").await;
        runs_on(&cluster, "shared", &everywhere).await;
        cluster.delete("shared").await;
    });
}
