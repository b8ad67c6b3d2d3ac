//! The row that says all about a kind that is data, and the few pure functions that are not.
//!
//! Verbs are written once (apiserver) and read the row. A custom resource definition builds the same row at run time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cel::Shape;
use crate::convert::Stored;
use crate::field::Errors;
use crate::kind::Kind;
use crate::name::NameRule;
use crate::schema::{MessageRef, Shape as SchemaShape, Type as SchemaType};

/// A part of an object with its own URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: written by controllers only.
    Status,
    /// `/scale`: replicas, whatever the kind.
    Scale,
    /// `/binding` of a pod: the scheduler's decision.
    Binding,
    /// `/eviction` of a pod.
    Eviction,
    /// `/log` of a pod.
    Log,
    /// `/exec` of a pod.
    Exec,
    /// `/attach` of a pod.
    Attach,
    /// `/portforward` of a pod.
    PortForward,
    /// `/proxy` of a pod, a service or a node: whatever it serves by HTTP.
    Proxy,
    /// `/finalize` of a namespace.
    Finalize,
    /// `/ephemeralcontainers` of a pod: containers added to one that runs.
    EphemeralContainers,
    /// `/resize` of a pod: resources changed while it runs.
    Resize,
    /// `/token` of a service account.
    Token,
    /// `/approval` of a certificate signing request.
    Approval,
}

impl Subresource {
    /// The last segment of the URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Binding => "binding",
            Subresource::Eviction => "eviction",
            Subresource::Log => "log",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
            Subresource::Proxy => "proxy",
            Subresource::Finalize => "finalize",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
            Subresource::Token => "token",
            Subresource::Approval => "approval",
        }
    }
}

/// What may be done to a kind's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Everything: objects are stored.
    All,
    /// Only asked: the answer is made on the spot and nothing is stored, as for a SubjectAccessReview.
    CreateOnly,
    /// Only read: what is shown is made on the spot.
    ReadOnly,
}

impl Verbs {
    /// The verbs' words, sorted.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Verbs::CreateOnly => &["create"],
            Verbs::ReadOnly => &["get", "list"],
        }
    }
}

/// One column of `kubectl get`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Header, such as `Ready`.
    pub name: String,
    /// JSON type of the cells: `string`, `integer`, `date`…
    pub kind: &'static str,
    /// `name` for the column that holds the object's name, else empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: String,
    /// 0 is always shown; greater only by `-o wide`.
    pub priority: i32,
}

/// The rules of a kind: small pure functions, and its printed row.
pub trait Rules: Send + Sync + 'static {
    /// What field selectors find under a name that is not that of a field.
    fn selected(&self, _object: &Value, _path: &str) -> Option<String> {
        None
    }

    /// What objects are, as expressions see them, where it is not the message that says so.
    fn shape(&self) -> Option<Shape> {
        None
    }

    /// Fills in what the client left out. Runs on every write, after decoding and before all other rules; idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Readies a new object: sets what only the server may set, drops what a client may not.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Readies a changed object: carries over from `old` what a client may not change through the main resource.
    fn prepare_update(&self, _object: &mut Value, _old: &Value) {}

    /// Readies an object whose status was changed: carries over from `old` what is not the status'.
    fn prepare_status(&self, _object: &mut Value, _old: &Value) {}

    /// Readies an object that was changed through another subresource: carries over from `old` what this one may not change.
    fn prepare_part(&self, _part: Subresource, _object: &mut Value, _old: &Value) {}

    /// Adds an error for each broken rule of a new or changed object.
    fn validate(&self, _object: &Value, _errors: &mut Errors) {}

    /// Adds an error for each change that is not allowed.
    fn validate_update(&self, _object: &Value, _old: &Value, _errors: &mut Errors) {}

    /// Adds an error for each broken rule of a changed object, and for each change that is not allowed.
    fn validate_changed(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        self.validate_update(object, old, errors);
    }

    /// Adds an error for each change that the status subresource does not allow.
    fn validate_status(&self, _object: &Value, _old: &Value, _errors: &mut Errors) {}

    /// Adds an error for each broken rule of an object that was changed through another subresource, and for each change
    /// that this one does not allow.
    fn validate_part(&self, _part: Subresource, object: &Value, _old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
    }

    /// What whoever creates or changes such an object is told of, though it is valid. `old` is what it was before.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// How objects of this kind may be named.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// The cells of the printed row, one per column of the resource. `now` is for ages.
    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value>;
}

/// Where in an object `/scale` finds what it shows: field names from the outside in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// The replicas asked for.
    pub spec: Vec<String>,
    /// The replicas there are.
    pub status: Vec<String>,
    /// The selector: a text, or a LabelSelector.
    pub selector: Vec<String>,
}

