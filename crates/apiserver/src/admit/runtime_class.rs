//! What a pod takes from its RuntimeClass.
//!
//! Rules
//!   R1 known        a class that a pod names exists
//!   R2 overhead     is the class's, and nobody else's
//!   R3 scheduling   the class's selector and tolerations are added to the pod's; a contradiction is refused
//!
//! Source: admission controllers reference, RuntimeClass; KEP-688.

use serde_json::{Value, json};
use windlass_api::{ApiError, kinds};
use windlass_store::{Expect, Op};

use crate::key;
use crate::server::Call;
use crate::write::{self, text};

/// R1 to R3 for a new pod. Gives what must still hold when it is written.
pub(super) fn create(call: Call<'_>, pod: &mut Value) -> Result<Vec<Op>, ApiError> {
    let name = text(&pod["metadata"], "name").to_owned();
    let refuse = |why: String| ApiError::forbidden(&kinds::POD, &name, &why);
    let spec = &mut pod["spec"];
    let class_name = text(spec, "runtimeClassName").to_owned();
    if class_name.is_empty() {
        let has_overhead = spec["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty());
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return if has_overhead { Err(refuse(why.to_owned())) } else { Ok(Vec::new()) };
    }
    let not_found = || refuse(format!("pod rejected: RuntimeClass {class_name:?} not found"));
    if class_name.contains('/') {
        return Err(not_found());
    }
    let key = key::object(&kinds::RUNTIME_CLASS, "", &class_name);
    let entry = call.server.store.get(&key).ok_or_else(not_found)?;
    let class = write::tree(&entry);
    give_overhead(&class["overhead"]["podFixed"], spec).map_err(&refuse)?;
    give_place(&class["scheduling"], spec).map_err(&refuse)?;
    Ok(vec![Op::check(key, Expect::Revision(entry.revision))])
}

/// R2.
fn give_overhead(overhead: &Value, spec: &mut Value) -> Result<(), String> {
    let is_none = |value: &Value| value.as_object().is_none_or(|amounts| amounts.is_empty());
    match (is_none(overhead), is_none(&spec["overhead"])) {
        (true, true) => {}
        (true, false) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        }
        (false, true) => spec["overhead"] = overhead.clone(),
        (false, false) if spec["overhead"] == *overhead => {}
        (false, false) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
    }
    Ok(())
}

/// R3.
fn give_place(scheduling: &Value, spec: &mut Value) -> Result<(), String> {
    for (key, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        if spec["nodeSelector"].is_null() {
            spec["nodeSelector"] = json!({});
        }
        let Some(selector) = spec["nodeSelector"].as_object_mut() else { return Ok(()) };
        let found = selector.entry(key.clone()).or_insert_with(|| wanted.clone());
        if found != wanted {
            let [wanted, found] = [wanted, found].map(|value| value.as_str().unwrap_or_default().to_owned());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {found}"
            ));
        }
    }
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        if spec["tolerations"].is_null() {
            spec["tolerations"] = json!([]);
        }
        if let Some(own) = spec["tolerations"].as_array_mut().filter(|own| !own.contains(toleration)) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{give_overhead, give_place};
    use serde_json::json;

    #[test]
    fn r2_overhead_is_the_classes() {
        let mut spec = json!({});
        let overhead = json!({"memory": "120Mi"});
        assert_eq!(give_overhead(&overhead, &mut spec), Ok(()));
        assert_eq!(spec["overhead"], overhead);
        assert_eq!(give_overhead(&overhead, &mut spec), Ok(()));
        assert!(give_overhead(&json!({"memory": "1Mi"}), &mut spec).is_err_and(|why| why.contains("doesn't match")));
        assert!(give_overhead(&json!(null), &mut spec).is_err_and(|why| why.contains("without corresponding")));
    }

    #[test]
    fn r3_the_classes_place_is_added() {
        let scheduling = json!({"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]});
        let mut spec = json!({"nodeSelector": {"disk": "fast"}});
        assert_eq!(give_place(&scheduling, &mut spec), Ok(()));
        assert_eq!(give_place(&scheduling, &mut spec), Ok(()), "twice is once");
        assert_eq!(spec["nodeSelector"], json!({"disk": "fast", "vm": "yes"}));
        assert_eq!(spec["tolerations"], scheduling["tolerations"]);
        let mut other = json!({"nodeSelector": {"vm": "no"}});
        let expected = "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no";
        assert_eq!(give_place(&scheduling, &mut other), Err(expected.to_owned()));
    }
}
