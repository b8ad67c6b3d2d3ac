//! HorizontalPodAutoscaler: how many pods a workload should have, by what they use.
//!
//! Rules
//!   H1 defaults   at least one pod; 80 % of the requested CPU where no metric is named; a behavior that is named is whole
//!   H2 target     the workload and the bounds of its replicas are well-formed (`validate`)
//!   H3 metrics    each names its source and the one target that its type asks for (`validate`)
//!   H4 behavior   policies within their bounds (`validate`)
//!   H5 versions   objects lie in the store as autoscaling/v2; autoscaling/v1 is a view of them (`v1`)
//! Not here        counting and scaling (its controller); scaling to zero, which Kubernetes has off by default
//! Source: API reference, autoscaling/v2 HorizontalPodAutoscaler.

pub(super) mod v1;
mod validate;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tree::{Tree, carry_over, fill, part_mut, remove};
use super::{Column, age, age_column, column, name_column, row, workload};
use crate::field::Errors;
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

/// The share of its requested CPU that a pod should use, where nothing else is asked for.
const CPU_PERCENT_DEFAULT: i64 = 80;
/// Metrics that a cell names; the others are counted.
const SHOWN_METRICS_MAX: usize = 2;

/// The row of autoscaling/v2 HorizontalPodAutoscaler.
pub(super) fn resource() -> Resource {
    row(&kinds::HORIZONTAL_POD_AUTOSCALER, columns(), HorizontalPodAutoscaler)
        .short_names(&["hpa"])
        .in_all()
        .subresources(&[Subresource::Status])
}

fn columns() -> Vec<Column> {
    vec![
        name_column(),
        column("Reference", "string", "the workload that is scaled"),
        column("Targets", "string", "each metric as it is, and as it should be"),
        column("MinPods", "string", "pods there are at least"),
        column("MaxPods", "string", "pods there are at most"),
        column("Replicas", "string", "pods there are"),
        age_column(),
    ]
}

struct HorizontalPodAutoscaler;

