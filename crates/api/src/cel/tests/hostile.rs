//! Hostile expressions and data: nothing panics, nothing hangs, nothing takes memory that no cost pays for.

use serde_json::json;

use super::super::{Bindings, Budget, Env, Type};

fn env() -> Env {
    Env::new().variable("self", Type::Dyn)
}

fn refused(text: &str) -> String {
    env().compile(text).expect_err("refused").errors[0].message.clone()
}

#[test]
fn r1_text_and_nesting_are_bounded() {
    let long = format!("'{}'", "x".repeat(100_001));
    assert_eq!(refused(&long), "expression code point size exceeds limit: size: 100003, limit 100000");
    let nested = "expression recursion limit exceeded: 100";
    let deep = "expression recursion limit exceeded: 250";
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("{1: ", "1", "}"),
        ("-(", "1", ")"),
        ("!(", "true", ")"),
        ("size(", "''", ")"),
        ("[1].map(x, ", "1", ")"),
        ("true ? 1 : ", "1", ""),
        ("self[", "1", "]"),
    ] {
        let text = format!("{}{middle}{}", open.repeat(5_000), close.repeat(5_000));
        assert_eq!(refused(&text), nested, "{open}");
    }
    assert_eq!(refused(&format!("self{}", ".a".repeat(10_000))), deep);
    assert_eq!(refused(&format!("1{}", " + 1".repeat(10_000))), deep);
    assert_eq!(refused(&"(".repeat(99_999)), nested);
    assert_eq!(refused(&format!("{}1", "cel.bind(x, 1, ".repeat(5_000))), nested);
    assert!(env().compile(&format!("{}true", "!".repeat(90_000))).is_ok(), "signs cancel out");
}

#[test]
fn the_deepest_expressions_that_compile_can_be_evaluated() {
    for text in [
        format!("{}1{}", "(".repeat(98), ")".repeat(98)),
        format!("{}1{} == 1", "[".repeat(98), "][0]".repeat(98)),
        format!("{}1{}", "{'a': ".repeat(98), "}".repeat(98)),
        format!("self{}", ".?a".repeat(248)),
        format!("1{}", " + 1".repeat(248)),
        format!("{}true", "true ? true : ".repeat(98)),
        format!("{}x{}", "[1].map(x, ".repeat(60), ")".repeat(60)),
        format!("{}true{}", "[1].all(x, ".repeat(60), ")".repeat(60)),
        format!("{}x{}", "cel.bind(x, 1, ".repeat(98), ")".repeat(98)),
        format!("'a'{}", ".trim()".repeat(248)),
        chain_of_bindings(40),
        format!("self{} == optional.none()", ".?a.optMap(x, x)".repeat(20)),
        format!("[1]{}", ".sortBy(x, x)".repeat(45)),
    ] {
        let data = json!({});
        let program = env().compile(&text).unwrap_or_else(|errors| panic!("{}: {errors}", &text[..20]));
        let bindings = Bindings::new().with("self", &data);
        let value =
            program.evaluate(&bindings, &mut Budget::new(100_000)).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert!(value.to_json().is_ok() || text.starts_with('{'), "{text}");
    }
}

/// Each is bound to what uses the one before: all are evaluated inside each other, when the last is used.
fn chain_of_bindings(length: u32) -> String {
    let binds: String = (1..=length).map(|at| format!("cel.bind(a{at}, [0, 0 + a{}][1], ", at - 1)).collect();
    format!("cel.bind(a0, 1, {binds}a{length}{}", ")".repeat(length as usize + 1))
}

#[test]
fn bindings_inside_each_other_are_as_deep_as_all_of_them() {
    let message = refused(&chain_of_bindings(90));
    assert!(message.contains("expression recursion limit exceeded"), "{message}");
}

#[test]
fn r3_long_chains_are_not_deep() {
    let chain = vec!["self.a == 1"; 5_000].join(" || ");
    let program = env().compile(&chain).expect("a chain is balanced");
    let data = json!({"a": 2});
    let bindings = Bindings::new().with("self", &data);
    let value = program.evaluate(&bindings, &mut Budget::new(100_000)).expect("a value");
    assert_eq!(value.as_bool(), Some(false));
}

/// Each ends by a failure, a refusal or its budget.
#[test]
fn bombs_are_stopped_by_the_budget() {
    let data = json!({
        "l": (0..1000).collect::<Vec<_>>(), "s": "a".repeat(100_000), "p": "(a{20}){20}",
        "patterns": (0..1000).map(|at| format!("(a{{20}}){{{}}}", at % 30)).collect::<Vec<_>>(),
    });
    let mut doubled = "cel.bind(a0, [1, 2, 3, 4, 5, 6, 7, 8], ".to_owned();
    let mut nested = "cel.bind(a0, [[1]], ".to_owned();
    for at in 1..80 {
        doubled.push_str(&format!("cel.bind(a{at}, a{0} + a{0}, ", at - 1));
        nested.push_str(&format!("cel.bind(a{at}, [a{0}, a{0}], ", at - 1));
    }
    let close = ")".repeat(80);
    let folds = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, self.l.all(e, true)))))";
    let maps = "self.l.map(a, self.l.map(b, self.l.map(c, self.l.map(d, d))))";
    for text in [
        folds,
        maps,
        "self.s.replace('a', self.s).replace('a', self.s)",
        "self.l.map(x, self.s + self.s).join(self.s)",
        "self.l.map(x, self.l.map(y, self.s + self.s))",
        "self.s.split('').map(x, self.s.split(''))",
        "self.patterns.all(p, self.s.matches(p))",
        "self.patterns.all(p, self.patterns.all(q, 'x'.matches(p + q) || true))",
        "self.s.matches('(((a*)*)*)*b')",
        "self.s.findAll('a?').size() > 0 && self.l.all(x, self.s.findAll('').size() > 0)",
        "self.l.all(x, '%s%s%s'.format([self, self, self]).size() > 0)",
        "sets.contains(self.l.map(x, self.l), self.l.map(x, self.l + [1]))",
        "self.l.map(x, self.l) == self.l.map(x, self.l)",
        "self.l.transformMap(i, v, self.l.transformMap(j, w, self.l.transformMap(k, u, u)))",
        "self.l.exists(x, 1 / 0 == self.l.map(y, self.l.map(z, z)).size())",
        "lists.range(100000).map(x, lists.range(100000))",
        &format!("{doubled}a79.size(){close}"),
        &format!("{nested}a79 == a79{close}"),
        &format!("{nested}a79 in [a79]{close}"),
        &format!("{nested}'%s'.format([a79]).size(){close}"),
    ] {
        let mut budget = Budget::new(200_000);
        if let Ok(program) = env().compile(text) {
            let bindings = Bindings::new().with("self", &data);
            if let Ok(value) = program.evaluate(&bindings, &mut budget) {
                let _ = value.to_json();
            }
        }
    }
}

