//! Layers from other machines of ours: the archive is made again from its files, and believed only by its digest.

use std::io::Read;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use windlass_runtime::image::{Images, Peer, PullOptions};

use crate::access::certify;
use crate::fake::{Fake, honest, layer_path};
use crate::stage::{Layer, Packing, Stage, digest, layout, told};

fn made_again(images: &Images, diff_id: &str) -> Option<Vec<u8>> {
    let mut archive = images.layer_archive(diff_id).expect("a store")?.expect("nobody else asks");
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).expect("readable");
    Some(bytes)
}

#[tokio::test]
async fn an_archive_is_made_again_byte_for_byte() {
    let long = "d/".repeat(60) + "file";
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    let rich = Layer::new()
        .directory("usr")
        .file("usr/a", &"content ".repeat(20_000))
        .file("usr/empty", "")
        .file("usr/odd", "x")
        .symlink("bin", "usr")
        .file("bin/through-a-link", "below usr")
        .link("hard", "usr/a")
        .file(&long, "a long name")
        .pax(&[("path", b"pax/name"), ("SCHILY.xattr.security.capability", &capability)])
        .file("short", "named by a record")
        .file("usr/.wh.gone", "")
        .file(".wh..wh..opq", "")
        .finish();
    let mut padded = Layer::new().file("a", "a").finish();
    // What some tools write after the end.
    padded.resize(padded.len() + 9 * 1024, 0);
    for (packing, layers) in [(Packing::Gzip, vec![rich, padded.clone()]), (Packing::Plain, vec![padded])] {
        let stage = Stage::new();
        stage.import(&layout(&layers, packing).0).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        for layer in &layers {
            let again = made_again(&stage.images, &digest(layer)).expect("it can be made again");
            assert!(again == *layer, "{packing:?}: {} bytes, expected {}", again.len(), layer.len());
        }
        stage.images.remove("test", &Default::default()).await.expect("removed");
        let left = std::fs::read_dir(stage.directory.join("store/recipes")).expect("a directory").count();
        assert_eq!(left, 0, "recipes go with their layers");
    }
}

#[tokio::test]
async fn a_layer_that_took_something_away_again_is_not_given() {
    let layer = Layer::new().file("a", "first").file("a", "second").finish();
    let stage = Stage::new();
    stage.import(&layout(std::slice::from_ref(&layer), Packing::Gzip).0).await.expect("imported");
    assert!(made_again(&stage.images, &digest(&layer)).is_none());
    assert!(made_again(&stage.images, &digest(b"absent")).is_none());
}

/// A machine that has these images, or says something else instead; what it was asked.
async fn serve(stage: &Stage, images: Images, instead: Option<&'static [u8]>) -> (Peer, Arc<Mutex<Vec<String>>>) {
    certify(stage, "peer", "IP:127.0.0.1");
    let read = |name: &str| std::fs::read(stage.directory.join(name)).expect("openssl wrote it");
    let identity = || {
        let chain = vec![CertificateDer::from_pem_slice(&read("peer.pem")).expect("a certificate")];
        (chain, PrivateKeyDer::from_pem_slice(&read("peer.key")).expect("a key"))
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("ca.pem")).expect("an authority")).expect("a good one");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone()).build();
    let (chain, key) = identity();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.expect("an authority"))
        .with_single_cert(chain, key)
        .expect("an identity");
    let (chain, key) = identity();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("an identity");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(server));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            let found = path.strip_prefix("/v2/layers/blobs/").and_then(|digest| made_again(&images, digest));
            heard.lock().expect("unpoisoned").push(path);
            let body = instead.map(<[u8]>::to_vec).or(found);
            let head = match &body {
                Some(body) => format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()),
                None => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let answer = [head.as_bytes(), &body.unwrap_or_default()].concat();
            // Who asked may have gone.
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (Peer { host, tls: Arc::new(client) }, asked)
}

#[tokio::test]
async fn layers_come_from_a_peer_that_has_them_and_lies_do_not_count() {
    let registry = Fake::start(|_| honest().0);
    let layer = layer_path(&honest().1);
    let name = format!("{}/app:v1", registry.host);
    let first = Stage::new();
    first.images.pull(&name, PullOptions::default()).await.expect("pulled");
    let count = || registry.heard().iter().filter(|path| **path == layer).count();
    assert_eq!(count(), 1);
    let empty = Stage::new();
    let rows: [(&str, &Images, Option<&'static [u8]>, usize); 4] = [
        ("it has the layer", &first.images, None, 0),
        ("it has nothing", &empty.images, None, 1),
        ("it lies", &first.images, Some(b"something else"), 1),
        ("it says nothing", &first.images, Some(b""), 1),
    ];
    for (what, images, instead, from_registry) in rows {
        let stage = Stage::new();
        let (peer, asked) = serve(&stage, images.clone(), instead).await;
        let before = count();
        let options = PullOptions { peers: Arc::new([peer]), ..PullOptions::default() };
        let pulled = stage.images.pull(&name, options).await;
        pulled.unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        assert_eq!(count() - before, from_registry, "{what}");
        assert!(!asked.lock().expect("unpoisoned").is_empty(), "{what}");
        let image = stage.images.find(&name).expect("a store").expect("an image");
        assert_eq!(std::fs::read_to_string(image.layers[0].join("a")).expect("a file"), "a", "{what}");
        assert!(stage.content().iter().all(|path| !path.starts_with("tmp/")), "{what}: nothing is left over");
    }
}
