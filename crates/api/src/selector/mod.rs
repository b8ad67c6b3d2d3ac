//! Selectors: which objects a list, watch, Service or ReplicaSet means, by labels or by fields.
//!
//! Source: API concepts, "Labels and selectors" and "Field selectors"; meta/v1 LabelSelector.
//!
//! Text is hostile: its length and the number of terms are bounded before anything is kept.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::field::{Errors, Path};
use crate::header::LabelSet;
use crate::name;

mod fields;
mod text;

pub use fields::{FieldSelector, FieldTerm};

/// Longest selector text taken: far above what a URL line carries in practice.
pub const SELECTOR_BYTES_MAX: usize = 256 * 1024;
/// Most terms of one selector.
pub const SELECTOR_TERMS_MAX: usize = 1_000;

/// A text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is longer than any selector needs.
    #[error("unable to parse selector: expected at most {SELECTOR_BYTES_MAX} bytes, found {found}")]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// More terms than a selector may have.
    #[error("unable to parse selector: expected at most {SELECTOR_TERMS_MAX} terms, found more")]
    TooMany,
    /// The text breaks the grammar.
    #[error("unable to parse requirement: expected {expected}, found {found:?}")]
    Syntax {
        /// What should stand there.
        expected: &'static str,
        /// What stands there, cut short.
        found: String,
    },
    /// A key or value is not a valid label.
    #[error("unable to parse requirement: {what} {found:?} is not valid: {why}")]
    Label {
        /// `key` or `value`.
        what: &'static str,
        /// The text, cut short.
        found: String,
        /// The rule it breaks.
        why: String,
    },
    /// A field of a kind that has no selectable fields of its own.
    #[error("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    UnknownField {
        /// The field's path.
        field: String,
    },
    /// A field that objects of the kind are not selected by.
    #[error("field label not supported: {field}")]
    UnsupportedField {
        /// The field's path.
        field: String,
    },
}

impl From<SelectorError> for crate::ApiError {
    fn from(error: SelectorError) -> crate::ApiError {
        crate::ApiError::bad_request(error.to_string())
    }
}

/// What one term asks of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The label is this.
    Equals(String),
    /// The label is not this, or absent.
    NotEquals(String),
    /// The label is one of these.
    In(BTreeSet<String>),
    /// The label is none of these, or absent.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number greater than this.
    GreaterThan(i64),
    /// The label is a whole number less than this.
    LessThan(i64),
}

/// One term of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is asked of it.
    pub test: Test,
}

impl Requirement {
    /// Whether the label's value, if any, passes.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Equals(wanted) => value == Some(wanted),
            Test::NotEquals(wanted) => value != Some(wanted),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Test::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Which labels an object must have. The empty selector matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All must hold; by key.
    requirements: Vec<Requirement>,
    /// Matches no object at all, as an absent LabelSelector does.
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Matches no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// Reads the text form: `app=web,tier in (a,b),!legacy`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        Ok(LabelSelector::of(text::parse(text)?))
    }

    /// The selector of equal labels, such as a Service's `spec.selector`.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let equals =
            |(key, value): (&str, &str)| Requirement { key: key.to_owned(), test: Test::Equals(value.to_owned()) };
        LabelSelector::of(labels.into_iter().map(equals).collect())
    }

    /// Reads a LabelSelector object (`matchLabels`, `matchExpressions`). `null` matches nothing, `{}` everything.
    /// What is wrong goes to `errors`, under `path`.
    pub fn from_json(selector: &Value, path: &Path, errors: &mut Errors) -> LabelSelector {
        if selector.is_null() {
            return LabelSelector::nothing();
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let at = path.child("matchLabels");
            let value = value.as_str().unwrap_or_default().to_owned();
            check_key(key, &at, errors);
            check_value(&value, &at, errors);
            requirements.push(Requirement { key: key.clone(), test: Test::Equals(value) });
        }
        let expressions = selector["matchExpressions"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, expression) in expressions.iter().enumerate() {
            let at = path.child("matchExpressions").index(index);
            requirements.extend(read_expression(expression, &at, errors));
        }
        LabelSelector::of(requirements)
    }

    fn of(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether no object matches by intent.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The terms, by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object with these labels matches.
    pub fn matches(&self, labels: &impl LabelSet) -> bool {
        !self.nothing && self.requirements.iter().all(|term| term.matches(labels.value(&term.key)))
    }

    /// Whether an object with these labels, as JSON has them, matches.
    pub fn matches_json(&self, labels: &Value) -> bool {
        !self.nothing && self.requirements.iter().all(|term| term.matches(labels[term.key.as_str()].as_str()))
    }
}

