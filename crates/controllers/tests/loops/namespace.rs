//! A namespace has what every namespace has, and goes with all that is in it.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::{Kind, kinds};
use windlass_client::Cached;

use super::garbage::{define, foo};
use super::{Cluster, alive, deployment};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_is_emptied_and_goes() {
    let mut cluster = Cluster::start().await;
    cluster.run_agent();
    cluster
        .create(&kinds::NAMESPACE, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}))
        .await;
    cluster.until(&kinds::SERVICE_ACCOUNT, "the default account", |accounts| alive(accounts, "a") == 1).await;
    cluster.create(&kinds::DEPLOYMENT, deployment("a", 5)).await;
    define(&cluster).await;
    let custom = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f", "namespace": "a"}});
    cluster.create(&foo(), custom).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "a"}});
    cluster.create(&kinds::CONFIG_MAP, map).await;
    cluster.until(&kinds::POD, "5 pods", |pods| alive(pods, "a") == 5).await;
    cluster.client.delete(&kinds::NAMESPACE, "", "a", &Default::default()).await.expect("the namespace is there");
    let gone = |found: &[Arc<Cached>]| found.iter().all(|found| found.header.name() != "a");
    cluster.until(&kinds::NAMESPACE, "no namespace a", gone).await;
    for kind in [
        &foo(),
        &kinds::POD,
        &kinds::REPLICA_SET,
        &kinds::DEPLOYMENT,
        &kinds::CONFIG_MAP,
        &kinds::SERVICE_ACCOUNT,
        &kinds::EVENT,
    ] {
        let left = cluster.client.list(kind, Some("a"), &Default::default()).await.expect("a list");
        assert!(left.items.is_empty(), "{} are left", kind.plural);
    }
    cluster.end().await;
}

