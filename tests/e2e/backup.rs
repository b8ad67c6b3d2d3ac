//! Backup and restore: the same cluster comes back as it was, and nobody is misled about what was undone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use windlass_stdx::World;
use windlass_store::{Config, Range, RealDisk, Store};
use windlass_tests::cluster::{ended, given, kill, must, run, spawn, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, trace};

const CONTENT: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ropes.dock.test}
spec:
  group: dock.test
  scope: Namespaced
  names: {plural: ropes, singular: rope, kind: Rope}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {length: {type: integer}}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, persistentVolumeClaim: {claimName: kept}}]
  containers:
  - name: main
    image: windlass.local/demo:1
    command: [sh, -c, 'trap "exit 0" TERM; echo start >> /data/file; while true; do sleep 0.2; done']
    volumeMounts: [{name: data, mountPath: /data}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pair}
spec:
  replicas: 2
  selector: {matchLabels: {app: pair}}
  template:
    metadata: {labels: {app: pair}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: windlass.local/demo:1
        command: [sh, -c, 'trap "exit 0" TERM; while true; do sleep 0.2; done']
"#;

fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = must(&mut cluster.kubectl_command(&[&["get", "-o", "json"], arguments].concat()));
    serde_json::from_str(&text).expect("kubectl prints JSON")
}

fn names(cluster: &Cluster, kind: &str) -> Vec<String> {
    let list = get(cluster, &[kind]);
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    list["items"].as_array().into_iter().flatten().map(name).collect()
}

fn ready(cluster: &Cluster, wanted: usize) -> Vec<Value> {
    until("the pods are Ready", PATIENCE, || {
        let out = cluster.kubectl(&["get", "pods", "-o", "json"]);
        let list: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let are = pods.iter().filter(|pod| is_ready(pod)).count();
        if (are, pods.len()) == (wanted, wanted) { Ok(pods) } else { Err(format!("{are} of {}", pods.len())) }
    })
}

/// A directory of the test's own that goes with it.
struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Room {
        let path = std::env::temp_dir().join(format!("windlass-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Room(path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} is kept", self.0.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} was left behind: {error}", self.0.display());
        }
    }
}

