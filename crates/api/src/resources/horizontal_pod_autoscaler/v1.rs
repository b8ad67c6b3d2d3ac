//! autoscaling/v1 HorizontalPodAutoscaler: the stored autoscaler as its older clients know it.
//!
//! Rules
//!   O1 cpu         the first share of CPU among the metrics is `targetCPUUtilizationPercentage`
//!   O2 the rest    other metrics, behavior, conditions and current metrics are in annotations, which only this version shows
//!   O3 both ways   what is read comes back whole; an annotation that cannot be read says nothing
//!   O4 one rule    defaults and rules are those of autoscaling/v2, whose field paths refusals name
//!   O5 parts       an annotation belongs to what it is about: the status' are written by `/status` only, and the spec's
//!                  not by it
//! Not here         a target whose `type` is not that of the value beside it: it is read back as the value's type; and the
//!                  order of metrics, of which the share of CPU comes back last
//! Source: API reference, autoscaling/v1 HorizontalPodAutoscaler; the annotations' names are Kubernetes'.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::row;
use super::super::tree::{Tree, carry_over, map_mut, part_mut, remove};
use super::HorizontalPodAutoscaler;
use crate::convert::Convert;
use crate::field::Errors;
use crate::kind::kinds;
use crate::resource::{Resource, Rules, Subresource};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const OF_SPEC: [&str; 2] = [METRICS, BEHAVIOR];
const OF_STATUS: [&str; 2] = [CURRENT_METRICS, CONDITIONS];

