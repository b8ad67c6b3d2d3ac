//! Rules that hold for any two objects and any patch between them, tried on many drawn from seeds.
//!
//! The differs here are the tests' own: they make the patches that clients make.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::apply::{self, Managers, Writer};
use super::{PatchType, patch, strategic_merge};
use crate::resource::Verbs;
use crate::schema::{Field, Form, Merging, Message, Shape, Type, kubernetes};

/// How many seeds each rule is tried on.
const SEEDS: u64 = 400;

/// A reproducible generator: the same seed draws the same objects on every machine.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    fn flips(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Any JSON of at most this depth.
    pub fn tree(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 3 } else { 6 }) {
            0 => json!(self.below(3)),
            1 => json!(format!("s{}", self.below(3))),
            2 => json!(self.flips()),
            3 => Value::Array((0..self.below(3)).map(|_| self.tree(depth - 1)).collect()),
            _ => self.object(depth - 1),
        }
    }

    /// Any object whose values are of at most this depth.
    pub fn object(&mut self, depth: u32) -> Value {
        (0..self.below(4)).map(|_| (format!("k{}", self.below(4)), self.tree(depth))).collect::<Map<_, _>>().into()
    }

    /// Some of these names, in any order.
    fn some(&mut self, names: &[&'static str]) -> Vec<&'static str> {
        let mut drawn: Vec<&str> = names.iter().copied().filter(|_| self.flips()).collect();
        for at in (1..drawn.len()).rev() {
            drawn.swap(at, self.below(at as u64 + 1) as usize);
        }
        drawn
    }

    /// Any object of a message, as its table says: lists whose items have keys hold each of them once.
    fn of(&mut self, message: Message<'_>, depth: u64) -> Value {
        let fields: Vec<&Field> = message.fields().collect();
        let mut map = Map::new();
        for field in fields {
            if self.below(2 + depth) == 0 && depth < 6 {
                let value = self.field(message, field, depth + 1);
                map.insert(field.name.to_string(), value);
            }
        }
        Value::Object(map)
    }

    fn field(&mut self, message: Message<'_>, field: &Field, depth: u64) -> Value {
        let by_key = field.merge_key().is_some() || field.merging == Merging::Map;
        match field.shape {
            Shape::One => self.one(message, field, depth),
            Shape::Map => {
                let keys = self.some(&["k1", "k2", "k3"]);
                keys.into_iter()
                    .map(|key| (key.to_owned(), self.one(message, field, depth)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Shape::List => {
                let numbers = self.some(&["1", "2", "3", "4"]);
                let items = numbers.into_iter().map(|number| match message.of(field) {
                    Some(inner) if inner.form() == Form::Fields => {
                        let mut item = self.of(inner, depth);
                        let keys = field.keys().iter().map(AsRef::as_ref).chain(field.merge_key());
                        for key in keys.filter(|_| by_key) {
                            item[key] = match inner.field(key).map(|field| field.of) {
                                Some(Type::Int32 | Type::Int64) => json!(number.parse::<u16>().unwrap_or(9)),
                                _ => json!(number),
                            };
                        }
                        item
                    }
                    _ if field.of == Type::String => json!(number),
                    _ => self.one(message, field, depth),
                });
                Value::Array(items.collect())
            }
        }
    }

    fn one(&mut self, message: Message<'_>, field: &Field, depth: u64) -> Value {
        match (field.of, message.of(field).map(|inner| (inner, inner.form()))) {
            (Type::Message(_), Some((inner, Form::Fields))) => self.of(inner, depth),
            (Type::Message(_), Some((_, Form::AnyObject | Form::Any | Form::Nested))) => self.object(2),
            (Type::Message(_), Some((_, Form::Strings))) => json!(self.some(&["a", "b"])),
            (Type::Bool, _) => json!(self.flips()),
            (Type::Int32 | Type::Int64 | Type::Double, _) => json!(self.below(3)),
            _ => json!(format!("s{}", self.below(3))),
        }
    }

    /// At least one label: an empty map is a value of its own, owned by who wrote it.
    fn labels(&mut self, names: &[&'static str]) -> Value {
        let mut labels = Map::from_iter([("l".to_owned(), json!("1"))]);
        for name in self.some(names) {
            labels.insert(name.to_owned(), json!(self.below(3).to_string()));
        }
        labels.into()
    }

    fn container(&mut self, name: &str) -> Value {
        let mut container = json!({"name": name, "image": format!("i{}", self.below(3))});
        let env: Vec<Value> =
            self.some(&["X", "Y", "Z"]).iter().map(|name| json!({"name": name, "value": "v"})).collect();
        let ports: Vec<Value> = self
            .some(&["1", "2", "3"])
            .iter()
            .map(|port| json!({"containerPort": port.parse::<u16>().unwrap_or(9), "protocol": "TCP"}))
            .collect();
        for (field, items) in [("env", env), ("ports", ports)] {
            if !items.is_empty() {
                container[field] = json!(items);
            }
        }
        if self.flips() {
            container["command"] = json!(self.some(&["a", "b", "c"]));
        }
        if self.flips() {
            container["securityContext"] = json!({"privileged": self.flips()});
        }
        container
    }

    /// Any deployment, with lists of every kind: by key, as a set, and as one value.
    fn deployment(&mut self) -> Value {
        let containers: Vec<Value> =
            self.some(&["a", "b", "c", "d"]).into_iter().map(|name| self.container(name)).collect();
        let volumes: Vec<Value> = self
            .some(&["v", "w"])
            .into_iter()
            .map(|name| {
                if self.flips() {
                    json!({"name": name, "emptyDir": {}})
                } else {
                    json!({"name": name, "secret": {"secretName": "s"}})
                }
            })
            .collect();
        let mut pod = json!({"containers": containers, "volumes": volumes});
        if self.flips() {
            pod["tolerations"] =
                json!(self.some(&["t", "u"]).iter().map(|key| json!({"key": key})).collect::<Vec<_>>());
        }
        if self.flips() {
            pod["nodeSelector"] = self.labels(&["n"]);
        }
        let strategy = if self.flips() {
            json!({"type": "Recreate"})
        } else {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
        };
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": self.labels(&["x", "y", "z"]), "finalizers": self.some(&["f/a", "f/b", "f/c"])},
            "spec": {"replicas": self.below(3), "strategy": strategy, "template": {"spec": pod}},
        });
        if self.flips() {
            object["spec"]["paused"] = json!(true);
        }
        object
    }
}

fn deployments() -> Message<'static> {
    kubernetes().find("k8s.io.api.apps.v1.Deployment").expect("deployments exist")
}

/// The JSON patch that makes `to` of `from`.
fn json_diff(from: &Value, to: &Value, path: &str, operations: &mut Vec<Value>) {
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => {
            let at = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
            for (name, value) in old {
                match new.get(name) {
                    Some(after) => json_diff(value, after, &at(name), operations),
                    None => operations.push(json!({"op": "remove", "path": at(name)})),
                }
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                operations.push(json!({"op": "add", "path": at(name), "value": value}));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for (index, (before, after)) in old.iter().zip(new).enumerate() {
                json_diff(before, after, &format!("{path}/{index}"), operations);
            }
            for _ in new.len()..old.len() {
                operations.push(json!({"op": "remove", "path": format!("{path}/{}", new.len())}));
            }
            for value in new.iter().skip(old.len()) {
                operations.push(json!({"op": "add", "path": format!("{path}/-"), "value": value}));
            }
        }
        (from, to) if from != to => operations.push(json!({"op": "replace", "path": path, "value": to})),
        _ => {}
    }
}

/// What of a difference is wanted: kubectl takes removals from one pair of objects, the rest from another.
#[derive(Clone, Copy, PartialEq)]
enum Want {
    All,
    Removals,
    NoRemovals,
}

/// The strategic merge patch that makes `to` of `from`.
fn strategic_diff(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    message: Option<Message<'_>>,
    want: Want,
) -> Map<String, Value> {
    let mut difference = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name) && want != Want::NoRemovals) {
        difference.insert(name.clone(), Value::Null);
    }
    for (name, after) in to {
        let Some(before) = from.get(name) else {
            if want != Want::Removals {
                difference.insert(name.clone(), after.clone());
            }
            continue;
        };
        if before == after {
            continue;
        }
        let field = message.and_then(|message| message.field(name));
        let inner =
            message.zip(field).and_then(|(message, field)| message.of(field)).filter(|of| of.form() == Form::Fields);
        match (before, after) {
            _ if field.is_some_and(|field| field.replace) && want != Want::Removals => {
                difference.insert(name.clone(), after.clone());
            }
            (Value::Object(old), Value::Object(new)) => {
                let mut inside = strategic_diff(
                    old,
                    new,
                    inner.filter(|_| field.is_some_and(|field| field.shape == Shape::One)),
                    want,
                );
                retain_keys(&mut inside, new, field, want);
                if !inside.is_empty() {
                    difference.insert(name.clone(), Value::Object(inside));
                }
            }
            (Value::Array(old), Value::Array(new)) if field.is_some_and(|field| field.merge) => {
                let field = field.expect("just looked at");
                list_diff(&mut difference, name, (old, new), (field, inner), want);
            }
            _ if want != Want::Removals => drop(difference.insert(name.clone(), after.clone())),
            _ => {}
        }
    }
    difference
}

