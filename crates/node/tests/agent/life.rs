//! A pod's life: it comes up, is ready, serves, ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::kinds;

use crate::stage::{condition, on_a_node, on_each_runtime, shell, status, until_so};

/// Prints that it ends when it is asked to.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done";

#[test]
fn a_pod_comes_up_is_ready_and_goes_without_a_trace() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let before = cluster.mounts();
        let mut web = shell("web", POLITE);
        web["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
        cluster.pod("web", json!({"containers": [web]})).await;
        let pod = cluster.until("web", |pod| condition(pod, "Ready")).await;
        assert_eq!(pod["status"]["phase"], "Running");
        assert!(pod["status"]["podIP"].as_str().expect("an address").starts_with("10.42.0."), "{pod:#}");
        assert!(status(&pod)["containerID"].as_str().expect("an id").starts_with("windlass://"));
        assert_eq!(status(&pod)["restartCount"], 0);
        assert_eq!(cluster.log(&pod, "web", 0), "up");
        cluster.delete("web").await;
        assert_eq!(cluster.mounts(), before, "nothing stays mounted");
        let pods = std::fs::read_dir(cluster.dir.join("data/pods")).expect("there").count();
        assert_eq!(pods, 0, "nothing stays on disk");
    });
}

#[test]
fn a_container_that_ignores_the_signal_is_killed_at_its_grace() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let stubborn = shell("a", "trap '' TERM; while true; do sleep 0.1; done");
        cluster.pod("a", json!({"terminationGracePeriodSeconds": 2, "containers": [stubborn]})).await;
        cluster.until("a", |pod| condition(pod, "Ready")).await;
        let began = Instant::now();
        cluster.delete("a").await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(10), "took {took:?}");
    });
}

#[test]
fn init_containers_run_before_and_hooks_around() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut web =
            shell("web", "cat /notes/log; trap 'cat /notes/log; exit 0' TERM; while true; do sleep 0.1; done");
        let note = |word: &str| json!({"exec": {"command": ["sh", "-c", format!("echo {word} >> /notes/log")]}});
        web["lifecycle"] = json!({"postStart": note("hook"), "preStop": note("stop")});
        let mount = json!([{"name": "notes", "mountPath": "/notes"}]);
        web["volumeMounts"] = mount.clone();
        let init = |name: &str| {
            let mut init = shell(name, &format!("echo {name} >> /notes/log"));
            init["volumeMounts"] = mount.clone();
            init
        };
        let spec = json!({"volumes": [{"name": "notes", "emptyDir": {}}], "containers": [web],
            "initContainers": [init("one"), init("two")]});
        cluster.pod("web", spec).await;
        let pod = cluster.until("web", |pod| condition(pod, "Ready")).await;
        assert_eq!(pod["status"]["initContainerStatuses"][1]["state"]["terminated"]["reason"], "Completed");
        let shared = format!("data/pods/{}/volumes/notes/log", pod["metadata"]["uid"].as_str().expect("a uid"));
        let log = std::fs::read_to_string(cluster.dir.join(&shared)).expect("the volume's file");
        assert_eq!(log, "one\ntwo\nhook\n");
        cluster.delete("web").await;
    });
}

#[test]
fn a_pod_that_does_not_restart_succeeds_or_fails_with_its_last_words() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let ends = |line: &str| json!({"restartPolicy": "Never", "containers": [shell("a", line)]});
        cluster.pod("good", ends("echo done > /dev/termination-log")).await;
        let mut bad = ends("echo first; echo last; exit 7");
        bad["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        cluster.pod("bad", bad).await;
        let good = cluster.until("good", |pod| pod["status"]["phase"] == "Succeeded").await;
        let terminated = &status(&good)["state"]["terminated"];
        assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(0), &json!("Completed")));
        assert_eq!(terminated["message"], "done\n");
        let bad = cluster.until("bad", |pod| pod["status"]["phase"] == "Failed").await;
        let terminated = &status(&bad)["state"]["terminated"];
        assert_eq!((&terminated["exitCode"], &terminated["message"]), (&json!(7), &json!("first\nlast\n")));
        cluster.delete("good").await;
        cluster.delete("bad").await;
    });
}

#[test]
fn a_pod_reaches_another_by_address_and_a_service_by_name() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut server = shell("web", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
        server["readinessProbe"] = json!({"httpGet": {"port": 8080, "path": "/index.html"}, "periodSeconds": 1});
        cluster.pod("server", json!({"containers": [server]})).await;
        let pod = cluster.until("server", |pod| condition(pod, "Ready")).await;
        let ip = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.43.5.5", "ports": [{"port": 80, "targetPort": 8080}]}});
        cluster.create(&kinds::SERVICE, service).await;
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": [{"port": 8080, "protocol": "TCP"}]});
        cluster.create(&kinds::ENDPOINT_SLICE, slice).await;
        let line = format!(
            "wget -q -O - http://{ip}:8080/index.html && until wget -q -O - http://web.default.svc.cluster.local/index.html; do sleep 0.2; done"
        );
        cluster.pod("client", json!({"restartPolicy": "Never", "containers": [shell("c", &line)]})).await;
        let client = cluster.until("client", |pod| pod["status"]["phase"] == "Succeeded").await;
        assert_eq!(cluster.log(&client, "c", 0).matches("hello").count(), 2);
        cluster.delete("client").await;
        cluster.delete("server").await;
    });
}

#[test]
fn a_pod_deleted_while_it_waits_goes_at_once() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut waits = shell("a", "true");
        waits["image"] = json!("127.0.0.1:1/none:v1");
        cluster.pod("a", json!({"containers": [waits]})).await;
        let reason = |pod: &Value| status(pod)["state"]["waiting"]["reason"].clone();
        cluster.until("a", |pod| matches!(reason(pod).as_str(), Some("ErrImagePull" | "ImagePullBackOff"))).await;
        let began = Instant::now();
        cluster.delete("a").await;
        assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    });
}

#[test]
fn a_running_pod_sees_a_new_token_before_the_old_one_ends() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.stop_agent().await;
        cluster.token_life = Some(Duration::from_secs(4));
        cluster.start_agent().await;
        let line = "while true; do now=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token); \
                    test \"$now\" = \"$last\" || echo \"$now\"; last=$now; sleep 0.1; done";
        cluster.pod("a", json!({"terminationGracePeriodSeconds": 0, "containers": [shell("a", line)]})).await;
        let pod = cluster.until("a", |pod| condition(pod, "Ready")).await;
        let seen = || cluster.log(&pod, "a", 0).lines().map(str::to_owned).collect::<Vec<_>>();
        until_so("the third token is there", || async { seen().len() >= 3 }).await;
        let seen = seen();
        let different: std::collections::BTreeSet<&String> = seen.iter().collect();
        assert_eq!(different.len(), seen.len(), "{seen:?}");
        assert!(seen.iter().all(|token| token.split('.').count() == 3), "{seen:?}");
        cluster.delete("a").await;
    });
}
