//! Kinds that are stored in another version than they are served in.

use std::sync::Arc;

use serde_json::{Value, json};
use windlass_api::convert::{Convert, Stored};
use windlass_api::schema::MessageRef;
use windlass_api::{Kind, Resource, kinds};

use crate::{Api, Reply};

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// Two fields of Event under their newer names.
struct Renamed;

const NAMES: [(&str, &str); 2] = [("message", "note"), ("involvedObject", "regarding")];

impl Convert for Renamed {
    fn to_served(&self, object: &mut Value) {
        NAMES.iter().for_each(|(stored, served)| rename(object, stored, served));
    }

    fn to_stored(&self, object: &mut Value) {
        NAMES.iter().for_each(|(stored, served)| rename(object, served, stored));
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    let fields = object.as_object_mut().expect("an object");
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

/// A server of core/v1 Event and of a newer version of it.
async fn api() -> Api {
    Api::start_with(|config, _| {
        let core = config.registry.get("", "v1", "events").expect("a built-in kind");
        let mut newer = Resource::clone(core);
        newer.kind = Kind { group: "events.k8s.io".into(), ..kinds::EVENT.clone() };
        newer.message = MessageRef::built_in("events.k8s.io/v1", "Event").expect("a message of the table");
        newer.selectable_fields = vec!["regarding.name".to_owned()];
        newer.stored = Some(Stored::new(kinds::EVENT.clone(), Arc::new(Renamed)));
        config.registry.insert(newer);
    })
    .await
}

fn event(name: &str) -> Value {
    json!({
        "metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": name},
        "reason": "R", "message": "m", "type": "Normal",
    })
}

/// What an object says of its version.
fn version(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", text("apiVersion"), text("message"), text("note"))
}

fn items(reply: &Reply) -> Vec<String> {
    reply.json()["items"].as_array().expect("a list").iter().map(version).collect()
}

#[tokio::test]
async fn one_object_is_read_in_every_version() {
    let api = api().await;
    let made = api.make(OLD, &event("a")).await;
    let newer = api.get(&format!("{NEW}/a")).await.json();
    assert_eq!((version(&made), version(&newer)), ("v1 m -".to_owned(), "events.k8s.io/v1 - m".to_owned()));
    assert_eq!(newer["metadata"], made["metadata"], "metadata is the same in all versions");
    assert_eq!((items(&api.get(OLD).await), items(&api.get(NEW).await)), (vec![version(&made)], vec![version(&newer)]));
}

#[tokio::test]
async fn selectors_look_at_the_served_version() {
    let api = api().await;
    for name in ["a", "b"] {
        api.make(OLD, &event(name)).await;
    }
    let found = api.get(&format!("{NEW}?fieldSelector=regarding.name=b&limit=5")).await;
    assert_eq!(found.json()["items"][0]["metadata"]["name"], "b");
    assert_eq!(items(&found).len(), 1);
}

#[tokio::test]
async fn a_write_through_one_version_is_seen_in_the_other() {
    let api = api().await;
    api.make(OLD, &event("a")).await;
    let patched = api.merge(&format!("{NEW}/a"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((patched.said(), version(&patched.json())), ("200".to_owned(), "events.k8s.io/v1 - m".to_owned()));
    let stored = api.get(&format!("{OLD}/a")).await.json();
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(stored["metadata"], patched.json()["metadata"]);
    let gone = api.delete(&format!("{NEW}/a")).await;
    assert_eq!((gone.said(), api.get(&format!("{OLD}/a")).await.code.as_u16()), ("200".to_owned(), 404));
}

#[tokio::test]
async fn a_watch_shows_its_own_version() {
    let api = api().await;
    api.make(OLD, &event("a")).await;
    let mut watches = [api.watch(&format!("{NEW}?watch=1")).await, api.watch(&format!("{OLD}?watch=1")).await];
    api.make(OLD, &event("b")).await;
    api.delete(&format!("{OLD}/a")).await;
    for (lines, shown) in watches.iter_mut().zip(["events.k8s.io/v1 - m", "v1 m -"]) {
        for wanted in ["ADDED a", "ADDED b", "DELETED a"] {
            let event = lines.next().await.expect("the watch goes on");
            let name = event["object"]["metadata"]["name"].as_str().expect("a name");
            assert_eq!(format!("{} {name}", event["type"].as_str().expect("a type")), wanted);
            assert_eq!(version(&event["object"]), shown);
        }
    }
}
