//! Registries: passwords, TLS, and what happens to a node when they fail.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use windlass_tests::cluster::{ended, given, must, run, spawn, until};
use windlass_tests::suite::{PATIENCE, is_ready};
use windlass_tests::{Cluster, Test, trace};

/// A registry on loopback, ended when dropped.
pub struct Registry {
    process: std::process::Child,
    pub host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("our own child can be killed");
        self.process.wait().expect("our own child can be waited for");
    }
}

impl Registry {
    /// A registry that keeps its blobs in this directory, with more configuration of its HTTP server and of itself.
    pub fn start(test: &Test, directory: &Path, http: &str, more: &str) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}{http}}}\n{more}",
            directory.display()
        );
        let config = test.file("yml", &config);
        let mut serve = Command::new("/usr/bin/docker-registry");
        let child = serve.args(["serve", &config]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Registry { process: child.expect("docker-registry is installed"), host: format!("127.0.0.1:{port}") }
    }

    /// Copies an image into it, as soon as it answers; its full name.
    pub fn push(&self, source: &str, name: &str, more: &[&str]) -> String {
        let name = format!("{}/{name}", self.host);
        until("the registry takes the image", PATIENCE, || {
            let mut copy = Command::new("/usr/bin/skopeo");
            copy.args(["copy", "--dest-tls-verify=false"]).args(more);
            let out = run(copy.args([source, &format!("docker://{name}")]));
            if out.ok { Ok(()) } else { Err(out.stderr) }
        });
        name
    }
}

/// A directory for a registry of the test.
pub fn directory(test: &Test) -> PathBuf {
    PathBuf::from(test.file("registry", "")).with_extension("d")
}

fn demo() -> String {
    format!("oci-archive:{}", given("WINDLASS_IMAGE").display())
}

/// Adds an entry to what the node is told about registries. Other tests of the cluster have theirs in the same file.
fn describe(test: &Test, entry: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().expect("nobody panics while writing");
    let path = test.cluster.data_dir().join("registries.yaml");
    let before = std::fs::read_to_string(&path).unwrap_or_else(|_| "registries:\n".to_owned());
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, format!("{before}- {entry}\n")).expect("the data directory is ours");
    std::fs::rename(&fresh, &path).expect("the data directory is ours");
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{more}  containers:\n  \
         - {{name: main, image: \"{image}\", command: [sleep, \"1000\"]}}\n"
    )
}

/// Waits until the pod says why its image is not here.
fn refused(test: &Test, name: &str, word: &str) {
    test.wait("pod", name, "says why its image is refused", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let is_refused = matches!(waiting["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff"));
        is_refused && waiting["message"].as_str().is_some_and(|message| message.contains(word))
    });
}

pub fn pull_secrets_of_pods_and_accounts_open_what_they_are_for(test: &Test) {
    let users = must(Command::new("htpasswd").args(["-nbB", "alice", "secret"]));
    let users = test.file("htpasswd", &users);
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {users}}}}}\n");
    let registry = Registry::start(test, &directory(test), "", &auth);
    let image = registry.push(&demo(), "team/private:1", &["--dest-creds", "alice:secret"]);
    let server = format!("--docker-server={}/team", registry.host);
    for (name, password) in [("good", "secret"), ("bad", "wrong")] {
        let password = format!("--docker-password={password}");
        test.kubectl(&["create", "secret", "docker-registry", name, &server, "--docker-username=alice", &password]);
    }
    test.apply(&pod("nobody", &image, ""));
    refused(test, "nobody", "wants a user and password");
    test.apply(&pod("wrong", &image, "  imagePullSecrets: [{name: bad}, {name: absent}]\n"));
    refused(test, "wrong", "401");
    let events = test.kubectl(&["describe", "pod", "wrong"]);
    assert!(events.contains("FailedToRetrieveImagePullSecret") && events.contains("absent"), "{events}");
    test.apply(&pod("both", &image, "  imagePullSecrets: [{name: bad}, {name: good}]\n"));
    test.wait("pod", "both", "Ready", is_ready);
    // The image is here now; it is for those who could have pulled it (KEP-2535).
    test.apply(&pod("still-nobody", &image, ""));
    refused(test, "still-nobody", "wants a user and password");
    let never = pod("never", &image, "").replace("command:", "imagePullPolicy: Never, command:");
    test.apply(&never);
    test.wait("pod", "never", "ErrImageNeverPull", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
    test.kubectl(&["create", "serviceaccount", "puller"]);
    test.kubectl(&["patch", "serviceaccount", "puller", "-p", r#"{"imagePullSecrets": [{"name": "good"}]}"#]);
    test.apply(&pod("by-account", &image, "  serviceAccountName: puller\n"));
    test.wait("pod", "by-account", "Ready", is_ready);
    // The command line asks the same way.
    let pull = |credentials: &str| run(&mut test.cluster.windlass(&["image", "pull", &image, "--creds", credentials]));
    assert!(!pull("alice:wrong").ok);
    let pulled = pull("alice:secret");
    assert!(pulled.ok && pulled.stdout.contains(&image), "{}", pulled.stderr);
}

/// What does not change while a container just runs.
fn identity(pod: &Value) -> (Value, Value) {
    let status = &pod["status"]["containerStatuses"][0];
    (status["containerID"].clone(), status["restartCount"].clone())
}

/// A registry that takes connections and answers each with this text, or with nothing at all.
fn listener(answer: Option<&'static str>) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = socket.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in socket.incoming() {
            let Ok(mut stream) = stream else { return };
            if let Some(answer) = answer {
                // Who asked may have gone.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
            open.push(stream);
        }
    });
    host
}

