//! Quotas: what is used of them follows what is there, and what exceeds them is refused.

use serde_json::{Value, json};
use windlass_api::quantity::Quantity;

use crate::Test;
use crate::api::{MERGE, Reply};

/// Creates a quota and waits until all its bounds are counted; gives its path.
async fn quota(test: &Test, name: &str, spec: Value) -> String {
    let path = test.path("v1", "resourcequotas");
    let made = test.api.create(&path, &json!({"metadata": {"name": name}, "spec": spec})).await.ok();
    let one = format!("{path}/{name}");
    let bounds = made["spec"]["hard"].as_object().expect("bounds").clone();
    let counted = |reply: &Reply| {
        let status = &reply.json()["status"];
        status["hard"] == json!(bounds) && bounds.keys().all(|name| status["used"].get(name).is_some())
    };
    test.api.until(&one, "counted", counted).await;
    one
}

fn uses(quota: &Value, expected: &[(&str, &str)]) -> bool {
    expected.iter().all(|(name, amount)| {
        let used = Quantity::from_json(&quota["status"]["used"][*name]);
        used.is_ok_and(|used| used == amount.parse::<Quantity>().expect("an amount"))
    })
}

/// Waits until a quota says that this much is used.
async fn used(test: &Test, quota: &str, expected: &[(&str, &str)]) {
    test.api.until(quota, &format!("{expected:?}"), |reply| uses(&reply.json(), expected)).await;
}

/// Creates an object that counts one of a resource, and deletes it.
async fn counts_one(test: &Test, resource: &str, version: &str, plural: &str, object: Value) {
    let quota = quota(test, "q", json!({"hard": {resource: "10"}})).await;
    // Every namespace has objects that nobody created by hand.
    let before = test.api.get(&quota).await.ok()["status"]["used"][resource].clone();
    let before: u32 = before.as_str().and_then(|used| used.parse().ok()).expect("a number of objects");
    let path = test.path(version, plural);
    test.api.create(&path, &object).await.ok();
    used(test, &quota, &[(resource, &(before + 1).to_string())]).await;
    let one = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
    test.api.delete(&one).await.ok();
    used(test, &quota, &[(resource, &before.to_string())]).await;
}

pub async fn config_maps_count(test: &Test) {
    let path = format!("{}/kube-root-ca.crt", test.path("v1", "configmaps"));
    test.api.until(&path, "there", |reply| reply.code.is_success()).await;
    counts_one(test, "configmaps", "v1", "configmaps", json!({"metadata": {"name": "counted"}})).await;
}

pub async fn secrets_count(test: &Test) {
    counts_one(test, "secrets", "v1", "secrets", json!({"metadata": {"name": "counted"}})).await;
}

fn replicated() -> Value {
    json!({"metadata": {"labels": {"app": "counted"}}, "spec": {"containers": [{"name": "c", "image": "none:1"}]}})
}

pub async fn replica_sets_count(test: &Test) {
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "counted"}}, "template": replicated()});
    let set = json!({"metadata": {"name": "counted"}, "spec": spec});
    counts_one(test, "count/replicasets.apps", "apps/v1", "replicasets", set).await;
}

pub async fn replication_controllers_count(test: &Test) {
    let spec = json!({"replicas": 0, "selector": {"app": "counted"}, "template": replicated()});
    let controller = json!({"metadata": {"name": "counted"}, "spec": spec});
    counts_one(test, "replicationcontrollers", "v1", "replicationcontrollers", controller).await;
}

pub async fn quotas_count_themselves(test: &Test) {
    let quota = quota(test, "q", json!({"hard": {"resourcequotas": "1", "pods": "5"}})).await;
    used(test, &quota, &[("resourcequotas", "1"), ("pods", "0")]).await;
}

