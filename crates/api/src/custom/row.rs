//! From a definition to the rows of its served versions.
//!
//! Rules
//!   R1 names       those that were accepted, not those that were asked for
//!   R2 versions    a row for each served version; all store under one key, in the storage version; whether a webhook is
//!                  asked between versions is in the row
//!   R3 columns     the name, then what the version asks for; without any the age
//!   R4 published   the schema as it is written, with what every object has
//! Source: API reference, apiextensions.k8s.io/v1 CustomResourceDefinition.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::node::Node;
use super::path::{self, JsonPath};
use super::rule::Ruled;
use super::rules::{Version, VersionRules};
use super::{fill, table};
use crate::convert::{Convert, Stored};
use crate::kind::Kind;
use crate::resource::{Column, Custom, Resource, ScalePaths, Subresource, Verbs};
use crate::resources::tree::Tree;
use crate::schema::SchemaError;

/// Why a definition makes no rows. What its own rules accept never does this.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// No version is the stored one.
    #[error("definition {0:?}: expected one version with storage: true, found none")]
    NoStorage(String),
    /// The schema is too large for a table.
    #[error("definition {name:?}, version {version:?}")]
    Table {
        /// The definition.
        name: String,
        /// Its version.
        version: String,
        /// What is too large.
        #[source]
        source: SchemaError,
    },
}

/// A definition whose schemas are compiled. Compiling is the dear part; rows are cheap.
pub struct Compiled {
    name: String,
    versions: Vec<(String, Arc<Version>, Arc<Value>)>,
}

impl Compiled {
    /// Compiles the served versions of a definition.
    pub fn new(definition: &Value) -> Result<Compiled, DefinitionError> {
        let name = definition["metadata"].text("name").to_owned();
        let mut versions = Vec::new();
        let all = definition["spec"].items("versions").iter();
        for version in all.filter(|version| version.flag("served") || version.flag("storage")) {
            let kind = kind_of(definition, version.text("name"));
            let compiled = compile(&kind, version).map_err(|source| DefinitionError::Table {
                name: name.clone(),
                version: version.text("name").to_owned(),
                source,
            })?;
            let published = published(&kind, definition, version);
            versions.push((version.text("name").to_owned(), Arc::new(compiled), Arc::new(published)));
        }
        Ok(Compiled { name, versions })
    }

    /// The rows of the served versions of the definition as it is at `revision`. Objects written since `current_since`
    /// hold its schemas.
    pub fn rows(
        &self,
        definition: &Value,
        revision: u64,
        current_since: u64,
    ) -> Result<Vec<Resource>, DefinitionError> {
        self.rows_where(definition, (revision, current_since), |version| version.flag("served"))
    }

    /// The row of the stored version, served or not.
    pub fn storage_row(
        &self,
        definition: &Value,
        revision: u64,
        current_since: u64,
    ) -> Result<Resource, DefinitionError> {
        let rows = self.rows_where(definition, (revision, current_since), |version| version.flag("storage"))?;
        rows.into_iter().next().ok_or_else(|| DefinitionError::NoStorage(self.name.clone()))
    }