fn retain_keys(inside: &mut Map<String, Value>, new: &Map<String, Value>, field: Option<&Field>, want: Want) {
    if field.is_some_and(|field| field.retain_keys) && !inside.is_empty() && want != Want::Removals {
        inside.insert("$retainKeys".to_owned(), new.keys().cloned().collect());
    }
}

fn list_diff(
    difference: &mut Map<String, Value>,
    name: &str,
    (old, new): (&[Value], &[Value]),
    (field, inner): (&Field, Option<Message<'_>>),
    want: Want,
) {
    let mut items = Vec::new();
    let Some(key) = field.merge_key() else {
        let removed: Vec<&Value> = old.iter().filter(|item| !new.contains(item)).collect();
        if !removed.is_empty() && want != Want::NoRemovals {
            difference.insert(format!("$deleteFromPrimitiveList/{name}"), json!(removed));
        }
        items.extend(new.iter().filter(|item| !old.contains(item) && want != Want::Removals).cloned());
        if want != Want::Removals {
            difference.insert(format!("$setElementOrder/{name}"), json!(new));
        }
        if !items.is_empty() {
            difference.insert(name.to_owned(), json!(items));
        }
        return;
    };
    let find = |items: &[Value], item: &Value| items.iter().find(|other| other[key] == item[key]).cloned();
    for item in new.iter().filter_map(Value::as_object) {
        let keyed = Value::Object(item.clone());
        match find(old, &keyed) {
            None if want != Want::Removals => items.push(keyed),
            None => {}
            Some(before) => {
                let before = before.as_object().cloned().unwrap_or_default();
                let mut inside = strategic_diff(&before, item, inner, want);
                retain_keys(&mut inside, item, Some(field), want);
                if !inside.is_empty() {
                    inside.insert(key.to_owned(), item[key].clone());
                    items.push(Value::Object(inside));
                }
            }
        }
    }
    if want != Want::NoRemovals {
        items.extend(
            old.iter().filter(|item| find(new, item).is_none()).map(|item| json!({key: item[key], "$patch": "delete"})),
        );
    }
    if want != Want::Removals {
        let order: Vec<Value> = new.iter().map(|item| json!({key: item[key]})).collect();
        difference.insert(format!("$setElementOrder/{name}"), json!(order));
    }
    if !items.is_empty() {
        difference.insert(name.to_owned(), json!(items));
    }
}

fn fields(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

#[test]
fn the_json_patch_of_a_difference_makes_one_object_the_other() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let (from, to) = (draw.object(4), draw.object(4));
        let mut operations = Vec::new();
        json_diff(&from, &to, "", &mut operations);
        let patched =
            patch(PatchType::Json, &from, json!(operations).to_string().as_bytes(), None).expect("a patch that fits");
        assert_eq!(patched.value, to, "seed {seed}: {from} and {operations:?}");
    }
}

