//! One test for each rule.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::binding::{Claim, SELECTED_NODE, Volume};
use windlass_api::kinds;
use windlass_client::ObjectRef;

use super::class::Class;
use super::{Kept, PersistentVolumeClaims, View};
use crate::controller::Controller;
use crate::fixture::{change, check, object};
use crate::plan::Target;

fn claim(changes: Value) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "ns", "uid": "uc", "resourceVersion": "7", "annotations": {},
            "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"}});
    change(&mut claim, changes);
    claim
}

fn volume(changes: Value) -> Value {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v", "uid": "uv", "resourceVersion": "8"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "capacity": {"storage": "2Gi"}},
        "status": {"phase": "Available"}});
    change(&mut volume, changes);
    volume
}

fn class(changes: Value) -> Value {
    let mut class = json!({"metadata": {"name": "local"}, "provisioner": "local.windlass.dev",
        "volumeBindingMode": "WaitForFirstConsumer"});
    change(&mut class, changes);
    class
}

fn view(claim: Value, volumes: &[Value], class: Option<Value>) -> View {
    let claim = object(&claim);
    let facts = Claim::read(&claim);
    let node = Some(facts.selected_node.clone()).filter(|node| !node.is_empty());
    View {
        about: ObjectRef::of(&claim.header),
        target: Target::of(&kinds::PERSISTENT_VOLUME_CLAIM, &claim.header),
        revision: claim.header.revision,
        volumes: volumes.iter().map(|volume| Arc::new(Volume::read(&object(volume)))).collect(),
        class: class.map(|class| Class::read(&object(&class))),
        default_class: None,
        is_used: false,
        node: node.map(|node| (node, Default::default())),
        claim: facts,
    }
}

#[track_caller]
fn planned(view: &View, expected: &str) {
    check(&PersistentVolumeClaims::plan(view), expected);
}

fn reserved(uid: &str) -> Value {
    json!({"/spec/claimRef": {"namespace": "ns", "name": "c", "uid": uid}})
}

#[test]
fn r1_a_claim_goes_once_no_pod_uses_it() {
    let fresh = view(claim(json!({"/metadata/finalizers": []})), &[], None);
    planned(&fresh, "patch persistentvolumeclaims ns/c: no claim goes while a pod uses it");
    let mut ending = view(claim(json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"})), &[], None);
    planned(&ending, "patch persistentvolumeclaims ns/c: no pod uses the claim any more");
    ending.is_used = true;
    planned(&ending, "");
}

#[test]
fn r1_a_pod_keeps_its_claims_until_nothing_of_them_can_be_mounted() {
    let pod = |changes: Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n1", "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "shared"}}, {"name": "b", "ephemeral": {}},
            {"name": "c", "emptyDir": {}}]}});
        change(&mut pod, changes);
        Kept::read(&object(&pod)).0.join(" ")
    };
    assert_eq!(pod(json!({})), "shared p-b");
    assert_eq!(pod(json!({"/status": {"phase": "Failed"}})), "shared p-b", "what it had is given back when it goes");
    assert_eq!(pod(json!({"/spec/nodeName": ""})), "", "no node has mounted anything for it");
    let ending = |seconds: u32| json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/metadata/deletionGracePeriodSeconds": seconds});
    assert_eq!(pod(ending(30)), "shared p-b");
    assert_eq!(pod(ending(0)), "shared", "it may wait for its own claims to go first");
}

#[test]
fn r2_a_claim_without_a_class_gets_the_default() {
    let mut waiting = view(claim(json!({"/spec/storageClassName": null})), &[], None);
    waiting.default_class = Some("local".to_owned());
    planned(&waiting, "patch persistentvolumeclaims ns/c: the claim names no class, and local is the default");
}

#[test]
fn r3_claim_and_volume_name_each_other_or_the_claim_is_lost() {
    let named = |phase: &str| claim(json!({"/spec/volumeName": "v", "/status/phase": phase}));
    let bound = view(named("Pending"), &[volume(reserved("uc"))], None);
    planned(&bound, "patch persistentvolumeclaims ns/c status: volume v is the claim's");
    let free = view(named("Pending"), &[volume(json!({}))], None);
    planned(&free, "patch persistentvolumes v: it is the best volume for claim ns/c");
    let other = view(named("Pending"), &[volume(reserved("another"))], None);
    planned(&other, "tell ns/c FailedBinding: volume \"v\" already bound to claim ns/c");
    let lost = view(named("Bound"), &[], None);
    planned(
        &lost,
        "patch persistentvolumeclaims ns/c status: Bound claim has lost its PersistentVolume. Data on the volume is lost!",
    );
    planned(&view(named("Pending"), &[], None), "");
}

