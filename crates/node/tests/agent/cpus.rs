//! CPUs of their own: who asks for whole ones has them alone, and nobody is moved by an agent that starts again.

use serde_json::{Value, json};
use windlass_node::config::CpuPolicy;

use crate::stage::{Cluster, condition, on_a_node, shell, status, until_so};

const SAYS: &str = "trap 'exit 0' TERM; while true; do grep Cpus_allowed_list /proc/self/status; sleep 0.1; done";

fn pod(resources: Value) -> Value {
    let mut container = shell("a", SAYS);
    container["resources"] = resources;
    json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
}

/// Waits until a container runs on these CPUs.
async fn runs_on(cluster: &Cluster, name: &str, cpus: &str) {
    let pod = cluster.until(name, |pod| condition(pod, "Ready")).await;
    let last = || cluster.log(&pod, "a", 0).lines().last().unwrap_or_default().to_owned();
    let said = format!("Cpus_allowed_list:\t{cpus}");
    until_so(&format!("{name} runs on {cpus}"), || async { last() == said }).await;
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
        let (everywhere, rest) = (format!("0-{}", all - 1), if all == 2 { "0".to_owned() } else { String::new() });
        let amounts = json!({"cpu": "1", "memory": "32Mi"});
        cluster.pod("shared", pod(json!({}))).await;
        runs_on(&cluster, "shared", &everywhere).await;
        cluster.stop_agent().await;
        cluster.cpu_policy = CpuPolicy::Static;
        cluster.start_agent().await;
        cluster.pod("own", pod(json!({"limits": amounts}))).await;
        let own = cluster.until("own", |pod| condition(pod, "Ready")).await;
        assert_eq!(own["status"]["qosClass"], "Guaranteed");
        if !rest.is_empty() {
            runs_on(&cluster, "own", "1").await;
            runs_on(&cluster, "shared", &rest).await;
            // Only the one that is kept is left.
            cluster.pod("late", pod(json!({"limits": amounts}))).await;
            let late = cluster.until("late", |pod| pod["status"]["phase"] == "Failed").await;
            assert_eq!(late["status"]["reason"], "OutOfcpu", "{late:#}");
            cluster.delete("late").await;
        }
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
