//! The scheduler over the real API server and a real store, in this process.

mod device;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_api::{Kind, kinds};
use windlass_apiserver::{Apiserver, Config, Identity};
use windlass_client::{Cached, Caches, Client, Patch};
use windlass_scheduler::SchedulerConfig;
use windlass_stdx::World;
use windlass_store::{RealDisk, Store};

/// Everything a test waits for comes well before this.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    client: Client,
    caches: Caches,
    stop: watch::Sender<bool>,
    scheduler: JoinHandle<()>,
    apiserver: Apiserver,
    store: Store,
    dir: PathBuf,
}

impl Cluster {
    async fn start() -> Cluster {
        let world = World::real();
        let dir = std::env::temp_dir().join(format!("windlass-scheduler-{}", world.uuid()));
        let store = Store::open(windlass_store::Config::new(dir.join("store")), Arc::new(RealDisk), world.clone());
        let store = store.await.expect("an empty directory becomes a store");
        let apiserver = Apiserver::new(Config::new(windlass_api::resources::registry()), store.clone(), world.clone());
        apiserver.bootstrap().await.expect("an empty store takes what every cluster has");
        let client = Client::new(apiserver.transport(Identity::part("scheduler")), world);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}});
        client.create(&kinds::SERVICE_ACCOUNT, "default", &account).await.expect("a service account");
        let caches = Caches::new(client.clone());
        let (stop, stopped) = watch::channel(false);
        let scheduler = windlass_scheduler::run(caches.clone(), SchedulerConfig::default(), stopped);
        Cluster { client, caches, stop, scheduler: tokio::spawn(scheduler), apiserver, store, dir }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.scheduler).await.expect("in time").expect("the scheduler ends in order");
        self.apiserver.close();
        self.store.close().await;
        std::fs::remove_dir_all(&self.dir).expect("the test's own directory");
    }

    async fn create_pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": spec["cpu"]}}}]);
        spec.as_object_mut().expect("a map").remove("cpu");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        self.client.create(&kinds::POD, "default", &pod).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    async fn create_node(&self, name: &str, cpu: &str) {
        let amounts = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.client.create(&kinds::NODE, "", &node).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let patch = Patch::Merge(json!({"status": {"allocatable": amounts, "capacity": amounts}}));
        let status = Some(windlass_api::Subresource::Status);
        self.client.patch(&kinds::NODE, "", name, &patch, status).await.expect("the node is there");
    }

    async fn until(&self, kind: &Kind, what: &str, condition: impl Fn(&[Arc<Cached>]) -> bool) -> Vec<Arc<Cached>> {
        let cache = self.caches.of(kind);
        // A copy that has not come yet has nothing in it either.
        let wait = async {
            cache.synced().await;
            cache.until("", |_| condition(&cache.list())).await;
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let found: Vec<String> =
                cache.list().iter().map(|object| String::from_utf8_lossy(&object.json).into_owned()).collect();
            panic!("expected {what}, found\n{}", found.join("\n"));
        }
        cache.list()
    }

    async fn until_bound(&self, pod: &str, node: &str) -> Arc<Cached> {
        let is_bound = |pods: &[Arc<Cached>]| {
            pods.iter().any(|found| found.header.name() == pod && found.header.node_name() == node)
        };
        let pods = self.until(&kinds::POD, &format!("{pod} on {node}"), is_bound).await;
        pods.into_iter().find(|found| found.header.name() == pod).expect("it was there a line ago")
    }
}

