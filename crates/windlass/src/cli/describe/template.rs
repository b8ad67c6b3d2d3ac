//! Pod templates, as the kinds that hold one show them.

use serde_json::Value;

use super::container::containers;
use super::sheet::{NONE, Sheet, items, pairs, plain, selector, text};
use super::volume::volumes;

pub fn template(sheet: &mut Sheet, template: &Value) {
    let spec = &template["spec"];
    sheet.line(0, "Pod Template:");
    sheet.labels(1, "Labels", &template["metadata"]["labels"]);
    if pairs(&template["metadata"]["annotations"]).next().is_some() {
        sheet.annotations(1, &template["metadata"]["annotations"]);
    }
    if !text(spec, "serviceAccountName").is_empty() {
        sheet.field(1, "Service Account", text(spec, "serviceAccountName"));
    }
    if !items(spec, "initContainers").is_empty() {
        containers(sheet, "Init Containers", items(spec, "initContainers"), &Value::Null, true);
    }
    containers(sheet, "Containers", items(spec, "containers"), &Value::Null, true);
    volumes(sheet, items(spec, "volumes"), true);
    spread(sheet, spec, 1);
    if !text(spec, "priorityClassName").is_empty() {
        sheet.field(1, "Priority Class Name", text(spec, "priorityClassName"));
    }
    sheet.labels(1, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(sheet, spec, 1);
}

/// How pods are spread over the topology.
pub(super) fn spread(sheet: &mut Sheet, spec: &Value, level: usize) {
    let mut constraints: Vec<&Value> = items(spec, "topologySpreadConstraints").iter().collect();
    if constraints.is_empty() {
        return;
    }
    constraints.sort_by_key(|constraint| text(constraint, "topologyKey"));
    let lines: Vec<String> = constraints
        .iter()
        .map(|constraint| {
            let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
            let chosen = match &constraint["labelSelector"] {
                Value::Null => String::new(),
                labels => format!(" for selector {}", selector(labels)),
            };
            format!("{key}:{action} when max skew {} is exceeded{chosen}", plain(&constraint["maxSkew"]))
        })
        .collect();
    sheet.column(level, "Topology Spread Constraints", &lines);
}

/// Taints that are tolerated, by key.
pub(super) fn tolerations(sheet: &mut Sheet, spec: &Value, level: usize) {
    let mut tolerations: Vec<&Value> = items(spec, "tolerations").iter().collect();
    tolerations.sort_by_key(|toleration| text(toleration, "key"));
    let lines: Vec<String> = tolerations.into_iter().map(toleration).collect();
    sheet.column(level, "Tolerations", &lines);
}

fn toleration(toleration: &Value) -> String {
    let mut shown = text(toleration, "key").to_owned();
    if !text(toleration, "value").is_empty() {
        shown += &format!("={}", text(toleration, "value"));
    }
    if !text(toleration, "effect").is_empty() {
        shown += &format!(":{}", text(toleration, "effect"));
    }
    if text(toleration, "operator") == "Exists" && text(toleration, "value").is_empty() {
        shown += if text(toleration, "key").is_empty() && text(toleration, "effect").is_empty() {
            "op=Exists"
        } else {
            " op=Exists"
        };
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        shown += &format!(" for {seconds}s");
    }
    if shown.is_empty() { NONE.to_owned() } else { shown }
}
