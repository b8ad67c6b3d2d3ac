//! What a pod may ask for besides its containers: helpers that stay, rules for restarts, signals, gates, shared namespaces.

use serde_json::{Value, json};
use std::fs;
use windlass_api::{Subresource, kinds};
use windlass_client::Patch;

use crate::stage::{condition, on_a_node, shell, until_so};

/// Runs until it is told to end.
const IDLE: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

fn of<'a>(pod: &'a Value, name: &str) -> &'a Value {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
        .find(|status| status["name"] == name)
        .unwrap_or(&Value::Null)
}

/// A container that notes its begin and its end in a file that the others share.
fn noting(name: &str) -> Value {
    let line = format!(
        "echo {name} begins >> /notes/log; trap 'echo {name} ends >> /notes/log; exit 0' TERM; while true; do sleep 0.1; done"
    );
    let mut container = shell(name, &line);
    container["volumeMounts"] = json!([{"name": "notes", "mountPath": "/notes"}]);
    container
}

#[test]
fn sidecars_begin_before_the_others_and_end_after_them() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let notes = cluster.dir.join("notes");
        fs::create_dir(&notes).expect("the test's own directory");
        let sidecar = |name: &str| {
            let mut container = noting(name);
            container["restartPolicy"] = json!("Always");
            container["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/notes/log"]}, "periodSeconds": 1});
            container
        };
        let spec = json!({"terminationGracePeriodSeconds": 20, "initContainers": [sidecar("first"), sidecar("second")],
            "containers": [noting("main")], "volumes": [{"name": "notes", "hostPath": {"path": notes}}]});
        cluster.pod("ordered", spec).await;
        let pod = cluster.until("ordered", |pod| condition(pod, "Ready")).await;
        assert!(of(&pod, "second")["ready"] == true && of(&pod, "second")["started"] == true, "{pod:#}");
        cluster.delete("ordered").await;
        let log = fs::read_to_string(notes.join("log")).expect("they have noted");
        let expected = ["first begins", "second begins", "main begins", "main ends", "second ends", "first ends"];
        assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn a_job_ends_although_its_sidecar_would_go_on_and_rules_restart_what_they_name() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut sidecar = shell("sidecar", IDLE);
        sidecar["restartPolicy"] = json!("Always");
        let mut main = shell("main", "if [ -e /once/failed ]; then exit 7; fi; touch /once/failed; exit 42");
        main["restartPolicy"] = json!("Never");
        main["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        main["volumeMounts"] = json!([{"name": "once", "mountPath": "/once"}]);
        let spec = json!({"restartPolicy": "Never", "initContainers": [sidecar], "containers": [main],
            "volumes": [{"name": "once", "emptyDir": {}}]});
        cluster.pod("job", spec).await;
        let pod = cluster.until("job", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(of(&pod, "main")["restartCount"], 1);
        assert_eq!(of(&pod, "main")["state"]["terminated"]["exitCode"], 7);
        assert!(of(&pod, "sidecar")["state"]["terminated"].is_object(), "{pod:#}");
        cluster.delete("job").await;
    });
}

#[test]
fn a_container_is_stopped_as_it_asks_and_a_gate_holds_readiness_back() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let notes = cluster.dir.join("notes");
        fs::create_dir(&notes).expect("the test's own directory");
        let line = "trap 'echo usr1 > /notes/said; exit 0' USR1; trap 'echo term > /notes/said; exit 0' TERM; while true; do sleep 0.1; done";
        let mut main = shell("main", line);
        main["lifecycle"] = json!({"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 1}}});
        main["volumeMounts"] = json!([{"name": "notes", "mountPath": "/notes"}]);
        let spec = json!({"os": {"name": "linux"}, "readinessGates": [{"conditionType": "example.com/gate"}],
            "containers": [main], "volumes": [{"name": "notes", "hostPath": {"path": notes}}]});
        cluster.pod("gated", spec).await;
        let pod = cluster.until("gated", |pod| condition(pod, "ContainersReady")).await;
        assert!(!condition(&pod, "Ready"), "{pod:#}");
        let patch = json!({"status": {"conditions": [{"type": "example.com/gate", "status": "True"}]}});
        let patch = Patch::Strategic(patch);
        let patched = cluster.client.patch(&kinds::POD, "default", "gated", &patch, Some(Subresource::Status)).await;
        patched.expect("a condition of others can be set");
        cluster.until("gated", |pod| condition(pod, "Ready")).await;
        let began = tokio::time::Instant::now();
        cluster.delete("gated").await;
        assert!(began.elapsed().as_secs_f64() >= 0.9, "the hook slept");
        assert_eq!(fs::read_to_string(notes.join("said")).expect("it has said"), "usr1\n");
    });
}

#[test]
fn namespaces_are_shared_as_asked() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let look = "ls -l /proc/self/ns/ipc /proc/self/ns/pid; cat /proc/1/comm /proc/sys/kernel/hostname; echo";
        let looking = |mut spec: Value, name: &str| {
            let mut pod = json!({"restartPolicy": "Never", "containers": [shell("main", look)]});
            for (key, value) in spec.as_object_mut().into_iter().flatten() {
                pod[key.as_str()] = value.take();
            }
            let (cluster, name) = (&*cluster, name.to_owned());
            async move {
                cluster.pod(&name, pod).await;
                let pod = cluster.until(&name, |pod| pod["status"]["phase"] == "Succeeded").await;
                let log = cluster.log(&pod, "main", 0);
                let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
                log.lines().map(last).collect::<Vec<_>>()
            }
        };
        let own = |kind: &str| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("we have namespaces");
            link.to_string_lossy().into_owned()
        };
        let plain = looking(json!({}), "plain").await;
        assert!(plain[0] != own("ipc") && plain[1] != own("pid") && plain[2] == "sh", "{plain:?}");
        let host = looking(json!({"hostIPC": true, "hostPID": true}), "host").await;
        assert_eq!(host[0], own("ipc"));
        assert!(host[2] != "sh", "the first process is the machine's: {host:?}");
        let shared = looking(json!({"shareProcessNamespace": true}), "shared").await;
        assert!(shared[2] != "sh", "the first process is the sandbox's: {shared:?}");
        let full = json!({"hostname": "one", "subdomain": "group", "setHostnameAsFQDN": true});
        let full = looking(full, "full").await;
        assert_eq!(full[3], "one.group.default.svc.cluster.local");
    });
}

#[test]
fn a_visitor_sees_the_processes_it_came_to_see() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        cluster.pod("visited", json!({"containers": [shell("main", "exec sleep 1234")]})).await;
        cluster.until("visited", |pod| condition(pod, "Ready")).await;
        let mut visitor = shell("visitor", "cat /proc/1/cmdline; echo; sleep 1000");
        visitor["image"] = json!(crate::stage::IMAGE);
        visitor["targetContainerName"] = json!("main");
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [visitor]}}));
        let part = Some(Subresource::EphemeralContainers);
        let patched = cluster.client.patch(&kinds::POD, "default", "visited", &patch, part).await;
        patched.expect("a visitor can be named");
        let pod = cluster.until("visited", |pod| of(pod, "visitor")["state"]["running"].is_object()).await;
        assert!(condition(&pod, "Ready") && of(&pod, "visitor")["ready"] == false, "{pod:#}");
        until_so("it sees the other's first process", || async { cluster.log(&pod, "visitor", 0).contains("1234") })
            .await;
        cluster.delete("visited").await;
    });
}
