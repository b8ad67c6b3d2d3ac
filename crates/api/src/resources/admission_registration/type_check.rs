//! What the expressions of a validating policy would get wrong about the kinds that it is for: said in its status, never
//! refused.
//!
//! Rules
//!   T1 kinds   those that its rules name without wildcards; of one rule the first ten, and no rule after that one
//!   T2 seen    `object` and `oldObject` are as the kind's schema has them, `params` as that of their kind if it is
//!              served; variables have the types that follow, and any where they do not compile
//!   T3 said    of each validation and its message, for each kind: what does not compile, and where
//!
//! Source: Kubernetes "Validating Admission Policy", type checking.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::tree::Tree;
use super::expression::{policy_environment, policy_variables};
use crate::cel::{Env, Type};
use crate::field::Path;
use crate::resource::{Registry, Resource};

/// T1.
const KINDS_MAX: usize = 10;

/// The `typeChecking` of a policy's status.
pub fn check_types(policy: &Value, registry: &Registry) -> Value {
    let spec = &policy["spec"];
    let environments: Vec<(String, Env)> = kinds(spec, registry)
        .iter()
        .filter_map(|resource| {
            let kind = &resource.kind;
            Some((
                format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind),
                environment(spec, resource, registry)?,
            ))
        })
        .collect();
    let mut warnings = Vec::new();
    let at = Path::new("spec").child("validations");
    for (index, validation) in spec.items("validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let found = wrong(validation.text(field), &environments);
            if !found.is_empty() {
                let place = at.index(index).child(field).to_string();
                warnings.push(json!({"fieldRef": place, "warning": found.join("\n")}));
            }
        }
    }
    if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) }
}

/// T3.
fn wrong(expression: &str, environments: &[(String, Env)]) -> Vec<String> {
    if expression.is_empty() {
        return Vec::new();
    }
    let refusals = environments.iter().filter_map(|(kind, env)| Some((kind, env.compile(expression).err()?)));
    refusals.map(|(kind, errors)| format!("{kind}: {errors}\n")).collect()
}

/// T2.
fn environment(spec: &Value, resource: &Resource, registry: &Registry) -> Option<Env> {
    let object = resource.shape()?;
    let mut base =
        policy_environment(spec.is_set("paramKind")).variable("object", object.clone()).variable("oldObject", object);
    let params = &spec["paramKind"];
    let params = registry.find_kind(params.text("apiVersion"), params.text("kind"));
    if let Some(params) = params.and_then(|params| params.shape()) {
        base = base.variable("params", params);
    }
    let mut known: Vec<(String, Type)> = Vec::new();
    for variable in spec.items("variables") {
        let program = policy_variables(&base, &known).compile(variable.text("expression"));
        let of = program.map_or(Type::Dyn, |program| program.output().clone());
        known.push((variable.text("name").to_owned(), of));
    }
    Some(policy_variables(&base, &known))
}

/// T1, in order.
fn kinds(spec: &Value, registry: &Registry) -> Vec<Arc<Resource>> {
    let mut found: Vec<Arc<Resource>> = Vec::new();
    for rule in spec["matchConstraints"].items("resourceRules") {
        let named = named_by(rule, registry);
        let is_last = named.len() >= KINDS_MAX;
        for resource in named.into_iter().take(KINDS_MAX) {
            if found.iter().all(|other| other.kind != resource.kind) {
                found.push(resource);
            }
        }
        if is_last {
            break;
        }
    }
    let order = |resource: &Arc<Resource>| {
        let kind = &resource.kind;
        (kind.group.to_string(), kind.version.to_string(), kind.kind.to_string())
    };
    found.sort_by_key(order);
    found
}

/// The kinds that one rule names: none if it says "all" of anything but resources. Subresources are not looked at.
fn named_by(rule: &Value, registry: &Registry) -> Vec<Arc<Resource>> {
    let words = |field: &str| {
        let mut words: Vec<&str> = rule.items(field).iter().filter_map(Value::as_str).collect();
        words.sort_unstable();
        words
    };
    let (groups, versions) = (words("apiGroups"), words("apiVersions"));
    if groups.iter().chain(&versions).any(|word| word.contains('*')) {
        return Vec::new();
    }
    let resources: Vec<&str> = words("resources").into_iter().filter(|word| !word.contains(['*', '/'])).collect();
    let mut found = Vec::new();
    for group in groups {
        for version in &versions {
            found.extend(resources.iter().filter_map(|plural| registry.get(group, version, plural).cloned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check_types;
    use crate::resources::registry;
    use serde_json::{Value, json};

    fn warnings(spec: Value) -> Vec<(String, String)> {
        let checked = check_types(&json!({"spec": spec}), &registry());
        let warnings = checked["expressionWarnings"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        warnings.iter().map(|warning| (text(&warning["fieldRef"]), text(&warning["warning"]))).collect()
    }

    fn on(resources: &[&str]) -> Value {
        json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources}]})
    }

    #[test]
    fn t3_a_field_that_no_schema_has_is_said_with_its_kind_and_place() {
        let spec = json!({"matchConstraints": on(&["deployments", "replicasets", "deployments/scale"]), "validations": [
            {"expression": "object.spec.replicas > 1", "messageExpression": "'replicas: ' + object.replicas"},
            {"expression": "object.metadata.labels['a'] == 'b' && (oldObject == null || oldObject.spec.paused)"},
        ]});
        let undefined = |kind: &str, place: &str| format!("apps/v1, Kind={kind}: ERROR: <input>:1:{place}\n");
        let replicas = "22: undefined field 'replicas'\n | 'replicas: ' + object.replicas\n | .....................^";
        let paused = "75: undefined field 'paused'\n | object.metadata.labels['a'] == 'b' && (oldObject == null || oldObject.spec.paused)\n | ..........................................................................^";
        let [first, second] = warnings(spec).try_into().expect("two warnings");
        assert_eq!(first.0, "spec.validations[0].messageExpression");
        assert_eq!(first.1, [undefined("Deployment", replicas), undefined("ReplicaSet", replicas)].join("\n"));
        assert_eq!(second, ("spec.validations[1].expression".to_owned(), undefined("ReplicaSet", paused)));
    }

    #[test]
    fn t2_variables_and_parameters_have_types_too() {
        let spec = json!({"matchConstraints": on(&["deployments"]), "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "count", "expression": "object.spec.replicas"}, {"name": "odd", "expression": "object.spec.odd"}],
            "validations": [{"expression": "variables.count == 'a'"}, {"expression": "variables.odd == 'a'"},
                {"expression": "params.data['a'] == 'b'"}, {"expression": "params.spec.a"}]});
        let places: Vec<String> = warnings(spec).into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, ["spec.validations[0].expression", "spec.validations[3].expression"]);
    }

    #[test]
    fn t1_what_a_rule_does_not_name_is_not_checked() {
        for rule in [
            json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["deployments"]}),
            json!({"apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["deployments"]}),
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*"]}),
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale", "nothings"]}),
        ] {
            let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "object.nothing"}]});
            assert!(warnings(spec).is_empty());
        }
    }
}
