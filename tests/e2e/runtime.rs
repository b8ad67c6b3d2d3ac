//! Pods that a program of the machine runs, or another runtime, as their RuntimeClass says.

#[path = "../../crates/node/tests/agent/containerd.rs"]
mod containerd;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use windlass_tests::cluster::{given, kill, must, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, trace};

use containerd::Containerd;

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

const FOREIGN: &str = "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: foreign}
handler: containerd
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: hello from a volume}
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
      runtimeClassName: foreign
      terminationGracePeriodSeconds: 5
      volumes: [{name: words, configMap: {name: words}}]
      containers:
      - name: main
        image: windlass.local/demo:1
        command: [sh, -c, 'echo begun; GREETING=$(cat /words/greeting) exec web']
        volumeMounts: [{name: words, mountPath: /words, readOnly: true}]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
        livenessProbe: {exec: {command: [test, -e, /words/greeting]}, periodSeconds: 1}
        resources: {limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// A pod that the node itself runs asks the service by its name.
const ASKS: &str = "apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'until web fetch http://web.default.svc.cluster.local/; do sleep 0.2; done']
";

pub fn a_runtime_class_has_its_pods_run_by_containerd_and_down_leaves_nothing() {
    if !Containerd::is_there() {
        eprintln!("containerd is not installed (Debian: containerd): nothing is run by it");
        return;
    }
    let directory = std::env::temp_dir().join(format!("windlass-e2e-{}-foreign", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let mut cluster = Cluster::at(4, &directory);
    let containerd = Containerd::start(&directory.join("containerd"), &cluster.data_dir());
    let flag = format!("{}=unix://{}", containerd::HANDLER, containerd.socket().display());
    let flags = ["--runtime", flag.as_str()];
    let up = |cluster: &mut Cluster| {
        cluster.spawn_with(&given("WINDLASS_BIN"), &flags);
        cluster.wait_ready();
    };
    up(&mut cluster);
    cluster.import_image();
    for (name, manifest) in [("foreign.yaml", FOREIGN), ("asks.yaml", ASKS)] {
        let file = cluster.data_dir().join(name);
        std::fs::write(&file, manifest).expect("writable");
        must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    }
    let before = both_ready(&cluster);
    assert_eq!(containerd.containers().lines().count(), 4, "two sandboxes and two containers");
    let name = before[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let said = must(&mut cluster.kubectl_command(&["logs", &name]));
    assert!(said.starts_with("begun\nlistening on port 8080\n"), "{said}");
    until("a pod of the node's own has asked the service", PATIENCE, || match cluster.kubectl(&["logs", "asks"]) {
        out if out.stdout.contains("hello from a volume") => Ok(()),
        out => Err(out.stdout + &out.stderr),
    });

    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; grep Seccomp: /proc/self/status";
    let seen = must(&mut cluster.kubectl_command(&["exec", &name, "--", "sh", "-c", look]));
    assert_eq!(seen, "67108864\nSeccomp:\t2\n");
    let failed = cluster.kubectl(&["exec", &name, "--", "sh", "-c", "exit 7"]);
    assert!(failed.stderr.contains("exit code 7"), "{}", failed.stderr);
    let mut echo = cluster.kubectl_command(&["exec", "-i", &name, "--", "cat"]);
    let mut echo = echo.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let text = "x".repeat(1 << 20);
    let mut stdin = echo.stdin.take().expect("piped");
    let sent = text.clone();
    let sends = std::thread::spawn(move || stdin.write_all(sent.as_bytes()));
    let echoed = echo.wait_with_output().expect("kubectl ends");
    sends.join().expect("no panic").expect("it takes all of it");
    assert!(echoed.stdout == text.as_bytes(), "a MiB goes in and comes out: {} bytes", echoed.stdout.len());

    let mut forward = cluster.kubectl_command(&["port-forward", &name, ":8080"]);
    let mut forward = forward.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl starts");
    // It says more with each connection, and ends when nobody listens.
    let mut says = BufReader::new(forward.stdout.take().expect("piped"));
    let mut line = String::new();
    says.read_line(&mut line).expect("it says where");
    let address = line.split(' ').nth(2).expect("Forwarding from ADDRESS -> 8080").to_owned();
    let url = format!("http://{address}/");
    let answer = must(std::process::Command::new("/usr/bin/curl").args(["--silent", "--max-time", "20", &url]));
    assert!(answer.contains("hello from a volume"), "{answer}");
    kill(&mut forward);

    // An agent that dies takes nothing along, and the next one goes on.
    cluster.kill();
    up(&mut cluster);
    let after = both_ready(&cluster);
    for (one, other) in before.iter().zip(&after) {
        let told = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            (status["containerID"].clone(), status["state"]["running"]["startedAt"].clone())
        };
        assert_eq!(
            (told(one), &other["status"]["containerStatuses"][0]["restartCount"]),
            (told(other), &Value::from(0))
        );
    }
    must(&mut cluster.kubectl_command(&["delete", "pod", &name, "--timeout=30s"]));
    let fresh = both_ready(&cluster);
    assert!(fresh.iter().all(|pod| pod["metadata"]["name"] != name), "another one has taken its place");
    until("what containerd kept of the pod is gone", Duration::from_secs(10), || {
        match containerd.containers().lines().count() {
            4 => Ok(()),
            count => Err(format!("{count} containers")),
        }
    });
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    assert_eq!(containerd.containers(), "", "down ends what containerd runs");
    drop(containerd);
    let left: Vec<String> =
        trace::left_behind(&cluster).into_iter().filter(|line| !line.contains("/containerd/")).collect();
    assert!(left.is_empty(), "{}", left.join("\n"));
}