pub async fn services_count_with_their_ports_and_balancers(test: &Test) {
    let hard = json!({"services": "10", "services.nodeports": "1", "services.loadbalancers": "1"});
    let quota = quota(test, "q", json!({"hard": hard})).await;
    let path = test.path("v1", "services");
    let service = |name: &str, kind: &str| {
        json!({"metadata": {"name": name}, "spec": {"type": kind,
        "selector": {"app": "none"}, "ports": [{"port": 80}]}})
    };
    test.api.create(&path, &service("inside", "ClusterIP")).await.ok();
    test.api.create(&path, &service("outside", "NodePort")).await.ok();
    used(test, &quota, &[("services", "2"), ("services.nodeports", "1"), ("services.loadbalancers", "0")]).await;
    let refused = test.api.create(&path, &service("balanced", "LoadBalancer")).await.refused(403);
    assert!(refused.contains("exceeded quota: q") && refused.contains("services.nodeports=1"), "{refused}");
    for name in ["inside", "outside"] {
        test.api.delete(&format!("{path}/{name}")).await.ok();
    }
    used(test, &quota, &[("services", "0"), ("services.nodeports", "0"), ("services.loadbalancers", "0")]).await;
}

/// A pod that no node takes.
fn pod(name: &str, resources: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeSelector": {"no": "node"}, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "none:1", "resources": resources}]}})
}

pub async fn pods_count_with_what_they_request(test: &Test) {
    let dongle = "requests.example.com/dongle";
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi", dongle: "3"});
    let quota = quota(test, "q", json!({"hard": hard})).await;
    let path = test.path("v1", "pods");
    let requests = json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    let resources = json!({"requests": requests, "limits": {"example.com/dongle": "2"}});
    test.api.create(&path, &pod("first", &resources)).await.ok();
    let taken = [("pods", "1"), ("cpu", "500m"), ("memory", "252Mi"), ("ephemeral-storage", "30Gi"), (dongle, "2")];
    used(test, &quota, &taken).await;
    let mut too_much = resources.clone();
    too_much["requests"] = json!({"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"});
    too_much["limits"] = json!({});
    let refused = test.api.create(&path, &pod("second", &too_much)).await.refused(403);
    assert!(refused.contains("exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1"), "{refused}");
    let mut dongles = resources.clone();
    dongles["requests"] = json!({"cpu": "500m", "memory": "100Mi", "ephemeral-storage": "1Gi",
        "example.com/dongle": "2"});
    let refused = test.api.create(&path, &pod("third", &dongles)).await.refused(403);
    assert!(refused.contains(dongle), "{refused}");
    let first = format!("{path}/first");
    let mut changed = test.api.get(&first).await.ok();
    changed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("100m");
    assert!(!test.api.update(&first, &changed).await.code.is_success(), "a pod's requests are not updated");
    used(test, &quota, &taken).await;
    test.api.delete(&first).await.ok();
    let free = [("pods", "0"), ("cpu", "0"), ("memory", "0"), ("ephemeral-storage", "0"), (dongle, "0")];
    used(test, &quota, &free).await;
}

/// Two quotas, and a pod that one of them counts and the other does not.
async fn counts_for_one(test: &Test, pod: &Value, counting: &str, other: &str, taken: &[(&str, &str)]) {
    let path = test.path("v1", "pods");
    test.api.create(&path, pod).await.ok();
    used(test, counting, taken).await;
    let free: Vec<(&str, &str)> = taken.iter().map(|(name, _)| (*name, "0")).collect();
    used(test, other, &free).await;
    let one = format!("{path}/{}", pod["metadata"]["name"].as_str().expect("a name"));
    test.api.delete(&one).await.ok();
    test.api.until_gone(&one).await;
    used(test, counting, &free).await;
}

