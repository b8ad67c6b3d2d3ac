//! Checks a tree against its message: types, unknown fields, fields written twice; values become canonical.
//!
//! Rules, in order, for every field
//!   R1 unknown     a field that the message does not have is dropped, and reported as `fieldValidation` asks
//!   R2 null        a null field is an absent field
//!   R3 type        a value of another type is refused, whatever `fieldValidation` says
//!   R4 canonical   quantities, times and base64 are rewritten in the one form the API prints
//!   R5 custom      of messages that a definition brought only R1 holds: the definition's own rules judge types and
//!                  nulls, and say so in the answer's field errors
//!
//! Source: API concepts, "Field validation"; the wording is kube-apiserver's, for clients that look for it.

use std::fmt;

use serde_json::Value;

use super::form;
use crate::ApiError;
use crate::error::Reason;
use crate::quantity::Quantity;
use crate::schema::{Field, Form, Message, Shape, Type};

/// What becomes of unknown fields and of fields written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// They are dropped, silently.
    Ignore,
    /// They are dropped, and the client is told.
    Warn,
    /// The request is refused.
    Strict,
}

impl Validation {
    /// Reads the `fieldValidation` parameter; absent means `Warn`.
    pub fn parse(parameter: Option<&str>) -> Result<Validation, ApiError> {
        match parameter.unwrap_or_default() {
            "" | "Warn" => Ok(Validation::Warn),
            "Ignore" => Ok(Validation::Ignore),
            "Strict" => Ok(Validation::Strict),
            other => {
                let other: String = other.chars().take(64).collect();
                let message = format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                );
                Err(ApiError::new(Reason::Invalid, message))
            }
        }
    }
}

/// Findings reported of one object: enough to mend it, bounded against hostile input.
const FINDINGS_MAX: usize = 64;
/// Characters of one field name that a report shows.
const NAME_CHARS_MAX: usize = 128;

/// Checks a tree that should hold `message`, drops what it does not have and makes values canonical. `duplicates` are
/// the paths that the decoder found twice. Gives the warnings for the client.
///
/// Errors: 400 for a wrong type; 400 for unknown and duplicate fields when strict.
pub fn check_fields(
    value: &mut Value,
    message: Message,
    duplicates: &[String],
    validation: Validation,
) -> Result<Vec<String>, ApiError> {
    let mut walk = Walk::default();
    walk.message(value, message, &Trail::Root);
    let name = message.name();
    let cannot = |why: String| {
        let version = message.version();
        Err(ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}")))
    };
    if !walk.wrong.is_empty() {
        return cannot(walk.wrong.join(", "));
    }
    let notes: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field {path:?}")).chain(walk.unknown).collect();
    match validation {
        Validation::Strict if !notes.is_empty() => cannot(format!("strict decoding error: {}", notes.join(", "))),
        Validation::Strict | Validation::Ignore => Ok(Vec::new()),
        Validation::Warn => Ok(notes),
    }
}

/// Where the walk is, as a list of stack frames: a path costs nothing until it is reported.
enum Trail<'a> {
    Root,
    Field(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Index(parent, index) => write!(out, "{parent}[{index}]"),
            Trail::Field(parent, name) => {
                let dot = if matches!(parent, Trail::Root) { "" } else { "." };
                write!(out, "{parent}{dot}{}", name.chars().take(NAME_CHARS_MAX).collect::<String>())
            }
        }
    }
}

#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    wrong: Vec<String>,
}

impl Walk {
    fn unknown(&mut self, at: &Trail) {
        if self.unknown.len() < FINDINGS_MAX {
            self.unknown.push(format!("unknown field {:?}", at.to_string()));
        }
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < FINDINGS_MAX {
            self.wrong.push(what);
        }
    }

    fn wrong_type(&mut self, found: &Value, expected: &str, at: &Trail) {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            // Where text or bytes are expected a number may be a password without its quotes.
            Value::Number(number) if expected.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let at = at.to_string();
        let place = if at.is_empty() { "the object".to_owned() } else { format!("field {at}") };
        self.wrong(format!("json: cannot unmarshal {found} into {place} of type {expected}"));
    }

