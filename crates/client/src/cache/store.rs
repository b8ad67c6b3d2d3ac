//! The objects of a cache and their indexes. Synchronous; the reflector changes it, everybody reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use windlass_api::Object;

use super::key::Key;
use super::subscription::{Change, Pending, Subscription};

/// An object in a cache, with what its readers derived from it.
pub type Cached = Object;

/// A set of objects, by something they have in common.
type Index = BTreeMap<Arc<str>, BTreeSet<Key>>;

pub(super) struct Store {
    objects: BTreeMap<Key, Arc<Cached>>,
    by_owner: Index,
    /// By namespace: objects that no owner controls.
    uncontrolled: Index,
    by_node: Index,
    /// By `namespace/key=value`; `None` when the scope does not ask for it.
    by_label: Option<Index>,
    subscribers: Vec<Weak<Pending>>,
}

impl Store {
    pub(super) fn new(index_labels: bool) -> Store {
        Store {
            objects: BTreeMap::new(),
            by_owner: Index::new(),
            uncontrolled: Index::new(),
            by_node: Index::new(),
            by_label: index_labels.then(Index::new),
            subscribers: Vec::new(),
        }
    }

    /// Takes in a new or changed object. What is not newer than what we have changes nothing.
    pub(super) fn put(&mut self, object: Arc<Object>) {
        let key = Key::of(&object.header);
        let old = self.objects.get(&key).cloned();
        if old.as_ref().is_some_and(|old| old.header.revision >= object.header.revision) {
            return;
        }
        if let Some(old) = &old {
            self.unlink(&key, old);
        }
        let new = object;
        self.link(&key, &new);
        self.objects.insert(key.clone(), Arc::clone(&new));
        self.tell(Change { key, old, new: Some(new) });
    }

    /// Takes out an object that ended at `revision`, unless a newer one of the same name is there already.
    pub(super) fn remove(&mut self, key: &Key, revision: u64) {
        if self.objects.get(key).is_some_and(|old| old.header.revision <= revision) {
            let old = self.objects.remove(key).expect("it was there a line ago");
            self.unlink(key, &old);
            self.tell(Change { key: key.clone(), old: Some(old), new: None });
        }
    }

    /// Takes out what a complete list at `revision` did not hold.
    pub(super) fn retain(&mut self, seen: &BTreeSet<Key>, revision: u64) {
        let gone: Vec<Key> = self.objects.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        for key in gone {
            self.remove(&key, revision);
        }
    }

