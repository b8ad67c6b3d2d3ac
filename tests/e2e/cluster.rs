//! The program itself: server and node apart, and how it fails when it is asked for what cannot be.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;
use windlass_tests::cluster::{ended, kill, must, run, spawn, until};
use windlass_tests::{Cluster, suite, trace};

pub fn server_and_node_run_apart() {
    let directory = std::env::temp_dir().join(format!("windlass-apart-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let server = Cluster::at(7, &directory.join("server"));
    let node = Cluster::at(8, &directory.join("node"));
    let mut command = server.windlass(&["server", "--pod-cidr", "10.116.0.0/16", "--service-cidr", "10.117.0.0/16"]);
    let mut server_process = spawn(command.arg("--listen").arg(format!("127.0.0.1:{}", server.port())));
    until("the server is ready", Duration::from_secs(60), || {
        let out = server.kubectl(&["get", "--raw", "/readyz"]);
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    let token = must(&mut server.windlass(&["token"])).trim().to_owned();
    let join = |token: &str| {
        let mut command = node.windlass(&["node", "--token", token, "--node-name", "apart", "--node-port", "11258"]);
        command.arg("--server").arg(server.url("")).args([
            "--service-cidr",
            "10.117.0.0/16",
            "--pod-cidr",
            "10.116.0.0/16",
        ]);
        command
    };
    let wrong = format!("WL1.{}.{}", "0".repeat(64), "x".repeat(32));
    let refused = run(&mut join(&wrong));
    assert!(
        !refused.ok && refused.stderr.contains("CA"),
        "a server with another CA is not trusted: {}",
        refused.stderr
    );
    let mut node_process = spawn(&mut join(&token));
    must(node.windlass(&["image", "import"]).arg(windlass_tests::cluster::given("WINDLASS_IMAGE")));
    must(&mut server.kubectl_command(&["run", "apart", "--image=windlass.local/demo:1"]));
    until("a pod runs on the node", Duration::from_secs(60), || {
        let out = server.kubectl(&["get", "pod", "apart", "-o", "wide"]);
        if out.stdout.contains("Running") { Ok(()) } else { Err(format!("{}{}", out.stdout, out.stderr)) }
    });
    let log = must(&mut server.kubectl_command(&["exec", "apart", "--", "echo", "through the server"]));
    assert_eq!(log, "through the server\n");
    let start = || {
        let mut command =
            server.windlass(&["server", "--pod-cidr", "10.116.0.0/16", "--service-cidr", "10.117.0.0/16"]);
        spawn(command.arg("--listen").arg(format!("127.0.0.1:{}", server.port())))
    };
    f43_pods_go_on_while_the_control_plane_is_gone(&server, &node, &mut server_process, start);
    kill(&mut server_process);
    kill(&mut node_process);
    f44_pods_come_back_on_a_node_that_reboots_without_its_control_plane(
        &server,
        &node,
        (&mut server_process, start),
        || {
            node_process = spawn(&mut join(&token));
        },
    );
    for (part, process) in [(&node, &mut node_process), (&server, &mut server_process)] {
        must(&mut part.windlass(&["down"]));
        ended(process);
        let left = trace::left_behind(part);
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
    std::fs::remove_dir_all(&directory).expect("nothing is mounted there any more");
}

const WITHOUT_SERVER: &str = "apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'while true; do nslookup kubernetes.default.svc.cluster.local >/dev/null 2>&1 && echo found || echo lost; sleep 0.2; done']
---
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'touch /tmp/well; sleep 5; rm /tmp/well; sleep 1000']
    livenessProbe: {exec: {command: [test, -e, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: served}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'mkdir /tmp/www; echo well > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
    startupProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 60}
    livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1}
";

/// Names for how many seconds the control plane stays away in F43, where more is wanted than it takes to see what happens.
const AWAY_SECONDS: &str = "WINDLASS_F43_SECONDS";

/// F43: nothing restarts that is well (the first failed probe would), what is not is restarted by its node alone, names are
/// found, logs are kept. For long: docs/guides/node.md has the figures.
fn f43_pods_go_on_while_the_control_plane_is_gone(
    server: &Cluster,
    node: &Cluster,
    process: &mut Child,
    start: impl FnOnce() -> Child,
) {
    let pods = || {
        let out = server.kubectl(&["get", "pods", "-n", "default", "-o", "json"]);
        let list: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
        let of = |pod: &Value| (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), pod.clone());
        Ok::<BTreeMap<String, Value>, String>(list["items"].as_array().into_iter().flatten().map(of).collect())
    };
    let manifest = node.data_dir().join("without-server.yaml");
    std::fs::write(&manifest, WITHOUT_SERVER).expect("writable");
    must(server.kubectl_command(&["apply", "-f"]).arg(&manifest));
    let begun = until("all run", Duration::from_secs(60), || {
        let pods = pods()?;
        match ["steady", "sick", "served"].iter().all(|name| pods.get(*name).is_some_and(suite::is_ready)) {
            true => Ok(pods),
            false => Err(format!("{pods:?}")),
        }
    });
    let log = |pod: &str, attempt: u32| {
        let uid = begun[pod]["metadata"]["uid"].as_str().expect("a uid");
        node.data_dir().join(format!("pods/{uid}/logs/main/{attempt}.log"))
    };
    kill(process);
    let left = std::time::Instant::now();
    let before = std::fs::read_to_string(log("steady", 0)).expect("a log").lines().count();
    until("the node restarts by itself what is not well", Duration::from_secs(60), || match log("sick", 1).exists() {
        true => Ok(()),
        false => Err("it has not".to_owned()),
    });
    let away: u64 = std::env::var(AWAY_SECONDS).ok().map_or(0, |seconds| seconds.parse().expect("a number of seconds"));
    while left.elapsed() < Duration::from_secs(away) {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let said = std::fs::read_to_string(log("steady", 0)).expect("a log");
    assert!(said.lines().count() > before, "it went on");
    let attempts =
        std::fs::read_dir(log("sick", 1).parent().expect("logs lie in a directory")).expect("logs").flatten();
    let attempts = attempts.filter_map(|file| file.path().file_stem()?.to_str()?.parse::<u32>().ok());
    let restarts = attempts.max().unwrap_or(0);
    eprintln!(
        "{:?} without a control plane: {} names asked for, {restarts} restarts",
        left.elapsed(),
        said.lines().count() - before
    );
    *process = start();
    let after = until("the server hears of it", Duration::from_secs(60), || {
        let pods = pods()?;
        let restarts = pods.get("sick").and_then(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64());
        if restarts >= Some(1) { Ok(pods) } else { Err(format!("{restarts:?}")) }
    });
    for well in ["steady", "served"] {
        assert_eq!(after[well]["status"]["containerStatuses"][0]["restartCount"], 0, "{well}");
    }
    let said = std::fs::read_to_string(log("steady", 0)).expect("a log");
    let first = said.lines().position(|line| line.ends_with("found")).expect("the name was found");
    let lost = said.lines().skip(first).filter(|line| line.ends_with("lost")).count();
    assert_eq!(lost, 0, "the name was found at every moment");
}

/// F44: the node runs what it last knew, within 30 s; names are found as they were; the server hears of it later.
fn f44_pods_come_back_on_a_node_that_reboots_without_its_control_plane(
    server: &Cluster,
    node: &Cluster,
    (server_process, start_server): (&mut Child, impl FnOnce() -> Child),
    start_node: impl FnOnce(),
) {
    let killed = trace::kill_all_of(node);
    // One container is restarted over and over, and may not be there.
    assert!(killed >= 5, "three shims and two containers are there: {killed}");
    let pods = node.data_dir().join("pods");
    let mut logs = std::fs::read_dir(&pods).expect("pods").flatten().map(|entry| entry.path().join("logs/main"));
    let looks_up = |logs: &std::path::PathBuf| {
        std::fs::read_to_string(logs.join("0.log")).is_ok_and(|text| text.contains("found"))
    };
    let steady = logs.find(looks_up).expect("the pod that looks names up");
    start_node();
    until("it looks names up again", Duration::from_secs(30), || {
        let said = std::fs::read_to_string(steady.join("1.log")).map_err(|error| error.to_string())?;
        if said.lines().any(|line| line.ends_with("found")) { Ok(()) } else { Err(said) }
    });
    *server_process = start_server();
    until("the server hears of it", Duration::from_secs(60), || {
        let out = server.kubectl(&["get", "pod", "steady", "-n", "default", "-o", "json"]);
        let pod: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        if restarts == Some(1) && suite::is_ready(&pod) { Ok(()) } else { Err(pod["status"].to_string()) }
    });
}

pub fn bad_flags_and_taken_ports_say_what_to_do() {
    let cluster = Cluster::start(6);
    let directory = std::env::temp_dir().join(format!("windlass-second-{}", std::process::id()));
    let second = Cluster::at(9, &directory);
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let taken = run(second.windlass(&["up"]).arg("--listen").arg(format!("127.0.0.1:{}", cluster.port())));
    assert!(!taken.ok && taken.stderr.contains("in use") && taken.stderr.contains("--listen"), "{}", taken.stderr);
    let bad = run(second.windlass(&["up"]).args(["--pod-cidr", "300.1.2.3/16"]));
    assert!(!bad.ok && bad.stderr.contains("--pod-cidr"), "{}", bad.stderr);
    let twice = run(&mut cluster.windlass(&["up"]));
    assert!(!twice.ok && twice.stderr.contains("running"), "{}", twice.stderr);
    let status = must(&mut cluster.windlass(&["status"]));
    assert!(status.contains("node1") && status.contains("Ready"), "{status}");
    let printed = must(&mut cluster.windlass(&["kubeconfig"]));
    assert!(
        printed.contains("client-certificate-data") && printed.contains(&cluster.url("")),
        "the kubeconfig is printed"
    );
    let nothing = run(&mut second.windlass(&["status"]));
    assert!(!nothing.ok && nothing.stderr.contains("windlass up"), "{}", nothing.stderr);
}

pub fn a_cordoned_node_takes_no_pods_and_is_drained() {
    let mut cluster = Cluster::start(10);
    cluster.import_image();
    let kubectl = |arguments: &[&str]| must(&mut cluster.kubectl_command(arguments));
    let run = |name: &str| kubectl(&["run", name, "--image=windlass.local/demo:1", "--command", "--", "sleep", "3600"]);
    let phase = |name: &str| cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]).stdout;
    let until_runs = |name: &str| {
        until("the pod runs", Duration::from_secs(60), || {
            let phase = phase(name);
            if phase == "Running" { Ok(()) } else { Err(phase) }
        });
    };
    run("before");
    until_runs("before");
    let said = kubectl(&["cordon", "node1"]);
    assert!(said.contains("node/node1 cordoned"), "{said}");
    assert!(kubectl(&["get", "node", "node1"]).contains("SchedulingDisabled"));
    run("after");
    let reason = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
    until("the pod says why it waits", Duration::from_secs(60), || {
        let message = cluster.kubectl(&["get", "pod", "after", "-o", reason]).stdout;
        if message.contains("1 node(s) were unschedulable") { Ok(()) } else { Err(message) }
    });
    assert_eq!(phase("before"), "Running", "what runs goes on");
    let drain = ["drain", "node1", "--dry-run=server", "--force", "--ignore-daemonsets", "--timeout=60s"];
    let said = kubectl(&drain);
    assert!(said.contains("before") && said.contains("node/node1 drained"), "{said}");
    assert_eq!(phase("before"), "Running", "nothing was done");
    let said = kubectl(&["uncordon", "node1"]);
    assert!(said.contains("node/node1 uncordoned"), "{said}");
    until_runs("after");
    kubectl(&["delete", "pod", "before", "after", "--now"]);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
}

const GUARDED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: guarded}
spec:
  replicas: 2
  selector: {matchLabels: {app: guarded}}
  template:
    metadata: {labels: {app: guarded}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: 'windlass.local/demo:1', command: [sleep, '3600']}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guarded}
