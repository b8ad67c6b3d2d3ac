//! A node that is short of memory says so, lets pods go in their order, and takes none that promise nothing.

use serde_json::json;
use windlass_runtime::image::ImageConfig;
use windlass_runtime::image::build::{Entry, write_oci};

use crate::stage::{condition, on_a_node, shell};

const STAYS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

#[test]
fn a_node_short_of_memory_evicts_who_was_promised_nothing_first() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let pod = |memory: Option<&str>| {
            let mut container = shell("a", STAYS);
            if let Some(memory) = memory {
                let amounts = json!({"cpu": "10m", "memory": memory});
                container["resources"] = json!({"requests": amounts, "limits": amounts});
            }
            json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container]})
        };
        cluster.pod("promised", pod(Some("64Mi"))).await;
        cluster.pod("nothing", pod(None)).await;
        for name in ["promised", "nothing"] {
            cluster.until(name, |pod| condition(pod, "Ready")).await;
        }
        cluster.stop_agent().await;
        cluster.memory_free_bytes_min = Some(1 << 50);
        cluster.start_agent().await;
        let nothing = cluster.until("nothing", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(nothing["status"]["reason"], "Evicted");
        let message = nothing["status"]["message"].as_str().expect("a message");
        assert!(message.starts_with("The node was low on resource: memory. "), "{message}");
        cluster.pod("late", pod(None)).await;
        let late = cluster.until("late", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(late["status"]["reason"], "Evicted");
        assert!(late["status"]["message"].as_str().expect("a message").contains("MemoryPressure"), "{late:#}");
        // It is short of memory still, so in the end even this one goes, after the other.
        let promised = cluster.until("promised", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = |pod: &serde_json::Value| {
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"].clone()
        };
        assert!(ended(&nothing).as_str() <= ended(&promised).as_str(), "{nothing:#} {promised:#}");
        for name in ["nothing", "late", "promised"] {
            cluster.delete(name).await;
        }
    });
}

#[test]
fn a_node_short_of_disk_gives_up_images_before_pods() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.pod("runs", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", STAYS)]})).await;
        cluster.until("runs", |pod| condition(pod, "Ready")).await;
        let archive = cluster.dir.join("unused.tar");
        let entries = [Entry::directory("bin"), Entry::program("bin/unused", vec![7; 100_000])];
        write_oci(&archive, "test/unused:1", &entries, &ImageConfig::default()).expect("an archive");
        cluster.kernel().images().import(&archive, Some("test/unused:1")).await.expect("an image");
        cluster.stop_agent().await;
        cluster.disk_free_bytes_min = Some(1 << 60);
        cluster.start_agent().await;
        let evicted = cluster.until("runs", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(evicted["status"]["reason"], "Evicted");
        assert!(evicted["status"]["message"].as_str().expect("a message").contains("ephemeral-storage"), "{evicted:#}");
        assert!(cluster.kernel().images().find("test/unused:1").expect("a store").is_none(), "it went before the pod");
        cluster.delete("runs").await;
    });
}
