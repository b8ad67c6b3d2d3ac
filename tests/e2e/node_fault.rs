//! Faults of a node: agents killed at any moment, pods that take all they can get. Named by their rows.

use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::cluster::{given, must, run, spawn, until};
use windlass_tests::suite::{PATIENCE, Test, is_ready};
use windlass_tests::{Cluster, trace};

fn pods(cluster: &Cluster) -> Vec<Value> {
    let out = cluster.kubectl(&["get", "pods", "-n", "default", "-o", "json"]);
    let list: Value = serde_json::from_str(&out.stdout).unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// How many processes of containers bear this word.
fn marked(word: &str) -> usize {
    let is_one = |(_, line): &(u32, String)| line.starts_with("sh ") && line.split_whitespace().last() == Some(word);
    trace::processes().iter().filter(|process| is_one(process)).count()
}

fn three_pods(round: u64) -> String {
    let pod = |number: u64| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: r{round}p{number}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             volumes: [{{name: v, emptyDir: {{medium: Memory}}}}]\n  initContainers:\n  - {{name: first, image: \"windlass.local/demo:1\", \
             command: [sh, -c, \"true\"]}}\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    \
             volumeMounts: [{{name: v, mountPath: /v}}]\n    command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.2; done', f46-r{round}p{number}]\n---\n"
        )
    };
    (0..3).map(pod).collect()
}

/// F46, F49: never two copies, nothing left, and who is connected is not left hanging.
pub fn f46_the_agent_is_killed_at_any_step_of_start_and_stop() {
    let mut cluster = Cluster::start(5);
    cluster.import_image();
    for round in 0..3 {
        let file = cluster.data_dir().join("pods.yaml");
        std::fs::write(&file, three_pods(round)).expect("writable");
        must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
        // A little later in each round: while volumes are made, in the sandbox, between containers, once they run.
        std::thread::park_timeout(Duration::from_millis(round * 150));
        cluster.kill();
        cluster.up();
        until("all run", PATIENCE, || {
            let ready = pods(&cluster).iter().filter(|pod| is_ready(pod)).count();
            if ready == 3 { Ok(()) } else { Err(format!("{ready} of 3 are Ready")) }
        });
        for number in 0..3 {
            // A shell that forks looks like two for a moment; two copies would stay two.
            until("one copy runs", Duration::from_secs(10), || match marked(&format!("f46-r{round}p{number}")) {
                1 => Ok(()),
                copies => Err(format!("{copies} copies of r{round}p{number}")),
            });
        }
        let pod = format!("r{round}p0");
        let mut connected =
            [&["exec", &pod, "--", "sleep", "1000"][..], &["attach", &pod], &["port-forward", &pod, ":8080"]]
                .map(|arguments| spawn(&mut cluster.kubectl_command(arguments)));
        must(&mut cluster.kubectl_command(&["delete", "pods", "--all", "--wait=false"]));
        std::thread::park_timeout(Duration::from_millis(round * 400));
        cluster.kill();
        let killed = Instant::now();
        cluster.up();
        until("all are gone", PATIENCE, || {
            let left = pods(&cluster).len();
            if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
        });
        for client in &mut connected {
            until("who was connected is told", Duration::from_secs(30), || match client.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?} after {:?}", killed.elapsed())),
            });
        }
        for number in 0..3 {
            until("nothing of it runs", Duration::from_secs(10), || match marked(&format!("f46-r{round}p{number}")) {
                0 => Ok(()),
                copies => Err(format!("{copies} copies of r{round}p{number}")),
            });
        }
    }
    trace::until_no_pod_is_left(&cluster);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let left = trace::left_behind(&cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

const GOING: &str = "apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 15
  PRIORITY
  containers:
  - name: main
    image: windlass.local/demo:1
    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook > /proc/1/fd/1']}}}
    command: [sh, -c, 'trap \"sleep 1; echo bye; exit 0\" TERM; echo up; while true; do sleep 0.2; done']
---
";

/// Ordinary pods end before critical ones, each with its hook and its grace, and the API knows why.
pub fn pods_end_in_order_when_the_machine_goes_down() {
    let mut cluster = Cluster::at(10, &std::env::temp_dir().join(format!("windlass-going-{}", std::process::id())));
    std::fs::create_dir_all(cluster.data_dir()).expect("the temporary directory is writable");
    let flags = ["--shutdown-grace=25", "--shutdown-grace-critical=10"];
    cluster.spawn_with(&given("WINDLASS_BIN"), &flags);
    cluster.wait_ready();
    cluster.import_image();
    let file = cluster.data_dir().join("pods.yaml");
    let manifest = [("plain", "restartPolicy: Always"), ("critical", "priorityClassName: system-node-critical")]
        .map(|(name, line)| GOING.replace("NAME", name).replace("PRIORITY", line));
    std::fs::write(&file, manifest.concat()).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    let begun = until("both run", PATIENCE, || match pods(&cluster) {
        found if found.iter().filter(|pod| is_ready(pod)).count() == 2 => Ok(found),
        found => Err(format!("{found:?}")),
    });
    cluster.terminate(Duration::from_secs(40));
    let said = |name: &str| {
        let pod = begun.iter().find(|pod| pod["metadata"]["name"] == name).expect("it was there");
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        std::fs::read_to_string(cluster.data_dir().join(format!("pods/{uid}/logs/main/0.log"))).expect("a log")
    };
    let at = |name: &str, word: &str| {
        let log = said(name);
        let line = log.lines().find(|line| line.ends_with(word)).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{name} said no {word}: {log}"));
        line.split(' ').next().expect("a time").to_owned()
    };
    assert!(at("plain", "hook") <= at("plain", "bye"), "the hook runs first");
    assert!(at("plain", "bye") < at("critical", "hook"), "the critical one ends last");
    at("critical", "bye");
    cluster.up();
    for pod in pods(&cluster) {
        let status = &pod["status"];
        assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"Terminated".into()), "{status:#}");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains("imminent node shutdown"), "{message}");
        let target = windlass_tests::suite::condition(&pod, "DisruptionTarget");
        assert_eq!(target.as_deref(), Some("True"), "it is not its own doing");
    }
    let ready = cluster.kubectl(&["get", "node", "node1"]);
    assert!(ready.stdout.contains(" Ready"), "it takes pods again: {}", ready.stdout);
    must(&mut cluster.kubectl_command(&["delete", "pods", "--all", "--timeout=60s"]));
}

