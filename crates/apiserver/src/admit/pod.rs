//! New pods: the account they run as, the priority they have, and how long they bear an unwell node.
//!
//! Source: admission controllers reference, ServiceAccount, Priority, DefaultTolerationSeconds.

use serde_json::{Map, Value, json};

/// How long a pod stays bound to a node that is not ready or cannot be reached.
const TOLERATION_SECONDS: u64 = 300;

pub(super) fn create(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let account = spec.get("serviceAccountName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let account = account.unwrap_or("default").to_owned();
    spec.insert("serviceAccountName".to_owned(), json!(account));
    // The older spelling of the same field, which clients still read.
    spec.insert("serviceAccount".to_owned(), json!(account));
    spec.entry("priority").or_insert(json!(0));
    spec.entry("preemptionPolicy").or_insert(json!("PreemptLowerPriority"));
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        tolerate(spec, key);
    }
}

/// Adds a toleration of this taint unless the pod says something about it already.
fn tolerate(spec: &mut Map<String, Value>, key: &str) {
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(list) = tolerations.as_array_mut() else { return };
    let speaks_of_it = |toleration: &Value| {
        let field = |name: &str| toleration[name].as_str().unwrap_or_default();
        (field("key") == key || field("key").is_empty()) && matches!(field("effect"), "" | "NoExecute")
    };
    if !list.iter().any(speaks_of_it) {
        list.push(json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
        }));
    }
}
