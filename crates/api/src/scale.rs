//! Scale: the replicas of whatever has replicas, as autoscaling/v1.

use serde_json::{Value, json};

use crate::field::{Errors, Path};
use crate::kind::kinds;
use crate::resource::Resource;
use crate::resources::label_selector;
use crate::resources::tree::{Tree, part_mut};

/// The scale of an object of a kind that has the subresource.
pub fn of(resource: &Resource, object: &Value) -> Value {
    debug_assert!(resource.has(crate::resource::Subresource::Scale), "{} has no scale", resource.kind.kind);
    let metadata = &object["metadata"];
    let mut shown = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if metadata.is_set(field) {
            shown.insert(field.to_owned(), metadata[field].clone());
        }
    }
    let paths = &resource.scale;
    let replicas = |path: &[String]| at(object, path).as_i64().unwrap_or(0);
    let selector = match at(object, &paths.selector) {
        Value::String(text) => text.clone(),
        // A ReplicationController selects by plain labels.
        labels if resource.kind == kinds::REPLICATION_CONTROLLER => {
            label_selector::text(&json!({"matchLabels": labels})).unwrap_or_default()
        }
        selector => label_selector::text(selector).unwrap_or_default(),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown,
        "spec": {"replicas": replicas(&paths.spec)},
        "status": {"replicas": replicas(&paths.status), "selector": selector},
    })
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    if path.is_empty() { &Value::Null } else { path.iter().fold(object, |at, name| &at[name]) }
}

/// Sets the object's replicas to those of `scale`, or says what is wrong with it. Whether its `resourceVersion` and `uid`
/// still hold is for the caller to check.
pub fn apply(resource: &Resource, object: &mut Value, scale: &Value, errors: &mut Errors) {
    let (given, name) = (scale["metadata"].text("name"), object["metadata"].text("name"));
    if given != name {
        errors.immutable(&Path::new("metadata").child("name"), given);
    }
    set(resource, object, scale["spec"].int("replicas").unwrap_or(0), errors);
}

/// Sets the object's replicas, where its kind has them, unless something is wrong already.
pub fn set(resource: &Resource, object: &mut Value, replicas: i64, errors: &mut Errors) {
    if !(0..=i64::from(i32::MAX)).contains(&replicas) {
        let detail = "must be greater than or equal to 0";
        errors.invalid(&Path::new("spec").child("replicas"), replicas, detail);
    }
    let Some((last, outer)) = resource.scale.spec.split_last().filter(|_| errors.is_empty()) else { return };
    if let Some(part) = outer.iter().try_fold(object, |at, name| part_mut(at, name)) {
        part[last] = json!(replicas);
    }
}

#[cfg(test)]
mod tests {
    use super::{apply, of};
    use crate::field::Errors;
    use crate::resources;
    use serde_json::json;

    #[test]
    fn plain_labels_are_a_selector_too() {
        let registry = resources::registry();
        let resource = registry.get("", "v1", "replicationcontrollers").expect("a built-in kind");
        let controller = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"b": "2", "a": "1"}}});
        assert_eq!(of(resource, &controller)["status"]["selector"], "a=1,b=2");
    }

    #[test]
    fn a_scale_reads_and_writes_replicas_only() {
        let registry = resources::registry();
        let resource = registry.get("apps", "v1", "deployments").expect("a built-in kind");
        let mut deployment = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"b": "2", "a": "1"}}}, "status": {"replicas": 1},
        });
        let mut scale = of(resource, &deployment);
        assert_eq!(
            scale,
            json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
                "spec": {"replicas": 2}, "status": {"replicas": 1, "selector": "a=1,b=2"},
            })
        );
        scale["spec"]["replicas"] = json!(5);
        let mut errors = Errors::new();
        apply(resource, &mut deployment, &scale, &mut errors);
        assert_eq!((errors.len(), &deployment["spec"]["replicas"]), (0, &json!(5)));

        scale["spec"]["replicas"] = json!(-1);
        scale["metadata"]["name"] = json!("other");
        apply(resource, &mut deployment, &scale, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.name: Invalid value: \"other\": field is immutable",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
        assert_eq!(deployment["spec"]["replicas"], 5);
    }
}
