//! What the driver guarantees, with controllers made for it, over the real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use windlass_api::kinds;
use windlass_apiserver::{Apiserver, Config, Identity};
use windlass_client::{Cache, Caches, Client, Key, Recorder};
use windlass_stdx::World;
use windlass_store::{RealDisk, Store};

use super::{Counters, Shared, drive};
use crate::controller::{Controller, Look, Wake};
use crate::plan::Plan;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a controller until the condition holds, then gives its counters.
async fn run<C: Controller>(make: impl FnOnce(&Caches) -> C, act: impl AsyncFnOnce(&Client, &Caches)) -> Arc<Counters>
where
    C::View: Send,
{
    let world = World::real();
    let dir = std::env::temp_dir().join(format!("windlass-driver-{}", world.uuid()));
    let store = Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone());
    let store = store.await.expect("an empty directory becomes a store");
    let apiserver = Apiserver::new(Config::new(windlass_api::resources::registry()), store.clone(), world.clone());
    apiserver.bootstrap().await.expect("an empty store takes what every cluster has");
    let client = Client::new(apiserver.transport(Identity::part("test")), world);
    let caches = Caches::new(client.clone());
    let controller = make(&caches);
    caches.synced().await;
    let counters = Arc::new(Counters::default());
    let recorder = Recorder::new(client.clone(), C::NAME, "");
    let shared =
        Shared { caches: caches.clone(), client: caches.client().clone(), recorder, counters: Arc::clone(&counters) };
    let (stop, stopped) = watch::channel(false);
    let driver = tokio::spawn(drive(controller, shared, stopped));
    tokio::time::timeout(PATIENCE, act(&client, &caches)).await.expect("it comes about in time");
    stop.send_replace(true);
    driver.await.expect("the driver ends in order");
    apiserver.close();
    store.close().await;
    std::fs::remove_dir_all(&dir).expect("the test's own directory");
    counters
}

/// Wants one Lease for each ServiceAccount named `wanted-*`. Names are the API's, so a hasty pass would make two.
struct Copier {
    accounts: Cache,
    leases: Cache,
    /// Passes that panic before one works.
    panics: AtomicUsize,
}

struct CopierView {
    name: String,
    is_there: bool,
    panics: bool,
}

impl Copier {
    fn new(caches: &Caches, panics: usize) -> Copier {
        let (accounts, leases) = (caches.of(&kinds::SERVICE_ACCOUNT), caches.of(&kinds::LEASE));
        Copier { accounts, leases, panics: AtomicUsize::new(panics) }
    }
}

impl Controller for Copier {
    type View = CopierView;
    const NAME: &'static str = "copier";

    fn wakes(&self) -> Vec<Wake> {
        vec![Wake::new(&kinds::SERVICE_ACCOUNT, |change, wake| {
            assert!(!change.key.name().starts_with("odd-"), "a bug in one wake");
            wake(change.key.clone());
        })]
    }

    fn view(&self, key: &Key, _look: &Look) -> Option<CopierView> {
        let account =
            self.accounts.get_key(key.as_str()).filter(|account| account.header.name().starts_with("wanted-"))?;
        let name = account.header.name().to_owned();
        let is_there = self.leases.list().iter().any(|lease| lease.header.labels().get("of") == Some(&name));
        let takes_one = |left: usize| left.checked_sub(1);
        let panics = self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes_one).is_ok();
        Some(CopierView { name, is_there, panics })
    }

    fn plan(view: &CopierView) -> Plan {
        assert!(!view.panics, "a bug in one controller");
        let mut plan = Plan::default();
        if !view.is_there {
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"generateName": "copy-", "namespace": "default", "labels": {"of": view.name}}});
            plan.create(&kinds::LEASE, "default", lease, "it is wanted");
        }
        // As hasty as can be.
        plan.look_again(Duration::from_millis(1), "whether it is still wanted");
        plan
    }
}

fn wanted(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_never_planned_before_its_own_writes_are_seen() {
    let counters = run(
        |caches| Copier::new(caches, 0),
        async |client, caches| {
            for index in 0..20 {
                let account = wanted(&format!("wanted-{index}"));
                client.create(&kinds::SERVICE_ACCOUNT, "default", &account).await.expect("a new name");
            }
            let leases = caches.of(&kinds::LEASE);
            leases.until("", |_| leases.len() >= 20).await;
            // Each key has been looked at again and again by the time a last one is done.
            client.create(&kinds::SERVICE_ACCOUNT, "default", &wanted("wanted-last")).await.expect("a new name");
            leases.until("", |_| leases.len() >= 21).await;
            let found = client.list(&kinds::LEASE, Some("default"), &Default::default()).await.expect("a list");
            assert_eq!(found.items.len(), 21, "one for each, and no more");
        },
    );
    let counters = counters.await;
    // The last write may show before the driver has counted it.
    let items = counters.items.load(Ordering::Relaxed);
    assert!((20..=21).contains(&items), "{items} items");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_pass_is_planned_again() {
    let counters = run(
        |caches| Copier::new(caches, 3),
        async |client, caches| {
            client.create(&kinds::SERVICE_ACCOUNT, "default", &wanted("wanted-1")).await.expect("a new name");
            let leases = caches.of(&kinds::LEASE);
            leases.until("", |_| leases.len() == 1).await;
        },
    );
    assert_eq!(counters.await.panics.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_panics_is_passed_over() {
    let counters = run(
        |caches| Copier::new(caches, 0),
        async |client, caches| {
            for name in ["odd-1", "wanted-1"] {
                client.create(&kinds::SERVICE_ACCOUNT, "default", &wanted(name)).await.expect("a new name");
            }
            let leases = caches.of(&kinds::LEASE);
            leases.until("", |_| leases.len() == 1).await;
        },
    );
    assert_eq!(counters.await.panics.load(Ordering::Relaxed), 1);
}
