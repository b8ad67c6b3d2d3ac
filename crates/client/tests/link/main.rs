//! The client and its cache over HTTPS, to the real API server on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use windlass_api::kinds;
use windlass_apiserver::{Apiserver, Config, Identity, Pki};
use windlass_client::{
    Cache, Client, ClientError, DeleteOptions, EventKind, HttpsConfig, HttpsTransport, ListOptions, Note, Notice,
    ObjectRef, Recorder, Scope,
};
use windlass_stdx::{TransportError, World};
use windlass_store::{RealDisk, Store};

/// Everything a test waits for comes well before this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store whose server can go away and come back at the same address.
struct Cluster {
    store: Store,
    pki: Arc<Pki>,
    address: SocketAddr,
    serving: Option<(Apiserver, JoinHandle<()>)>,
    dir: PathBuf,
}

impl Cluster {
    async fn start() -> Cluster {
        let world = World::real();
        let dir = std::env::temp_dir().join(format!("windlass-link-{}", world.uuid()));
        let store = Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone());
        let store = store.await.expect("an empty directory becomes a store");
        let pki = Arc::new(Pki::open(&dir.join("pki"), &world).expect("a new CA"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut cluster = Cluster { store, pki, address, serving: None, dir };
        cluster.serve(listener).await;
        cluster
    }

    async fn serve(&mut self, listener: TcpListener) {
        let mut config = Config::new(windlass_api::resources::registry());
        config.pki = Some(self.pki.clone());
        let apiserver = Apiserver::new(config, self.store.clone(), World::real());
        apiserver.bootstrap().await.expect("the store takes what every cluster has");
        let tls = self.pki.server_tls(IpAddr::V4(Ipv4Addr::new(10, 43, 0, 1)), &[]).expect("a serving certificate");
        let server = apiserver.clone();
        let task = tokio::spawn(async move { server.serve(listener, tls).await });
        self.serving = Some((apiserver, task));
    }

    /// A client inside the server's process, which needs no listener.
    fn inside(&self) -> Client {
        let (apiserver, _) = self.serving.as_ref().expect("the server is up");
        Client::new(apiserver.transport(Identity::part("test")), World::real())
    }

    /// The server goes; what `meanwhile` does happens behind the back of all watchers; the server comes back.
    async fn restart(&mut self, meanwhile: impl AsyncFnOnce(&Client, &Store)) {
        let inside = self.inside();
        let (apiserver, task) = self.serving.take().expect("the server is up");
        apiserver.close();
        tokio::time::timeout(PATIENCE, task).await.expect("in time").expect("the listener ends in order");
        meanwhile(&inside, &self.store).await;
        let listener = TcpListener::bind(self.address).await.expect("the port is free again");
        self.serve(listener).await;
    }

    fn client(&self, with_certificate: bool) -> Client {
        let identity = with_certificate.then(|| {
            let issued = self.pki.issue_client("admin", "system:masters").expect("a certificate");
            (issued.cert_pem.into(), issued.key_pem.into())
        });
        let server = format!("https://{}", self.address);
        let config = HttpsConfig { server, ca_pem: self.pki.ca_pem().into(), identity };
        Client::new(Arc::new(HttpsTransport::new(config).expect("a usable configuration")), World::real())
    }

    async fn end(self) {
        if let Some((apiserver, _)) = &self.serving {
            apiserver.close();
        }
        self.store.close().await;
        std::fs::remove_dir_all(&self.dir).expect("the test's own directory");
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"k": "v"}})
}

