//! The custom kinds that are served: what the stored definitions say, at every moment.
//!
//! Goal        a kind is served, discovered and published from the answer to its definition's creation to its removal,
//!             on every member and after a restart
//! Rules
//!   R1 followed    the kinds served are made from the definitions in the store, whenever those have changed
//!   R2 kept        a definition whose schemas have not changed is not compiled again, and its watches go on
//!   R3 current     an object written before its definition last changed passes the schema on its way out
//!   R4 built-in    no definition takes the place of a built-in kind
//! Relies on   `follow` for the picture, `windlass_api::custom` for the rows
//! Not here    names that collide (`admit/definition`), what becomes of the objects of a deleted definition (`cleanup`)

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use windlass_api::custom::Compiled;
use windlass_api::resources::custom_resource_definition::names::{Taken, is_established};
use windlass_api::{Registry, Resource};
use windlass_store::Entry;

use crate::convert::Converter;
use crate::documents::Documents;
use crate::follow::Picture;
use crate::server::{Server, header};

/// Where definitions lie in the store.
pub(crate) const PREFIX: &str = "o/customresourcedefinitions.apiextensions.k8s.io/";

/// The definitions that are stored.
#[derive(Default)]
pub(crate) struct Definitions {
    by_key: BTreeMap<String, Arc<Known>>,
    /// Another one after every change.
    stamp: Arc<()>,
}

/// What a compiled definition belongs to: a uid, and the digest of its versions.
type Identity = (String, [u8; 32]);

/// One definition. Its schemas stay bytes: as a tree they would be ten times as large.
pub(crate) struct Known {
    pub name: String,
    pub revision: u64,
    pub is_ending: bool,
    identity: Identity,
    bytes: Bytes,
    /// Its group and names, and its status.
    pub outline: Value,
}

impl Known {
    fn new(entry: &Entry) -> Known {
        let (header, tree) = (header(entry), tree(&entry.shared()));
        let outline = json!({
            "metadata": tree["metadata"], "status": tree["status"],
            "spec": {"group": tree["spec"]["group"], "names": tree["spec"]["names"]},
        });
        Known {
            name: header.name().to_owned(),
            revision: entry.revision,
            is_ending: header.is_ending(),
            identity: (header.uid().to_owned(), Sha256::digest(tree["spec"]["versions"].to_string()).into()),
            bytes: entry.shared(),
            outline,
        }
    }

    /// The whole definition.
    pub fn tree(&self) -> Value {
        tree(&self.bytes)
    }
}

fn tree(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).expect("the pipeline stores only JSON")
}

impl Picture for Definitions {
    fn prefixes() -> &'static [&'static str] {
        &[PREFIX]
    }

    fn put(&mut self, entry: &Entry) {
        self.by_key.insert(entry.key().to_owned(), Arc::new(Known::new(entry)));
        self.stamp = Arc::new(());
    }

    fn remove(&mut self, key: &str) {
        self.by_key.remove(key);
        self.stamp = Arc::new(());
    }
}

/// The kinds that are served, and the documents about them.
pub(crate) struct Served {
    pub registry: Registry,
    pub documents: Documents,
    compiled: BTreeMap<String, Kept>,
    /// The webhooks that convert, by definition.
    converters: BTreeMap<String, Arc<Converter>>,
    /// That of the definitions they were made from.
    stamp: Arc<()>,
}

/// A compiled definition.
#[derive(Clone)]
struct Kept {
    identity: Identity,
    names: Value,
    compiled: Arc<Compiled>,
    /// The revision since which objects are written by these schemas.
    since: u64,
}

impl Served {
    /// The built-in kinds alone.
    pub fn new(registry: Registry) -> Served {
        Served {
            registry,
            documents: Documents::default(),
            compiled: BTreeMap::new(),
            converters: BTreeMap::new(),
            stamp: Arc::new(()),
        }
    }

