//! What a definition may say in `x-kubernetes-validations` (S8).
//!
//! Rules
//!   V1 texts       a rule is not empty; a message has one line, and is said if the rule has several
//!   V2 reason      is one of four; fieldPath names a field below
//!   V3 compiles    rule and messageExpression compile, and give a bool and a text
//!   V4 transition  `oldSelf` is used only where values correlate: not within lists that are no map lists
//!   V5 cost        at worst an expression costs at most [`RULE_COST_MAX`], as often as its place can occur, and those of a
//!                  schema together at most [`SCHEMA_COST_MAX`]
//!   V6 defaults    hold the rules
//! Source: API reference, ValidationRule; custom resources, "Validation rules", "Resource use by validation functions".

use serde_json::Value;

use crate::cel::Program;
use crate::custom::Node;
use crate::custom::fill::fill;
use crate::custom::node::List;
use crate::custom::rule::{REASONS, RULES, Rule, Ruled};
use crate::custom::shape::occurrences_max;
use crate::custom::verdict::judge;
use crate::field::{Errors, Path};
use crate::resources::tree::Tree;

/// Units that one expression may cost at worst, over all places where it runs.
const RULE_COST_MAX: u64 = 10_000_000;
/// Units that all expressions of a schema may cost at worst.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// The dearest expressions that are named when all together cost too much.
const DEAREST_SHOWN_MAX: usize = 4;

/// Adds an error for each broken rule of a schema that is otherwise structural.
pub(super) fn validate(schema: &Value, path: &Path, errors: &mut Errors) {
    let Some(ruled) = Ruled::compile(schema, &Node::compile(schema)) else { return };
    let mut walk = Walk { errors, costs: Vec::new() };
    walk.place(&Place { schema, ruled: &ruled, path, occurs: Some(1), uncorrelated: None });
    let total = walk.costs.iter().fold(0_u64, |sum, (cost, _)| sum.saturating_add(*cost));
    if total > SCHEMA_COST_MAX {
        walk.costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, at) in walk.costs.iter().take(DEAREST_SHOWN_MAX) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            walk.errors.forbidden(at, detail);
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        walk.errors.forbidden(path, &excess(what, total, SCHEMA_COST_MAX));
    }
}

struct Place<'a> {
    schema: &'a Value,
    ruled: &'a Ruled,
    path: &'a Path,
    /// How often it stands in an object, as far as that is declared.
    occurs: Option<u64>,
    /// The outermost list around it whose items have no old values.
    uncorrelated: Option<&'a Path>,
}

struct Walk<'e> {
    errors: &'e mut Errors,
    costs: Vec<(u64, Path)>,
}

