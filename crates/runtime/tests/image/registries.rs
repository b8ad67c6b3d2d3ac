//! Pulling: from a real registry, and from ones that mean harm.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_runtime::image::{Credentials, ImageError, Progress, PullOptions};

use crate::stage::{Files, Layer, Packing, Stage, digest, layout, told};

/// A registry of the distribution, as a process that ends with the test.
struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    fn start(stage: &Stage, users: Option<&str>) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let root = stage.directory.join("registry");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            root.display()
        );
        if let Some(users) = users {
            let path = stage.directory.join("htpasswd");
            std::fs::write(&path, users).expect("written");
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display()));
        }
        let path = stage.directory.join("registry.yml");
        std::fs::write(&path, config).expect("written");
        let process =
            Command::new("docker-registry").arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry =
            Registry { process: process.expect("docker-registry is installed"), host: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < deadline, "the registry listens within 20 s");
            std::thread::yield_now();
        }
        registry
    }

    fn push(&self, stage: &Stage, layout: &Files, name: &str, more: &[&str]) {
        let directory = stage.directory.join("pushed");
        layout.write_to(&directory);
        self.copy(&format!("oci:{}", directory.display()), name, more);
        std::fs::remove_dir_all(directory).expect("removed");
    }

    fn copy(&self, from: &str, name: &str, more: &[&str]) {
        let to = format!("docker://{}/{name}", self.host);
        let arguments = ["copy", "--quiet", "--dest-tls-verify=false"];
        let output = Command::new("skopeo").args(arguments).args(more).args([from, &to]).output();
        let output = output.expect("skopeo is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("the registry ends");
    }
}

/// A layout that skopeo takes too: it is stricter about kinds than we are.
fn strict_layout(layers: &[Vec<u8>], packing: Packing) -> Files {
    let (files, mut manifest) = layout(layers, packing);
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let suffix = match packing {
        Packing::Plain => "",
        Packing::Gzip => "+gzip",
        Packing::Zstd => "+zstd",
    };
    for layer in manifest["layers"].as_array_mut().expect("layers") {
        layer["mediaType"] = format!("application/vnd.oci.image.layer.v1.tar{suffix}").into();
    }
    crate::stage::with_index(files, &manifest)
}

#[tokio::test]
async fn an_image_is_pulled_from_a_registry_and_what_is_here_is_not_fetched_again() {
    let stage = Stage::new();
    let registry = Registry::start(&stage, None);
    let shared = Layer::new().file("shared", &"s".repeat(3 << 20)).finish();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let own = Layer::new().file("own", &format!("{packing:?}")).finish();
        registry.push(&stage, &strict_layout(&[shared.clone(), own], packing), &format!("team/app:{packing:?}"), &[]);
    }
    let told_layers = Arc::new(Mutex::new(Vec::new()));
    for (packing, expected) in [(Packing::Gzip, 2), (Packing::Zstd, 1)] {
        let heard = told_layers.clone();
        let progress: Arc<dyn Fn(Progress) + Send + Sync> = Arc::new(move |step| {
            if let Progress::Started { layers, .. } = step {
                heard.lock().expect("unpoisoned").push(layers);
            }
        });
        let name = format!("{}/team/app:{packing:?}", registry.host);
        let options = PullOptions { progress: Some(progress), ..PullOptions::default() };
        let record = stage.images.pull(&name, options).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!((record.names, told_layers.lock().expect("unpoisoned").pop()), (vec![name.clone()], Some(expected)));
        let image = stage.images.find(&name).expect("a store").expect("an image");
        assert_eq!(std::fs::read_to_string(image.layers[0].join("own")).expect("a file"), format!("{packing:?}"));
        let by_digest = format!("{}/team/app@{}", registry.host, record.digest.expect("a digest"));
        let same = stage.images.pull(&by_digest, PullOptions::default()).await.expect("pulled by digest");
        assert_eq!(same.id, record.id);
        assert!(same.names.contains(&by_digest));
    }
    // What we write ourselves, other tools take too.
    let made = stage.directory.join("made.tar");
    let entries = [windlass_runtime::image::build::Entry::file("made", "made")];
    let id =
        windlass_runtime::image::build::write_oci(&made, "made:v1", &entries, &Default::default()).expect("written");
    registry.copy(&format!("oci-archive:{}", made.display()), "team/made:v1", &[]);
    let pulled = stage.images.pull(&format!("{}/team/made:v1", registry.host), PullOptions::default()).await;
    assert_eq!(pulled.expect("pulled").id, id);
    let absent = format!("{}/team/app:absent", registry.host);
    let error = stage.images.pull(&absent, PullOptions::default()).await.expect_err("absent");
    assert!(told(&error).contains("404") && !error.is_passing(), "{}", told(&error));
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_it_and_refuses_others() {
    let stage = Stage::new();
    // user:secret, as `htpasswd -B` writes it.
    let made = Command::new("htpasswd").args(["-nbB", "user", "secret"]).output();
    let users = String::from_utf8(made.expect("apache2-utils is installed").stdout).expect("text");
    let registry = Registry::start(&stage, Some(&users));
    let files = strict_layout(&[Layer::new().file("a", "a").finish()], Packing::Gzip);
    registry.push(&stage, &files, "app:v1", &["--dest-creds", "user:secret"]);
    let name = format!("{}/app:v1", registry.host);
    let with = |password: &str| PullOptions {
        credentials: Some(Credentials { username: "user".to_owned(), password: password.to_owned() }),
        ..PullOptions::default()
    };
    for options in [PullOptions::default(), with("wrong")] {
        let error = stage.images.pull(&name, options).await.expect_err("refused");
        assert!(
            matches!(error, ImageError::Unauthorized { .. }) && !told(&error).contains("wrong"),
            "{}",
            told(&error)
        );
    }
    stage.images.pull(&name, with("secret")).await.expect("pulled");
}

