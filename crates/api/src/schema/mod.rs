//! The schema table: what every message of the API holds. One table drives unknown fields, types, protobuf, strategic
//! merge and OpenAPI; a custom resource definition builds the same table at run time.
//!
//! The facts of Kubernetes 1.37 lie in `kubernetes.schema`, a text for people and programs:
//!
//! ```text
//! package k8s.io.api.core.v1 v1 as core          protobuf package, group/version or -, short name for references
//! ObjectReference atomic                         a message; flags: kind (has apiVersion and kind), atomic
//!  replicas 1 *int32 default=1                   a field: JSON name, protobuf tag (0: none), type, flags
//! ```
//!
//! A type is `string bool int32 int64 double bytes` or a message (`Pod`, `meta.ObjectMeta`, or its full name); `[]T` is
//! a list, `{}T` a map from string, `*T` a field whose zero value differs from an absent one. Flags: `inline` (its
//! fields stand beside ours in JSON), `required`, `atomic|set|map=key,key|granular` (how server-side apply merges),
//! `merge[=key]`, `retainKeys`, `replace` (how strategic merge does), `default=JSON`.
//!
//! Source: the API's protobuf definitions, struct tags and markers. Where they disagree with the published 1.37 field
//! list the definitions win; fields the published protobuf does not have yet carry tag 0.

mod build;
mod parse;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

pub(crate) use build::{Builder, Part, Slot};
pub use parse::SchemaError;

/// How a message looks in JSON where it is not an object of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An object with the message's fields.
    Fields,
    /// A number with unit, as text (numbers are taken too).
    Quantity,
    /// A number or a text.
    IntOrString,
    /// RFC 3339 time, whole seconds.
    Time,
    /// RFC 3339 time, microseconds.
    MicroTime,
    /// A Go duration such as `1m30s`, as text.
    Duration,
    /// Any JSON object: an embedded API object or field set.
    AnyObject,
    /// Any JSON value.
    Any,
    /// The value of its only field, which has no name: a list of lists, a map of maps.
    Nested,
    /// A list of strings whose protobuf form is a message.
    Strings,
    /// A JSON schema, or a list of them.
    SchemaOrArray,
    /// A JSON schema, or a bool.
    SchemaOrBool,
    /// A JSON schema, or a list of strings.
    SchemaOrStrings,
}

/// The type of a field, of a list's items or of a map's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// Another message.
    Message(MessageId),
}

/// Whether a field holds one value, a list or a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// A list.
    List,
    /// A map whose keys are strings.
    Map,
}

/// How lists, maps and objects merge in server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// Not said: a list is atomic, maps and objects are granular.
    Unsaid,
    /// As one value.
    Atomic,
    /// A list as a set of scalars.
    Set,
    /// A list as a map, by `Field::keys`.
    Map,
    /// Entry by entry.
    Granular,
}

/// Position of a message in its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u16);

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its JSON name.
    pub name: Cow<'static, str>,
    /// Its protobuf tag; 0 where it has none.
    pub tag: u32,
    /// One, list or map.
    pub shape: Shape,
    /// Its type, or that of its items or values.
    pub of: Type,
    /// Its message's fields stand beside ours in JSON.
    pub inline: bool,
    /// Must be present.
    pub required: bool,
    /// A zero value differs from an absent one.
    pub pointer: bool,
    /// How server-side apply merges it.
    pub merging: Merging,
    /// How strategic merge treats a list: `merge` (by key, or as a set) rather than replace.
    pub merge: bool,
    /// Strategic merge drops, on request, the keys that the patch does not list.
    pub retain_keys: bool,
    /// Strategic merge replaces the value as a whole.
    pub replace: bool,
    rare: Option<Box<Rare>>,
}

/// What few fields have.
#[derive(Debug, Default)]
struct Rare {
    keys: Vec<Cow<'static, str>>,
    merge_key: Option<Cow<'static, str>>,
    default: Option<Cow<'static, str>>,
}

impl Field {
    /// The keys that tell the items of a `Merging::Map` list apart.
    pub fn keys(&self) -> &[Cow<'static, str>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.keys)
    }

