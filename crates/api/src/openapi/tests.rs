//! What kubectl looks for in a document, for every kind that is served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::components::read_descriptions;
use super::{document, paths};
use crate::resource::{Registry, Verbs};
use crate::resources;
use crate::schema::kubernetes;

fn registry() -> Registry {
    Registry::new(resources::all())
}

#[test]
fn apply_finds_the_patch_of_every_kind() {
    let registry = registry();
    for row in registry.iter().filter(|row| row.verbs == Verbs::All) {
        let path = if row.kind.group.is_empty() {
            "api/v1".to_owned()
        } else {
            format!("apis/{}/{}", row.kind.group, row.kind.version)
        };
        let document = document(&registry, &path);
        let wanted = json!({"group": row.kind.group, "version": row.kind.version, "kind": row.kind.kind});
        let patches: Vec<&Value> =
            document["paths"].as_object().into_iter().flatten().map(|(_, path)| &path["patch"]).collect();
        let patch = patches.iter().find(|patch| patch["x-kubernetes-group-version-kind"] == wanted);
        let patch = patch.unwrap_or_else(|| panic!("{wanted} has a patch"));
        let names: BTreeSet<&str> = patch["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert!(
            names.is_superset(&BTreeSet::from(["fieldValidation", "dryRun", "fieldManager", "force"])),
            "{wanted}: {names:?}"
        );
        for form in [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ] {
            assert!(patch["requestBody"]["content"].get(form).is_some(), "{wanted} takes {form}");
        }
        let name = document["components"]["schemas"]
            .as_object()
            .into_iter()
            .flatten()
            .find(|(_, schema)| schema["x-kubernetes-group-version-kind"] == json!([wanted]));
        assert_eq!(name.map(|(name, _)| name.as_str()), Some(super::components::resource_name(row).as_str()));
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let registry = registry();
    assert!(paths(&registry).contains("apis/apps/v1"));
    for path in &paths(&registry) {
        let document = document(&registry, path);
        let mut named = BTreeSet::new();
        collect_references(&document, &mut named);
        let schemas: BTreeSet<String> =
            document["components"]["schemas"].as_object().expect("schemas").keys().cloned().collect();
        assert_eq!(
            named.difference(&schemas).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{path} refers to what it has"
        );
        assert_eq!(
            schemas.difference(&named).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{path} has what it refers to"
        );
    }
}

fn collect_references(value: &Value, named: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/components/schemas/"))
            {
                named.insert(name.to_owned());
            }
            map.values().for_each(|value| collect_references(value, named));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, named)),
        _ => {}
    }
}

#[test]
fn schemas_carry_how_lists_merge() {
    let document = document(&registry(), "api/v1");
    let pod_spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &pod_spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(
        (&containers["x-kubernetes-patch-strategy"], &containers["x-kubernetes-patch-merge-key"]),
        (&json!("merge"), &json!("name"))
    );
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
    assert_eq!(pod_spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(pod_spec["required"], json!(["containers"]));
    let port = &document["components"]["schemas"]["io.k8s.api.core.v1.ServicePort"]["properties"];
    assert_eq!(port["protocol"]["default"], "TCP");
    assert_eq!(
        document["components"]["schemas"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"],
        "int-or-string"
    );
    let volume = &document["components"]["schemas"]["io.k8s.api.core.v1.Volume"]["properties"];
    assert!(volume["emptyDir"].is_object() && volume.get("volumeSource").is_none());
}

#[test]
fn defaults_and_descriptions_fit_the_table() {
    for message in kubernetes().messages() {
        for field in message.fields().filter_map(|field| field.default()) {
            assert!(serde_json::from_str::<Value>(field).is_ok(), "{}: {field}", message.full_name());
        }
    }
    let texts = read_descriptions(include_str!("descriptions.txt"));
    assert!(texts.len() > 1000, "{}", texts.len());
    for (message, field) in texts.keys().filter(|(message, _)| *message != "*") {
        let found: Vec<_> = kubernetes().messages().filter(|known| known.name() == *message).collect();
        let known = found.iter().any(|known| field.is_empty() || known.field(field).is_some());
        assert!(known || *message == "TypeMeta", "{message}.{field} is described but not in the table");
    }
}

#[test]
fn explain_has_words_for_every_field() {
    let document = document(&registry(), "api/v1");
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let text = property["description"].as_str().unwrap_or_default();
            assert!(text.len() > 3 && text.ends_with(['.', '?', ')']), "{name}.{field}: {text:?}");
        }
    }
    let pod_spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(pod_spec["hostPID"]["description"], "See the processes of the node.");
}
