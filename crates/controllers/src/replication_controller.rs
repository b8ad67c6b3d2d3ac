//! ReplicationController: the ReplicaSet from before there were ReplicaSets.
//!
//! Goal        pods owned by the controller, matching its labels, not ended and not ending == spec.replicas
//! Watches     ReplicationController; Pod (owned, or nobody's and matching)
//! Writes      Pod: create, delete, owner reference · ReplicationController: status
//!
//! Rules
//!   R1 rules     those of the ReplicaSet (replica_set)
//!   R2 selector  plain labels, all of which a pod has
//!   R3 status    as the ReplicaSet's, without what only that counts
//! Not here       the rules themselves (replica_set)

use serde_json::json;
use windlass_api::{Kind, Object, kinds};

use crate::replica_set::{Replicas, Replicated, SetFacts};

/// The controller of ReplicationControllers.
pub(crate) type ReplicationControllers = Replicas<ReplicationController>;

/// The kind ReplicationController.
pub(crate) struct ReplicationController;

impl Replicated for ReplicationController {
    const NAME: &'static str = "replicationcontroller";

    fn kind() -> &'static Kind {
        &kinds::REPLICATION_CONTROLLER
    }

    fn read(object: &Object) -> Result<SetFacts, serde_json::Error> {
        let mut tree = object.value();
        if let Some(labels) = tree.pointer_mut("/spec/selector") {
            *labels = json!({"matchLabels": labels.take()});
        }
        serde_json::from_value(tree)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use windlass_client::Patch;

    use super::{ReplicationController, ReplicationControllers};
    use crate::controller::Controller;
    use crate::fixture::{change, check, object};
    use crate::plan::{Action, Plan};
    use crate::replica_set::view_of;

    fn controller(changes: Value) -> Value {
        let mut controller = json!({
            "apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "web", "namespace": "a", "uid": "rc", "generation": 1},
            "spec": {"replicas": 1, "selector": {"app": "web"},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 1, "fullyLabeledReplicas": 1, "observedGeneration": 1},
        });
        change(&mut controller, changes);
        controller
    }

    fn pod(name: &str, label: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": label}, "resourceVersion": "5",
                "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "web", "uid": "rc",
                    "controller": true}]},
            "status": {"phase": "Pending"}})
    }

    fn plan(controller: &Value, pods: &[Value]) -> Plan {
        let pods = pods.iter().map(object).collect();
        ReplicationControllers::plan(&view_of::<ReplicationController>(&object(controller), pods))
    }

    #[test]
    fn r1_missing_pods_are_created_and_surplus_ones_deleted() {
        check(&plan(&controller(json!({})), &[pod("p1", "web")]), "");
        let more = plan(&controller(json!({"/spec/replicas": 2})), &[pod("p1", "web")]);
        check(&more, "create pods a/web-: Created pod: {name}");
        let Action::Create { object, .. } = &more.items[0].action else { panic!("a pod is created") };
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["apiVersion"], &owner["kind"]), (&json!("v1"), &json!("ReplicationController")));
        let fewer = plan(&controller(json!({"/spec/replicas": 0})), &[pod("p1", "web")]);
        check(&fewer, "delete pods a/p1: Deleted pod: p1");
    }

    #[test]
    fn r2_a_pod_with_other_labels_is_released() {
        let text = plan(&controller(json!({})), &[pod("p1", "db")]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "patch pods a/p1: Pod p1 is not selected any more");
        assert_eq!(lines[1], "create pods a/web-: Created pod: {name}");
    }

    #[test]
    fn r3_the_status_counts_what_the_kind_has_fields_for() {
        let plan = plan(&controller(json!({"/status/observedGeneration": 0})), &[pod("p1", "web")]);
        let Action::Patch { patch: Patch::Merge(patch), target, .. } = &plan.items[0].action else {
            panic!("a status")
        };
        assert_eq!(target.to_string(), "replicationcontrollers a/web");
        assert_eq!(patch["status"]["replicas"], 1);
        assert!(patch["status"].get("terminatingReplicas").is_none(), "{patch}");
    }
}
