//! Which objects of a collection a request means: its label and field selectors.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use windlass_api::selector::{FieldSelector, LabelSelector};
use windlass_api::{ApiError, Header, Resource};
use windlass_store::Entry;

use crate::convert;
use crate::form::Form;
use crate::key;
use crate::request::{Query, Target};
use crate::server::{header, is_linked};

/// The selectors of a list, watch or collection delete.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The selectable fields of the kind that are not in its header, where the selector uses any.
    deep: Vec<String>,
    /// Whether objects that are not linked are left out.
    linked_only: bool,
    resource: Arc<Resource>,
}

/// Fields of an object that selectors use and the header does not hold; read once and kept with it.
struct DeepFields(Vec<(String, String)>);

impl Selection {
    pub fn parse(target: &Target, query: &Query) -> Result<Selection, ApiError> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default())?;
        let mut fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())?;
        fields.check_supported(&target.resource.selectable_fields)?;
        if !target.name.is_empty() {
            fields = fields.and_equal("metadata.name", &target.name);
        }
        let uses_deep = fields.terms().iter().any(|term| from_header(&Header::default(), &term.path).is_none());
        let deep = if uses_deep { target.resource.selectable_fields.clone() } else { Vec::new() };
        Ok(Selection { labels, fields, deep, linked_only: false, resource: target.resource.clone() })
    }

    /// The same, without what answers of this form leave out.
    pub fn of_form(self, form: Form) -> Selection {
        Selection { linked_only: form == Form::Objects { linked_only: true }, ..self }
    }

    /// What the keys of all objects that can match start with: of one object, where the selector names it, so that
    /// waiting for one object does not look at all others.
    pub fn prefix(&self, target: &Target) -> String {
        let kind = convert::stored_kind(&target.resource);
        let mut prefix = key::prefix(kind, &target.namespace);
        let is_one_room = !kind.namespaced || !target.namespace.is_empty();
        if let Some(name) = self.fields.required("metadata.name").filter(|_| is_one_room) {
            prefix.push_str(name);
        }
        prefix
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.linked_only && self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether this object matches.
    pub fn matches(&self, entry: &Entry) -> bool {
        if self.is_everything() {
            return true;
        }
        if self.linked_only && !is_linked(entry) {
            return false;
        }
        if self.labels.is_everything() && self.fields.is_everything() {
            return true;
        }
        // Names are in the key: who waits for one object has no header made of all others.
        let (namespace, name) = key::place(entry.key());
        let are_fields_right = self.fields.matches(|path| match path {
            "metadata.name" => Cow::Borrowed(name),
            "metadata.namespace" => Cow::Borrowed(namespace),
            path => from_header(header(entry), path).map_or_else(|| self.deep_field(entry, path), Cow::Borrowed),
        });
        are_fields_right && (self.labels.is_everything() || self.labels.matches(&header(entry).labels()))
    }

    fn deep_field<'a>(&self, entry: &'a Entry, path: &str) -> Cow<'a, str> {
        let fields = entry.memo(|entry| {
            let tree: Value = serde_json::from_slice(entry.value()).expect("the pipeline stores only JSON");
            let read = |path: &String| (path.clone(), self.resource.selected(&tree, path));
            DeepFields(self.deep.iter().map(read).collect())
        });
        let found = fields.0.iter().find(|(name, _)| name == path);
        found.map_or(Cow::Borrowed(""), |(_, text)| Cow::Borrowed(text.as_str()))
    }
}

fn from_header<'a>(header: &'a Header, path: &str) -> Option<&'a str> {
    match path {
        "metadata.name" => Some(header.name()),
        "metadata.namespace" => Some(header.namespace()),
        "spec.nodeName" => Some(header.node_name()),
        "status.phase" => Some(header.phase()),
        _ => None,
    }
}
