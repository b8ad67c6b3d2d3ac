//! Data of declared shapes.

use std::sync::Arc;

use serde_json::json;

use super::super::{Bindings, Budget, Env, ObjectType, Order, Shape, Type, Value};
use super::run;
use crate::schema::kubernetes;

fn env() -> Env {
    let item = ObjectType::new("item").field("name", Type::String).field("value", Type::Int);
    let object = ObjectType::new("object")
        .field("when", Type::Timestamp)
        .field("wait", Type::Duration)
        .field("data", Type::Bytes)
        .field("ratio", Type::Double)
        .field("a-b", Type::Int)
        .field("namespace", Type::String)
        .field("set", Shape::list(Type::String.into()).ordered(Order::Set))
        .field("keyed", Shape::list(Shape::object(Arc::new(item))).ordered(Order::Keyed(["name".to_owned()].into())));
    Env::new().variable("self", Shape::object(Arc::new(object)))
}

#[test]
fn r2_json_is_read_as_declared() {
    let data = json!({
        "when": "2026-01-02T03:04:05Z", "wait": "1h", "data": "aGVsbG8=", "ratio": 2, "a-b": 5, "namespace": "x",
        "set": ["a", "b"], "keyed": [{"name": "x", "value": 1}, {"name": "y", "value": 2}]
    });
    for (text, expected) in [
        ("self.when.getFullYear()", "2026"),
        ("self.wait > duration('30m')", "true"),
        ("string(self.data)", "hello"),
        ("self.ratio / 4.0", "0.5"),
        ("self.a__dash__b", "5"),
        ("self.__namespace__", "x"),
        ("has(self.a__dash__b)", "true"),
        ("self.set == ['b', 'a']", "false"),
        ("self.set == self.set", "true"),
        ("self.set + ['b', 'c']", "[\"a\", \"b\", \"c\"]"),
        ("(self.keyed + [self.keyed[0]]).size()", "2"),
        ("self.keyed.map(k, k.value).sum()", "3"),
        ("self == self", "true"),
    ] {
        assert_eq!(run(&env(), text, &data), expected, "{text}");
    }
}

#[test]
fn r3_declared_sets_compare_in_any_order() {
    let shape = Shape::list(Type::String.into()).ordered(Order::Set);
    let env = Env::new().variable("self", shape.clone()).variable("oldSelf", shape);
    let (new, old) = (json!(["a", "b"]), json!(["b", "a"]));
    let bindings = Bindings::new().with("self", env.read("self", &new)).with("oldSelf", env.read("oldSelf", &old));
    let program = env.compile("self == oldSelf").expect("a program");
    let value = program.evaluate(&bindings, &mut Budget::new(100)).expect("a value");
    assert_eq!(value.as_bool(), Some(true));
}

#[test]
fn r2_data_that_does_not_fit_its_declaration_is_what_it_is() {
    let data = json!({"when": "never", "wait": 5, "ratio": "x"});
    for (text, expected) in [
        ("self.when.getFullYear()", "error: no such overload"),
        ("self.wait > duration('1s')", "error: no such overload"),
        ("dyn(self.ratio) == 'x'", "true"),
        ("has(self.set)", "false"),
        ("self.set", "error: no such key: set"),
    ] {
        assert_eq!(run(&env(), text, &data), expected, "{text}");
    }
}

#[test]
fn built_in_kinds_are_objects_of_their_schema() {
    let pod = kubernetes().find("k8s.io.api.core.v1.Pod").expect("pods exist");
    let env = Env::new().variable("self", Shape::of_message(pod));
    let data = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"memory": "1Gi"}},
                                 "livenessProbe": {"httpGet": {"port": "http"}}}]}
    });
    for (text, expected) in [
        ("self.kind + self.metadata.name", "Poda"),
        ("self.spec.containers.all(c, c.image != '')", "true"),
        ("self.metadata.creationTimestamp < timestamp('2027-01-01T00:00:00Z')", "true"),
        ("quantity(self.spec.containers[0].resources.limits['memory']).isGreaterThan(quantity('500Mi'))", "true"),
        ("self.spec.containers[0].livenessProbe.httpGet.port == 'http'", "true"),
        ("has(self.spec.nodeName)", "false"),
        ("self.spec.container", "refused: undefined field 'container'"),
        (
            "self.spec.containers.all(c, c.image > 1)",
            "refused: found no matching overload for '_>_' applied to '(string, int)'",
        ),
    ] {
        assert_eq!(run(&env, text, &data), expected, "{text}");
    }
}

#[test]
fn r1_reading_costs_only_what_is_touched() {
    let many: Vec<_> = (0..200_000).map(|at| json!({"name": format!("n{at}"), "list": [1, 2, 3]})).collect();
    let data = json!({"many": many, "one": 1});
    let program =
        Env::new().variable("self", Type::Dyn).compile("self.one == 1 && size(self.many) > 10").expect("a program");
    let bindings = Bindings::new().with("self", Value::from(&data));
    let mut budget = Budget::new(1_000);
    // the cost of each is that of its steps, not of the 200,000 objects that none of them looks at
    for _ in 0..50 {
        let value = program.evaluate(&bindings, &mut budget).expect("a value");
        assert_eq!(value.as_bool(), Some(true));
    }
    assert!(budget.left() > 500, "{}", budget.left());
}
