//! Images from a registry that wants a password, which only a program on the machine has.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use windlass_node::ProviderFiles;

use crate::stage::{condition, on_a_node, shell, status, until_so};

/// Where the registry listens; the network of a test is its own.
pub const HOST: &str = "127.0.0.1:5000";

/// A registry that ends with the test.
pub struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("our own child ends");
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

impl Registry {
    /// For `user` with the password `secret`.
    pub async fn start(dir: &Path) -> Registry {
        std::fs::write(dir.join("users"), said(Command::new("htpasswd").args(["-nbB", "user", "secret"])))
            .expect("written");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/registry}}}}\nhttp: {{addr: \"{HOST}\"}}\n\
             auth: {{htpasswd: {{realm: test, path: {0}/users}}}}\n",
            dir.display()
        );
        std::fs::write(dir.join("registry.yml"), config).expect("written");
        let mut serve = Command::new("docker-registry");
        let serve = serve.arg("serve").arg(dir.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry(serve.spawn().expect("docker-registry is installed"));
        until_so("the registry listens", || async { TcpStream::connect(HOST).is_ok() }).await;
        registry
    }

    /// Puts the image of an archive there.
    pub fn hold(&self, archive: &Path, image: &str) {
        let from = format!("oci-archive:{}", archive.display());
        let to = format!("docker://{image}");
        let options = ["copy", "-q", "--dest-tls-verify=false", "--dest-creds=user:secret"];
        said(Command::new("skopeo").args(options).args([&from, &to]));
    }
}

fn waiting(pod: &Value) -> &str {
    status(pod)["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_credential_provider_opens_its_registry_for_every_pod() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let dir = cluster.dir.clone();
        let image = format!("{HOST}/team/app:1");
        let registry = Registry::start(&dir).await;
        registry.hold(&dir.join("busybox.tar"), &image);
        let spec = || {
            let mut container = shell("a", "sleep 1000");
            container["image"] = json!(image);
            json!({"terminationGracePeriodSeconds": 0, "containers": [container]})
        };
        cluster.pod("before", spec()).await;
        let refused =
            cluster.until("before", |pod| waiting(pod).ends_with("ImagePull") || waiting(pod).ends_with("BackOff"));
        let message = status(&refused.await)["state"]["waiting"]["message"].to_string();
        assert!(message.contains("wants a user and password"), "{message}");
        cluster.delete("before").await;
        cluster.stop_agent().await;

        std::os::unix::fs::symlink("/bin/sh", dir.join("provider")).expect("a link");
        let answer = json!({"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": "Registry", "auth": {HOST: {"username": "user", "password": "secret"}}});
        let provider = json!({"name": "provider", "matchImages": [format!("{HOST}/team")], "defaultCacheDuration": "1h",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "args": ["-c", format!("cat >> {}/asked; echo '{answer}'", dir.display())]});
        let config = json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
            "providers": [provider]});
        let path = dir.join("providers.yaml");
        std::fs::write(&path, config.to_string()).expect("written");
        cluster.set_credential_providers(ProviderFiles { config: path, programs: dir.clone() });
        cluster.start_agent().await;
        // What the machine itself may pull is for everybody on it: the second pod asks nobody.
        for name in ["first", "second"] {
            cluster.pod(name, spec()).await;
            cluster.until(name, |pod| condition(pod, "Ready")).await;
        }
        let asked = std::fs::read_to_string(dir.join("asked")).expect("it was asked");
        let request: Value = serde_json::from_str(&asked).expect("once");
        assert_eq!(request["image"], format!("{HOST}/team/app"), "{request}");
        for name in ["first", "second"] {
            cluster.delete(name).await;
        }
    });
}

/// A registry that takes its time and then has nothing; how many ask at one time, and for what.
struct Slow {
    most: Arc<AtomicUsize>,
    asked: Arc<Mutex<BTreeSet<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Slow {
    async fn start(address: &str) -> Slow {
        let listener = TcpListener::bind(address).await.expect("the namespace is ours");
        let (most, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(BTreeSet::new())));
        let (now, seen, paths) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most), Arc::clone(&asked));
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let (now, seen, paths) = (Arc::clone(&now), Arc::clone(&seen), Arc::clone(&paths));
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    let count = stream.read(&mut request).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&request[..count]).into_owned();
                    let Some(path) = text.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else { return };
                    paths.lock().expect("nobody panics").insert(path.to_owned());
                    seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    // Who has given up does not hear it.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Slow { most, asked, server }
    }
}

#[test]
fn no_more_images_of_one_registry_are_fetched_at_once_than_is_said() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        cluster.stop_agent().await;
        cluster.tune = |config| config.pulls_max = 2;
        cluster.start_agent().await;
        let slow = Slow::start("127.0.0.1:5002").await;
        let names: Vec<String> = (0..5).map(|number| format!("p{number}")).collect();
        for name in &names {
            let mut container = shell("a", "true");
            container["image"] = json!(format!("127.0.0.1:5002/{name}:1"));
            cluster.pod(name, json!({"terminationGracePeriodSeconds": 0, "containers": [container]})).await;
        }
        let asked = |name: &str| {
            let paths = slow.asked.lock().expect("nobody panics");
            paths.iter().any(|path| path.contains(&format!("/{name}/manifests/")))
        };
        until_so("all are asked for", || async { names.iter().all(|name| asked(name)) }).await;
        assert_eq!(slow.most.load(Ordering::SeqCst), 2);
        for name in &names {
            cluster.delete(name).await;
        }
        slow.server.abort();
    });
}
