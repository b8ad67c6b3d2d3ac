//! What is refused when it is written, and where.

use std::sync::Arc;

use super::super::{Env, ObjectType, Shape, Type};

fn env() -> Env {
    let inner = ObjectType::new("object").field("port", Type::Int).field("name", Type::String);
    let object = ObjectType::new("object")
        .field("replicas", Type::Int)
        .field("name", Type::String)
        .field("ports", Shape::list(Shape::object(Arc::new(inner))))
        .field("labels", Shape::map(Type::String.into()))
        .field("when", Type::Timestamp)
        .field("any", Type::Dyn);
    Env::new().variable("self", Shape::object(Arc::new(object)))
}

fn refused(text: &str) -> String {
    env().compile(text).expect_err(text).to_string()
}

#[test]
fn r2_unknown_fields_are_shown_where_they_stand() {
    assert_eq!(refused("self.x"), "ERROR: <input>:1:5: undefined field 'x'\n | self.x\n | ....^");
    assert_eq!(
        refused("self.ports.all(p,\n  p.nane == 'a')"),
        "ERROR: <input>:2:4: undefined field 'nane'\n |   p.nane == 'a')\n | ...^"
    );
    assert_eq!(refused("has(self.x)"), "ERROR: <input>:1:4: undefined field 'x'\n | has(self.x)\n | ...^");
}

#[test]
fn r1_unknown_names() {
    for (text, expected) in [
        ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')\n | f(1)\n | .^"),
        ("'a'.f()", "ERROR: <input>:1:6: undeclared reference to 'f' (in container '')\n | 'a'.f()\n | .....^"),
        (
            "Thing{a: 1}",
            "ERROR: <input>:1:6: undeclared reference to 'Thing' (in container '')\n | Thing{a: 1}\n | .....^",
        ),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn r3_arguments_of_other_types() {
    for (text, message, column) in [
        ("self.replicas + 'a'", "found no matching overload for '_+_' applied to '(int, string)'", 15),
        ("self.replicas == 'a'", "found no matching overload for '_==_' applied to '(int, string)'", 15),
        ("self.name.contains(1)", "found no matching overload for 'contains' applied to 'string.(int)'", 19),
        ("size(self.replicas)", "found no matching overload for 'size' applied to '(int)'", 5),
        ("self.replicas ? 1 : 2", "found no matching overload for '_?_:_' applied to '(int, int, int)'", 15),
        ("true ? 1 : 'a'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'", 6),
        ("!self.name", "found no matching overload for '!_' applied to '(string)'", 1),
        ("self.labels.all(k, k == 1)", "found no matching overload for '_==_' applied to '(string, int)'", 22),
        ("self.ports[0].port.foo", "type 'int' does not support field selection", 19),
        ("self.ports['a']", "found no matching overload for '_[_]' applied to '(list(object), string)'", 11),
        ("self.when > 3", "found no matching overload for '_>_' applied to '(timestamp, int)'", 11),
        ("[1, 'a']", "expected type 'int' but found 'string'", 5),
        ("{'a': 1, 'b': 'c'}", "expected type 'int' but found 'string'", 15),
        ("{1.5: 1}", "unsupported key type: double", 2),
        (
            "self.ports.map(p, p.port).exists(x, x == 'a')",
            "found no matching overload for '_==_' applied to '(int, string)'",
            39,
        ),
        ("self.labels == null", "found no matching overload for '_==_' applied to '(map(string, string), null)'", 13),
        (
            "self.replicas.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
            5,
        ),
    ] {
        let errors = env().compile(text).expect_err(text).errors;
        assert_eq!((errors[0].message.as_str(), errors[0].column), (message, column), "{text}");
    }
}

#[test]
fn r6_all_errors_are_reported() {
    let errors = env().compile("self.x + y > 1 && self.name == 1").expect_err("refused").errors;
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "undefined field 'x'",
            "undeclared reference to 'y' (in container '')",
            "found no matching overload for '_==_' applied to '(string, int)'"
        ]
    );
}

#[test]
fn syntax_errors_have_their_place() {
    for (text, message, column) in [
        ("1 +", "Syntax error: mismatched input '<EOF>' expecting an expression", 4),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'", 3),
        ("1 2", "Syntax error: mismatched input '2' expecting <EOF>", 3),
        ("a = 1", "Syntax error: mismatched input '=' expecting <EOF>", 3),
        ("a.1", "Syntax error: mismatched input '0.1' expecting <EOF>", 2),
        ("#", "Syntax error: token recognition error at: '#'", 1),
        ("true ? 1", "Syntax error: mismatched input '<EOF>' expecting ':'", 9),
        ("namespace", "reserved identifier: namespace", 1),
        ("", "Syntax error: mismatched input '<EOF>' expecting an expression", 1),
    ] {
        let errors = env().compile(text).expect_err(text).errors;
        assert_eq!((errors[0].message.as_str(), errors[0].column), (message, column), "{text}");
    }
}

