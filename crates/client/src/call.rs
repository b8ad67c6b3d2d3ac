//! Any request of the API, for callers that choose the form of their answer: tables, discovery, logs, every patch.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde::Serialize;
use windlass_api::handover::AsObjects;

use crate::options::Patch;

/// A request before it is one.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) accept: Cow<'static, str>,
    pub(crate) content_type: Option<Cow<'static, str>>,
    pub(crate) body: Bytes,
    /// Whether a server in this process may answer with objects as they are in memory, and with which.
    pub(crate) as_objects: Option<AsObjects>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body, whole.
    pub body: Bytes,
    /// What the server wants a person to know: the texts of its `Warning` headers.
    pub warnings: Vec<String>,
}

impl Call {
    /// A request without a body; its answer is JSON unless [`Call::accept`] says otherwise.
    pub fn new(method: Method, path: impl Into<String>) -> Call {
        let accept = Cow::Borrowed("application/json");
        Call { method, path: path.into(), accept, content_type: None, body: Bytes::new(), as_objects: None }
    }

    /// A request with a JSON body.
    pub fn with_json(method: Method, path: impl Into<String>, body: &(impl Serialize + ?Sized)) -> Call {
        let body = serde_json::to_vec(body).expect("what we send has string keys only, so it serialises");
        Call::new(method, path).body("application/json", body)
    }

    /// A patch.
    pub fn with_patch(path: impl Into<String>, patch: &Patch) -> Call {
        let mut call = Call::with_json(Method::PATCH, path, patch.body());
        call.content_type = Some(patch.content_type().into());
        call
    }

    /// The same request, answered in this form.
    #[must_use]
    pub fn accept(self, accept: impl Into<Cow<'static, str>>) -> Call {
        Call { accept: accept.into(), ..self }
    }

    /// The same request with this body.
    #[must_use]
    pub fn body(self, content_type: impl Into<Cow<'static, str>>, body: impl Into<Bytes>) -> Call {
        Call { content_type: Some(content_type.into()), body: body.into(), ..self }
    }

    /// The same request; a server in this process may answer with objects as they are in memory.
    #[must_use]
    pub(crate) fn for_objects(self, linked_only: bool) -> Call {
        Call { as_objects: Some(AsObjects { linked_only }), ..self }
    }

    pub(crate) fn what(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// The texts of `Warning: 299 - "text"` headers (RFC 7234, section 5.5).
pub(crate) fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    texts.filter_map(warning_text).collect()
}

fn warning_text(value: &str) -> Option<String> {
    let (_, rest) = value.split_once('"')?;
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::warning_text;

    #[test]
    fn a_warning_is_its_quoted_text() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#).as_deref(), Some(r#"unknown field "spec.x""#));
        assert_eq!(warning_text("299 - none"), None);
        assert_eq!(warning_text(r#"299 - "cut"#), None);
    }
}
