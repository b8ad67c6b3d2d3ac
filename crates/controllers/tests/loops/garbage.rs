//! What becomes of what an owner owned, for each way to delete the owner.

use serde_json::{Value, json};
use windlass_api::{Kind, kinds};
use windlass_client::{DeleteOptions, Propagation};

use super::{Cluster, alive, deployment};

async fn delete(cluster: &Cluster, propagation: Propagation) {
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 2)).await;
    cluster.until(&kinds::POD, "2 pods", |pods| alive(pods, "default") == 2).await;
    let options = DeleteOptions::default().propagate(propagation);
    cluster.client.delete(&kinds::DEPLOYMENT, "default", "web", &options).await.expect("the deployment is there");
    cluster.until(&kinds::DEPLOYMENT, "no deployment", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_dependents_go_after_their_owner() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Background).await;
    cluster.until(&kinds::REPLICA_SET, "no set", <[_]>::is_empty).await;
    cluster.until(&kinds::POD, "no pod", <[_]>::is_empty).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_dependents_go_before_their_owner() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Foreground).await;
    for kind in [&kinds::REPLICA_SET, &kinds::POD] {
        let left = cluster.client.list(kind, Some("default"), &Default::default()).await.expect("a list");
        assert!(left.items.is_empty(), "{} were there after their owner", kind.plural);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_nobodys() {
    let cluster = Cluster::start().await;
    delete(&cluster, Propagation::Orphan).await;
    let sets = cluster.until(&kinds::REPLICA_SET, "a set without owner", |sets| {
        sets.len() == 1 && sets[0].header.owners().is_empty()
    });
    let set = sets.await[0].header.uid().to_owned();
    let pods = cluster.until(&kinds::POD, "2 pods", |pods| alive(pods, "default") == 2).await;
    assert!(pods.iter().all(|pod| pod.header.controller().is_some_and(|owner| owner.uid == set)));
    cluster.create(&kinds::DEPLOYMENT, deployment("default", 2)).await;
    let adopted = cluster.until(&kinds::REPLICA_SET, "the set adopted again", |sets| {
        sets.len() == 1 && sets[0].header.controller().is_some()
    });
    assert_eq!(adopted.await[0].header.uid(), set);
    cluster.end().await;
}

/// The kind `Foo` of [`define`].
pub(super) fn foo() -> Kind {
    Kind {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Foo".into(),
        plural: "foos".into(),
        namespaced: true,
    }
}

/// Makes the API serve [`foo`].
pub(super) async fn define(cluster: &Cluster) {
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Foo", "plural": "foos", "singular": "foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    cluster.create(&kinds::CUSTOM_RESOURCE_DEFINITION, definition).await;
    let is_established = |found: &[std::sync::Arc<windlass_client::Cached>]| {
        found.iter().any(|definition| {
            let definition = definition.value();
            let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Established" && condition["status"] == "True")
        })
    };
    cluster.until(&kinds::CUSTOM_RESOURCE_DEFINITION, "an established definition", is_established).await;
}

/// An object in `default`, owned by those of the list.
fn owned(kind: &Kind, name: &str, owners: &[Value]) -> Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
}

fn owner(kind: &Kind, name: &str, uid: &str) -> Value {
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "name": name, "uid": uid, "blockOwnerDeletion": true})
}

