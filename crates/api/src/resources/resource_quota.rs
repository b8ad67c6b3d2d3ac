//! ResourceQuota: how much all objects of a namespace may use together.
//!
//! Rules
//!   Q1 resources   known to quotas, or with a domain of their own; amounts not negative, and whole where they count
//!   Q2 scopes      known, without contradiction, and able to count what is bounded; never change
//!   Q3 selector    known scopes and operators, with values where they need some
//! Source: API reference, core/v1 ResourceQuota.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::check::quantity;
use super::tree::{Tree, carry_over};
use super::{age, age_column, column, name_column, pod, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::quantity::Quantity;
use crate::resource::{Resource, Rules, Subresource};

/// Resources of pods.
const COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Numbers of objects.
const COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const POD_SCOPES: &[&str] =
    &["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"];
const CLAIM_SCOPE: &str = "VolumeAttributesClass";
/// Scopes that are there or not, without values.
const PLAIN_SCOPES: &[&str] =
    &["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity"];
const CONTRADICTIONS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
const NEEDS_EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                            ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                            ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

/// The row of ResourceQuota.
pub(super) fn resource() -> Resource {
    let columns = vec![
        name_column(),
        column("Request", "string", "what is requested of what may be, and other amounts"),
        column("Limit", "string", "limits given of those that may be"),
        age_column(),
    ];
    row(&kinds::RESOURCE_QUOTA, columns, ResourceQuota)
        .shows_deleted()
        .short_names(&["quota"])
        .subresources(&[Subresource::Status])
}

struct ResourceQuota;

impl Rules for ResourceQuota {
    fn prepare_create(&self, object: &mut Value) {
        if object.is_object() {
            object["status"] = json!({});
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let (spec, at) = (&object["spec"], Path::new("spec"));
        validate_amounts(spec, "hard", &at, errors);
        validate_scopes(spec, &at, errors);
        validate_selector(spec, &at.child("scopeSelector"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (spec, before, at) = (&object["spec"], &old["spec"], Path::new("spec"));
        let sorted = |spec: &Value| {
            let mut scopes: Vec<String> = spec.items("scopes").iter().map(Value::to_string).collect();
            scopes.sort();
            scopes
        };
        if sorted(spec) != sorted(before) {
            errors.immutable(&at.child("scopes"), spec["scopes"].clone());
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        for field in ["hard", "used"] {
            validate_amounts(&object["status"], field, &Path::new("status"), errors);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let shown = |amount: Option<&Value>| {
            amount.and_then(|amount| Quantity::from_json(amount).ok()).unwrap_or(Quantity::ZERO).to_string()
        };
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let mut resources: Vec<(&String, &Value)> = status.entries("hard").iter().collect();
        resources.sort_by_key(|(resource, _)| *resource);
        for (resource, hard) in resources {
            let text = format!("{resource}: {}/{}", shown(status.entries("used").get(resource)), shown(Some(hard)));
            if resource.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![
            json!(object["metadata"].text("name")),
            json!(requests.join(", ")),
            json!(limits.join(", ")),
            age::of(object, now),
        ]
    }
}

/// Q1.
fn validate_amounts(part: &Value, field: &str, at: &Path, errors: &mut Errors) {
    for (resource, amount) in part.entries(field) {
        let path = at.child(field).key(resource);
        pod::validate_name(resource, &path, errors);
        let huge_pages = resource.starts_with("hugepages-") || resource.starts_with("requests.hugepages-");
        let known = huge_pages
            || resource == "requests.storage"
            || COMPUTE.contains(&resource.as_str())
            || COUNTS.contains(&resource.as_str());
        if !resource.contains('/') && !known {
            errors.invalid(&path, resource.as_str(), "must be a standard resource for quota");
        }
        let counts = COUNTS.contains(&resource.as_str()) || resource.starts_with("count/");
        if let Some(amount) = quantity(amount, &path, errors)
            && counts
            && Quantity::from_units(amount.units(), amount.notation()) != amount
        {
            errors.invalid(&path, amount.to_string(), "must be an integer");
        }
    }
}

/// Q2.
fn validate_scopes(spec: &Value, at: &Path, errors: &mut Errors) {
    let path = at.child("scopes");
    let given: Vec<&str> = spec.items("scopes").iter().filter_map(Value::as_str).collect();
    for scope in &given {
        if !POD_SCOPES.contains(scope) && *scope != CLAIM_SCOPE {
            errors.invalid(&path, spec["scopes"].clone(), "unsupported scope");
        }
        for resource in spec.entries("hard").keys() {
            if is_bounded(resource) && !can_count(scope, resource) {
                errors.invalid(&path, spec["scopes"].clone(), "unsupported scope applied to resource");
            }
        }
    }
    for (one, other) in CONTRADICTIONS {
        if given.contains(&one) && given.contains(&other) {
            errors.invalid(&path, spec["scopes"].clone(), "conflicting scopes");
        }
    }
}

fn is_bounded(resource: &str) -> bool {
    COMPUTE.contains(&resource) || COUNTS.contains(&resource)
}

fn can_count(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        CLAIM_SCOPE => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => resource == "pods" || (COMPUTE.contains(&resource) && !resource.ends_with("ephemeral-storage")),
    }
}

/// Q3.
/// Q3. Kubernetes names the list, not which of its items is wrong.
fn validate_selector(spec: &Value, at: &Path, errors: &mut Errors) {
    let (selector, path) = (&spec["scopeSelector"], at.child("matchExpressions"));
    for term in selector.items("matchExpressions") {
        let (scope, operator, values) = (term.text("scopeName"), term.text("operator"), term.items("values"));
        if !POD_SCOPES.contains(&scope) && scope != CLAIM_SCOPE {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for resource in spec.entries("hard").keys() {
            if is_bounded(resource) && !can_count(scope, resource) {
                errors.invalid(&path, selector.clone(), "unsupported scope applied to resource");
            }
        }
        if PLAIN_SCOPES.contains(&scope) && operator != "Exists" {
            errors.invalid(&path.child("operator"), operator, NEEDS_EXISTS);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), detail);
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), term["values"].clone(), detail);
            }
            "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
    }
    let has = |scope| selector.items("matchExpressions").iter().any(|term| term.text("scopeName") == scope);
    for (one, other) in CONTRADICTIONS {
        if has(one) && has(other) {
            errors.invalid(&path, spec["scopes"].clone(), "conflicting scopes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ResourceQuota;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        ResourceQuota.validate(&json!({"spec": spec}), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn q1_a_quota_bounds_what_can_be_counted() {
        check(
            json!({"hard": {"pods": 4, "requests.cpu": "1500m", "count/deployments.apps": "2", "requests.example.com/gpu": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}),
            &[],
        );
        check(
            json!({"hard": {"apples": "1", "pods": "1500m", "memory": "-1"}}),
            &[
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource type or fully qualified",
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
                "spec.hard[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ],
        );
    }

    #[test]
    fn q2_scopes_do_not_contradict() {
        check(json!({"hard": {"pods": 1, "cpu": 1}, "scopes": ["NotBestEffort"]}), &[]);
        check(
            json!({"hard": {"services": 1}, "scopes": ["Terminating", "NotTerminating"]}),
            &[
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ],
        );
        let mut errors = Errors::new();
        let old = json!({"spec": {"scopes": ["BestEffort"]}});
        ResourceQuota.validate_update(&json!({"spec": {"hard": {"pods": 1}}}), &old, &mut errors);
        compare(&errors, &["spec.scopes: Invalid value: null: field is immutable"]);
    }

    #[test]
    fn q3_a_selector_can_be_evaluated() {
        let of = |term: Value| json!({"scopeSelector": {"matchExpressions": [term]}});
        check(of(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]})), &[]);
        let at = "spec.scopeSelector.matchExpressions";
        check(
            of(json!({"scopeName": "Terminating", "operator": "In"})),
            &[
                &format!("{at}.operator: Invalid value: \"In\": must be 'Exists' when scope is any of"),
                &format!("{at}.values: Required value: must be at least one value"),
            ],
        );
        check(
            of(json!({"scopeName": "Colour", "operator": "Is"})),
            &[
                &format!("{at}.scopeName: Invalid value: \"Colour\": unsupported scope"),
                &format!("{at}.operator: Invalid value: \"Is\": not a valid selector operator"),
            ],
        );
        let mut contradicting = of(json!({"scopeName": "BestEffort", "operator": "Exists"}));
        contradicting["hard"] = json!({"pods": "1", "requests.ephemeral-storage": "1Gi"});
        let other = json!({"scopeName": "NotBestEffort", "operator": "Exists"});
        contradicting["scopeSelector"]["matchExpressions"].as_array_mut().expect("a list").push(other);
        check(
            contradicting,
            &[
                &format!("{at}: Invalid value: {{\"matchExpressions\":[{{"),
                &format!("{at}: Invalid value: {{\"matchExpressions\":[{{"),
                &format!("{at}: Invalid value: null: conflicting scopes"),
            ],
        );
    }

    #[test]
    fn the_printed_row() {
        let quota = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "4", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1"}}});
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        assert_eq!(
            ResourceQuota.cells(&quota, now),
            ["q", "cpu: 0/1, pods: 1/4", "limits.cpu: 0/2", "<unknown>"].map(Value::from)
        );
    }
}
