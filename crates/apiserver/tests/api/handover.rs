//! Objects handed to parts of the server's own process: the same changes as a watch of lines, the same objects for all.

use std::sync::Arc;

use http::Method;
use serde_json::json;
use windlass_api::handover::{AsObjects, ListedObjects, ObjectEvent, ObjectEvents, WatchedObjects};
use windlass_stdx::{Request, body_from};

use crate::{Api, CONFIG_MAPS, PATIENCE, PODS, admin, bind, config_map, pod};

fn ask(path: &str) -> Request {
    let request = http::Request::builder().method(Method::GET).uri(path).extension(AsObjects { linked_only: false });
    request.body(body_from("")).expect("a test sends a well-formed request")
}

async fn list(api: &Api, path: &str) -> ListedObjects {
    let mut response = api.apiserver.transport(admin()).call(ask(path)).await.expect("the server always answers");
    response.extensions_mut().remove().expect("a list of objects")
}

async fn watch(api: &Api, path: &str) -> Box<dyn ObjectEvents> {
    let mut response = api.apiserver.transport(admin()).call(ask(path)).await.expect("the server always answers");
    let watched: WatchedObjects = response.extensions_mut().remove().expect("a watch of objects");
    watched.take().expect("nobody took it before")
}

/// The next change in words: `ADDED p@7`.
async fn next(events: &mut Box<dyn ObjectEvents>) -> String {
    let next = std::future::poll_fn(|context| events.poll_event(context));
    let next = tokio::time::timeout(PATIENCE, next).await.expect("a change comes in time");
    let (word, object) = match next {
        None => return "END".to_owned(),
        Some(Err(error)) => return format!("ERROR {}", error.message),
        Some(Ok(ObjectEvent::Bookmark(_))) => return "BOOKMARK".to_owned(),
        Some(Ok(ObjectEvent::Added(object))) => ("ADDED", object),
        Some(Ok(ObjectEvent::Modified(object))) => ("MODIFIED", object),
        Some(Ok(ObjectEvent::Deleted(object))) => ("DELETED", object),
    };
    assert_eq!(object.value()["metadata"]["resourceVersion"], object.header.revision.to_string());
    format!("{word} {}@{}", object.header.name(), object.header.revision)
}

#[tokio::test]
async fn lists_inside_the_process_share_the_stored_objects() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.make(CONFIG_MAPS, &config_map(name)).await;
    }
    let first = list(&api, &format!("{CONFIG_MAPS}?limit=2")).await;
    let again = list(&api, CONFIG_MAPS).await;
    assert_eq!((first.items.len(), again.items.len(), again.continue_from.as_str()), (2, 3, ""));
    assert!(Arc::ptr_eq(&first.items[0], &again.items[0]), "one object for all who ask");
    assert_eq!(again.revision, api.store.revision());
    let rest = list(&api, &format!("{CONFIG_MAPS}?limit=2&continue={}", first.continue_from)).await;
    assert_eq!(rest.items.iter().map(|object| object.header.name()).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn watches_inside_the_process_tell_what_lines_tell() {
    let api = Api::start().await;
    let path = format!("{PODS}?watch=1&labelSelector=app%3Dp&sendInitialEvents=true&allowWatchBookmarks=true");
    api.make(PODS, &pod("p")).await;
    let made = api.store.revision();
    let mut events = watch(&api, &format!("{path}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(next(&mut events).await, format!("ADDED p@{made}"));
    assert_eq!(next(&mut events).await, "BOOKMARK", "that was all");
    bind(&api, "p", "n1").await;
    assert_eq!(next(&mut events).await, format!("MODIFIED p@{}", api.store.revision()));
    api.merge(&format!("{PODS}/p"), &json!({"metadata": {"labels": {"app": "other"}}})).await;
    assert_eq!(next(&mut events).await, format!("DELETED p@{}", api.store.revision()), "at the revision of its end");
    api.apiserver.close();
    assert_eq!(next(&mut events).await, "END");
}

#[tokio::test]
async fn a_watch_inside_the_process_that_is_too_late_is_told_so() {
    let api = Api::start().await;
    let mut events = watch(&api, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", api.store.revision())).await;
    api.make(CONFIG_MAPS, &config_map("a")).await;
    // Taken by nobody yet: the watcher has only been woken.
    api.store.compact(api.store.revision()).expect("the revision is there");
    let said = next(&mut events).await;
    assert!(said.starts_with("ERROR too old resource version"), "{said}");
    assert_eq!(next(&mut events).await, "END");
}

#[tokio::test]
async fn who_asks_for_linked_objects_sees_no_others() {
    let api = Api::start().await;
    let linked = AsObjects { linked_only: true };
    let ask = |path: &str| {
        let mut request = ask(path);
        request.extensions_mut().insert(linked);
        request
    };
    api.make(CONFIG_MAPS, &config_map("alone")).await;
    let mut owned = config_map("owned");
    owned["metadata"]["finalizers"] = json!(["example.com/held"]);
    api.make(CONFIG_MAPS, &owned).await;
    let transport = api.apiserver.transport(admin());
    let mut response = transport.call(ask(&format!("{CONFIG_MAPS}?limit=1"))).await.expect("an answer");
    let list: ListedObjects = response.extensions_mut().remove().expect("a list of objects");
    assert_eq!(list.items.iter().map(|object| object.header.name()).collect::<Vec<_>>(), ["owned"]);
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", list.revision);
    let mut response = transport.call(ask(&path)).await.expect("an answer");
    let watched: WatchedObjects = response.extensions_mut().remove().expect("a watch of objects");
    let mut events = watched.take().expect("nobody took it before");
    api.merge(&format!("{CONFIG_MAPS}/alone"), &json!({"data": {"k": "2"}})).await;
    assert_eq!(next(&mut events).await, "BOOKMARK", "how far it is, although there was nothing to tell");
    api.merge(&format!("{CONFIG_MAPS}/alone"), &json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    assert_eq!(next(&mut events).await, format!("ADDED alone@{}", api.store.revision()));
    api.merge(&format!("{CONFIG_MAPS}/alone"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(next(&mut events).await, format!("DELETED alone@{}", api.store.revision()), "nobody's again");
}
