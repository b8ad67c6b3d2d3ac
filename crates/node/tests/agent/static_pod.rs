//! Static pods: files of the machine that say what runs, and their likenesses in the API.

use std::fs;

use serde_json::Value;
use windlass_api::kinds;
use windlass_client::DeleteOptions;

use crate::stage::{IMAGE, condition, on_a_node, status};

fn manifest(word: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    command: [sh, -c, 'trap \"exit 0\" TERM; echo {word}; while true; do sleep 0.1; done']\n"
    )
}

fn container(pod: &Value) -> String {
    status(pod)["containerID"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_file_is_a_pod_with_a_mirror_until_it_goes() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let file = cluster.dir.join("manifests/web.yaml");
        fs::create_dir_all(cluster.dir.join("manifests")).expect("the test's own directory");
        fs::write(&file, manifest("one")).expect("the test's own directory");
        let mirror = cluster.until("web-n1", |pod| condition(pod, "Ready")).await;
        assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
        assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
        // Who deletes the mirror does not touch the pod.
        let running = container(&mirror);
        let options = DeleteOptions::default();
        cluster.client.delete(&kinds::POD, "default", "web-n1", &options).await.expect("a mirror can be deleted");
        let uid = mirror["metadata"]["uid"].clone();
        let again = cluster.until("web-n1", |pod| condition(pod, "Ready") && pod["metadata"]["uid"] != uid).await;
        assert_eq!(container(&again), running, "the same container as before");
        // Another text is another pod.
        fs::write(&file, manifest("two")).expect("the test's own directory");
        let changed = cluster
            .until("web-n1", |pod| condition(pod, "Ready") && !container(pod).is_empty() && container(pod) != running)
            .await;
        assert_eq!(changed["status"]["phase"], "Running");
        fs::remove_file(&file).expect("the test's own file");
        cluster.until("web-n1", Value::is_null).await;
    });
}
