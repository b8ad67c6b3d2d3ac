//! Faults: processes killed, disks full. Nothing acknowledged is lost, nothing running is harmed.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use windlass_tests::cluster::{must, run, until};
use windlass_tests::suite::PATIENCE;
use windlass_tests::{Cluster, trace};

fn list(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let out = cluster.kubectl(&["get", kind, "-n", "default", "-o", "json"]);
    let list: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

pub fn the_server_is_killed_50_times_and_no_write_is_lost() {
    let mut cluster = Cluster::start(1);
    let url = cluster.url("/api/v1/namespaces/default/configmaps");
    let (code, _) = cluster.curl(&[&url]);
    assert_eq!(code, 200);
    let mut acknowledged = 0;
    for round in 0..50 {
        let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (shared, count, stop, url) = (&cluster, &count, &stop, &url);
            scope.spawn(move || write_until_stopped(shared, url, acknowledged, count, stop));
            // At least a few acknowledged writes a round; then at any moment of the next ones.
            until("writes are acknowledged", PATIENCE, || match count.load(Ordering::Relaxed) {
                written if written > round % 5 => Ok(()),
                written => Err(format!("{written} so far")),
            });
            std::thread::park_timeout(Duration::from_millis((round * 7 % 40) as u64));
            let killed = run(Command::new("/bin/kill").args(["-KILL", &shared.pid().to_string()]));
            assert!(killed.ok, "{}", killed.stderr);
            stop.store(true, Ordering::Relaxed);
        });
        acknowledged += count.load(Ordering::Relaxed);
        cluster.kill();
        cluster.spawn();
        until("the server answers again", PATIENCE, || {
            match cluster.curl(&["--max-time", "2", &cluster.url("/readyz")]) {
                (200, _) => Ok(()),
                (code, text) => Err(format!("{code} {text}")),
            }
        });
    }
    let (_, text) = cluster.curl(&[&url]);
    let all: Value = serde_json::from_str(&text).expect("a list");
    let names: std::collections::BTreeSet<&str> =
        all["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    assert!(acknowledged > 50, "the rounds wrote something: {acknowledged}");
    for number in 0..acknowledged {
        assert!(
            names.contains(format!("w-{number}").as_str()),
            "w-{number} of {acknowledged} was acknowledged and is lost"
        );
    }
}

/// Creates ConfigMaps `w-FIRST`, `w-FIRST+1` … and counts those acknowledged.
fn write_until_stopped(cluster: &Cluster, url: &str, first: usize, count: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let number = first + count.load(Ordering::Relaxed);
        let body = format!(r#"{{"metadata":{{"name":"w-{number}"}},"data":{{"n":"{number}"}}}}"#);
        let (code, _) = cluster.curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", &body, url]);
        match code {
            // 409: it was written by a request whose answer was lost.
            201 | 409 => drop(count.fetch_add(1, Ordering::Relaxed)),
            _ => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

/// The process ids of the containers' first processes, by pod.
fn container_pids() -> BTreeMap<String, u32> {
    let marker = "sleep-forever-";
    let found = trace::processes().into_iter().filter(|(_, line)| line.contains(marker) && line.starts_with("sh "));
    let mut first = BTreeMap::new();
    for (pid, line) in found {
        let name =
            line.split(marker).nth(1).unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned();
        // A child that is about to be `sleep` looks the same for a moment; it is the younger one.
        first.entry(name).and_modify(|known: &mut u32| *known = pid.min(*known)).or_insert(pid);
    }
    first
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'trap \"exit 0\" TERM; i=0; while true; do echo $i; i=$((i+1)); sleep 0.2; done', sleep-forever-{name}]\n---\n"
    )
}

fn running(cluster: &Cluster) -> usize {
    list(cluster, "pods").iter().filter(|pod| windlass_tests::suite::is_ready(pod)).count()
}

/// How often, and with how many pods: `WINDLASS_AGENT_ROUNDS` and `WINDLASS_AGENT_PODS` make it the whole of the figure,
/// 100 and 100.
fn wanted(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?}")))
}

/// Waits until the agent has taken this many containers over, and says how long it took.
fn attached(cluster: &Cluster, pods: usize) -> Duration {
    let began = std::time::Instant::now();
    until("all containers are attached again", Duration::from_secs(5), || {
        let metrics = cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node1/proxy/metrics"]);
        let line = metrics.stdout.lines().find_map(|line| line.strip_prefix("kubelet_running_containers "));
        if line == Some(&pods.to_string()) { Ok(()) } else { Err(format!("{line:?} {}", metrics.stderr)) }
    });
    began.elapsed()
}