/// Reads one entry of `matchExpressions`, `nodeSelectorTerms[].matchExpressions` or their like: `key`, `operator`
/// (`In NotIn Exists DoesNotExist`, and `Gt Lt` for nodes) and `values`.
pub fn read_expression(expression: &Value, path: &Path, errors: &mut Errors) -> Option<Requirement> {
    let key = expression["key"].as_str().unwrap_or_default();
    let operator = expression["operator"].as_str().unwrap_or_default();
    let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    check_key(key, &path.child("key"), errors);
    for (index, value) in values.iter().enumerate() {
        check_value(value, &path.child("values").index(index), errors);
    }
    let set = || values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<String>>();
    let at = path.child("values");
    let test = match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
            return None;
        }
        "In" => Test::In(set()),
        "NotIn" => Test::NotIn(set()),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            return None;
        }
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::DoesNotExist,
        "Gt" | "Lt" => {
            let Some(bound) = values.first().filter(|_| values.len() == 1).and_then(|value| value.parse().ok()) else {
                errors.required(&at, "must be one whole number when `operator` is 'Lt' or 'Gt'");
                return None;
            };
            if operator == "Gt" { Test::GreaterThan(bound) } else { Test::LessThan(bound) }
        }
        other => {
            errors.invalid(&path.child("operator"), other, "not a valid selector operator");
            return None;
        }
    };
    Some(Requirement { key: key.to_owned(), test })
}

fn check_key(key: &str, path: &Path, errors: &mut Errors) {
    for why in name::label_key(key) {
        errors.invalid(path, key, &why);
    }
}

fn check_value(value: &str, path: &Path, errors: &mut Errors) {
    for why in name::label_value(value) {
        errors.invalid(path, value, &why);
    }
}