#[test]
fn the_strategic_patch_of_a_difference_makes_one_object_the_other() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let (from, to) = (draw.deployment(), draw.deployment());
        let difference = Value::Object(strategic_diff(fields(&from), fields(&to), Some(deployments()), Want::All));
        let merged = strategic_merge(&from, difference.clone(), deployments()).expect("a patch that fits");
        assert_eq!(merged, to, "seed {seed}: {from:#} and {difference:#}");
        let again = strategic_merge(&merged, difference, deployments()).expect("a patch that fits");
        assert_eq!(again, to, "seed {seed}: a second time changes nothing");
    }
}

/// The messages of all kinds that are stored.
fn kinds() -> Vec<Message<'static>> {
    let rows = crate::resources::all().into_iter().filter(|row| row.verbs == Verbs::All);
    rows.filter_map(|row| row.message.get_built_in()).collect()
}

#[test]
fn the_strategic_patch_of_a_difference_makes_one_object_of_any_kind_the_other() {
    for message in kinds() {
        for seed in 0..40 {
            let mut draw = Draw::new(seed);
            let (from, to) = (draw.of(message, 0), draw.of(message, 0));
            let difference = Value::Object(strategic_diff(fields(&from), fields(&to), Some(message), Want::All));
            let told = || format!("{} seed {seed}: {from:#} and {difference:#}", message.full_name());
            let merged = strategic_merge(&from, difference.clone(), message).unwrap_or_else(|_| panic!("{}", told()));
            assert_eq!(merged, to, "{}", told());
        }
    }
}

