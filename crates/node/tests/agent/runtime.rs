//! Who runs a pod's containers: what its RuntimeClass names, or the node's default.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::DeleteOptions;

use crate::stage::{Cluster, NODE, condition, on_a_node, shell, status, until_so};

async fn class(cluster: &Cluster, name: &str, handler: &str) {
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
        "handler": handler});
    cluster.client.create(&kinds::RUNTIME_CLASS, "", &class).await.expect("a class");
}

/// The messages of a pod's events with this reason.
async fn told(cluster: &Cluster, reason: &str) -> Vec<String> {
    let (_, text) = cluster.get("/api/v1/namespaces/default/events").await;
    let events: Value = serde_json::from_str(&text).expect("a list");
    let all = events["items"].as_array().into_iter().flatten().filter(|event| event["reason"] == reason);
    all.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_class_says_who_runs_a_pod_and_others_are_run_by_the_default() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        class(&cluster, "reference", "runc").await;
        class(&cluster, "usual", "windlass").await;
        let stays = || shell("a", "echo up; trap 'exit 0' TERM; while true; do sleep 0.1; done");
        for (name, class) in [("runc", json!("reference")), ("own", json!("usual")), ("default", Value::Null)] {
            cluster.pod(name, json!({"runtimeClassName": class, "containers": [stays()]})).await;
        }
        let programs = |uid: &str| {
            let kernel = cluster.kernel();
            kernel.sandbox(uid).expect("the sandbox lives").spec().program.clone()
        };
        for (name, program) in [("runc", Some("/usr/sbin/runc".into())), ("own", None), ("default", None)] {
            let pod = cluster.until(name, |pod| condition(pod, "Ready")).await;
            assert_eq!(programs(pod["metadata"]["uid"].as_str().expect("a uid")), program, "{name}");
            assert_eq!(cluster.log(&pod, "a", 0), "up");
            cluster.delete(name).await;
        }
    });
}

#[test]
fn a_handler_that_nobody_knows_fails_the_pod_with_an_event_until_it_is_known() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        class(&cluster, "vm", "kata").await;
        let spec = json!({"runtimeClassName": "vm", "restartPolicy": "Never", "containers": [shell("a", "true")]});
        cluster.pod("a", spec).await;
        let why = "Failed to create pod sandbox: look up the pod's runtime: no runtime for \"kata\" is configured; \
                   this node has windlass, crun, runc";
        until_so("it is told", async || told(&cluster, "FailedCreatePodSandBox").await.contains(&why.to_owned())).await;
        cluster.until("a", |pod| status(pod)["state"]["waiting"]["reason"] == "ContainerCreating").await;
        // A handler never changes, but the class may be another one.
        let options = DeleteOptions::default();
        cluster.client.delete(&kinds::RUNTIME_CLASS, "", "vm", &options).await.expect("it is deleted");
        let gone = "Failed to create pod sandbox: runtimeclass.node.k8s.io \"vm\" not found";
        until_so("it is tried again", async || {
            told(&cluster, "FailedCreatePodSandBox").await.contains(&gone.to_owned())
        })
        .await;
        class(&cluster, "vm", "runc").await;
        cluster.until("a", |pod| pod["status"]["phase"] == "Succeeded").await;
        cluster.delete("a").await;
    });
}

#[test]
fn the_node_tells_its_handlers_and_what_they_can_do() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let node = cluster.client.get(&kinds::NODE, "", NODE).await.expect("an answer").expect("the node").value();
        let handlers = node["status"]["runtimeHandlers"].as_array().expect("a list").clone();
        let names: Vec<&Value> = handlers.iter().map(|handler| &handler["name"]).collect();
        assert_eq!(names, ["", "windlass", "crun", "runc"]);
        let whole = json!({"recursiveReadOnlyMounts": true, "userNamespaces": true});
        for name in ["", "windlass", "runc"] {
            let own = handlers.iter().find(|handler| handler["name"] == name).expect("it is listed");
            assert_eq!(own["features"], whole, "{name}");
        }
    });
}

#[test]
fn an_agent_takes_over_pods_of_a_class_without_asking_for_it() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        class(&cluster, "reference", "runc").await;
        let spec = json!({"runtimeClassName": "reference", "terminationGracePeriodSeconds": 1,
            "containers": [shell("a", "while true; do sleep 0.1; done")]});
        cluster.pod("a", spec).await;
        let before = cluster.until("a", |pod| condition(pod, "Ready")).await;
        cluster.stop_agent().await;
        let options = DeleteOptions::default();
        cluster.client.delete(&kinds::RUNTIME_CLASS, "", "reference", &options).await.expect("it is deleted");
        cluster.start_agent().await;
        let after = cluster.until("a", |pod| condition(pod, "Ready")).await;
        assert_eq!(status(&after)["containerID"], status(&before)["containerID"]);
        assert_eq!(status(&after)["restartCount"], 0);
        cluster.delete("a").await;
    });
}

/// crun has no way around a machine that mounts both versions of control groups and has controllers in the second.
#[test]
fn crun_runs_a_pod_or_says_why_not() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        class(&cluster, "crun", "crun").await;
        let spec = json!({"runtimeClassName": "crun", "restartPolicy": "Never",
            "containers": [shell("a", "echo said; exit 3")]});
        cluster.pod("a", spec).await;
        let pod = cluster.until("a", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = &status(&pod)["state"]["terminated"];
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        if controllers.trim().is_empty() {
            assert_eq!((&ended["exitCode"], cluster.log(&pod, "a", 0)), (&json!(3), "said".to_owned()));
        } else {
            assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(128), &json!("StartError")));
            let message = ended["message"].as_str().expect("a message");
            assert!(message.contains("crun create: ") && message.contains("hybrid mode not supported"), "{message}");
        }
        cluster.delete("a").await;
    });
}