pub fn the_agent_is_killed_with_20_pods_and_none_restarts() {
    let (pods, rounds) = (wanted("WINDLASS_AGENT_PODS", 20), wanted("WINDLASS_AGENT_ROUNDS", 3));
    let mut cluster = Cluster::start(2);
    cluster.import_image();
    let manifest: String = (0..pods).map(|number| pod(&format!("p{number}"))).collect();
    let file = cluster.data_dir().join("pods.yaml");
    std::fs::write(&file, manifest).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    until("all run", PATIENCE, || {
        if running(&cluster) == pods { Ok(()) } else { Err(format!("{} run", running(&cluster))) }
    });
    let before = container_pids();
    assert_eq!(before.len(), pods, "{before:?}");
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        // At any moment of what an agent does once it runs.
        std::thread::park_timeout(Duration::from_millis((round * 37 % 200) as u64));
        cluster.kill();
        cluster.up();
        slowest = slowest.max(attached(&cluster, pods));
    }
    eprintln!("{rounds} agents killed under {pods} pods; the slowest was back {slowest:?} after its node was Ready");
    until("all are Ready again", PATIENCE, || {
        if running(&cluster) == pods { Ok(()) } else { Err(format!("{} run", running(&cluster))) }
    });
    assert_eq!(container_pids(), before, "the same processes run");
    for pod in list(&cluster, "pods") {
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{}", pod["metadata"]["name"]);
    }
    for name in (0..pods).map(|number| format!("p{number}")) {
        let log = until("the log goes on", PATIENCE, || {
            let log = must(&mut cluster.kubectl_command(&["logs", &name]));
            if log.lines().count() > 10 { Ok(log) } else { Err(log) }
        });
        for (number, line) in log.lines().enumerate() {
            assert_eq!(line, number.to_string(), "{name}: no line is lost");
        }
    }
    must(&mut cluster.kubectl_command(&["delete", "pods", "--all", "--timeout=60s"]));
    trace::until_no_pod_is_left(&cluster);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let left = trace::left_behind(&cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

pub fn a_killed_shim_is_noticed_and_its_pod_restarted() {
    let cluster = Cluster::start(3);
    cluster.import_image();
    let file = cluster.data_dir().join("pod.yaml");
    std::fs::write(&file, pod("shimless")).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    until("it runs", PATIENCE, || if running(&cluster) == 1 { Ok(()) } else { Err("not yet".to_owned()) });
    let run_dir = cluster.run_dir().to_string_lossy().into_owned();
    let shims: Vec<u32> = trace::processes()
        .into_iter()
        .filter(|(_, line)| line.split_whitespace().nth(1) == Some("shim") && line.contains(&run_dir))
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(shims.len(), 1, "one pod has one shim");
    assert!(run(Command::new("/bin/kill").args(["-KILL", &shims[0].to_string()])).ok);
    until("it was restarted and runs", PATIENCE, || {
        let pods = list(&cluster, "pods");
        let status = &pods[0]["status"];
        let restarted = status["containerStatuses"][0]["restartCount"].as_u64() >= Some(1);
        if restarted && windlass_tests::suite::is_ready(&pods[0]) { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(container_pids().len(), 1, "the old container is gone");
}

pub fn a_full_disk_refuses_writes_and_heals() {
    let directory = std::env::temp_dir().join(format!("windlass-full-{}", std::process::id()));
    let data = directory.join("data");
    std::fs::create_dir_all(&data).expect("the temporary directory is writable");
    must(Command::new("/bin/mount").args(["-t", "tmpfs", "-o", "size=64m", "windlass-full"]).arg(&data));
    let result = std::panic::catch_unwind(|| {
        let mut cluster = Cluster::at(4, &directory);
        cluster.up();
        must(&mut cluster.kubectl_command(&["create", "configmap", "before", "--from-literal=a=1"]));
        let filler = data.join("filler");
        run(Command::new("/bin/dd").args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=64k"]));
        let url = cluster.url("/api/v1/namespaces/default/configmaps");
        let payload = format!(r#"{{"metadata":{{"generateName":"fill-"}},"data":{{"x":"{}"}}}}"#, "x".repeat(900_000));
        let file = std::env::temp_dir().join(format!("windlass-full-body-{}", std::process::id()));
        std::fs::write(&file, payload).expect("writable");
        let data = format!("@{}", file.display());
        let write =
            || cluster.curl(&["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", &data, &url]);
        let (code, text) = until("writes are refused", PATIENCE, || match write() {
            (201, _) => Err("still accepted".to_owned()),
            other => Ok(other),
        });
        assert_eq!(code, 507, "{text}");
        assert!(text.contains("StorageFull"), "{text}");
        assert_eq!(
            must(&mut cluster.kubectl_command(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"])),
            "1"
        );
        std::fs::remove_file(&filler).expect("our own file");
        until("writes are taken again", PATIENCE, || match write() {
            (201, _) => Ok(()),
            (code, text) => Err(format!("{code} {text}")),
        });
        std::fs::remove_file(&file).expect("our own file");
        cluster.kill();
        cluster.up();
        assert_eq!(
            must(&mut cluster.kubectl_command(&["get", "configmap", "before", "-o", "jsonpath={.data.a}"])),
            "1"
        );
        cluster.down();
        std::mem::forget(cluster);
    });
    must(Command::new("/bin/umount").arg("-l").arg(&data));
    std::fs::remove_dir_all(&directory).expect("our own directory");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
