//! What a call may be told beyond its object: selectors, pages, preconditions, kinds of patch.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// Characters kept as they are in a path segment; names and namespaces are DNS labels plus a few.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?').add(b'`');

/// How to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Label selector in its text form; empty selects all.
    pub labels: String,
    /// Field selector in its text form; empty selects all.
    pub fields: String,
    /// Items a page; 0 for all in one answer.
    pub limit: u32,
    /// Where the page before ended; empty for the first.
    pub continue_from: String,
    /// Whether a server in this process may leave out what is not linked; any other sends all.
    pub linked_only: bool,
}

/// How to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Label selector in its text form; empty selects all.
    pub labels: String,
    /// Field selector in its text form; empty selects all.
    pub fields: String,
    /// Changes after this revision are delivered.
    pub revision: u64,
    /// The server ends the watch after this long.
    pub timeout: Duration,
    /// The watch counts as broken when nothing, not even a bookmark, came for this long.
    pub idle: Duration,
    /// Whether a server in this process may leave out what is not linked; any other sends all.
    pub linked_only: bool,
}

/// A change of an object without its whole.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 7386: nulls delete, lists are replaced.
    Merge(Value),
    /// Kubernetes' strategic merge: lists with a merge key are merged by it.
    Strategic(Value),
    /// RFC 6902: a list of operations.
    Json(Value),
}

/// What happens to the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first; the owner waits for those that block it.
    Foreground,
    /// They stay and lose their owner.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds the object gets to end; `None` for the kind's default, `Some(0)` for at once.
    pub grace_seconds: Option<u32>,
    /// What happens to its dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// Only if the object still has this uid.
    pub uid: Option<String>,
    /// Only if the object is still at this revision.
    pub revision: Option<u64>,
}

impl ListOptions {
    /// Everything these labels select.
    pub fn labels(selector: impl Into<String>) -> ListOptions {
        ListOptions { labels: selector.into(), ..ListOptions::default() }
    }

    /// Everything these fields select.
    pub fn fields(selector: impl Into<String>) -> ListOptions {
        ListOptions { fields: selector.into(), ..ListOptions::default() }
    }

    pub(crate) fn query(&self) -> String {
        let mut query = Query::default();
        query.add("labelSelector", &self.labels);
        query.add("fieldSelector", &self.fields);
        if self.limit > 0 {
            query.add("limit", &self.limit.to_string());
        }
        query.add("continue", &self.continue_from);
        query.0
    }
}

impl WatchOptions {
    pub(crate) fn query(&self) -> String {
        let mut query = Query::default();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("resourceVersion", &self.revision.to_string());
        query.add("timeoutSeconds", &self.timeout.as_secs().max(1).to_string());
        query.add("labelSelector", &self.labels);
        query.add("fieldSelector", &self.fields);
        query.0
    }
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Json(_) => "application/json-patch+json",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Patch::Merge(body) | Patch::Strategic(body) | Patch::Json(body) => body,
        }
    }
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        }
    }
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn of_uid(uid: impl Into<String>) -> DeleteOptions {
        DeleteOptions { uid: Some(uid.into()), ..DeleteOptions::default() }
    }

    /// At once, without waiting for the node.
    #[must_use]
    pub fn at_once(self) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(0), ..self }
    }

    /// With this propagation.
    #[must_use]
    pub fn propagate(self, propagation: Propagation) -> DeleteOptions {
        DeleteOptions { propagation: Some(propagation), ..self }
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), json!("v1"));
        body.insert("kind".to_owned(), json!("DeleteOptions"));
        if let Some(seconds) = self.grace_seconds {
            body.insert("gracePeriodSeconds".to_owned(), json!(seconds));
        }
        if let Some(propagation) = self.propagation {
            body.insert("propagationPolicy".to_owned(), json!(propagation.as_str()));
        }
        let mut preconditions = Map::new();
        if let Some(uid) = &self.uid {
            preconditions.insert("uid".to_owned(), json!(uid));
        }
        if let Some(revision) = self.revision {
            preconditions.insert("resourceVersion".to_owned(), json!(revision.to_string()));
        }
        if !preconditions.is_empty() {
            body.insert("preconditions".to_owned(), Value::Object(preconditions));
        }
        Value::Object(body)
    }
}

/// A path with this query; pairs without a value are left out.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = Query::default();
    for (key, value) in pairs {
        query.add(key, value);
    }
    format!("{path}{}", query.0)
}

/// One segment of a path, escaped.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
}

#[cfg(test)]
mod tests {
    use super::{DeleteOptions, ListOptions, Propagation, segment};
    use serde_json::json;

    #[test]
    fn a_query_names_only_what_is_asked_and_escapes_it() {
        assert_eq!(ListOptions::default().query(), "");
        let options = ListOptions { labels: "a in (b,c)".to_owned(), limit: 5, ..ListOptions::default() };
        assert_eq!(options.query(), "?labelSelector=a%20in%20%28b%2Cc%29&limit=5");
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("../x?y"), "..%2Fx%3Fy");
        assert_eq!(segment("system:node:n1"), "system:node:n1");
    }

    #[test]
    fn delete_options_carry_preconditions() {
        let body = DeleteOptions::of_uid("u1").at_once().propagate(Propagation::Foreground).body();
        let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground", "preconditions": {"uid": "u1"}});
        assert_eq!(body, expected);
    }
}