fn scheduled(pod: &Cached) -> Value {
    let pod = pod.value();
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "PodScheduled").unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_with_its_reason_and_is_bound_when_that_changes() {
    let cluster = Cluster::start().await;
    cluster.create_pod("early", json!({"cpu": "1"})).await;
    let says =
        |message: &'static str| move |pods: &[Arc<Cached>]| pods.iter().any(|pod| scheduled(pod)["message"] == message);
    cluster.until(&kinds::POD, "a reason", says("no nodes available to schedule pods")).await;
    cluster.create_node("n1", "2").await;
    let early = cluster.until_bound("early", "n1").await;
    assert_eq!(scheduled(&early)["status"], "True");
    assert_eq!(early.value()["metadata"]["annotations"]["windlass.dev/why"], "the only node that fits");

    cluster.create_pod("large", json!({"cpu": "2"})).await;
    let lacking = cluster.until(&kinds::POD, "a reason", says("0/1 nodes are available: 1 Insufficient cpu.")).await;
    let large = lacking.iter().find(|pod| pod.header.name() == "large").expect("it says why");
    assert_eq!((&scheduled(large)["status"], &scheduled(large)["reason"]), (&json!("False"), &json!("Unschedulable")));
    let options = windlass_client::DeleteOptions::default().at_once();
    cluster.client.delete(&kinds::POD, "default", "early", &options).await.expect("the pod is there");
    cluster.until_bound("large", "n1").await;

    let told = |reason: &'static str, message: &'static str| {
        move |events: &[Arc<Cached>]| {
            events.iter().any(|event| event.value()["reason"] == reason && event.value()["message"] == message)
        }
    };
    cluster.until(&kinds::EVENT, "Scheduled", told("Scheduled", "Successfully assigned default/large to n1")).await;
    let failed = told("FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu.");
    cluster.until(&kinds::EVENT, "FailedScheduling", failed).await;
    cluster.end().await;
}

