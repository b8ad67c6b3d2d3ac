//! Faults of a node's network: what others take away, ports that others hold, links that are cut. Named by their rows.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use windlass_tests::cluster::{ended, must, run, spawn, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, trace};

use crate::deployment::request;
use crate::policy::asking;

fn apply(cluster: &Cluster, manifest: &str) {
    let file = cluster.data_dir().join("applied.yaml");
    std::fs::write(&file, manifest).expect("writable");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&file));
}

fn get(cluster: &Cluster, name: &str) -> Value {
    let out = cluster.kubectl(&["get", "pod", name, "-o", "json"]);
    serde_json::from_str(&out.stdout).unwrap_or_default()
}

fn ready(cluster: &Cluster, name: &str) -> Value {
    until(&format!("{name} is Ready"), PATIENCE, || {
        let pod = get(cluster, name);
        if is_ready(&pod) { Ok(pod) } else { Err(pod["status"].to_string()) }
    })
}

fn pod(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    \
         command: [sh, -c, '{script}']\n{more}---\n"
    )
}

fn end(cluster: &mut Cluster) {
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let left = trace::left_behind(cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

/// F61: rules, policies and leases are restored within 5 s, and connections that stand go on.
pub fn f61_rules_and_leases_that_were_removed_are_restored() {
    let mut cluster = Cluster::start(11);
    cluster.import_image();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: server}\nspec: {selector: {app: server}, ports: [{port: 90}]}\n---\n";
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n\
                  spec: {podSelector: {matchLabels: {app: denied}}}\n---\n";
    let server = pod("server", "sleep 100000 | nc -l -p 90", "");
    apply(&cluster, &format!("{service}{policy}{server}{}", pod("denied", "web", "")));
    ready(&cluster, "server");
    let denied = ready(&cluster, "denied")["status"]["podIP"].as_str().expect("an address").to_owned();
    let script = format!(
        "(i=0; while true; do echo $i; i=$((i+1)); sleep 0.2; done) | nc $SERVER_SERVICE_HOST 90 & while true; do {} && \
         echo passed; sleep 0.2; done",
        asking(&denied, "8080")
    );
    apply(&cluster, &pod("client", &script, ""));
    let lines = || cluster.kubectl(&["logs", "server"]).stdout.lines().count();
    until("the connection stands", PATIENCE, || match lines() {
        count if count > 5 => Ok(()),
        count => Err(format!("{count} lines")),
    });
    let instance = cluster.instance();
    let policies = format!("{instance}-policy");
    for table in [&instance, &policies] {
        must(Command::new("/usr/sbin/nft").args(["delete", "table", "ip", table]));
    }
    std::fs::remove_dir_all(cluster.run_dir().join("network/leases")).expect("it is there");
    let removed = Instant::now();
    until("the tables and leases are there again", Duration::from_secs(5), || {
        let tables = must(Command::new("/usr/sbin/nft").args(["list", "tables"]));
        let has = |table: &str| tables.lines().any(|line| line.ends_with(&format!(" {table}")));
        let leases = std::fs::read_dir(cluster.run_dir().join("network/leases")).map_or(0, Iterator::count);
        if has(&instance) && has(&policies) && leases >= 3 { Ok(()) } else { Err(format!("{tables}{leases} leases")) }
    });
    eprintln!("restored within {:?}", removed.elapsed());
    let before = lines();
    until("the connection goes on", PATIENCE, || match lines() {
        count if count > before + 10 => Ok(()),
        count => Err(format!("{count} lines")),
    });
    for (number, line) in must(&mut cluster.kubectl_command(&["logs", "server"])).lines().enumerate() {
        assert_eq!(line, number.to_string(), "nothing was lost");
    }
    let passed = || cluster.kubectl(&["logs", "client"]).stdout.matches("passed").count();
    let leaked = passed();
    apply(&cluster, &pod("late", "sleep 1000", ""));
    ready(&cluster, "late");
    std::thread::park_timeout(Duration::from_secs(2));
    assert_eq!(passed(), leaked, "denied again");
    end(&mut cluster);
}

/// F62: a pod from which something was taken is restarted, and says why.
pub fn f62_a_pod_whose_ground_was_removed_is_restarted_with_the_reason() {
    let mut cluster = Cluster::start(12);
    cluster.import_image();
    let memory = "    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v, emptyDir: {medium: Memory}}]\n";
    let script = "while true; do sleep 1; done";
    apply(
        &cluster,
        &[pod("net", script, ""), pod("group", script, ""), pod("mount", script, memory), pod("whole", script, "")]
            .concat(),
    );
    let uid = |name: &str| ready(&cluster, name)["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let [net, group, mount] = ["net", "group", "mount"].map(uid);
    ready(&cluster, "whole");
    // Long enough that what is mounted has been seen.
    std::thread::park_timeout(Duration::from_secs(6));

    let namespace = cluster.run_dir().join("network/netns").join(&net);
    must(Command::new("/bin/umount").arg("-l").arg(&namespace));
    std::fs::remove_file(&namespace).expect("it is there");

    let hierarchy = std::path::Path::new("/sys/fs/cgroup/memory");
    let container = hierarchy.join(cluster.instance()).join(&group).join("main.0");
    let members = std::fs::read_to_string(container.join("cgroup.procs")).expect("the container has its group");
    for member in members.lines() {
        std::fs::write(hierarchy.join("cgroup.procs"), member).expect("a process can be moved");
    }
    std::fs::remove_dir(&container).expect("an empty group can be removed");

    let volume = cluster.data_dir().join("pods").join(&mount).join("volumes/v");
    must(Command::new("/bin/umount").arg("-l").arg(&volume));

    for (name, why) in [
        ("net", "network namespace or interface is gone"),
        ("group", "control group of its containers is gone"),
        ("mount", "mounted in its volumes is gone"),
    ] {
        until(&format!("{name} is restarted"), PATIENCE, || {
            let pod = get(&cluster, name);
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            if is_ready(&pod) && restarts >= Some(1) { Ok(()) } else { Err(pod["status"].to_string()) }
        });
        let events = must(&mut cluster.kubectl_command(&["describe", "pod", name]));
        assert!(events.contains("SandboxDamaged") && events.contains(why), "{name}: {events}");
    }
    assert!(namespace.exists() && container.with_file_name("main.1").exists(), "they have what they need again");
    assert_eq!(get(&cluster, "whole")["status"]["containerStatuses"][0]["restartCount"], 0, "the others go on");
    end(&mut cluster);
}

/// F58: ports that somebody else holds are said, tried again, and in nobody's way.
pub fn f58_ports_that_are_taken_are_tried_again_and_others_go_on() {
    let mut cluster = Cluster::at(13, &std::env::temp_dir().join(format!("windlass-ports-{}", std::process::id())));
    let number: u16 = cluster.instance().trim_start_matches("wle").parse().expect("a number");
    let agent = std::net::TcpListener::bind(("0.0.0.0", 11250 + number)).expect("a free port");
    let gateway = format!("10.{}.0.1", 100 + 2 * number);
    must(Command::new("/sbin/ip").args(["address", "add", &format!("{gateway}/32"), "dev", "lo"]));
    let names = UdpSocket::bind((gateway.as_str(), 53)).expect("a free port");
    std::fs::create_dir_all(cluster.data_dir()).expect("writable");
    cluster.up();
    cluster.import_image();
    apply(&cluster, &pod("runs", "sleep 1000", ""));
    ready(&cluster, "runs");
    let log = cluster.log();
    assert!(log.contains("the node agent cannot listen on") && log.contains("--node-port"), "{log}");
    assert!(log.contains("could not listen on") && log.contains("pods find no names"), "{log}");
    assert!(!cluster.kubectl(&["exec", "runs", "--", "true"]).ok, "nobody answers for the agent");
    drop((agent, names));
    must(Command::new("/sbin/ip").args(["address", "delete", &format!("{gateway}/32"), "dev", "lo"]));
    until("commands and names are to be had", PATIENCE, || {
        let out = cluster.kubectl(&["exec", "runs", "--", "nslookup", "kubernetes.default.svc.cluster.local"]);
        if out.ok { Ok(()) } else { Err(format!("{out:?}")) }
    });
    end(&mut cluster);
}

/// Drops packets as long as it lives.
struct Cut(String);

impl Cut {
    /// The rules say which packets, leaving this machine.
    fn new(name: &str, rules: &[String]) -> Cut {
        must(Command::new("/usr/sbin/nft").args(["add", "table", "ip", name]));
        let cut = Cut(name.to_owned());
        let chain = format!("add chain ip {name} out {{ type filter hook output priority 0; }}");
        must(Command::new("/usr/sbin/nft").arg(chain));
        for rule in rules {
            must(Command::new("/usr/sbin/nft").arg(format!("add rule ip {name} out {rule} drop")));
        }
        cut
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        run(Command::new("/usr/sbin/nft").args(["delete", "table", "ip", &self.0]));
    }
}

/// The own ports of connections to this port of 127.0.0.2.
fn connected(port: u16) -> Vec<u16> {
    let remote = format!("0200007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.get(2) == Some(&remote.as_str()) && row.get(3) == Some(&"01"));
    rows.filter_map(|row| u16::from_str_radix(row[1].split_once(':')?.1, 16).ok()).collect()
}

/// F17 and F19: connections that go silent are noticed within 15 s; a node without its API keeps its pods served.
pub fn f17_f19_a_node_notices_a_silent_server_and_goes_on_without_it() {
    let directory = std::env::temp_dir().join(format!("windlass-cut-{}", std::process::id()));
    let server = Cluster::at(14, &directory.join("server"));
    let node = Cluster::at(15, &directory.join("node"));
    for cluster in [&server, &node] {
        std::fs::create_dir_all(cluster.data_dir()).expect("writable");
    }
    let ranges = ["--pod-cidr", "10.118.0.0/16", "--service-cidr", "10.119.0.0/16"];
    let port = server.port();
    let mut command = server.windlass(&["server", "--san", "127.0.0.2"]);
    let mut server_process = spawn(command.arg("--listen").arg(format!("0.0.0.0:{port}")).args(ranges));
    until("the server is ready", PATIENCE, || {
        let out = server.kubectl(&["get", "--raw", "/readyz"]);
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    let token = must(&mut server.windlass(&["token"])).trim().to_owned();
    let mut command = node.windlass(&["node", "--token", &token, "--node-name", "apart", "--node-port", "11259"]);
    let mut node_process = spawn(command.arg("--server").arg(format!("https://127.0.0.2:{port}")).args(ranges));
    until("the node can take images", PATIENCE, || {
        let out = run(node.windlass(&["image", "import"]).arg(windlass_tests::cluster::given("WINDLASS_IMAGE")));
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: first}\nspec: {selector: {app: first}, ports: [{port: 80, targetPort: 8080}]}\n---\n";
    apply(&server, &format!("{service}{}", pod("first", "web", "")));
    let before = ready(&server, "first");
    let service = must(&mut server.kubectl_command(&["get", "service", "first", "-o", "jsonpath={.spec.clusterIP}"]));
    let address = format!("{service}:80");
    until("it serves", PATIENCE, || request(&address));

    let silent = connected(port);
    assert!(!silent.is_empty(), "the node is connected");
    let rules: Vec<String> = silent
        .iter()
        .flat_map(|own| [format!("ip saddr 127.0.0.2 tcp dport {own}"), format!("ip daddr 127.0.0.2 tcp sport {own}")])
        .collect();
    let cut = Cut::new("windlass-f17", &rules);
    let begun = Instant::now();
    apply(&server, &pod("second", "web", ""));
    ready(&server, "second");
    let took = begun.elapsed();
    eprintln!("a pod ran {took:?} after every connection had gone silent");
    assert!(took < Duration::from_secs(25), "15 s to notice, and a few to start: {took:?}");
    drop(cut);

    let cut = Cut::new("windlass-f19", &["ip daddr 127.0.0.2".to_owned(), "ip saddr 127.0.0.2".to_owned()]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        request(&address).unwrap_or_else(|error| panic!("it serves without its API: {error}"));
        std::thread::park_timeout(Duration::from_millis(500));
    }
    let slices =
        must(&mut server.kubectl_command(&["get", "endpointslices", "-l", "kubernetes.io/service-name=first"]));
    assert!(
        slices.contains(before["status"]["podIP"].as_str().expect("an address")),
        "the last that is known: {slices}"
    );
    drop(cut);
    apply(&server, &pod("third", "web", ""));
    ready(&server, "third");
    let after = get(&server, "first");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "nobody was evicted");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    for (part, process) in [(&node, &mut node_process), (&server, &mut server_process)] {
        must(&mut part.windlass(&["down"]));
        ended(process);
        let left = trace::left_behind(part);
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
    std::fs::remove_dir_all(&directory).expect("nothing is mounted there any more");
}
