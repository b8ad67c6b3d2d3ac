//! What the scheduler's tests use: pods and nodes from JSON.

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_api::Object;

use crate::node::{Node, NodeFacts};
use crate::pod::Pod;

/// A pod of this spec.
pub(crate) fn pod(spec: Value) -> Pod {
    named_pod("p", spec)
}

/// A pod of this name and spec.
pub(crate) fn named_pod(name: &str, spec: Value) -> Pod {
    labelled_pod(name, json!({}), spec)
}

/// A pod with labels.
pub(crate) fn labelled_pod(name: &str, labels: Value, spec: Value) -> Pod {
    let metadata = json!({"name": name, "namespace": "a", "uid": name, "labels": labels});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    Pod::read(&Object::parse(Bytes::from(pod.to_string())).expect("a pod"))
}

/// A node of 4 processors, 8 GiB and 110 pods, with fields changed by their JSON pointers.
pub(crate) fn node(name: &str, changes: Value) -> Node {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110"}}});
    for (pointer, value) in changes.as_object().expect("a map of pointers") {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
        node.pointer_mut(parent).expect("the parent exists")[field] = value.clone();
    }
    let facts = NodeFacts::read(&Object::parse(Bytes::from(node.to_string())).expect("a node"));
    let mut node = Node::new(name);
    node.facts = Some(facts);
    node
}