impl Default for ScalePaths {
    fn default() -> ScalePaths {
        let path = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        ScalePaths {
            spec: path(["spec", "replicas"]),
            status: path(["status", "replicas"]),
            selector: path(["spec", "selector"]),
        }
    }
}

/// What a row has from the definition that it was built from.
#[derive(Debug)]
pub struct Custom {
    /// The definition's name.
    pub definition: String,
    /// The definition's revision: what is written by this row holds only as long as it is the newest.
    pub revision: u64,
    /// Whether the definition is being deleted: nothing new is made of the kind then.
    pub is_ending: bool,
    /// The schema as OpenAPI publishes it.
    pub open_api: Arc<Value>,
}

/// All about one kind.
#[derive(Clone)]
pub struct Resource {
    /// Its identity.
    pub kind: Kind,
    /// Lower-case singular.
    pub singular: String,
    /// What `kubectl get` also takes, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of kinds, such as `all`.
    pub categories: Vec<String>,
    /// Its message in the schema table, such as `k8s.io.api.apps.v1.Deployment`.
    pub message: MessageRef,
    /// What may be done to its objects.
    pub verbs: Verbs,
    /// How its objects lie in the store; `None` where they lie there as they are served.
    pub stored: Option<Stored>,
    /// The kind of its lists, such as `PodList`.
    pub list_kind: String,
    /// Where `/scale` finds replicas and selector.
    pub scale: ScalePaths,
    /// What a custom resource definition brought; `None` for built-in kinds.
    pub custom: Option<Arc<Custom>>,
    /// Whether clients are told that the version is on its way out, and how.
    pub deprecation: Option<String>,
    /// The parts with their own URL.
    pub subresources: Vec<Subresource>,
    /// Columns of `kubectl get`.
    pub columns: Vec<Column>,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`, as paths: `spec.nodeName`.
    pub selectable_fields: Vec<String>,
    /// Whether `metadata.generation` counts changes of all but the object's metadata and status.
    pub generation: bool,
    /// Whether deletion is graceful by default (a pod), and for how long in seconds.
    pub grace_seconds_default: Option<u32>,
    /// Whether what is gone is shown to who deleted it, where other kinds answer with a Status: typed clients expect
    /// the one or the other.
    pub shows_deleted: bool,
    /// Whether an update of an object that does not exist creates it.
    pub created_by_update: bool,
    /// Whether an update must say which revision it is made of.
    pub needs_revision: bool,
    /// What is not data.
    pub rules: Arc<dyn Rules>,
}

impl Resource {
    /// What its objects are, as expressions see them; `None` if its schema does not say.
    pub fn shape(&self) -> Option<Shape> {
        self.rules.shape().or_else(|| self.message.get_built_in().map(Shape::of_message))
    }

    /// What field selectors find in a field of an object: texts as they are, flags and numbers printed, of lists and
    /// objects nothing. A built-in kind's flags are `false` and its numbers 0 where they are not set.
    pub fn selected(&self, object: &Value, path: &str) -> String {
        if let Some(text) = self.rules.selected(object, path) {
            return text;
        }
        match path.split('.').fold(object, |at, name| &at[name]) {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Null => self.when_unset(path).to_owned(),
            Value::Array(_) | Value::Object(_) => String::new(),
        }
    }

    fn when_unset(&self, path: &str) -> &'static str {
        let Some(mut message) = self.message.get_built_in() else { return "" };
        let mut last = "";
        for name in path.split('.') {
            let Some(field) = message.fields().find(|field| field.name == name) else { return "" };
            last = match (field.shape, field.of) {
                (SchemaShape::One, SchemaType::Bool) => "false",
                (SchemaShape::One, SchemaType::Int32 | SchemaType::Int64) => "0",
                (SchemaShape::One, SchemaType::Message(inner)) => {
                    message = message.schema().message(inner);
                    ""
                }
                _ => "",
            };
        }
        last
    }

    /// Whether the kind has this subresource.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

/// All kinds that are served, found by their URL.
#[derive(Clone, Default)]
pub struct Registry {
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Registry {
    /// A registry of these kinds.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Registry {
        let mut registry = Registry::default();
        for resource in resources {
            registry.insert(resource);
        }
        registry
    }

    /// Adds or replaces a kind.
    pub fn insert(&mut self, resource: Resource) {
        let kind = &resource.kind;
        let path = (kind.group.to_string(), kind.version.to_string(), kind.plural.to_string());
        self.by_path.insert(path, Arc::new(resource));
    }

    /// Takes a kind out.
    pub fn remove(&mut self, kind: &Kind) -> Option<Arc<Resource>> {
        self.by_path.remove(&(kind.group.to_string(), kind.version.to_string(), kind.plural.to_string()))
    }

    /// The kind at this URL.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind that a manifest names.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_path.values().find(|resource| resource.kind.kind == kind && resource.kind.api_version() == api_version)
    }

    /// All kinds, by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_path.values()
    }
}
