//! A part merged into an object, as kustomize does it: Kubernetes' strategic merge, but for the order of lists.
//!
//! Rules
//!   M1 fields    of both; null takes a field away; `$patch: delete` and `replace` are heard
//!   M2 lists     of kinds with a schema that says by which keys: item by item, the part's first and in its order
//!   M3 scalars   of such lists come once
//!   M4 whole     every other list is the part's
//! Unlike kustomize, an item that leaves out the second of two keys (`protocol` of a port) is merged, not dropped.
//! Not here       `$setElementOrder`, `$deleteFromPrimitiveList`, `$retainKeys`: kustomize does not know them either

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use windlass_api::schema::{Field, Message, Shape};

const PATCH: &str = "$patch";
const UNKNOWN: [&str; 3] = ["$setElementOrder", "$deleteFromPrimitiveList", "$retainKeys"];

/// What a part of an object says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

/// What comes of a part and what is there; `None` when nothing is left.
pub fn merge(found: Option<Value>, part: Option<Value>, message: Option<Message>) -> Result<Option<Value>> {
    value(found, part, None, message)
}

fn value(
    found: Option<Value>,
    part: Option<Value>,
    field: Option<&Field>,
    message: Option<Message>,
) -> Result<Option<Value>> {
    match (found, part) {
        (found, None) => Ok(found),
        (_, Some(Value::Null)) => Ok(None),
        (found, Some(Value::Object(part))) => match found {
            Some(Value::Object(found)) => objects(found, part, message),
            None | Some(Value::Null) => objects(Map::new(), part, message),
            Some(other) => bail!("wrong node kind: expected a map, found {other}"),
        },
        (found, Some(Value::Array(part))) => match found {
            Some(Value::Array(found)) => lists(found, part, field, message),
            None | Some(Value::Null) => lists(Vec::new(), part, field, message),
            Some(other) => bail!("wrong node kind: expected a list, found {other}"),
        },
        (Some(Value::Object(_) | Value::Array(_)), Some(scalar)) => {
            bail!("wrong node kind: expected a map or list, found {scalar}")
        }
        (_, scalar) => Ok(scalar),
    }
}

/// M1.
fn objects(
    mut found: Map<String, Value>,
    mut part: Map<String, Value>,
    message: Option<Message>,
) -> Result<Option<Value>> {
    if let Some(unknown) = UNKNOWN.into_iter().find(|name| part.keys().any(|key| key.starts_with(name))) {
        bail!("{unknown} is not known in patches of kustomizations");
    }
    match directive(part.remove(PATCH).as_ref())? {
        Directive::Delete => return Ok(None),
        Directive::Replace => found.clear(),
        Directive::Merge => {}
    }
    for (name, part) in part {
        let field = message.and_then(|message| message.field(&name));
        // A map's values are of the type that its field says.
        let inner = match (message, field) {
            (Some(message), Some(field)) if field.shape != Shape::Map => message.of(field),
            _ => None,
        };
        if let Some(merged) = value(found.remove(&name), Some(part), field, inner)? {
            found.insert(name, merged);
        }
    }
    Ok(Some(Value::Object(found)))
}

fn directive(said: Option<&Value>) -> Result<Directive> {
    match said.map(|said| said.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => bail!("unknown patch strategy '{other}'"),
    }
}

fn lists(
    mut found: Vec<Value>,
    mut part: Vec<Value>,
    field: Option<&Field>,
    message: Option<Message>,
) -> Result<Option<Value>> {
    let Some(field) = field.filter(|field| field.merge && field.shape == Shape::List) else {
        return Ok(Some(Value::Array(part))); // M4
    };
    let of_list = |item: &Value| item.as_object().is_some_and(|item| item.len() == 1 && item.contains_key(PATCH));
    if let Some(at) = part.iter().position(of_list) {
        match directive(part.remove(at).get(PATCH))? {
            Directive::Delete => return Ok(None),
            Directive::Replace => return Ok(Some(Value::Array(part))),
            Directive::Merge => {}
        }
    }
    let keys: Vec<&str> = match (field.keys(), field.merge_key()) {
        ([], None) => Vec::new(),
        ([], Some(key)) => vec![key],
        (keys, _) => keys.iter().map(AsRef::as_ref).collect(),
    };
    let mut merged = Vec::new();
    if keys.is_empty() {
        // M3.
        for item in part.into_iter().chain(found) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(Some(Value::Array(merged)));
    }
    // M2.
    for item in part {
        let at = found.iter().position(|other| same(&item, other, &keys));
        let other = at.map(|at| found.remove(at));
        // What one of the two does not say is what the other does.
        let missing: Vec<(&str, Value)> = keys
            .iter()
            .filter(|key| item[**key].is_null())
            .filter_map(|key| Some((*key, other.as_ref()?.get(*key)?.clone())))
            .collect();
        if let Some(Value::Object(mut item)) = value(other, Some(item), None, message)? {
            for (key, value) in missing {
                item.entry(key).or_insert(value);
            }
            merged.push(Value::Object(item));
        }
    }
    merged.append(&mut found);
    Ok((!merged.is_empty()).then_some(Value::Array(merged)))
}