/// F79: a new program takes over what shims of the old one hold: logs, exec, stop.
pub fn f79_a_new_agent_takes_over_the_shims_of_the_old_one() {
    let mut cluster = Cluster::start(11);
    cluster.import_image();
    let file = cluster.data_dir().join("pods.yaml");
    std::fs::write(&file, three_pods(79)).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    let all_run = |cluster: &Cluster| {
        until("all run", PATIENCE, || match pods(cluster).iter().filter(|pod| is_ready(pod)).count() {
            3 => Ok(()),
            ready => Err(format!("{ready} of 3 are Ready")),
        });
    };
    all_run(&cluster);
    let newer = cluster.data_dir().join("windlass-newer");
    std::fs::copy(given("WINDLASS_BIN"), &newer).expect("a copy of the program");
    cluster.kill();
    cluster.spawn_with(&newer, &[]);
    cluster.wait_ready();
    all_run(&cluster);
    assert!(pods(&cluster).iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 0));
    assert_eq!(must(&mut cluster.kubectl_command(&["exec", "r79p0", "--", "echo", "old shim"])), "old shim\n");
    must(&mut cluster.kubectl_command(&["logs", "r79p1"]));
    must(&mut cluster.kubectl_command(&["delete", "pods", "--all", "--timeout=60s"]));
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
    all_run(&cluster);
    must(&mut cluster.kubectl_command(&["delete", "pods", "--all", "--timeout=60s"]));
    trace::until_no_pod_is_left(&cluster);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let left = trace::left_behind(&cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

fn scripted(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, '{script}']\n{more}"
    )
}

/// F52: neighbours answer, the node is well, and the pods go when they are told to.
pub fn f52_a_fork_bomb_and_a_hog_stay_in_their_pods(test: &Test) {
    test.sleeping_pod("neighbour", "");
    test.apply(&scripted(
        "bomb",
        "b() { b | b & }; b; while true; do sleep 1; done 2>/dev/null",
        "    resources: {limits: {cpu: 300m}}\n",
    ));
    let hog = "x=$(yes 0123456789abcdef | head -c 200000000); echo survived";
    test.apply(&scripted("hog", hog, "    resources: {limits: {memory: 24Mi, cpu: 300m}}\n"));
    test.wait("pod", "hog", "killed for want of memory", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        [&status["state"], &status["lastState"]].iter().any(|state| state["terminated"]["reason"] == "OOMKilled")
    });
    test.wait("pod", "bomb", "running", |pod| pod["status"]["phase"] == "Running");
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(test.kubectl(&["exec", "neighbour", "--", "echo", "well"]), "well\n");
        assert!(asked.elapsed() < Duration::from_secs(10), "a neighbour answers: {:?}", asked.elapsed());
    }
    let node = test.get("node", "node1");
    assert!(is_ready(&node), "{:#}", node["status"]["conditions"]);
    test.kubectl(&["delete", "pods", "bomb", "hog", "--timeout=60s"]);
}