/// While the scheduler is busy with others, the end of a pod and the beginning of its namesake are seen as one change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_takes_the_name_of_one_that_goes_finds_its_room_free() {
    let cluster = Cluster::start().await;
    cluster.create_node("n1", "1").await;
    for index in 0..100 {
        cluster.create_pod(&format!("waits{index}"), json!({"cpu": "50"})).await;
    }
    let at_once = windlass_client::DeleteOptions::default().at_once();
    for _ in 0..20 {
        cluster.create_pod("same", json!({"cpu": "1"})).await;
        let pod =
            cluster.client.get(&kinds::POD, "default", "same").await.expect("it answers").expect("it was created");
        let is_bound = |pods: &[Arc<Cached>]| {
            pods.iter().any(|found| found.header.uid() == pod.header.uid() && found.header.node_name() == "n1")
        };
        cluster.until(&kinds::POD, "the pod on n1", is_bound).await;
        cluster.client.delete(&kinds::POD, "default", "same", &at_once).await.expect("the pod is there");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_are_spread_and_no_node_is_overfull() {
    let cluster = Cluster::start().await;
    for node in ["n1", "n2", "n3", "n4"] {
        cluster.create_node(node, "5").await;
    }
    for index in 0..100 {
        cluster.create_pod(&format!("p{index}"), json!({"cpu": "200m"})).await;
    }
    let all_bound =
        |pods: &[Arc<Cached>]| pods.len() == 100 && pods.iter().all(|pod| !pod.header.node_name().is_empty());
    let pods = cluster.until(&kinds::POD, "100 pods bound", all_bound).await;
    for node in ["n1", "n2", "n3", "n4"] {
        let count = pods.iter().filter(|pod| pod.header.node_name() == node).count();
        assert_eq!(count, 25, "{node} takes exactly what it has room for");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gated_pod_waits_and_says_so() {
    let cluster = Cluster::start().await;
    cluster.create_node("n1", "4").await;
    cluster.create_pod("gated", json!({"cpu": "1", "schedulingGates": [{"name": "example.com/wait"}]})).await;
    let gated = |pods: &[Arc<Cached>]| pods.iter().any(|pod| scheduled(pod)["reason"] == "SchedulingGated");
    cluster.until(&kinds::POD, "the reason SchedulingGated", gated).await;
    let patch = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    cluster.client.patch(&kinds::POD, "default", "gated", &patch, None).await.expect("gates may be taken off");
    cluster.until_bound("gated", "n1").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_less_important_pod_makes_way_and_learns_why() {
    let cluster = Cluster::start().await;
    cluster.create_node("n1", "2").await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000});
    cluster.client.create(&kinds::PRIORITY_CLASS, "", &class).await.expect("a new class");
    cluster.create_pod("low", json!({"cpu": "2"})).await;
    cluster.until_bound("low", "n1").await;
    cluster.create_pod("high", json!({"cpu": "2", "priorityClassName": "high"})).await;
    let is_told = |pods: &[Arc<Cached>]| {
        let low = pods.iter().find(|pod| pod.header.name() == "low").map(|pod| pod.value());
        let high = pods.iter().find(|pod| pod.header.name() == "high").map(|pod| pod.value());
        let conditions = low.as_ref().and_then(|low| low["status"]["conditions"].as_array().cloned());
        let target = conditions.into_iter().flatten().find(|found| found["type"] == "DisruptionTarget");
        target.is_some_and(|target| target["reason"] == "PreemptionByScheduler")
            && low.is_some_and(|low| low["metadata"]["deletionTimestamp"].is_string())
            && high.is_some_and(|high| high["status"]["nominatedNodeName"] == "n1")
    };
    cluster.until(&kinds::POD, "one told to go and the other where to", is_told).await;
    // The room is promised: it is not for those who are no more important.
    cluster.create_pod("late", json!({"cpu": "1", "priorityClassName": "high"})).await;
    let options = windlass_client::DeleteOptions::default().at_once();
    cluster.client.delete(&kinds::POD, "default", "low", &options).await.expect("the node says that it has ended");
    let high = cluster.until_bound("high", "n1").await;
    assert_eq!(high.value()["status"]["nominatedNodeName"], Value::Null);
    let told = |events: &[Arc<Cached>]| events.iter().any(|event| event.value()["reason"] == "Preempted");
    cluster.until(&kinds::EVENT, "Preempted", told).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_pods_find_and_avoid_each_other() {
    let cluster = Cluster::start().await;
    for node in ["n1", "n2"] {
        cluster.create_node(node, "4").await;
        let labels = Patch::Merge(json!({"metadata": {"labels": {"host": node}}}));
        cluster.client.patch(&kinds::NODE, "", node, &labels, None).await.expect("the node is there");
    }
    let term = json!([{"topologyKey": "host", "labelSelector": {}}]);
    let required = |side: &str| json!({side: {"requiredDuringSchedulingIgnoredDuringExecution": term}});
    cluster.create_pod("alone", json!({"cpu": "1", "affinity": required("podAntiAffinity")})).await;
    cluster.create_pod("other", json!({"cpu": "1", "affinity": required("podAntiAffinity")})).await;
    let bound = |pods: &[Arc<Cached>]| pods.iter().filter(|pod| !pod.header.node_name().is_empty()).count() == 2;
    let pods = cluster.until(&kinds::POD, "both bound", bound).await;
    assert_ne!(pods[0].header.node_name(), pods[1].header.node_name());
    cluster.create_pod("third", json!({"cpu": "1"})).await;
    let message = "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.";
    cluster.until(&kinds::POD, "a reason", |pods| pods.iter().any(|pod| scheduled(pod)["message"] == message)).await;
    cluster.end().await;
}

/// All of them are looked at before the first is bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_of_pods_with_a_claim_for_one_at_a_time_one_is_placed() {
    let cluster = Cluster::start().await;
    let (amount, modes) = (json!({"storage": "1Gi"}), ["ReadWriteOncePod"]);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "capacity": amount, "accessModes": modes, "hostPath": {"path": "/v"}, "storageClassName": ""}});
    cluster.client.create(&kinds::PERSISTENT_VOLUME, "", &volume).await.expect("a volume");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
        "resources": {"requests": amount}, "accessModes": modes, "volumeName": "v", "storageClassName": ""}});
    cluster.client.create(&kinds::PERSISTENT_VOLUME_CLAIM, "default", &claim).await.expect("a claim");
    let (bound, status) = (Patch::Merge(json!({"status": {"phase": "Bound"}})), windlass_api::Subresource::Status);
    let patched = cluster.client.patch(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "c", &bound, Some(status)).await;
    patched.expect("the claim is there");
    for name in ["a", "b", "c", "d"] {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        cluster.create_pod(name, json!({"cpu": "1m", "volumes": volumes})).await;
    }
    cluster.create_node("n1", "2").await;
    let why = "0/1 nodes are available: node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
               access mode.";
    let three_wait = |pods: &[Arc<Cached>]| pods.iter().filter(|pod| scheduled(pod)["message"] == why).count() == 3;
    cluster.until(&kinds::POD, "three that wait", three_wait).await;
    let placed = |pods: &[Arc<Cached>]| pods.iter().filter(|pod| !pod.header.node_name().is_empty()).count() == 1;
    cluster.until(&kinds::POD, "one that was placed", placed).await;
    cluster.end().await;
}
