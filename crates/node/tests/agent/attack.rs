//! Attacks on the agent by what runs in its pods, named by their rows.

use serde_json::{Value, json};
use windlass_api::kinds;
use windlass_client::ListOptions;

use crate::stage::{Cluster, NODE, condition, on_a_node, on_a_node_with_a_disk, shell, until_so};

/// How much memory this process has, agent and all, in KiB.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("our own");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has memory");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a82_a_probe_that_speaks_without_end_is_cut_in_time_and_little_of_it_is_kept() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let probed = |name: &str, line: &str, seconds: u32| {
            let mut container = shell(name, "sleep 1000");
            container["readinessProbe"] =
                json!({"exec": {"command": ["sh", "-c", line]}, "periodSeconds": 1, "timeoutSeconds": seconds});
            container
        };
        let before = resident_kib();
        let much = probed("much", "head -c 50000000 /dev/zero", 60);
        let endless = probed("endless", "cat /dev/zero", 1);
        let failing = probed("failing", "head -c 50000000 /dev/zero; exit 1", 60);
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [much, endless, failing]});
        cluster.pod("loud", spec).await;
        let is_ready = |pod: &Value, name: &str| {
            let all = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            all.into_iter().any(|status| status["name"] == name && status["ready"] == true)
        };
        cluster.until("loud", |pod| is_ready(pod, "much")).await;
        let unhealthy = |container: &'static str| {
            let client = cluster.client.clone();
            move || {
                let client = client.clone();
                async move {
                    let list = client.list(&kinds::EVENT, Some("default"), &ListOptions::default()).await;
                    let events: Vec<Value> = list.expect("a list").items.iter().map(|event| event.value()).collect();
                    let path = format!("spec.containers{{{container}}}");
                    let own = events.iter().filter(|event| {
                        event["reason"] == "Unhealthy" && event["involvedObject"]["fieldPath"] == path.as_str()
                    });
                    let messages: Vec<usize> = own.map(|event| event["message"].as_str().map_or(0, str::len)).collect();
                    assert!(messages.iter().all(|length| *length <= 11 << 10), "{messages:?}");
                    !messages.is_empty()
                }
            }
        };
        until_so("one that never ends has failed", unhealthy("endless")).await;
        until_so("one that says much and fails has failed", unhealthy("failing")).await;
        let pod = cluster.until("loud", |pod| !pod.is_null()).await;
        assert!(!is_ready(&pod, "endless") && !is_ready(&pod, "failing"));
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "the agent keeps little of it: {grown} KiB");
        cluster.delete("loud").await;
    });
}

/// A container that does what [`windlass-node-attack-test`] says, and the volumes that it needs for that.
fn attack(name: &str, arguments: &[&str]) -> (Value, Value) {
    let command: Vec<&str> = ["/attack"].into_iter().chain(arguments.iter().copied()).collect();
    let mounts = json!([{"name": "attack", "mountPath": "/attack"}, {"name": "lib", "mountPath": "/lib"},
        {"name": "lib64", "mountPath": "/lib64"}]);
    let volumes = json!([{"name": "attack", "hostPath": {"path": env!("CARGO_BIN_EXE_windlass-node-attack-test")}},
        {"name": "lib", "hostPath": {"path": "/lib"}}, {"name": "lib64", "hostPath": {"path": "/lib64"}}]);
    (json!({"name": name, "command": command, "volumeMounts": mounts}), volumes)
}

/// A number of this kind of attack that no other test on this machine asks for.
fn unlike_others(most: u32) -> String {
    (most + std::process::id() % 1000).to_string()
}

/// The processes of an attack, by what they were told.
fn processes(arguments: &[&str]) -> usize {
    let told = format!("/attack\0{}\0", arguments.join("\0"));
    let all = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
    all.filter(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == told.as_bytes()))
        .count()
}

/// How many the attacker says it has got, all its processes together, once the last has got what it can.
async fn got(cluster: &Cluster, name: &str) -> u64 {
    let pod = cluster.until(name, |pod| condition(pod, "Ready")).await;
    let said = || cluster.log(&pod, "attack", 0);
    until_so("the attacker has got what it can", || async { said().lines().any(|line| line.starts_with("got ")) })
        .await;
    let numbers = said();
    let number = |line: &str| line.split("got ").nth(1)?.split(':').next()?.parse::<u64>().ok();
    println!("{numbers}");
    numbers.lines().filter_map(number).sum()
}

/// A pod that was there before answers, one that comes now starts, and the node is Ready.
async fn others_go_on(cluster: &Cluster, late: &str) {
    let neighbour = cluster.until("neighbour", |pod| !pod.is_null()).await;
    assert!(condition(&neighbour, "Ready"), "{:#}", neighbour["status"]);
    cluster.pod(late, json!({"terminationGracePeriodSeconds": 0, "containers": [probed("a")]})).await;
    cluster.until(late, |pod| condition(pod, "Ready")).await;
    cluster.delete(late).await;
    let neighbour = cluster.until("neighbour", |pod| condition(pod, "Ready")).await;
    assert_eq!(neighbour["status"]["containerStatuses"][0]["restartCount"], 0);
    let node = cluster.client.get(&kinds::NODE, "", NODE).await.expect("an answer").expect("a node").value();
    assert!(condition(&node, "Ready"), "{:#}", node["status"]["conditions"]);
}

/// A container that is Ready while a process can be started in it.
fn probed(name: &str) -> Value {
    let mut container = shell(name, "sleep 1000");
    container["readinessProbe"] =
        json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1});
    container
}

