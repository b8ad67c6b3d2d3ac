//! What holds for every kind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::samples::samples;
use super::{all, keep_system_metadata, registry, validate_metadata, validate_metadata_update};
use crate::field::Errors;
use crate::resource::{Subresource, Verbs};
use crate::resources::tree::Tree;

/// Trees of every shape, to show that no rule stops at one it does not expect.
fn odd_trees() -> Vec<Value> {
    let parts =
        [json!(null), json!(1), json!("x"), json!(true), json!([1, null, "x", {}, []]), json!({"x": 1}), json!({})];
    let fields = [
        "spec",
        "status",
        "metadata",
        "data",
        "binaryData",
        "stringData",
        "type",
        "endpoints",
        "ports",
        "involvedObject",
        "series",
        "rules",
        "roleRef",
        "subjects",
        "aggregationRule",
    ];
    let spec_fields = [
        "template",
        "containers",
        "initContainers",
        "volumes",
        "ports",
        "selector",
        "strategy",
        "tolerations",
        "affinity",
        "clusterIPs",
        "externalIPs",
        "resources",
        "securityContext",
        "dnsConfig",
        "taints",
        "podCIDRs",
        "finalizers",
        "sessionAffinityConfig",
        "topologySpreadConstraints",
        "schedulingGates",
        "hostAliases",
        "overhead",
        "limits",
        "hard",
        "scopes",
        "scopeSelector",
        "updateStrategy",
        "volumeClaimTemplates",
        "jobTemplate",
        "podFailurePolicy",
        "successPolicy",
        "capacity",
        "accessModes",
        "hostPath",
        "dataSource",
        "dataSourceRef",
    ];
    let mut trees = parts.to_vec();
    for part in &parts {
        trees.extend(fields.iter().map(|field| json!({ *field: part })));
        trees.extend(spec_fields.iter().map(|field| json!({"spec": { *field: part }})));
        trees.extend(spec_fields.iter().map(|field| json!({"spec": {"template": {"spec": { *field: part }}}})));
        for field in
            ["ports", "env", "envFrom", "volumeMounts", "resources", "livenessProbe", "lifecycle", "securityContext"]
        {
            trees.push(json!({"spec": {"containers": [{ field: part }]}}));
            trees.push(json!({"status": {"containerStatuses": [{ field: part, "state": part, "lastState": part }]}}));
        }
    }
    trees
}

#[test]
fn every_row_has_its_message() {
    for resource in all() {
        let kind = &resource.kind;
        assert_eq!(resource.message.get().api_version(), kind.api_version(), "{}", kind.kind);
        assert_eq!(resource.singular, kind.kind.to_lowercase());
        assert_eq!(resource.columns.iter().filter(|column| column.format == "name").count(), 1, "{}", kind.kind);
    }
}

