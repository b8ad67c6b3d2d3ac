//! Lawful: an object only changes in ways that objects of its kind may change, whoever writes it.
//!
//! Source: Kubernetes documentation, "Pod Lifecycle" (a pod is bound once, a terminal phase is for good) and "Finalizers"
//! (a deletion cannot be taken back); API conventions, "generation".
//!
//! Rules, for one object from one time it is seen to a later one
//!   R1 bound     a pod that has a node keeps it
//!   R2 over      a pod that has succeeded or failed stays so
//!   R3 ending    what is being deleted stays so
//!   R4 forward   generation, observedGeneration and restart counts do not decrease

use std::collections::BTreeMap;

use serde_json::Value;

/// What an object may not have done between these two sights of it.
pub fn check(before: &Value, after: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let node = &before["spec"]["nodeName"];
    if node.is_string() && node != &after["spec"]["nodeName"] {
        wrong.push(format!("R1 it moved from {node} to {}", after["spec"]["nodeName"]));
    }
    let phase = &before["status"]["phase"];
    if (phase == "Succeeded" || phase == "Failed") && phase != &after["status"]["phase"] {
        wrong.push(format!("R2 it went from {phase} to {}", after["status"]["phase"]));
    }
    if before["metadata"]["deletionTimestamp"].is_string() && after["metadata"]["deletionTimestamp"].is_null() {
        wrong.push("R3 its deletion was taken back".to_owned());
    }
    let counts = counts(after);
    for (name, before) in self::counts(before) {
        let after = counts.get(&name).copied();
        if after.is_some_and(|after| after < before) {
            wrong.push(format!("R4 {name} went from {before} back to {}", after.unwrap_or_default()));
        }
    }
    wrong
}

fn counts(object: &Value) -> BTreeMap<String, i64> {
    let fields = [
        ("generation", &object["metadata"]["generation"]),
        ("observedGeneration", &object["status"]["observedGeneration"]),
    ];
    let mut counts: BTreeMap<String, i64> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_i64()?))).collect();
    for container in object["status"]["containerStatuses"].as_array().into_iter().flatten() {
        if let (Some(name), Some(count)) = (container["name"].as_str(), container["restartCount"].as_i64()) {
            counts.insert(format!("restartCount of {name}"), count);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({"metadata": {"generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Failed", "containerStatuses": [{"name": "c", "restartCount": 3}]}})
    }

    /// The rules that a change breaks.
    fn broken(change: impl Fn(&mut Value)) -> String {
        let mut after = pod();
        change(&mut after);
        check(&pod(), &after).iter().map(|wrong| wrong[..2].to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_an_object_may_do_is_no_violation() {
        assert_eq!(broken(|pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(4)), "");
        let pending = json!({"spec": {}, "status": {"phase": "Pending"}});
        assert_eq!(check(&pending, &pod()), [""; 0]);
    }

    #[test]
    fn each_rule_finds_what_breaks_it() {
        assert_eq!(broken(|pod| pod["spec"]["nodeName"] = json!("n2")), "R1");
        assert_eq!(broken(|pod| pod["status"]["phase"] = json!("Running")), "R2");
        assert_eq!(broken(|pod| pod["metadata"]["deletionTimestamp"] = Value::Null), "R3");
        assert_eq!(broken(|pod| pod["metadata"]["generation"] = json!(1)), "R4");
        assert_eq!(broken(|pod| pod["status"]["containerStatuses"][0]["restartCount"] = json!(2)), "R4");
    }
}
