//! Signatures: only what one of the trusted keys signed, for this repository and this digest, is pulled (A68).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use windlass_runtime::image::{ImageError, PullOptions, Registries};

use crate::access::registries;
use crate::fake::{Answers, Fake, MANIFEST, honest, plain};
use crate::stage::{Layer, Packing, Stage, digest, layout, told};

/// Somebody who signs.
enum Signer {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn p256() -> Signer {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random);
        Signer::P256(pair.expect("its own key"))
    }

    fn ed25519() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Signer::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("its own key"))
    }

    /// As `openssl pkey -pubout` writes it.
    fn pem(&self) -> String {
        let der = match self {
            Signer::P256(pair) => {
                let head = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
                // The head in base64 ends with the first byte of the point, which says that it is not compressed.
                [STANDARD.decode(head).expect("base64"), pair.public_key().as_ref()[1..].to_vec()].concat()
            }
            Signer::Ed25519(pair) => [
                &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..],
                pair.public_key().as_ref(),
            ]
            .concat(),
        };
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(match self {
            Signer::P256(pair) => pair.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec(),
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

fn payload(reference: &str, digest: &str) -> String {
    json!({"critical": {"identity": {"docker-reference": reference}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"}, "optional": null})
    .to_string()
}

/// Puts a signature beside what has this digest, as cosign does.
fn attach(answers: &mut Answers, signed: &str, payload: &str, signature: &str) {
    let mut blob = |bytes: &[u8]| {
        let digest = digest(bytes);
        answers.insert(format!("/v2/app/blobs/{digest}"), plain(bytes));
        json!({"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": digest, "size": bytes.len()})
    };
    let (config, mut layer) = (blob(b"{}"), blob(payload.as_bytes()));
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    answers.insert(format!("/v2/app/manifests/{}.sig", signed.replace(':', "-")), plain(manifest.to_string()));
}

/// What a machine's owner says who wants one of these keys for every image.
fn wants(stage: &Stage, keys: &[&Signer]) -> Arc<Registries> {
    let files: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| {
            let path = stage.directory.join(format!("key-{number}.pub"));
            std::fs::write(&path, key.pem()).expect("written");
            path.display().to_string()
        })
        .collect();
    registries(json!({"registries": [{"prefix": "*", "signedBy": files}]}))
}

/// What pulling `app:v1` gives where these keys are wanted for it.
async fn pull(stage: &Stage, fake: &Fake, keys: &[&Signer]) -> Result<String, ImageError> {
    let registries = wants(stage, keys);
    let options = PullOptions { registries, ..PullOptions::default() };
    let pulled = stage.images.pull(&format!("{}/app:v1", fake.host), options).await;
    if pulled.is_err() {
        assert_eq!(stage.content(), [""; 0], "nothing of it is here");
    }
    pulled.map(|record| record.digest.expect("a digest"))
}

#[tokio::test]
async fn a68_an_image_is_pulled_if_a_trusted_key_signed_it() {
    for (signer, other) in [(Signer::p256(), Signer::ed25519()), (Signer::ed25519(), Signer::p256())] {
        let (mut answers, manifest) = honest();
        let signed = digest(manifest.to_string().as_bytes());
        let stage = Stage::new();
        let fake = Fake::start(|host| {
            let payload = payload(&format!("{host}/app"), &signed);
            attach(&mut answers, &signed, &payload, &signer.sign(payload.as_bytes()));
            answers
        });
        let error = pull(&stage, &fake, &[&other]).await.expect_err("a key that is not on the list");
        assert!(told(&error).contains("none of the keys"), "{}", told(&error));
        let pulled = pull(&stage, &fake, &[&other, &signer]).await.unwrap_or_else(|error| panic!("{}", told(&error)));
        assert_eq!(pulled, signed);
    }
}

#[tokio::test]
async fn a68_an_image_that_is_here_is_trusted_only_if_its_signature_was_seen() {
    let (signer, other) = (Signer::p256(), Signer::ed25519());
    let (mut answers, manifest) = honest();
    let signed = digest(manifest.to_string().as_bytes());
    let stage = Stage::new();
    let fake = Fake::start(|host| {
        let payload = payload(&format!("{host}/app"), &signed);
        attach(&mut answers, &signed, &payload, &signer.sign(payload.as_bytes()));
        answers
    });
    let name = format!("{}/app:v1", fake.host);
    let trusted = |keys: &[&Signer]| {
        let image = name.parse().expect("a name");
        let none = Arc::default();
        let registries = if keys.is_empty() { none } else { wants(&stage, keys) };
        stage.images.is_trusted(&image, &registries).expect("a store")
    };
    stage.images.pull(&name, PullOptions::default()).await.expect("nobody asks for a signature yet");
    assert!(trusted(&[]) && !trusted(&[&signer]), "it came before its signature was wanted");
    pull(&stage, &fake, &[&other, &signer]).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert!(trusted(&[&signer]) && trusted(&[&other, &signer]) && !trusted(&[&other]));
}

#[tokio::test]
async fn a68_signatures_of_other_things_do_not_count() {
    let signer = Signer::p256();
    let honest_digest = digest(honest().1.to_string().as_bytes());
    let elsewhere = digest(b"elsewhere");
    // What the payload says and what signs it, and why it is not good enough.
    type Change = fn(&str) -> String;
    let rows: [(&str, Change, &str); 3] = [
        ("another repository", |host| format!("{host}/other"), "it is for"),
        ("another registry", |_| "docker.io/library/app".to_owned(), "it is for docker.io"),
        ("another digest", |host| format!("{host}/app"), "it is for sha256"),
    ];
    for (what, reference, why) in rows {
        let (mut answers, _) = honest();
        let digest = if what == "another digest" { &elsewhere } else { &honest_digest };
        let fake = Fake::start(|host| {
            let payload = payload(&reference(host), digest);
            attach(&mut answers, &honest_digest, &payload, &signer.sign(payload.as_bytes()));
            answers
        });
        let error = pull(&Stage::new(), &fake, &[&signer]).await.expect_err(what);
        assert!(matches!(error, ImageError::Unsigned { .. }) && told(&error).contains(why), "{what}: {}", told(&error));
    }
    // No signature at all; one over another payload; a payload that was changed after it was signed.
    let unsigned = Fake::start(|_| honest().0);
    let error = pull(&Stage::new(), &unsigned, &[&signer]).await.expect_err("unsigned");
    assert!(told(&error).contains("no signature is found"), "{}", told(&error));
    let (mut answers, _) = honest();
    let fake = Fake::start(|host| {
        let payload = payload(&format!("{host}/app"), &honest_digest);
        attach(&mut answers, &honest_digest, &payload, &signer.sign(b"something else"));
        answers
    });
    let error = pull(&Stage::new(), &fake, &[&signer]).await.expect_err("over something else");
    assert!(told(&error).contains("none of the keys"), "{}", told(&error));
}

#[tokio::test]
async fn a68_an_unsigned_index_does_not_lean_on_a_signed_manifest_in_it() {
    let signer = Signer::p256();
    let (mut answers, manifest) = honest();
    let good = digest(manifest.to_string().as_bytes());
    let (files, evil) = layout(&[Layer::new().file("evil", "evil").finish()], Packing::Gzip);
    for (path, bytes) in files.0 {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            answers.insert(format!("/v2/app/blobs/sha256:{hex}"), plain(bytes));
        }
    }
    let row = |manifest: &Value| {
        let text = manifest.to_string();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        (
            digest(text.as_bytes()),
            json!({"digest": digest(text.as_bytes()), "size": text.len(),
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "platform": {"os": "linux", "architecture": architecture}}),
        )
    };
    let (evil_digest, evil_row) = row(&evil);
    let index = json!({"schemaVersion": 2, "manifests": [evil_row, row(&manifest).1]});
    answers.insert(format!("/v2/app/manifests/{evil_digest}"), plain(evil.to_string()));
    answers.insert(format!("/v2/app/manifests/{good}"), plain(manifest.to_string()));
    answers.insert(MANIFEST.to_owned(), plain(index.to_string()));
    let index_digest = digest(index.to_string().as_bytes());
    let with = |signed: &str| {
        let mut answers = answers.clone();
        let signer = &signer;
        let signed = signed.to_owned();
        Fake::start(move |host| {
            let payload = payload(&format!("{host}/app"), &signed);
            attach(&mut answers, &signed, &payload, &signer.sign(payload.as_bytes()));
            answers
        })
    };
    let error = pull(&Stage::new(), &with(&good), &[&signer]).await.expect_err("only a part is signed");
    assert!(matches!(error, ImageError::Unsigned { .. }), "{}", told(&error));
    let pulled = pull(&Stage::new(), &with(&index_digest), &[&signer]).await;
    assert_eq!(pulled.unwrap_or_else(|error| panic!("{}", told(&error))), index_digest);
}

/// The registry points the tag elsewhere as soon as it was asked for: what was verified is what is here.
#[tokio::test]
async fn a68_a_tag_that_moves_after_it_was_verified_moves_nothing() {
    let signer = Signer::p256();
    let (mut answers, manifest) = honest();
    let signed = digest(manifest.to_string().as_bytes());
    let (files, evil) = layout(&[Layer::new().file("evil", "evil").finish()], Packing::Gzip);
    for (path, bytes) in files.0 {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            answers.insert(format!("/v2/app/blobs/sha256:{hex}"), plain(bytes));
        }
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address");
    let payload = payload(&format!("{host}/app"), &signed);
    attach(&mut answers, &signed, &payload, &signer.sign(payload.as_bytes()));
    let moved = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fake = Fake::on(listener, move |asked| {
        if asked.path == MANIFEST && moved.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return plain(evil.to_string());
        }
        answers.get(&asked.path).cloned().unwrap_or_else(|| (404, Vec::new(), Vec::new()))
    });
    let stage = Stage::new();
    let pulled = pull(&stage, &fake, &[&signer]).await.unwrap_or_else(|error| panic!("{}", told(&error)));
    assert_eq!(pulled, signed);
    let image = stage.images.find(&format!("{}/app:v1", fake.host)).expect("a store").expect("an image");
    assert!(image.layers[0].join("a").exists() && !image.layers[0].join("evil").exists());
}
