//! What cannot be done is said, in the words kubectl users know, and done once it can be.

use serde_json::{Value, json};
use windlass_api::kinds;

use crate::stage::{condition, on_a_node, shell, status};

fn waiting(pod: &Value) -> &Value {
    &status(pod)["state"]["waiting"]
}

#[test]
fn a_missing_config_map_is_waited_for() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut web = shell("web", "while true; do sleep 0.1; done");
        web["envFrom"] = json!([{"configMapRef": {"name": "late"}}]);
        cluster.pod("web", json!({"terminationGracePeriodSeconds": 1, "containers": [web]})).await;
        let pod = cluster.until("web", |pod| waiting(pod)["reason"] == "CreateContainerConfigError").await;
        assert_eq!(waiting(&pod)["message"], "configmap \"late\" not found");
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"}});
        cluster.create(&kinds::CONFIG_MAP, map).await;
        cluster.until("web", |pod| condition(pod, "Ready")).await;
        cluster.delete("web").await;
    });
}

#[test]
fn bad_images_name_their_reason() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let with = |image: &str, policy: &str| {
            let mut container = shell("a", "true");
            container["image"] = json!(image);
            container["imagePullPolicy"] = json!(policy);
            json!({"containers": [container]})
        };
        cluster.pod("never", with("test/none:1", "Never")).await;
        cluster.pod("pull", with("127.0.0.1:1/none:1", "IfNotPresent")).await;
        cluster.pod("name", with("Not An Image", "IfNotPresent")).await;
        let expected = [("never", "ErrImageNeverPull"), ("pull", "ImagePullBackOff"), ("name", "InvalidImageName")];
        for (pod, reason) in expected {
            cluster.until(pod, |pod| waiting(pod)["reason"] == reason).await;
        }
        for pod in ["never", "pull", "name"] {
            cluster.delete(pod).await;
        }
    });
}

#[test]
fn a_program_that_is_not_there_is_a_failed_start() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let container = json!([{"name": "a", "command": ["/no/such/program"]}]);
        cluster.pod("once", json!({"restartPolicy": "Never", "containers": container})).await;
        cluster.pod("again", json!({"containers": container})).await;
        let why = "program \"/no/such/program\" cannot be executed: No such file or directory (os error 2)";
        let once = cluster.until("once", |pod| pod["status"]["phase"] == "Failed").await;
        let terminated = &status(&once)["state"]["terminated"];
        let found = (&terminated["reason"], &terminated["exitCode"], &terminated["message"]);
        assert_eq!(found, (&json!("StartError"), &json!(128), &json!(why)));
        let again = cluster.until("again", |pod| waiting(pod)["reason"] == "RunContainerError").await;
        assert!(waiting(&again)["message"].as_str().expect("a message").ends_with(why), "{again:#}");
        let again = cluster.until("again", |pod| waiting(pod)["reason"] == "CrashLoopBackOff").await;
        assert_eq!(status(&again)["lastState"]["terminated"]["reason"], "StartError");
        for pod in ["once", "again"] {
            cluster.delete(pod).await;
        }
    });
}
