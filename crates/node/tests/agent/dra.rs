//! Devices that pods claim: a real DRA driver on a socket prepares them, containers see them, and they are given back.

#[path = "../../src/kernel/dra/driver.rs"]
mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use driver::Driver;
use serde_json::{Value, json};
use windlass_api::{Subresource, kinds};
use windlass_client::{ListOptions, Patch};
use windlass_node::Machine;

use crate::stage::{Cluster, condition, on_a_node, shell, status, until_so};

const NAME: &str = "gpu.example.com";
const PREPARE: &str = "NodePrepareResources";
const UNPREPARE: &str = "NodeUnprepareResources";
const SAYS: &str = "echo gpu0=$GPU_0 gpu1=$GPU_1 read=$(head -c 3 /dev/gpu-0 | wc -c)";

/// By claim, what it was given.
type Given = Arc<Mutex<BTreeMap<String, Vec<[String; 3]>>>>;

/// A claim that was allocated these devices, by their requests; a pod's if it is reserved.
async fn allocate(cluster: &Cluster, given: &Given, name: &str, devices: &[(&str, &str)]) {
    let requests: Vec<Value> =
        devices.iter().map(|(request, _)| json!({"name": request, "exactly": {"deviceClassName": "gpu"}})).collect();
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default"}, "spec": {"devices": {"requests": requests}}});
    cluster.create(&kinds::RESOURCE_CLAIM, claim).await;
    let results: Vec<Value> = devices
        .iter()
        .map(|(request, device)| json!({"request": request, "driver": NAME, "pool": "n1", "device": device}))
        .collect();
    patch(cluster, name, json!({"allocation": {"devices": {"results": results}}})).await;
    let told = devices.iter().map(|(request, device)| [(*request).to_owned(), "n1".to_owned(), (*device).to_owned()]);
    given.lock().expect("not poisoned").insert(name.to_owned(), told.collect());
}

async fn patch(cluster: &Cluster, claim: &str, status: Value) {
    let (patch, part) = (Patch::Merge(json!({"status": status})), Some(Subresource::Status));
    let patched = cluster.client.patch(&kinds::RESOURCE_CLAIM, "default", claim, &patch, part).await;
    patched.unwrap_or_else(|error| panic!("{claim}: {error}"));
}

async fn reserve(cluster: &Cluster, claim: &str, pod: &str) {
    let found = cluster.until(pod, |pod| !pod.is_null()).await;
    let user = json!({"resource": "pods", "name": pod, "uid": found["metadata"]["uid"]});
    patch(cluster, claim, json!({"reservedFor": [user]})).await;
}

fn pod(claim: &str, requests: &[Option<&str>], script: &str) -> Value {
    let mut container = shell("a", script);
    let claims: Vec<Value> = requests
        .iter()
        .map(|request| match request {
            Some(request) => json!({"name": "gpu", "request": request}),
            None => json!({"name": "gpu"}),
        })
        .collect();
    container["resources"] = json!({"claims": claims});
    json!({"terminationGracePeriodSeconds": 1, "containers": [container],
        "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]})
}

fn set(all: &Mutex<BTreeSet<String>>, method: &str, is_in: bool) {
    let mut all = all.lock().expect("not poisoned");
    match is_in {
        true => all.insert(method.to_owned()),
        false => all.remove(method),
    };
}

async fn until_told(cluster: &Cluster, reason: &str, words: &str) {
    until_so(words, || async {
        let events =
            cluster.client.list(&kinds::EVENT, Some("default"), &ListOptions::default()).await.expect("a list");
        let all = events.items.iter().map(|event| event.value());
        all.into_iter().any(|event| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|message| message.contains(words))
        })
    })
    .await;
}