    /// The key by which strategic merge finds an item; `None` for lists of scalars.
    pub fn merge_key(&self) -> Option<&str> {
        self.rare.as_ref()?.merge_key.as_deref()
    }

    /// The declared default, as JSON text.
    pub fn default(&self) -> Option<&str> {
        self.rare.as_ref()?.default.as_deref()
    }
}

#[derive(Debug)]
struct Row {
    package: u16,
    name: Cow<'static, str>,
    form: Form,
    kind: bool,
    atomic: bool,
    open: bool,
    custom: bool,
    /// Fields as protobuf has them, by tag.
    wire: Box<[u16]>,
    /// Fields as JSON has them (inlined ones resolved), by name.
    json: Box<[u16]>,
}

#[derive(Debug)]
struct Package {
    name: Cow<'static, str>,
    /// `v1`, `apps/v1`; empty where the package is not a group version.
    api_version: Cow<'static, str>,
}

/// A set of messages that refer to each other.
#[derive(Debug)]
pub struct Schema {
    packages: Vec<Package>,
    fields: Vec<Field>,
    messages: Vec<Row>,
    /// Message positions, by package name and message name.
    by_name: Vec<u16>,
}

/// The built-in messages of Kubernetes 1.37.
pub fn kubernetes() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        Schema::parse(include_str!("kubernetes.schema")).expect("the built-in schema table is checked by a test")
    })
}

impl Schema {
    /// Reads a table in the text form above.
    pub fn parse(text: &'static str) -> Result<Schema, SchemaError> {
        parse::parse(text)
    }

    /// The message of this full name, such as `k8s.io.api.core.v1.Pod`.
    pub fn find(&self, full_name: &str) -> Option<Message<'_>> {
        let (package, name) = full_name.rsplit_once('.')?;
        let found = self
            .by_name
            .binary_search_by(|at| {
                let row = &self.messages[usize::from(*at)];
                (self.packages[usize::from(row.package)].name.as_ref(), row.name.as_ref()).cmp(&(package, name))
            })
            .ok()?;
        Some(self.message(MessageId(self.by_name[found])))
    }

    /// The message that `apiVersion` and `kind` of a manifest name. The options of requests (`DeleteOptions`…) and
    /// `Status` are found in every group version.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Message<'_>> {
        let in_group = self
            .packages
            .iter()
            .filter(|package| !package.api_version.is_empty() && package.api_version == api_version)
            .find_map(|package| self.find(&format!("{}.{kind}", package.name)))
            .filter(|message| message.is_kind());
        let shared = || {
            let everywhere = kind.ends_with("Options") || matches!(kind, "Status" | "List");
            let found = everywhere.then(|| self.find(&format!("{META}.{kind}"))).flatten();
            found.filter(|message| message.is_kind())
        };
        in_group.or_else(shared)
    }

    /// The message at this position.
    pub fn message(&self, id: MessageId) -> Message<'_> {
        Message { schema: self, id }
    }

    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.messages.len()).map(|at| self.message(MessageId(at as u16)))
    }
}

/// A message to keep: its position, and the table that it lies in.
#[derive(Debug, Clone)]
pub struct MessageRef {
    table: Table,
    id: MessageId,
}

#[derive(Debug, Clone)]
enum Table {
    BuiltIn,
    /// The table that a custom resource definition brought.
    Own(Arc<Schema>),
}

impl MessageRef {
    /// The built-in message that `apiVersion` and `kind` of a manifest name.
    pub fn built_in(api_version: &str, kind: &str) -> Option<MessageRef> {
        let id = kubernetes().find_kind(api_version, kind)?.id();
        Some(MessageRef { table: Table::BuiltIn, id })
    }

    /// A message of a table of its own, by its full name.
    pub fn own(schema: Arc<Schema>, full_name: &str) -> Option<MessageRef> {
        let id = schema.find(full_name)?.id();
        Some(MessageRef { table: Table::Own(schema), id })
    }

