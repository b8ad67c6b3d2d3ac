//! Rules in CEL of custom kinds.

use serde_json::{Value, json};

use super::{DEFINITIONS, FOOS, foo, foos, spec, with};
use crate::Api;

fn errors(reply: &crate::Reply) -> String {
    let said = reply.said();
    said.split_once("is invalid: ").map_or(said.clone(), |(_, errors)| errors.to_owned())
}

/// A definition whose spec has these properties and rules.
fn ruled(properties: &Value, rules: &Value) -> Value {
    let mut schema = spec(properties);
    schema["properties"]["spec"]["x-kubernetes-validations"] = rules.clone();
    foos(&schema)
}

#[tokio::test]
async fn objects_that_break_rules_are_refused_in_the_words_of_the_rules() {
    let properties =
        json!({"least": {"type": "integer"}, "most": {"type": "integer"}, "name": {"type": "string", "maxLength": 20}});
    let rules = json!([
        {"rule": "self.least <= self.most", "message": "least may not be more than most"},
        {"rule": "self.most < 10 || !has(self.name)", "messageExpression": "'too much for ' + self.name"},
        {"rule": "!has(self.name) || self.name != 'root'", "reason": "FieldValueForbidden", "fieldPath": ".name",
            "message": "root is not for you"},
    ]);
    let api = with(&ruled(&properties, &rules)).await;
    for (spec, expected) in [
        (json!({"least": 2, "most": 1}), "spec: Invalid value: \"object\": least may not be more than most"),
        (json!({"least": 2, "most": 12, "name": "me"}), "spec: Invalid value: \"object\": too much for me"),
        (json!({"least": 2, "most": 3, "name": "root"}), "spec.name: Forbidden: root is not for you"),
        (
            json!({"least": "2", "most": 1}),
            "[spec.least: Invalid value: \"string\": spec.least in body must be of type integer: \"string\", <nil>: Invalid \
             value: null: some validation rules were not checked because the object was invalid; correct the existing \
             errors to complete validation]",
        ),
    ] {
        assert_eq!(errors(&api.post(FOOS, &foo("x", &spec)).await), expected);
    }
    api.make(FOOS, &foo("x", &json!({"least": 1, "most": 2}))).await;
    let refused = api.merge(&format!("{FOOS}/x"), &json!({"spec": {"least": 3}})).await;
    assert_eq!(errors(&refused), "spec: Invalid value: \"object\": least may not be more than most");
    assert_eq!(api.merge(&format!("{FOOS}/x"), &json!({"spec": {"least": 2}})).await.said(), "200");
}

#[tokio::test]
async fn transition_rules_hold_updates_against_what_was() {
    let ports = json!({
        "type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 20}, "port": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.port == oldSelf.port", "message": "port is immutable"}]},
    });
    let class = json!({"type": "string", "maxLength": 20,
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "class is immutable"}]});
    let api = with(&foos(&spec(&json!({"class": class, "ports": ports})))).await;
    let old = json!({"class": "a", "ports": [{"name": "p", "port": 1}]});
    let mut object = api.make(FOOS, &foo("x", &old)).await;
    let path = format!("{FOOS}/x");
    object["spec"] = json!({"class": "b", "ports": [{"name": "q", "port": 7}, {"name": "p", "port": 2}]});
    assert_eq!(
        errors(&api.put(&path, &object).await),
        "[spec.class: Invalid value: \"b\": class is immutable, spec.ports[1]: Invalid value: \"object\": port is immutable]"
    );
    object["spec"] = json!({"class": "a", "ports": [{"name": "q", "port": 7}, {"name": "p", "port": 1}]});
    assert_eq!(api.put(&path, &object).await.said(), "200");
}

#[tokio::test]
async fn what_breaks_a_newer_rule_stays_until_it_is_changed() {
    let properties = json!({"a": {"type": "string", "maxLength": 20}, "b": {"type": "string"}});
    let api = with(&foos(&spec(&properties))).await;
    api.make(FOOS, &foo("x", &json!({"a": "odd"}))).await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut definition = api.get(&path).await.json();
    let a = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/a";
    definition.pointer_mut(a).expect("a field")["x-kubernetes-validations"] =
        json!([{"rule": "self.startsWith('a')", "message": "begins with a"}]);
    assert_eq!(api.put(&path, &definition).await.said(), "200");
    let object = format!("{FOOS}/x");
    assert_eq!(api.merge(&object, &json!({"spec": {"b": "y"}})).await.said(), "200");
    let refused = api.merge(&object, &json!({"spec": {"a": "other"}})).await;
    assert_eq!(errors(&refused), "spec.a: Invalid value: \"other\": begins with a");
}

#[tokio::test]
async fn rules_that_do_not_compile_are_refused_with_the_definition() {
    let api = Api::start().await;
    let refused = api.post(DEFINITIONS, &ruled(&json!({}), &json!([{"rule": "self.x == 1"}]))).await;
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    let said = errors(&refused);
    assert!(said.starts_with(at) && said.contains("undefined field 'x'"), "{said}");
}

#[tokio::test]
async fn a11_a_cost_bomb_is_refused_with_the_definition() {
    let api = Api::start().await;
    let list = json!({"a": {"type": "array", "items": {"type": "string"}}});
    let bomb = json!([{"rule": "self.a.all(x, self.a.all(y, self.a.all(z, x + y != z)))"}]);
    let refused = api.post(DEFINITIONS, &ruled(&list, &bomb)).await;
    assert!(
        refused.said().contains("estimated rule cost exceeds budget by factor of more than 100x"),
        "{}",
        refused.said()
    );
    assert_eq!(refused.code.as_u16(), 422);
}

#[tokio::test]
async fn a11_a_rule_that_runs_too_long_is_cut() {
    // The worst case that the definition declares is within the estimate's limit, but not within one evaluation's.
    let list = json!({"a": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}});
    let rule = json!([{"rule": "self.a.all(x, self.a.all(y, x + y >= 0))", "message": "slow"}]);
    let api = with(&ruled(&list, &rule)).await;
    let many: Vec<u32> = (0..1000).collect();
    let cut = errors(&api.post(FOOS, &foo("x", &json!({"a": many}))).await);
    assert!(
        cut.contains("no further validation rules will be run due to call cost exceeds limit for rule: slow"),
        "{cut}"
    );
    api.make(FOOS, &foo("x", &json!({"a": [1, 2, 3]}))).await;
}
