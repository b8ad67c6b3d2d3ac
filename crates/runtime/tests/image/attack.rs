//! Registries that mean harm, and images that would like to decide something: rows A61, A64 and A67.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use windlass_runtime::image::PullOptions;

use crate::access::registries;
use crate::fake::{Answers, Asked, Fake, MANIFEST, honest, layer_path, plain, pull};
use crate::stage::{Files, Layer, Packing, Stage, digest, layout, pack, told, with_index};

/// Runs a test on a machine of its own as far as the network goes, which others reach at 192.0.2.1.
fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: this thread gets a network of its own; it shares no file descriptors that this would change.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("tests run as root");
        for line in ["link set lo up", "address add 192.0.2.1/32 dev lo"] {
            let status = Command::new("ip").args(line.split(' ')).status().expect("iproute2 is installed");
            assert!(status.success(), "{line}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a67_a_registry_elsewhere_cannot_send_us_to_this_machine_nor_have_a_token_fetched_here() {
    elsewhere(|| async {
        let here = Fake::start(|_| Answers::from([("/".to_owned(), plain("{\"token\":\"t\"}"))]));
        let port = here.host.rsplit_once(':').expect("a port").1.to_owned();
        let no_way = "no address outside this machine";
        let rows = [
            (format!("http://127.0.0.1:{port}/"), "https"),
            (format!("https://127.0.0.1:{port}/"), no_way),
            (format!("https://localhost:{port}/"), no_way),
            (format!("https://0.0.0.0:{port}/"), no_way),
            (format!("https://[::1]:{port}/"), no_way),
            (format!("https://[::ffff:127.0.0.1]:{port}/"), no_way),
            ("https://169.254.169.254/latest".to_owned(), no_way),
            ("file:///etc/passwd".to_owned(), "file:///etc/passwd"),
        ];
        for (target, why) in rows {
            for by_token in [false, true] {
                let (mut answers, manifest) = honest();
                let listener = TcpListener::bind("192.0.2.1:0").expect("an address of this test");
                let location = target.clone();
                let fake = if by_token {
                    let challenge = format!("Bearer realm=\"{location}\",service=\"s\"");
                    Fake::on(listener, move |_| {
                        (401, vec![("WWW-Authenticate".to_owned(), challenge.clone())], Vec::new())
                    })
                } else {
                    answers.insert(layer_path(&manifest), (307, vec![("Location".to_owned(), location)], Vec::new()));
                    Fake::on(listener, move |asked| answers.get(&asked.path).cloned().unwrap_or((404, vec![], vec![])))
                };
                let registries = registries(json!({"registries": [{"prefix": fake.host, "plainHttp": true}]}));
                let stage = Stage::new();
                let options = PullOptions { registries, ..PullOptions::default() };
                let error = stage.images.pull(&format!("{}/app:v1", fake.host), options).await.expect_err(&target);
                assert!(told(&error).contains(why), "{target} {by_token}: {}", told(&error));
                assert_eq!(stage.content(), [""; 0]);
            }
        }
        assert_eq!(here.heard(), [""; 0], "nobody came");
    });
}

#[tokio::test]
async fn a67_a_registry_that_says_when_is_not_asked_before_and_others_are() {
    let busy = |pause: &str| {
        let headers = vec![("Retry-After".to_owned(), pause.to_owned())];
        Fake::start(move |_| Answers::from([(MANIFEST.to_owned(), (429, headers, b"slowly".to_vec()))]))
    };
    let soon = busy("1");
    let began = Instant::now();
    pull(&soon).await.expect_err("never ready");
    assert_eq!(soon.heard().len(), 3);
    assert!(began.elapsed() >= Duration::from_secs(2), "a second before each further try: {:?}", began.elapsed());

    let later = busy("3600");
    let stage = Stage::new();
    for _ in 0..3 {
        let name = format!("{}/app:v1", later.host);
        let error = stage.images.pull(&name, PullOptions::default()).await.expect_err("not now");
        assert!(error.is_passing(), "{}", told(&error));
    }
    assert_eq!(later.heard().len(), 1, "it is left alone");
    let good = Fake::start(|_| honest().0);
    stage.images.pull(&format!("{}/app:v1", good.host), PullOptions::default()).await.expect("another goes on");
}

#[tokio::test]
async fn a67_a_registry_that_hangs_keeps_no_other_pull_waiting() {
    let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
    let location = format!("http://{}/", hole.local_addr().expect("an address"));
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in hole.incoming() {
            open.push(stream.expect("a client"));
            if came.send(()).is_err() {
                return;
            }
        }
    });
    let (mut answers, manifest) = honest();
    answers.insert(layer_path(&manifest), (307, vec![("Location".to_owned(), location)], Vec::new()));
    for number in 0..8 {
        answers.insert(format!("/v2/app/manifests/h{number}"), plain(manifest.to_string()));
    }
    let hanging = Fake::start(|_| answers);
    let stage = Stage::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (images, name) = (stage.images.clone(), format!("{}/app:h{number}", hanging.host));
        tasks.spawn(async move { images.pull(&name, PullOptions::default()).await });
    }
    for _ in 0..3 {
        coming.recv().await.expect("layers are asked for");
    }
    let good = Fake::start(|_| honest().0);
    let name = format!("{}/app:v1", good.host);
    let pulled = tokio::time::timeout(Duration::from_secs(20), stage.images.pull(&name, PullOptions::default())).await;
    pulled.expect("long before the others give up").expect("pulled");
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn a67_a_token_without_end_is_refused() {
    let fake = Fake::start(|_| {
        let mut answers = honest().0;
        answers.insert("/token".to_owned(), plain(vec![b' '; 4 << 20]));
        answers
    });
    let error = pull(&fake).await.expect_err("a token of 4 MiB");
    assert!(told(&error).contains("too long"), "{}", told(&error));
}