spec: {minAvailable: 1, selector: {matchLabels: {app: guarded}}}
";

/// With one node, what a drain evicts has nowhere to go: the budget lets one pod go and holds the other up.
pub fn a_drain_waits_for_a_disruption_budget_and_goes_on_when_it_lets_go() {
    let patience = Duration::from_secs(60);
    let mut cluster = Cluster::start(10);
    cluster.import_image();
    let file = cluster.data_dir().join("guarded.yaml");
    std::fs::write(&file, GUARDED).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    let running = || -> Vec<String> {
        let out = cluster.kubectl(&["get", "pods", "-o", "json"]).stdout;
        let list: Value = serde_json::from_str(&out).unwrap_or_default();
        let runs = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null());
        runs.map(|pod| pod["metadata"]["uid"].as_str().expect("a uid").to_owned()).collect()
    };
    let until_allowed = |wanted: &str| {
        let asked = ["get", "pdb", "guarded", "-o", "jsonpath={.status.disruptionsAllowed}"];
        until("the budget counts", patience, || {
            let allowed = cluster.kubectl(&asked).stdout;
            if allowed == wanted { Ok(()) } else { Err(format!("{allowed} are allowed")) }
        });
    };
    until_allowed("1");
    assert_eq!(running().len(), 2);
    let mut drain = spawn(&mut cluster.kubectl_command(&["drain", "node1", "--ignore-daemonsets", "--timeout=180s"]));
    until_allowed("0");
    let held = until("one pod is left", patience, || match running() {
        left if left.len() == 1 => Ok(left),
        left => Err(format!("{left:?}")),
    });
    // kubectl tries again every five seconds.
    std::thread::park_timeout(Duration::from_secs(12));
    assert_eq!(running(), held, "the budget holds it up");
    assert!(drain.try_wait().expect("it is our child").is_none(), "the drain waits");
    must(&mut cluster.kubectl_command(&["patch", "pdb", "guarded", "-p", r#"{"spec":{"minAvailable":0}}"#]));
    let drained = until("the drain ends", patience, || match drain.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert!(drained.success(), "{drained}");
    assert!(running().is_empty(), "{:?}", running());
    must(&mut cluster.kubectl_command(&["uncordon", "node1"]));
    until("both run again", patience, || match running() {
        found if found.len() == 2 => Ok(()),
        found => Err(format!("{found:?}")),
    });
    must(cluster.kubectl_command(&["delete", "-f"]).arg(&file));
    trace::until_no_pod_is_left(&cluster);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
}

const SPREAD: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 2
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: spread}}}]
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - name: main
        image: windlass.local/demo:1
        command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.2; done', f56-copy]
