//! What nodes and pods use: `kubectl top`, the same of our own, and what they are made from.

use serde_json::Value;
use windlass_tests::Test;
use windlass_tests::cluster::{must, until};
use windlass_tests::suite::PATIENCE;

const BUSY: &str = "apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'while true; do :; done']
    resources: {limits: {cpu: 200m, memory: 64Mi}}
  - name: idle
    image: windlass.local/demo:1
    command: [sleep, '1000']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
";

fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn millis(cell: &str) -> u64 {
    cell.strip_suffix('m').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{cell:?} is no CPU"))
}

pub fn top_shows_what_nodes_and_pods_use(test: &Test) {
    test.apply(BUSY);
    test.wait("pod", "busy", "Ready", windlass_tests::suite::is_ready);
    // A new pod has used nothing yet, and an answer is good for some seconds.
    until("the busy container is seen to be busy", PATIENCE, || {
        let out = test.try_kubectl(&["top", "pod", "--containers", "--sort-by=cpu"]);
        let rows = rows(&out.stdout);
        let busy = rows.first().filter(|row| row[1] == "main" && (100..350).contains(&millis(&row[2])));
        let is_shown = busy.is_some() && rows.iter().any(|row| row[1] == "idle");
        if is_shown { Ok(()) } else { Err(format!("{}{}", out.stdout, out.stderr)) }
    });
    let nodes = test.kubectl(&["top", "node"]);
    let titles: Vec<&str> = nodes.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(titles, ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], "{nodes}");
    assert!(rows(&nodes)[0][0] == "node1" && millis(&rows(&nodes)[0][1]) > 0, "{nodes}");
    let pods = test.kubectl(&["top", "pod", "-l", "app=busy"]);
    assert!(rows(&pods).len() == 1 && millis(&rows(&pods)[0][1]) > 100, "{pods}");
    let refused = test.refused(&["top", "pod", "none"]);
    assert!(refused.contains("not found"), "{refused}");
    let table = test.kubectl(&["get", "podmetrics", "busy"]);
    assert!(table.starts_with("NAME") && table.contains("WINDOW"), "{table}");
    for words in [&["top", "pod", "busy", "--containers"][..], &["top", "pod", "--sum"], &["top", "node"]] {
        // Both are told the same while an answer is good.
        until("windlass says the same", PATIENCE, || {
            let kubectl = test.kubectl(words);
            let namespace = ["--namespace", &test.namespace];
            let ours = must(test.cluster.windlass(words).args(namespace));
            let same = |one: &str, other: &str| rows(one) == rows(other);
            if same(&kubectl, &ours) { Ok(()) } else { Err(format!("{kubectl}{ours}")) }
        });
    }
}

pub fn a_node_tells_a_summary_through_its_proxy(test: &Test) {
    test.sleeping_pod("told", "");
    let raw = |path: &str| test.kubectl(&["get", "--raw", &format!("/api/v1/nodes/node1/proxy/{path}")]);
    let of_told = |summary: &Value| {
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        pods.find(|pod| pod["podRef"]["namespace"] == *test.namespace).cloned()
    };
    // An answer that was given a moment ago is given again, and may be from before the pod.
    let (summary, pod) = until("the pod is in the summary", PATIENCE, || {
        let summary: Value = serde_json::from_str(&raw("stats/summary")).expect("JSON");
        let pod = of_told(&summary).ok_or_else(|| summary.to_string())?;
        Ok((summary, pod))
    });
    let node = &summary["node"];
    assert_eq!(node["nodeName"], "node1");
    let positive = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
    for path in ["/cpu/usageNanoCores", "/memory/workingSetBytes", "/fs/capacityBytes", "/rlimit/curproc"] {
        assert!(node.pointer(path).is_some_and(positive), "{path}: {node:#}");
    }
    let container = &pod["containers"][0];
    assert_eq!((&pod["podRef"]["name"], &container["name"]), (&"told".into(), &"main".into()));
    for path in ["/memory/workingSetBytes", "/memory/rssBytes", "/cpu/usageCoreNanoSeconds"] {
        assert!(container.pointer(path).is_some_and(positive), "{path}: {container:#}");
    }
    assert!(pod["network"]["interfaces"].is_array() && positive(&pod["process_stats"]["process_count"]), "{pod:#}");
    assert!(positive(&pod["ephemeral-storage"]["usedBytes"]) && positive(&container["logs"]["usedBytes"]), "{pod:#}");
    let text = raw("metrics/resource");
    let line = format!("pod_memory_working_set_bytes{{namespace=\"{}\",pod=\"told\"}} ", test.namespace);
    assert!(text.contains(&line) && text.contains("node_cpu_usage_seconds_total "), "{text}");
    // Who may not reach into nodes may not read it.
    let refused = test.refused(&["get", "--raw", "/api/v1/nodes/node1/proxy/stats/summary", "--as=eve"]);
    assert!(refused.contains("nodes/proxy") || refused.contains("forbidden"), "{refused}");
}

pub fn who_takes_more_disk_than_allowed_is_evicted(test: &Test) {
    test.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: hoarder}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'head -c 9000000 /dev/zero > /tmp/hoard; sleep 1000']
    resources: {limits: {ephemeral-storage: 4Mi}}
",
    );
    let pod = test.wait("pod", "hoarder", "Failed", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(pod["status"]["reason"], "Evicted");
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ";
    assert_eq!(pod["status"]["message"], message);
    let target = windlass_tests::suite::condition(&pod, "DisruptionTarget");
    assert_eq!(target, None, "it is the pod's own doing");
    test.kubectl(&["delete", "pod", "hoarder", "--wait=true"]);
}