/// How a registry goes on with what broke off in the middle.
#[derive(Clone, Copy, PartialEq)]
enum Going {
    OnFromThere,
    FromTheBeginning,
    ElsewhereThanAsked,
    Nowhere,
}

#[tokio::test]
async fn a_layer_that_breaks_off_is_asked_for_from_where_it_did() {
    let content: String = (0..40_000).map(|number| format!("{} ", number * 7919 % 10_007)).collect();
    let layer = Layer::new().file("large", &content).finish();
    for going in [Going::OnFromThere, Going::FromTheBeginning, Going::ElsewhereThanAsked, Going::Nowhere] {
        let (files, manifest) = layout(std::slice::from_ref(&layer), Packing::Gzip);
        let mut answers = Answers::from([(MANIFEST.to_owned(), plain(manifest.to_string()))]);
        for (path, bytes) in files.0 {
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                answers.insert(format!("/v2/app/blobs/sha256:{hex}"), plain(bytes));
            }
        }
        let path = layer_path(&manifest);
        let asked_for = Arc::new(AtomicUsize::new(0));
        let count = asked_for.clone();
        let broken = move |asked: &Asked| {
            let Some(whole) = answers.get(&asked.path) else { return (404, Vec::new(), Vec::new()) };
            if asked.path != path {
                return whole.clone();
            }
            let body = &whole.2;
            let time = count.fetch_add(1, Ordering::Relaxed);
            let from = asked.headers.get("range").map_or(0, |range| {
                range
                    .strip_prefix("bytes=")
                    .and_then(|range| range.strip_suffix('-'))
                    .expect("a range")
                    .parse()
                    .expect("a number")
            });
            assert_eq!(
                from,
                [0, body.len() / 3, body.len() / 3 * 2].get(time).copied().unwrap_or(from),
                "the range of time {time}"
            );
            let part = |from: usize, said: usize, to: usize| {
                let length = ("Content-Length".to_owned(), (body.len() - from).to_string());
                let range = ("Content-Range".to_owned(), format!("bytes {said}-{}/{}", body.len() - 1, body.len()));
                (if from == 0 { 200 } else { 206 }, vec![length, range], body[from..to].to_vec())
            };
            match (time, going) {
                (0, _) => part(0, 0, body.len() / 3),
                (_, Going::Nowhere) => (200, vec![("Content-Length".to_owned(), body.len().to_string())], Vec::new()),
                (_, Going::ElsewhereThanAsked) => part(from, from + 1, body.len()),
                (_, Going::FromTheBeginning) => whole.clone(),
                (1, Going::OnFromThere) => part(from, from, body.len() / 3 * 2),
                (_, Going::OnFromThere) => part(from, from, body.len()),
            }
        };
        let fake = Fake::on(TcpListener::bind("127.0.0.1:0").expect("a port"), broken);
        let pulled = pull(&fake).await;
        let times = asked_for.load(Ordering::Relaxed);
        match going {
            Going::OnFromThere => assert_eq!((pulled.map_err(|error| told(&error)), times), (Ok(()), 3)),
            Going::FromTheBeginning => assert_eq!((pulled.map_err(|error| told(&error)), times), (Ok(()), 2)),
            Going::ElsewhereThanAsked => assert!(told(&pulled.expect_err("a lie")).contains("expected bytes from")),
            Going::Nowhere => {
                assert!(pulled.expect_err("nothing comes").is_passing());
                assert!(times <= 4, "it is not asked for ever: {times}");
            }
        }
    }
}