pub fn a_cluster_is_backed_up_while_it_is_written_to_and_comes_back_as_it_was() {
    let room = Room::new("backup");
    let mut cluster = Cluster::start(16);
    cluster.import_image();
    let manifest = room.0.join("content.yaml");
    std::fs::write(&manifest, format!("{}---\n{CONTENT}", crate::access::ROLE)).expect("our own directory");
    must(cluster.kubectl_command(&["apply", "-f"]).arg(&manifest));
    let rope = room.0.join("rope.yaml");
    std::fs::write(&rope, "apiVersion: dock.test/v1\nkind: Rope\nmetadata: {name: bow}\nspec: {length: 12}\n")
        .expect("our own directory");
    until("the custom kind is served", PATIENCE, || {
        let out = run(cluster.kubectl_command(&["apply", "-f"]).arg(&rope));
        if out.ok { Ok(()) } else { Err(out.stderr) }
    });
    ready(&cluster, 3);
    let token = must(&mut cluster.kubectl_command(&["create", "token", "robot", "--duration=1h"]));
    let kubeconfig = room.0.join("kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &kubeconfig).expect("it is there");
    let before = get(&cluster, &["configmap", "settings"]);
    let pods = names(&cluster, "pods");

    let file = room.0.join("file");
    let said = backup_under_load(&cluster, &file);
    assert!(said.contains("has the cluster's keys"), "{said}");
    a_backup_that_finds_no_room_leaves_nothing(&cluster, &room.0);
    let there = run(cluster.windlass(&["backup"]).arg(&file));
    assert!(!there.ok && there.stderr.contains("is there already"), "{}", there.stderr);
    let checked = must(cluster.windlass(&["restore", "--check"]).arg(&file));
    assert!(checked.contains("whole; cluster "), "{checked}");
    let running = run(cluster.windlass(&["restore", "--replace"]).arg(&file));
    assert!(!running.ok && running.stderr.contains("windlass down"), "{}", running.stderr);

    must(&mut cluster.kubectl_command(&["delete", "deployment/pair", "pod/writer", "crd/ropes.dock.test", "sa/robot"]));
    must(&mut cluster.kubectl_command(&["patch", "configmap", "settings", "-p", r#"{"data":{"colour":"red"}}"#]));
    must(&mut cluster.kubectl_command(&["create", "configmap", "undone"]));
    let seen = get(&cluster, &["configmap", "undone"])["metadata"]["resourceVersion"].clone();
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let refused = run(cluster.windlass(&["restore"]).arg(&file));
    assert!(!refused.ok && refused.stderr.contains("--replace"), "{}", refused.stderr);
    let said = must(cluster.windlass(&["restore", "--replace"]).arg(&file));
    assert!(said.contains("goes on at revision") && said.contains("replaced-"), "{said}");
    cluster.up();

    // As it was: what was deleted and changed, and not what came later.
    let after = get(&cluster, &["configmap", "settings"]);
    assert_eq!((&after["data"], &after["metadata"]["uid"]), (&before["data"], &before["metadata"]["uid"]));
    assert!(!names(&cluster, "configmaps").contains(&"undone".to_owned()));
    assert_eq!(get(&cluster, &["ropes.dock.test", "bow"])["spec"]["length"], 12);
    ready(&cluster, 3);
    assert_eq!(names(&cluster, "pods"), pods);
    let data = must(&mut cluster.kubectl_command(&["exec", "writer", "--", "cat", "/data/file"]));
    assert_eq!(data, "start\nstart\n", "its volume stayed, and it began once more");
    // Whoever had access has it.
    let theirs =
        run(Command::new(given("WINDLASS_KUBECTL")).arg("--kubeconfig").arg(&kubeconfig).args(["get", "nodes"]));
    assert!(theirs.ok && theirs.stdout.contains("node1"), "{}", theirs.stderr);
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let maps = cluster.url("/api/v1/namespaces/default/configmaps");
    let insecure = |path: &str| {
        must(Command::new("/usr/bin/curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer, path]))
    };
    assert_eq!(insecure(&maps), "200");
    assert_eq!(insecure(&cluster.url("/api/v1/namespaces/default/secrets")), "403");
    // Who has seen what was undone is told so, and revisions go on from above it.
    let seen = seen.as_str().expect("a revision");
    let (_, events) = cluster.curl(&[&format!("{maps}?watch=1&resourceVersion={seen}&timeoutSeconds=5")]);
    assert!(events.contains("\"ERROR\"") && events.contains("410"), "{events}");
    let (code, _) = cluster.curl(&[&format!("{maps}?resourceVersion={seen}&resourceVersionMatch=Exact")]);
    assert_eq!(code, 410);
    let number = |revision: &Value| revision.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a revision");
    assert!(number(&after["metadata"]["resourceVersion"]) > seen.parse().expect("a number"));

    // What stands still is backed up too, and carried to a place of its own.
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    let still = room.0.join("still");
    must(cluster.windlass(&["backup"]).arg(&still));
    let elsewhere = Cluster::at(17, &room.0.join("elsewhere"));
    must(elsewhere.windlass(&["restore"]).arg(&still));
    let again = run(elsewhere.windlass(&["restore"]).arg(&still));
    assert!(!again.ok && again.stderr.contains("has a cluster already"), "{}", again.stderr);
    let ca = |cluster: &Cluster| std::fs::read(cluster.data_dir().join("pki/ca.crt")).expect("a certificate");
    assert_eq!(ca(&cluster), ca(&elsewhere));
    // Where a restore broke off nothing starts, since what is there may pass for a new cluster.
    std::fs::create_dir(elsewhere.data_dir().join("restoring")).expect("our own directory");
    let begun = run(&mut elsewhere.windlass(&["server", "--listen", "127.0.0.1:0"]));
    assert!(!begun.ok && begun.stderr.contains("a restore broke off here"), "{}", begun.stderr);
    let left = trace::left_behind(&cluster);
    assert!(left.is_empty(), "{}", left.join("\n"));
}

/// One client writes w-0, w-1, … all the time: a backup of one moment has all of them up to some, and those that were
/// acknowledged before it began.
fn backup_under_load(cluster: &Cluster, file: &Path) -> String {
    let url = cluster.url("/api/v1/namespaces/default/configmaps");
    let (written, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (said, before) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let name = format!("w-{:05}", written.load(Ordering::Relaxed));
                let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"x":"{}"}}}}"#, "x".repeat(20_000));
                let (code, text) =
                    cluster.curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", &body, &url]);
                assert_eq!(code, 201, "{text}");
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        until("it is written to", PATIENCE, || match written.load(Ordering::Relaxed) {
            many if many > 20 => Ok(()),
            few => Err(few.to_string()),
        });
        let before = written.load(Ordering::Relaxed);
        let out = run(cluster.windlass(&["backup"]).arg(file));
        stop.store(true, Ordering::Relaxed);
        assert!(out.ok, "{}", out.stderr);
        (out.stdout, before)
    });
    let after = written.load(Ordering::Relaxed);
    // In a place of its own, without a server: its store says what the backup holds.
    let place = Cluster::at(17, &file.with_extension("place"));
    must(place.windlass(&["restore"]).arg(file));
    let holds = keys(&place);
    let held: Vec<&String> = holds.iter().filter(|key| key.starts_with("o/configmaps/default/w-")).collect();
    assert!((before..=after).contains(&held.len()), "{before} {} {after}", held.len());
    for (number, key) in held.iter().enumerate() {
        assert_eq!(**key, format!("o/configmaps/default/w-{number:05}"), "no later one without those before it");
    }
    said
}

/// What the store of a cluster that stands still has.
fn keys(cluster: &Cluster) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
    runtime.block_on(async {
        let config = Config::new(cluster.data_dir().join("store"));
        let store = Store::open(config, Arc::new(RealDisk), World::real()).await.expect("a store");
        let page = store.range(&Range::prefix("")).expect("now is kept");
        store.close().await;
        page.entries.iter().map(|entry| entry.key().to_owned()).collect()
    })
}

