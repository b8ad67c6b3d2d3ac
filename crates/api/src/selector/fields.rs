//! Field selectors: `metadata.name=web,spec.nodeName!=n1`. Which fields a kind is selected by is in its row.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::{SELECTOR_BYTES_MAX, SELECTOR_TERMS_MAX, SelectorError};

/// Characters of a field's name that an error shows.
const FIELD_CHARS_MAX: usize = 128;

/// One term: the field at `path` equals `value`, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Such as `spec.nodeName`.
    pub path: String,
    /// Whether it must equal, rather than differ.
    pub equal: bool,
    /// The text compared with; an absent field is the empty text.
    pub value: String,
}

/// Which fields an object must have. The empty selector matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// The selector of one equal field.
    pub fn equal(path: &str, value: &str) -> FieldSelector {
        FieldSelector { terms: vec![FieldTerm { path: path.to_owned(), equal: true, value: value.to_owned() }] }
    }

    /// Reads the text form. In values `\,`, `\=` and `\\` stand for the characters.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong { found: text.len() });
        }
        let mut terms = Vec::new();
        for term in split_terms(text).filter(|term| !term.is_empty()) {
            if terms.len() == SELECTOR_TERMS_MAX {
                return Err(SelectorError::TooMany);
            }
            terms.push(read_term(term)?);
        }
        Ok(FieldSelector { terms })
    }

    /// Refuses fields that objects of the kind are not selected by. `metadata.name` and `metadata.namespace` always are.
    pub fn check_supported(&self, selectable: &[String]) -> Result<(), SelectorError> {
        let known = |path: &str| {
            matches!(path, "metadata.name" | "metadata.namespace") || selectable.iter().any(|field| field == path)
        };
        let Some(term) = self.terms.iter().find(|term| !known(&term.path)) else { return Ok(()) };
        let field = term.path.chars().take(FIELD_CHARS_MAX).collect();
        Err(if selectable.is_empty() {
            SelectorError::UnknownField { field }
        } else {
            SelectorError::UnsupportedField { field }
        })
    }

    /// This selector, and this field equal to this value.
    #[must_use]
    pub fn and_equal(mut self, path: &str, value: &str) -> FieldSelector {
        self.terms.push(FieldTerm { path: path.to_owned(), equal: true, value: value.to_owned() });
        self
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms, in the order written.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The one value this field must have, if the selector says so: the way to an index or a single key.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.path == path).map(|term| term.value.as_str())
    }

    /// Whether an object matches whose fields `look_up` gives as text (empty where absent).
    pub fn matches<'a>(&self, look_up: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.terms.iter().all(|term| (look_up(&term.path) == term.value) == term.equal)
    }

    /// Whether an object matches.
    pub fn matches_json(&self, object: &Value) -> bool {
        self.matches(|path| field_text(object, path))
    }
}

/// A field of an object as selectors compare it: text as it is, numbers and bools printed, all else empty.
pub fn field_text<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    match path.split('.').fold(object, |at, name| &at[name]) {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(flag) => Cow::Owned(flag.to_string()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Cow::Borrowed(""),
    }
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

fn read_term(term: &str) -> Result<FieldTerm, SelectorError> {
    let wrong = || SelectorError::Syntax {
        expected: "a field, one of = == !=, and a value",
        found: term.chars().take(64).collect(),
    };
    let at = term.find(['=', '!']).ok_or_else(wrong)?;
    let (path, rest) = term.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        (true, value)
    } else {
        return Err(wrong());
    };
    if path.is_empty() || path.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(FieldTerm { path: path.to_owned(), equal, value: unescape(value).ok_or_else(wrong)? })
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

/// The text form; reading it back gives the same selector.
impl fmt::Display for FieldSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(out, "{comma}{}{operator}", term.path)?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    out.write_str("\\")?;
                }
                write!(out, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::FieldSelector;
    use serde_json::json;

    #[test]
    fn texts_select_by_fields() {
        let pod = json!({"metadata": {"name": "a,b"}, "spec": {"nodeName": "n1", "hostNetwork": true}, "status": {}});
        for (text, canonical, matches) in [
            ("", "", true),
            ("spec.nodeName=n1", "spec.nodeName=n1", true),
            ("spec.nodeName==n1,status.phase!=Failed", "spec.nodeName=n1,status.phase!=Failed", true),
            ("spec.nodeName!=n1", "spec.nodeName!=n1", false),
            ("status.phase=", "status.phase=", true),
            (r"metadata.name=a\,b", r"metadata.name=a\,b", true),
            ("spec.hostNetwork=true", "spec.hostNetwork=true", true),
        ] {
            let selector = FieldSelector::parse(text).expect(text);
            assert_eq!(selector.to_string(), canonical);
            assert_eq!(FieldSelector::parse(canonical).as_ref(), Ok(&selector));
            assert_eq!(selector.matches_json(&pod), matches, "{text}");
        }
    }

    #[test]
    fn what_is_no_field_selector_is_refused() {
        for text in ["a", "=b", "a!b", "a=b=c", r"a=b\x", r"a=b\", "a b=c", "a!"] {
            assert!(FieldSelector::parse(text).is_err(), "{text:?}");
        }
        assert!(FieldSelector::parse(&vec!["a=b"; 1_001].join(",")).is_err());
    }

    #[test]
    fn only_selectable_fields_are_supported() {
        let selector = FieldSelector::parse("metadata.name=x,spec.nodeName=n").expect("a selector");
        assert_eq!(selector.required("spec.nodeName"), Some("n"));
        assert_eq!(selector.check_supported(&["spec.nodeName".to_owned()]), Ok(()));
        let error = selector.check_supported(&["status.phase".to_owned()]).expect_err("a namespace has no node");
        assert_eq!(error.to_string(), "field label not supported: spec.nodeName");
        let error = selector.check_supported(&[]).expect_err("a ConfigMap has no node");
        let expected = r#""spec.nodeName" is not a known field selector: only "metadata.name", "metadata.namespace""#;
        assert_eq!(error.to_string(), expected);
        let named = FieldSelector::everything().and_equal("metadata.name", "x");
        assert_eq!(named, FieldSelector::equal("metadata.name", "x"));
    }
}