/// A field of a metric here, and where autoscaling/v2 has it.
type Place = (&'static str, &'static [&'static str]);

/// The metrics of a spec, by the field that their type names.
const WANTED: [(&str, &[Place]); 5] = [
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// The metrics of a status.
const CURRENT: [(&str, &[Place]); 5] = [
    (
        "object",
        &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"]),
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
    ),
];

/// The row of autoscaling/v1 HorizontalPodAutoscaler.
pub(in super::super) fn resource() -> Resource {
    row(&kinds::HORIZONTAL_POD_AUTOSCALER_V1, super::columns(), Older)
        .short_names(&["hpa"])
        .in_all()
        .subresources(&[Subresource::Status])
        .stored_as(&kinds::HORIZONTAL_POD_AUTOSCALER, Versions)
}

/// Takes the annotations away that say in autoscaling/v1 what autoscaling/v2 has fields for.
pub(super) fn drop_annotations(object: &mut Value) {
    let Some(annotations) = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations")) else {
        return;
    };
    let Some(fields) = annotations.as_object_mut().filter(|fields| !fields.is_empty()) else { return };
    OF_SPEC.iter().chain(&OF_STATUS).for_each(|name| drop(fields.remove(*name)));
    if fields.is_empty() {
        remove(&mut object["metadata"], "annotations");
    }
}

struct Older;

/// O4 and O5.
impl Rules for Older {
    fn default(&self, object: &mut Value) {
        Versions.to_stored(object);
        HorizontalPodAutoscaler.default(object);
        Versions.to_served(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        remove(object, "status");
        carry_annotations(object, &Value::Null, OF_STATUS);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        HorizontalPodAutoscaler.prepare_update(object, old);
        carry_annotations(object, old, OF_STATUS);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        // Defaults may have been filled in for what the annotations no longer said.
        carry_over(object, old, "spec");
        carry_annotations(object, old, OF_SPEC);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        HorizontalPodAutoscaler.validate(&stored(object), errors);
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        HorizontalPodAutoscaler.validate_status(object, old, errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        HorizontalPodAutoscaler.cells(&stored(object), now)
    }
}

fn stored(object: &Value) -> Value {
    let mut object = object.clone();
    Versions.to_stored(&mut object);
    object
}

/// Makes annotations what they were in `old`.
fn carry_annotations(object: &mut Value, old: &Value, names: [&str; 2]) {
    for name in names {
        match old["metadata"]["annotations"].get(name) {
            Some(text) => annotate(object, name, text.clone()),
            None => {
                let metadata = object.get_mut("metadata");
                if let Some(annotations) = metadata.and_then(|metadata| metadata.get_mut("annotations")) {
                    remove(annotations, name);
                }
            }
        }
    }
    if object["metadata"]["annotations"].as_object().is_some_and(Map::is_empty)
        && old["metadata"]["annotations"].is_null()
    {
        remove(&mut object["metadata"], "annotations");
    }
}

fn annotate(object: &mut Value, name: &str, text: Value) {
    let Some(metadata) = part_mut(object, "metadata") else { return };
    if let Some(annotations) = map_mut(metadata, "annotations") {
        annotations.insert(name.to_owned(), text);
    }
}

/// The way between autoscaling/v2 and autoscaling/v1.
struct Versions;

impl Convert for Versions {
    /// O1 and O2.
    fn to_served(&self, object: &mut Value) {
        drop_annotations(object);
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            let mut metrics = spec.items("metrics").to_vec();
            let behavior = spec["behavior"].take();
            remove(spec, "metrics");
            remove(spec, "behavior");
            if let Some(index) = metrics.iter().position(is_cpu_share) {
                let metric = metrics.remove(index);
                spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"].clone();
            }
            say_in(object, METRICS, Value::Array(metrics.iter().map(|metric| older(metric, &WANTED)).collect()));
            say_in(object, BEHAVIOR, behavior);
        }
        if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
            let metrics = status.items("currentMetrics").to_vec();
            let conditions = status["conditions"].take();
            remove(status, "currentMetrics");
            remove(status, "conditions");
            let share = metrics.iter().find(|metric| metric["resource"].text("name") == "cpu");
            if let Some(share) = share.and_then(|metric| metric["resource"]["current"].int("averageUtilization")) {
                status["currentCPUUtilizationPercentage"] = json!(share);
            }
            say_in(
                object,
                CURRENT_METRICS,
                Value::Array(metrics.iter().map(|metric| older(metric, &CURRENT)).collect()),
            );
            say_in(object, CONDITIONS, conditions);
        }
    }

    /// O3.
    fn to_stored(&self, object: &mut Value) {
        let said = |name: &str| serde_json::from_str::<Value>(object["metadata"]["annotations"].text(name)).ok();
        let list = |name: &str| said(name).and_then(|value| value.as_array().cloned()).unwrap_or_default();
        let behavior = said(BEHAVIOR).filter(Value::is_object).map(|behavior| plain_names(&behavior));
        let mut metrics: Vec<Value> = list(METRICS).iter().map(|metric| newer(metric, &WANTED)).collect();
        let mut current: Vec<Value> = list(CURRENT_METRICS).iter().map(|metric| newer(metric, &CURRENT)).collect();
        let conditions = list(CONDITIONS);
        drop_annotations(object);
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            if let Some(share) = spec.int("targetCPUUtilizationPercentage") {
                metrics.push(json!({"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": share},
                }}));
            }
            remove(spec, "targetCPUUtilizationPercentage");
            set_or_remove(spec, "metrics", Value::Array(metrics));
            set_or_remove(spec, "behavior", behavior.unwrap_or_default());
        }
        if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
            if let Some(share) = status.int("currentCPUUtilizationPercentage").filter(|_| current.is_empty()) {
                current.push(json!({"type": "Resource", "resource": {
                    "name": "cpu", "current": {"averageUtilization": share},
                }}));
            }
            remove(status, "currentCPUUtilizationPercentage");
            set_or_remove(status, "currentMetrics", Value::Array(current));
            set_or_remove(status, "conditions", Value::Array(conditions));
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn say_in(object: &mut Value, name: &str, value: Value) {
    if !is_nothing(&value) {
        annotate(object, name, Value::String(value.to_string()));
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Value) {
    if is_nothing(&value) {
        remove(object, field);
    } else {
        object[field] = value;
    }
}

/// O1.
fn is_cpu_share(metric: &Value) -> bool {
    let resource = &metric["resource"];
    metric.text("type") == "Resource"
        && resource.text("name") == "cpu"
        && resource["target"].int("averageUtilization").is_some()
}

/// A metric of autoscaling/v2, as this version writes it.
fn older(metric: &Value, places: &[(&str, &[Place])]) -> Value {
    let mut older = json!({"type": metric.text("type")});
    for (field, places) in places.iter().filter(|(field, _)| metric.is_set(field)) {
        let mut source = Map::new();
        for (name, path) in *places {
            let value = path.iter().fold(&metric[*field], |value, part| &value[*part]);
            if !value.is_null() {
                source.insert((*name).to_owned(), value.clone());
            }
        }
        older[*field] = Value::Object(source);
    }
    older
}

/// A metric of this version, as autoscaling/v2 has it. Typed clients write a quantity that is not there as zero.
fn newer(metric: &Value, places: &[(&str, &[Place])]) -> Value {
    let mut newer = json!({"type": metric.text("type")});
    for (field, places) in places.iter().filter(|(field, _)| metric.is_set(field)) {
        let mut source = Value::Object(Map::new());
        for (name, path) in *places {
            let value = &metric[*field][*name];
            let is_unsaid = value.is_null() || *name == "targetValue" && value.as_str() == Some("0");
            if is_unsaid {
                continue;
            }
            match *path {
                [outer, inner] => source[*outer][*inner] = value.clone(),
                [only] => source[*only] = value.clone(),
                _ => {}
            }
        }
        if let Some(target) = source.get_mut("target").filter(|target| target.is_object()) {
            target["type"] = json!(target_type(target));
        }
        newer[*field] = source;
    }
    newer
}

fn target_type(target: &Value) -> &'static str {
    if target.is_set("averageUtilization") {
        "Utilization"
    } else if target.is_set("averageValue") {
        "AverageValue"
    } else {
        "Value"
    }
}

/// A behavior with its fields' names as autoscaling/v2 spells them: Kubernetes writes them with a capital here.
fn plain_names(behavior: &Value) -> Value {
    match behavior {
        Value::Object(fields) => fields.iter().map(|(name, value)| (plain_name(name), plain_names(value))).collect(),
        Value::Array(items) => items.iter().map(plain_names).collect(),
        other => other.clone(),
    }
}

fn plain_name(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::{Older, Versions};
    use crate::convert::Convert;
    use crate::resource::Rules;
    use crate::resources::fixture::{cells, check, filled};
    use serde_json::{Value, json};

    fn served(mut object: Value) -> Value {
        Versions.to_served(&mut object);
        object
    }

    fn stored(mut object: Value) -> Value {
        Versions.to_stored(&mut object);
        object
    }

    fn share(percent: i64) -> Value {
        json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    #[test]
    fn o1_the_share_of_cpu_is_a_field() {
        let object = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2, "metrics": [share(70)]}});
        let older = served(object.clone());
        assert_eq!(
            older,
            json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 70}})
        );
        assert_eq!(stored(older), object);
    }

    #[test]
    fn o2_and_o3_the_rest_is_in_annotations_and_comes_back() {
        let object = json!({
            "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {
                "behavior": {"scaleUp": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 2}]}},
                "metrics": [
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "m", "selector": {"matchLabels": {"x": "y"}}},
                        "target": {"type": "Value", "value": "3"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                    {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                        "target": {"type": "Utilization", "averageUtilization": 5}}},
                    {"type": "External", "external": {"metric": {"name": "m"},
                        "target": {"type": "AverageValue", "averageValue": "2k"}}},
                    share(60),
                    share(70),
                ],
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "20m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let older = served(object.clone());
        assert_eq!(older["spec"], json!({"targetCPUUtilizationPercentage": 60}));
        assert_eq!(
            older["status"],
            json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 40})
        );
        let said = |name: &str| {
            let text = older["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].as_str();
            serde_json::from_str::<Value>(text.expect("an annotation")).expect("JSON")
        };
        assert_eq!(
            said("metrics")[0],
            json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "m",
                "selector": {"matchLabels": {"x": "y"}}, "targetValue": "3"}})
        );
        assert_eq!(said("metrics").as_array().map(Vec::len), Some(5));
        assert_eq!(said("conditions"), object["status"]["conditions"]);
        let mut back = object;
        let metrics = back["spec"]["metrics"].as_array_mut().expect("a list");
        let first_share = metrics.remove(4);
        metrics.push(first_share);
        assert_eq!(stored(older), back);
    }

    #[test]
    fn o3_an_annotation_that_cannot_be_read_says_nothing() {
        let odd = |text: &str| json!({"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": text}}, "spec": {}});
        for text in ["", "{", "7", "{}"] {
            assert_eq!(stored(odd(text)), json!({"metadata": {}, "spec": {}}), "{text}");
        }
        let capitals = json!({"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/behavior":
            "{\"ScaleDown\":{\"Policies\":[{\"Type\":\"Pods\"}]}}"}}, "spec": {}});
        assert_eq!(stored(capitals)["spec"], json!({"behavior": {"scaleDown": {"policies": [{"type": "Pods"}]}}}));
    }

    #[test]
    fn o4_defaults_and_rules_are_the_newer_versions() {
        let plain = filled(&Older, json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "D", "name": "d"}}}));
        assert_eq!(plain["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(cells(&Older, &plain)[2], "cpu: <unknown>/80%");
        check(
            &Older,
            json!({"spec": {"scaleTargetRef": {"kind": "D", "name": "d"}, "targetCPUUtilizationPercentage": 0}}),
            &[
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ],
        );
    }

    #[test]
    fn o5_each_part_keeps_the_annotations_of_the_other() {
        let annotated = |metrics: &str, current: &str| {
            json!({"metadata": {"annotations": {
                "autoscaling.alpha.kubernetes.io/metrics": metrics,
                "autoscaling.alpha.kubernetes.io/current-metrics": current}}})
        };
        let (old, mut main) = (annotated("old", "old"), annotated("new", "new"));
        let mut status = main.clone();
        Older.prepare_update(&mut main, &old);
        assert_eq!(main, annotated("new", "old"));
        Older.prepare_status(&mut status, &old);
        assert_eq!(status, annotated("old", "new"));
    }
}
