//! The walk that most entries of the list ask for: a kind is announced, and its objects can be made, read, watched,
//! patched, replaced and deleted, one and many.
//!
//! Goal        an entry that is this walk is a row: the kind, an object, and what its status may say
//! Rules
//!   R1 announced   discovery has the group, the version, the resource with its verbs, and its status
//!   R2 lives       one object is made, read, patched, replaced and deleted, and a watch tells of each step
//!   R3 status      it is read, patched and replaced where it is served, and the specification stays
//!   R4 collection  many objects are found by label, here and everywhere, and deleted at once
//! Relies on   nothing: controllers may write to the objects meanwhile. A replacement is tried again on a conflict, and
//!             a watch is waited for until it tells what was done

use serde_json::{Value, json};
use windlass_api::merge::merge;

use crate::Test;
use crate::api::MERGE;

/// What a resource can do, as discovery says it.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Objects of one walk.
const OBJECTS: usize = 3;

/// A row: a kind and an object of it.
pub struct Walk {
    version: &'static str,
    plural: &'static str,
    /// Where the objects are made.
    collection: String,
    /// The collection of the whole cluster.
    everywhere: String,
    /// Found by this label only.
    selector: String,
    objects: [Value; OBJECTS],
    /// What the status is patched with, and then replaced with.
    status: Option<[Value; 2]>,
    /// Besides a label, what a patch changes.
    change: Value,
}