    /// The built-in kinds and those of the definitions.
    fn with(built_in: &Registry, known: &BTreeMap<String, Arc<Known>>, stamp: Arc<()>, before: &Served) -> Served {
        let mut served = Served { stamp, ..Served::new(built_in.clone()) };
        for known in known.values().filter(|known| is_established(&known.outline)) {
            let definition = known.tree();
            if let Some(converter) = Converter::of(&definition, before.converters.get(&known.name)) {
                served.converters.insert(known.name.clone(), converter);
            }
            let names = &known.outline["status"]["acceptedNames"];
            let kept = before.compiled.get(&known.name);
            let kept = kept.filter(|kept| kept.identity == known.identity && kept.names == *names).cloned();
            let kept = kept.map_or_else(|| compile(known, names, &definition), Ok);
            let rows = kept.and_then(|kept| {
                let rows = kept.compiled.rows(&definition, known.revision, kept.since)?;
                served.compiled.insert(known.name.clone(), kept);
                Ok(rows)
            });
            match rows {
                Ok(rows) => rows.into_iter().for_each(|row| served.insert(row)),
                Err(error) => tracing::error!(definition = %known.name, %error, "a kind cannot be served"),
            }
        }
        served
    }

    /// R4.
    fn insert(&mut self, row: Resource) {
        let kind = &row.kind;
        if self.registry.get(&kind.group, &kind.version, &kind.plural).is_none() {
            self.registry.insert(row);
        }
    }

    /// The webhook that converts the objects of a definition.
    pub fn converter(&self, definition: &str) -> Option<Arc<Converter>> {
        self.converters.get(definition).cloned()
    }

    /// The row by which the objects of a definition lie in the store, served or not.
    pub fn storage_row(&self, known: &Known) -> Option<Resource> {
        let kept = self.compiled.get(&known.name)?;
        kept.compiled.storage_row(&known.tree(), known.revision, kept.since).ok()
    }
}

fn compile(known: &Known, names: &Value, definition: &Value) -> Result<Kept, windlass_api::custom::DefinitionError> {
    Ok(Kept {
        identity: known.identity.clone(),
        names: names.clone(),
        compiled: Arc::new(Compiled::new(definition)?),
        since: known.revision,
    })
}

impl Server {
    /// The kinds that are served now, and the documents about them (R1). A request looks once and keeps what it got.
    pub fn served(&self) -> Arc<Served> {
        let served = self.served.read().expect("nothing panics while holding what is served").clone();
        let changed = self.definitions.look(&self.store, |definitions| {
            let is_same = Arc::ptr_eq(&definitions.stamp, &served.stamp);
            (!is_same).then(|| (definitions.by_key.clone(), definitions.stamp.clone()))
        });
        let Some((known, stamp)) = changed else { return served };
        let served = Arc::new(Served::with(&self.config.registry, &known, stamp, &served));
        *self.served.write().expect("nothing panics while holding what is served") = served.clone();
        served
    }

    /// The definitions that are stored.
    pub fn known_definitions(&self) -> Vec<Arc<Known>> {
        self.definitions.look(&self.store, |definitions| definitions.by_key.values().cloned().collect())
    }

    /// The names that a definition's group has without it.
    pub fn taken_names(&self, group: &str, name: &str) -> Taken {
        let mut taken = Taken::default();
        let built_in = self.config.registry.iter().filter(|row| row.kind.group == group);
        built_in.for_each(|row| taken.add_built_in(row));
        for known in self.known_definitions() {
            if known.name != name && known.outline["spec"]["group"] == group {
                taken.add_definition(&known.outline);
            }
        }
        taken
    }

    /// Whether a row is the one that its kind has now: the same definition, as it is stored.
    pub fn is_newest(&self, resource: &Resource) -> bool {
        self.row_now(resource).is_some_and(|row| revision_of(&row) == revision_of(resource))
    }

    fn row_now(&self, resource: &Resource) -> Option<Arc<Resource>> {
        let kind = &resource.kind;
        self.served().registry.get(&kind.group, &kind.version, &kind.plural).cloned()
    }
}

/// Waits until a row's kind is gone, or its schemas are others (R2). Does not hold the server while it waits.
pub(crate) async fn replaced(server: Weak<Server>, resource: &Resource) {
    let schema = |row: &Resource| {
        let is_asked = row.stored.as_ref().is_some_and(|stored| stored.rest.is_some());
        row.custom.as_ref().map(|custom| (Arc::as_ptr(&custom.open_api), is_asked))
    };
    let Some(mut changes) = server.upgrade().map(|server| server.definitions_changed.subscribe()) else { return };
    loop {
        let row = server.upgrade().and_then(|server| server.row_now(resource));
        let is_same = row.is_some_and(|row| schema(&row) == schema(resource));
        // An error means that the server itself is gone.
        if !is_same || changes.changed().await.is_err() {
            return;
        }
    }
}

fn revision_of(resource: &Resource) -> Option<u64> {
    resource.custom.as_ref().map(|custom| custom.revision)
}
