//! What a container finds in its environment and its files.

use serde_json::json;
use windlass_api::kinds;
use windlass_client::Patch;

use crate::stage::{condition, on_a_node, shell, until_so};

#[test]
fn environment_and_volumes_come_from_their_objects_and_follow_them() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "default"},
            "data": {"colour": "blue", "file": "one"}});
        cluster.create(&kinds::CONFIG_MAP, map).await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
            "data": {"password": "aHVudGVyMg=="}});
        cluster.create(&kinds::SECRET, secret).await;
        let line = "echo $COLOUR $PASSWORD $WHO $FROM_IMAGE $KUBERNETES_SERVICE_HOST; cat /secret/password; echo; cat /etc/hostname; \
            cat /map/file; echo; until test \"$(cat /map/file)\" = two; do sleep 0.1; done; echo changed; \
            { echo mine > /map/mine; } 2>/dev/null || echo refused; while true; do sleep 0.1; done";
        let mut web = shell("web", line);
        web["env"] = json!([
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "colour"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]);
        web["volumeMounts"] = json!([{"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"}]);
        let spec = json!({"containers": [web], "terminationGracePeriodSeconds": 1, "volumes": [
            {"name": "map", "configMap": {"name": "m"}}, {"name": "secret", "secret": {"secretName": "s"}}]});
        cluster.pod("web", spec).await;
        let pod = cluster.until("web", |pod| condition(pod, "Ready")).await;
        let said = async |word: &str| until_so(word, || async { cluster.log(&pod, "web", 0).contains(word) }).await;
        said("one").await;
        let patch = Patch::Merge(json!({"data": {"file": "two"}}));
        cluster.client.patch(&kinds::CONFIG_MAP, "default", "m", &patch, None).await.expect("a change");
        said("refused").await;
        let log = cluster.log(&pod, "web", 0);
        assert_eq!(log, "blue hunter2 web yes 10.43.0.1\nhunter2\nweb\none\nchanged\nrefused");
        cluster.delete("web").await;
    });
}