#[test]
fn r5_literal_patterns_and_times_are_read_when_written() {
    for text in
        ["self.name.matches('[')", "timestamp('never')", "duration('long')", "'a'.find('(')", "matches('a', ')')"]
    {
        let message = env().compile(text).expect_err(text).errors[0].message.clone();
        assert!(message.starts_with("invalid "), "{message}");
    }
}

#[test]
fn the_type_of_an_expression_is_known() {
    for (text, of) in [
        ("self.replicas > 1", "bool"),
        ("self.ports.map(p, p.port)", "list(int)"),
        ("self.ports.filter(p, p.port > 1)", "list(object)"),
        ("self.labels", "map(string, string)"),
        ("self.labels.transformMap(k, v, size(v))", "map(string, int)"),
        ("self.labels.transformList(k, v, k)", "list(string)"),
        ("self.ports.transformMap(i, p, p.name)", "map(int, string)"),
        ("self.?name", "optional_type(string)"),
        ("self.?name.orValue('')", "string"),
        ("self.labels[?'a'].optMap(x, size(x))", "optional_type(int)"),
        ("self.ports[0]", "object"),
        ("self.any.x.y", "dyn"),
        ("self.any + 1", "int"),
        ("self.any.map(x, x)", "list(dyn)"),
        ("true ? self.any : 1", "dyn"),
        ("[]", "list(dyn)"),
        ("{}", "map(dyn, dyn)"),
        ("self.when - timestamp(0)", "duration"),
        ("self.when.getHours()", "int"),
        ("cel.bind(x, self.name, x + 'a')", "string"),
        ("'a,b'.split(',').map(x, x)", "list(string)"),
        ("math.greatest(1, 2)", "int"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("type(1)", "type(int)"),
        ("int", "type(int)"),
        ("self.ports.exists_one(p, p.port == 1)", "bool"),
        ("format.uuid().validate('a')", "optional_type(list(string))"),
    ] {
        let program = env().compile(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        assert_eq!(program.output().to_string(), of, "{text}");
    }
}

#[test]
fn programs_say_which_variables_they_read() {
    let env = env().variable("oldSelf", Type::Dyn);
    let uses = |text: &str| env.compile(text).expect(text).uses("oldSelf");
    assert!(uses("self.replicas >= oldSelf.replicas") && uses("self.ports.all(p, p.port in oldSelf.ports)"));
    assert!(!uses("self.replicas > 1") && !uses("[1].all(oldSelf, oldSelf > 0)"));
}

#[test]
fn objects_can_be_made() {
    let patch = ObjectType::new("JSONPatch").field("op", Type::String).field("value", Type::Dyn);
    let env = Env::new().object(patch).open_objects("Object");
    let made = |text: &str| {
        let program = env.compile(text).map_err(|errors| errors.errors[0].message.clone())?;
        let value =
            program.evaluate(&super::Bindings::new(), &mut super::Budget::new(1_000)).map_err(|why| why.to_string())?;
        value.to_json().map(|json| json.to_string()).map_err(|why| why.to_string())
    };
    for (text, expected) in [
        ("[JSONPatch{op: 'add', value: {'a': 1}}]", Ok(r#"[{"op":"add","value":{"a":1}}]"#)),
        ("Object{spec: Object.spec{replicas: 3}}", Ok(r#"{"spec":{"replicas":3}}"#)),
        ("Object{metadata: Object.metadata{labels: {'a-b': 'c'}}}", Ok(r#"{"metadata":{"labels":{"a-b":"c"}}}"#)),
        ("Object{a__dash__b: 1, ?c: optional.none()}", Ok(r#"{"a-b":1}"#)),
        ("Object{spec: Object.spec{replicas: 3}}.spec.replicas", Ok("3")),
        ("JSONPatch{op: 1}", Err("expected type of field 'op' is 'string' but provided type is 'int'")),
        ("JSONPatch{oops: 1}", Err("undefined field 'oops'")),
        ("Objects{}", Err("undeclared reference to 'Objects' (in container '')")),
    ] {
        assert_eq!(made(text).as_deref().map_err(String::as_str), expected, "{text}");
    }
}