    fn tell(&mut self, change: Change) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(pending) => {
                pending.push(change.clone());
                true
            }
            None => false,
        });
    }

    pub(super) fn subscribe(&mut self, bell: Arc<Notify>) -> Subscription {
        let subscription = Subscription::new(bell);
        for (key, object) in &self.objects {
            subscription.pending().push(Change { key: key.clone(), old: None, new: Some(Arc::clone(object)) });
        }
        self.subscribers.push(Arc::downgrade(subscription.pending()));
        subscription
    }

    fn link(&mut self, key: &Key, object: &Object) {
        let header = &object.header;
        for owner in header.owners() {
            insert(&mut self.by_owner, &owner.uid, key);
        }
        if header.controller().is_none() {
            insert(&mut self.uncontrolled, header.namespace(), key);
        }
        if header.kind() == "Pod" {
            insert(&mut self.by_node, header.node_name(), key);
        }
        if let Some(by_label) = &mut self.by_label {
            for (label, value) in header.labels().iter() {
                insert(by_label, &label_entry(header.namespace(), label, value), key);
            }
        }
    }

    fn unlink(&mut self, key: &Key, object: &Object) {
        let header = &object.header;
        for owner in header.owners() {
            remove(&mut self.by_owner, &owner.uid, key);
        }
        if header.controller().is_none() {
            remove(&mut self.uncontrolled, header.namespace(), key);
        }
        if header.kind() == "Pod" {
            remove(&mut self.by_node, header.node_name(), key);
        }
        if let Some(by_label) = &mut self.by_label {
            for (label, value) in header.labels().iter() {
                remove(by_label, &label_entry(header.namespace(), label, value), key);
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Cached>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<Cached>> {
        self.objects.values().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> Vec<Arc<Cached>> {
        let prefix = format!("{namespace}/");
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let range = self.objects.range::<str, _>(from);
        range.take_while(|(key, _)| key.as_str().starts_with(&prefix)).map(|(_, object)| Arc::clone(object)).collect()
    }

    pub(super) fn owned_by(&self, uid: &str) -> Vec<Arc<Cached>> {
        self.indexed(&self.by_owner, uid)
    }

    pub(super) fn uncontrolled(&self, namespace: &str) -> Vec<Arc<Cached>> {
        self.indexed(&self.uncontrolled, namespace)
    }

    pub(super) fn on_node(&self, node: &str) -> Vec<Arc<Cached>> {
        self.indexed(&self.by_node, node)
    }

    pub(super) fn with_labels(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Cached>> {
        let carries =
            |object: &Cached| labels.iter().all(|(key, value)| object.header.labels().get(key) == Some(value.as_str()));
        let Some(by_label) = &self.by_label else {
            return self.in_namespace(namespace).into_iter().filter(|object| carries(object)).collect();
        };
        let sets = labels.iter().map(|(key, value)| by_label.get(label_entry(namespace, key, value).as_str()));
        let Some(sets) = sets.collect::<Option<Vec<_>>>() else { return Vec::new() };
        match sets.into_iter().min_by_key(|set| set.len()) {
            None => self.in_namespace(namespace),
            Some(fewest) => self.objects_of(fewest).filter(|object| carries(object)).collect(),
        }
    }

    fn indexed(&self, index: &Index, entry: &str) -> Vec<Arc<Cached>> {
        index.get(entry).map(|keys| self.objects_of(keys).collect()).unwrap_or_default()
    }

    fn objects_of<'a>(&'a self, keys: &'a BTreeSet<Key>) -> impl Iterator<Item = Arc<Cached>> + 'a {
        keys.iter().map(|key| Arc::clone(self.objects.get(key).expect("an index holds only keys that exist")))
    }
}

fn label_entry(namespace: &str, label: &str, value: &str) -> String {
    format!("{namespace}/{label}={value}")
}

fn insert(index: &mut Index, entry: &str, key: &Key) {
    match index.get_mut(entry) {
        Some(keys) => {
            keys.insert(key.clone());
        }
        None => {
            index.insert(entry.into(), BTreeSet::from([key.clone()]));
        }
    }
}

fn remove(index: &mut Index, entry: &str, key: &Key) {
    if let Some(keys) = index.get_mut(entry) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Store};
    use bytes::Bytes;
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use windlass_api::Object;

    fn pod(name: &str, revision: u64, owner: &str, node: &str) -> Object {
        let owners: Value = match owner {
            "" => json!([]),
            uid => {
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true}])
            }
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "a", "name": name, "resourceVersion": revision.to_string(),
                "labels": {"app": "web", "name": name}, "ownerReferences": owners},
            "spec": {"nodeName": node}});
        Object::parse(Bytes::from(pod.to_string())).expect("a pod")
    }

    fn names(found: Vec<Arc<super::Cached>>) -> Vec<String> {
        found.iter().map(|object| object.header.name().to_owned()).collect()
    }

    #[test]
    fn indexes_follow_an_object_through_its_life() {
        for index_labels in [false, true] {
            let mut store = Store::new(index_labels);
            store.put(Arc::new(pod("p", 1, "", "")));
            store.put(Arc::new(pod("q", 2, "rs", "n1")));
            assert_eq!(names(store.uncontrolled("a")), ["p"]);
            assert_eq!(names(store.on_node("")), ["p"]);
            store.put(Arc::new(pod("p", 3, "rs", "n1")));
            assert_eq!(names(store.owned_by("rs")), ["p", "q"]);
            assert_eq!(names(store.on_node("n1")), ["p", "q"]);
            assert!(store.uncontrolled("a").is_empty());
            let labels = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
            };
            assert_eq!(names(store.with_labels("a", &labels(&[("app", "web"), ("name", "q")]))), ["q"]);
            assert!(store.with_labels("a", &labels(&[("app", "db")])).is_empty());
            assert_eq!(store.with_labels("a", &labels(&[])).len(), 2);
            store.remove(&Key::new("a", "p"), 4);
            assert_eq!(names(store.owned_by("rs")), ["q"]);
            assert_eq!(store.len(), 1);
        }
    }

    #[test]
    fn nothing_older_replaces_something_newer() {
        let mut store = Store::new(false);
        store.put(Arc::new(pod("p", 5, "", "n2")));
        store.put(Arc::new(pod("p", 4, "", "n1")));
        store.remove(&Key::new("a", "p"), 4);
        assert_eq!(names(store.on_node("n2")), ["p"]);
    }

    #[test]
    fn a_namespace_does_not_hold_its_longer_namesake() {
        let mut store = Store::new(false);
        store.put(Arc::new(pod("p", 1, "", "")));
        assert!(store.in_namespace("aa").is_empty());
        assert_eq!(store.in_namespace("a").len(), 1);
    }

    #[test]
    fn a_new_list_takes_out_what_it_does_not_hold() {
        let mut store = Store::new(false);
        store.put(Arc::new(pod("p", 1, "", "")));
        store.put(Arc::new(pod("q", 9, "", "")));
        store.retain(&BTreeSet::new(), 5);
        assert_eq!(names(store.list()), ["q"], "q changed after the list");
    }

    #[test]
    fn a_memo_is_made_once() {
        let mut store = Store::new(false);
        store.put(Arc::new(pod("p", 1, "", "")));
        let cached = store.get("a/p").expect("just put");
        let mut made = 0;
        for _ in 0..3 {
            assert_eq!(*cached.memo(|object| (made += 1, object.header.revision).1), 1);
        }
        assert_eq!(made, 1);
    }
}