/// A chain of indexes, each of which lists the next; what the tag is and the answers.
fn nested(depth: usize) -> (String, Answers) {
    let (mut answers, manifest) = honest();
    let mut text = manifest.to_string();
    let mut kind = "application/vnd.oci.image.manifest.v1+json";
    for _ in 0..depth {
        let own = digest(text.as_bytes());
        let mut row = json!({ "digest": own, "size": text.len(), "mediaType": kind });
        if kind.contains("manifest") {
            let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            row["platform"] = json!({"os": "linux", "architecture": architecture});
        }
        answers.insert(format!("/v2/app/manifests/{own}"), plain(text.clone()));
        let stranger =
            json!({ "digest": digest(b"x"), "size": 1, "platform": {"os": "linux", "architecture": "s390x"} });
        text = json!({ "schemaVersion": 2, "manifests": [stranger, row] }).to_string();
        kind = "application/vnd.oci.image.index.v1+json";
    }
    answers.insert(MANIFEST.to_owned(), plain(text.clone()));
    (digest(text.as_bytes()), answers)
}

#[tokio::test]
async fn a61_indexes_lead_to_the_image_of_this_machine_and_not_on_and_on() {
    for depth in [0, 1, 2, 3] {
        let (top, answers) = nested(depth);
        let fake = Fake::start(|_| answers);
        let stage = Stage::new();
        let record = stage.images.pull(&format!("{}/app:v1", fake.host), PullOptions::default()).await;
        let record = record.unwrap_or_else(|error| panic!("{depth}: {}", told(&error)));
        assert_eq!(record.digest, Some(top.clone()), "what the name points at");
        let name = format!("{}/app@{top}", fake.host);
        let by_digest = stage.images.find(&name).expect("a store");
        assert!(by_digest.is_none(), "it was not pulled under that name");
    }
    for depth in [4, 1000] {
        let fake = Fake::start(|_| nested(depth).1);
        let error = pull(&fake).await.expect_err("too deep");
        assert!(told(&error).contains("found another index"), "{}", told(&error));
        assert!(fake.heard().len() <= 5, "{depth}");
    }
    // An index that says it is itself: its digest cannot be.
    let fake = Fake::start(|_| {
        let own =
            json!({ "digest": digest(b"own"), "size": 1, "mediaType": "application/vnd.oci.image.index.v1+json" });
        let text = json!({ "schemaVersion": 2, "manifests": [own] }).to_string();
        Answers::from([
            (MANIFEST.to_owned(), plain(text.clone())),
            (format!("/v2/app/manifests/{}", digest(b"own")), plain(text)),
        ])
    });
    let error = pull(&fake).await.expect_err("a circle");
    assert!(told(&error).contains("does not match"), "{}", told(&error));
}

#[tokio::test]
async fn a61_a_hundred_thousand_layers_are_refused_before_any_is_fetched() {
    let (mut answers, mut manifest) = honest();
    // As many as a document of 4 MiB holds; a longer one is refused for its length.
    manifest["layers"] = Value::Array(vec![manifest["layers"][0].clone(); 20_000]);
    answers.insert(MANIFEST.to_owned(), plain(manifest.to_string()));
    let fake = Fake::start(|_| answers);
    let error = pull(&fake).await.expect_err("too many");
    assert!(told(&error).contains("1 to 127 layers"), "{}", told(&error));
    assert_eq!(fake.heard().len(), 1);
    manifest["layers"] = Value::Array(vec![manifest["layers"][0].clone(); 100_000]);
    let fake = Fake::start(|_| Answers::from([(MANIFEST.to_owned(), plain(manifest.to_string()))]));
    assert!(told(&pull(&fake).await.expect_err("too long")).contains("larger than"));
}