/// The text form; reading it back gives the same selector. Matching nothing prints as nothing: it has no text form.
impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.requirements.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            term.fmt(out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.test {
            Test::Equals(value) => write!(out, "{key}={value}"),
            Test::NotEquals(value) => write!(out, "{key}!={value}"),
            Test::In(values) => write!(out, "{key} in ({})", list(values)),
            Test::NotIn(values) => write!(out, "{key} notin ({})", list(values)),
            Test::Exists => out.write_str(key),
            Test::DoesNotExist => write!(out, "!{key}"),
            Test::GreaterThan(bound) => write!(out, "{key}>{bound}"),
            Test::LessThan(bound) => write!(out, "{key}<{bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LabelSelector, SELECTOR_BYTES_MAX};
    use crate::field::{Errors, Path};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_terminator(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn texts_select_by_labels() {
        for (text, canonical, yes, no) in [
            ("", "", "a=1", "-"),
            ("app=web", "app=web", "app=web,x=y", "app=db"),
            ("app == web , tier!=back", "app=web,tier!=back", "app=web", "app=web,tier=back"),
            ("b,a", "a,b", "a=,b=1", "a=1"),
            ("!legacy", "!legacy", "a=1", "legacy="),
            ("tier in (a, b)", "tier in (a,b)", "tier=b", "tier=c"),
            ("tier in (b)", "tier in (b)", "tier=b", ""),
            ("tier notin (a,b),x", "tier notin (a,b),x", "x=1", "x=1,tier=a"),
            ("x=", "x=", "x=", "x=1"),
            ("x in (,a)", "x in (,a)", "x=", "x=b"),
            ("example.com/n>5", "example.com/n>5", "example.com/n=6", "example.com/n=5"),
            ("n<5", "n<5", "n=-1", "n=x"),
            ("in in (in)", "in in (in)", "in=in", "in=out"),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.to_string(), canonical, "{text}");
            assert_eq!(LabelSelector::parse(canonical).as_ref(), Ok(&selector), "{text}");
            assert!(selector.matches(&labels(yes)), "{text} means {yes}");
            assert!(no == "-" || !selector.matches(&labels(no)), "{text} does not mean {no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            ",",
            "a,",
            "a=b,,c",
            "a=b c",
            "a in b",
            "a in (b",
            "a in ()x",
            "a in",
            "=b",
            "a=b=c",
            "!",
            "!a=b",
            "a>x",
            "a>",
            "a b",
            "-a=b",
            "a=-b",
            "a in (b c)",
            "a=(b)",
            "x/y/z",
            "a!b",
            "a!",
            "é=1",
            "a in (b,(c))",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
        assert!(LabelSelector::parse(&"a".repeat(64)).is_err(), "a label name has at most 63 characters");
    }

    #[test]
    fn a_selector_is_bounded() {
        let long = "a".repeat(SELECTOR_BYTES_MAX + 1);
        assert!(LabelSelector::parse(&long).expect_err("too long").to_string().len() < 200);
        assert!(LabelSelector::parse(&vec!["a"; 1_001].join(",")).is_err());
        let values: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let many = LabelSelector::parse(&format!("n in ({})", values.join(","))).expect("many values are one term");
        assert!(many.matches(&labels("n=9999")) && !many.matches(&labels("n=10000")));
    }

    fn from_json(selector: Value) -> Result<LabelSelector, Vec<String>> {
        let mut errors = Errors::new();
        let selector = LabelSelector::from_json(&selector, &Path::new("spec").child("selector"), &mut errors);
        if errors.is_empty() { Ok(selector) } else { Err(errors.iter().map(ToString::to_string).collect()) }
    }

    #[test]
    fn objects_select_like_texts() {
        let selector = from_json(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["b", "a"]}, {"key": "x", "operator": "Exists"}],
        }));
        assert_eq!(selector.map(|selector| selector.to_string()), Ok("app=web,tier notin (a,b),x".to_owned()));
        assert_eq!(from_json(json!({})).map(|all| all.is_everything()), Ok(true));
        let none = from_json(Value::Null).expect("null is a selector");
        assert!(none.is_nothing() && !none.matches(&labels("a=1")) && !none.matches_json(&json!({"a": "1"})));
    }

    #[test]
    fn wrong_objects_say_where() {
        let errors = from_json(json!({"matchExpressions": [
            {"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["x"]}, {"key": "a", "operator": "Like"},
        ]}));
        let errors = errors.expect_err("three wrong terms");
        assert_eq!(errors.len(), 3, "{errors:?}");
        let labels = from_json(
            json!({"matchLabels": {"a": "-"}, "matchExpressions": [{"key": "-", "operator": "In", "values": ["x", "+"]}]}),
        );
        let paths: Vec<String> = labels
            .expect_err("three bad labels")
            .iter()
            .map(|text| text.split(": ").next().unwrap_or_default().to_owned())
            .collect();
        let at = |field: &str| format!("spec.selector.{field}");
        assert_eq!(paths, [at("matchLabels"), at("matchExpressions[0].key"), at("matchExpressions[0].values[1]")]);
        assert!(errors[0].starts_with("spec.selector.matchExpressions[0].values: Required value"), "{errors:?}");
        assert!(
            errors[2].starts_with("spec.selector.matchExpressions[2].operator: Invalid value: \"Like\""),
            "{errors:?}"
        );
    }
}