/// Runs an attack beside a neighbour, and gives what it got. At its end nothing of it is left.
async fn beside_a_neighbour(cluster: &Cluster, arguments: &[&str], change: fn(&mut Value)) -> u64 {
    cluster.pod("neighbour", json!({"terminationGracePeriodSeconds": 0, "containers": [probed("a")]})).await;
    cluster.until("neighbour", |pod| condition(pod, "Ready")).await;
    let (container, volumes) = attack("attack", arguments);
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes});
    change(&mut spec);
    cluster.pod("attacker", spec).await;
    let got = got(cluster, "attacker").await;
    assert_eq!(processes(arguments), 1, "it is at it");
    others_go_on(cluster, "late").await;
    cluster.delete("attacker").await;
    assert_eq!(processes(arguments), 0);
    got
}

/// Processes and threads of the whole machine, and how many there can be.
fn pids() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/loadavg").expect("proc is mounted");
    let all = text.split([' ', '/']).nth(4).and_then(|all| all.parse().ok()).expect("a number");
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("proc is mounted");
    (all, most.trim().parse().expect("a number"))
}

#[test]
fn a83_threads_end_at_the_number_of_their_pod() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let most = unlike_others(30_000);
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let looking = tokio::spawn({
            let seen = std::sync::Arc::clone(&seen);
            async move {
                loop {
                    seen.fetch_max(pids().0, std::sync::atomic::Ordering::Relaxed);
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
        });
        let got = beside_a_neighbour(&cluster, &["threads", &most], |_| {}).await;
        looking.abort();
        assert!((3000..4096).contains(&got), "{got}");
        let (most, there_can_be) = (seen.load(std::sync::atomic::Ordering::Relaxed), pids().1);
        assert!(most > got && most <= there_can_be / 2, "{most} of {there_can_be} process ids were used");
        cluster.delete("neighbour").await;
    });
}

#[test]
fn a83_a_hundred_thousand_sockets_are_of_one_pod_only() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let most = unlike_others(100_000);
        let got = beside_a_neighbour(&cluster, &["sockets", &most], |_| {}).await;
        assert_eq!(got.to_string(), most, "what its processes may have open is all that bounds it");
        cluster.delete("neighbour").await;
    });
}

#[test]
fn a83_memory_of_sockets_is_the_memory_of_their_pod() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        // So few that one process has them all: of several the kernel may end one that the container can do without.
        let most = unlike_others(12_000);
        let (mut container, volumes) = attack("attack", &["sockets", &most]);
        container["resources"] = json!({"limits": {"memory": "16Mi"}});
        let spec = json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container],
            "volumes": volumes});
        cluster.pod("bounded", spec).await;
        let pod = cluster.until("bounded", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(ended["reason"], "OOMKilled", "the kernel's memory for them is the container's: {ended:#}");
        until_so("the last of its processes is gone", || async { processes(&["sockets", &most]) == 0 }).await;
        cluster.delete("bounded").await;
    });
}

#[test]
fn a83_watches_of_files_end_at_the_number_of_their_user() {
    let there_can_be = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").expect("proc is mounted");
    let there_can_be: u64 = there_can_be.trim().parse().expect("a number");
    on_a_node(move |cluster| async move {
        let cluster = cluster.lock().await;
        let most = unlike_others(100_000);
        let got = beside_a_neighbour(&cluster, &["watches", &most], |_| {}).await;
        // The kernel counts them by user and not by pod, so users that are root share them; the node needs none.
        assert!(got > 0 && got <= there_can_be, "{got} of {there_can_be}");
        // With the pod they are free again.
        let again = unlike_others(1_000_000);
        cluster
            .pod("next", {
                let (container, volumes) = attack("attack", &["watches", &again]);
                json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes})
            })
            .await;
        let next = self::got(&cluster, "next").await;
        assert!(next + 20 >= got, "{next} after {got}");
        cluster.delete("next").await;
        cluster.delete("neighbour").await;
    });
}

#[test]
fn a83_who_fills_the_disk_with_files_is_evicted_and_nobody_else() {
    const FILES: u32 = 1_000_000;
    on_a_node_with_a_disk(FILES, |cluster| async move {
        let cluster = cluster.lock().await;
        cluster.pod("neighbour", json!({"terminationGracePeriodSeconds": 0, "containers": [probed("a")]})).await;
        cluster.until("neighbour", |pod| condition(pod, "Ready")).await;
        let (mut container, mut volumes) = attack("attack", &["files", "/v", &FILES.to_string()]);
        container["volumeMounts"].as_array_mut().expect("a list").push(json!({"name": "v", "mountPath": "/v"}));
        volumes.as_array_mut().expect("a list").push(json!({"name": "v", "emptyDir": {}}));
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes});
        cluster.pod("attacker", spec).await;
        let evicted = cluster.until("attacker", |pod| pod["status"]["phase"] == "Failed").await;
        let message = evicted["status"]["message"].as_str().expect("a message");
        assert_eq!(evicted["status"]["reason"], "Evicted");
        assert!(message.starts_with("The node was low on resource: inodes. The pod was using "), "{message}");
        let client = cluster.client.clone();
        let is_well = || async {
            let node = client.get(&kinds::NODE, "", NODE).await.expect("an answer").expect("a node").value();
            condition(&node, "Ready") && !condition(&node, "DiskPressure")
        };
        cluster.delete("attacker").await;
        until_so("the node has room again", is_well).await;
        others_go_on(&cluster, "late").await;
        let disk = rustix::fs::statvfs(cluster.dir.join("data")).expect("the test's own disk");
        assert!(disk.f_files - disk.f_ffree < u64::from(FILES) / 20, "{} files are left", disk.f_files - disk.f_ffree);
        cluster.delete("neighbour").await;
    });
}