pub async fn scopes_tell_best_effort_from_others(test: &Test) {
    let of = |scope: &str| json!({"hard": {"pods": "5"}, "scopes": [scope]});
    let best_effort = quota(test, "best-effort", of("BestEffort")).await;
    let others = quota(test, "others", of("NotBestEffort")).await;
    let taken = [("pods", "1")];
    counts_for_one(test, &pod("best-effort", &json!({})), &best_effort, &others, &taken).await;
    let resources = json!({"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}});
    counts_for_one(test, &pod("burstable", &resources), &others, &best_effort, &taken).await;
}

pub async fn scopes_tell_pods_with_a_deadline_from_others(test: &Test) {
    let hard = json!({"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2",
        "limits.memory": "1Gi"});
    let of = |scope: &str| json!({"hard": hard, "scopes": [scope]});
    let ending = quota(test, "terminating", of("Terminating")).await;
    let lasting = quota(test, "not-terminating", of("NotTerminating")).await;
    let resources = json!({"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}});
    let taken = [
        ("pods", "1"),
        ("requests.cpu", "500m"),
        ("requests.memory", "200Mi"),
        ("limits.cpu", "1"),
        ("limits.memory", "400Mi"),
    ];
    counts_for_one(test, &pod("lasting", &resources), &lasting, &ending, &taken).await;
    let mut deadline = pod("ending", &resources);
    deadline["spec"]["activeDeadlineSeconds"] = json!(3600);
    counts_for_one(test, &deadline, &ending, &lasting, &taken).await;
}

pub async fn a_quota_is_updated_and_deleted(test: &Test) {
    let one = quota(test, "q", json!({"hard": {"cpu": "1", "memory": "500Mi"}})).await;
    let mut wished = test.api.get(&one).await.ok();
    wished["spec"]["hard"] = json!({"cpu": "2", "memory": "1Gi"});
    wished["metadata"]["resourceVersion"] = json!("");
    assert_eq!(test.api.update(&one, &wished).await.ok()["spec"]["hard"]["cpu"], "2");
    assert_eq!(test.api.get(&one).await.ok()["spec"]["hard"], json!({"cpu": "2", "memory": "1Gi"}));
    test.api.delete(&one).await.ok();
    test.api.until_gone(&one).await;
}

pub async fn a_quota_lives(test: &Test) {
    let path = test.path("v1", "resourcequotas");
    let label = test.unique("life");
    let object = json!({"metadata": {"name": "q", "labels": {"test": label}}, "spec": {"hard": {"cpu": "1"}}});
    test.api.create(&path, &object).await.ok();
    let everywhere = format!("/api/v1/resourcequotas?labelSelector=test%3D{label}");
    assert_eq!(test.api.get(&everywhere).await.ok()["items"].as_array().map(Vec::len), Some(1));
    let one = format!("{path}/q");
    let patch = json!({"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = test.api.patch(&one, MERGE, &patch).await.ok();
    assert_eq!(patched["metadata"]["labels"]["q"], "patched");
    assert_eq!(patched["spec"]["hard"], json!({"cpu": "1", "memory": "750Mi"}));
    test.api.delete(&format!("{path}?labelSelector=test%3D{label}")).await.ok();
    assert_eq!(test.api.get(&everywhere).await.ok()["items"], json!([]));
}

pub async fn the_status_follows_the_spec(test: &Test) {
    let one = quota(test, "q", json!({"hard": {"cpu": "500m", "memory": "500Mi"}})).await;
    let status = format!("{one}/status");
    let same = json!({"cpu": "500m", "memory": "500Mi"});
    let replaced = test.api.replace(&status, |quota| quota["status"]["hard"] = same.clone()).await;
    assert_eq!(replaced["status"]["hard"], same);
    let more = json!({"cpu": "1", "memory": "1Gi"});
    let patched = test.api.patch(&one, MERGE, &json!({"spec": {"hard": more}})).await.ok();
    assert_eq!(patched["spec"]["hard"], more);
    let patched = test.api.patch(&status, MERGE, &json!({"status": {"hard": more}})).await.ok();
    assert_eq!(patched["status"]["hard"], more);
    assert_eq!(test.api.get(&status).await.ok()["status"]["hard"], more);
    let other = json!({"spec": {"hard": {"cpu": "9"}}, "status": {"hard": {"cpu": "2", "memory": "2Gi"}}});
    let patched = test.api.patch(&status, MERGE, &other).await.ok();
    assert_eq!(patched["spec"]["hard"], more, "a patch of the status leaves the spec alone");
    test.api.until(&one, "as the spec says", |reply| reply.json()["status"]["hard"] == more).await;
    assert_eq!(test.api.get(&one).await.ok()["spec"]["hard"], more);
}
