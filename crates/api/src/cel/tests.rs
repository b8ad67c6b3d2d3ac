//! Expressions and what they give.

use serde_json::json;

use super::{Bindings, Budget, Env, Type};

fn check(text: &str, expected: &str) {
    let data = json!({"a": 1, "s": "abc", "l": [1, 2, 3], "m": {"x": "y"}, "n": null, "d": 1.5});
    let env = Env::new().variable("self", Type::Dyn);
    let shown = match env.compile(text) {
        Err(errors) => errors.errors[0].message.clone(),
        Ok(program) => {
            let bindings = Bindings::new().with("self", &data);
            match program.evaluate(&bindings, &mut Budget::new(1_000_000)) {
                Ok(value) => super::library::show::show(&value),
                Err(error) => format!("error: {error}"),
            }
        }
    };
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn first_steps() {
    check("1 + 2 * 3", "7");
    check("self.a + 1", "2");
    check("self.l.map(x, x * 2)", "[2, 4, 6]");
    check("self.l.all(x, x > 0) && has(self.s)", "true");
    check("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\": 2}");
}