/// Every kind has one sample, which breaks no rule and is a fixed point of defaulting.
#[test]
fn every_kind_has_a_sample() {
    let registry = registry();
    let mut kinds = BTreeSet::new();
    for sample in samples() {
        let (api_version, kind) = (sample.object.text("apiVersion"), sample.object.text("kind"));
        let resource =
            registry.find_kind(api_version, kind).unwrap_or_else(|| panic!("{api_version} {kind} is no kind"));
        assert!(kinds.insert((api_version.to_owned(), kind.to_owned())), "{kind} has two samples");
        assert_eq!(sample.status.is_object(), resource.has(Subresource::Status), "{kind} and its status");
        let mut object = sample.object.clone();
        if resource.verbs == Verbs::All {
            object["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
        }
        if resource.kind.namespaced {
            object["metadata"]["namespace"] = json!("default");
        }
        resource.rules.default(&mut object);
        resource.rules.prepare_create(&mut object);
        let mut errors = Errors::new();
        if resource.verbs == Verbs::All {
            validate_metadata(resource, &object, &mut errors);
        }
        resource.rules.validate(&object, &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{kind}: {found:#?}");
    }
    for resource in all().into_iter().filter(|resource| resource.verbs != Verbs::ReadOnly) {
        let kind = (resource.kind.api_version(), resource.kind.kind.to_string());
        assert!(kinds.contains(&kind), "{kind:?} has no sample");
    }
}

#[test]
fn every_name_leads_to_one_kind() {
    let mut names = BTreeMap::new();
    for resource in all() {
        let (plural, kind) = (resource.kind.plural.to_string(), resource.kind.kind.to_string());
        for name in resource.short_names.iter().chain([&resource.singular, &plural]) {
            // What nodes and pods use has their names in a group of its own, as Kubernetes has it.
            if resource.kind.group == "metrics.k8s.io" && *name == plural {
                continue;
            }
            // A kind may be served in several versions, and is the same by all of its names.
            let first = names.entry(name.clone()).or_insert_with(|| kind.clone());
            assert_eq!(*first, kind, "{name} is taken");
        }
    }
    assert_eq!(registry().iter().count(), all().len());
}

#[test]
fn no_tree_stops_a_rule_and_defaults_settle_at_once() {
    let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
    let trees = odd_trees();
    for resource in all() {
        let rules = &resource.rules;
        for tree in &trees {
            let mut once = tree.clone();
            rules.default(&mut once);
            let mut twice = once.clone();
            rules.default(&mut twice);
            assert_eq!(once, twice, "{} {tree}", resource.kind.kind);
            rules.prepare_create(&mut once);
            rules.prepare_update(&mut twice, tree);
            let mut errors = Errors::new();
            rules.validate(&once, &mut errors);
            rules.validate(tree, &mut errors);
            rules.validate_update(&once, tree, &mut errors);
            rules.validate_status(&once, tree, &mut errors);
            validate_metadata(&resource, tree, &mut errors);
            validate_metadata_update(tree, &once, &mut errors);
            keep_system_metadata(&mut twice, tree);
            assert_eq!(rules.cells(tree, now).len(), resource.columns.len());
        }
    }
}

fn metadata_errors(plural: &str, group: &str, metadata: Value) -> Vec<String> {
    let registry = registry();
    let resource = registry.get(group, "v1", plural).expect("a built-in kind");
    let mut errors = Errors::new();
    validate_metadata(resource, &json!({ "metadata": metadata }), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn check(metadata: Value, expected: &[&str]) {
    let found = metadata_errors("configmaps", "", metadata);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}, expected {expected}");
    }
}

#[test]
fn m1_and_m2_every_object_has_a_name_and_a_place() {
    check(json!({"name": "a.b", "namespace": "ns"}), &[]);
    check(
        json!({}),
        &["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"],
    );
    check(
        json!({"name": "../a", "generateName": "A-", "namespace": "a.b"}),
        &[
            "metadata.generateName: Invalid value: \"A-\": a lowercase RFC 1123 subdomain",
            "metadata.name: Invalid value: \"../a\": a lowercase RFC 1123 subdomain",
            "metadata.namespace: Invalid value: \"a.b\": must not contain dots",
        ],
    );
    let node = metadata_errors("nodes", "", json!({"name": "n", "namespace": "ns"}));
    assert_eq!(node, ["metadata.namespace: Forbidden: not allowed on this type"]);
    assert_eq!(metadata_errors("services", "", json!({"name": "1a", "namespace": "ns"})).len(), 0);
    assert_eq!(metadata_errors("services", "", json!({"name": "a.b", "namespace": "ns"})).len(), 1);
}

#[test]
fn m3_and_m4_labels_and_annotations() {
    let with = |labels: Value, annotations: Value| json!({"name": "a", "namespace": "n", "labels": labels, "annotations": annotations});
    check(with(json!({"a/b": ""}), json!({"A.B/C": "any text\n"})), &[]);
    check(
        with(json!({"a b": "c d"}), json!({"a b": "x"})),
        &[
            "metadata.labels: Invalid value: \"a b\": name part must consist",
            "metadata.labels: Invalid value: \"c d\": a valid label must be",
            "metadata.annotations: Invalid value: \"a b\": name part",
        ],
    );
    check(with(json!({}), json!({"a": "x".repeat(256 * 1024 - 1)})), &[]);
    check(
        with(json!({}), json!({"a": "x".repeat(256 * 1024)})),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
}

#[test]
fn m5_and_m6_owners_and_finalizers() {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true});
    let with = |owners: Value, finalizers: Value| json!({"name": "a", "namespace": "n", "ownerReferences": owners, "finalizers": finalizers});
    check(with(json!([owner]), json!(["foregroundDeletion", "a.b/c"])), &[]);
    check(
        with(
            json!([owner, owner, {"apiVersion": "a/b/c", "kind": "K"}, {"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "u"}]),
            json!(["orphan", "foregroundDeletion", "a b"]),
        ),
        &[
            "metadata.ownerReferences: Invalid value: [{\"",
            "metadata.ownerReferences[2].name: Required value: must not be empty",
            "metadata.ownerReferences[2].uid: Required value",
            "metadata.ownerReferences[2].apiVersion: Invalid value: \"a/b/c\": must be <group>/<version> or <version>",
            "metadata.ownerReferences[3]: Invalid value",
            "metadata.finalizers: Invalid value: \"a b\"",
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\",\"a b\"]: finalizer orphan and foregroundDeletion cannot be both set",
            "metadata.finalizers[2]: Invalid value: \"a b\": name is neither a standard finalizer name nor is it fully qualified",
        ],
    );
}

#[test]
fn m6_and_m7_what_an_update_may_not_touch() {
    let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 3, "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a.b/c"]}});
    let mut kept = json!({"metadata": {"name": "a", "namespace": "n", "generation": 3}});
    keep_system_metadata(&mut kept, &old);
    assert_eq!(
        (&kept["metadata"]["uid"], &kept["metadata"]["deletionTimestamp"]),
        (&json!("u"), &json!("2026-01-02T00:00:00Z"))
    );
    let mut errors = Errors::new();
    validate_metadata_update(&kept, &old, &mut errors);
    assert!(errors.is_empty());

    let other = json!({"metadata": {"name": "b", "namespace": "m", "uid": "v", "creationTimestamp": "2026-01-01T00:00:01Z",
        "generation": 2, "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a.b/c", "d.e/f"]}});
    validate_metadata_update(&other, &old, &mut errors);
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"d.e/f\"}",
            "metadata.generation: Invalid value: 2: must not be decremented",
            "metadata.name: Invalid value: \"b\": field is immutable",
            "metadata.namespace: Invalid value: \"m\": field is immutable",
            "metadata.uid: Invalid value: \"v\": field is immutable",
            "metadata.creationTimestamp: Invalid value: \"2026-01-01T00:00:01Z\": field is immutable",
        ]
    );
    let mut not_ending = json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}});
    keep_system_metadata(&mut not_ending, &json!({"metadata": {}}));
    assert_eq!(not_ending, json!({"metadata": {}}));
}

