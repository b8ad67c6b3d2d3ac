//! Attacks on the agent by what runs in its pods, named by their rows.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::ListOptions;

use crate::stage::{on_a_node, shell, until_so};

/// How much memory this process has, agent and all, in KiB.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("our own");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has memory");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a82_a_probe_that_speaks_without_end_is_cut_in_time_and_little_of_it_is_kept() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let probed = |name: &str, line: &str, seconds: u32| {
            let mut container = shell(name, "sleep 1000");
            container["readinessProbe"] =
                json!({"exec": {"command": ["sh", "-c", line]}, "periodSeconds": 1, "timeoutSeconds": seconds});
            container
        };
        let before = resident_kib();
        let much = probed("much", "head -c 50000000 /dev/zero", 60);
        let endless = probed("endless", "cat /dev/zero", 1);
        let failing = probed("failing", "head -c 50000000 /dev/zero; exit 1", 60);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [much, endless, failing]});
        cluster.pod("loud", spec).await;
        let is_ready = |pod: &Value, name: &str| {
            let all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            all.into_iter().any(|status| status["name"] == name && status["ready"] == true)
        };
        cluster.until("loud", |pod| is_ready(pod, "much")).await;
        let unhealthy = |container: &'static str| {
            let client = cluster.client.clone();
            move || {
                let client = client.clone();
                async move {
                    let list = client.list(&kinds::EVENT, Some("default"), &ListOptions::default()).await;
                    let events: Vec<Value> = list.expect("a list").items.iter().map(|event| event.value()).collect();
                    let path = format!("spec.containers{{{container}}}");
                    let own = events.iter().filter(|event| {
                        event["reason"] == "Unhealthy" && event["involvedObject"]["fieldPath"] == path.as_str()
                    });
                    let messages: Vec<usize> = own.map(|event| event["message"].as_str().map_or(0, str::len)).collect();
                    assert!(messages.iter().all(|length| *length <= 11 << 10), "{messages:?}");
                    !messages.is_empty()
                }
            }
        };
        until_so("one that never ends has failed", unhealthy("endless")).await;
        until_so("one that says much and fails has failed", unhealthy("failing")).await;
        let pod = cluster.until("loud", |pod| !pod.is_null()).await;
        assert!(!is_ready(&pod, "endless") && !is_ready(&pod, "failing"));
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "the agent keeps little of it: {grown} KiB");
        cluster.delete("loud").await;
    });
}
