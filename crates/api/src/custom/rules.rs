//! The rules of a custom kind, and the way of its objects out of the store.
//!
//! Rules
//!   R1 defaults    are filled in on every write, and on reading what was written by an older schema
//!   R2 status      a new object of a kind with `/status` has none
//!   R3 values      hold the schema; what an update leaves as it was stays accepted
//!   R4 rules       in CEL see an object only if its types and bounds hold; that they were not asked is said
//!   R5 cells       the name, then each column: the first value at its path, as the column's type; nothing where that
//!                  is missing or of another type
//! Source: custom resources, "Defaulting", "Status subresource", "Validation rules", "Additional printer columns".

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Number, Value, json};

use super::fill;
use super::node::Node;
use super::path::JsonPath;
use super::rule::{self, Ruled};
use super::value::{Place, check};
use super::verdict::judge;
use crate::cel::Shape;
use crate::codec::{Validation, check_fields};
use crate::convert::Convert;
use crate::field::{Errors, FieldReason, Path};
use crate::resource::Rules;
use crate::resources::age;
use crate::resources::tree::{Tree, remove};
use crate::schema::MessageRef;

/// One version of a definition, compiled.
pub(super) struct Version {
    pub(super) node: Node,
    pub(super) ruled: Option<Ruled>,
    pub(super) message: MessageRef,
    pub(super) has_defaults: bool,
    pub(super) has_status: bool,
    pub(super) columns: Vec<(JsonPath, String)>,
}

/// The rules of one version.
pub(super) struct VersionRules(pub(super) Arc<Version>);

impl VersionRules {
    fn check(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let mut found = Errors::new();
        check(Place::new(object, old, &Path::root()), &self.0.node, &mut found);
        if let Some(ruled) = &self.0.ruled {
            if found.iter().any(|error| BLOCKING.contains(&error.reason)) {
                let why = "some validation rules were not checked because the object was invalid; correct the existing \
                           errors to complete validation";
                found.invalid(&Path::new("<nil>"), Value::Null, why);
            } else {
                judge(ruled, object, old, &Path::root(), &mut found);
            }
        }
        errors.extend(found);
    }
}

/// R4: what makes an object another than the one that rules were written for.
const BLOCKING: [FieldReason; 5] = [
    FieldReason::NotSupported,
    FieldReason::Required,
    FieldReason::TooLong,
    FieldReason::TooMany,
    FieldReason::TypeInvalid,
];

impl Rules for VersionRules {
    fn shape(&self) -> Option<Shape> {
        rule::shape_of(&self.0.node)
    }

    fn default(&self, object: &mut Value) {
        fill::fill(object, &self.0.node);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.0.has_status {
            remove(object, "status");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        self.check(object, None, errors);
    }

    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.check(object, Some(old), errors);
    }

    fn validate_status(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.check(object, Some(old), errors);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |(path, kind): &(JsonPath, String)| {
            path.find(object).first().map_or(Value::Null, |found| cell(found, kind, now))
        };
        std::iter::once(json!(object["metadata"].text("name"))).chain(self.0.columns.iter().map(cell)).collect()
    }
}

/// R5.
fn cell(found: &Value, kind: &str, now: Timestamp) -> Value {
    match (kind, found) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(number)) => {
            number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
        }
        ("boolean", Value::Bool(flag)) => json!(flag),
        ("string", Value::String(text)) => json!(text),
        ("string", other) => json!(other.to_string()),
        ("date", Value::String(text)) if text.parse::<Timestamp>().is_ok() => json!(age::since(text, now)),
        ("date", Value::String(_)) => json!("<invalid>"),
        _ => Value::Null,
    }
}

impl Convert for VersionRules {
    /// Objects of all versions are alike but for what their schemas keep and fill in.
    fn to_served(&self, object: &mut Value) {
        // What does not fit was written by an older schema, and is shown as it is.
        let _kept = check_fields(object, self.0.message.get(), &[], Validation::Ignore);
        if self.0.has_defaults {
            fill::fill(object, &self.0.node);
        }
    }

    fn to_stored(&self, _object: &mut Value) {}
}