/// What is not set is selected by its zero, and some names are not those of fields.
#[test]
fn field_selectors_find_what_kubernetes_finds() {
    let registry = registry();
    let selected = |api_version: &str, kind: &str, object: Value, path: &str| {
        let resource = registry.find_kind(api_version, kind).expect("a built-in kind");
        assert!(resource.selectable_fields.iter().any(|field| field == path), "{kind} {path}");
        resource.selected(&object, path)
    };
    let pod = |spec: Value, path: &str| selected("v1", "Pod", json!({"spec": spec, "status": {"podIPs": []}}), path);
    assert_eq!(pod(json!({}), "spec.hostNetwork"), "false");
    assert_eq!(pod(json!({"hostNetwork": true}), "spec.hostNetwork"), "true");
    assert_eq!((pod(json!({}), "spec.nodeName"), pod(json!({}), "status.podIPs")), (String::new(), String::new()));
    assert_eq!(selected("v1", "Node", json!({}), "spec.unschedulable"), "false");
    assert_eq!(selected("v1", "ReplicationController", json!({}), "status.replicas"), "0");
    assert_eq!(selected("batch/v1", "Job", json!({"status": {"succeeded": 2}}), "status.successful"), "2");
    assert_eq!(selected("batch/v1", "Job", json!({}), "status.successful"), "0");
    let source = |event: Value| selected("v1", "Event", event, "source");
    assert_eq!(source(json!({"source": {"component": "a"}, "reportingComponent": "b"})), "a");
    assert_eq!(source(json!({"source": {}, "reportingComponent": "b"})), "b");
}