";

/// F53, F56: what ran on a node that is lost runs elsewhere; its own copies end soon after it is back.
pub fn f56_a_node_that_returns_ends_the_copies_that_moved_away() {
    let directory = std::env::temp_dir().join(format!("windlass-lost-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let [server, left, right] =
        [(12, "server"), (13, "left"), (14, "right")].map(|(number, name)| Cluster::at(number, &directory.join(name)));
    let networks = ["--pod-cidr", "10.126.0.0/16", "--service-cidr", "10.127.0.0/16"];
    let mut command = server.windlass(&["server"]);
    let mut server_process = spawn(command.args(networks).arg("--listen").arg(format!("127.0.0.1:{}", server.port())));
    until("the server is ready", Duration::from_secs(60), || {
        let out = server.kubectl(&["get", "--raw", "/readyz"]);
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    let token = must(&mut server.windlass(&["token"])).trim().to_owned();
    let join = |node: &Cluster, name: &str, port: &str| {
        let mut command = node.windlass(&["node", "--token", &token, "--node-lease-seconds", "4"]);
        command.args(["--node-name", name, "--node-port", port]).args(networks).arg("--server").arg(server.url(""));
        spawn(&mut command)
    };
    let mut left_process = join(&left, "left", "11262");
    let mut right_process = join(&right, "right", "11263");
    for node in [&left, &right] {
        must(node.windlass(&["image", "import"]).arg(windlass_tests::cluster::given("WINDLASS_IMAGE")));
    }
    let file = directory.join("spread.yaml");
    std::fs::write(&file, SPREAD).expect("writable");
    must(server.kubectl_command(&["apply", "-f"]).arg(&file));
    let on = |node: &str| {
        let fields = format!("spec.nodeName={node}");
        let out = server.kubectl(&["get", "pods", "-n", "default", "-o", "json", "--field-selector", &fields]);
        let list: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        Ok::<_, String>(all.iter().filter(|pod| suite::is_ready(pod)).count())
    };
    let copies = || {
        let is_one = |(_, line): &&(u32, String)| line.starts_with("sh ") && line.ends_with("f56-copy ");
        trace::processes().iter().filter(is_one).count()
    };
    until("each node has one", Duration::from_secs(60), || match (on("left")?, on("right")?) {
        (1, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    kill(&mut left_process);
    let lost = std::time::Instant::now();
    until("its pod runs elsewhere", Duration::from_secs(30), || match on("right")? {
        2 => Ok(()),
        count => Err(format!("{count} run there")),
    });
    eprintln!("a lost node's pod ran elsewhere after {:?}", lost.elapsed());
    until("nobody has ended the old copy", Duration::from_secs(5), || match copies() {
        3 => Ok(()),
        count => Err(format!("{count} copies")),
    });
    left_process = join(&left, "left", "11262");
    until("the old copy is ended", Duration::from_secs(10), || match copies() {
        2 => Ok(()),
        count => Err(format!("{count} copies")),
    });
    until("it is Ready again", Duration::from_secs(60), || {
        let out = server.kubectl(&["get", "node", "left", "-o", "json"]);
        let node: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
        if suite::is_ready(&node) { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
    });
    for (part, process) in [(&left, &mut left_process), (&right, &mut right_process), (&server, &mut server_process)] {
        must(&mut part.windlass(&["down"]));
        ended(process);
        let found = trace::left_behind(part);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
    std::fs::remove_dir_all(&directory).expect("nothing is mounted there any more");
}
