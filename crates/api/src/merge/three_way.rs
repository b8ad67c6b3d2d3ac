//! The patch of client-side apply: what was applied before, what is there, what is wanted.
//!
//! Rules
//!   R1 change   what is wanted and is not there so, is in the patch; what somebody else added is not touched
//!   R2 remove   what was applied before and is no longer wanted, is null, or `$patch: delete` in a keyed list
//!   R3 keyed    lists that strategic merge merges by key are compared item by item, the nth of a key with the nth of it;
//!               `$setElementOrder` says their order when an item or the order differs
//!   R4 scalars  lists of scalars that merge: new items, and `$deleteFromPrimitiveList`
//!   R5 retain   an object whose kind has variants says with `$retainKeys` which fields stay
//!   R6 whole    every other list, and everything where no schema is known, is replaced as a whole
//!   R7 nothing  an empty patch means that there is nothing to do
//!
//! Source: Kubernetes docs, "Declarative Management of Kubernetes Objects: how apply calculates differences".

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::strategic::{DELETE_ITEMS, ORDER, PATCH, RETAIN_KEYS, Shaped};
use crate::schema::{Field, Message, Shape};

type Object = Map<String, Value>;

/// The patch that makes `current` what `modified` wants. With a schema it is a strategic merge patch, without one a
/// JSON merge patch. `original` is what was applied before; null if nothing was.
pub fn three_way(original: &Value, current: &Value, modified: &Value, message: Option<Message>) -> Value {
    let shaped = message.map_or(Shaped::Unknown, Shaped::Message);
    let empty = Map::new();
    let object = |value| Value::as_object(value).unwrap_or(&empty);
    Value::Object(objects(object(original), object(current), object(modified), shaped))
}