#[test]
fn r4_a_volume_is_reserved_before_it_is_named() {
    let immediate = Some(class(json!({"/volumeBindingMode": "Immediate"})));
    let free = view(claim(json!({})), &[volume(json!({}))], immediate.clone());
    planned(&free, "patch persistentvolumes v: it is the best volume for claim ns/c");
    let kept = view(claim(json!({})), &[volume(reserved("uc"))], immediate);
    planned(&kept, "patch persistentvolumeclaims ns/c: volume v is reserved for the claim");
}

#[test]
fn r5_a_claim_of_a_patient_class_waits_for_its_node() {
    let waiting = view(claim(json!({})), &[volume(json!({}))], Some(class(json!({}))));
    planned(&waiting, "tell ns/c WaitForFirstConsumer: waiting for first consumer to be created before binding");
    let expression = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
    let local = volume(json!({"/spec/nodeAffinity":
        {"required": {"nodeSelectorTerms": [{"matchFields": [expression]}]}}}));
    let manual = || Some(class(json!({"/provisioner": "kubernetes.io/no-provisioner"})));
    let on = |node: &str| claim(json!({"/metadata/annotations": {SELECTED_NODE: node}}));
    planned(
        &view(on("n1"), std::slice::from_ref(&local), manual()),
        "patch persistentvolumes v: it is the best volume for claim ns/c",
    );
    planned(
        &view(on("n2"), &[local], manual()),
        "tell ns/c FailedBinding: no persistent volumes available for this claim",
    );
}

#[test]
fn r6_the_provisioner_of_the_class_is_asked() {
    let chosen = || claim(json!({"/metadata/annotations": {SELECTED_NODE: "n1"}}));
    planned(
        &view(chosen(), &[], Some(class(json!({})))),
        "create persistentvolumes pvc-uc: Successfully provisioned volume pvc-uc on node n1; it may hold more than it says, unless its class has the parameter enforceSize",
    );
    planned(
        &view(chosen(), &[], Some(class(json!({"/parameters": {"enforceSize": "true"}})))),
        "create persistentvolumes pvc-uc: Successfully provisioned volume pvc-uc on node n1",
    );
    let many = json!({"/metadata/annotations": {SELECTED_NODE: "n1"}, "/spec/accessModes": ["ReadWriteMany"]});
    planned(
        &view(claim(many), &[], Some(class(json!({})))),
        "tell ns/c ProvisioningFailed: what lies on one node cannot be shared between nodes",
    );
    let external = Some(class(json!({"/provisioner": "csi.example.com", "/volumeBindingMode": "Immediate"})));
    planned(
        &view(claim(json!({})), &[], external),
        "patch persistentvolumeclaims ns/c: Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator.",
    );
    planned(
        &view(claim(json!({})), &[], None),
        "tell ns/c FailedBinding: storageclass.storage.k8s.io \"local\" not found",
    );
}

#[test]
fn r6_a_claim_that_is_to_be_a_copy_gets_no_empty_volume_of_ours() {
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let copy = |field: &str| {
        let source = (field.to_owned(), snapshot.clone());
        let rest = ("/metadata/annotations".to_owned(), json!({SELECTED_NODE: "n1"}));
        claim(Value::Object([source, rest].into_iter().collect()))
    };
    for field in ["/spec/dataSource", "/spec/dataSourceRef"] {
        planned(
            &view(copy(field), &[], Some(class(json!({})))),
            "tell ns/c ProvisioningFailed: volumes of class local are made empty: none can be made from VolumeSnapshot s",
        );
    }
    let external = Some(class(json!({"/provisioner": "csi.example.com"})));
    planned(
        &view(copy("/spec/dataSource"), &[], external),
        "patch persistentvolumeclaims ns/c: Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator.",
    );
}

#[test]
fn r7_a_bound_claim_grows_where_its_class_allows_it() {
    let grown = || {
        let more = json!({"/spec/volumeName": "v", "/status/phase": "Bound", "/status/capacity": {"storage": "2Gi"},
            "/spec/resources": {"requests": {"storage": "3Gi"}}});
        claim(more)
    };
    let ours = || {
        let mut volume = volume(reserved("uc"));
        volume["spec"]["csi"] = json!({"driver": "local.windlass.dev", "volumeHandle": "v"});
        volume
    };
    let allowed = Some(class(json!({"/allowVolumeExpansion": true})));
    planned(&view(grown(), &[ours()], allowed), "patch persistentvolumes v: claim ns/c asks for more");
    planned(&view(grown(), &[ours()], Some(class(json!({})))), "");
}