/// A status that has a condition of this type.
pub fn condition(kind: &str) -> Value {
    json!({"status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "Conformance", "message": "set by a test"}]}})
}

impl Walk {
    /// A kind whose objects are in a namespace.
    pub fn namespaced(test: &Test, version: &'static str, plural: &'static str, object: Value) -> Walk {
        Walk::new(test, (version, plural), test.path(version, plural), object)
    }

    /// A kind whose objects are the cluster's.
    pub fn cluster(test: &Test, version: &'static str, plural: &'static str, object: Value) -> Walk {
        Walk::new(test, (version, plural), test.everywhere(version, plural), object)
    }

    fn new(test: &Test, (version, plural): (&'static str, &'static str), collection: String, object: Value) -> Walk {
        let objects = std::array::from_fn(|at| {
            let mut object = object.clone();
            object["metadata"]["name"] = json!(test.unique(&format!("walk-{at}")));
            object["metadata"]["labels"]["walk"] = json!(test.namespace);
            object
        });
        let everywhere = test.everywhere(version, plural);
        let selector = format!("labelSelector=walk%3D{}", test.namespace);
        Walk { version, plural, collection, everywhere, selector, objects, status: None, change: json!({}) }
    }

    /// The kind has a status, which is patched with the first and replaced with the second of these.
    pub fn status(mut self, patched: Value, replaced: Value) -> Walk {
        self.status = Some([patched, replaced]);
        self
    }

    /// What the objects are called, where that is not for the walk to choose.
    pub fn names(mut self, names: [&str; OBJECTS]) -> Walk {
        for (object, name) in self.objects.iter_mut().zip(names) {
            object["metadata"]["name"] = json!(name);
        }
        self
    }

    /// What a patch changes besides a label.
    pub fn change(mut self, change: Value) -> Walk {
        self.change = change;
        self
    }

    /// Every rule, in order.
    pub async fn whole(self, test: &Test) {
        self.announced(test).await;
        self.lives(test).await;
        if self.status.is_some() {
            self.has_status(test).await;
        }
        self.collection(test).await;
    }

    /// R1: the discovery documents have the kind.
    pub async fn announced(&self, test: &Test) {
        let document = match self.version.split_once('/') {
            Some((group, version)) => {
                let groups = test.api.get("/apis").await.ok();
                let found = with(&groups["groups"], "name", group);
                assert!(found["versions"].to_string().contains(self.version), "{found}");
                let of_group = test.api.get(&format!("/apis/{group}")).await.ok();
                with(&of_group["versions"], "version", version);
                format!("/apis/{}", self.version)
            }
            None => format!("/api/{}", self.version),
        };
        let resources = test.api.get(&document).await.ok()["resources"].clone();
        has_verbs(with(&resources, "name", self.plural), &VERBS);
        if self.status.is_some() {
            has_verbs(with(&resources, "name", &format!("{}/status", self.plural)), &["get", "patch", "update"]);
        }
    }

    /// R2: one object, from its beginning to its end.
    pub async fn lives(&self, test: &Test) {
        let name = &self.objects[0]["metadata"]["name"];
        let one = self.path(0);
        let mut events = test.api.watch(&self.collection, &self.selector).await;
        let made = test.api.create(&self.collection, &self.objects[0]).await.ok();
        holds(&made, &self.objects[0]);
        let is_it = |object: &Value| object["metadata"]["name"] == *name;
        events.until("ADDED", &is_it).await;
        assert_eq!(test.api.get(&one).await.ok()["metadata"]["uid"], made["metadata"]["uid"]);

        let mut patch = self.change.clone();
        patch["metadata"]["labels"]["patched"] = json!("yes");
        holds(&test.api.patch(&one, MERGE, &patch).await.ok(), &patch);
        holds(&test.api.get(&one).await.ok(), &patch);
        events.until("MODIFIED", |object: &Value| object["metadata"]["labels"]["patched"] == "yes").await;

        let replaced = test.api.replace(&one, |object| object["metadata"]["labels"]["updated"] = json!("yes")).await;
        holds(&replaced, &patch);
        events.until("MODIFIED", |object: &Value| object["metadata"]["labels"]["updated"] == "yes").await;

        test.api.delete(&one).await.ok();
        test.api.until_gone(&one).await;
        events.until("DELETED", &is_it).await;
    }

    /// R3: the status of one object.
    pub async fn has_status(&self, test: &Test) {
        let [patched, replaced] = self.status.as_ref().expect("the row says what the status may be");
        let made = test.api.create(&self.collection, &self.objects[1]).await.ok();
        let status = format!("{}/status", self.path(1));
        let since = made["metadata"]["resourceVersion"].as_str().expect("an object has a revision");
        let query = format!("{}&resourceVersion={since}", self.selector);
        let mut events = test.api.watch(&self.collection, &query).await;
        assert_eq!(test.api.get(&status).await.ok()["metadata"]["uid"], made["metadata"]["uid"]);
        let after = test.api.patch(&status, MERGE, patched).await.ok();
        holds(&after, patched);
        assert_eq!(after["spec"], made["spec"], "a status changes no specification");
        events.until("MODIFIED", |object: &Value| is_in(object, patched)).await;
        let after = test.api.replace(&status, |object| merge(object, replaced.clone())).await;
        holds(&after, replaced);
        events.until("MODIFIED", |object: &Value| is_in(object, replaced)).await;
        test.api.delete(&self.path(1)).await.ok();
        test.api.until_gone(&self.path(1)).await;
    }

    /// R4: many objects at once.
    pub async fn collection(&self, test: &Test) {
        for object in &self.objects {
            test.api.create(&self.collection, object).await.ok();
        }
        let selected = format!("{}?{}", self.collection, self.selector);
        for path in [&selected, &format!("{}?{}", self.everywhere, self.selector)] {
            let list = test.api.get(path).await.ok();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(OBJECTS), "{path}: {list}");
        }
        test.api.patch(&self.path(2), MERGE, &json!({"metadata": {"labels": {"walk": "another"}}})).await.ok();
        test.api.delete(&selected).await.ok();
        let is_empty = |reply: &crate::api::Reply| reply.json()["items"].as_array().is_some_and(Vec::is_empty);
        test.api.until(&selected, "empty", is_empty).await;
        test.api.get(&self.path(2)).await.ok();
        test.api.delete(&self.path(2)).await.ok();
        test.api.until_gone(&self.path(2)).await;
    }

    /// Where one of the objects is.
    fn path(&self, at: usize) -> String {
        let name = self.objects[at]["metadata"]["name"].as_str().expect("each object has a name");
        format!("{}/{name}", self.collection)
    }
}

/// The entry of a list whose key has this value.
fn with<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let mut found = list.as_array().into_iter().flatten().filter(|entry| entry[key] == value);
    found.next().unwrap_or_else(|| panic!("expected {key} {value:?} in {list}"))
}

fn has_verbs(resource: &Value, verbs: &[&str]) {
    for verb in verbs {
        assert!(resource["verbs"].as_array().is_some_and(|found| found.contains(&json!(verb))), "{verb}: {resource}");
    }
}

/// Asserts that an object has everything that is wished of it, and may have more.
#[track_caller]
pub fn holds(found: &Value, wished: &Value) {
    assert!(is_in(found, wished), "expected {wished} in {found}");
}

/// Whether everything that is wished is in an object; each wished item of a list is somewhere in the found list.
fn is_in(found: &Value, wished: &Value) -> bool {
    match (found, wished) {
        (Value::Object(found), Value::Object(wished)) => {
            wished.iter().all(|(key, wished)| is_in(found.get(key).unwrap_or(&Value::Null), wished))
        }
        (Value::Array(found), Value::Array(wished)) => {
            wished.iter().all(|wished| found.iter().any(|found| is_in(found, wished)))
        }
        _ => found == wished,
    }
}