fn a_backup_that_finds_no_room_leaves_nothing(cluster: &Cluster, room: &Path) {
    let small = room.join("small");
    std::fs::create_dir(&small).expect("our own directory");
    must(Command::new("/bin/mount").args(["-t", "tmpfs", "-o", "size=8k", "windlass-small"]).arg(&small));
    let out = run(cluster.windlass(&["backup"]).arg(small.join("file")));
    let left = std::fs::read_dir(&small).map(|entries| entries.count());
    must(Command::new("/bin/umount").arg(&small));
    assert!(!out.ok && out.stderr.contains("No space left"), "{}", out.stderr);
    assert_eq!(left.expect("a directory"), 0, "no half file");
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: left\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: windlass.local/demo:1\n    command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.2; done', f82-{name}]\n---\n"
    )
}

/// The first processes of the containers of these pods.
fn pids(name: &str) -> Vec<u32> {
    let marker = format!("f82-{name}");
    let found = trace::processes().into_iter().filter(|(_, line)| line.starts_with("sh ") && line.contains(&marker));
    found.map(|(pid, _)| pid).collect()
}

/// F82: nodes go on running while their server is set back. Who was in the cluster then goes on in it, its pods untouched;
/// what it was told to run since ends; who joined since is adopted by the certificate that it has.
pub fn f82_nodes_that_ran_on_are_in_the_cluster_that_is_restored() {
    let room = Room::new("restored");
    let [server, left, newer] =
        [(16, "server"), (17, "left"), (18, "newer")].map(|(number, name)| Cluster::at(number, &room.0.join(name)));
    let networks = ["--pod-cidr", "10.134.0.0/16", "--service-cidr", "10.135.0.0/16"];
    let start = || {
        let mut command = server.windlass(&["server"]);
        spawn(command.args(networks).arg("--listen").arg(format!("127.0.0.1:{}", server.port())))
    };
    let mut server_process = start();
    let answers = || {
        until("the server is ready", PATIENCE, || {
            let out = server.kubectl(&["get", "--raw", "/readyz"]);
            if out.ok { Ok(()) } else { Err(out.stderr) }
        });
    };
    answers();
    let token = must(&mut server.windlass(&["token"])).trim().to_owned();
    let join = |node: &Cluster, name: &str, port: &str| -> Child {
        let mut command = node.windlass(&["node", "--token", &token, "--node-name", name, "--node-port", port]);
        spawn(command.args(networks).arg("--server").arg(server.url("")))
    };
    let nodes = |wanted: &[&str]| {
        until("the nodes are Ready", PATIENCE, || {
            let out = server.kubectl(&["get", "nodes", "-o", "json"]);
            let list: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
            let mut ready: Vec<&str> = Vec::new();
            for node in list["items"].as_array().into_iter().flatten().filter(|node| is_ready(node)) {
                ready.extend(node["metadata"]["name"].as_str());
            }
            if ready == wanted { Ok(()) } else { Err(format!("{ready:?}")) }
        });
    };
    let mut left_process = join(&left, "left", "11267");
    nodes(&["left"]);
    must(left.windlass(&["image", "import"]).arg(given("WINDLASS_IMAGE")));
    let apply = |name: &str| {
        let file = room.0.join(name);
        std::fs::write(&file, pod(name)).expect("our own directory");
        must(server.kubectl_command(&["apply", "-f"]).arg(&file));
        until("it runs", PATIENCE, || {
            let out = server.kubectl(&["get", "pod", name, "-o", "json"]);
            let pod: Value = serde_json::from_str(&out.stdout).map_err(|_| out.stderr)?;
            if is_ready(&pod) { Ok(()) } else { Err(pod["status"].to_string()) }
        });
    };
    apply("steady");
    let file = room.0.join("file");
    must(server.windlass(&["backup"]).arg(&file));
    let steady = pids("steady");
    assert_eq!(steady.len(), 1);

    apply("later");
    let mut newer_process = join(&newer, "newer", "11268");
    nodes(&["left", "newer"]);
    kill(&mut server_process);
    must(server.windlass(&["restore", "--replace"]).arg(&file));
    assert_eq!((pids("steady"), pids("later").len()), (steady.clone(), 1), "pods do not notice");
    server_process = start();
    answers();
    nodes(&["left", "newer"]);
    until("what nobody asks for any more has ended", PATIENCE, || match pids("later").len() {
        0 => Ok(()),
        some => Err(some.to_string()),
    });
    let pods = get(&server, &["pods"]);
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1), "{pods}");
    assert_eq!(pods["items"][0]["status"]["containerStatuses"][0]["restartCount"], 0);
    assert!(is_ready(&pods["items"][0]));
    assert_eq!(pids("steady"), steady, "the same process runs");
    // The node hears of what comes after.
    apply("after");
    for (part, process) in [(&newer, &mut newer_process), (&left, &mut left_process), (&server, &mut server_process)] {
        must(&mut part.windlass(&["down"]));
        ended(process);
        let left = trace::left_behind(part);
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
}
