//! The entries of `metadata.managedFields`: a manager, what it does, and the fields it owns.
//!
//! Rules
//!   R1 identity    an updater is its name, API version and subresource; an applier its name and subresource
//!   R2 order       appliers first, then by time, name, API version and subresource
//!   R3 read        what a client sends is read as a whole or not at all
//!   R4 reset       a list of one empty entry means that nobody owns anything
//!
//! An entry keeps its fields as JSON: most writes concern one of many managers, and only that one is read and printed.
//!
//! Source: API reference, meta/v1 ManagedFieldsEntry.

use serde_json::{Map, Value, json};

use super::set::FieldSet;
use super::wire;

/// How a manager writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

impl Operation {
    /// As an entry says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who writes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The manager's name.
    pub manager: &'a str,
    /// The API version it writes.
    pub api_version: &'a str,
    /// The subresource it writes to; empty for the object itself.
    pub subresource: &'a str,
    /// The time, RFC 3339.
    pub now: &'a str,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry(Map<String, Value>);

impl Entry {
    /// An entry of a writer, with these fields.
    pub fn new(writer: &Writer<'_>, operation: Operation, fields: &FieldSet<'_>) -> Entry {
        let mut entry = Map::new();
        for (name, text) in [
            ("manager", writer.manager),
            ("operation", operation.as_str()),
            ("apiVersion", writer.api_version),
            ("time", writer.now),
            ("fieldsType", "FieldsV1"),
        ] {
            entry.insert(name.to_owned(), json!(text));
        }
        entry.insert("fieldsV1".to_owned(), wire::print(fields));
        if !writer.subresource.is_empty() {
            entry.insert("subresource".to_owned(), json!(writer.subresource));
        }
        Entry(entry)
    }

    /// R3.
    fn read(value: &Value) -> Option<Entry> {
        let mut entry = value.as_object()?.clone();
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_known = matches!(text("operation"), "Apply" | "Update") && text("fieldsType") == "FieldsV1";
        if !is_known || text("manager").is_empty() || text("apiVersion").is_empty() {
            return None;
        }
        let fields = wire::print(&wire::parse(value.get("fieldsV1")?).ok()?);
        entry.insert("fieldsV1".to_owned(), fields);
        Some(Entry(entry))
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn manager(&self) -> &str {
        self.text("manager")
    }

    pub fn api_version(&self) -> &str {
        self.text("apiVersion")
    }

    pub fn subresource(&self) -> &str {
        self.text("subresource")
    }

    pub fn time(&self) -> &str {
        self.text("time")
    }

    pub fn is_applied(&self) -> bool {
        self.text("operation") == Operation::Apply.as_str()
    }

    /// R1.
    pub fn is_of(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.text("operation") == operation.as_str()
            && self.manager() == writer.manager
            && self.subresource() == writer.subresource
            && (operation == Operation::Apply || self.api_version() == writer.api_version)
    }

    /// The fields it owns.
    pub fn fields(&self) -> FieldSet<'_> {
        self.0.get("fieldsV1").map(wire::stored).unwrap_or_default()
    }

    /// Whether it owns a member of this set.
    pub fn owns_any(&self, set: &FieldSet<'_>) -> bool {
        self.0.get("fieldsV1").is_some_and(|fields| wire::meets(fields, set))
    }

    pub fn set(&mut self, name: &str, text: &str) {
        self.0.insert(name.to_owned(), json!(text));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub fn set_fields(&mut self, printed: Value) {
        self.0.insert("fieldsV1".to_owned(), printed);
    }

    fn order(&self) -> [&str; 5] {
        ["operation", "time", "manager", "apiVersion", "subresource"].map(|name| self.text(name))
    }
}

/// Who owns what of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Managers(pub(super) Vec<Entry>);

impl Managers {
    /// The value of a stored object's `metadata.managedFields`.
    pub fn stored(managed: Option<Value>) -> Managers {
        let entries = match managed {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        let entry = |value| match value {
            Value::Object(entry) => Some(Entry(entry)),
            _ => None,
        };
        Managers(entries.into_iter().filter_map(entry).collect())
    }

    /// What the entries that a client sent say; `None` where they say nothing, or nothing that can be read (R3, R4).
    pub fn sent(managed: &Value) -> Option<Managers> {
        let entries = managed.as_array()?;
        match entries.as_slice() {
            [] => None,
            [Value::Object(entry)] if entry.is_empty() => Some(Managers::default()),
            entries => entries.iter().map(Entry::read).collect::<Option<_>>().map(Managers),
        }
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `metadata.managedFields`, in order (R2); `None` for nobody.
    pub fn into_value(mut self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        Some(Value::Array(self.0.into_iter().map(|entry| Value::Object(entry.0)).collect()))
    }
}

/// Whether two values of `metadata.managedFields` differ in nothing but times.
pub fn differ_only_in_time(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_array(), other.as_array()) else { return false };
    let timeless = |entries: &[Value]| {
        let mut managers = Managers::stored(Some(Value::Array(entries.to_vec())));
        managers.0.iter_mut().for_each(|entry| entry.remove("time"));
        managers.into_value()
    };
    one.len() == other.len() && timeless(one) == timeless(other)
}
