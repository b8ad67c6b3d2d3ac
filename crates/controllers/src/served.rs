//! All kinds that objects are stored of, each with a copy of its objects.
//!
//! Goal        whoever must know of every object knows the built-in kinds and those that definitions serve
//!
//! Rules
//!   R1 built-in  every built-in kind with stored objects is there, but Events: they own nothing and expire by themselves
//!   R2 custom    a custom kind is there once its definition is established, in the first version that is served
//!   R3 version   a kind is found by its group and name: an object is the same in all versions
//!   R4 gone      a kind that is served no more is remembered, at most GONE_MAX of them
//!   R5 most      at most CUSTOM_KINDS_MAX custom kinds, the first by the names of their definitions
//!   R6 leaves    of a leaf kind only linked objects are seen, until one is named as an owner
//! Not here       kinds that were gone before this process began: nothing tells them from kinds that never were

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use windlass_api::resources::{self, custom_resource_definition::names};
use windlass_api::{Kind, Verbs, kinds};
use windlass_client::{Cache, Caches};

/// Custom kinds that are followed: each costs a watch. Clusters with many operators have a few hundred.
const CUSTOM_KINDS_MAX: usize = 1024;
/// Kinds remembered after their end. What a forgotten one owned stays.
const GONE_MAX: usize = 1024;

/// The kinds that are served, now and from now on.
pub(crate) struct Served {
    caches: Caches,
    definitions: Cache,
    kinds: Mutex<Arc<Kinds>>,
    has_wider: AtomicBool,
}

/// A kind's group and name.
type Name = (String, String);

/// The kinds that are served at one moment.
#[derive(Clone)]
pub(crate) struct Kinds {
    built_in: Arc<BTreeMap<Name, Cache>>,
    custom: BTreeMap<Name, Cache>,
    gone: BTreeMap<Name, Kind>,
}

impl Served {
    /// The built-in kinds. Must be called inside a tokio runtime.
    pub(crate) fn new(caches: &Caches) -> Served {
        let built_in = built_in().iter().map(|kind| (name(kind), caches.of(kind))).collect();
        let kinds = Kinds { built_in: Arc::new(built_in), custom: BTreeMap::new(), gone: BTreeMap::new() };
        let definitions = caches.of(&kinds::CUSTOM_RESOURCE_DEFINITION);
        Served {
            caches: caches.clone(),
            definitions,
            kinds: Mutex::new(Arc::new(kinds)),
            has_wider: AtomicBool::new(false),
        }
    }

    /// The kinds as of the last refresh.
    pub(crate) fn now(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.lock().expect("nothing panics while holding it"))
    }

    /// R6: from now on all objects of this kind are seen, not only those that are linked.
    pub(crate) fn widen(&self, kind: &Kind) {
        let mut kinds = self.kinds.lock().expect("nothing panics while holding it");
        let wide = self.caches.leaves_of(kind);
        if kinds.built_in.get(&name(kind)).is_some_and(|cache| cache.is_same(&wide)) {
            return;
        }
        let mut built_in = BTreeMap::clone(&kinds.built_in);
        built_in.insert(name(kind), wide);
        *kinds = Arc::new(Kinds { built_in: Arc::new(built_in), ..Kinds::clone(&kinds) });
        self.has_wider.store(true, Ordering::Relaxed);
    }

    /// Whether a kind was widened since this was asked last.
    pub(crate) fn take_widened(&self) -> bool {
        self.has_wider.swap(false, Ordering::Relaxed)
    }

    /// Looks at the definitions again, and gives the kinds that they serve now.
    pub(crate) fn refresh(&self) -> Arc<Kinds> {
        let definitions = self.definitions.list();
        let served = definitions.iter().filter_map(|definition| custom_kind(&definition.value()));
        let served = most(served.collect());
        let custom = served.iter().map(|kind| (name(kind), self.caches.headers_of(kind))).collect();
        let mut kinds = self.kinds.lock().expect("nothing panics while holding it");
        let before = Arc::clone(&kinds);
        for cache in before.custom.values().filter(|cache| !served.contains(cache.kind())) {
            self.caches.forget(cache.kind());
        }
        let gone = gone(before.custom.values().map(Cache::kind).chain(before.gone.values()), &served);
        *kinds = Arc::new(Kinds { built_in: Arc::clone(&before.built_in), custom, gone });
        Arc::clone(&kinds)
    }
}

impl Kinds {
    /// The copy of the objects of this kind.
    pub(crate) fn find(&self, group: &str, kind: &str) -> Option<&Cache> {
        let name = (group.to_owned(), kind.to_owned());
        self.built_in.get(&name).or_else(|| self.custom.get(&name))
    }

