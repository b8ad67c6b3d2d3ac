//! At start every default role and binding is there and allows at least what it should.
//!
//! Rules
//!   S1 missing     what is not there is created
//!   S2 less        a role gets the rules that it lacks, a binding the subjects; what somebody added stays
//!   S3 other       a binding to another role is made anew, since its role never changes
//!   S4 kept        what is annotated `autoupdate: "false"` is left alone; a role that is made of others keeps its rules
//! Source: authorization reference, "Auto-reconciliation".

use std::sync::Arc;

use futures::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use windlass_api::ApiError;

use crate::bootstrap::call;
use crate::key;
use crate::rbac::defaults::{DefaultObject, defaults};
use crate::rbac::rule::{Rule, missing};
use crate::server::Server;
use crate::write::{text, tree};

pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What is done about one of them.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create,
    Replace(Value),
    Renew,
}

/// Creates and completes the default roles and bindings. The namespaces are there.
pub(crate) async fn restore(server: &Arc<Server>) -> Result<(), ApiError> {
    // All at once: on a new disk they are made durable together.
    try_join_all(defaults().into_iter().map(|default| async move { restore_one(server, &default).await })).await?;
    Ok(())
}

async fn restore_one(server: &Arc<Server>, default: &DefaultObject) -> Result<(), ApiError> {
    let DefaultObject { kind, namespace, object } = default;
    let name = text(&object["metadata"], "name");
    let found = server.store.get(&key::object(kind, namespace, name)).map(|entry| tree(&entry));
    let (collection, path) = (kind.collection_path(Some(namespace)), kind.object_path(namespace, name));
    const JSON: &str = "application/json";
    match plan(found.as_ref(), object) {
        Step::Nothing => Ok(()),
        Step::Create => call(server, Method::POST, &collection, JSON, object).await,
        Step::Replace(wished) => call(server, Method::PUT, &path, JSON, &wished).await,
        Step::Renew => {
            call(server, Method::DELETE, &path, JSON, &json!({})).await?;
            call(server, Method::POST, &collection, JSON, object).await
        }
    }
}

fn plan(found: Option<&Value>, wished: &Value) -> Step {
    let Some(found) = found else { return Step::Create };
    if found["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Step::Nothing;
    }
    if wished["roleRef"].is_object() && found["roleRef"] != wished["roleRef"] {
        return Step::Renew;
    }
    let mut whole = found.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in wished["metadata"][field].as_object().into_iter().flatten() {
            whole["metadata"][field][key] = value.clone();
        }
    }
    if wished["aggregationRule"].is_object() {
        if found["aggregationRule"].is_null() {
            whole["aggregationRule"] = wished["aggregationRule"].clone();
        }
    } else if wished["rules"].is_array() {
        add_rules(&mut whole, wished);
    }
    for subject in wished["subjects"].as_array().into_iter().flatten() {
        let has = whole["subjects"].as_array().is_some_and(|subjects| subjects.contains(subject));
        if !has {
            push(&mut whole["subjects"], subject.clone());
        }
    }
    if whole == *found { Step::Nothing } else { Step::Replace(whole) }
}

/// S2, for roles: a rule that is not held whole is added whole.
fn add_rules(whole: &mut Value, wished: &Value) {
    let read = |rules: &Value| serde_json::from_value::<Vec<Rule>>(rules.clone()).unwrap_or_default();
    let held = read(&whole["rules"]);
    for rule in wished["rules"].as_array().into_iter().flatten() {
        if !missing(&held, &read(&json!([rule]))).is_empty() {
            push(&mut whole["rules"], rule.clone());
        }
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::{AUTOUPDATE, Step, plan};
    use serde_json::{Value, json};

    fn role(rules: Value) -> Value {
        json!({"metadata": {"name": "r", "labels": {"a": "b"}}, "rules": rules})
    }

    fn read_pods(verbs: Value) -> Value {
        json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}])
    }

    #[test]
    fn s1_s2_what_lacks_is_added_and_what_was_added_stays() {
        let wished = role(read_pods(json!(["get", "list"])));
        assert_eq!(plan(None, &wished), Step::Create);
        assert_eq!(plan(Some(&wished), &wished), Step::Nothing);
        let more = role(read_pods(json!(["*"])));
        assert_eq!(plan(Some(&more), &wished), Step::Nothing);
        let less = role(read_pods(json!(["get"])));
        let Step::Replace(whole) = plan(Some(&less), &wished) else { panic!("expected a change") };
        assert_eq!(whole["rules"], json!([less["rules"][0], wished["rules"][0]]));
        let bound = |subjects: Value| json!({"metadata": {}, "roleRef": {"name": "r"}, "subjects": subjects});
        let Step::Replace(whole) = plan(Some(&bound(json!(["jane"]))), &bound(json!(["masters"]))) else {
            panic!("expected a change")
        };
        assert_eq!(whole["subjects"], json!(["jane", "masters"]));
    }

    #[test]
    fn s3_a_binding_to_another_role_is_made_anew() {
        let bound = |role: &str| json!({"metadata": {}, "roleRef": {"name": role}});
        assert_eq!(plan(Some(&bound("a")), &bound("b")), Step::Renew);
    }

    #[test]
    fn s4_what_is_to_be_kept_is_kept() {
        let mut kept = role(json!([]));
        kept["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(plan(Some(&kept), &role(read_pods(json!(["get"])))), Step::Nothing);
        let mut made_of_others = role(read_pods(json!(["get"])));
        made_of_others["aggregationRule"] = json!({"clusterRoleSelectors": []});
        let mut found = role(json!([]));
        found["aggregationRule"] = json!({"clusterRoleSelectors": []});
        assert_eq!(plan(Some(&found), &made_of_others), Step::Nothing);
    }
}