/// A small generator of its own: the same seed gives the same texts.
struct Seed(u64);

impl Seed {
    fn next(&mut self, below: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }
}

const PIECES: [&str; 84] = [
    "1",
    "-1",
    "9223372036854775807",
    "1u",
    "0u",
    "1.5",
    "1e308",
    "'a'",
    "'é'",
    "''",
    "b'a'",
    "true",
    "false",
    "null",
    "self",
    "self.a",
    "self.l",
    "self.s",
    "self.m",
    "x",
    "y",
    "int",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "&&",
    "||",
    "?",
    ":",
    "!",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ".?",
    "[?",
    ".size()",
    ".all(x, x",
    ".map(x, x",
    ".filter(x, x",
    ".exists(x, x",
    ".exists_one(x, x",
    ".transformList(x, y, y",
    ".transformMap(x, y, y",
    "cel.bind(x, 1, x",
    "has(self.a)",
    "size(",
    "string(",
    "int(",
    "uint(",
    "double(",
    "timestamp(",
    "duration(",
    "type(",
    "dyn(",
    ".substring(",
    ".split(",
    ".replace(",
    ".indexOf(",
    ".charAt(",
    ".matches(",
    ".join(",
    ".format([",
    "quantity(",
    "ip(",
    "cidr(",
    "url(",
    "semver(",
    "optional.of(",
    ".orValue(",
    ".sum()",
];

fn survive(text: &str) {
    let data = json!({"a": 1, "l": [1, 2.5, "x", null], "s": "text", "m": {"k": [1]}});
    if let Ok(program) = env().compile(text) {
        let cost = program.cost();
        assert!(cost.min <= cost.max, "{text}");
        let bindings = Bindings::new().with("self", &data);
        if let Ok(value) = program.evaluate(&bindings, &mut Budget::new(20_000)) {
            let _ = value.to_json();
        }
    }
}

#[test]
fn random_tokens_never_panic() {
    let mut seed = Seed(7);
    for _ in 0..20_000 {
        let text: Vec<&str> = (0..1 + seed.next(12)).map(|_| PIECES[seed.next(PIECES.len())]).collect();
        survive(&text.join(if seed.next(2) == 0 { "" } else { " " }));
    }
}

#[test]
fn mutated_expressions_never_panic() {
    const WHOLE: [&str; 12] = [
        "self.l.all(x, x > 1) && self.m.exists(k, self.m[k].size() > 0)",
        "self.s.substring(1, 2) + self.s.charAt(0) + '%s %d'.format([self.s, 1])",
        "cel.bind(x, self.?a.orValue(3), [?self.?b, x].map(y, y * 2))",
        "{'a': [1, 2], ?'b': self.?c}.transformMap(k, v, v.size())",
        "timestamp('2026-01-02T03:04:05Z') - duration('1h') > timestamp(0) ? 1 : 2",
        "quantity('1Gi').add(quantity('1')).isGreaterThan(quantity('2')) || cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "url('https://a.b:1/c?d=e').getQuery().map(k, k).join(',').matches('^d$')",
        "self.l.map(x, type(x) == int, x + 1).sum() % 7 == -9223372036854775808 / -1",
        "optional.of(self).optMap(v, v.a).optFlatMap(v, optional.none()).hasValue()",
        "math.greatest(1, 2u, 3.5) >= math.least([1, 2]) && sets.intersects([1], [2])",
        "'a,b'.split(',').transformList(i, v, v.lastIndexOf('b', i)).isSorted()",
        "b'\\xff\\u00e9' == bytes('\\U0001F600') ? r'\\d' : \"\"\"a\"b\"\"\"",
    ];
    let mut seed = Seed(11);
    for _ in 0..20_000 {
        let mut chars: Vec<char> = WHOLE[seed.next(WHOLE.len())].chars().collect();
        for _ in 0..1 + seed.next(4) {
            let (at, other) = (seed.next(chars.len()), seed.next(chars.len()));
            match seed.next(4) {
                0 => drop(chars.remove(at)),
                1 => chars.swap(at, other),
                2 => chars.insert(at, chars[other]),
                _ => chars[at] = ['0', '9', '\'', '(', ']', '.', '?', '-', '\\', 'é'][seed.next(10)],
            }
            if chars.is_empty() {
                break;
            }
        }
        survive(&chars.into_iter().collect::<String>());
    }
}