fn objects(original: &Object, current: &Object, modified: &Object, shaped: Shaped) -> Object {
    let mut patch = Map::new();
    for (name, wanted) in modified {
        let place = shaped.at(name);
        let before = original.get(name);
        match (current.get(name), wanted) {
            (None, Value::Null) => {}
            (Some(Value::Object(found)), Value::Object(wanted)) if !place.field.is_some_and(|field| field.replace) => {
                let empty = Map::new();
                let before = before.and_then(Value::as_object).unwrap_or(&empty);
                let mut inner = objects(before, found, wanted, place.inner);
                if !inner.is_empty() {
                    if place.field.is_some_and(|field| field.retain_keys && field.shape == Shape::One) {
                        inner.insert(RETAIN_KEYS.to_owned(), keys(wanted));
                    }
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Some(Value::Array(found)), Value::Array(wanted)) if place.field.is_some_and(merges) => {
                let before = before.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let field = place.field.expect("a field that merges is a field");
                let lists = Lists { before, found, wanted };
                match field.merge_key() {
                    Some(key) => keyed(name, key, lists, field, place.inner, &mut patch),
                    None => scalars(name, lists, &mut patch),
                }
            }
            (found, wanted) if found != Some(wanted) => {
                patch.insert(name.clone(), wanted.clone());
            }
            _ => {}
        }
    }
    for name in original.keys().filter(|name| !modified.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    patch
}

fn merges(field: &Field) -> bool {
    field.merge && field.shape == Shape::List
}

fn keys(object: &Object) -> Value {
    object.keys().map(|key| Value::from(key.as_str())).collect()
}

/// A list, three times.
#[derive(Clone, Copy)]
struct Lists<'l> {
    before: &'l [Value],
    found: &'l [Value],
    wanted: &'l [Value],
}

/// R3.
fn keyed(name: &str, key: &str, lists: Lists, field: &Field, inner: Shaped, patch: &mut Object) {
    let same = |one: &Value, other: &Value| !one[key].is_null() && one[key] == other[key];
    // Some lists hold a key twice, as ports of two protocols do: the second is compared with the second.
    let find = |list: &[Value], item: &Value, nth: usize| {
        list.iter().filter(|other| same(item, other)).nth(nth).and_then(Value::as_object).cloned()
    };
    let mut items = Vec::new();
    for (index, wanted) in lists.wanted.iter().enumerate() {
        let nth = lists.wanted[..index].iter().filter(|earlier| same(earlier, wanted)).count();
        let (Some(found), Some(fields)) = (find(lists.found, wanted, nth), wanted.as_object()) else {
            items.push(wanted.clone());
            continue;
        };
        let before = find(lists.before, wanted, nth).unwrap_or_default();
        let mut change = objects(&before, &found, fields, inner);
        if !change.is_empty() {
            if field.retain_keys {
                change.insert(RETAIN_KEYS.to_owned(), keys(fields));
            }
            change.insert(key.to_owned(), wanted[key].clone());
            items.push(Value::Object(change));
        }
    }
    for gone in lists.before.iter().filter(|before| !lists.wanted.iter().any(|wanted| same(before, wanted))) {
        let delete = [(PATCH.to_owned(), Value::from("delete")), (key.to_owned(), gone[key].clone())];
        items.push(Value::Object(Map::from_iter(delete)));
    }
    let order = |list: &[Value]| list.iter().map(|item| item[key].clone()).collect::<Vec<_>>();
    if !items.is_empty() || order(lists.found) != order(lists.wanted) {
        let order =
            order(lists.wanted).into_iter().map(|value| Value::Object(Map::from_iter([(key.to_owned(), value)])));
        patch.insert(format!("{ORDER}{name}"), order.collect());
    }
    if !items.is_empty() {
        patch.insert(name.to_owned(), Value::Array(items));
    }
}

/// R4.
fn scalars(name: &str, lists: Lists, patch: &mut Object) {
    let texts = |list: &[Value]| list.iter().map(Value::to_string).collect::<BTreeSet<String>>();
    let (found, wanted) = (texts(lists.found), texts(lists.wanted));
    let new: Vec<Value> = lists.wanted.iter().filter(|item| !found.contains(&item.to_string())).cloned().collect();
    let gone: Vec<Value> = lists.before.iter().filter(|item| !wanted.contains(&item.to_string())).cloned().collect();
    if !new.is_empty() || lists.found != lists.wanted {
        patch.insert(format!("{ORDER}{name}"), Value::Array(lists.wanted.to_vec()));
    }
    if !new.is_empty() {
        patch.insert(name.to_owned(), Value::Array(new));
    }
    if !gone.is_empty() {
        patch.insert(format!("{DELETE_ITEMS}{name}"), Value::Array(gone));
    }
}

#[cfg(test)]
mod tests {
    use super::three_way;
    use crate::merge::strategic_merge;
    use crate::schema::{Message, kubernetes};
    use serde_json::{Value, json};

    fn pod() -> Message<'static> {
        kubernetes().find("k8s.io.api.core.v1.Pod").expect("pods are known")
    }

    /// The patch is as expected, and the object it makes differs in nothing that is wanted.
    fn check(original: Value, current: Value, modified: Value, patch: Value) {
        let found = three_way(&original, &current, &modified, Some(pod()));
        assert_eq!(found, patch);
        let made = strategic_merge(&current, found, pod()).expect("our own patch applies");
        assert_eq!(
            three_way(&modified, &made, &modified, Some(pod())),
            json!({}),
            "applying again changes nothing: {made}"
        );
    }

    fn containers(list: Value) -> Value {
        json!({ "spec": { "containers": list } })
    }

    #[test]
    fn r1_what_others_added_is_not_touched() {
        check(
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"a": "1", "other": "x"}, "uid": "u"}, "status": {"phase": "Running"}}),
            json!({"metadata": {"labels": {"a": "2", "b": "3"}}}),
            json!({"metadata": {"labels": {"a": "2", "b": "3"}}}),
        );
    }

    #[test]
    fn r2_what_was_applied_and_is_not_wanted_goes() {
        check(
            json!({"metadata": {"labels": {"a": "1", "gone": "x"}, "annotations": {"n": "v"}}}),
            json!({"metadata": {"labels": {"a": "1", "gone": "x", "other": "y"}, "annotations": {"n": "v"}}}),
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"gone": null}, "annotations": null}}),
        );
    }

    #[test]
    fn r3_keyed_lists_are_compared_item_by_item() {
        check(
            containers(json!([{"name": "a", "image": "1"}, {"name": "gone"}])),
            containers(json!([{"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "gone"}])),
            containers(json!([{"name": "a", "image": "2"}, {"name": "new"}])),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "a"}, {"name": "new"}],
                "containers": [{"name": "a", "image": "2"}, {"name": "new"}, {"$patch": "delete", "name": "gone"}],
            }}),
        );
        check(
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "b"}, {"name": "a"}])),
            containers(json!([{"name": "a"}, {"name": "b"}])),
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}}),
        );
    }

    #[test]
    fn r3_a_key_that_occurs_twice_is_compared_with_its_like() {
        let ports = json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]);
        let with = |labels: Value| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
        check(
            with(json!({"a": "1"})),
            with(json!({"a": "1"})),
            with(json!({"a": "2"})),
            json!({"metadata": {"labels": {"a": "2"}}}),
        );
    }

    #[test]
    fn r4_lists_of_scalars_that_merge() {
        check(
            json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            json!({"metadata": {"finalizers": ["x/a", "x/b"]}}),
            json!({"metadata": {"finalizers": ["x/a", "x/c"]}}),
            json!({"metadata": {
                "$setElementOrder/finalizers": ["x/a", "x/c"], "finalizers": ["x/c"], "$deleteFromPrimitiveList/finalizers": ["x/b"],
            }}),
        );
    }

    #[test]
    fn r5_variants_say_which_fields_stay() {
        check(
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {
                "$setElementOrder/volumes": [{"name": "v"}],
                "volumes": [{"name": "v", "$retainKeys": ["hostPath", "name"], "hostPath": {"path": "/x"}, "emptyDir": null}],
            }}),
        );
    }

    #[test]
    fn r6_other_lists_are_replaced() {
        check(
            json!({}),
            containers(json!([{"name": "a", "command": ["x", "y"]}])),
            containers(json!([{"name": "a", "command": ["x"]}])),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "command": ["x"]}],
            }}),
        );
        let patch =
            three_way(&json!({"l": [1], "gone": 1}), &json!({"l": [1, 2]}), &json!({"l": [{"name": "a"}]}), None);
        assert_eq!(patch, json!({"l": [{"name": "a"}], "gone": null}));
    }

    #[test]
    fn r7_nothing_to_do_is_an_empty_patch() {
        let object = containers(json!([{"name": "a", "image": "1"}]));
        check(object.clone(), object.clone(), object, json!({}));
    }
}