    fn rows_where(
        &self,
        definition: &Value,
        (revision, current_since): (u64, u64),
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Resource>, DefinitionError> {
        let versions = definition["spec"].items("versions");
        let storage = versions.iter().find(|version| version.flag("storage"));
        let storage = storage.ok_or_else(|| DefinitionError::NoStorage(self.name.clone()))?;
        let stored_kind = kind_of(definition, storage.text("name"));
        let is_asked = definition["spec"]["conversion"].text("strategy") == "Webhook";
        let at_rest = self.versions.iter().find(|(name, ..)| is_asked && name == storage.text("name"));
        let rest = at_rest.map(|(_, compiled, _)| Arc::new(VersionRules(compiled.clone())) as Arc<dyn Convert>);
        let mut rows = Vec::with_capacity(self.versions.len());
        for (name, compiled, published) in &self.versions {
            let version = versions.iter().find(|version| version.text("name") == name);
            let Some(version) = version.filter(|version| wanted(version)) else { continue };
            let mut row = row(definition, version, compiled);
            row.stored = Some(Stored {
                kind: stored_kind.clone(),
                convert: Arc::new(VersionRules(compiled.clone())),
                current_since,
                rest: rest.clone(),
            });
            row.custom = Some(Arc::new(Custom {
                definition: self.name.clone(),
                revision,
                is_ending: definition["metadata"].is_set("deletionTimestamp"),
                open_api: published.clone(),
            }));
            row.deprecation = deprecation(&row.kind, version);
            rows.push(row);
        }
        Ok(rows)
    }
}

/// R1.
fn names(definition: &Value) -> &Value {
    let accepted = &definition["status"]["acceptedNames"];
    if accepted.text("plural").is_empty() { &definition["spec"]["names"] } else { accepted }
}

fn kind_of(definition: &Value, version: &str) -> Kind {
    let (spec, names) = (&definition["spec"], names(definition));
    let text = |text: &str| Cow::Owned(text.to_owned());
    Kind {
        group: text(spec.text("group")),
        version: text(version),
        kind: text(names.text("kind")),
        plural: text(names.text("plural")),
        namespaced: spec.text("scope") == "Namespaced",
    }
}

fn compile(kind: &Kind, version: &Value) -> Result<Version, SchemaError> {
    let schema = &version["schema"]["openAPIV3Schema"];
    let node = if schema.is_object() { Node::compile(schema) } else { Node::open() };
    let columns = version.items("additionalPrinterColumns").iter();
    let columns = columns
        .filter_map(|column| Some((JsonPath::parse(column.text("jsonPath")).ok()?, column.text("type").to_owned())));
    let mut columns: Vec<(JsonPath, String)> = columns.collect();
    if columns.is_empty() {
        let age = JsonPath::parse(".metadata.creationTimestamp").expect("a path");
        columns.push((age, "date".to_owned()));
    }
    Ok(Version {
        message: table::message(kind, &node)?,
        has_defaults: fill::has_defaults(&node),
        ruled: Ruled::compile(schema, &node),
        node,
        has_status: version["subresources"].is_set("status"),
        columns,
    })
}

fn row(definition: &Value, version: &Value, compiled: &Arc<Version>) -> Resource {
    let (kind, names) = (kind_of(definition, version.text("name")), names(definition));
    let texts = |field: &str| names.items(field).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let subresources = &version["subresources"];
    let mut parts = Vec::new();
    if subresources.is_set("status") {
        parts.push(Subresource::Status);
    }
    if subresources.is_set("scale") {
        parts.push(Subresource::Scale);
    }
    let fields = version.items("selectableFields").iter();
    Resource {
        singular: names.text("singular").to_owned(),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        message: compiled.message.clone(),
        verbs: Verbs::All,
        stored: None,
        list_kind: names.text("listKind").to_owned(),
        scale: scale(&subresources["scale"]),
        custom: None,
        deprecation: None,
        subresources: parts,
        columns: columns(version),
        selectable_fields: fields.filter_map(|field| Some(path::simple(field.text("jsonPath"))?.join("."))).collect(),
        generation: true,
        grace_seconds_default: None,
        shows_deleted: false,
        created_by_update: false,
        needs_revision: true,
        rules: Arc::new(VersionRules(compiled.clone())),
        kind,
    }
}

fn scale(scale: &Value) -> ScalePaths {
    let path = |field: &str| path::simple(scale.text(field)).unwrap_or_default();
    ScalePaths {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    }
}

/// The types of printer columns.
pub(crate) const COLUMN_TYPES: [&str; 5] = ["integer", "number", "string", "boolean", "date"];
/// Their formats; `name` is for the first column only.
pub(crate) const COLUMN_FORMATS: [&str; 10] =
    ["int32", "int64", "float", "double", "byte", "date", "date-time", "password", "binary", "name"];

fn word(text: &str, known: &[&'static str]) -> &'static str {
    known.iter().find(|word| **word == text).copied().unwrap_or_default()
}

/// R3.
fn columns(version: &Value) -> Vec<Column> {
    let column = |name: &str, kind: &str, format: &str| Column {
        name: name.to_owned(),
        kind: word(kind, &COLUMN_TYPES),
        format: word(format, &COLUMN_FORMATS),
        description: String::new(),
        priority: 0,
    };
    let mut columns = vec![Column {
        description: "the object's name, unique in its namespace".to_owned(),
        ..column("Name", "string", "name")
    }];
    for asked in version.items("additionalPrinterColumns") {
        if JsonPath::parse(asked.text("jsonPath")).is_err() {
            continue;
        }
        columns.push(Column {
            description: asked.text("description").to_owned(),
            priority: asked.int("priority").and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0),
            ..column(asked.text("name"), asked.text("type"), asked.text("format"))
        });
    }
    if columns.len() == 1 {
        columns
            .push(Column { description: "time since the object was created".to_owned(), ..column("Age", "date", "") });
    }
    columns
}

fn deprecation(kind: &Kind, version: &Value) -> Option<String> {
    let said = version.text("deprecationWarning");
    match version.flag("deprecated") {
        true if said.is_empty() => Some(format!("{} {} is deprecated", kind.api_version(), kind.kind)),
        true => Some(said.to_owned()),
        false => None,
    }
}

/// R4.
fn published(kind: &Kind, definition: &Value, version: &Value) -> Value {
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut schema = if schema.is_object() { schema.clone() } else { json!({"type": "object"}) };
    publish_embedded(&mut schema, 0);
    name_object(&mut schema);
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": kind.group, "version": kind.version, "kind": names(definition).text("kind")}]);
    schema
}

/// What every API object has beside what its schema says.
fn name_object(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    for name in ["apiVersion", "kind"] {
        properties[name] = json!({"type": "string", "description": crate::openapi::type_meta(name)});
    }
    properties["metadata"] = crate::openapi::metadata();
}

fn publish_embedded(schema: &mut Value, depth: usize) {
    if depth > crate::codec::DEPTH_MAX || !schema.is_object() {
        return;
    }
    for inner in schema["properties"].as_object_mut().into_iter().flatten() {
        publish_embedded(inner.1, depth + 1);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(name) {
            publish_embedded(inner, depth + 1);
        }
    }
    if schema.flag("x-kubernetes-embedded-resource") {
        name_object(schema);
    }
}
