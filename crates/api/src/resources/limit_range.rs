//! LimitRange: what one pod, container or claim of a namespace may ask for, and what it gets if it does not ask.
//!
//! Rules
//!   L1 type      known, or with a domain of its own; once; a claim is bounded in its storage
//!   L2 defaults  not for pods as a whole; where a container has none they follow from max and min
//!   L3 order     min ≤ default request ≤ default ≤ max; a ratio is at least one, and one that can be met
//! Source: API reference, core/v1 LimitRange.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::check::{named, quantity};
use super::tree::{Tree, items_mut, map_mut, part_mut};
use super::{created_cell, created_column, name_column, pod, row};
use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::name;
use crate::quantity::Quantity;
use crate::resource::{Resource, Rules};

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// The row of LimitRange.
pub(super) fn resource() -> Resource {
    row(&kinds::LIMIT_RANGE, vec![name_column(), created_column()], LimitRange)
        .created_by_update()
        .short_names(&["limits"])
}

struct LimitRange;

impl Rules for LimitRange {
    fn default(&self, object: &mut Value) {
        let Some(spec) = part_mut(object, "spec") else { return };
        for limit in items_mut(spec, "limits").iter_mut().filter(|limit| limit.text("type") == "Container") {
            fill_missing(limit, "default", "max");
            fill_missing(limit, "defaultRequest", "default");
            fill_missing(limit, "defaultRequest", "min");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let at = Path::new("spec").child("limits");
        let mut types = BTreeSet::new();
        for (index, limit) in object["spec"].items("limits").iter().enumerate() {
            let path = at.index(index);
            validate_type(limit.text("type"), &path.child("type"), errors);
            if !types.insert(limit.text("type")) {
                errors.duplicate(&path.child("type"), limit.text("type"));
            }
            validate_limit(limit, &path, errors);
        }
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![json!(object["metadata"].text("name")), created_cell(object)]
    }
}

/// L2: amounts of `field` that are not said are those of `other`.
fn fill_missing(limit: &mut Value, field: &str, other: &str) {
    let others = limit.entries(other).clone();
    if others.is_empty() {
        return;
    }
    let Some(amounts) = map_mut(limit, field) else { return };
    for (resource, amount) in others {
        amounts.entry(resource).or_insert(amount);
    }
}

/// L1.
fn validate_type(kind: &str, path: &Path, errors: &mut Errors) {
    named(name::label_key, kind, path, errors);
    if !kind.contains('/') && !TYPES.contains(&kind) {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
}

fn validate_limit(limit: &Value, at: &Path, errors: &mut Errors) {
    let kind = limit.text("type");
    let mut resources = BTreeSet::new();
    for field in AMOUNTS {
        let (amounts, path) = (limit.entries(field), at.child(field));
        if kind == "Pod" && field.starts_with("default") {
            if !amounts.is_empty() {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (resource, amount) in amounts {
            validate_resource(kind, resource, &path.key(resource), errors);
            quantity(amount, &path.key(resource), errors);
            resources.insert(resource.as_str());
        }
    }
    if kind == "PersistentVolumeClaim"
        && !limit.entries("min").contains_key("storage")
        && !limit.entries("max").contains_key("storage")
    {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&at.child("limits"), detail);
    }
    for resource in resources {
        validate_order(limit, resource, at, errors);
    }
}

fn validate_resource(kind: &str, resource: &str, path: &Path, errors: &mut Errors) {
    match kind {
        "Pod" | "Container" => pod::validate_container_name(resource, path, errors),
        _ => pod::validate_name(resource, path, errors),
    }
}

/// L3 for one resource.
fn validate_order(limit: &Value, resource: &str, at: &Path, errors: &mut Errors) {
    let amount = |field: &str| -> Option<Quantity> {
        let amounts: &Map<String, Value> = limit.entries(field);
        amounts.get(resource).and_then(|amount| Quantity::from_json(amount).ok())
    };
    let pairs = [
        ("min", "max", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
        ("defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
        ("min", "default", "default", "min value", "default value"),
        ("default", "max", "default", "default value", "max value"),
    ];
    for (less, more, at_fault, less_word, more_word) in pairs {
        if let (Some(less), Some(more)) = (amount(less), amount(more))
            && less > more
        {
            let path = at.child(at_fault).key(resource);
            let shown = amount(at_fault).unwrap_or(less).to_string();
            errors.invalid(&path, shown, &format!("{less_word} {less} is greater than {more_word} {more}"));
        }
    }
    let Some(ratio) = amount("maxLimitRequestRatio") else { return };
    let path = at.child("maxLimitRequestRatio").key(resource);
    if ratio.millis() < 1000 {
        errors.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (amount("min"), amount("max"))
        && !min.is_zero()
    {
        let widest = max.millis() as f64 / min.millis() as f64;
        if ratio.millis() as f64 / 1000.0 > widest {
            errors.invalid(&path, ratio.to_string(), &format!("ratio {ratio} is greater than max/min = {widest:.6}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LimitRange;
    use crate::field::Errors;
    use crate::resource::Rules;
    use crate::resources::fixture::compare;
    use serde_json::{Value, json};

    fn check(limits: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        LimitRange.validate(&json!({"spec": {"limits": limits}}), &mut errors);
        compare(&errors, expected);
    }

    #[test]
    fn l1_each_type_once() {
        check(
            json!([{"type": "Container", "max": {"cpu": "1"}}, {"type": "example.com/gpu", "max": {"example.com/units": "2"}}]),
            &[],
        );
        check(
            json!([{"type": "Pod", "max": {"disk": "1"}}, {"type": "Pod"}, {"type": "Node"}, {"type": "PersistentVolumeClaim"}]),
            &[
                "spec.limits[0].max[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                "spec.limits[0].max[disk]: Invalid value: \"disk\": must be a standard resource for containers",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2].type: Invalid value: \"Node\": must be a standard limit type",
                "spec.limits[3].limits: Required value: either minimum or maximum storage value is required",
            ],
        );
    }

    #[test]
    fn l2_defaults_follow_from_the_bounds() {
        let mut range =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRange.default(&mut range);
        assert_eq!(
            range["spec"]["limits"][0],
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"},
                "defaultRequest": {"cpu": "2", "memory": "1Mi"}})
        );
        check(
            json!([{"type": "Pod", "default": {"cpu": "1"}}]),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
    }

    #[test]
    fn l3_amounts_are_in_order() {
        check(
            json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}}]),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ],
        );
        check(
            json!([{"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}]),
            &[
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        );
        check(
            json!([{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}]),
            &[
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
            ],
        );
        check(
            json!([{"type": "Container", "max": {"cpu": "lots"}}]),
            &["spec.limits[0].max[cpu]: Invalid value: \"lots\""],
        );
    }

    #[test]
    fn the_printed_row() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let range = json!({"metadata": {"name": "l", "creationTimestamp": "2025-01-01T00:00:00Z"}});
        assert_eq!(LimitRange.cells(&range, now), ["l", "2025-01-01T00:00:00Z"].map(Value::from));
    }
}