    /// The message.
    pub fn get(&self) -> Message<'_> {
        match &self.table {
            Table::BuiltIn => kubernetes().message(self.id),
            Table::Own(schema) => schema.message(self.id),
        }
    }

    /// The message, if it lies in the built-in table: that lasts for ever.
    pub fn get_built_in(&self) -> Option<Message<'static>> {
        self.is_built_in().then(|| kubernetes().message(self.id))
    }

    /// Whether it lies in the built-in table.
    pub fn is_built_in(&self) -> bool {
        matches!(self.table, Table::BuiltIn)
    }
}

/// The package of `ObjectMeta` and its like.
pub const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// A message in its schema.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    schema: &'a Schema,
    id: MessageId,
}

impl<'a> Message<'a> {
    fn row(self) -> &'a Row {
        &self.schema.messages[usize::from(self.id.0)]
    }

    /// Its position.
    pub fn id(self) -> MessageId {
        self.id
    }

    /// Its schema.
    pub fn schema(self) -> &'a Schema {
        self.schema
    }

    /// Its name without package, such as `Pod`.
    pub fn name(self) -> &'a str {
        &self.row().name
    }

    /// Its protobuf package.
    pub fn package(self) -> &'a str {
        &self.schema.packages[usize::from(self.row().package)].name
    }

    /// Its full name, such as `k8s.io.api.core.v1.Pod`.
    pub fn full_name(self) -> String {
        format!("{}.{}", self.package(), self.name())
    }

    /// Its group version, such as `apps/v1`; empty for parts that belong to none.
    pub fn api_version(self) -> &'a str {
        &self.schema.packages[usize::from(self.row().package)].api_version
    }

    /// Its API group; empty for the core group.
    pub fn group(self) -> &'a str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// The version of its group, such as `v1`.
    pub fn version(self) -> &'a str {
        self.api_version().rsplit('/').next().unwrap_or_default()
    }

    /// How it looks in JSON.
    pub fn form(self) -> Form {
        self.row().form
    }

    /// Whether its objects say `apiVersion` and `kind`.
    pub fn is_kind(self) -> bool {
        self.row().kind
    }

    /// Whether server-side apply takes it as one value.
    pub fn is_atomic(self) -> bool {
        self.row().atomic
    }

    /// Whether fields that it does not name are kept as they are.
    pub fn is_open(self) -> bool {
        self.row().open
    }

    /// Whether a custom resource definition brought it: types, nulls and texts are then for its own rules to check.
    pub fn is_custom(self) -> bool {
        self.row().custom
    }

    /// What a [`Form::Nested`] message stands for.
    pub fn nested(self) -> Option<&'a Field> {
        self.fields().next().filter(|_| self.form() == Form::Nested)
    }

    /// The field of this JSON name, inlined ones included. `apiVersion` and `kind` of a kind are not fields.
    pub fn field(self, name: &str) -> Option<&'a Field> {
        let fields = &self.schema.fields;
        let json = &self.row().json;
        let at = json.binary_search_by(|at| fields[usize::from(*at)].name.as_ref().cmp(name)).ok()?;
        Some(&fields[usize::from(json[at])])
    }

    /// The field of this protobuf tag, inlined messages as one field.
    pub fn tagged(self, tag: u32) -> Option<&'a Field> {
        let fields = &self.schema.fields;
        let wire = &self.row().wire;
        let at = wire.binary_search_by(|at| fields[usize::from(*at)].tag.cmp(&tag)).ok()?;
        Some(&fields[usize::from(wire[at])]).filter(|field| field.tag != 0)
    }

    /// The fields as JSON has them, by name.
    pub fn fields(self) -> impl Iterator<Item = &'a Field> {
        self.row().json.iter().map(|at| &self.schema.fields[usize::from(*at)])
    }

    /// The fields as protobuf has them, by tag.
    pub fn tagged_fields(self) -> impl Iterator<Item = &'a Field> {
        self.row().wire.iter().map(|at| &self.schema.fields[usize::from(*at)])
    }

    /// The message of a field's values, if they are messages.
    pub fn of(self, field: &Field) -> Option<Message<'a>> {
        match field.of {
            Type::Message(id) => Some(self.schema.message(id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Merging, Schema, Shape, Type, kubernetes};

    #[test]
    fn the_built_in_table_is_whole() {
        let schema = kubernetes();
        assert!(schema.messages().count() > 900, "{}", schema.messages().count());
        let pod = schema.find("k8s.io.api.core.v1.Pod").expect("pods exist");
        assert!(pod.is_kind());
        let spec = pod.of(pod.field("spec").expect("a pod has a spec")).expect("a spec is a message");
        let containers = spec.field("containers").expect("a pod has containers");
        assert_eq!((containers.tag, containers.shape, containers.merging), (2, Shape::List, Merging::Map));
        assert_eq!((containers.keys(), containers.merge_key()), (&["name".into()][..], Some("name")));
        assert!(containers.required && containers.merge);
        let selector = spec.field("nodeSelector").expect("nodeSelector");
        assert_eq!((selector.tag, selector.shape, selector.of), (7, Shape::Map, Type::String));
        assert_eq!(spec.tagged(7).map(|field| field.name.as_ref()), Some("nodeSelector"));
    }

    #[test]
    fn inlined_messages_are_flat_in_json_and_nested_in_protobuf() {
        let volume = kubernetes().find("k8s.io.api.core.v1.Volume").expect("volumes exist");
        assert!(volume.field("emptyDir").is_some() && volume.field("volumeSource").is_none());
        assert!(volume.tagged(2).is_some_and(|field| field.inline));
        let rule = kubernetes().find("k8s.io.api.admissionregistration.v1.NamedRuleWithOperations").expect("rules");
        for name in ["resourceNames", "operations", "apiGroups", "scope"] {
            assert!(rule.field(name).is_some(), "{name} is inlined, through two levels");
        }
    }

    #[test]
    fn special_forms_are_known() {
        for (name, form) in [
            ("k8s.io.apimachinery.pkg.api.resource.Quantity", Form::Quantity),
            ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", Form::Time),
            ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", Form::AnyObject),
            ("k8s.io.api.authentication.v1.ExtraValue", Form::Strings),
            ("k8s.io.api.core.v1.Pod", Form::Fields),
        ] {
            assert_eq!(kubernetes().find(name).map(|message| message.form()), Some(form), "{name}");
        }
    }

    #[test]
    fn kinds_are_found_by_what_a_manifest_says() {
        let schema = kubernetes();
        for (api_version, kind, full) in [
            ("v1", "Binding", "k8s.io.api.core.v1.Binding"),
            ("apps/v1", "Deployment", "k8s.io.api.apps.v1.Deployment"),
            ("v1", "DeleteOptions", "k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            ("policy/v1", "Eviction", "k8s.io.api.policy.v1.Eviction"),
            ("autoscaling/v1", "Scale", "k8s.io.api.autoscaling.v1.Scale"),
            (
                "authorization.k8s.io/v1",
                "SelfSubjectAccessReview",
                "k8s.io.api.authorization.v1.SelfSubjectAccessReview",
            ),
            ("rbac.authorization.k8s.io/v1", "RoleList", "k8s.io.api.rbac.v1.RoleList"),
        ] {
            let found = schema.find_kind(api_version, kind).map(|message| message.full_name());
            assert_eq!(found.as_deref(), Some(full));
        }
        assert!(schema.find_kind("v1", "PodSpec").is_none(), "a part is not a kind");
        assert!(schema.find_kind("apps/v2", "Deployment").is_none());
    }

    #[test]
    fn a_broken_table_names_its_line() {
        for (text, part) in [
            ("Pod kind\n", "line 1"),
            ("package a v1\nPod\n name x string\n", "line 3"),
            ("package a v1\nPod\n name 1 Nothing\n", "Nothing"),
            ("package a v1\nPod\n name 1 string sideways\n", "sideways"),
            ("package a v1\nPod\n a 1 string\n b 1 string\n", "tag 1"),
        ] {
            let error = Schema::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