/// An empty list is nobody's (`gather`, R1 and R2): who applies one and then does not leaves it behind.
fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty_lists),
        Value::Object(fields) => {
            fields.retain(|_, value| *value != json!([]));
            fields.values_mut().for_each(drop_empty_lists);
        }
        _ => {}
    }
}

/// Two managers share an object of any kind: each has some of the fields of every part.
#[test]
fn managers_of_different_fields_of_any_kind_may_apply_in_any_order() {
    for message in kinds() {
        for seed in 0..40 {
            let mut draw = Draw::new(seed);
            let mut whole = draw.of(message, 0);
            drop_empty_lists(&mut whole);
            let [one, two] = [0, 1].map(|own| {
                let mut config = json!({"metadata": {"labels": {format!("l{own}"): "x"}}});
                for (at, (name, part)) in fields(&whole).iter().enumerate() {
                    match part.as_object().filter(|_| message.field(name).is_some_and(|f| f.shape == Shape::One)) {
                        _ if matches!(name.as_str(), "metadata" | "apiVersion" | "kind") => {}
                        Some(part) if name == "spec" || name == "status" => {
                            let own = part.iter().enumerate().filter(|(at, _)| at % 2 == own);
                            let own: Map<_, _> = own.map(|(_, (name, value))| (name.clone(), value.clone())).collect();
                            if !own.is_empty() {
                                config[name] = Value::Object(own);
                            }
                        }
                        _ if at % 2 == own => config[name] = part.clone(),
                        _ => {}
                    }
                }
                config
            });
            let apply = |live: &Live, manager: &str, config: &Value| {
                let writer = Writer { manager, api_version: "v1", subresource: "", now: "2026-01-01T00:00:00Z" };
                let applied = apply::apply(&live.object, config, live.managers.clone(), (&writer, false), message);
                let applied = applied.unwrap_or_else(|why| panic!("{} seed {seed}: {why}", message.full_name()));
                Live { object: applied.object, managers: applied.managers }
            };
            let live = Live::none();
            let first = apply(&apply(&live, "one", &one), "two", &two);
            let second = apply(&apply(&live, "two", &two), "one", &one);
            assert_eq!(first.canonical(), second.canonical(), "{} seed {seed}: {one} {two}", message.full_name());
            let first = apply(&first, "one", &json!({}));
            let alone = apply(&live, "two", &two);
            assert_eq!(first.canonical().0, alone.canonical().0, "{} seed {seed}: {one} {two}", message.full_name());
        }
    }
}