/// A Foo that owns a ConfigMap and another Foo, and its end.
async fn delete_foo(cluster: &Cluster, propagation: Propagation) {
    define(cluster).await;
    let top = cluster.create(&foo(), owned(&foo(), "top", &[])).await;
    let owners = [owner(&foo(), "top", top.header.uid())];
    cluster.create(&kinds::CONFIG_MAP, owned(&kinds::CONFIG_MAP, "below", &owners)).await;
    cluster.create(&foo(), owned(&foo(), "below", &owners)).await;
    // A copy that is behind has no top either.
    cluster.until(&foo(), "both", |found| found.len() == 2).await;
    let options = DeleteOptions::default().propagate(propagation);
    cluster.client.delete(&foo(), "default", "top", &options).await.expect("it is there");
    let is_gone =
        |found: &[std::sync::Arc<windlass_client::Cached>]| found.iter().all(|found| found.header.name() != "top");
    cluster.until(&foo(), "no top", is_gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_dependents_go_after_a_custom_owner() {
    let cluster = Cluster::start().await;
    delete_foo(&cluster, Propagation::Background).await;
    cluster.until(&foo(), "no foo", <[_]>::is_empty).await;
    cluster.until(&kinds::CONFIG_MAP, "no map", |maps| maps.iter().all(|map| map.header.name() != "below")).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_dependents_go_before_a_custom_owner() {
    let cluster = Cluster::start().await;
    delete_foo(&cluster, Propagation::Foreground).await;
    for kind in [&foo(), &kinds::CONFIG_MAP] {
        let left = cluster.client.get(kind, "default", "below").await.expect("an answer");
        assert!(left.is_none(), "{} were there after their owner", kind.plural);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_of_a_custom_owner_stay() {
    let cluster = Cluster::start().await;
    delete_foo(&cluster, Propagation::Orphan).await;
    for kind in [&foo(), &kinds::CONFIG_MAP] {
        let left = cluster.client.get(kind, "default", "below").await.expect("an answer").expect("it stays");
        assert!(left.header.owners().is_empty(), "{} still name their owner", kind.plural);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_object_goes_with_its_built_in_owner() {
    let cluster = Cluster::start().await;
    define(&cluster).await;
    let map = cluster.create(&kinds::CONFIG_MAP, owned(&kinds::CONFIG_MAP, "top", &[])).await;
    let owners = [owner(&kinds::CONFIG_MAP, "top", map.header.uid())];
    cluster.create(&foo(), owned(&foo(), "below", &owners)).await;
    cluster.client.delete(&kinds::CONFIG_MAP, "default", "top", &Default::default()).await.expect("it is there");
    cluster.until(&foo(), "no foo", <[_]>::is_empty).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_custom_objects_own_goes_with_their_definition() {
    let cluster = Cluster::start().await;
    // A first round shows that the kind is followed.
    delete_foo(&cluster, Propagation::Foreground).await;
    let top = cluster.create(&foo(), owned(&foo(), "top", &[])).await;
    let owners = [owner(&foo(), "top", top.header.uid())];
    cluster.create(&kinds::CONFIG_MAP, owned(&kinds::CONFIG_MAP, "below", &owners)).await;
    cluster.until(&kinds::CONFIG_MAP, "the map", |maps| maps.iter().any(|map| map.header.name() == "below")).await;
    let name = "foos.example.com";
    let deleted = cluster.client.delete(&kinds::CUSTOM_RESOURCE_DEFINITION, "", name, &Default::default()).await;
    deleted.expect("the definition is there");
    cluster.until(&kinds::CONFIG_MAP, "no map", |maps| maps.iter().all(|map| map.header.name() != "below")).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_config_map_owns_goes_with_it_although_config_maps_are_not_all_seen() {
    let cluster = Cluster::start().await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}});
    let owner = cluster.client.create(&kinds::CONFIG_MAP, "default", &map("owner")).await.expect("a new map");
    let mut owned = map("owned");
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.header.uid()}]);
    cluster.create(&kinds::CONFIG_MAP, owned).await;
    cluster
        .client
        .delete(&kinds::CONFIG_MAP, "default", "owner", &DeleteOptions::default())
        .await
        .expect("it is there");
    let is_there = |maps: &[_], name: &str| {
        maps.iter().any(|map: &std::sync::Arc<windlass_api::Object>| map.header.name() == name)
    };
    cluster.until(&kinds::CONFIG_MAP, "what it owned is gone", |maps| !is_there(maps, "owned")).await;
    cluster.end().await;
}