pub fn f59_a_registry_that_fails_harms_nothing_that_runs_or_is_here(test: &Test) {
    let before = test.sleeping_pod("before", "");
    let slow = listener(None);
    let busy = listener(Some(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ));
    let place = PathBuf::from(test.file("tls", "")).with_extension("d");
    std::fs::create_dir_all(&place).expect("a directory of the test");
    std::fs::write(place.join("subject"), "subjectAltName=DNS:other.example\n").expect("a directory of the test");
    let fresh = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for line in [
        format!("req -x509 {fresh} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
        format!("req {fresh} -keyout key.pem -out cert.csr -subj /CN=other"),
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile subject -days 2 -out cert.pem"
            .to_owned(),
    ] {
        must(Command::new("openssl").current_dir(&place).args(line.split_whitespace()));
    }
    let http = format!(", tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}", place.display());
    let wrong = Registry::start(test, &directory(test), &http, "");
    let image = wrong.push(&demo(), "app:1", &[]);
    describe(test, &format!("{{prefix: \"{}\", ca: {}/ca.pem}}", wrong.host, place.display()));
    let rows = [
        ("down", "127.0.0.1:1/app:1".to_owned(), "refused"),
        ("busy", format!("{busy}/app:1"), "429"),
        ("wrong-tls", image, "not valid for"),
    ];
    test.apply(&pod("slow", &format!("{slow}/app:1"), ""));
    for (name, image, _) in &rows {
        test.apply(&pod(name, image, ""));
    }
    for (name, _, why) in &rows {
        refused(test, name, why);
    }
    test.wait("pod", "down", "is in back-off", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    test.sleeping_pod("after", "");
    let slow = test.get("pod", "slow");
    assert_eq!(slow["status"]["phase"], "Pending", "{:#}", slow["status"]);
    let now = test.get("pod", "before");
    assert_eq!(identity(&now), identity(&before), "what ran is untouched");
    assert_eq!(test.kubectl(&["exec", "before", "--", "echo", "well"]), "well\n");
    assert!(is_ready(&test.get("node", "node1")));
    test.kubectl(&["delete", "pods", "--all", "--timeout=60s"]);
}

/// The registry is away when the pod is made and comes later; the pod needs no help.
pub fn f59_a_registry_that_comes_back_is_found(test: &Test) {
    let place = directory(test);
    let first = Registry::start(test, &place, "", "");
    let image = first.push(&demo(), "app:1", &[]);
    let host = first.host.clone();
    drop(first);
    test.apply(&pod("waits", &image, ""));
    refused(test, "waits", "refused");
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
        place.display()
    );
    let config = test.file("yml", &config);
    let mut serve = Command::new("/usr/bin/docker-registry");
    let child = serve.args(["serve", &config]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _again = Registry { process: child.expect("docker-registry is installed"), host };
    let ready = || {
        let pod = test.get("pod", "waits");
        if is_ready(&pod) { Ok(()) } else { Err(format!("{:#}", pod["status"])) }
    };
    // At most the first two waits of the back-off, 10 and 20 s, and what a busy machine needs.
    until("the pod runs", PATIENCE + Duration::from_secs(30), ready);
}

/// Takes an image's layers from a registry's disk; what the image is, it still says.
fn lose_layers(image: &str, place: &Path) {
    let mut inspect = Command::new("/usr/bin/skopeo");
    let raw = must(inspect.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")]));
    let manifest: Value = serde_json::from_str(&raw).expect("a manifest");
    for layer in manifest["layers"].as_array().expect("layers") {
        let digest = layer["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        let data = place.join("docker/registry/v2/blobs/sha256").join(&digest[..2]).join(&digest).join("data");
        std::fs::remove_file(data).expect("the registry has the layer");
    }
}

pub fn layers_come_from_a_node_that_has_them() {
    let mut cluster = Cluster::start(12);
    let second = Cluster::at(13, &cluster.data_dir().with_file_name("second"));
    let test = Test { cluster: &cluster, namespace: "default".to_owned() };
    let place = directory(&test);
    let registry = Registry::start(&test, &place, "", "");
    let image = registry.push(&demo(), "app:1", &[]);
    test.apply(&pod("first", &image, "  nodeName: node1\n"));
    test.wait("pod", "first", "Ready", is_ready);
    lose_layers(&image, &place);

    let token = must(&mut cluster.windlass(&["token"])).trim().to_owned();
    let number = cluster.port() - 16443;
    let mut join = second.windlass(&["node", "--token", &token, "--node-name", "node2", "--server", &cluster.url("")]);
    join.args(["--node-port", &(11250 + second.port() - 16443).to_string()]);
    join.args(["--pod-cidr", &format!("10.{}.0.0/16", 100 + 2 * number)]);
    join.args(["--service-cidr", &format!("10.{}.0.0/16", 101 + 2 * number)]);
    let mut process = spawn(&mut join);
    test.wait("node", "node2", "Ready", is_ready);
    test.wait("node", "node1", "says that it has the image", |node| {
        let images = node["status"]["images"].as_array().into_iter().flatten();
        images.into_iter().any(|found| found["names"].to_string().contains(&image))
    });
    test.apply(&pod("second", &image, "  nodeName: node2\n"));
    test.wait("pod", "second", "Ready with layers that only node1 has", is_ready);
    test.kubectl(&["delete", "pods", "--all", "--timeout=60s"]);

    must(&mut second.windlass(&["down"]));
    ended(&mut process);
    drop(registry);
    let down = cluster.down();
    assert!(down.ok, "{}", down.stderr);
    for part in [&second, &cluster] {
        let left = trace::left_behind(part);
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
}
