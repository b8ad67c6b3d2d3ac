//! Expressions and what they give: data in, text out.

mod compile;
mod cost;
mod hostile;
mod kubernetes;
mod language;
mod library;
mod typed;

use serde_json::{Value as Json, json};

use super::library::show::show;
use super::{Bindings, Budget, Env, Type};

/// What an expression gives on `self`, as text; failures begin with `error:`, refusals with `refused:`.
fn run(env: &Env, text: &str, data: &Json) -> String {
    match env.compile(text) {
        Err(errors) => format!("refused: {}", errors.errors[0].message),
        Ok(program) => {
            let bindings = Bindings::new().with("self", env.read("self", data));
            match program.evaluate(&bindings, &mut Budget::new(1_000_000)) {
                Ok(value) => show(&value),
                Err(error) => format!("error: {error}"),
            }
        }
    }
}

/// Checks pairs of expression and result, on data of no declared type.
fn check(pairs: &[(&str, &str)]) {
    let data = json!({
        "a": 1, "s": "abc", "l": [1, 2, 3], "m": {"x": "y"}, "n": null, "d": 1.5, "big": 9_223_372_036_854_775_807i64,
        "t": "2026-01-02T03:04:05Z", "nested": {"list": [{"k": "v"}]}, "words": ["b", "a", "c"], "empty": []
    });
    let env = Env::new().variable("self", Type::Dyn);
    for (text, expected) in pairs {
        assert_eq!(run(&env, text, &data), *expected, "{text}");
    }
}
