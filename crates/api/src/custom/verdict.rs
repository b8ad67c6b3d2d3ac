//! The rules in CEL of a schema against an object.
//!
//! Rules
//!   R1 order       a place's own rules, then those below; nothing is asked of nulls
//!   R2 message     what messageExpression gives, if that is one line of at most [`MESSAGE_BYTES_MAX`]; else the message;
//!                  else the rule
//!   R3 transition  a rule over `oldSelf` runs only where a value stood before, unless optionalOldSelf is said. Fields and
//!                  map values are found by name, items of a map list by their keys; in other lists nothing stood before
//!   R4 ratchet     a rule that is no transition rule is not asked again of a value that an update left as it was
//!   R5 budget      one evaluation costs at most `CALL_COST_MAX`, all of an object `OBJECT_COST_MAX`; then none is run any
//!                  more and the object is refused
//!   R6 failures    a rule that fails on the data refuses it
//! Not here    what comes before rules: they see only objects whose types and bounds hold (`rules`)
//!
//! Source: custom resources, "Validation rules", "Transition rules", "Validation ratcheting".

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::node::List;
use super::rule::{Rule, Ruled};
use super::value::{by_keys, key_of};
use crate::cel::{self, Bindings, Budget, EvalError, OBJECT_COST_MAX};
use crate::field::{Errors, FieldReason, Path};

/// R2: a longer message gives way to the one that is written down.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// Adds an error for each rule that an object breaks.
pub(crate) fn judge(ruled: &Ruled, value: &Value, old: Option<&Value>, path: &Path, errors: &mut Errors) {
    let mut judge = Judge { budget: Budget::new(OBJECT_COST_MAX), errors };
    // Stopping is an error already told.
    let _told = judge.place(ruled, Place { value, old, path, is_same: old == Some(value) });
}

/// R5: no rule is run any more.
struct Stopped;

struct Place<'a> {
    value: &'a Value,
    old: Option<&'a Value>,
    path: &'a Path,
    is_same: bool,
}

struct Judge<'e> {
    budget: Budget,
    errors: &'e mut Errors,
}