/// What a fake registry answers for a path: status, headers and body.
type Answers = BTreeMap<String, (u16, Vec<(String, String)>, Vec<u8>)>;

/// A registry that answers as it was told and remembers what it was asked.
struct Fake {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answers: impl FnOnce(&str) -> Answers) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let answers = answers(&host);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&mut stream.expect("a client"), &answers, &heard);
            }
        });
        Fake { host, asked }
    }
}

/// One request. A client that leaves early is what some tests want.
fn answer(stream: &mut TcpStream, answers: &Answers, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let (mut first, mut line, mut authorization) = (String::new(), String::new(), String::new());
    if reader.read_line(&mut first).is_err() {
        return;
    }
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        if line.to_lowercase().starts_with("authorization:") {
            authorization = line[14..].trim().to_owned();
        }
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().expect("unpoisoned").push(format!("{path} {authorization}").trim().to_owned());
    let wants_token = answers.contains_key("/token") && path.starts_with("/v2/") && authorization != "Bearer t";
    let key = path.split('?').next().unwrap_or_default();
    let unauthorized =
        (401, vec![("WWW-Authenticate".to_owned(), "Bearer realm=\"REALM\",service=\"s\"".to_owned())], Vec::new());
    let absent = (404, Vec::new(), b"absent".to_vec());
    let (status, headers, body) = if wants_token { &unauthorized } else { answers.get(key).unwrap_or(&absent) };
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let own = format!("http://{}/token", stream.local_addr().expect("an address"));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {}\r\n", value.replace("REALM", &own)));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = reader.read(&mut [0; 1]);
}

fn plain(body: impl Into<Vec<u8>>) -> (u16, Vec<(String, String)>, Vec<u8>) {
    (200, Vec::new(), body.into())
}

/// The answers of an honest registry for one image `app:v1`.
fn honest() -> (Answers, Value) {
    let (files, manifest) = layout(&[Layer::new().file("a", "a").finish()], Packing::Gzip);
    let mut answers = Answers::new();
    for (path, bytes) in files.0 {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            answers.insert(format!("/v2/app/blobs/sha256:{hex}"), plain(bytes));
        }
    }
    answers.insert("/v2/app/manifests/v1".to_owned(), plain(manifest.to_string()));
    (answers, manifest)
}

async fn pull(fake: &Fake) -> Result<(), ImageError> {
    let stage = Stage::new();
    let result = stage.images.pull(&format!("{}/app:v1", fake.host), PullOptions::default()).await;
    if result.is_err() {
        assert_eq!(stage.content(), [""; 0], "a pull that fails leaves nothing");
    }
    result.map(|_| ())
}

async fn check_refused(what: &str, change: impl FnOnce(&mut Answers, &mut Value), why: &str) {
    let (mut answers, mut manifest) = honest();
    change(&mut answers, &mut manifest);
    let fake = Fake::start(|_| answers);
    let error = pull(&fake).await.expect_err(what);
    assert!(told(&error).contains(why), "{what}: expected {why:?}, found {:?}", told(&error));
}

fn layer_path(manifest: &Value) -> String {
    format!("/v2/app/blobs/{}", manifest["layers"][0]["digest"].as_str().expect("a digest"))
}

const MANIFEST: &str = "/v2/app/manifests/v1";