impl Walk<'_> {
    fn place(&mut self, at: &Place<'_>) {
        let rules = at.path.child(RULES);
        for (index, (rule, said)) in at.ruled.rules.iter().zip(at.schema.items(RULES)).enumerate() {
            let path = rules.index(index);
            self.texts(said, &path);
            self.names(rule, said, &path);
            self.programs(rule, said, (&path, at));
            self.transition(rule, said, (&path, at));
        }
        self.default(at);
        for (name, ruled) in &at.ruled.fields {
            let path = at.path.child("properties").key(name);
            self.place(&Place { schema: &at.schema["properties"][name], ruled, path: &path, ..*at });
        }
        let Some(ruled) = at.ruled.each.as_deref() else { return };
        let is_list = at.schema.text("type") == "array";
        let name = if is_list { "items" } else { "additionalProperties" };
        let lost = is_list && !matches!(at.ruled.list, List::Map(_));
        self.place(&Place {
            schema: &at.schema[name],
            ruled,
            path: &at.path.child(name),
            occurs: at.occurs.zip(at.ruled.each_max).map(|(occurs, max)| occurs.saturating_mul(max)),
            uncorrelated: at.uncorrelated.or(lost.then_some(at.path)),
        });
    }

    /// V1.
    fn texts(&mut self, said: &Value, path: &Path) {
        let is_blank = |field: &str| !said.text(field).is_empty() && said.text(field).trim().is_empty();
        let is_broken = |field: &str| said.text(field).trim().contains(['\n', '\r']);
        let (rule, message) = (path.child("rule"), path.child("message"));
        if said.text("rule").trim().is_empty() {
            self.errors.required(&rule, "rule is not specified");
        }
        if is_blank("message") {
            self.errors.invalid(&message, said.text("message"), "message must be non-empty if specified");
        } else if is_broken("message") {
            self.errors.invalid(&message, said.text("message"), "message must not contain line breaks");
        } else if is_broken("rule") && said.text("message").is_empty() {
            self.errors.required(&message, "message must be specified if rule contains line breaks");
        }
        if is_blank("messageExpression") {
            let detail = "messageExpression must be non-empty if specified";
            self.errors.required(&path.child("messageExpression"), detail);
        }
    }

    /// V2.
    fn names(&mut self, rule: &Rule, said: &Value, path: &Path) {
        let reason = said.text("reason");
        let known = REASONS.map(|reason| reason.as_str());
        if said.is_set("reason") && !known.contains(&reason) {
            self.errors.not_supported(&path.child("reason"), reason, &known);
        }
        let (field, at) = (said.text("fieldPath"), path.child("fieldPath"));
        if !field.is_empty() && field.trim().is_empty() {
            self.errors.invalid(&at, field, "fieldPath must be non-empty if specified");
        } else if field.contains(['\n', '\r']) {
            self.errors.invalid(&at, field, "fieldPath must not contain line breaks");
        } else if let Err(why) = &rule.field {
            self.errors.invalid(&at, field, &format!("fieldPath must be a valid path: {why}"));
        }
    }

    /// V3 and V5 of the rule and its message.
    fn programs(&mut self, rule: &Rule, said: &Value, (path, at): (&Path, &Place<'_>)) {
        let mut one = |program: &Result<Program, String>, field: &str, what: &str| match program {
            Err(_) if rule.text.is_empty() && field == "rule" => {} // V1 has said it.
            Err(why) => self.errors.invalid(&path.child(field), said.clone(), why),
            Ok(program) => {
                let occurs = at.occurs.unwrap_or_else(|| occurrences_max(at.ruled.bytes_min));
                let cost = program.cost().max.saturating_mul(occurs);
                if cost > RULE_COST_MAX {
                    self.errors.forbidden(&path.child(field), &excess(what, cost, RULE_COST_MAX));
                }
                self.costs.push((cost, path.child(field)));
            }
        };
        one(&rule.program, "rule", "estimated rule cost");
        if let Some(program) = &rule.message_program {
            one(program, "messageExpression", "estimated messageExpression cost");
        }
    }

    /// V4.
    fn transition(&mut self, rule: &Rule, said: &Value, (path, at): (&Path, &Place<'_>)) {
        if rule.program.is_err() {
            return;
        }
        match (rule.is_transition, at.uncorrelated) {
            (true, Some(list)) => {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                self.errors.invalid(&path.child("rule"), rule.text.as_str(), &detail);
            }
            (false, _) if said.is_set("optionalOldSelf") => {
                let detail = "may not be set if oldSelf is not used in rule";
                self.errors.invalid(&path.child("optionalOldSelf"), rule.optional_old, detail);
            }
            (true, None) | (false, _) => {}
        }
    }

    /// V6.
    fn default(&mut self, at: &Place<'_>) {
        let Some(default) = at.schema.get("default").filter(|default| !default.is_null()) else { return };
        let mut filled = default.clone();
        fill(&mut filled, &Node::compile(at.schema));
        judge(at.ruled, &filled, None, &at.path.child("default"), self.errors);
    }
}

/// What is said of a cost beyond its limit.
fn excess(what: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let times = match factor {
        many if many > 100.0 => "more than 100x".to_owned(),
        few if few < 1.5 => format!("{few:.6}x"), // "1.0x" would say that nothing is wrong.
        some => format!("{some:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {times} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::super::structural;
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn found(schema: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        structural::validate(schema, &Path::new("s"), &mut errors);
        errors.iter().map(|error| error.to_string().lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// An object whose field `a` is this schema, with one rule.
    fn field(mut schema: Value, rule: Value) -> Value {
        schema["x-kubernetes-validations"] = json!([rule]);
        json!({"type": "object", "properties": {"a": schema}})
    }

    const AT: &str = "s.properties[a].x-kubernetes-validations[0]";

    /// What is said of a rule over a text.
    fn says(rule: Value, expected: &[&str]) {
        let schema = field(json!({"type": "object", "properties": {"b": {"type": "string", "maxLength": 9}}}), rule);
        let expected: Vec<String> = expected.iter().map(|text| format!("{AT}{text}")).collect();
        assert_eq!(found(&schema), expected, "{schema}");
    }

    #[test]
    fn v1_texts_are_there_and_of_one_line() {
        says(json!({"rule": " "}), &[".rule: Required value: rule is not specified"]);
        says(
            json!({"rule": "true", "message": " "}),
            &[".message: Invalid value: \" \": message must be non-empty if specified"],
        );
        says(
            json!({"rule": "true", "message": "a\nb"}),
            &[".message: Invalid value: \"a\\nb\": message must not contain line breaks"],
        );
        says(
            json!({"rule": "true ||\nfalse"}),
            &[".message: Required value: message must be specified if rule contains line breaks"],
        );
        says(
            json!({"rule": "true", "messageExpression": " "}),
            &[".messageExpression: Required value: messageExpression must be non-empty if specified"],
        );
    }

    #[test]
    fn v2_reasons_and_paths_are_known() {
        says(
            json!({"rule": "true", "reason": "Odd"}),
            &[".reason: Unsupported value: \"Odd\": supported values: \
            \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""],
        );
        says(json!({"rule": "true", "fieldPath": ".b", "reason": "FieldValueRequired"}), &[]);
        says(
            json!({"rule": "true", "fieldPath": ".c"}),
            &[".fieldPath: Invalid value: \".c\": fieldPath must be a valid path: does not refer to a valid field"],
        );
    }

    #[test]
    fn v3_what_does_not_compile_is_refused() {
        says(
            json!({"rule": "self.c == 1"}),
            &[".rule: Invalid value: {\"rule\":\"self.c == 1\"}: compilation failed: \
            ERROR: <input>:1:5: undefined field 'c'"],
        );
        says(
            json!({"rule": "self.b"}),
            &[".rule: Invalid value: {\"rule\":\"self.b\"}: cel expression must evaluate to a bool"],
        );
    }

    #[test]
    fn v4_old_values_are_used_only_where_they_are_known() {
        let list = |kind: &str| {
            let rule = json!([{"rule": "self.k == oldSelf.k"}]);
            let item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 9}},
                "x-kubernetes-map-type": "atomic", "x-kubernetes-validations": rule});
            let mut list = json!({"type": "array", "maxItems": 9, "x-kubernetes-list-type": kind, "items": item});
            if kind == "map" {
                list["x-kubernetes-list-map-keys"] = json!(["k"]);
            }
            json!({"type": "object", "properties": {"a": list}})
        };
        assert_eq!(found(&list("map")), Vec::<String>::new());
        for kind in ["set", "atomic"] {
            assert_eq!(
                found(&list(kind)),
                [
                    "s.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self.k == oldSelf.k\": oldSelf \
                  cannot be used on the uncorrelatable portion of the schema within s.properties[a]"
                ]
            );
        }
        says(
            json!({"rule": "true", "optionalOldSelf": true}),
            &[".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"],
        );
    }

    #[test]
    fn v5_a_rule_that_may_cost_too_much_is_refused() {
        let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                    strings are declared)";
        let list = |max: Option<u64>| {
            let rule = json!({"rule": "self.all(x, self.all(y, x != y))"});
            let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 10}});
            if let Some(max) = max {
                list["maxItems"] = json!(max);
            }
            found(&field(list, rule))
        };
        let said = list(None);
        let first =
            format!("{AT}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}");
        assert_eq!((said.len(), &said[0]), (3, &first), "the schema as a whole costs too much as well");
        assert_eq!(list(Some(100)), Vec::<String>::new());
    }

    #[test]
    fn v5_a_rule_costs_as_often_as_its_place_occurs() {
        let rule = json!([{"rule": "self.contains('abc')"}]);
        let list = |most: u64| {
            json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": most,
                "items": {"type": "string", "maxLength": 1000, "x-kubernetes-validations": rule}}}})
        };
        assert_eq!(found(&list(10)), Vec::<String>::new());
        assert!(
            found(&list(1_000_000))[0].contains("estimated rule cost exceeds budget"),
            "{:?}",
            found(&list(1_000_000))
        );
    }

    #[test]
    fn v5_all_rules_of_a_schema_together_cost_no_more_than_they_may() {
        let dear = json!({"type": "array", "maxItems": 1000, "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x != y))"}]});
        let fields: serde_json::Map<String, Value> = (0..40).map(|n| (format!("f{n}"), dear.clone())).collect();
        let said = found(&json!({"type": "object", "properties": fields}));
        assert_eq!(said.len(), 5, "{said:?}");
        assert!(said[0].ends_with(
            "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        ));
        assert!(said[4].starts_with("s: Forbidden: x-kubernetes-validations estimated rule cost total"), "{}", said[4]);
    }

    #[test]
    fn v6_defaults_hold_the_rules() {
        let schema = field(json!({"type": "integer", "default": 0}), json!({"rule": "self > 1"}));
        assert_eq!(found(&schema), ["s.properties[a].default: Invalid value: 0: failed rule: self > 1"]);
    }

    #[test]
    fn s8_junctors_have_no_rules() {
        let schema = json!({"type": "object", "anyOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]});
        assert_eq!(found(&schema), ["s.anyOf[0].x-kubernetes-validations: Forbidden: must be empty to be structural"]);
    }
}