#[test]
fn devices_that_a_pod_claims_are_prepared_given_kept_and_given_back() {
    on_a_node(|cluster| async move {
        let mut cluster = cluster.lock().await;
        let given = Given::default();
        let told = Arc::clone(&given);
        let look =
            move |_: &str, claim: &str| told.lock().expect("not poisoned").get(claim).cloned().unwrap_or_default();
        let registry = cluster.dir.join("kubelet/plugins_registry");
        let driver =
            Driver::start(NAME, (&cluster.dir.join("driver"), &cluster.dir.join("cdi")), &registry, Box::new(look));
        let state = Arc::clone(&driver.state);
        let is_taken = || async { state.registered.lock().expect("not poisoned").as_deref() == Some("yes") };
        until_so("the driver is registered", is_taken).await;
        allocate(&cluster, &given, "two", &[("a", "gpu-0"), ("b", "gpu-1")]).await;
        let runs = format!("trap 'exit 0' TERM; {SAYS}; while true; do sleep 0.1; done");
        cluster.pod("one", pod("two", &[Some("a")], &runs)).await;
        // Nobody has said that it may.
        until_told(&cluster, "FailedPrepareDynamicResources", "is not allowed to use resource claim two").await;
        assert_eq!(driver.count(PREPARE, "two"), 0);
        reserve(&cluster, "two", "one").await;
        let one = cluster.until("one", |pod| condition(pod, "Ready")).await;
        let said = "gpu0=given gpu1= read=3";
        until_so("the container has what it names", || async { cluster.log(&one, "a", 0).trim() == said }).await;
        // The agent and the driver start again; nobody is asked anew.
        cluster.stop_agent().await;
        drop(driver);
        cluster.start_agent().await;
        let driver = Driver::serve(Arc::clone(&state), &registry);
        let after = cluster.until("one", |pod| condition(pod, "Ready")).await;
        assert_eq!((status(&after)["restartCount"].clone(), driver.count(PREPARE, "two")), (json!(0), 1));
        let records = || std::fs::read_dir(cluster.dir.join("kubelet/dra")).expect("it is there").count();
        assert_eq!((driver.prepared().len(), records()), (1, 1));
        until_so("the driver is registered again", || async {
            cluster.kernel().plugins().await.expect("looked at").iter().any(|plugin| plugin.name == NAME)
        })
        .await;
        cluster.delete("one").await;
        assert_eq!((driver.count(UNPREPARE, "two"), driver.prepared().len(), records()), (1, 0, 0));
    });
}

#[test]
fn a_pod_is_said_to_be_over_only_when_its_devices_are_given_back() {
    on_a_node(|cluster| async move {
        let cluster = cluster.lock().await;
        let given = Given::default();
        let told = Arc::clone(&given);
        let look =
            move |_: &str, claim: &str| told.lock().expect("not poisoned").get(claim).cloned().unwrap_or_default();
        let registry = cluster.dir.join("kubelet/plugins_registry");
        let driver =
            Driver::start(NAME, (&cluster.dir.join("driver"), &cluster.dir.join("cdi")), &registry, Box::new(look));
        set(&driver.state.refuses, UNPREPARE, true);
        allocate(&cluster, &given, "both", &[("a", "gpu-0"), ("b", "gpu-1")]).await;
        let mut spec = pod("both", &[None], SAYS);
        spec["restartPolicy"] = json!("Never");
        cluster.pod("once", spec).await;
        reserve(&cluster, "both", "once").await;
        until_told(&cluster, "FailedKillPod", "NodeUnprepareResources failed for ResourceClaim both").await;
        let pod = cluster.until("once", |pod| !pod.is_null()).await;
        assert_ne!(pod["status"]["phase"], "Succeeded", "its devices are not free yet");
        assert_eq!(cluster.log(&pod, "a", 0).trim(), "gpu0=given gpu1=given read=3");
        set(&driver.state.refuses, UNPREPARE, false);
        cluster.until("once", |pod| pod["status"]["phase"] == "Succeeded").await;
        assert!(driver.prepared().is_empty());
        // One whose driver hangs holds up nobody else.
        set(&driver.state.hangs, PREPARE, true);
        allocate(&cluster, &given, "hangs", &[("a", "gpu-2")]).await;
        cluster.pod("held-up", pod_of("hangs")).await;
        reserve(&cluster, "hangs", "held-up").await;
        let asked = format!("{PREPARE} hangs");
        until_so("the driver is asked", || async { driver.state.calls.lock().expect("not poisoned").contains(&asked) })
            .await;
        cluster
            .pod("other", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("a", "sleep 1000")]}))
            .await;
        cluster.until("other", |pod| condition(pod, "Ready")).await;
        for name in ["other", "held-up", "once"] {
            cluster.delete(name).await;
        }
        assert!(driver.prepared().is_empty());
    });
}

fn pod_of(claim: &str) -> Value {
    pod(claim, &[None], "sleep 1000")
}