/// One object and who owns what of it.
#[derive(Clone, PartialEq, Debug)]
struct Live {
    object: Value,
    managers: Managers,
}

impl Live {
    fn none() -> Live {
        Live { object: json!({}), managers: Managers::default() }
    }

    fn apply(&self, manager: &str, config: &Value, force: bool) -> Result<Live, String> {
        let writer = Writer { manager, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
        let applied = apply::apply(&self.object, config, self.managers.clone(), (&writer, force), deployments());
        applied
            .map(|applied| Live { object: applied.object, managers: applied.managers })
            .map_err(|error| error.to_string())
    }

    fn update(&self, manager: &str, object: Value) -> Live {
        let writer = Writer { manager, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" };
        let managers = apply::update(&self.object, &object, self.managers.clone(), &writer, deployments());
        Live { object, managers }
    }

    /// The object with its lists in one order, and the owners as they are stored.
    fn canonical(&self) -> (Value, Option<Value>) {
        let mut object = self.object.clone();
        sort_lists(&mut object);
        (object, self.managers.clone().into_value())
    }
}

fn sort_lists(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort_lists);
            items.sort_by_key(Value::to_string);
        }
        Value::Object(fields) => fields.values_mut().for_each(sort_lists),
        _ => {}
    }
}

#[test]
fn applying_twice_is_applying_once() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let live =
            Live::none().update("maker", draw.deployment()).apply("other", &draw.deployment(), true).expect("forced");
        let config = draw.deployment();
        let once = live.apply("me", &config, true).expect("forced");
        let twice = once.apply("me", &config, false).expect("what is one's own is no conflict");
        assert_eq!(once, twice, "seed {seed}");
        let combined = apply::gather(&once.object, deployments());
        assert!(
            combined.contains(&apply::gather(&config, deployments())),
            "seed {seed}: all that was applied is there"
        );
    }
}

#[test]
fn managers_of_different_fields_may_apply_in_any_order() {
    let part = |draw: &mut Draw, suffix: &str| {
        let named = |names: Vec<&str>| -> Vec<String> { names.iter().map(|name| format!("{name}{suffix}")).collect() };
        let mut names = named(draw.some(&["a", "b"]));
        names.push(format!("c{suffix}"));
        let containers: Vec<Value> = names.iter().map(|name| draw.container(name)).collect();
        let labels = json!({format!("x{suffix}"): draw.below(2).to_string()});
        let mut finalizers = named(draw.some(&["f/a", "f/b"]));
        finalizers.push(format!("f/c{suffix}")); // an empty list would be the same field to both
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"template": {"spec": {"containers": containers}}}})
    };
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let [one, two, next] = ["1", "2", "1"].map(|suffix| part(&mut draw, suffix));
        let apply =
            |live: &Live, manager: &str, config: &Value| live.apply(manager, config, false).expect("disjoint fields");
        let live = Live::none();
        let first = apply(&apply(&live, "one", &one), "two", &two);
        let second = apply(&apply(&live, "two", &two), "one", &one);
        assert_eq!(first.canonical(), second.canonical(), "seed {seed}");
        let first = apply(&apply(&first, "one", &next), "two", &json!({}));
        let second = apply(&apply(&second, "two", &json!({})), "one", &next);
        assert_eq!(first.canonical(), second.canonical(), "seed {seed}: {one} {two} {next}");
    }
}