impl Rules for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        v1::drop_annotations(object);
        let Some(spec) = part_mut(object, "spec") else { return };
        fill(spec, "minReplicas", 1);
        if spec.items("metrics").is_empty() {
            spec["metrics"] = json!([{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT_DEFAULT},
            }}]);
        }
        if spec["behavior"].is_object() {
            fill_behavior(&mut spec["behavior"]);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        carry_over(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::validate(&object["spec"], errors);
    }

    fn validate_status(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_not_negative(object, &["currentReplicas", "desiredReplicas"], errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        vec![
            json!(object["metadata"].text("name")),
            json!(format!("{}/{}", target.text("kind"), target.text("name"))),
            json!(metrics(spec.items("metrics"), status.items("currentMetrics"))),
            json!(spec.int("minReplicas").map_or_else(|| "<unset>".to_owned(), |least| least.to_string())),
            json!(spec.int("maxReplicas").unwrap_or(0)),
            json!(status.int("currentReplicas").unwrap_or(0)),
            age::of(object, now),
        ]
    }
}

/// H1: up at once, by four pods or by as many as there are; down by any number, after the controller's own patience.
fn fill_behavior(behavior: &mut Value) {
    if let Some(up) = part_mut(behavior, "scaleUp") {
        fill(up, "stabilizationWindowSeconds", 0);
        fill(up, "selectPolicy", "Max");
        let quick = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        fill(up, "policies", quick);
    }
    if let Some(down) = part_mut(behavior, "scaleDown") {
        fill(down, "selectPolicy", "Max");
        fill(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

/// What each metric is and should be; the status lists them in the order of the spec.
fn metrics(wanted: &[Value], current: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let nothing = Value::Null;
    let shown: Vec<String> = wanted
        .iter()
        .enumerate()
        .take(SHOWN_METRICS_MAX)
        .map(|(index, metric)| shown_metric(metric, current.get(index).unwrap_or(&nothing)))
        .collect();
    let shown = shown.join(", ");
    match wanted.len().saturating_sub(SHOWN_METRICS_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn shown_metric(metric: &Value, status: &Value) -> String {
    let kind = metric.text("type");
    let Some(source) = validate::SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field) else {
        return "<unknown type>".to_owned();
    };
    let (target, current) = (&metric[source]["target"], &status[source]["current"]);
    let is_resource = matches!(kind, "Resource" | "ContainerResource");
    let field = match kind {
        "Pods" => "averageValue",
        _ if target.is_set("averageValue") => "averageValue",
        _ if is_resource => "averageUtilization",
        _ => "value",
    };
    let percent =
        |value: &Value, unset: &str| value.as_i64().map_or_else(|| unset.to_owned(), |share| format!("{share}%"));
    let amount = |value: &Value, unset: &str| match value {
        Value::String(amount) => amount.clone(),
        Value::Number(amount) => amount.to_string(),
        _ => unset.to_owned(),
    };
    let (is, should) = match field {
        "averageUtilization" => (percent(&current[field], "<unknown>"), percent(&target[field], "<auto>")),
        _ => (amount(&current[field], "<unknown>"), amount(&target[field], "0")),
    };
    match (kind, field) {
        ("Object" | "External", "averageValue") => format!("{is}/{should} (avg)"),
        _ if is_resource => format!("{}: {is}/{should}", metric[source].text("name")),
        _ => format!("{is}/{should}"),
    }
}

#[cfg(test)]
mod tests {
    use super::HorizontalPodAutoscaler;
    use crate::resources::fixture::{cells, check_status, filled};
    use serde_json::{Value, json};

    #[test]
    fn h1_defaults() {
        let plain = filled(&HorizontalPodAutoscaler, json!({"spec": {"maxReplicas": 3}}));
        assert_eq!(
            plain["spec"],
            json!({"maxReplicas": 3, "minReplicas": 1, "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]})
        );
        let behaving = filled(
            &HorizontalPodAutoscaler,
            json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 5}}}}),
        );
        assert_eq!(
            behaving["spec"]["behavior"],
            json!({
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Disabled", "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            })
        );
    }

    #[test]
    fn a_status_counts_no_less_than_nothing() {
        check_status(
            &HorizontalPodAutoscaler,
            &json!({"status": {"currentReplicas": -1, "desiredReplicas": -2}}),
            &json!({}),
            &["status.currentReplicas: Invalid value: -1", "status.desiredReplicas: Invalid value: -2"],
        );
    }

    #[test]
    fn the_printed_row() {
        let resource = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let object = |metrics: Value, current: Value| {
            json!({"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "minReplicas": 2, "maxReplicas": 5, "metrics": metrics},
                "status": {"currentReplicas": 3, "currentMetrics": current}})
        };
        let half = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50}}}]);
        let row = cells(&HorizontalPodAutoscaler, &object(json!([resource(json!({"averageUtilization": 80}))]), half));
        assert_eq!(
            row[..6],
            [json!("h"), json!("Deployment/d"), json!("cpu: 50%/80%"), json!("2"), json!(5), json!(3)]
        );
        let targets = |metrics: Value| cells(&HorizontalPodAutoscaler, &object(metrics, json!([])))[2].clone();
        assert_eq!(targets(json!([])), "<none>");
        assert_eq!(targets(json!([{"type": "Odd"}])), "<unknown type>");
        assert_eq!(targets(json!([resource(json!({"averageValue": "100m"}))])), "cpu: <unknown>/100m");
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": 10}}});
        let external = json!({"type": "External", "external": {"target": {"averageValue": "2k"}}});
        let of_object = json!({"type": "Object", "object": {"target": {"value": "7"}}});
        assert_eq!(targets(json!([pods, external, of_object])), "<unknown>/10, <unknown>/2k (avg) + 1 more...");
        assert_eq!(targets(json!([of_object])), "<unknown>/7");
    }
}
