//! Claims and volumes find each other, and end as they should.

use serde_json::{Value, json};
use windlass_api::binding::SELECTED_NODE;
use windlass_api::kinds;
use windlass_client::DeleteOptions;

use crate::Cluster;

fn claim(name: &str, class: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
}

fn volume(name: &str, size: &str, policy: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "capacity": {"storage": size},
            "persistentVolumeReclaimPolicy": policy, "hostPath": {"path": "/srv"}}})
}

async fn phase(cluster: &Cluster, kind: &windlass_api::Kind, name: &str, wanted: &'static str) -> Value {
    let found = cluster
        .until(kind, wanted, |objects| {
            objects.iter().any(|object| object.header.name() == name && object.value()["status"]["phase"] == wanted)
        })
        .await;
    found.iter().find(|object| object.header.name() == name).expect("it was there a moment ago").value()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_claims_never_get_one_volume_and_a_released_one_is_nobodys() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.create(&kinds::PERSISTENT_VOLUME_CLAIM, claim(name, "manual")).await;
    }
    cluster.create(&kinds::PERSISTENT_VOLUME, volume("v1", "1Gi", "Retain")).await;
    let first = phase(&cluster, &kinds::PERSISTENT_VOLUME, "v1", "Bound").await;
    let (one, other) = if first["spec"]["claimRef"]["name"] == "a" { ("a", "b") } else { ("b", "a") };
    phase(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, one, "Bound").await;
    cluster.create(&kinds::PERSISTENT_VOLUME, volume("v2", "2Gi", "Retain")).await;
    let bound = phase(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, other, "Bound").await;
    assert_eq!(bound["spec"]["volumeName"], "v2");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");

    let options = DeleteOptions::default();
    cluster.client.delete(&kinds::PERSISTENT_VOLUME_CLAIM, "default", one, &options).await.expect("deleted");
    phase(&cluster, &kinds::PERSISTENT_VOLUME, "v1", "Released").await;
    cluster.create(&kinds::PERSISTENT_VOLUME_CLAIM, claim("c", "manual")).await;
    cluster.create(&kinds::PERSISTENT_VOLUME, volume("v3", "9Gi", "Retain")).await;
    let bound = phase(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "c", "Bound").await;
    assert_eq!(bound["spec"]["volumeName"], "v3", "what was somebody's is not given to another");

    // A bound volume that is deleted stays until its claim goes.
    cluster.client.delete(&kinds::PERSISTENT_VOLUME, "", "v3", &options).await.expect("deleted");
    cluster
        .until(&kinds::PERSISTENT_VOLUME, "v3 ends", |objects| {
            objects.iter().any(|object| object.header.name() == "v3" && object.header.is_ending())
        })
        .await;
    cluster.client.delete(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "c", &options).await.expect("deleted");
    cluster
        .until(&kinds::PERSISTENT_VOLUME, "v3 is gone", |objects| {
            objects.iter().all(|object| object.header.name() != "v3")
        })
        .await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_without_a_class_is_provisioned_on_the_node_of_its_first_pod() {
    let cluster = Cluster::start().await;
    cluster.create(&kinds::NODE, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await;
    let mut plain = claim("plain", "");
    plain["spec"].as_object_mut().expect("a spec").remove("storageClassName");
    cluster.create(&kinds::PERSISTENT_VOLUME_CLAIM, plain).await;
    cluster
        .until(&kinds::PERSISTENT_VOLUME_CLAIM, "the default class", |objects| {
            objects.iter().any(|object| object.value()["spec"]["storageClassName"] == "local")
        })
        .await;
    let chosen = json!({"metadata": {"annotations": {SELECTED_NODE: "n1"}}});
    cluster.merge(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "plain", chosen).await;
    let bound = phase(&cluster, &kinds::PERSISTENT_VOLUME_CLAIM, "plain", "Bound").await;
    let name = bound["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    let volume = phase(&cluster, &kinds::PERSISTENT_VOLUME, &name, "Bound").await;
    assert_eq!(volume["spec"]["csi"]["driver"], "local.windlass.dev");
    let grown = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    cluster.merge(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "plain", grown).await;
    cluster
        .until(&kinds::PERSISTENT_VOLUME_CLAIM, "more room", |objects| {
            objects.iter().any(|object| object.value()["status"]["capacity"]["storage"] == "3Gi")
        })
        .await;
    // Its node would remove the directory; without a node the volume goes as it is.
    let options = DeleteOptions::default();
    cluster.client.delete(&kinds::PERSISTENT_VOLUME_CLAIM, "default", "plain", &options).await.expect("deleted");
    cluster
        .until(&kinds::PERSISTENT_VOLUME, "ending", |objects| objects.iter().any(|object| object.header.is_ending()))
        .await;
    cluster.client.delete(&kinds::NODE, "", "n1", &options).await.expect("deleted");
    cluster.until(&kinds::PERSISTENT_VOLUME, "gone", |objects| objects.is_empty()).await;
    cluster.end().await;
}
