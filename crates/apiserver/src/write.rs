//! The end of every write: an object becomes bytes, the bytes and everything they depend on become one transaction.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use windlass_api::field::Errors;
use windlass_api::resources::metadata_warnings;
use windlass_api::{ApiError, Header, Kind, Reason, Resource, gate, object};
use windlass_store::{CommitError, Committed, Entry, Op, Template};

use crate::failure::commit_failed;
use crate::request::{Query, short};
use crate::server::{Call, Server};

/// Largest object in bytes: what etcd takes, so that whatever is accepted here can be moved there.
pub const OBJECT_BYTES_MAX: usize = 3 * 512 * 1024;

/// What of an object's metadata is written through its status too.
pub(crate) const STATUS_METADATA: [&str; 3] = ["labels", "annotations", "finalizers"];

/// How a write is to be done: the parameters all writes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteOptions {
    /// Do everything but the commit.
    pub dry_run: bool,
}

impl WriteOptions {
    pub fn parse(query: &Query) -> Result<WriteOptions, ApiError> {
        let mut dry_run = false;
        for value in query.all("dryRun") {
            match value {
                "All" => dry_run = true,
                "" => {}
                other => return Err(unknown_dry_run(other)),
            }
        }
        Ok(WriteOptions { dry_run })
    }
}

/// `dryRun` may only be All.
pub(crate) fn unknown_dry_run(found: &str) -> ApiError {
    ApiError::new(Reason::Invalid, format!("dryRun: Unsupported value: {}: supported values: \"All\"", short(found)))
}

/// Why a transaction did not happen.
pub(crate) enum Refused {
    /// A key was not as expected: its place among the operations.
    Conflict { index: usize },
    /// Something else.
    Failed(ApiError),
}

impl Server {
    /// Commits a transaction.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Committed, Refused> {
        match self.store.commit(ops).await {
            Ok(committed) => Ok(committed),
            Err(CommitError::Conflict { index, .. }) => Err(Refused::Conflict { index }),
            Err(other) => Err(Refused::Failed(commit_failed(other))),
        }
    }
}

/// The stored form of an object. What cannot be read back is never stored.
pub(crate) fn template(object: &Value) -> Result<Template, ApiError> {
    let fields = object.as_object().filter(|fields| fields.get("metadata").is_some_and(Value::is_object));
    let fields = fields.ok_or_else(|| ApiError::bad_request("expected an object with metadata"))?;
    let (bytes, revision_at) = object::encode(fields);
    if bytes.len() > OBJECT_BYTES_MAX {
        let message =
            format!("the object is too large: expected at most {OBJECT_BYTES_MAX} bytes, found {}", bytes.len());
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    Header::check(&bytes).map_err(|error| {
        ApiError::bad_request(format!("expected a {} with well-formed metadata: {}", kind_of(fields), chain(&error)))
    })?;
    Ok(Template::with_revision_at(bytes, revision_at))
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn kind_of(fields: &Map<String, Value>) -> &str {
    fields.get("kind").and_then(Value::as_str).unwrap_or("object")
}

/// The bytes an object would have if it were stored, for writes that are only tried. `revision` is that of the object
/// before, if there was one.
pub(crate) fn tried(template: &Template, revision: Option<u64>) -> Bytes {
    let at = template.revision_at.map_or(0, |at| at as usize);
    let (head, tail) = template.bytes.split_at(at);
    let shown = revision.map(|revision| revision.to_string()).unwrap_or_default();
    [head, shown.as_bytes(), tail].concat().into()
}

/// The stored object as a tree.
pub(crate) fn tree(entry: &Entry) -> Value {
    serde_json::from_slice(entry.value()).expect("the pipeline stores only JSON")
}

/// A text field of a tree; absent and other types are empty.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Drops the fields that wait behind a gate, unless the object had them before.
pub(crate) fn drop_disabled(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    if let Some(message) = resource.message.get_built_in() {
        gate::drop_disabled(object, old, message);
    }
}

/// The metadata of an object that was checked to have one.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut).expect("objects without metadata were refused")
}

/// Checks what a client may say about the kind of an object, and completes it.
pub(crate) fn check_kind(kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!("expected a {} object", kind.kind)));
    };
    let api_version = kind.api_version();
    for (field, expected) in [("kind", kind.kind.as_ref()), ("apiVersion", api_version.as_str())] {
        match fields.get(field).and_then(Value::as_str) {
            Some(found) if found == expected => {}
            None | Some("") => {
                fields.insert(field.to_owned(), json!(expected));
            }
            Some(found) => {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the data ({}) does not match the expected {field} ({expected})",
                    short(found)
                )));
            }
        }
    }
    match fields.get("metadata") {
        None | Some(Value::Null) => {
            fields.insert("metadata".to_owned(), json!({}));
        }
        Some(metadata) if metadata.is_object() => {}
        Some(_) => return Err(ApiError::bad_request("expected metadata to be an object")),
    }
    Ok(())
}

/// Checks that the object is in the namespace and under the name of the URL, and completes both.
pub(crate) fn check_place(kind: &Kind, namespace: &str, name: &str, object: &mut Value) -> Result<(), ApiError> {
    let metadata = metadata_mut(object);
    for (field, expected) in [("namespace", namespace), ("name", name)] {
        let found = match metadata.get(field) {
            None | Some(Value::Null) => "",
            Some(Value::String(found)) => found.as_str(),
            Some(_) => return Err(ApiError::bad_request(format!("expected metadata.{field} to be a string"))),
        };
        if expected.is_empty() {
            continue;
        }
        if found.is_empty() {
            metadata.insert(field.to_owned(), json!(expected));
        } else if found != expected {
            let place = if field == "name" { "the name on the URL" } else { "the namespace sent on the request" };
            return Err(ApiError::bad_request(format!(
                "the {field} of the provided object ({}) does not match {place} ({expected})",
                short(found)
            )));
        }
    }
    if !kind.namespaced && metadata.get("namespace").is_some_and(|found| *found == "") {
        metadata.remove("namespace");
    }
    Ok(())
}

/// Completes what a client sent to a subresource of an object: its kind, and the object's place.
pub(crate) fn complete(call: Call<'_>, object: &mut Value, (api_version, kind): (&str, &str)) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.insert("apiVersion".to_owned(), json!(api_version));
    fields.insert("kind".to_owned(), json!(kind));
    let Some(metadata) = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut() else { return };
    for (field, value) in [("name", &call.target.name), ("namespace", &call.target.namespace)] {
        let is_missing = metadata.get(field).is_none_or(|found| found.is_null() || *found == "");
        if is_missing && !value.is_empty() {
            metadata.insert(field.to_owned(), json!(value));
        }
    }
}

/// Removes what is never stored: links to objects themselves are long gone.
pub(crate) fn strip(object: &mut Value) {
    metadata_mut(object).remove("selfLink");
}

/// Tells the writer what is odd about what he wrote, though it is valid.
pub(crate) fn warn(call: Call<'_>, object: &Value, old: Option<&Value>) {
    let resource = &call.target.resource;
    let of_metadata = metadata_warnings(resource, object, old);
    of_metadata.into_iter().chain(resource.rules.warnings(object, old)).for_each(|warning| call.warned.add(warning));
}

/// Refuses an object with errors.
pub(crate) fn refuse_if_any(resource: &Resource, object: &Value, errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&resource.kind, text(&object["metadata"], "name"), errors))
}

/// The Status of something that was done.
pub(crate) fn success(details: Value) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if details.is_object() {
        status["details"] = details;
    }
    status
}
