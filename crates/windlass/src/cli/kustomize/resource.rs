//! Objects on their way, and by which names they were known.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use windlass_api::resources;

/// The annotation of what is there for tools only.
const LOCAL: &str = "config.kubernetes.io/local-config";
/// What stands for the namespace of a kind that is in none.
const NO_NAMESPACE: &str = "_non_namespaceable_";

/// What an object is, where, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// `default` where none is said.
    pub namespace: String,
    pub name: String,
}

/// An object and how it came here.
#[derive(Debug, Clone)]
pub struct Resource {
    pub object: Value,
    /// What it was before each change of its name or place, oldest first.
    pub previous: Vec<Id>,
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    /// Its name is to get the hash of what it holds.
    pub wants_hash: bool,
}

/// Objects, no two of them the same.
#[derive(Debug, Default)]
pub struct Resources {
    pub all: Vec<Resource>,
}

impl Id {
    /// Whether it is of this kind; what is empty may be anything.
    pub fn is_of(&self, group: &str, version: &str, kind: &str) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(group, &self.group) && fits(version, &self.version) && fits(kind, &self.kind)
    }

    /// Whether its kind is in no namespace. Kinds that we do not know are in one.
    pub fn is_cluster_scoped(&self) -> bool {
        self.namespace == NO_NAMESPACE
    }
}

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &str, none: &'static str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        write!(out, "{}.{}.{}/", self.kind, or(&self.version, "[noVer]"), or(&self.group, "[noGrp]"))?;
        write!(out, "{}.{}", or(&self.name, "[noName]"), self.namespace)
    }
}

impl Resource {
    pub fn new(object: Value) -> Resource {
        Resource { object, previous: Vec::new(), prefixes: Vec::new(), suffixes: Vec::new(), wants_hash: false }
    }

    pub fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The namespace that it says; empty for none.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn set_name(&mut self, name: String) {
        self.object["metadata"]["name"] = json!(name);
    }

    /// Empty for none.
    pub fn set_namespace(&mut self, namespace: &str) {
        if namespace.is_empty() {
            self.object["metadata"].as_object_mut().map(|metadata| metadata.remove("namespace"));
        } else {
            self.object["metadata"]["namespace"] = json!(namespace);
        }
    }

    /// What it is now.
    pub fn id(&self) -> Id {
        let api_version = self.text("/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = self.kind().to_owned();
        let namespace = match self.namespace() {
            _ if is_cluster_scoped(group, &kind) => NO_NAMESPACE,
            "" => "default",
            namespace => namespace,
        };
        Id {
            namespace: namespace.to_owned(),
            name: self.name().to_owned(),
            group: group.to_owned(),
            version: version.to_owned(),
            kind,
        }
    }

    /// What it was at first.
    pub fn origin(&self) -> Id {
        self.previous.first().cloned().unwrap_or_else(|| self.id())
    }

    /// All that it is and was.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids = self.previous.clone();
        ids.push(self.id());
        ids
    }

    /// Notes down what it is, before that changes.
    pub fn remember(&mut self) {
        let id = self.id();
        self.previous.push(id);
    }

    /// Whether it is there for tools only.
    pub fn is_local(&self) -> bool {
        match &self.object["metadata"]["annotations"][LOCAL] {
            Value::Null => false,
            Value::String(text) => text != "false",
            _ => true,
        }
    }

    /// Whether a patch has left nothing of it.
    pub fn is_empty(&self) -> bool {
        self.object.as_object().is_none_or(serde_json::Map::is_empty)
    }
}

impl Resources {
    /// Adds an object that is not there yet.
    pub fn append(&mut self, resource: Resource) -> Result<()> {
        let id = resource.id();
        if self.all.iter().any(|other| other.id() == id) {
            bail!("may not add resource with an already registered id: {id}");
        }
        self.all.push(resource);
        Ok(())
    }

    pub fn append_all(&mut self, others: Resources) -> Result<()> {
        others.all.into_iter().try_for_each(|resource| self.append(resource))
    }

    /// The places of all that are or were such.
    pub fn find(&self, wanted: impl Fn(&Id) -> bool) -> Vec<usize> {
        let is_wanted = |resource: &Resource| resource.ids().iter().any(&wanted);
        self.all.iter().enumerate().filter(|(_, resource)| is_wanted(resource)).map(|(index, _)| index).collect()
    }
}

fn is_cluster_scoped(group: &str, kind: &str) -> bool {
    static KINDS: OnceLock<BTreeSet<(String, String)>> = OnceLock::new();
    let kinds = KINDS.get_or_init(|| {
        let registry = resources::registry();
        let in_none = registry.iter().filter(|resource| !resource.kind.namespaced);
        in_none.map(|resource| (resource.kind.group.to_string(), resource.kind.kind.to_string())).collect()
    });
    kinds.contains(&(group.to_owned(), kind.to_owned()))
}
