//! Pulling: from a real registry, and from ones that mean harm.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use windlass_runtime::image::{Credentials, ImageError, Progress, PullOptions};

use crate::fake::{Answers, Fake, MANIFEST, check_refused, honest, layer_path, plain, pull};
use crate::registry::{Registry, strict_layout};
use crate::stage::{Layer, Packing, Stage, digest, told};

#[tokio::test]
async fn an_image_is_pulled_from_a_registry_and_what_is_here_is_not_fetched_again() {
    let stage = Stage::new();
    let registry = Registry::start(&stage);
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
    let registry = Registry::with_users(&stage, &[("user", "secret")], "");
    let files = strict_layout(&[Layer::new().file("a", "a").finish()], Packing::Gzip);
    registry.push(&stage, &files, "app:v1", &["--dest-creds", "user:secret"]);
    let name = format!("{}/app:v1", registry.host);
    let with = |password: &str| PullOptions {
        credentials: vec![Credentials { username: "user".to_owned(), password: password.to_owned(), owner: None }],
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
    check_refused("an index that lists what is not there", index, "404").await;
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