impl Judge<'_> {
    /// R1.
    fn place(&mut self, ruled: &Ruled, at: Place<'_>) -> Result<(), Stopped> {
        if at.value.is_null() {
            return Ok(());
        }
        let old = at.old.filter(|old| !old.is_null());
        for rule in &ruled.rules {
            let has_old = old.is_some() || rule.optional_old;
            let is_asked = if rule.is_transition { has_old } else { !at.is_same };
            if is_asked {
                self.rule(rule, ruled, &Place { old, ..at })?;
            }
        }
        match at.value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let Some(inner) = ruled.fields.get(name).or(ruled.each.as_deref()) else { continue };
                    let path = at.path.child(name);
                    self.below(inner, (value, old.and_then(|old| old.get(name))), &path, at.is_same)?;
                }
                Ok(())
            }
            Value::Array(items) => self.items(ruled, items, &Place { old, ..at }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn below(
        &mut self,
        inner: &Ruled,
        (value, old): (&Value, Option<&Value>),
        path: &Path,
        is_same: bool,
    ) -> Result<(), Stopped> {
        self.place(inner, Place { value, old, path, is_same: is_same || old == Some(value) })
    }

    /// R3.
    fn items(&mut self, ruled: &Ruled, items: &[Value], at: &Place<'_>) -> Result<(), Stopped> {
        let Some(inner) = &ruled.each else { return Ok(()) };
        let keys = match &ruled.list {
            List::Map(keys) => Some(keys),
            List::Atomic | List::Set => None,
        };
        let old = at.old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let before = keys.map_or_else(BTreeMap::new, |keys| by_keys(old, keys));
        for (index, value) in items.iter().enumerate() {
            let old = keys.and_then(|keys| before.get(&key_of(value, keys)).copied());
            self.below(inner, (value, old), &at.path.index(index), at.is_same)?;
        }
        Ok(())
    }

    fn rule(&mut self, rule: &Rule, ruled: &Ruled, at: &Place<'_>) -> Result<(), Stopped> {
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => {
                self.refuse(at, &format!("rule compile error: {why}"));
                return Ok(());
            }
        };
        let old = at.old.map(|old| ruled.shape.read(old));
        let old = match rule.optional_old {
            true => Some(cel::Value::Optional(old.map(Arc::new))),
            false => old,
        };
        let bindings = Bindings::new().with("self", ruled.shape.read(at.value));
        let bindings = match old {
            Some(old) => bindings.with("oldSelf", old),
            None => bindings,
        };
        match program.evaluate(&bindings, &mut self.budget) {
            Ok(value) if value.as_bool() == Some(true) => Ok(()),
            Ok(_) => {
                let message = self.message(rule, &bindings, at)?;
                self.tell(rule, at, &message);
                Ok(())
            }
            Err(error) => self.failed(rule, at, &error),
        }
    }

    /// R5 and R6.
    fn failed(&mut self, rule: &Rule, at: &Place<'_>, error: &EvalError) -> Result<(), Stopped> {
        let said = if rule.message.is_empty() { &rule.text } else { &rule.message };
        match error {
            EvalError::BudgetCost => return self.exhausted(at),
            EvalError::CallCost => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                self.refuse(at, &format!("'{error}': {why}: {said}"));
                return Err(Stopped);
            }
            EvalError::Failed(why) if why.starts_with("no such overload") => {
                let what = "call arguments did not match a supported operator, function or macro signature for rule";
                self.refuse(at, &format!("'{error}': {what}: {said}"));
            }
            EvalError::Failed(why) => self.refuse(at, &format!("{why} evaluating rule: {said}")),
        }
        Ok(())
    }

    fn exhausted(&mut self, at: &Place<'_>) -> Result<(), Stopped> {
        let why = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.refuse(at, why);
        Err(Stopped)
    }

    /// R2.
    fn message(&mut self, rule: &Rule, bindings: &Bindings<'_>, at: &Place<'_>) -> Result<String, Stopped> {
        let plain = if rule.message.is_empty() { format!("failed rule: {}", rule.text) } else { rule.message.clone() };
        let Some(Ok(program)) = &rule.message_program else { return Ok(plain) };
        let given = match program.evaluate(bindings, &mut self.budget) {
            Ok(value) => value.as_str().map(str::trim).unwrap_or_default().to_owned(),
            Err(EvalError::BudgetCost) => return self.exhausted(at).map(|()| plain),
            // What a message costs or fails on is no reason to say nothing.
            Err(EvalError::CallCost | EvalError::Failed(_)) => return Ok(plain),
        };
        let is_fit = !given.is_empty() && !given.contains(['\n', '\r']) && given.len() <= MESSAGE_BYTES_MAX;
        Ok(if is_fit { given } else { plain })
    }

    fn tell(&mut self, rule: &Rule, at: &Place<'_>, message: &str) {
        let path = rule.place(at.path);
        match rule.reason {
            FieldReason::Required => self.errors.required(&path, message),
            FieldReason::Forbidden => self.errors.forbidden(&path, message),
            FieldReason::Duplicate => self.errors.duplicate(&path, shown(at.value)),
            _ => self.errors.invalid(&path, shown(at.value), message),
        }
    }

    fn refuse(&mut self, at: &Place<'_>, why: &str) {
        self.errors.invalid(at.path, shown(at.value), why);
    }
}

