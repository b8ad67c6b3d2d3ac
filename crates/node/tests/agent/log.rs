//! What a container says, read through the API: API server → mutual TLS → node agent → file.

use serde_json::json;

use crate::stage::{condition, on_a_node, shell, status, until_so};

const LOG: &str = "/api/v1/namespaces/default/pods/a/log";

#[test]
fn logs_are_read_cut_and_followed_to_their_end() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let line = "echo one; echo two; echo three; until test -e /go/go; do sleep 0.05; done; echo four";
        let mut container = shell("a", line);
        container["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
        let spec =
            json!({"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "go", "emptyDir": {}}]});
        cluster.pod("a", spec).await;
        let pod = cluster.until("a", |pod| condition(pod, "Ready")).await;
        until_so("the log is there", || async { cluster.get(LOG).await.1 == "one\ntwo\nthree\n" }).await;
        assert_eq!(cluster.get(&format!("{LOG}?tailLines=1")).await, (200, "three\n".to_owned()));
        assert_eq!(cluster.get(&format!("{LOG}?limitBytes=5")).await, (200, "one\nt".to_owned()));
        let timed = cluster.get(&format!("{LOG}?timestamps=true&tailLines=1")).await.1;
        assert!(timed.ends_with("Z three\n") || timed.ends_with("+00:00 three\n"), "{timed}");
        let (code, refusal) = cluster.get(&format!("{LOG}?previous=true")).await;
        assert_eq!(code, 400, "{refusal}");
        assert!(refusal.contains("previous terminated container"), "{refusal}");
        let go = format!("data/pods/{}/volumes/go/go", pod["metadata"]["uid"].as_str().expect("a uid"));
        let followed = format!("{LOG}?follow=true");
        let follow = cluster.get(&followed);
        let end = async {
            tokio::task::yield_now().await;
            std::fs::write(cluster.dir.join(go), "").expect("the volume is there");
        };
        let ((code, text), ()) = tokio::join!(follow, end);
        assert_eq!((code, text.as_str()), (200, "one\ntwo\nthree\nfour\n"));
        let pod = cluster.until("a", |pod| pod["status"]["phase"] == "Succeeded").await;
        assert_eq!(status(&pod)["state"]["terminated"]["exitCode"], 0);
        cluster.delete("a").await;
    });
}