    fn message(&mut self, value: &mut Value, message: Message, at: &Trail) {
        match message.form() {
            Form::Fields => self.fields(value, message, at),
            Form::Nested => {
                if let Some(field) = message.nested() {
                    self.field(value, field, message, at);
                }
            }
            Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => self.schema_or(value, message, at),
            other => self.form(value, other, at),
        }
    }

    fn fields(&mut self, value: &mut Value, message: Message, at: &Trail) {
        let Value::Object(map) = value else {
            // R5.
            if !message.is_custom() {
                self.wrong_type(value, message.name(), at);
            }
            return;
        };
        map.retain(|name, value| {
            let at = Trail::Field(at, name);
            match message.field(name) {
                _ if value.is_null() && !message.is_custom() => false,
                Some(field) => {
                    self.field(value, field, message, &at);
                    true
                }
                None if message.is_kind() && matches!(name.as_str(), "apiVersion" | "kind") => {
                    self.scalar(value, Type::String, &at);
                    true
                }
                None if message.is_open() => true,
                None => {
                    self.unknown(&at);
                    false
                }
            }
        });
    }

    fn field(&mut self, value: &mut Value, field: &Field, message: Message, at: &Trail) {
        let of = message.of(field);
        if message.is_custom() && of.is_none() {
            return; // R5.
        }
        match (field.shape, value) {
            (Shape::One, value) => self.one(value, field.of, of, at),
            (Shape::List, Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if !message.is_custom() {
                        fill_null(item, field.of, of);
                    }
                    self.one(item, field.of, of, &Trail::Index(at, index));
                }
            }
            (Shape::Map, Value::Object(entries)) => {
                for (key, item) in entries.iter_mut() {
                    if !message.is_custom() {
                        fill_null(item, field.of, of);
                    }
                    self.one(item, field.of, of, &Trail::Field(at, key));
                }
            }
            _ if message.is_custom() => {}
            (Shape::List, value) => self.wrong_type(value, &format!("[]{}", type_name(field.of, of)), at),
            (Shape::Map, value) => self.wrong_type(value, &format!("map[string]{}", type_name(field.of, of)), at),
        }
    }

    fn one(&mut self, value: &mut Value, of: Type, message: Option<Message>, at: &Trail) {
        match message {
            Some(message) => self.message(value, message, at),
            None => self.scalar(value, of, at),
        }
    }

    fn scalar(&mut self, value: &mut Value, of: Type, at: &Trail) {
        let fits = match (of, &*value) {
            (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Double, Value::Number(_)) => true,
            (Type::Int32, Value::Number(number)) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            (Type::Int64, Value::Number(number)) => number.as_i64().is_some(),
            (Type::Bytes, Value::String(text)) => {
                match form::read_base64(text) {
                    Ok(_) if text.contains(['\n', '\r']) => *value = Value::String(text.replace(['\n', '\r'], "")),
                    Ok(_) => {}
                    Err(why) => self.wrong(format!("field {at}: {why}")),
                }
                true
            }
            _ => false,
        };
        if !fits {
            self.wrong_type(value, type_name(of, None), at);
        }
    }

    fn form(&mut self, value: &mut Value, form: Form, at: &Trail) {
        match (form, &mut *value) {
            (Form::AnyObject | Form::Any, _) => {}
            (Form::Quantity, Value::String(_) | Value::Number(_)) => match Quantity::from_json(value) {
                Ok(quantity) => *value = Value::String(quantity.to_string()),
                Err(error) => self.wrong(format!("field {at}: {error}")),
            },
            (Form::IntOrString, Value::String(_)) => {}
            (Form::IntOrString, Value::Number(_)) => self.scalar(value, Type::Int32, at),
            (Form::Time | Form::MicroTime, Value::String(text)) => {
                let digits = if form == Form::Time { 0 } else { 6 };
                match form::canonical_time(text, digits) {
                    Some(canonical) => *text = canonical,
                    None => {
                        let found = shown(text);
                        self.wrong(format!(
                            "field {at}: expected an RFC 3339 time such as 2026-01-02T03:04:05Z, found {found:?}"
                        ));
                    }
                }
            }
            (Form::Duration, Value::String(text)) => {
                if form::read_duration(text).is_none() {
                    let found = shown(text);
                    self.wrong(format!("field {at}: expected a duration such as 1m30s, found {found:?}"));
                }
            }
            (Form::Strings, Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.scalar(item, Type::String, &Trail::Index(at, index));
                }
            }
            (other, _) => self.wrong_type(value, form_name(other), at),
        }
    }

    fn schema_or(&mut self, value: &mut Value, message: Message, at: &Trail) {
        let schema = message.field("schema").and_then(|field| message.of(field));
        match (message.form(), &mut *value, schema) {
            (_, Value::Object(_), Some(schema)) => self.message(value, schema, at),
            (Form::SchemaOrArray, Value::Array(items), Some(schema)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.message(item, schema, &Trail::Index(at, index));
                }
            }
            (Form::SchemaOrBool, Value::Bool(_), _) => {}
            (Form::SchemaOrStrings, Value::Array(_), _) => self.form(value, Form::Strings, at),
            _ => self.wrong_type(value, message.name(), at),
        }
    }
}

