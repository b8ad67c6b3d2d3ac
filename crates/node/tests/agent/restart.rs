//! Containers that end are started again; an agent that ends leaves its pods alone and takes them over.

use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_api::kinds;
use windlass_client::DeleteOptions;
use windlass_node::Machine;

use crate::stage::{Cluster, condition, on_each_runtime, shell, status, until_so};

const STAYS: &str = "while true; do sleep 0.1; done";

#[test]
fn a_container_that_ends_is_started_again_at_once_and_then_backed_off() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        cluster.pod("a", json!({"containers": [shell("a", "echo again; exit 3")]})).await;
        let pod = cluster.until("a", |pod| status(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
        assert_eq!(status(&pod)["restartCount"], 1, "the first restart does not wait");
        assert_eq!(status(&pod)["lastState"]["terminated"]["exitCode"], 3);
        assert!(
            status(&pod)["state"]["waiting"]["message"]
                .as_str()
                .expect("a message")
                .starts_with("back-off 10s restarting")
        );
        assert_eq!((cluster.log(&pod, "a", 0), cluster.log(&pod, "a", 1)), ("again".to_owned(), "again".to_owned()));
        cluster.delete("a").await;
    });
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_started_again() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        let mut web = shell("web", STAYS);
        web["livenessProbe"] =
            json!({"exec": {"command": ["test", "-e", "/tmp/well"]}, "periodSeconds": 1, "failureThreshold": 1});
        web["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh", "-c", "true"]}}});
        cluster.pod("web", json!({"terminationGracePeriodSeconds": 1, "containers": [web]})).await;
        let pod = cluster.until("web", |pod| status(pod)["restartCount"].as_u64() >= Some(1)).await;
        assert_eq!(status(&pod)["lastState"]["terminated"]["reason"], "Error");
        cluster.delete("web").await;
    });
}

#[test]
fn an_agent_takes_over_what_runs_and_buries_what_was_deleted() {
    on_each_runtime(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let spec = || json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", STAYS)]});
        cluster.pod("stays", spec()).await;
        cluster.pod("goes", spec()).await;
        // The image is told when the start is over, which may be a moment after the container runs.
        let is_told = |pod: &Value| condition(pod, "Ready") && status(pod)["imageID"] != "";
        let stays = cluster.until("stays", is_told).await;
        let goes = cluster.until("goes", |pod| condition(pod, "Ready")).await;
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let running = async |cluster: &crate::stage::Cluster| {
            let observed = cluster.kernel().observe(&uid(&stays)).await.expect("the machine can be looked at");
            assert!(observed.sandbox_alive, "the sandbox lives");
            format!("{:?}", observed.containers)
        };
        let before = running(&cluster).await;
        cluster.stop_agent().await;
        let at_once = DeleteOptions::default().at_once();
        cluster.client.delete(&kinds::POD, "default", "goes", &at_once).await.expect("deleted behind the agent's back");
        cluster.start_agent().await;
        let is_rid = || async { !cluster.kernel().pods().await.expect("it can be looked at").contains(&uid(&goes)) };
        until_so("the deleted pod is torn down", is_rid).await;
        assert_eq!(running(&cluster).await, before, "the same process, never restarted");
        let after = cluster.until("stays", is_told).await;
        assert_eq!(status(&after), status(&stays));
        cluster.delete("stays").await;
    });
}

fn kill_shim(cluster: &Cluster, uid: &str) {
    let pid = match &cluster.containerd {
        Some(containerd) => containerd.shim(uid),
        None => {
            let pid_file = cluster.dir.join(format!("run/runtime/sandboxes/{uid}/shim.pid"));
            std::fs::read_to_string(&pid_file).expect("a shim").trim().parse().expect("a number")
        }
    };
    let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the shim of this test");
}

#[test]
fn in_a_new_sandbox_the_init_containers_run_again_before_all_others() {
    on_each_runtime(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let mut sidecar = shell("sidecar", STAYS);
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"terminationGracePeriodSeconds": 1,
            "initContainers": [shell("first", "echo done"), sidecar, shell("last", "echo done")],
            "containers": [shell("a", STAYS)]});
        cluster.pod("a", spec).await;
        let pod = cluster.until("a", |pod| condition(pod, "Ready")).await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        kill_shim(&cluster, &uid);
        let is_again = |count: u32| {
            move |pod: &Value| {
                let init = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
                let mut all = init.chain([status(pod)]);
                condition(pod, "Ready") && all.all(|one| one["restartCount"] == count)
            }
        };
        let again = cluster.until("a", is_again(1)).await;
        let state = |name: &str, when: &str| {
            let lists = ["initContainerStatuses", "containerStatuses"].map(|list| again["status"][list].as_array());
            let mut all = lists.into_iter().flatten().flatten();
            let found = all.find(|status| status["name"] == name).expect("it has a status");
            found["state"][when].clone()
        };
        let since = state("a", "running")["startedAt"].as_str().expect("a time").to_owned();
        for name in ["first", "last"] {
            assert_eq!(cluster.log(&again, name, 1), "done");
            assert!(state(name, "terminated")["finishedAt"].as_str().expect("a time") <= since.as_str(), "{again:#}");
        }
        // The same when an agent finds the sandbox gone that was there when the last one ended.
        cluster.stop_agent().await;
        kill_shim(&cluster, &uid);
        cluster.start_agent().await;
        let again = cluster.until("a", is_again(2)).await;
        assert_eq!(cluster.log(&again, "first", 2), "done");
        cluster.delete("a").await;
    });
}

#[test]
fn a_lost_shim_is_noticed_and_its_containers_start_again() {
    on_each_runtime(|cluster| async move {
        let cluster = cluster.lock().await;
        cluster.pod("a", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", STAYS)]})).await;
        let pod = cluster.until("a", |pod| condition(pod, "Ready")).await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let began = Instant::now();
        kill_shim(&cluster, &uid);
        let again = cluster.until("a", |pod| status(pod)["restartCount"] == 1 && condition(pod, "Ready")).await;
        assert_eq!(again["status"]["podIP"], pod["status"]["podIP"], "the pod keeps its address");
        // containerd kills what is left and calls that an end by a signal.
        let reason = if cluster.containerd.is_some() { "Error" } else { "ContainerStatusUnknown" };
        assert_eq!(status(&again)["lastState"]["terminated"]["reason"], reason);
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "took {:?}", began.elapsed());
        cluster.delete("a").await;
    });
}
