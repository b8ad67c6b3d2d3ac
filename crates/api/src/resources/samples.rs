//! Samples: for each built-in kind, one small object that breaks no rule, and a status that it may have.
//!
//! What has to hold of every kind is shown with these, by tests here and through the whole API server; a new kind adds a
//! row. Every object is called `sample` unless its kind has a rule for names, and is in `default` if it is in a namespace.

use serde_json::Value;

use crate::codec::{Limits, yaml};

/// One object of a kind, as somebody would write it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The manifest.
    pub object: Value,
    /// What a controller would write to its `status`; null for kinds that have none.
    pub status: Value,
}

/// The manifest and the status, as YAML.
const ROWS: &[(&str, &str)] = &[
    ("{apiVersion: v1, kind: Namespace, metadata: {name: sample}}", "{phase: Active}"),
    (
        "{apiVersion: v1, kind: Node, metadata: {name: sample}, spec: {podCIDR: 10.42.7.0/24}}",
        "{capacity: {cpu: 2, memory: 4Gi}, conditions: [{type: Ready, status: 'True'}]}",
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: sample}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}",
        "{phase: Running}",
    ),
    (
        "{apiVersion: v1, kind: Service, metadata: {name: sample}, spec: {selector: {app: sample}, ports: [{port: 80}]}}",
        "{loadBalancer: {ingress: [{ip: 192.0.2.1}]}}",
    ),
    ("{apiVersion: v1, kind: ConfigMap, metadata: {name: sample}, data: {k: v}}", ""),
    ("{apiVersion: v1, kind: Secret, metadata: {name: sample}, stringData: {k: v}}", ""),
    ("{apiVersion: v1, kind: ServiceAccount, metadata: {name: sample}}", ""),
    (
        "{apiVersion: v1, kind: Event, metadata: {name: sample}, reason: Pulled, message: done, type: Normal, \
         involvedObject: {kind: Pod, name: sample, namespace: default}}",
        "",
    ),
    (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: sample}, spec: {selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: sample}, spec: {selector: {matchLabels: {app: sample}}, \
         template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: c, image: 'example.com/app:1'}]}}}}",
        "{observedGeneration: 1, replicas: 1}",
    ),
    (
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: sample}, addressType: IPv4, \
         endpoints: [{addresses: [10.42.7.2]}], ports: [{port: 80}]}",
        "",
    ),
    (
        "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: sample}, \
         spec: {holderIdentity: a, leaseDurationSeconds: 40}}",
        "",
    ),
];

/// The samples, in no order that means anything.
pub fn samples() -> Vec<Sample> {
    let rows = ROWS.iter();
    rows.map(|(object, status)| Sample { object: tree(object), status: tree(status) }).collect()
}

fn tree(text: &str) -> Value {
    let mut documents = yaml::documents(text, Limits::default()).expect("the rows above are YAML");
    documents.pop().unwrap_or_default()
}