/// An image whose config says this.
fn configured(running: &Value) -> Files {
    let layer = Layer::new().file("a", "a").finish();
    let mut files = Files::default();
    let mut config = crate::stage::config(std::slice::from_ref(&layer));
    config["config"] = running.clone();
    let config = files.blob(config.to_string().as_bytes());
    let layer = files.blob(&pack(&layer, Packing::Gzip));
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    with_index(files, &manifest)
}

#[tokio::test]
async fn a64_what_an_image_says_reaches_no_decision_of_the_machine() {
    let refused = [
        (json!({"Env": [format!("A={}", "x".repeat(10 << 20))]}), "larger than"),
        (json!({"Env": [format!("A={}", "x".repeat(2 << 20))]}), "Env"),
        (json!({"Entrypoint": ["/a\0b"]}), "NUL"),
        (json!({"Cmd": ["\0"]}), "NUL"),
        (json!({"WorkingDir": "/\0"}), "NUL"),
        (json!({"User": "0\0:0"}), "NUL"),
        (json!({"Volumes": {"/a\0b": {}}}), "NUL"),
        (json!({"Labels": {"a": "b\0"}}), "NUL"),
    ];
    for (running, why) in refused {
        let stage = Stage::new();
        let error = stage.import(&configured(&running)).await.map(|_| ()).expect_err(why);
        assert!(told(&error).contains(why), "{why}: {}", told(&error));
        assert_eq!(stage.content(), [""; 0]);
    }
    let stage = Stage::new();
    let canary = stage.directory.join("canary");
    std::fs::write(&canary, "untouched").expect("written");
    let running = json!({
        "Volumes": {"/../../etc": {}, "/../../../../tmp": {}, "relative": {}},
        "Labels": {"windlass.dev/trusted": "yes", "windlass.pod": "x", "io.windlass.owner": "root",
            "io.containerd.runc.v2.binary": "binary:///bin/sh", "harmless": "binary:///bin/sh"},
    });
    let image = stage.import(&configured(&running)).await.expect("harmless");
    let labels: Vec<&str> = image.config.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["harmless", "io.containerd.runc.v2.binary"], "nobody speaks in our name");
    assert_eq!(image.layers.len(), 1);
    assert!(image.layers[0].starts_with(stage.directory.join("store/l")), "{:?}", image.layers);
    assert_eq!(std::fs::read_to_string(&canary).expect("the canary"), "untouched");
}

/// A connection that says much will come and then lets a byte through now and then, as some attackers do.
#[tokio::test]
async fn a67_a_byte_now_and_then_is_not_enough() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let (began, mut begun) = tokio::sync::mpsc::unbounded_channel();
    // As a blocking task: while one runs, tokio does not move a paused clock by itself.
    let server = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        drop(listener);
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // It ends, so that who is content with drops gets another error and does not wait for ever.
        for _ in 0..500 {
            if stream.write_all(b" ").is_err() || began.send(()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let stage = Stage::new();
    let (images, name) = (stage.images.clone(), format!("{host}/app:v1"));
    let pulling = tokio::spawn(async move { images.pull(&name, PullOptions::default()).await });
    // Some drops later the answer has begun for who reads it, too.
    let drops = async |begun: &mut tokio::sync::mpsc::UnboundedReceiver<()>| {
        while begun.try_recv().is_ok() {}
        for _ in 0..10 {
            begun.recv().await.expect("it drips");
        }
    };
    drops(&mut begun).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(29)).await;
    drops(&mut begun).await;
    assert!(!pulling.is_finished(), "it has time yet");
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = pulling.await.expect("no panic").expect_err("too slow");
    assert!(error.is_passing() && told(&error).contains("bytes came in"), "{}", told(&error));
    drop(begun);
    server.await.expect("the server ends");
}
