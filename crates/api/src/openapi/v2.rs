//! OpenAPI v2 (Swagger): all group versions as one document, for clients from before v3 and for `kubectl apply` of a `List`.
//!
//! Goal        made from the v3 documents, so that the two never differ in what they say
//! Not here    what v2 cannot say: `oneOf` and its like become the text form, `nullable` goes
//!
//! Source: OpenAPI Specification 2.0; the protobuf form by the field numbers of gnostic's OpenAPIv2.

mod merge;
mod protobuf;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{document, paths};
use crate::resource::Registry;

pub use merge::merge;
pub use protobuf::encode;

/// What a client accepts for the protobuf form, in its old and new spelling.
pub const PROTOBUF_ACCEPTED: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];
/// What the protobuf form is sent as: `@` may not stand in a media type.
pub const PROTOBUF_MEDIA_TYPE: &str = PROTOBUF_ACCEPTED[1];

/// The one document of these kinds.
pub fn document_v2(registry: &Registry) -> Value {
    let mut all_paths: BTreeMap<String, Value> = BTreeMap::new();
    let mut definitions: BTreeMap<String, Value> = BTreeMap::new();
    for path in paths(registry) {
        let mut document = document(registry, &path);
        let take = |value: &mut Value| match value.take() {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        all_paths.extend(take(&mut document["paths"]).into_iter().map(|(path, item)| (path, path_item(item))));
        let schemas = take(&mut document["components"]["schemas"]);
        for (name, value) in schemas {
            definitions.entry(name).or_insert_with(|| schema(value));
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Windlass", "version": "v1.37.0"},
        "paths": all_paths,
        "definitions": definitions,
    })
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let shown = item.into_iter().map(|(name, value)| match name.as_str() {
        "parameters" => (name, parameters(value)),
        _ => (name, operation(value)),
    });
    Value::Object(shown.collect())
}

fn operation(mut operation: Value) -> Value {
    let mut all = match operation.get_mut("parameters").map(Value::take) {
        Some(given) => parameters(given),
        None => json!([]),
    };
    let body = operation.as_object_mut().and_then(|operation| operation.remove("requestBody"));
    let mut consumes = vec![json!("*/*")];
    if let Some(mut body) = body {
        let required = body["required"] == true;
        if let Value::Object(content) = body["content"].take() {
            consumes = content.keys().map(|media| json!(media)).collect();
            if let Some((_, mut first)) = content.into_iter().next() {
                let body = json!({"name": "body", "in": "body", "required": required, "schema": schema(first["schema"].take())});
                all.as_array_mut().expect("parameters are a list").push(body);
            }
        }
    }
    operation["consumes"] = Value::Array(consumes);
    operation["produces"] = json!(["application/json"]);
    operation["parameters"] = all;
    if let Value::Object(answers) = operation["responses"].take() {
        operation["responses"] =
            Value::Object(answers.into_iter().map(|(code, answer)| (code, response(answer))).collect());
    }
    operation
}

fn response(mut answer: Value) -> Value {
    let mut shown = json!({"description": answer["description"].take()});
    if let Some((_, first)) = answer["content"].as_object_mut().and_then(|content| content.iter_mut().next()) {
        shown["schema"] = schema(first["schema"].take());
    }
    shown
}

/// A parameter says its type beside its name.
fn parameters(parameters: Value) -> Value {
    let Value::Array(parameters) = parameters else { return json!([]) };
    let flat = |parameter: Value| {
        let Value::Object(mut parameter) = parameter else { return parameter };
        if let Some(Value::Object(of)) = parameter.remove("schema") {
            parameter.extend(of);
        }
        Value::Object(parameter)
    };
    Value::Array(parameters.into_iter().map(flat).collect())
}

fn schema(value: Value) -> Value {
    let map = match value {
        Value::Object(map) => map,
        Value::Array(items) => return Value::Array(items.into_iter().map(schema).collect()),
        other => return other,
    };
    if map.contains_key("oneOf") {
        let mut text = json!({"type": "string"});
        for kept in ["format", "description"] {
            if let Some(value) = map.get(kept) {
                text[kept] = value.clone();
            }
        }
        return text;
    }
    let mut shown = Map::new();
    for (name, value) in map {
        match name.as_str() {
            "$ref" => drop(shown.insert(name, reference(&value))),
            "allOf" => match value {
                // v3 wraps a reference so that a description may stand beside it; v2 lets it stand there.
                Value::Array(mut parts) if parts.len() == 1 => match schema(parts.remove(0)) {
                    Value::Object(part) => shown.extend(part),
                    other => drop(shown.insert(name, other)),
                },
                other => drop(shown.insert(name, schema(other))),
            },
            "anyOf" | "not" | "nullable" => {}
            "properties" => {
                let Value::Object(properties) = value else { continue };
                let properties = properties.into_iter().map(|(name, value)| (name, schema(value))).collect();
                shown.insert(name, Value::Object(properties));
            }
            "items" | "additionalProperties" => drop(shown.insert(name, schema(value))),
            _ => drop(shown.insert(name, value)),
        }
    }
    Value::Object(shown)
}

fn reference(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    json!(text.replacen("#/components/schemas/", "#/definitions/", 1))
}

#[cfg(test)]
mod tests {
    use super::{document_v2, encode};
    use crate::resources;
    use serde_json::{Value, json};

    #[test]
    fn the_document_is_swagger_and_whole() {
        let document = document_v2(&resources::registry());
        assert_eq!(document["swagger"], "2.0");
        let text = document.to_string();
        assert!(!text.contains("#/components/") && !text.contains("\"oneOf\":[") && !text.contains("requestBody"));
        let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
        let gvk = json!([{"group": "", "version": "v1", "kind": "Pod"}]);
        assert_eq!(pod["x-kubernetes-group-version-kind"], gvk);
        assert_eq!(pod["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
        let quantity = &document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(quantity["type"], "string");
        let create = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"];
        let parameters = create["parameters"].as_array().expect("parameters");
        let body = parameters.iter().find(|parameter| parameter["in"] == "body").expect("a body");
        assert_eq!(body["schema"]["$ref"], "#/definitions/io.k8s.api.apps.v1.Deployment");
        let dry_run = parameters.iter().find(|parameter| parameter["name"] == "dryRun").expect("dryRun");
        assert_eq!((&dry_run["in"], &dry_run["type"]), (&json!("query"), &json!("string")));
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(
            patch["consumes"]
                .as_array()
                .expect("media types")
                .contains(&json!("application/strategic-merge-patch+json"))
        );
    }

    /// Walks protobuf bytes: the fields of a message in order, as (tag, bytes of a length-delimited field).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
            }
            unreachable!("a varint ends")
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            match key & 7 {
                0 => drop(varint(&mut bytes)),
                1 => bytes = &bytes[8..],
                2 => {
                    let (head, rest) = {
                        let length = varint(&mut bytes) as usize;
                        bytes.split_at(length)
                    };
                    found.push((key >> 3, head));
                    bytes = rest;
                }
                wire => panic!("no field has wire type {wire}"),
            }
        }
        found
    }

    fn child<'a>(bytes: &'a [u8], tag: u64, name: &str) -> &'a [u8] {
        let named = fields(bytes).into_iter().filter(|(found, _)| *found == tag).map(|(_, entry)| fields(entry));
        let entry = named.into_iter().find(|entry| entry[0].1 == name.as_bytes());
        entry.unwrap_or_else(|| panic!("no {name}"))[1].1
    }

    fn one(bytes: &[u8], tag: u64) -> &[u8] {
        fields(bytes).into_iter().find(|(found, _)| *found == tag).unwrap_or_else(|| panic!("no field {tag}")).1
    }

    #[test]
    fn the_protobuf_form_says_the_same() {
        let document = document_v2(&resources::registry());
        let bytes = encode(&document);
        assert_eq!(one(&bytes, 1), b"2.0");
        let definitions = one(&bytes, 9);
        assert_eq!(fields(definitions).len(), document["definitions"].as_object().expect("definitions").len());
        let pod = child(definitions, 1, "io.k8s.api.core.v1.Pod");
        let spec = child(one(pod, 25), 1, "spec");
        assert_eq!(one(spec, 1), b"#/definitions/io.k8s.api.core.v1.PodSpec");
        let extension = child(pod, 31, "x-kubernetes-group-version-kind");
        let yaml: Value = serde_json::from_slice(one(extension, 2)).expect("JSON is YAML");
        assert_eq!(yaml[0]["kind"], "Pod");
        let pod_spec = child(definitions, 1, "io.k8s.api.core.v1.PodSpec");
        let containers = child(one(pod_spec, 25), 1, "containers");
        assert_eq!(one(one(containers, 22), 1), b"array");
        assert_eq!(one(one(one(containers, 23), 1), 1), b"#/definitions/io.k8s.api.core.v1.Container");
        assert_eq!(one(child(containers, 31, "x-kubernetes-patch-merge-key"), 2), b"\"name\"");
        let selector = child(one(pod_spec, 25), 1, "nodeSelector");
        assert_eq!(one(one(one(one(selector, 21), 1), 22), 1), b"string");
        let path = child(one(&bytes, 8), 2, "/api/v1/namespaces/{namespace}/pods");
        assert_eq!(one(one(path, 4), 5), b"createCoreV1NamespacedPod");
    }
}