/// A value in an error: what has parts is shown by its type.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::from("object"),
        Value::Array(_) => Value::from("array"),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::custom::Node;
    use crate::custom::rule::Ruled;
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};

    fn found(schema: &Value, value: &Value, old: Option<&Value>) -> String {
        let ruled = Ruled::compile(schema, &Node::compile(schema)).expect("rules");
        let mut errors = Errors::new();
        judge(&ruled, value, old, &Path::root(), &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// A schema whose `spec` is this, with these rules.
    fn spec(mut schema: Value, rules: Value) -> Value {
        schema["x-kubernetes-validations"] = rules;
        json!({"type": "object", "properties": {"spec": schema}})
    }

    fn says(schema: &Value, value: Value, old: Option<Value>, expected: &str) {
        let object = |value: Value| json!({"spec": value});
        assert_eq!(found(schema, &object(value), old.map(object).as_ref()), expected, "{schema}");
    }

    #[test]
    fn r1_own_rules_come_before_those_below() {
        let inner = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 1"}]});
        let schema = spec(
            json!({"type": "object", "properties": {"n": inner}, "additionalProperties": false}),
            json!([{"rule": "self.n > 2", "message": "more"}]),
        );
        says(
            &schema,
            json!({"n": 1}),
            None,
            "spec: Invalid value: \"object\": more; spec.n: Invalid value: 1: failed rule: self > 1",
        );
        says(&schema, json!({"n": 3}), None, "");
        says(&schema, Value::Null, None, "");
    }

    #[test]
    fn r2_messages_are_told_in_order_of_preference() {
        let n = || json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        for (rule, expected) in [
            (json!({"rule": "self.n > 1"}), "spec: Invalid value: \"object\": failed rule: self.n > 1"),
            (
                json!({"rule": "self.n > 1", "message": "m", "messageExpression": "'n is ' + string(self.n)"}),
                "spec: Invalid value: \"object\": n is 1",
            ),
            (
                json!({"rule": "self.n > 1", "message": "m", "messageExpression": "string(1 / (self.n - 1))"}),
                "spec: Invalid value: \"object\": m",
            ),
            (
                json!({"rule": "self.n > 1", "message": "m", "messageExpression": "'a\\nb'"}),
                "spec: Invalid value: \"object\": m",
            ),
            (
                json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueForbidden", "fieldPath": ".n"}),
                "spec.n: Forbidden: m",
            ),
            (json!({"rule": "self.n > 1", "message": "m", "reason": "FieldValueRequired"}), "spec: Required value: m"),
            (json!({"rule": "self.n > 1", "reason": "FieldValueDuplicate"}), "spec: Duplicate value: \"object\""),
        ] {
            says(&spec(n(), json!([rule])), json!({"n": 1}), None, expected);
        }
    }

    #[test]
    fn r3_transition_rules_see_what_stood_there_before() {
        let schema = spec(json!({"type": "string"}), json!([{"rule": "self == oldSelf", "message": "is immutable"}]));
        says(&schema, json!("a"), None, "");
        says(&schema, json!("a"), Some(json!("a")), "");
        says(&schema, json!("a"), Some(json!("b")), "spec: Invalid value: \"a\": is immutable");
        let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v"}]});
        let map = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
        let schema = spec(map, json!([]));
        let old = json!([{"k": "a", "v": 5}, {"k": "b", "v": 1}]);
        says(
            &schema,
            json!([{"k": "b", "v": 2}, {"k": "c", "v": 0}, {"k": "a", "v": 4}]),
            Some(old),
            "spec[2]: Invalid value: \"object\": failed rule: self.v >= oldSelf.v",
        );
        let value = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]});
        let schema = spec(json!({"type": "object", "additionalProperties": value}), json!([]));
        says(
            &schema,
            json!({"a": 1, "b": 1}),
            Some(json!({"a": 2})),
            "spec.a: Invalid value: 1: failed rule: self >= oldSelf",
        );
    }

    #[test]
    fn r3_an_optional_old_value_may_be_missing() {
        let rule =
            json!([{"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true, "message": "begins new"}]);
        let schema = spec(json!({"type": "string"}), rule);
        says(&schema, json!("other"), None, "spec: Invalid value: \"other\": begins new");
        says(&schema, json!("new"), None, "");
        says(&schema, json!("other"), Some(json!("new")), "");
    }

    #[test]
    fn r4_what_an_update_leaves_as_it_was_stays_accepted() {
        let inner = json!({"type": "object", "properties": {"n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.n > 1"}]});
        let schema = spec(json!({"type": "object", "properties": {"a": inner, "b": {"type": "integer"}}}), json!([]));
        let old = json!({"a": {"n": 0}});
        says(&schema, json!({"a": {"n": 0}, "b": 1}), Some(old.clone()), "");
        says(&schema, json!({"a": {"n": 1}}), Some(old), "spec.a: Invalid value: \"object\": failed rule: self.n > 1");
        let always = spec(json!({"type": "integer"}), json!([{"rule": "self > oldSelf"}]));
        says(&always, json!(1), Some(json!(1)), "spec: Invalid value: 1: failed rule: self > oldSelf");
    }

    #[test]
    fn r5_a_rule_is_cut_when_it_costs_too_much() {
        let list = || json!({"type": "array", "items": {"type": "integer"}});
        let bomb = json!([{"rule": "self.all(x, self.all(y, x + y >= 0))", "message": "bomb"}, {"rule": "false"}]);
        let items = Value::from((0..2_000).collect::<Vec<i64>>());
        says(
            &spec(list(), bomb),
            items.clone(),
            None,
            "spec: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules \
             will be run due to call cost exceeds limit for rule: bomb",
        );
        let dear = json!({"rule": "self.all(x, self.all(y, x + y >= 0))"});
        let many = spec(list(), Value::from(vec![dear; 100]));
        let some = Value::from((0..300).collect::<Vec<i64>>());
        says(
            &many,
            some,
            None,
            "spec: Invalid value: \"array\": validation failed due to running out of cost budget, no further validation \
             rules will be run",
        );
    }

    #[test]
    fn r6_a_rule_that_fails_refuses() {
        let schema = spec(
            json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
            json!([{"rule": "1 / self.n > 0", "message": "positive"}]),
        );
        says(
            &schema,
            json!({"n": 0}),
            None,
            "spec: Invalid value: \"object\": division by zero evaluating rule: positive",
        );
        says(&schema, json!({}), None, "spec: Invalid value: \"object\": no such key: n evaluating rule: positive");
    }
}
