//! Another server's OpenAPI v2 document beside ours.
//!
//! Rules
//!   W1 paths        of its group version, and no others
//!   W2 definitions  that these paths lead to, and no others
//!   W3 names        a definition that we have otherwise gets another name: `_v2`, `_v3` …
//!   W4 whole        a document that refers to what it does not define is refused
//!
//! Source: kube-aggregator, how it joins documents.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

const PREFIX: &str = "#/definitions/";
/// Names that are tried for one definition.
const NAMES_MAX: usize = 100;

/// Adds what another server's document says of one group version.
pub fn merge(own: &mut Value, mut other: Value, group: &str, version: &str) -> Result<(), String> {
    let root = format!("/apis/{group}/{version}");
    let Some(Value::Object(paths)) = other.get_mut("paths").map(Value::take) else {
        return Err("expected an OpenAPI v2 document with paths".to_owned());
    };
    let is_its_own =
        |path: &String| path.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut paths = Value::Object(paths.into_iter().filter(|(path, _)| is_its_own(path)).collect());
    let definitions = other.get_mut("definitions").map(Value::take).unwrap_or_default();
    let mut needed = needed(&paths, &definitions)?;
    let taken = own["definitions"].as_object().cloned().unwrap_or_default();
    let renamed = names(&needed, &taken)?;
    let rename = |value: &mut Value| {
        each_reference(value, &mut |name| {
            if let Some(new) = renamed.get(name) {
                name.clone_from(new);
            }
        });
    };
    rename(&mut paths);
    needed.values_mut().for_each(rename);
    if let (Some(all), Value::Object(paths)) = (own["paths"].as_object_mut(), paths) {
        all.extend(paths);
    }
    if let Some(all) = own["definitions"].as_object_mut() {
        for (name, definition) in needed {
            all.entry(renamed.get(&name).cloned().unwrap_or(name)).or_insert(definition);
        }
    }
    Ok(())
}

/// W2 and W4.
fn needed(paths: &Value, definitions: &Value) -> Result<BTreeMap<String, Value>, String> {
    let mut waiting = references(paths);
    let mut needed = BTreeMap::new();
    while let Some(name) = waiting.pop() {
        if needed.contains_key(&name) {
            continue;
        }
        let definition =
            definitions.get(&name).ok_or_else(|| format!("it refers to {name:?} and does not define it"))?;
        waiting.extend(references(definition));
        needed.insert(name, definition.clone());
    }
    Ok(needed)
}

/// W3: the new names of those that need one.
fn names(needed: &BTreeMap<String, Value>, taken: &Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let mut renamed = BTreeMap::new();
    for (name, definition) in needed {
        let fits = |name: &String| taken.get(name).is_none_or(|found| same(found, definition));
        if fits(name) {
            continue;
        }
        let new = (2..NAMES_MAX).map(|number| format!("{name}_v{number}"));
        let mut free = new.filter(|new| fits(new) && !needed.contains_key(new));
        let new = free.next().ok_or_else(|| format!("there are too many definitions called {name:?}"))?;
        renamed.insert(name.clone(), new);
    }
    Ok(renamed)
}

/// Whether two definitions mean the same: of which kinds they are, and their description, may differ.
fn same(one: &Value, other: &Value) -> bool {
    let meaning = |definition: &Value| {
        let mut meaning = definition.clone();
        if let Some(fields) = meaning.as_object_mut() {
            fields.retain(|name, _| name != "x-kubernetes-group-version-kind" && name != "description");
        }
        meaning
    };
    meaning(one) == meaning(other)
}

fn references(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut value = value.clone();
    each_reference(&mut value, &mut |name| found.push(name.clone()));
    found
}

/// Shows every name that is referred to; what it is made is written back.
fn each_reference(value: &mut Value, work: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match field {
                    Value::String(text) if key == "$ref" => {
                        let Some(name) = text.strip_prefix(PREFIX) else { continue };
                        // A pointer writes `/` and `~` otherwise.
                        let mut name = name.replace("~1", "/").replace("~0", "~");
                        work(&mut name);
                        *text = format!("{PREFIX}{}", name.replace('~', "~0").replace('/', "~1"));
                    }
                    other => each_reference(other, work),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, work)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::merge;
    use serde_json::{Value, json};

    fn own() -> Value {
        json!({"paths": {"/api/v1/pods": {}}, "definitions": {"Meta": {"type": "object"}, "Other": {"type": "string"}}})
    }

    fn reference(name: &str) -> Value {
        json!({"get": {"responses": {"200": {"schema": {"$ref": format!("#/definitions/{name}")}}}}})
    }

    #[test]
    fn w1_and_w2_only_its_own_paths_and_what_they_need() {
        let mut merged = own();
        let other = json!({
            "paths": {"/apis/a.io/v1/x": reference("X"), "/apis/a.io/v1": {}, "/apis/a.io/v1beta1/x": {}, "/api/v1/pods": reference("Evil")},
            "definitions": {"X": {"properties": {"m": {"$ref": "#/definitions/Meta"}}}, "Evil": {}, "Meta": {"type": "object", "description": "d"}},
        });
        merge(&mut merged, other, "a.io", "v1").expect("a document");
        let keys = |field: &str| merged[field].as_object().expect("a map").keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys("paths"), ["/api/v1/pods", "/apis/a.io/v1", "/apis/a.io/v1/x"]);
        assert_eq!(merged["paths"]["/api/v1/pods"], json!({}));
        assert_eq!(keys("definitions"), ["Meta", "Other", "X"]);
    }

    #[test]
    fn w3_what_differs_gets_another_name() {
        let mut merged = own();
        let other = json!({
            "paths": {"/apis/a.io/v1/x": reference("X")},
            "definitions": {"X": {"items": {"$ref": "#/definitions/Other"}}, "Other": {"type": "integer"}},
        });
        merge(&mut merged, other.clone(), "a.io", "v1").expect("a document");
        assert_eq!(merged["definitions"]["Other"], json!({"type": "string"}));
        assert_eq!(merged["definitions"]["Other_v2"], json!({"type": "integer"}));
        assert_eq!(merged["definitions"]["X"]["items"]["$ref"], "#/definitions/Other_v2");
        let once = merged.clone();
        merge(&mut merged, other, "a.io", "v1").expect("the same again");
        assert_eq!(merged["definitions"]["Other_v2"], once["definitions"]["Other_v2"]);
    }

    #[test]
    fn w4_a_document_with_holes_is_refused_and_changes_nothing() {
        let mut merged = own();
        for other in [json!({"paths": {"/apis/a.io/v1/x": reference("Gone")}}), json!([]), json!({"paths": 1})] {
            merge(&mut merged, other, "a.io", "v1").expect_err("holes");
            assert_eq!(merged, own());
        }
    }
}