/// F52: files without end, and more on disk than was asked for: who asks for it is stopped, and a neighbour serves all the while.
pub fn f52_hogs_of_files_and_disk_leave_their_neighbours_alone(test: &Test) {
    let serve = "mkdir /tmp/www; echo well > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
    test.apply(&scripted("server", serve, "    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}\n"));
    let server = test.wait("pod", "server", "Ready", is_ready);
    let address = format!("{}:8080", server["status"]["podIP"].as_str().expect("an address"));
    let hog = |name: &str, script: &str, volume: &str| {
        let more = format!(
            "    resources: {{limits: {{cpu: 500m, memory: 64Mi}}}}\n    volumeMounts: [{{name: v, mountPath: /v}}]\n  \
             volumes: [{{name: v, emptyDir: {{{volume}}}}}]\n"
        );
        test.apply(&scripted(name, script, &more));
    };
    hog("inodes", "i=0; while [ $i -lt 50000 ]; do : > /v/$i; i=$((i+1)); done; echo made; sleep 1000", "");
    hog("files", "exec tail -f $(i=0; while [ $i -lt 900 ]; do echo /etc/passwd; i=$((i+1)); done)", "");
    hog("disk", "dd if=/dev/zero of=/v/x bs=1000000 count=200; sleep 1000", "sizeLimit: 32Mi");
    let is_evicted = || test.get("pod", "disk")["status"]["reason"] == "Evicted";
    let (begun, mut times, mut looked) = (Instant::now(), Vec::new(), Instant::now());
    while begun.elapsed() < PATIENCE {
        let asked = Instant::now();
        crate::deployment::request(&address).unwrap_or_else(|error| panic!("the neighbour serves: {error}"));
        times.push(asked.elapsed());
        std::thread::park_timeout(Duration::from_millis(10));
        if looked.elapsed() > Duration::from_secs(2) {
            if is_evicted() && begun.elapsed() > Duration::from_secs(10) {
                break;
            }
            looked = Instant::now();
        }
    }
    assert!(is_evicted(), "{:#}", test.get("pod", "disk")["status"]);
    times.sort();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("beside hogs of inodes, files and disk: {} requests, p50 {half:?}, p99 {most:?}", times.len());
    // A second, and another for what else this machine does.
    assert!(most < Duration::from_secs(2), "p99 {most:?}");
    assert!(is_ready(&test.get("node", "node1")));
    let uid = test.get("pod", "inodes")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    test.kubectl(&["delete", "pods", "inodes", "files", "disk", "server", "--timeout=60s"]);
    until("its files are gone", PATIENCE, || match test.cluster.data_dir().join(format!("pods/{uid}")).exists() {
        false => Ok(()),
        true => Err("its directory is there".to_owned()),
    });
}

/// F64: what a container says is bounded on disk, and the end of it can be read.
pub fn f64_a_flood_of_output_stays_within_its_bound(test: &Test) {
    let flood = "line=$(head -c 900 /dev/zero | tr \"\\0\" x); i=0; while [ $i -lt 90000 ]; do echo $i $line; i=$((i+1)); done; \
                 head -c 3000000 /dev/urandom; echo; echo the end; sleep 1000";
    test.apply(&scripted("flood", flood, ""));
    let pod = test.wait("pod", "flood", "running", is_ready);
    until("the end is read", PATIENCE, || {
        let tail = run(&mut test.command(&["logs", "flood", "--tail=1"]));
        if tail.stdout == "the end\n" { Ok(()) } else { Err(format!("{} bytes", tail.stdout.len())) }
    });
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let directory = test.cluster.data_dir().join(format!("pods/{uid}/logs/main"));
    let files = std::fs::read_dir(&directory).expect("a log").flatten();
    let sizes: Vec<u64> = files.map(|file| file.metadata().map_or(0, |found| found.len())).collect();
    assert!(sizes.len() > 1, "it was rotated: {sizes:?}");
    assert!(sizes.len() <= 5 && sizes.iter().sum::<u64>() <= 5 * (10 << 20) + (1 << 20), "{sizes:?}");
    test.kubectl(&["delete", "pod", "flood", "--timeout=60s"]);
}