/// An object of each sort of kind: of the core, of groups, custom, kept only for others, not followed by anybody.
fn held() -> Vec<(Kind, Value)> {
    let template = json!({"metadata": {"labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "example.com/app:1"}]}});
    let mut lasting = template.clone();
    lasting["spec"]["restartPolicy"] = json!("Always");
    let set =
        json!({"replicas": 0, "serviceName": "x", "selector": {"matchLabels": {"app": "x"}}, "template": lasting});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
        "resources": {"requests": {"storage": "1Gi"}}});
    let reason = json!({"kind": "Pod", "name": "p", "namespace": "a"});
    [
        (&kinds::PERSISTENT_VOLUME_CLAIM, json!({"spec": claim})),
        (&kinds::JOB, json!({"spec": {"suspend": true, "template": template}})),
        (&kinds::STATEFUL_SET, json!({"spec": set})),
        (&kinds::POD_DISRUPTION_BUDGET, json!({"spec": {"minAvailable": 1}})),
        (&kinds::NETWORK_POLICY, json!({"spec": {"podSelector": {}}})),
        (&kinds::CONFIG_MAP, json!({"data": {"a": "b"}})),
        (&kinds::EVENT, json!({"involvedObject": reason, "reason": "X", "message": "x", "type": "Normal"})),
        (&foo(), json!({})),
    ]
    .map(|(kind, mut object)| {
        let kind = kind.clone();
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        object["metadata"] = json!({"name": "held", "namespace": "a", "finalizers": ["example.com/keep"]});
        (kind, object)
    })
    .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_namespace_says_what_holds_it_whatever_the_kind() {
    let cluster = Cluster::start().await;
    let room = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    cluster.create(&kinds::NAMESPACE, room).await;
    define(&cluster).await;
    let held = held();
    for (kind, object) in &held {
        cluster.create(kind, object.clone()).await;
    }
    cluster.client.delete(&kinds::NAMESPACE, "", "a", &Default::default()).await.expect("the namespace is there");
    let mut parts: Vec<String> =
        held.iter().map(|(kind, _)| format!("{}.{} has 1 resource instances", kind.plural, kind.group)).collect();
    parts.sort();
    let says = |found: &[Arc<Cached>], message: &str| {
        let namespace = found.iter().find(|found| found.header.name() == "a").map(|found| found.value());
        namespace.is_some_and(|namespace| {
            let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["message"] == message && condition["status"] == "True")
        })
    };
    let left = format!("Some resources are remaining: {}", parts.join(", "));
    let is_said = |found: &[Arc<Cached>]| {
        says(found, &left)
            && says(
                found,
                "Some content in the namespace has finalizers remaining: example.com/keep in 8 resource instances",
            )
    };
    cluster.until(&kinds::NAMESPACE, "what is left of every kind", is_said).await;
    for (kind, _) in &held {
        cluster.merge(kind, "a", "held", json!({"metadata": {"finalizers": null}})).await;
    }
    let gone = |found: &[Arc<Cached>]| found.iter().all(|found| found.header.name() != "a");
    cluster.until(&kinds::NAMESPACE, "no namespace a", gone).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_an_ending_namespace_go_though_their_makers_stay() {
    let mut cluster = Cluster::start().await;
    cluster.run_agent();
    let room = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    cluster.create(&kinds::NAMESPACE, room).await;
    cluster.until(&kinds::SERVICE_ACCOUNT, "the default account", |accounts| alive(accounts, "a") == 1).await;
    let mut kept = deployment("a", 3);
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    let name = cluster.create(&kinds::DEPLOYMENT, kept).await.header.name().to_owned();
    cluster.until(&kinds::POD, "3 pods", |pods| alive(pods, "a") == 3).await;
    cluster.client.delete(&kinds::NAMESPACE, "", "a", &Default::default()).await.expect("the namespace is there");
    let no_pods = |pods: &[Arc<Cached>]| pods.iter().all(|pod| pod.header.namespace() != "a");
    cluster.until(&kinds::POD, "no pods", no_pods).await;
    let ending =
        |found: &[Arc<Cached>]| found.iter().any(|found| found.header.name() == name && found.header.is_ending());
    cluster.until(&kinds::DEPLOYMENT, "a deployment that stays", ending).await;
    cluster.merge(&kinds::DEPLOYMENT, "a", &name, json!({"metadata": {"finalizers": null}})).await;
    let gone = |found: &[Arc<Cached>]| found.iter().all(|found| found.header.name() != "a");
    cluster.until(&kinds::NAMESPACE, "no namespace a", gone).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_objects_than_a_page_go_with_their_namespace() {
    let cluster = Cluster::start().await;
    let room = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    cluster.create(&kinds::NAMESPACE, room).await;
    // The first page is full of objects that stay.
    for index in 0..501 {
        let metadata = json!({"name": format!("m-{index:04}"), "namespace": "a", "finalizers": ["example.com/keep"]});
        cluster
            .create(&kinds::CONFIG_MAP, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
            .await;
    }
    cluster.client.delete(&kinds::NAMESPACE, "", "a", &Default::default()).await.expect("the namespace is there");
    let all_end = |maps: &[Arc<Cached>]| {
        maps.iter().filter(|map| map.header.namespace() == "a" && map.header.is_ending()).count() == 501
    };
    cluster.until(&kinds::CONFIG_MAP, "the end of all", all_end).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_default_account_comes_back() {
    let cluster = Cluster::start().await;
    let first = cluster.until(&kinds::SERVICE_ACCOUNT, "the account", |found| alive(found, "default") == 1).await;
    let uid =
        first.iter().find(|found| found.header.namespace() == "default").map(|found| found.header.uid().to_owned());
    let deleted = cluster.client.delete(&kinds::SERVICE_ACCOUNT, "default", "default", &Default::default()).await;
    deleted.expect("the account is there");
    let is_new = |found: &[Arc<Cached>]| {
        found.iter().any(|found| found.header.namespace() == "default" && Some(found.header.uid()) != uid.as_deref())
    };
    cluster.until(&kinds::SERVICE_ACCOUNT, "another account", is_new).await;
    cluster.end().await;
}