#[tokio::test]
async fn a61_a_registry_that_lies_is_not_believed() {
    pull(&Fake::start(|_| honest().0)).await.unwrap_or_else(|error| panic!("the honest one: {}", told(&error)));
    let set = |answers: &mut Answers, path: &str, bytes: Vec<u8>| drop(answers.insert(path.to_owned(), plain(bytes)));
    check_refused("100 MB manifest", |answers, _| set(answers, MANIFEST, vec![b' '; 100 << 20]), "larger than").await;
    check_refused("missing layer", |answers, manifest| drop(answers.remove(&layer_path(manifest))), "404").await;
    let changed = |answers: &mut Answers, manifest: &mut Value| {
        let other = crate::stage::pack(&Layer::new().file("a", "b").finish(), Packing::Gzip);
        set(answers, &layer_path(manifest), other);
    };
    check_refused("changed layer", changed, "digest does not match").await;
    let endless = |answers: &mut Answers, manifest: &mut Value| set(answers, &layer_path(manifest), vec![0; 1 << 20]);
    check_refused("a layer that goes on", endless, "is larger than").await;
    let short = |answers: &mut Answers, manifest: &mut Value| {
        let path = layer_path(manifest);
        let (_, headers, body) = answers.get_mut(&path).expect("a layer");
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
        body.truncate(10);
    };
    check_refused("a layer that breaks off", short, "read what it sends").await;
    let index = |answers: &mut Answers, _: &mut Value| {
        let own = json!({ "digest": digest(b"x"), "size": 1, "mediaType": "application/vnd.oci.image.index.v1+json" });
        set(answers, MANIFEST, json!({ "schemaVersion": 2, "manifests": [own] }).to_string().into_bytes());
    };
    check_refused("an index in an index", index, "found another index").await;
    let called = |answers: &mut Answers, _: &mut Value| {
        let kind = "application/vnd.oci.image.index.v1+json".to_owned();
        answers.get_mut(MANIFEST).expect("a manifest").1.push(("Content-Type".to_owned(), kind));
    };
    check_refused("a manifest that is called an index", called, "found a mixture").await;
    check_refused("no manifest", |answers, _| set(answers, MANIFEST, b"<html>".to_vec()), "the manifest is refused")
        .await;
}

#[tokio::test]
async fn a67_redirects_are_followed_without_the_token_and_only_by_safe_schemes() {
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://registry.example/x", "gopher:x"] {
        let away = |answers: &mut Answers, manifest: &mut Value| {
            let headers = vec![("Location".to_owned(), target.to_owned())];
            answers.insert(layer_path(manifest), (307, headers, Vec::new()));
        };
        check_refused(target, away, "which is not https").await;
    }
    let circle = |answers: &mut Answers, manifest: &mut Value| {
        let path = layer_path(manifest);
        answers.insert(path.clone(), (302, vec![("Location".to_owned(), path)], Vec::new()));
    };
    check_refused("a circle", circle, "302").await;

    let (mut answers, manifest) = honest();
    let path = layer_path(&manifest);
    let content = answers[&path].clone();
    let storage = Fake::start(|_| Answers::from([("/storage".to_owned(), content)]));
    let location = ("Location".to_owned(), format!("http://{}/storage", storage.host));
    answers.insert(path, (307, vec![location], Vec::new()));
    answers.insert("/token".to_owned(), plain(r#"{"token":"t"}"#));
    let fake = Fake::start(|_| answers);
    pull(&fake).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    let asked = fake.asked.lock().expect("unpoisoned").clone();
    assert!(asked.contains(&"/token?service=s&scope=repository%3Aapp%3Apull".to_owned()), "{asked:?}");
    assert!(asked.contains(&format!("{MANIFEST} Bearer t")), "{asked:?}");
    assert_eq!(*storage.asked.lock().expect("unpoisoned"), ["/storage"], "the token stays with the registry");
}

#[tokio::test]
async fn a67_a_registry_that_is_busy_is_asked_again_and_then_left() {
    let busy = Fake::start(|_| Answers::from([(MANIFEST.to_owned(), (503, Vec::new(), b"later".to_vec()))]));
    let error = pull(&busy).await.expect_err("never ready");
    assert!(error.is_passing() && told(&error).contains("503"), "{}", told(&error));
    assert_eq!(busy.asked.lock().expect("unpoisoned").len(), 3);
}

#[tokio::test]
async fn a67_a_registry_that_drips_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // Says that much will come, and then nothing does.
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
            open.push(stream);
            began.send(()).expect("the test waits");
        }
    });
    let pulling = tokio::spawn(async move { pull(&Fake { host, asked: Arc::default() }).await });
    begun.recv().await.expect("it is asked");
    // From here on only the clock can bring anything new.
    tokio::time::pause();
    let error = pulling.await.expect("no panic").expect_err("nothing comes");
    assert!(error.is_passing() && told(&error).contains("bytes came in"), "{}", told(&error));
}

#[tokio::test]
async fn many_who_want_one_image_at_once_cause_one_pull() {
    let fake = Fake::start(|_| honest().0);
    let stage = Stage::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (images, name) = (stage.images.clone(), format!("{}/app:v1", fake.host));
        tasks.spawn(async move { images.pull(&name, PullOptions::default()).await });
    }
    let ids: Vec<String> = tasks.join_all().await.into_iter().map(|pulled| pulled.expect("pulled").id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    let layers = fake.asked.lock().expect("unpoisoned").iter().filter(|path| path.contains("/blobs/")).count();
    assert_eq!(layers, 20 + 1, "each looks at the config, the layer comes once");
}