/// Whether items are the same: one key at least is, and none differs.
fn same(one: &Value, other: &Value, keys: &[&str]) -> bool {
    let both = |key: &&str| !one[*key].is_null() && !other[*key].is_null();
    keys.iter().any(|key| both(key) && one[*key] == other[*key])
        && keys.iter().filter(|key| both(key)).all(|key| one[*key] == other[*key])
}

#[cfg(test)]
mod tests {
    use super::merge;
    use serde_json::{Value, json};
    use windlass_api::schema::kubernetes;

    fn check(found: &Value, part: &Value, expected: &str) {
        let message = kubernetes().find_kind("v1", "Pod");
        let merged = match merge(Some(found.clone()), Some(part.clone()), message) {
            Ok(merged) => merged.map_or("nothing".to_owned(), |merged| merged.to_string()),
            Err(error) => error.to_string(),
        };
        assert_eq!(merged, expected, "{found} with {part}");
    }

    #[test]
    fn m1_fields_are_merged_replaced_and_deleted() {
        check(&json!({"a": {"b": 1, "c": 2}}), &json!({"a": {"b": null, "d": 3}}), r#"{"a":{"c":2,"d":3}}"#);
        check(&json!({"a": {"b": 1}}), &json!({"a": {"$patch": "replace", "c": 2}}), r#"{"a":{"c":2}}"#);
        check(&json!({"a": {"b": 1}, "d": 1}), &json!({"a": {"$patch": "delete"}}), r#"{"d":1}"#);
        check(&json!({"a": 1}), &json!({"$patch": "delete"}), "nothing");
        check(&json!({"a": 1}), &json!({"$patch": "burn"}), "unknown patch strategy 'burn'");
        check(&json!({}), &json!({"$retainKeys": ["a"]}), "$retainKeys is not known in patches of kustomizations");
    }

    #[test]
    fn m2_items_are_found_by_their_keys() {
        let pod = |containers: Value| json!({"spec": {"containers": containers}});
        let found = pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let expected = r#"{"spec":{"containers":[{"name":"c"},{"image":"2","name":"b"},{"image":"1","name":"a"}]}}"#;
        check(&found, &pod(json!([{"name": "c"}, {"name": "b", "image": "2"}])), expected);
        let gone = r#"{"spec":{"containers":[{"image":"1","name":"b"}]}}"#;
        check(&found, &pod(json!([{"name": "a", "$patch": "delete"}])), gone);
        check(&found, &pod(json!([{"$patch": "replace"}, {"name": "z"}])), r#"{"spec":{"containers":[{"name":"z"}]}}"#);
        let ports = |ports: Value| pod(json!([{"name": "a", "ports": ports}]));
        let expected =
            r#"{"spec":{"containers":[{"name":"a","ports":[{"containerPort":80,"name":"w","protocol":"TCP"}]}]}}"#;
        let found = ports(json!([{"containerPort": 80, "protocol": "TCP"}]));
        check(&found, &ports(json!([{"containerPort": 80, "name": "w"}])), expected);
    }

    #[test]
    fn m3_and_m4_scalars_come_once_and_other_lists_are_replaced() {
        let pod = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
        check(&pod(json!(["a", "b"])), &pod(json!(["c", "a"])), r#"{"metadata":{"finalizers":["c","a","b"]}}"#);
        let args = |args: Value| json!({"spec": {"containers": [{"name": "a", "args": args}]}});
        check(&args(json!(["1"])), &args(json!(["2"])), r#"{"spec":{"containers":[{"args":["2"],"name":"a"}]}}"#);
    }
}
