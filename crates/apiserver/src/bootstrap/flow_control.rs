//! The priority levels and flow schemas of every cluster: a part of the requests for its own parts, and one for the rest.
//!
//! `exempt` and `catch-all` are mandatory; the others are where a cluster starts. All carry the annotation by which
//! tools know that the cluster keeps them.
//!
//! Source: API priority and fairness reference, "Defaults"; KEP-1040.
//! Not here    sorting requests by them (`lanes` has its own, simpler rule)

use serde_json::{Value, json};
use windlass_api::resources::{catch_all_level, catch_all_schema, everything_by, exempt_schema};

const KEPT_ANNOTATION: &str = "apf.kubernetes.io/autoupdate-spec";
const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Name, shares, percent that may be lent, queues, hand of a limited level whose requests wait in queues.
const LEVELS: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];
/// Requests that wait in one queue.
const QUEUE_LENGTH: u32 = 50;

/// The priority levels.
pub(super) fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut levels = vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        object("PriorityLevelConfiguration", "catch-all", catch_all_level()),
    ];
    levels.extend(LEVELS.iter().map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH});
        let response = json!({"type": "Queue", "queuing": queuing});
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    }));
    levels
}

/// The flow schemas.
pub(super) fn schemas() -> Vec<Value> {
    let everybody = || vec![group("system:unauthenticated"), group("system:authenticated")];
    let controllers = || user("system:kube-controller-manager");
    let scheduler = || user("system:kube-scheduler");
    let accounts = || account("kube-system", "*");
    let probes = json!({"subjects": everybody(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let own_node = rule(
        vec![group("system:nodes")],
        &[
            resources(&["*"], "", &["nodes", "nodes/status"], true, &["*"]),
            resources(&["*"], "coordination.k8s.io", &["leases"], false, &["*"]),
        ],
    );
    let own_leases = rule(vec![controllers(), scheduler(), accounts()], &[leases(&["kube-system"])]);
    let endpoints = rule(
        vec![
            controllers(),
            account("kube-system", "endpoint-controller"),
            account("kube-system", "endpointslicemirroring-controller"),
        ],
        &[resources(&["get", "create", "update"], "", &["endpoints"], false, &["*"])],
    );
    vec![
        object("FlowSchema", "exempt", exempt_schema()),
        object("FlowSchema", "catch-all", catch_all_schema()),
        schema("probes", 2, "exempt", "", probes),
        schema("system-leader-election", 100, "leader-election", "ByUser", own_leases),
        schema("endpoint-controller", 150, "workload-high", "ByUser", endpoints),
        schema("workload-leader-election", 200, "leader-election", "ByUser", rule(vec![accounts()], &[leases(&["*"])])),
        schema("system-node-high", 400, "node-high", "ByUser", own_node),
        schema("system-nodes", 500, "system", "ByUser", everything_by(vec![group("system:nodes")])),
        schema("kube-controller-manager", 800, "workload-high", "ByNamespace", everything_by(vec![controllers()])),
        schema("kube-scheduler", 800, "workload-high", "ByNamespace", everything_by(vec![scheduler()])),
        schema("kube-system-service-accounts", 900, "workload-high", "ByNamespace", everything_by(vec![accounts()])),
        schema(
            "service-accounts",
            9000,
            "workload-low",
            "ByUser",
            everything_by(vec![group("system:serviceaccounts")]),
        ),
        schema("global-default", 9900, "global-default", "ByUser", everything_by(everybody())),
    ]
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "spec": spec,
        "metadata": {"name": name, "annotations": {KEPT_ANNOTATION: "true"}}})
}

/// A schema of one rule; its flows are told apart by `method`, if that is not empty.
fn schema(name: &str, precedence: u32, level: &str, method: &str, rule: Value) -> Value {
    let mut spec = json!({
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule],
    });
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

fn rule(subjects: Vec<Value>, resources: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": resources})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool, namespaces: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "clusterScope": cluster,
        "namespaces": namespaces})
}

fn leases(namespaces: &[&str]) -> Value {
    resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false, namespaces)
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn account(namespace: &str, name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
}
