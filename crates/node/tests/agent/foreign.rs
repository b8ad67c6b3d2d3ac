//! Pods that another runtime runs, beside what the tests of every runtime see: where its pieces are ours, and what it refuses.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use windlass_node::Machine;

use crate::stage::{Cluster, condition, on_containerd, shell, status, until_so};

async fn told(cluster: &Cluster, words: &str) {
    until_so(words, async || cluster.get("/api/v1/namespaces/default/events").await.1.contains(words)).await;
}

#[test]
fn parts_of_volumes_limits_and_counts_are_the_node_s_for_a_pod_of_containerd() {
    on_containerd(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut one = shell(
            "a",
            "cat /part/word; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes; \
             head -c 3000000 /dev/zero > /layer; echo ready > /part/answer; while true; do sleep 0.1; done",
        );
        one["volumeMounts"] = json!([{"name": "v", "mountPath": "/part", "subPath": "in/deep"}]);
        one["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
        let mut init = shell("first", "mkdir -p /v/in/deep; echo word > /v/in/deep/word");
        init["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let spec = json!({"terminationGracePeriodSeconds": 1, "initContainers": [init], "containers": [one],
            "volumes": [{"name": "v", "emptyDir": {}}]});
        cluster.pod("a", spec).await;
        let pod = cluster.until("a", |pod| condition(pod, "Ready")).await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let answer = cluster.dir.join(format!("data/pods/{uid}/volumes/v/in/deep/answer"));
        until_so("it has written", || async { answer.exists() }).await;
        let said = cluster.log(&pod, "a", 0);
        assert!(said.starts_with("word\n") && said.contains("67108864"), "{said}");
        let usage = cluster.kernel().usage(&uid).await.expect("it is counted");
        let own = usage.containers.get("a.0").expect("the container is counted");
        assert!(own.memory_bytes > 0 && own.pids > 0 && usage.whole.memory_bytes >= own.memory_bytes, "{usage:?}");
        let kernel = cluster.kernel();
        until_so("its layer is counted", || async {
            let disk = kernel.disk(&uid).await.expect("it is counted");
            disk.layers.get("a.0").is_some_and(|held| held.bytes >= 3_000_000)
        })
        .await;
        let ids = cluster.containerd.as_ref().expect("it runs them").containers();
        assert_eq!(ids.lines().count(), 3, "a sandbox and two containers: {ids}");
        cluster.delete("a").await;
        assert_eq!(cluster.containerd.as_ref().expect("it runs them").containers(), "");
    });
}

#[test]
fn a_container_of_containerd_that_has_no_memory_left_is_told_so() {
    on_containerd(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut greedy = shell("a", "exec head -c 90000000 /dev/zero > /memory/x");
        greedy["resources"] = json!({"limits": {"memory": "32Mi"}});
        greedy["volumeMounts"] = json!([{"name": "m", "mountPath": "/memory"}]);
        let spec = json!({"restartPolicy": "Never", "containers": [greedy],
            "volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]});
        cluster.pod("a", spec).await;
        let pod = cluster.until("a", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = &status(&pod)["state"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
        cluster.delete("a").await;
    });
}

#[test]
fn what_containerd_cannot_be_asked_for_fails_the_container_by_name() {
    on_containerd(|cluster| async move {
        let cluster = cluster.lock().await;
        let volume = |mount: Value, volume: Value| {
            let mut container = shell("a", "true");
            container["volumeMounts"] = json!([mount]);
            json!({"containers": [container], "volumes": [volume]})
        };
        let recursive = volume(
            json!({"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"}),
            json!({"name": "v", "emptyDir": {}}),
        );
        let image = volume(
            json!({"name": "v", "mountPath": "/v"}),
            json!({"name": "v", "image": {"reference": crate::stage::IMAGE, "pullPolicy": "Never"}}),
        );
        for (name, spec, what) in
            [("recursive", recursive, "recursive read-only mounts"), ("image", image, "an image as a volume")]
        {
            cluster.pod(name, spec).await;
            let reason = |pod: &Value| status(pod)["state"]["waiting"]["reason"].clone();
            let pod = cluster.until(name, |pod| reason(pod) == "CreateContainerError").await;
            let message = status(&pod)["state"]["waiting"]["message"].as_str().expect("a message").to_owned();
            let why = format!("a runtime that is spoken to by CRI v1 cannot be asked for {what}");
            assert!(message.contains(&why), "{message}");
            cluster.delete(name).await;
        }
    });
}

/// A plugin of somebody else's: it says that all is well.
const OTHER: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","address":"10.9.9.9/24","interface":0}]}'
"#;

#[test]
fn p2_a_sandbox_in_a_network_of_the_runtime_s_own_is_ended_and_the_pod_told_what_to_configure() {
    on_containerd(|cluster| async move {
        let mut cluster = cluster.lock().await;
        // It lives on while its runtime is away, and is found again.
        let stays =
            json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", "while true; do sleep 0.1; done")]});
        cluster.pod("stays", stays).await;
        let before = cluster.until("stays", |pod| condition(pod, "Ready")).await;
        let cni = cluster.dir.join("data/cni");
        let (plugin, list) = (cni.join("bin/other"), cni.join("net.d/00-other.conflist"));
        std::fs::write(&plugin, OTHER).expect("a file");
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        let other = json!({"cniVersion": "0.4.0", "name": "other", "plugins": [{"type": "other"}]});
        std::fs::write(&list, other.to_string()).expect("a file");
        // It reads them when it begins.
        cluster.containerd.as_mut().expect("it runs them").restart();
        cluster.pod("a", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", "sleep 1000")]})).await;
        told(&cluster, "the runtime has put the sandbox into a network of its own").await;
        // It is tried again, and goes well when the runtime has been told.
        std::fs::remove_file(&list).expect("our own file");
        cluster.containerd.as_mut().expect("it runs them").restart();
        cluster.until("a", |pod| condition(pod, "Ready")).await;
        cluster.delete("a").await;
        let after = cluster.until("stays", |pod| condition(pod, "Ready")).await;
        assert_eq!(status(&after)["state"], status(&before)["state"], "the same process, never restarted");
        assert_eq!(status(&after)["restartCount"], 0);
        cluster.delete("stays").await;
    });
}