    /// The kind, if it was served before and is no more.
    pub(crate) fn find_gone(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.gone.get(&(group.to_owned(), kind.to_owned()))
    }

    /// All copies.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Cache> {
        self.built_in.values().chain(self.custom.values())
    }

    /// Whether every copy is complete.
    pub(crate) fn are_synced(&self) -> bool {
        self.caches().all(Cache::is_synced)
    }
}

fn name(kind: &Kind) -> Name {
    (kind.group.to_string(), kind.kind.to_string())
}

/// R1.
fn built_in() -> Vec<Kind> {
    stored_kinds().into_iter().filter(|kind| *kind != kinds::EVENT).collect()
}

/// The built-in kinds with stored objects. One that lies in the store as another is not its own.
pub(crate) fn stored_kinds() -> Vec<Kind> {
    let registry = resources::registry();
    let stored = registry.iter().filter(|resource| resource.verbs == Verbs::All && resource.stored.is_none());
    stored.map(|resource| resource.kind.clone()).collect()
}

/// R2: the kind that a definition serves, in its first served version.
pub(crate) fn custom_kind(definition: &Value) -> Option<Kind> {
    let (spec, accepted) = (&definition["spec"], &definition["status"]["acceptedNames"]);
    if !names::is_established(definition) {
        return None;
    }
    let version = spec["versions"].as_array()?.iter().find(|version| version["served"] == true)?;
    let text = |value: &Value| value.as_str().map(|text| Cow::Owned(text.to_owned()));
    Some(Kind {
        group: text(&spec["group"])?,
        version: text(&version["name"])?,
        kind: text(&accepted["kind"])?,
        plural: text(&accepted["plural"])?,
        namespaced: spec["scope"] == "Namespaced",
    })
}

/// R5.
fn most(mut served: Vec<Kind>) -> Vec<Kind> {
    if served.len() > CUSTOM_KINDS_MAX {
        tracing::warn!(served = served.len(), max = CUSTOM_KINDS_MAX, "more custom kinds than can be followed");
        served.truncate(CUSTOM_KINDS_MAX);
    }
    served
}

/// R4: of the kinds known before, those that are not served now.
fn gone<'a>(before: impl Iterator<Item = &'a Kind>, served: &[Kind]) -> BTreeMap<Name, Kind> {
    let is_served = |kind: &Kind| served.iter().any(|served| name(served) == name(kind));
    before.filter(|kind| !is_served(kind)).take(GONE_MAX).map(|kind| (name(kind), kind.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::{CUSTOM_KINDS_MAX, built_in, custom_kind, gone, most};
    use serde_json::{Value, json};
    use windlass_api::{Kind, Verbs, resources};

    fn definition() -> Value {
        json!({
            "spec": {"group": "example.com", "scope": "Namespaced",
                "versions": [{"name": "v1alpha1", "served": false}, {"name": "v1", "served": true}]},
            "status": {"acceptedNames": {"kind": "Foo", "plural": "foos"},
                "conditions": [{"type": "Established", "status": "True"}]},
        })
    }

    fn foo() -> Kind {
        custom_kind(&definition()).expect("it is served")
    }

    #[test]
    fn r1_every_stored_kind_but_events_is_there() {
        let known = built_in();
        let is_missing = |kind: &Kind| !known.contains(kind);
        let stored = resources::all().into_iter().filter(|row| row.verbs == Verbs::All && row.stored.is_none());
        let missing: Vec<String> =
            stored.filter(|row| is_missing(&row.kind)).map(|row| row.kind.qualified_plural()).collect();
        assert_eq!(missing, ["events"]);
    }

    #[test]
    fn r2_a_definition_serves_its_first_served_version_once_established() {
        let kind = foo();
        assert_eq!(
            (kind.api_version().as_str(), kind.qualified_plural().as_str()),
            ("example.com/v1", "foos.example.com")
        );
        assert!(kind.namespaced);
        let mut new = definition();
        new["status"]["conditions"] = json!([]);
        assert_eq!(custom_kind(&new), None);
    }

    #[test]
    fn r4_a_kind_is_gone_only_when_no_version_of_it_is_served() {
        let later = Kind { version: "v2".into(), ..foo() };
        assert!(gone([foo()].iter(), &[later]).is_empty());
        assert_eq!(gone([foo()].iter(), &[]).into_values().collect::<Vec<_>>(), [foo()]);
    }

    #[test]
    fn r5_no_more_kinds_are_followed_than_the_most() {
        assert_eq!(most(vec![foo(); CUSTOM_KINDS_MAX + 1]).len(), CUSTOM_KINDS_MAX);
    }
}