async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("expected {what} in time"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_a_time_go_over_tls_and_refusals_come_back() {
    let cluster = Cluster::start().await;
    let client = cluster.client(true);
    let mut creates = Vec::new();
    for index in 0..200 {
        let client = client.clone();
        creates.push(tokio::spawn(async move {
            client.create(&kinds::CONFIG_MAP, "default", &map(&format!("m{index:03}"))).await
        }));
    }
    for create in creates {
        let created = in_time("an answer", create).await.expect("no panic").expect("a new name is taken");
        assert!(created.header.revision > 0);
    }
    let mut options = ListOptions { limit: 70, ..ListOptions::default() };
    let mut names = Vec::new();
    loop {
        let page = client.list(&kinds::CONFIG_MAP, Some("default"), &options).await.expect("a page");
        names.extend(page.items.iter().map(|item| item.header.name().to_owned()));
        if page.continue_from.is_empty() {
            break;
        }
        options.continue_from = page.continue_from;
    }
    assert_eq!(names.len(), 200);
    assert!(names.is_sorted());

    let again = client.create(&kinds::CONFIG_MAP, "default", &map("m000")).await.expect_err("the name is taken");
    assert!(again.is_already_exists(), "{again}");
    assert!(client.get(&kinds::CONFIG_MAP, "default", "none").await.expect("an answer").is_none());
    let wrong = client.delete(&kinds::CONFIG_MAP, "default", "m000", &DeleteOptions::of_uid("other")).await;
    assert!(wrong.expect_err("another uid").is_conflict());
    let stranger = cluster.client(false).get(&kinds::CONFIG_MAP, "default", "m000").await;
    let refused = stranger.expect_err("nobody may read without a certificate");
    assert!(matches!(&refused, ClientError::Api(refusal) if [401, 403].contains(&refusal.code())), "{refused}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_follows_through_a_restart_and_a_lost_history() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(true);
    client.create(&kinds::CONFIG_MAP, "default", &map("kept")).await.expect("a new name");
    client.create(&kinds::CONFIG_MAP, "default", &map("lost")).await.expect("a new name");
    let cache = Cache::start(client.clone(), &kinds::CONFIG_MAP, Scope::all());
    in_time("the first list", cache.synced()).await;
    let mut changes = cache.subscribe();
    let written = client.create(&kinds::CONFIG_MAP, "default", &map("seen")).await.expect("a new name");
    in_time("our own write", cache.caught_up(written.header.revision)).await;
    assert!(cache.get("default", "seen").is_some());

    cluster
        .restart(async |inside, store| {
            inside.delete(&kinds::CONFIG_MAP, "default", "lost", &DeleteOptions::default()).await.expect("it is there");
            inside.create(&kinds::CONFIG_MAP, "default", &map("late")).await.expect("a new name");
            store.compact(store.revision()).expect("the history up to now may go");
        })
        .await;
    in_time("what was created", cache.until("default/late", |found| found.is_some())).await;
    in_time("what was deleted gone", cache.until("default/lost", |found| found.is_none())).await;
    assert!(cache.get("default", "kept").is_some());

    let mut told = Vec::new();
    while told.len() < 5 {
        let Notice::Changed(change) = in_time("a change", changes.next()).await else { panic!("nobody lagged") };
        if change.key.namespace() == "default" && change.key.name() != "kube-root-ca.crt" {
            told.push((change.key.name().to_owned(), change.new.is_some()));
        }
    }
    told.sort();
    // "lost" came, and went while the reader did not look.
    let expected = [("kept", true), ("late", true), ("lost", false), ("lost", true), ("seen", true)];
    assert_eq!(told, expected.map(|(name, is_there)| (name.to_owned(), is_there)));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_to_be() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(true);
    client.get(&kinds::NAMESPACE, "", "default").await.expect("the server is up");
    let probe = client.clone();
    cluster
        .restart(async |_, _| {
            let error = probe.get(&kinds::NAMESPACE, "", "default").await.expect_err("nobody listens");
            let is_said = matches!(&error, ClientError::Transport { source, .. }
                if matches!(source, TransportError::Unreachable { .. } | TransportError::Broken(_)));
            assert!(is_said && error.is_retryable(), "{error:?}");
        })
        .await;
    let found = client.get(&kinds::NAMESPACE, "", "default").await.expect("a new connection is made");
    assert!(found.is_some());
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_is_counted_up() {
    let cluster = Cluster::start().await;
    let client = cluster.client(true);
    let namespace = client.get(&kinds::NAMESPACE, "", "default").await.expect("an answer").expect("it is there");
    let events = Cache::start(client.clone(), &kinds::EVENT, Scope::all());
    let recorder = Recorder::new(client, "tester", "here");
    let note = Note {
        about: ObjectRef::of(&namespace.header),
        kind: EventKind::Warning,
        reason: "Tested".to_owned(),
        message: "it is tested".to_owned(),
    };
    recorder.note(note.clone());
    in_time("the first event", events.until("", |_| events.len() == 1)).await;
    recorder.note(note.clone());
    recorder.note(note);
    let counts_three = || events.list().iter().any(|event| event.value()["count"] == 3);
    in_time("a count of 3", events.until("", |_| counts_three())).await;
    let event = events.list()[0].value();
    assert_eq!(events.len(), 1);
    assert_eq!((&event["type"], &event["source"]["component"]), (&json!("Warning"), &json!("tester")));
    assert_eq!(
        (&event["involvedObject"]["name"], &event["metadata"]["namespace"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(recorder.dropped(), 0);
    cluster.end().await;
}