#[test]
fn what_nobody_owns_any_more_and_nobody_else_set_is_gone() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let (first, second) = (draw.deployment(), draw.deployment());
        let live = Live::none().apply("me", &first, false).and_then(|live| live.apply("me", &second, false));
        let live = live.expect("its own fields");
        let expected = Live::none().apply("me", &second, false).expect("nothing there");
        let (left, right) =
            (apply::gather(&live.object, deployments()), apply::gather(&expected.object, deployments()));
        assert_eq!(left.paths(), right.paths(), "seed {seed}: {first} {second}");
    }
}

#[test]
fn owners_are_read_as_they_were_printed() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let object = draw.deployment();
        let (gathered, changes) = (apply::gather(&object, deployments()), draw.deployment());
        let changes = apply::compare(&changes, &object, deployments());
        for set in [gathered, changes.added, changes.modified, changes.removed] {
            assert_eq!(apply::parse(&apply::print(&set)).as_ref(), Ok(&set), "seed {seed}");
        }
        let free = draw.object(4);
        let set =
            apply::gather(&free, kubernetes().find("k8s.io.api.apps.v1.ControllerRevision").expect("revisions exist"));
        assert_eq!(apply::parse(&apply::print(&set)).as_ref(), Ok(&set), "seed {seed}");
    }
}

#[test]
fn sets_obey_the_laws_of_sets() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let [a, b, c] = [(); 3].map(|()| draw.deployment());
        let [a, b, c] = [&a, &b, &c].map(|object| apply::gather(object, deployments()));
        let without = |from: &apply::FieldSet<'static>, taken: &apply::FieldSet<'static>| {
            let mut left = from.clone();
            left.subtract(taken);
            left
        };
        let [a, b, c] = [a, b, c].map(apply::FieldSet::into_owned);
        assert_eq!(a.clone().union(b.clone()), b.clone().union(a.clone()));
        assert_eq!(without(&without(&a, &b), &c), without(&a, &b.clone().union(c.clone())));
        assert_eq!(a.intersection(&b).union(without(&a, &b)), a);
        assert!(without(&a, &b).intersection(&b).is_empty() && a.clone().union(b.clone()).contains(&b));
        let members: BTreeSet<String> = a.paths().into_iter().chain(b.paths()).collect();
        assert_eq!(a.union(b).paths().len(), members.len(), "seed {seed}");
    }
}

#[test]
fn a_three_way_merge_as_kubectl_computes_it_is_what_applying_does() {
    for seed in 0..SEEDS {
        let mut draw = Draw::new(seed);
        let [mut original, mut modified] = [(); 2].map(|()| draw.deployment());
        for config in [&mut original, &mut modified] {
            // kubectl removes a whole map or list that is applied no more, whoever added to it: here one entry stays
            config["metadata"]["labels"]["kept"] = json!("1");
            config["metadata"]["finalizers"].as_array_mut().expect("a list").push(json!("f/kept"));
        }
        let applied = Live::none().apply("kubectl", &original, false).expect("nothing there");
        let mut changed = applied.object.clone();
        changed["metadata"]["labels"]["other"] = json!("1");
        changed["metadata"]["annotations"] = json!({"other": "1"});
        changed["spec"]["minReadySeconds"] = json!(7);
        changed["spec"]["replicas"] = json!(9);
        let side = draw.container("side");
        changed["spec"]["template"]["spec"]["containers"].as_array_mut().expect("a list").push(side);
        let live = applied.update("other", changed);
        let removals = strategic_diff(fields(&original), fields(&modified), Some(deployments()), Want::Removals);
        let rest = strategic_diff(fields(&live.object), fields(&modified), Some(deployments()), Want::NoRemovals);
        let removed = strategic_merge(&live.object, Value::Object(removals), deployments()).expect("a patch that fits");
        let mut merged = strategic_merge(&removed, Value::Object(rest), deployments()).expect("a patch that fits");
        sort_lists(&mut merged);
        let (applied, _) = live.apply("kubectl", &modified, true).expect("forced").canonical();
        assert_eq!(merged, applied, "seed {seed}");
    }
}