/// A null item of a list or map is the zero value, as in Go.
fn fill_null(item: &mut Value, of: Type, message: Option<Message>) {
    if !item.is_null() {
        return;
    }
    *item = match (of, message.map(|message| message.form())) {
        (Type::String | Type::Bytes, _) => Value::from(""),
        (Type::Bool, _) => Value::from(false),
        (Type::Int32 | Type::Int64 | Type::Double, _) => Value::from(0),
        (Type::Message(_), Some(Form::Fields)) => Value::Object(serde_json::Map::new()),
        (Type::Message(_), Some(Form::Quantity)) => Value::from("0"),
        (Type::Message(_), _) => return,
    };
}

fn shown(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

fn type_name<'a>(of: Type, message: Option<Message<'a>>) -> &'a str {
    match of {
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Double => "float64",
        Type::Bytes => "[]byte",
        Type::Message(_) => message.map_or("object", |message| message.name()),
    }
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Quantity => "Quantity",
        Form::IntOrString => "IntOrString",
        Form::Time => "Time",
        Form::MicroTime => "MicroTime",
        Form::Duration => "Duration",
        Form::Strings => "[]string",
        _ => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::{Validation, check_fields};
    use crate::schema::kubernetes;
    use serde_json::{Value, json};

    fn check(message: &str, value: &Value, validation: Validation) -> Result<(Value, Vec<String>), String> {
        let message = kubernetes().find(&format!("k8s.io.api.{message}")).expect(message);
        let mut value = value.clone();
        let warnings = check_fields(&mut value, message, &[], validation).map_err(|error| error.message)?;
        Ok((value, warnings))
    }

    #[test]
    fn unknown_fields_are_dropped_and_reported_as_asked() {
        let pod = json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "imagee": "x"}], "volumes": [{"name": "v", "emptyDir": {"b": 1}}]}, "foo": {}});
        let pruned =
            json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        let found = [
            "unknown field \"foo\"",
            "unknown field \"spec.containers[0].imagee\"",
            "unknown field \"spec.volumes[0].emptyDir.b\"",
        ];
        let warned = check("core.v1.Pod", &pod, Validation::Warn).expect("warnings only");
        assert_eq!(warned, (pruned.clone(), found.map(str::to_owned).to_vec()));
        assert_eq!(check("core.v1.Pod", &pod, Validation::Ignore), Ok((pruned, vec![])));
        let refused = check("core.v1.Pod", &pod, Validation::Strict).expect_err("strict");
        assert_eq!(
            refused,
            format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}", found.join(", "))
        );
    }

    #[test]
    fn duplicates_are_reported_like_unknown_fields() {
        let message = kubernetes().find("k8s.io.api.core.v1.Pod").expect("pods exist");
        let check = |validation| check_fields(&mut json!({}), message, &["spec.hostname".to_owned()], validation);
        assert_eq!(check(Validation::Warn).ok(), Some(vec!["duplicate field \"spec.hostname\"".to_owned()]));
        assert!(
            check(Validation::Strict)
                .is_err_and(|error| error.message.contains("strict decoding error: duplicate field"))
        );
        assert_eq!(check(Validation::Ignore).ok(), Some(vec![]));
    }

    #[test]
    fn wrong_types_name_the_path() {
        for (message, value, part) in [
            (
                "apps.v1.Deployment",
                json!({"spec": {"replicas": "3"}}),
                "cannot unmarshal string into field spec.replicas of type int32",
            ),
            (
                "apps.v1.Deployment",
                json!({"spec": {"replicas": 3.5}}),
                "cannot unmarshal number 3.5 into field spec.replicas of type int32",
            ),
            (
                "apps.v1.Deployment",
                json!({"spec": {"replicas": 3_000_000_000u64}}),
                "number 3000000000 into field spec.replicas of type int32",
            ),
            (
                "apps.v1.Deployment",
                json!({"spec": []}),
                "cannot unmarshal array into field spec of type DeploymentSpec",
            ),
            (
                "core.v1.Pod",
                json!({"spec": {"containers": {}}}),
                "cannot unmarshal object into field spec.containers of type []Container",
            ),
            (
                "core.v1.Pod",
                json!({"metadata": {"labels": {"a": 1}}}),
                "cannot unmarshal number into field metadata.labels.a of type string",
            ),
            (
                "core.v1.Pod",
                json!({"metadata": {"labels": ["a"]}}),
                "array into field metadata.labels of type map[string]string",
            ),
            ("core.v1.Pod", json!([]), "cannot unmarshal array into the object of type Pod"),
            ("core.v1.Pod", json!({"kind": 1}), "cannot unmarshal number into field kind of type string"),
            ("core.v1.Secret", json!({"data": {"k": "not base64!"}}), "field data.k: illegal base64 data"),
            (
                "core.v1.Pod",
                json!({"spec": {"overhead": {"cpu": "much"}}}),
                "field spec.overhead.cpu: quantities must be",
            ),
            (
                "core.v1.Pod",
                json!({"metadata": {"creationTimestamp": "now"}}),
                "field metadata.creationTimestamp: expected an RFC 3339 time",
            ),
            (
                "core.v1.Service",
                json!({"spec": {"ports": [{"targetPort": true}]}}),
                "bool into field spec.ports[0].targetPort of type IntOrString",
            ),
        ] {
            for validation in [Validation::Ignore, Validation::Strict] {
                let error = check(message, &value, validation).expect_err(part);
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn values_become_canonical() {
        let value = json!({
            "metadata": {"name": "a", "creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05.6+01:00", "annotations": {"x": null}},
            "spec": {"overhead": {"cpu": "1000m", "memory": 1024}, "containers": [{"ports": [{"containerPort": 80}], "command": ["a", null]}],
                "terminationGracePeriodSeconds": 0, "nodeSelector": {}},
        });
        let expected = json!({
            "metadata": {"name": "a", "deletionTimestamp": "2026-01-02T02:04:05Z", "annotations": {"x": ""}},
            "spec": {"overhead": {"cpu": "1", "memory": "1024"}, "containers": [{"ports": [{"containerPort": 80}], "command": ["a", ""]}],
                "terminationGracePeriodSeconds": 0, "nodeSelector": {}},
        });
        assert_eq!(check("core.v1.Pod", &value, Validation::Strict), Ok((expected, vec![])));
    }

    #[test]
    fn schemas_of_custom_resources_keep_their_odd_forms() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"default": {"any": [1]}, "enum": ["x", 1]}},
            "additionalProperties": false, "items": {"$ref": "r"}, "dependencies": {"a": ["b"], "c": {"type": "string"}}});
        let crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
        let message =
            kubernetes().find("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition");
        let mut value = crd.clone();
        let checked = check_fields(&mut value, message.expect("definitions exist"), &[], Validation::Strict);
        assert_eq!((checked, value), (Ok(vec![]), crd));
    }

    #[test]
    fn reports_are_bounded() {
        let many: serde_json::Map<String, Value> =
            (0..10_000).map(|n| (format!("{n}{}", "x".repeat(1_000)), json!(1))).collect();
        let error = check("core.v1.Pod", &Value::Object(many), Validation::Strict).expect_err("unknown fields");
        assert!(error.len() < 16_384, "{}", error.len());
    }
}
