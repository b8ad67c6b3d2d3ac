//! Who may pull what, and from where: passwords, tokens, TLS with authorities of one's own, mirrors. All against the
//! registry of the distribution.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use windlass_runtime::image::{Access, Credentials, ImageError, PullOptions, Reference, Registries};
use windlass_stdx::World;

use crate::fake::{Asked, Fake};
use crate::registry::{Registry, strict_layout};
use crate::stage::{Files, Layer, Packing, Stage, told};

/// Runs openssl in the stage's directory.
pub fn openssl(stage: &Stage, line: &str) {
    let output = Command::new("openssl").current_dir(&stage.directory).args(line.split_whitespace()).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority `ca.pem`, and from it a certificate NAME.pem with its key NAME.key for this subject.
pub fn certify(stage: &Stage, name: &str, subject: &str) {
    let fresh = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    if !stage.directory.join("ca.pem").exists() {
        openssl(stage, &format!("req -x509 {fresh} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
    }
    openssl(stage, &format!("req {fresh} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
    std::fs::write(stage.directory.join("extensions"), format!("subjectAltName={subject}\n")).expect("written");
    let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions";
    openssl(stage, &format!("x509 -req -in {name}.csr {by} -days 2 -out {name}.pem"));
}

fn tls(stage: &Stage, name: &str) -> String {
    let path = |ending: &str| stage.directory.join(format!("{name}.{ending}")).display().to_string();
    format!(", tls: {{certificate: {}, key: {}}}", path("pem"), path("key"))
}

pub fn registries(value: Value) -> Arc<Registries> {
    Arc::new(Registries::read(value).expect("a good description"))
}

fn user(name: &str, password: &str) -> Credentials {
    let owner = Some(format!("secret of {name}"));
    Credentials { username: name.to_owned(), password: password.to_owned(), owner }
}

fn image(word: &str) -> Files {
    strict_layout(&[Layer::new().file(word, word).finish()], Packing::Gzip)
}

#[tokio::test]
async fn tls_is_spoken_with_the_authority_that_is_given_for_the_registry_and_with_no_other() {
    let stage = Stage::new();
    certify(&stage, "right", "IP:127.0.0.1");
    certify(&stage, "wrong", "DNS:other.example");
    let ca = stage.directory.join("ca.pem");
    let (right, wrong) =
        (Registry::with(&stage, &tls(&stage, "right"), ""), Registry::with(&stage, &tls(&stage, "wrong"), ""));
    for registry in [&right, &wrong] {
        registry.push(&stage, &image("tls"), "app:v1", &[]);
    }
    let trusting = |registry: &Registry| registries(json!({"registries": [{"prefix": registry.host, "ca": ca}]}));
    let options = |registries: Arc<Registries>| PullOptions { registries, ..PullOptions::default() };
    stage.images.pull(&format!("{}/app:v1", right.host), options(trusting(&right))).await.expect("pulled over TLS");
    let secure = registries(json!({"registries": [{"prefix": right.host, "plainHttp": false}]}));
    let error =
        stage.images.pull(&format!("{}/app:v1", right.host), options(secure)).await.expect_err("unknown authority");
    assert!(told(&error).contains("UnknownIssuer"), "{}", told(&error));
    // A67: a certificate for another host.
    let error =
        stage.images.pull(&format!("{}/app:v1", wrong.host), options(trusting(&wrong))).await.expect_err("wrong host");
    assert!(told(&error).contains("not valid for"), "{}", told(&error));
    // A67: nobody falls back to plain HTTP, even where that would be allowed without an authority.
    let plain = Registry::start(&stage);
    plain.push(&stage, &image("plain"), "app:v1", &[]);
    let error =
        stage.images.pull(&format!("{}/app:v1", plain.host), options(trusting(&plain))).await.expect_err("no TLS");
    assert!(error.is_passing(), "{}", told(&error));
}

/// A token server as registries name it: users are checked, rights are what was asked for and allowed.
struct TokenServer {
    fake: Fake,
    certificate: PathBuf,
}

impl TokenServer {
    fn start(stage: &Stage) -> TokenServer {
        openssl(
            stage,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout token.key -out token.pem -days 2 -subj /CN=tokens",
        );
        openssl(stage, "pkcs8 -topk8 -nocrypt -in token.key -outform DER -out token.der");
        openssl(stage, "x509 -in token.pem -outform DER -out token.crt");
        let read = |name: &str| std::fs::read(stage.directory.join(name)).expect("openssl wrote it");
        let (key, certificate) = (read("token.der"), STANDARD.encode(read("token.crt")));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let fake = Fake::on(listener, move |asked| match token(asked, &key, &certificate) {
            Some(token) => (200, Vec::new(), json!({ "token": token }).to_string().into_bytes()),
            None => (401, Vec::new(), b"who are you".to_vec()),
        });
        TokenServer { fake, certificate: stage.directory.join("token.pem") }
    }

    fn registry(&self, stage: &Stage) -> Registry {
        let (host, certificate) = (&self.fake.host, self.certificate.display());
        let token = format!("realm: 'http://{host}/token', service: s, issuer: tokens, rootcertbundle: {certificate}");
        Registry::with(stage, "", &format!("auth: {{token: {{{token}}}}}\n"))
    }
}

/// What somebody may do: `alice` everything; others read what is public. `None` for a wrong password.
fn token(asked: &Asked, key: &[u8], certificate: &str) -> Option<String> {
    let basic = asked.headers.get("authorization").map(|text| text.trim_start_matches("Basic ").to_owned());
    let is_alice = match basic {
        Some(basic) if basic == STANDARD.encode("alice:secret") => true,
        Some(_) => return None,
        None => false,
    };
    let query = asked
        .path
        .split_once('?')
        .map_or("", |(_, query)| query)
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",");
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .filter_map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            let [kind, name, actions] = parts[..] else { return None };
            let allowed = is_alice || (name.starts_with("public/") && actions == "pull");
            allowed.then(|| json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let now = World::real().now().as_second();
    let head = json!({"typ": "JWT", "alg": "ES256", "x5c": [certificate]});
    let body = json!({"iss": "tokens", "sub": "x", "aud": "s", "exp": now + 300, "nbf": now - 10, "iat": now - 10,
        "jti": "1", "access": access});
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(body.to_string()));
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random).expect("openssl's key");
    let signature = pair.sign(&random, text.as_bytes()).expect("signed");
    Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[tokio::test]
async fn tokens_are_fetched_as_the_registry_says_with_a_password_or_without() {
    let stage = Stage::new();
    let server = TokenServer::start(&stage);
    let registry = server.registry(&stage);
    for name in ["public/app:v1", "private/app:v1"] {
        registry.push(&stage, &image(&name[..7]), name, &["--dest-creds", "alice:secret"]);
    }
    let name = |image: &str| format!("{}/{image}", registry.host);
    let pull = async |image: &str, credentials: Vec<Credentials>| {
        stage.images.pull(&name(image), PullOptions { credentials, ..PullOptions::default() }).await
    };
    pull("public/app:v1", Vec::new()).await.unwrap_or_else(|error| panic!("anonymously: {}", told(&error)));
    for credentials in [Vec::new(), vec![user("alice", "wrong")]] {
        let error = pull("private/app:v1", credentials).await.expect_err("private");
        assert!(matches!(error, ImageError::Unauthorized { .. }), "{}", told(&error));
    }
    // The first that may, may; the others are not told of it.
    let credentials = vec![user("bob", "x"), user("alice", "secret"), user("carol", "y")];
    pull("private/app:v1", credentials).await.unwrap_or_else(|error| panic!("alice: {}", told(&error)));
    let asked = server.fake.heard();
    let wanted = "/token?service=s&scope=repository%3Aprivate%2Fapp%3Apull";
    assert!(
        asked.iter().any(|line| *line == format!("{wanted} Basic {}", STANDARD.encode("alice:secret"))),
        "{asked:?}"
    );
    assert!(!asked.iter().any(|line| line.contains(&STANDARD.encode("carol:y"))), "{asked:?}");
    // KEP-2535: what came without a password is for everybody, what came with one for who has it or the same secret.
    let access = |image: &str| {
        let reference: Reference = name(image).parse().expect("a name");
        stage.images.find_named(&reference).expect("a store").expect("an image").1
    };
    assert_eq!(access("public/app:v1"), Access::Anyone);
    let only = access("private/app:v1");
    assert!(only.allows(&[user("alice", "secret")]) && only.allows(&[user("alice", "rotated")]), "{only:?}");
    let other = Credentials { owner: Some("another secret".to_owned()), ..user("alice", "secret") };
    assert!(only.allows(&[other]) && !only.allows(&[user("bob", "x")]) && !only.allows(&[]), "{only:?}");
    assert!(!format!("{only:?}").contains("alice:secret"));
}

#[tokio::test]
async fn mirrors_come_first_and_are_passed_over_when_they_fail() {
    let stage = Stage::new();
    let (own, mirror) = (Registry::start(&stage), Registry::with_users(&stage, &[("node", "secret")], ""));
    own.push(&stage, &image("own"), "team/app:v1", &[]);
    own.push(&stage, &image("own"), "team/only:v1", &[]);
    mirror.push(&stage, &image("mirrored"), "cache/team/app:v1", &["--dest-creds", "node:secret"]);
    let auth = stage.directory.join("auth.json");
    let pair = STANDARD.encode("node:secret");
    std::fs::write(&auth, json!({"auths": {&mirror.host: {"auth": pair}}}).to_string()).expect("written");
    let described = registries(json!({
        "registries": [{"prefix": own.host, "mirrors": ["127.0.0.1:1", format!("{}/cache", mirror.host)]}],
        "authFile": auth,
    }));
    let pull = async |image: &str| {
        let name = format!("{}/{image}", own.host);
        // What pods have for the registry itself is not for a mirror to see.
        let credentials = vec![user("pod", "pods")];
        let options = PullOptions { credentials, registries: described.clone(), ..PullOptions::default() };
        let record =
            stage.images.pull(&name, options).await.unwrap_or_else(|error| panic!("{image}: {}", told(&error)));
        assert_eq!(record.names, std::slice::from_ref(&name));
        let layers = stage.images.find(&name).expect("a store").expect("an image").layers;
        let files = std::fs::read_dir(&layers[0]).expect("a layer").map(|entry| entry.expect("an entry").file_name());
        files.map(|name| name.into_string().expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(pull("team/app:v1").await, ["mirrored"]);
    assert_eq!(pull("team/only:v1").await, ["own"]);
    let reference: Reference = format!("{}/team/app:v1", own.host).parse().expect("a name");
    let access = stage.images.find_named(&reference).expect("a store").expect("an image").1;
    assert_eq!(access, Access::Anyone, "the machine's own credentials are for everybody on it");
}

#[tokio::test]
async fn what_the_owner_imports_is_for_everybody_whoever_pulled_it_before() {
    let stage = Stage::new();
    let registry = Registry::with_users(&stage, &[("pod", "pods")], "");
    registry.push(&stage, &image("x"), "app:v1", &["--dest-creds", "pod:pods"]);
    let name = format!("{}/app:v1", registry.host);
    let options = PullOptions { credentials: vec![user("pod", "pods")], ..PullOptions::default() };
    stage.images.pull(&name, options).await.expect("pulled");
    let reference: Reference = name.parse().expect("a name");
    let access = || stage.images.find_named(&reference).expect("a store").expect("an image").1;
    assert!(matches!(access(), Access::Only(_)));
    let place: &Path = &stage.directory.join("imported");
    image("x").write_to(place);
    stage.images.import(place, Some(&name)).await.expect("imported");
    assert_eq!(access(), Access::Preloaded);
}
