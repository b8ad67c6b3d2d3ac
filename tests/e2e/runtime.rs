//! Pods that a program of the machine runs, as their RuntimeClass says.

use std::time::Duration;

use serde_json::Value;
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, trace};

const MANIFEST: &str = "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: reference}
handler: runc
overhead: {podFixed: {memory: 8Mi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: reference
      terminationGracePeriodSeconds: 5
      containers:
      - name: main
        image: windlass.local/demo:1
        command: [sh, -c, 'echo begun; trap \"exit 0\" TERM; while true; do sleep 0.2; done']
        resources: {limits: {memory: 64Mi}}
";

fn pods(cluster: &Cluster) -> Vec<Value> {
    let list = must(&mut cluster.kubectl_command(&["get", "pods", "-l", "app=web", "-o", "json"]));
    let list: Value = serde_json::from_str(&list).expect("kubectl prints JSON");
    list["items"].as_array().expect("a list").clone()
}

fn both_ready(cluster: &Cluster) -> Vec<Value> {
    until("both pods are Ready", PATIENCE, || {
        let pods = pods(cluster);
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        if ready == 2 && pods.len() == 2 { Ok(pods) } else { Err(format!("{ready} of {}", pods.len())) }
    })
}

/// Every container of the cluster that runc has made: its state is in the cluster's run directory.
fn made_by_runc(cluster: &Cluster) -> usize {
    let mut open = vec![cluster.run_dir()];
    let mut found = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            found += usize::from(entry.file_name() == "state.json");
            open.extend(is_directory.then(|| entry.path()));
        }
    }
    found
}

pub fn a_runtime_class_has_its_pods_run_by_runc_and_down_leaves_nothing() {
    let mut cluster = Cluster::start(3);
    cluster.import_image();
    let node = must(&mut cluster.kubectl_command(&["get", "node", "node1", "-o", "yaml"]));
    for line in ["runtimeHandlers:", "name: windlass", "name: runc"] {
        assert!(node.contains(line), "{line} in {node}");
    }
    let file = cluster.data_dir().join("runtime.yaml");
    std::fs::write(&file, MANIFEST).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    let before = both_ready(&cluster);
    assert_eq!(made_by_runc(&cluster), 2);
    assert_eq!(before[0]["spec"]["overhead"]["memory"], "8Mi");
    let name = before[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    assert_eq!(must(&mut cluster.kubectl_command(&["logs", &name])), "begun\n");
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; grep Seccomp: /proc/self/status";
    let seen = must(&mut cluster.kubectl_command(&["exec", &name, "--", "sh", "-c", look]));
    assert_eq!(seen, "67108864\nSeccomp:\t2\n");
    let failed = cluster.kubectl(&["exec", &name, "--", "sh", "-c", "exit 7"]);
    assert!(failed.stderr.contains("exit code 7"), "{}", failed.stderr);
    let missing = cluster.kubectl(&["exec", &name, "--", "no-such-program"]);
    assert!(missing.stderr.contains("executable file not found"), "{}", missing.stderr);

    // An agent that dies takes nothing along, and the next one goes on.
    cluster.kill();
    cluster.up();
    let after = both_ready(&cluster);
    for (one, other) in before.iter().zip(&after) {
        let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
        assert_eq!((id(one), &other["status"]["containerStatuses"][0]["restartCount"]), (id(other), &Value::from(0)));
    }
    must(&mut cluster.kubectl_command(&["delete", "pod", &name, "--timeout=30s"]));
    let fresh = both_ready(&cluster);
    assert!(fresh.iter().all(|pod| pod["metadata"]["name"] != name), "another one has taken its place");
    until("what runc kept of the pod is gone", Duration::from_secs(10), || match made_by_runc(&cluster) {
        2 => Ok(()),
        count => Err(format!("{count} containers")),
    });
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let left = trace::left_behind(&cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}
